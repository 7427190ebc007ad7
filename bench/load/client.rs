//! A plain HTTP/1.1 client on blocking sockets, one thread a connection. It reads bodies into one buffer and drops
//! them: the same cost whichever server sends.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

struct Answer {
    status: u16,
    length: u64,
    head: String,
}

impl Connection {
    fn open(base: &str) -> Self {
        let address = base.trim_start_matches("http://").trim_end_matches('/');
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{base}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, buffer: vec![0; 256 * 1024], filled: 0 }
    }

    fn ask(&mut self, path: &str, more: &str) -> Answer {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let end = loop {
            if let Some(end) =
                self.buffer[..self.filled].windows(4).position(|four| four == b"\r\n\r\n")
            {
                break end + 4;
            }
            let count = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
            assert!(count > 0, "{path}: closed before the head was whole");
            self.filled += count;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length
            .unwrap_or_else(|| panic!("{path}: no Content-Length in {head}"))
            .trim()
            .parse()
            .unwrap();
        Answer { status, length, head }
    }

    /// Read the body and drop it.
    fn skip(&mut self, length: u64) {
        let mut left = length - u64::try_from(self.filled).unwrap();
        self.filled = 0;
        while left > 0 {
            let count = self.stream.read(&mut self.buffer).unwrap();
            assert!(count > 0, "closed with {left} bytes to come");
            left -= u64::try_from(count).unwrap();
        }
    }

    fn text(&mut self, path: &str) -> String {
        let answer = self.ask(path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        let length = usize::try_from(answer.length).unwrap();
        while self.filled < length {
            let count = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
            assert!(count > 0, "{path}: cut");
            self.filled += count;
        }
        self.filled = 0;
        String::from_utf8(self.buffer[..length].to_vec()).unwrap()
    }

    fn fetch(&mut self, path: &str) -> u64 {
        let answer = self.ask(path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        self.skip(answer.length);
        answer.length
    }
}

fn field<'a>(narinfo: &'a str, name: &str) -> &'a str {
    let value = narinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("no {name} in {narinfo}"))
}

pub(crate) fn text(base: &str, path: &str) -> String {
    Connection::open(base).text(path)
}

pub(crate) fn nar_urls(base: &str, hashes: &[String]) -> Vec<String> {
    let mut connection = Connection::open(base);
    let narinfos = hashes.iter().map(|hash| connection.text(&format!("{hash}.narinfo")));
    narinfos.map(|narinfo| field(&narinfo, "URL").to_owned()).collect()
}

pub(crate) fn wait_until_baked(base: &str, hashes: &[String]) {
    let limit = Instant::now() + Duration::from_secs(120);
    let mut connection = Connection::open(base);
    for hash in hashes {
        while field(&connection.text(&format!("{hash}.narinfo")), "Compression") != "zstd" {
            assert!(Instant::now() < limit, "{hash} is not baked after two minutes");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn latency(base: &str, hashes: &[String], count: usize) -> f64 {
    let mut connection = Connection::open(base);
    let paths: Vec<String> = hashes.iter().map(|hash| format!("{hash}.narinfo")).collect();
    let mut times = Vec::with_capacity(count);
    for path in paths.iter().cycle().take(count) {
        let start = Instant::now();
        connection.fetch(path);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times)
}

/// How long answers took, in microseconds.
pub(crate) struct Spread {
    times: Vec<f64>,
    found: usize,
}

impl Spread {
    /// The median, the 99th of 100, how many were found, and how many asked for.
    pub(crate) fn print(mut self) {
        self.times.sort_by(f64::total_cmp);
        let at = |part: usize| self.times.get(self.times.len() * part / 100).unwrap_or(&f64::NAN);
        println!("{:.1} {:.1} {} {}", at(50), at(99), self.found, self.times.len());
    }
}

/// How often [`spread`] asks: what is measured is not how much the load client leaves of the processor.
const EVERY: Duration = Duration::from_millis(1);

/// Asks for narinfos here and there, from the `first` on each once until all were, of which some may be gone, as long as
/// `goes_on` says so.
pub(crate) fn spread(
    base: &str,
    hashes: &[String],
    first: usize,
    goes_on: impl Fn(usize) -> bool,
) -> Spread {
    // A prime, so that all come before any comes again.
    const STEP: usize = 2_654_435_761;
    let mut connection = Connection::open(base);
    let (mut times, mut found) = (Vec::new(), 0);
    let began = Instant::now();
    while goes_on(times.len()) {
        let due = began + EVERY * u32::try_from(times.len()).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let chosen = (first + times.len()) % hashes.len() * STEP % hashes.len();
        let start = Instant::now();
        let answer = connection.ask(&format!("{}.narinfo", hashes[chosen]), "");
        connection.skip(answer.length);
        times.push(start.elapsed().as_secs_f64() * 1e6);
        assert!(matches!(answer.status, 200 | 404), "{}", answer.head);
        found += usize::from(answer.status == 200);
    }
    Spread { times, found }
}

/// Fetch every URL once over so many connections: seconds, and bytes of bodies.
pub(crate) fn fetch_all(base: &str, urls: &[&str], connections: usize) -> (f64, u64) {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = Connection::open(base);
                while let Some(url) = urls.get(next.fetch_add(1, Ordering::Relaxed)) {
                    bytes.fetch_add(connection.fetch(url), Ordering::Relaxed);
                }
            });
        }
    });
    (start.elapsed().as_secs_f64(), bytes.into_inner())
}

/// The same URL on so many connections at once.
pub(crate) fn fetch_at_once(base: &str, url: &str, connections: usize) {
    fetch_all(base, &vec![url; connections], connections);
}

/// The median milliseconds of 64 KiB at the start and of 64 KiB at the end, asked for in turn.
pub(crate) fn range(base: &str, url: &str) -> (f64, f64) {
    let mut connection = Connection::open(base);
    let head = connection.ask(url, "Range: bytes=0-0\r\n");
    assert_eq!(head.status, 206, "{url}: {}", head.head);
    connection.skip(head.length);
    let size: u64 = head
        .head
        .lines()
        .find_map(|line| line.strip_prefix("content-range: bytes 0-0/"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut times = (Vec::new(), Vec::new());
    let mut timed = |from: u64| {
        let start = Instant::now();
        let answer = connection.ask(url, &format!("Range: bytes={from}-{}\r\n", from + 65_535));
        assert_eq!(answer.status, 206, "{}", answer.head);
        connection.skip(answer.length);
        start.elapsed().as_secs_f64() * 1e3
    };
    for turn in 0..40 {
        // Other bytes each time, so that nobody answers from what it has just decoded.
        let shift = turn * 1_000_003;
        times.0.push(timed(shift));
        times.1.push(timed(size - 65_536 - shift));
    }
    (median(times.0), median(times.1))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
