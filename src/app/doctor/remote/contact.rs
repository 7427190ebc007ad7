//! The first request, by hand and without a secret: what answers there, is it HTTP, how late is it there, and
//! does it want to know who asks.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use jiff::fmt::rfc2822;
use rustls::pki_types::ServerName;

use super::super::Finding;
use super::reach::{ANSWER_TIMEOUT, Bounded, is_timeout};
use super::text::{length, shown, url_without_secrets};
use super::{Client, Step, Stopped};
use crate::nix::cache_info;
use crate::source::upstream::connect::Address;
use crate::tls::probe;

/// No head of an answer is longer, in bytes.
const MAX_HEAD: u64 = 16 << 10;
/// A clock that is off by so many seconds is off; less may be the way of the answer.
const CLOCK_TOLERANCE: u64 = 60;

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContactError {
    /// Nothing came, or not all of it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something came, and it is no HTTP.
    #[error("what answers there is no HTTP")]
    NotHttp,
}

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Asks over TLS, whoever the server is.
pub(super) fn secure(address: &Address, place: SocketAddr) -> Result<Head, ContactError> {
    let name = server_name(address)?;
    let (_, stream) = probe::shake_hands(Bounded::open(place)?, &name, &[b"http/1.1"])?;
    ask(stream, address)
}

/// Asks without TLS.
pub(super) fn plain(address: &Address, place: SocketAddr) -> Result<Head, ContactError> {
    ask(Bounded::open(place)?, address)
}

/// The name of the server, as TLS has it.
pub(super) fn server_name(address: &Address) -> io::Result<ServerName<'static>> {
    ServerName::try_from(address.host().to_owned()).map_err(io::Error::other)
}

fn ask(mut stream: impl Read + Write, address: &Address) -> Result<Head, ContactError> {
    let (root, path) = address.split();
    let host = root.split_once("://").map_or(root, |(_, host)| host);
    let agent = concat!("snowbank/", env!("CARGO_PKG_VERSION"));
    let request = format!(
        "GET {path}/{} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        cache_info::NAME
    );
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 2048];
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") && (bytes.len() as u64) < MAX_HEAD {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if bytes.is_empty() => return Err(error.into()),
            // What came first says more than how it ended.
            Err(_) => break,
        }
    }
    if bytes.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    parse(&bytes).ok_or(ContactError::NotHttp)
}

fn parse(bytes: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n\r\n").next()?.lines();
    let (version, rest) = lines.next()?.split_once(' ')?;
    let status = rest.split(' ').next()?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    version
        .starts_with("HTTP/")
        .then(|| Head { status, headers: lines.filter_map(header).collect() })
}

/// How many seconds the clock of the server is ahead of ours.
pub(super) fn clock_offset(head: &Head, now: i64) -> Option<i64> {
    // "GMT", as HTTP has it, is an obsolete zone of RFC 2822, which means the same.
    let date = rfc2822::parse(head.get("date")?).ok()?;
    Some(date.timestamp().as_second().saturating_sub(now))
}

/// What is to be said of the clocks.
pub(super) fn clock(offset: i64) -> Finding {
    let away = offset.unsigned_abs();
    if away <= CLOCK_TOLERANCE {
        return Finding::ok("clock: this machine and the server agree");
    }
    let direction = if offset > 0 { "behind" } else { "ahead of" };
    Finding::warning(
        format!("clock: this machine is {} {direction} the server", length(away)),
        "set the one that is wrong (`timedatectl set-ntp true`); certificates and tokens go by it",
    )
}

/// Whether the status is one of those by which a server asks who one is.
pub(super) const fn asks_login(status: u16) -> bool {
    matches!(status, 401 | 403)
}

/// Judges the first answer; gives its status.
pub(super) fn judge(
    client: &Client<'_>,
    place: SocketAddr,
    contact: Result<Head, ContactError>,
    findings: &mut Vec<Finding>,
) -> Result<u16, Stopped> {
    let address = &client.question.address;
    let head = match contact {
        Ok(head) if head.status != 400 || address.is_secure() => head,
        other => {
            findings.push(unspoken(address, place, other));
            return Err(Stopped(Step::Http));
        }
    };
    if !address.is_secure() {
        findings.push(Finding::ok("HTTP/1.1, as always without TLS"));
    }
    findings.push(match clock_offset(&head, client.now) {
        Some(offset) => clock(offset),
        None => Finding::skipped("clock", "the server does not say how late it is there"),
    });
    if (300..400).contains(&head.status) {
        findings.push(redirected(address, &head));
        return Err(Stopped(Step::Http));
    }
    Ok(head.status)
}

/// What an answer means that is none, or that says that the request was not understood.
fn unspoken(address: &Address, place: SocketAddr, contact: Result<Head, ContactError>) -> Finding {
    match contact {
        Err(ContactError::Io(error)) if is_timeout(&error) => Finding::problem(
            format!("HTTP: connected, and then no answer in {} s", ANSWER_TIMEOUT.as_secs()),
            "look whether the server hangs, and whether it is a cache that listens there",
        ),
        _ if !address.is_secure() && speaks_tls(address, place) => Finding::problem(
            format!("HTTP: {} speaks TLS, and was spoken to without", address.url()),
            format!("write https:// in the URL: {}", address.url().replacen("http:", "https:", 1)),
        ),
        Ok(head) => Finding::problem(
            format!("HTTP: the server answers {} to a request that is in order", head.status),
            "look at the log of the server, or of the proxy before it",
        ),
        // What TLS 1.3 says of it comes after the handshake.
        Err(error) if error.to_string().contains("CertificateRequired") => Finding::problem(
            "TLS: the server wants a certificate of the client",
            "a Nix of 2.34 and later shows one: write `?tls-certificate=FILE&tls-private-key=FILE` after the \
             URL in nix.conf",
        ),
        Err(error) => Finding::problem(
            format!("HTTP: no answer: {error}"),
            "look whether it is a cache that listens there, and at its log",
        ),
    }
}

/// Whether a handshake at the same place comes to something.
fn speaks_tls(address: &Address, place: SocketAddr) -> bool {
    let shake = || -> io::Result<()> {
        probe::shake_hands(Bounded::open(place)?, &server_name(address)?, &[b"http/1.1"])?;
        Ok(())
    };
    shake().is_ok()
}

fn redirected(address: &Address, head: &Head) -> Finding {
    let to = head.get("location").map_or_else(|| "nowhere".to_owned(), url_without_secrets);
    let (root, _) = address.split();
    let full = if to.starts_with('/') { format!("{root}{to}") } else { to };
    let base = full.trim_end_matches(cache_info::NAME).trim_end_matches('/');
    Finding::warning(
        format!("HTTP: it answers {}, a redirect to {}", head.status, shown(&full)),
        format!(
            "Nix follows it, at every request; write {base} instead, and `snowbank doctor {base}`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_clock_is_that_of_the_date() {
        let answer = head("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nx");
        let now = 784_111_777;
        assert_eq!(clock_offset(&answer, now), Some(0));
        assert_eq!(clock_offset(&head("HTTP/1.1 200 OK\r\n\r\n"), now), None);
        let said = clock(clock_offset(&answer, now - 7200).unwrap()).to_string();
        assert!(said.contains("this machine is 2 hours behind the server"), "{said}");
        let said = clock(clock_offset(&answer, now + 3 * 86_400).unwrap()).to_string();
        assert!(said.contains("3 days ahead of the server"), "{said}");
        assert!(clock(-30).remedy.is_none());
    }

    #[test]
    fn what_is_no_http_is_none() {
        assert_eq!(parse(b"\x15\x03\x03\x00\x02\x02\x46"), None);
        assert_eq!(parse(b"220 mail.example.org ESMTP\r\n"), None);
        assert_eq!(head("HTTP/1.1 401 Unauthorized\r\nA:b").get("a"), Some("b"));
    }

    #[test]
    fn a_redirect_says_which_address_to_write() {
        let address = Address::parse("http://h/c/x").unwrap();
        let said = |location: &str| {
            let answer = head(&format!("HTTP/1.1 308 P\r\nLocation: {location}\r\n\r\n"));
            redirected(&address, &answer).to_string()
        };
        let moved = said("https://other/c/x/nix-cache-info?token=secret");
        assert!(moved.contains("write https://other/c/x instead"), "{moved}");
        assert!(!moved.contains("secret"), "{moved}");
        assert!(said("/c/y/nix-cache-info").contains("`snowbank doctor http://h/c/y`"));
    }
}
