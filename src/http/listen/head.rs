//! A strict look at request heads, before hyper parses them.
//!
//! hyper is right by the letter of RFC 9112 where it is lenient: it takes a bare line feed for the end
//! of a line, and of a request with both `Transfer-Encoding` and `Content-Length` it drops the length
//! and goes on. A proxy in front of us that reads such a head in the other way would see other
//! requests than we do, which is all that request smuggling needs. No client of ours sends either, so
//! both are refused, with obsolete folding and repeated lengths.
//!
//! The scanner runs over the bytes as they are read and keeps a few words of state; it also knows
//! exactly when a head has begun, which the head timeout needs.

/// The state of one connection's stream of requests.
#[derive(Debug)]
pub(super) struct HeadScanner {
    state: State,
    /// The beginning of the current line, where it did not arrive in one piece.
    held: [u8; HELD],
    /// How long the current line is so far; more than `HELD` if it did not fit.
    length: usize,
    /// The last byte that was scanned.
    last: u8,
    /// How long the body is, once a line has said so.
    content_length: Option<u64>,
    transfer_encoding: bool,
}

/// Enough of a line for `Content-Length: 18446744073709551615` with room for some blanks.
const HELD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first byte of a head.
    Between,
    /// Before the request line, after an empty line, which is allowed there.
    Leading,
    /// In the request line.
    RequestLine,
    /// In the headers.
    Headers,
    /// In a body of known length, with that many bytes to come.
    Body(u64),
    /// In a chunked body. hyper finds its end; the answer to it closes the connection, so that
    /// nothing after it is ever taken for a head.
    Chunked,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadFault {
    #[error("a line ends in a line feed without a carriage return")]
    BareLineFeed,
    #[error("a header is folded over two lines")]
    Folded,
    #[error("Content-Length is no number")]
    BadLength,
    #[error("there are two Content-Length headers")]
    TwoLengths,
    #[error("there are both Transfer-Encoding and Content-Length")]
    TwoFramings,
}

impl HeadScanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Between,
            held: [0; HELD],
            length: 0,
            last: 0,
            content_length: None,
            transfer_encoding: false,
        }
    }

    /// Whether a head has begun and is not whole yet.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.state, State::Leading | State::RequestLine | State::Headers)
    }

    /// Whether everything that arrived belongs to whole requests.
    pub(super) fn is_between(&self) -> bool {
        self.state == State::Between
    }

    /// Looks at the next bytes of the connection. A fault comes with the index of the byte that
    /// must not be passed on: the line feed of the line at fault.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(), (usize, HeadFault)> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.state {
                State::Chunked => return Ok(()),
                State::Body(left) => {
                    let taken = left.min(rest.len() as u64);
                    let left = left - taken;
                    self.state = if left == 0 { State::Between } else { State::Body(left) };
                    // At most `rest.len()`, so the conversion cannot fail.
                    at += usize::try_from(taken).unwrap_or(rest.len());
                }
                State::Between => self.state = State::RequestLine,
                State::Leading | State::RequestLine | State::Headers => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.hold(rest);
                        return Ok(());
                    };
                    self.line(&rest[..end]).map_err(|fault| (at + end, fault))?;
                    at += end + 1;
                }
            }
        }
        Ok(())
    }

    /// Takes the part of a line that ends here, without its line feed.
    fn line(&mut self, part: &[u8]) -> Result<(), HeadFault> {
        let fault = if self.length == 0 {
            // The usual case: the line lies in one piece.
            match part.split_last() {
                Some((b'\r', line)) => self.whole_line(line, line.len()),
                _ => Err(HeadFault::BareLineFeed),
            }
        } else {
            self.hold(part);
            if self.last != b'\r' {
                return Err(HeadFault::BareLineFeed);
            }
            let length = self.length - 1;
            let held = self.held;
            self.whole_line(&held[..length.min(HELD)], length)
        };
        self.length = 0;
        fault
    }

    /// Notes a part of a line whose end has not arrived.
    fn hold(&mut self, part: &[u8]) {
        let start = self.length.min(HELD);
        let fits = part.len().min(HELD - start);
        self.held[start..start + fits].copy_from_slice(&part[..fits]);
        self.length += part.len();
        self.last = part.last().copied().unwrap_or(self.last);
    }

    /// Takes a whole line of `length` bytes, of which `line` is the beginning.
    fn whole_line(&mut self, line: &[u8], length: usize) -> Result<(), HeadFault> {
        match (self.state, line.first()) {
            (State::Headers, None) => self.end_of_head(),
            (State::Headers, Some(b' ' | b'\t')) => Err(HeadFault::Folded),
            (State::Headers, Some(b'c' | b'C' | b't' | b'T')) => {
                self.header(line, length > line.len())
            }
            (State::Headers, Some(_)) => Ok(()),
            (_, None) => {
                self.state = State::Leading;
                Ok(())
            }
            (_, Some(_)) => {
                self.state = State::Headers;
                Ok(())
            }
        }
    }

    fn header(&mut self, line: &[u8], cut_off: bool) -> Result<(), HeadFault> {
        // Without a colon it is not a header, and hyper says so.
        let Some(colon) = memchr::memchr(b':', line) else { return Ok(()) };
        let name = line[..colon].trim_ascii_end();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encoding = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(HeadFault::TwoLengths);
            }
            let value = line[colon + 1..].trim_ascii();
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit) && !cut_off;
            let text = std::str::from_utf8(value).ok().filter(|_| digits);
            self.content_length = text.and_then(|text| text.parse().ok());
            self.content_length.ok_or(HeadFault::BadLength)?;
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), HeadFault> {
        let length = self.content_length.take();
        let chunked = std::mem::take(&mut self.transfer_encoding);
        self.state = match (chunked, length) {
            (true, Some(_)) => return Err(HeadFault::TwoFramings),
            (true, None) => State::Chunked,
            (false, None | Some(0)) => State::Between,
            (false, Some(length)) => State::Body(length),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scans `text` in pieces of `size` bytes; what is left of it is the state.
    fn scan(text: &[u8], size: usize) -> Result<State, HeadFault> {
        let mut scanner = HeadScanner::new();
        for piece in text.chunks(size) {
            scanner.scan(piece).map_err(|(at, fault)| {
                assert_eq!(piece[at], b'\n', "the fault is at a line feed");
                fault
            })?;
        }
        Ok(scanner.state)
    }

    const CASES: [(&str, Result<State, HeadFault>); 18] = [
        ("", Ok(State::Between)),
        ("\r\n", Ok(State::Leading)),
        ("GET / HT", Ok(State::RequestLine)),
        ("GET / HTTP/1.1\r\nHo", Ok(State::Headers)),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Ok(State::Between)),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nG", Ok(State::RequestLine)),
        ("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", Ok(State::Body(2))),
        ("PUT / HTTP/1.1\r\ncontent-length:5\r\n\r\na\nb\n\nGET", Ok(State::RequestLine)),
        ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\nx", Ok(State::Chunked)),
        ("GET / HTTP/1.1\nHost: x\r\n\r\n", Err(HeadFault::BareLineFeed)),
        ("GET / HTTP/1.1\r\nHost: x\n\r\n", Err(HeadFault::BareLineFeed)),
        ("GET / HTTP/1.1\r\nHost: x\r\n\n", Err(HeadFault::BareLineFeed)),
        ("GET / HTTP/1.1\r\nA: x\r\n b\r\n\r\n", Err(HeadFault::Folded)),
        ("PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\n", Err(HeadFault::BadLength)),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            Err(HeadFault::BadLength),
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            Err(HeadFault::TwoLengths),
        ),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            Err(HeadFault::TwoFramings),
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length : 5\r\n\r\n",
            Err(HeadFault::TwoFramings),
        ),
    ];

    #[test]
    fn heads_are_told_from_bodies_and_faults_are_named_however_the_bytes_arrive() {
        for (text, expected) in CASES {
            for size in 1..=text.len().max(1) {
                assert_eq!(scan(text.as_bytes(), size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_length_behind_a_hundred_blanks_is_not_overlooked() {
        let text = format!("PUT / HTTP/1.1\r\nContent-Length: {}5\r\n\r\n", " ".repeat(100));
        assert_eq!(scan(text.as_bytes(), 7), Err(HeadFault::BadLength));
        assert_eq!(scan(text.as_bytes(), 1000), Ok(State::Body(5)));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_end_without_a_panic(bytes: Vec<u8>, size in 1usize..9) {
            let _state = scan(&bytes, size);
        }
    }
}
