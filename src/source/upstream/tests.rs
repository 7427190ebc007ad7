use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use super::*;
use crate::nix::hash::Sha256;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePath;

/// Answers one request on each connection with the next of `answers`, and gives what was asked for.
fn answering(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let answer_one = |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> =
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            stream.write_all(&answer).unwrap();
            head[0].clone()
        };
        answers.into_iter().map(answer_one).collect()
    });
    (address, thread)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn at(address: SocketAddr) -> Upstream {
    let address = Address::parse(&format!("http://{address}/c/team/")).unwrap();
    Upstream::new(address, &|_| None).unwrap()
}

fn narinfo() -> NarInfo {
    let path = StorePath::parse(&format!("{}-x", "a".repeat(32))).unwrap();
    NarInfo {
        info: PathInfo::new(path, Sha256::of(b"nar"), 3),
        url: "nar/x.nar.xz".into(),
        compression: "xz".into(),
        file_hash: None,
        file_size: None,
    }
}

#[test]
fn a_path_that_it_has_is_had_and_one_that_it_has_not_is_none() {
    let text = narinfo().to_text(&StoreDir::default());
    let (address, server) = answering(vec![
        answer("200 OK", text.as_bytes()),
        answer("200 OK", b"bytes"),
        answer("404 Not Found", b""),
        answer("404 Not Found", b""),
    ]);
    let (upstream, hash) = (at(address), narinfo().info.path.hash());
    let found = upstream.narinfo(hash, &StoreDir::default()).unwrap().unwrap();
    assert_eq!(found, narinfo());
    let (compression, mut body) = upstream.nar(&found).unwrap().unwrap();
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).unwrap();
    assert_eq!((compression, bytes.as_slice()), (Compression::Xz, b"bytes".as_slice()));
    assert!(upstream.narinfo(hash, &StoreDir::default()).unwrap().is_none());
    assert!(upstream.nar(&found).unwrap().is_none());
    let asked = server.join().unwrap();
    assert_eq!(asked[0], format!("GET /c/team/{hash}.narinfo HTTP/1.1"));
    assert_eq!(asked[1], "GET /c/team/nar/x.nar.xz HTTP/1.1");
}

#[test]
fn what_is_no_answer_is_no_absence_and_names_the_cache() {
    let hash = narinfo().info.path.hash();
    let other = narinfo().to_text(&StoreDir::default()).replace("aaaa", "bbbb");
    let long = vec![b'a'; MAX_TEXT + 10];
    for (given, expected) in [
        (answer("500 No", b""), "HTTP 500"),
        (answer("403 No", b""), "HTTP 403"),
        (answer("200 OK", b"<html>"), "narinfo line 1"),
        (answer("200 OK", &long), "at most"),
        (answer("200 OK", other.as_bytes()), "another path"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab".to_vec(), "http://127.0.0.1"),
        (Vec::new(), "http://127.0.0.1"),
    ] {
        let (address, server) = answering(vec![given]);
        let error = at(address).narinfo(hash, &StoreDir::default()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("/c/team/"), "{error}");
        server.join().unwrap();
    }
    let odd = NarInfo { compression: "rot13".into(), ..narinfo() };
    // Nobody is asked for what could not be read.
    let nobody = at(SocketAddr::from(([127, 0, 0, 1], 1)));
    assert!(matches!(nobody.nar(&odd), Err(UpstreamError::Compression { .. })));
}
