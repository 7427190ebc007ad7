//! Connections to the TLS port that are opened and left.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    support::{PATIENCE, wait_until},
    tls::Secure,
};

/// In all, from so many addresses: below the share that one address has.
const CONNECTIONS: usize = 10_000;
const ADDRESSES: usize = 50;
/// What the server lets in at once, by default.
const MOST: usize = 4096;

/// Connects from the address on loopback with this number.
fn connect_from(number: usize, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let own = SocketAddr::from(([127, 0, 3, u8::try_from(number + 1).unwrap()], 0));
    socket.bind(&SockAddr::from(own)).unwrap();
    socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(5)).ok()?;
    Some(socket.into())
}

/// So many files may be open in this process from now on.
fn raise_limit(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= files);
    if !enough(limit.current) {
        let maximum = if enough(limit.maximum) { limit.maximum } else { Some(files) };
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum })
            .expect("10,000 connections take a limit of open files (ulimit -n) of 12,000");
    }
}

#[test]
fn ten_thousand_connections_that_are_left_are_bounded_and_given_up_and_others_are_served() {
    let secure = Secure::start("limits.head_timeout = \"2s\"");
    raise_limit(12_000);
    let (over, address) = (AtomicBool::new(false), secure.address());
    thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                let words = ["--interface", "127.0.0.9", "--max-time", "20"];
                secure.curl(&words, "/nix-cache-info").expect_success();
                served += 1;
            }
            served
        });
        let start = Instant::now();
        let left: Vec<TcpStream> = (0..CONNECTIONS)
            .filter_map(|number| connect_from(number % ADDRESSES, address))
            .collect();
        println!("{} connections in {:?}", left.len(), start.elapsed());
        assert!(left.len() >= CONNECTIONS * 9 / 10, "only {} came about", left.len());
        assert!(secure.server.open_files() < MOST + 200, "{}", secure.server.open_files());
        for mut stream in left {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = Vec::new();
            // Closed or reset: given up either way.
            if let Err(error) = stream.read_to_end(&mut said) {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it is still open");
            }
        }
        over.store(true, Ordering::Relaxed);
        let served = good.join().unwrap();
        println!("{served} requests were served meanwhile");
        assert!(served > 0);
    });
    assert!(secure.handshakes("result=\"timeout\"") > 0.0);
    wait_until("nothing is left of them", PATIENCE, || secure.server.open_files() < 200);
}
