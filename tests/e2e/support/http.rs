//! HTTP/1.1 by hand: the bytes that go out are the test's, the bytes that come in are all seen.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::PATIENCE;

trait Stream: Read + Write + Send {
    fn patience(&self, limit: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn patience(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl Stream for UnixStream {
    fn patience(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// One connection, kept alive as long as the server allows.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    // What has arrived and belongs to no answer yet.
    ahead: Vec<u8>,
}

impl Connection {
    #[track_caller]
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::over(
            TcpStream::connect_timeout(&address, PATIENCE)
                .expect("the server accepts a connection"),
        )
    }

    /// As [`Self::open`], of a server that may be gone.
    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, PATIENCE).map(Self::over)
    }

    #[track_caller]
    pub(crate) fn open_unix(path: &Path) -> Self {
        Self::over(
            UnixStream::connect(path).expect("the server accepts a connection on its unix socket"),
        )
    }

    fn over(stream: impl Stream + 'static) -> Self {
        stream.patience(PATIENCE).unwrap();
        Self { stream: Box::new(stream), ahead: Vec::new() }
    }

    /// How long a read may wait from now on.
    pub(crate) fn patience(&self, limit: Duration) {
        self.stream.patience(limit).unwrap();
    }

    /// Exactly these bytes. A server that has closed already is no failure of sending.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A well-formed request and its whole answer.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        self.try_request(method, path, headers).unwrap_or_else(|error| {
            panic!("{method} {path}: the answer is cut or missing: {error}")
        })
    }

    pub(crate) fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Response> {
        self.send_request(method, path, headers)?;
        self.response(method == "HEAD")
    }

    pub(crate) fn send_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: cache.test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// The next answer, whole; an error when the connection ends before the answer does.
    pub(crate) fn response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut response = self.head()?;
        if to_head || matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        response.body = if response.header("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else if let Some(length) = response.header("content-length") {
            let length =
                length.parse().map_err(|_| io::Error::other("Content-Length is no number"))?;
            self.exactly(length)?
        } else {
            self.rest()?
        };
        Ok(response)
    }

    /// The status line and headers of the next answer.
    pub(crate) fn head(&mut self) -> io::Result<Response> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        Response::parse(&String::from_utf8_lossy(&head))
            .ok_or_else(|| io::Error::other("this is no HTTP head"))
    }

    /// Exactly so many bytes, or an error.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let already = self.ahead.len().min(length);
        let mut bytes: Vec<u8> = self.ahead.drain(..already).collect();
        let arrived = bytes.len();
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[arrived..])?;
        Ok(bytes)
    }

    /// All until the server closes; a reset is an error.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// All until the server closes or resets or says nothing more, however that ends.
    pub(crate) fn whatever_comes(&mut self) -> Vec<u8> {
        while self.more().is_ok_and(|count| count > 0) {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the server ends this connection within `limit`, whatever it says before.
    pub(crate) fn closes_within(&mut self, limit: Duration) -> bool {
        self.patience(limit);
        loop {
            match self.more() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| io::Error::other("a chunk size is no number"))?;
            body.extend(self.exactly(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let headers = lines
            .map(|line| {
                line.split_once(':')
                    .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self { status, headers, body: Vec::new() })
    }

    /// The value of a header that must not be there twice.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "the header {name} is there twice: {:?}", self.headers);
        value
    }

    /// A header that must be there.
    #[track_caller]
    pub(crate) fn must(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} among {:?}", self.headers))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).into_owned();
        assert_eq!(self.status, status, "headers {:?}, body begins {body:?}", self.headers);
        self
    }

    #[track_caller]
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is text")
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is no JSON: {error}"))
    }
}

/// The value of a narinfo's field, which must be there once at most.
#[track_caller]
pub(crate) fn field(narinfo: &str, name: &str) -> Option<String> {
    let values = fields(narinfo, name);
    assert!(values.len() <= 1, "{name} is there {} times in\n{narinfo}", values.len());
    values.into_iter().next()
}

/// All values of a narinfo's field.
pub(crate) fn fields(narinfo: &str, name: &str) -> Vec<String> {
    let start = format!("{name}: ");
    narinfo.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}
