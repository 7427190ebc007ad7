//! Clients that want to hurt: slow ones, many of them, and ones that never read (R20 to R22). A good client is served
//! meanwhile.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    bank::data_directory,
    fixtures::{fixtures, path},
    http::{Connection, field},
    nix::{Client, Version},
    server::{Server, Setup},
    wait_until,
};

/// Until when a connection without a whole request head must be closed.
const HEAD_LIMIT: Duration = Duration::from_secs(12);
/// Until when a body that nobody reads must be given up, with room for a busy machine.
const STALL_LIMIT: Duration = Duration::from_secs(50);

fn from_a_bank() -> (Server, crate::support::bank::DataDirectory) {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    (server, directory)
}

fn open(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| TcpStream::connect_timeout(&address, PATIENCE).ok()).collect()
}

/// Whether the other side has closed, without waiting.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let closed = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    closed
}

#[test]
fn r20_silent_partial_and_dripping_heads_are_cut_and_a_good_client_notices_nothing() {
    let (mut server, _directory) = from_a_bank();
    let address = server.address();
    // One in three is silent, one has sent half a head, and one goes on sending a byte a second.
    let mut slow: Vec<(usize, TcpStream)> = open(address, 750).into_iter().enumerate().collect();
    assert_eq!(slow.len(), 750, "as many connections as the test needs");
    for (index, stream) in &mut slow {
        match *index % 3 {
            1 => stream.write_all(b"GET /nix-cache-info HT").unwrap(),
            2 => stream.write_all(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nX-Drip: ").unwrap(),
            _ => {}
        }
    }
    let start = Instant::now();
    let url = format!("/{}.narinfo", path("leaf").hash());
    while !slow.is_empty() {
        assert!(
            start.elapsed() < HEAD_LIMIT + Duration::from_secs(3),
            "{} slow connections are still open",
            slow.len()
        );
        for (_, stream) in slow.iter_mut().filter(|(index, _)| index % 3 == 2) {
            let _ = stream.write(b"x");
        }
        let asked = Instant::now();
        server.get(&url).expect(200);
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "a good client waited {:?}",
            asked.elapsed()
        );
        thread::sleep(Duration::from_secs(1));
        slow.retain_mut(|(_, stream)| !is_closed(stream));
    }
    server.assert_alive();
}

#[test]
fn r21_a_reader_that_stops_is_cut_and_one_that_is_slow_but_moves_is_not() {
    let (server, _directory) = from_a_bank();
    let (mut stopped, mut slow) = (server.connect(), server.connect());
    let narinfo = format!("/{}.narinfo", path("big").hash());
    let narinfo = stopped.request("GET", &narinfo, &[]).expect(200).text();
    let url = format!("/{}", field(&narinfo, "URL").unwrap());
    let begin = |connection: &mut Connection| -> usize {
        connection.send_request("GET", &url, &[]).unwrap();
        connection.head().unwrap().expect(200).must("content-length").parse().unwrap()
    };
    let length = begin(&mut stopped);
    begin(&mut slow);
    let is_cut = || server.metric("snowbank_connections_total", "event=\"stall_timeout\"") > 0.0;
    let start = Instant::now();
    let mut arrived = 0;
    // A quarter of a megabyte every quarter of a second, for longer than the server waits for one that stands still.
    while start.elapsed() < STALL_LIMIT && !is_cut() {
        arrived += slow.exactly(256 * 1024).expect("a slow but moving download is never cut").len();
        thread::sleep(Duration::from_millis(250));
    }
    assert!(is_cut(), "a connection that nobody reads is still open after {STALL_LIMIT:?}");
    assert!(stopped.exactly(length).is_err(), "the stopped download cannot be whole any more");
    let rest = slow.exactly(length - arrived).expect("and it ends whole");
    assert_eq!(arrived + rest.len(), length);
}

#[test]
fn r22_without_file_descriptors_the_server_lives_and_recovers() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let mut server =
        Setup::on(&directory.data).bank_only(&fixtures().store).after_shell("ulimit -n 64").start();
    let address = server.address();
    let url = format!("/{}.narinfo", path("refs").hash());
    for _ in 0..3 {
        let mut flood = open(address, 200);
        for stream in &mut flood {
            let _ = stream.write_all(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        server.assert_alive();
        drop(flood);
        let start = Instant::now();
        wait_until("an answer after the flood", PATIENCE, || {
            let mut connection = server.connect();
            connection.patience(Duration::from_secs(1));
            connection.try_request("GET", &url, &[]).is_ok_and(|answer| answer.status == 200)
        });
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "it took {:?} to recover",
            start.elapsed()
        );
    }
    let client = Client::new(Version::Current, &fixtures().store);
    client.copy_from(&server.url(), &server.key(), &[path("refs")]).expect_success();
}

#[test]
fn r22_thousands_of_connections_do_not_end_the_server() {
    let (mut server, _directory) = from_a_bank();
    // As many as this process may open; the server refuses or queues what is over its own limit.
    let flood = open(server.address(), 900);
    server.assert_alive();
    drop(flood);
    wait_until("an answer after the flood", PATIENCE, || {
        let mut connection = server.connect();
        connection.patience(Duration::from_secs(1));
        connection
            .try_request("GET", "/nix-cache-info", &[])
            .is_ok_and(|answer| answer.status == 200)
    });
    wait_until("the flood's connections to be closed", PATIENCE, || server.open_files() < 100);
}

#[test]
fn downloads_that_are_given_up_leave_nothing_open() {
    let (server, _directory) = from_a_bank();
    let url = format!("/nar/{}.nar", fixtures().nar_hash(path("big")));
    server.get("/nix-cache-info").expect(200);
    let before = server.open_files();
    for _ in 0..50 {
        let mut connection = server.connect();
        connection.send_request("GET", &url, &[]).unwrap();
        connection.head().unwrap().expect(200);
        connection.exactly(100_000).unwrap();
    }
    wait_until("the files of given up downloads to be closed", PATIENCE, || {
        server.open_files() <= before + 4
    });
}

#[test]
fn sixty_four_downloads_at_once_take_little_memory() {
    let (server, directory) = from_a_bank();
    let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
    let url = format!("/{}", field(&narinfo, "URL").unwrap());
    let size = std::fs::metadata(directory.nar(path("big"))).unwrap().len();
    let idle = server.resident();
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(server.resident());
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let downloads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = server.connect();
                    connection.send_request("GET", &url, &[]).unwrap();
                    connection.head().unwrap().expect(200);
                    let mut left = usize::try_from(size).unwrap();
                    while left > 0 {
                        left -= connection.exactly(left.min(1 << 20)).unwrap().len();
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = downloads.into_iter().map(|download| download.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok), "a download failed");
        sampler.join().unwrap()
    });
    let grown = most.saturating_sub(idle) / 1024;
    assert!(grown <= 96, "64 downloads took {grown} MiB");
}

#[test]
fn a_range_at_the_end_does_not_read_what_comes_before() {
    let server = Setup::bare().local_store(&fixtures().store).start();
    let url = format!("/nar/{}.nar", fixtures().nar_hash(path("big")));
    let size = fixtures().dump_size(path("big"));
    let read = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    };
    server.head(&url).expect(200);
    let before = read();
    for index in 1..=20 {
        let from = size - index * 1000;
        let range = format!("bytes={from}-{}", from + 999);
        let part = server.connect().request("GET", &url, &[("Range", &range)]).expect(206);
        assert_eq!(part.body.len(), 1000);
    }
    let cost = (read() - before) >> 20;
    assert!(cost < 50, "20 ranges of 1,000 bytes made the server read {cost} MiB");
}
