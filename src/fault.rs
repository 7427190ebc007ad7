//! Places where a test build can be made to die, or be told that the system refused.
//!
//! A place is named where it stands: `fault::point("publish.rename")?`. In a release build it is
//! nothing. In a build with debug assertions the environment may arm it:
//!
//! ```text
//! SNOWBANK_FAULT=publish.rename=kill:3    the process is killed (SIGKILL) the third time it comes by
//! SNOWBANK_FAULT=publish.fsync=EIO:1      the first call fails with EIO, once
//! SNOWBANK_FAULT=write=ENOSPC             every call fails with ENOSPC
//! ```
//!
//! Several are separated by commas. Which files cannot be read any more is said in a file, and can be said
//! while the process runs:
//!
//! ```text
//! SNOWBANK_FAULT_READS=/tmp/list      each line of it is the number of an inode, and a byte of that file:
//!                                     what reads this byte or one behind it fails with EIO
//! ```

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

/// Passes, unless a test armed this place.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn point(_name: &str) -> io::Result<()> {
    Ok(())
}

/// Passes, unless a test armed this place.
#[cfg(debug_assertions)]
pub fn point(name: &str) -> io::Result<()> {
    armed::come_by(name)
}

/// Passes, unless a test listed `file` as one of which this part cannot be read.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn reading(_file: &impl AsFd, _part: Range<u64>) -> io::Result<()> {
    Ok(())
}

/// Passes, unless a test listed `file` as one of which this part cannot be read.
#[cfg(debug_assertions)]
pub fn reading(file: &impl AsFd, part: Range<u64>) -> io::Result<()> {
    armed::read(file, &part)
}

#[cfg(debug_assertions)]
mod armed {
    use std::ffi::OsString;
    use std::io;
    use std::ops::Range;
    use std::os::fd::AsFd;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::io::Errno;

    pub(super) struct Fault {
        name: String,
        what: What,
        /// The call that it strikes at, from 1; 0 is every call.
        at: u64,
        calls: AtomicU64,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum What {
        Kill,
        Refuse(Errno),
    }

    static FAULTS: LazyLock<Vec<Fault>> = LazyLock::new(|| {
        std::env::var("SNOWBANK_FAULT").map_or_else(|_| Vec::new(), |text| parse(&text))
    });

    static READS: LazyLock<Option<OsString>> =
        LazyLock::new(|| std::env::var_os("SNOWBANK_FAULT_READS"));

    pub(super) fn read(file: &impl AsFd, part: &Range<u64>) -> io::Result<()> {
        let Some(list) = &*READS else { return Ok(()) };
        // A list that is not there names no file.
        let list = std::fs::read_to_string(list).unwrap_or_default();
        if is_listed(&list, rustix::fs::fstat(file)?.st_ino, part) {
            return Err(Errno::IO.into());
        }
        Ok(())
    }

    pub(super) fn is_listed(list: &str, inode: u64, part: &Range<u64>) -> bool {
        let mut bad = list.lines().filter_map(|line| {
            let (inode, byte) = line.split_once(' ')?;
            Some((inode.parse::<u64>().ok()?, byte.parse::<u64>().ok()?))
        });
        bad.any(|(bad, byte)| bad == inode && part.end > byte)
    }

    pub(super) fn come_by(name: &str) -> io::Result<()> {
        strike(&FAULTS, name)
    }

    pub(super) fn strike(faults: &[Fault], name: &str) -> io::Result<()> {
        for fault in faults.iter().filter(|fault| fault.name == name) {
            let call = fault.calls.fetch_add(1, Ordering::Relaxed) + 1;
            if fault.at != 0 && fault.at != call {
                continue;
            }
            match fault.what {
                What::Refuse(errno) => return Err(errno.into()),
                What::Kill => {
                    let own = rustix::process::getpid();
                    // SIGKILL of oneself cannot fail, and what follows is never reached.
                    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                }
            }
        }
        Ok(())
    }

    /// What does not read as a fault is passed over: it would be a mistake of the test, which then
    /// sees that nothing happens.
    pub(super) fn parse(text: &str) -> Vec<Fault> {
        text.split(',').filter_map(one).collect()
    }

    fn one(text: &str) -> Option<Fault> {
        let (name, rest) = text.split_once('=')?;
        let (what, at) = match rest.split_once(':') {
            Some((what, at)) => (what, at.parse().ok()?),
            None => (rest, 0),
        };
        let what = match what {
            "kill" => What::Kill,
            "EIO" => What::Refuse(Errno::IO),
            "ENOSPC" => What::Refuse(Errno::NOSPC),
            "EDQUOT" => What::Refuse(Errno::DQUOT),
            _ => return None,
        };
        Some(Fault { name: name.into(), what, at, calls: AtomicU64::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::armed::{is_listed, parse, strike};

    #[test]
    fn a_place_that_is_not_armed_passes() {
        assert!(super::point("nowhere").is_ok());
        assert!(strike(&parse("other=EIO"), "here").is_ok());
    }

    #[test]
    fn a_listed_file_cannot_be_read_from_that_byte_on_and_no_other_can_it() {
        let list = "7 100\nnonsense\n8 0\n";
        assert!(!is_listed(list, 7, &(0..100)) && is_listed(list, 7, &(99..101)));
        assert!(is_listed(list, 7, &(200..300)) && is_listed(list, 8, &(0..1)));
        assert!(!is_listed(list, 9, &(0..u64::MAX)) && !is_listed("", 7, &(0..u64::MAX)));
        assert!(super::reading(&tempfile::tempfile().unwrap(), 0..1).is_ok());
    }

    #[test]
    fn an_armed_place_fails_at_the_call_that_was_named_and_at_no_other() {
        let faults = parse("a=EIO:2,b=ENOSPC,nonsense,c=what");
        assert!(strike(&faults, "a").is_ok());
        let error = strike(&faults, "a").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        assert!(strike(&faults, "a").is_ok());
        assert!(strike(&faults, "b").is_err() && strike(&faults, "b").is_err());
    }
}
