//! The little of the nix-daemon's protocol that it takes to keep a root.
//!
//! Numbers are 64 bits, little endian; texts are their length, their bytes, and zeros up to a
//! multiple of eight (`worker-protocol.hh`, `worker-protocol-connection.cc`). We speak version 1.37 at
//! most: from 1.38 on both sides would tell each other what they can, of which we need nothing.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const CLIENT_MAGIC: u64 = 0x6e69_7863;
const SERVER_MAGIC: u64 = 0x6478_696f;
/// 1.37 and 1.10, the newest that we speak and the oldest.
const NEWEST: u64 = 0x125;
const OLDEST: u64 = 0x10a;
const ADD_TEMP_ROOT: u64 = 11;
/// What the daemon says before its answer.
const LAST: u64 = 0x616c_7473;
const NEXT: u64 = 0x6f6c_6d67;
const ERROR: u64 = 0x6378_7470;
const START_ACTIVITY: u64 = 0x5354_5254;
const STOP_ACTIVITY: u64 = 0x5354_4f50;
const RESULT: u64 = 0x5245_534c;
/// No text or list that it sends us is longer.
const MAX_LENGTH: u64 = 1 << 20;
/// A daemon that is stuck must not hold a push for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the daemon. What was added over it is kept until it is closed.
#[derive(Debug)]
pub struct Daemon {
    stream: BufReader<UnixStream>,
    version: u64,
}

impl Daemon {
    /// Agrees with the daemon on how to speak.
    pub(super) fn greet(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut daemon = Self { stream: BufReader::new(stream), version: 0 };
        daemon.send(&[CLIENT_MAGIC], None)?;
        if daemon.number()? != SERVER_MAGIC {
            return Err(invalid("it does not speak as a nix-daemon does"));
        }
        let theirs = daemon.number()?;
        if theirs & 0xff00 != NEWEST & 0xff00 || theirs < OLDEST {
            return Err(invalid("its protocol is none that we know"));
        }
        daemon.version = theirs.min(NEWEST);
        daemon.send(&[NEWEST], None)?;
        if daemon.version >= 0x10e {
            // No processor of our own.
            daemon.send(&[0], None)?;
        }
        if daemon.version >= 0x10b {
            // No space to be reserved.
            daemon.send(&[0], None)?;
        }
        if daemon.version >= 0x121 {
            daemon.text()?;
        }
        if daemon.version >= 0x123 {
            daemon.number()?;
        }
        daemon.finish_talking()?;
        Ok(daemon)
    }

    /// Has the daemon keep the full store path `root`, whether it is valid or not.
    pub(super) fn add_temp_root(&mut self, root: &str) -> io::Result<()> {
        self.send(&[ADD_TEMP_ROOT], Some(root))?;
        self.finish_talking()?;
        self.number().map(drop)
    }

    fn send(&mut self, numbers: &[u64], text: Option<&str>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        if let Some(text) = text {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        self.stream.get_mut().write_all(&bytes)
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.stream.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn length(&mut self) -> io::Result<u64> {
        let length = self.number()?;
        if length > MAX_LENGTH { Err(invalid("it sends too much")) } else { Ok(length) }
    }

    fn text(&mut self) -> io::Result<String> {
        let length = self.length()?;
        let mut bytes = Vec::new();
        self.stream.by_ref().take(length.next_multiple_of(8)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length.next_multiple_of(8) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(usize::try_from(length).map_err(io::Error::other)?);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Passes over what the daemon would have us show, up to its answer.
    fn finish_talking(&mut self) -> io::Result<()> {
        loop {
            match self.number()? {
                LAST => return Ok(()),
                NEXT => {
                    self.text()?;
                }
                START_ACTIVITY => {
                    for _ in 0..3 {
                        self.number()?;
                    }
                    self.text()?;
                    self.fields()?;
                    self.number()?;
                }
                STOP_ACTIVITY => {
                    self.number()?;
                }
                RESULT => {
                    self.number()?;
                    self.number()?;
                    self.fields()?;
                }
                ERROR if self.version >= 0x11a => {
                    let _kind = (self.text()?, self.number()?, self.text()?);
                    return Err(io::Error::other(self.text()?));
                }
                ERROR => return Err(io::Error::other(self.text()?)),
                _ => return Err(invalid("it says something that we do not know")),
            }
        }
    }

    fn fields(&mut self) -> io::Result<()> {
        for _ in 0..self.length()? {
            match self.number()? {
                0 => drop(self.number()?),
                1 => drop(self.text()?),
                _ => return Err(invalid("it has a field of an unknown kind")),
            }
        }
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the nix-daemon: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn numbers(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    /// Plays a daemon of `version` that says `before` in front of its answer, and gives back what it heard.
    fn talk(version: u64, before: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut said = numbers(&[SERVER_MAGIC, version]);
        if version >= 0x121 {
            said.extend(text("2.26.3"));
        }
        if version >= 0x123 {
            said.extend(numbers(&[1]));
        }
        said.extend(numbers(&[LAST]));
        said.extend(before);
        said.extend(numbers(&[LAST, 1]));
        theirs.write_all(&said).unwrap();
        let result =
            Daemon::greet(ours).and_then(|mut daemon| daemon.add_temp_root("/nix/store/x"));
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).unwrap();
        (result, heard)
    }

    #[test]
    fn every_version_of_the_daemon_is_told_of_the_root_as_it_expects() {
        for (version, zeros) in
            [(0x10a, 0), (0x10b, 1), (0x10e, 2), (0x121, 2), (0x126, 2), (0x130, 2)]
        {
            let (result, heard) = talk(version, &[]);
            result.unwrap();
            let mut expected = numbers(&[CLIENT_MAGIC, NEWEST]);
            expected.extend(numbers(&vec![0; zeros]));
            expected.extend(numbers(&[ADD_TEMP_ROOT]));
            expected.extend(text("/nix/store/x"));
            assert_eq!(heard, expected, "{version:x}");
        }
    }

    #[test]
    fn what_the_daemon_would_have_us_show_is_passed_over() {
        let mut before = numbers(&[NEXT]);
        before.extend(text("a line"));
        before.extend(numbers(&[START_ACTIVITY, 1, 2, 3]));
        before.extend(text("activity"));
        before.extend(numbers(&[2, 0, 7, 1]));
        before.extend(text("field"));
        before.extend(numbers(&[0, RESULT, 1, 2, 0, STOP_ACTIVITY, 1]));
        talk(0x125, &before).0.unwrap();
    }

    #[test]
    fn an_error_is_given_in_the_daemons_words() {
        let mut new = numbers(&[ERROR]);
        new.extend(text("Error"));
        new.extend(numbers(&[0]));
        new.extend(text("Error"));
        new.extend(text("no such store"));
        let error = talk(0x125, &new).0.unwrap_err();
        assert_eq!(error.to_string(), "no such store");
        let mut old = numbers(&[ERROR]);
        old.extend(text("no such store"));
        assert_eq!(talk(0x115, &old).0.unwrap_err().to_string(), "no such store");
    }

    #[test]
    fn what_is_no_daemon_is_refused() {
        for version in [0x205, 0x105] {
            assert!(talk(version, &[]).0.is_err(), "{version:x}");
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"HTTP/1.1 400 Bad Request").unwrap();
        assert!(Daemon::greet(ours).is_err());
        assert!(talk(0x125, &numbers(&[NEXT, u64::MAX])).0.is_err());
    }
}
