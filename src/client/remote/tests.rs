use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::UNIX_EPOCH;

use super::*;
use crate::nix::store_path::StorePathHash;

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn remote(url: &str) -> Remote {
    Remote::new(&Destination::parse(url, None).unwrap(), None, None, 1, &nothing).unwrap()
}

fn classify(status: u16, headers: &[(&'static str, &str)], body: &str) -> RemoteError {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    remote("http://cache.example").classify(status, &map, body.as_bytes())
}

#[test]
fn what_may_go_well_later_is_told_from_what_never_will() {
    for status in [408, 429, 500, 502, 503, 504, 507, 511] {
        assert!(classify(status, &[], "").is_transient(), "{status}");
    }
    for status in [400, 404, 405, 409, 411, 413, 415, 422, 501, 505] {
        let error = classify(status, &[], "");
        assert!(matches!(error, RemoteError::Refused { .. }), "{status}");
    }
    for status in [401, 403] {
        let error = classify(status, &[], "");
        assert!(matches!(error, RemoteError::Unauthorised { .. }), "{status}");
        assert!(error.to_string().contains("--token-file"), "{error}");
    }
    let error = classify(301, &[("location", "https://cache.example/")], "");
    assert!(error.to_string().contains("https://cache.example/") && !error.is_transient());
}

#[test]
fn the_reasons_of_an_error_are_those_of_the_server() {
    let hash = StorePathHash::from_bytes([7; 20]);
    let body = format!(r#"{{"errors":[{{"path":"{hash}","reason":"no NAR"}},{{"reason":"x"}}]}}"#);
    let error = classify(409, &[], &body);
    assert!(error.to_string().contains(&format!("{hash}: no NAR (and 1 more)")), "{error}");
    let RemoteError::Refused { refusals, .. } = error else { panic!("refused") };
    assert_eq!(refusals.errors.first().unwrap().path, Some(hash));
    // A proxy speaks HTML, of any length.
    let error = classify(502, &[], &format!("\n<html>{}", "x".repeat(10_000)));
    assert!(error.to_string().contains("<html>") && error.to_string().len() < 700);
    assert!(classify(404, &[], "").to_string().contains("no Snowbank"));
    assert!(
        classify(507, &[], r#"{"errors":[{"reason":"no room"}]}"#).to_string().contains("no room")
    );
}

#[test]
fn the_time_that_the_server_asks_for_is_seconds_or_a_date() {
    let after = |text| classify(503, &[("retry-after", text)], "").retry_after();
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    assert_eq!(after("soon"), None);
    let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(retry_after(date, now), Some(Duration::from_secs(7)));
    assert_eq!(retry_after(date, now + Duration::from_secs(9)), Some(Duration::ZERO));
}

#[test]
fn a_cache_lies_below_its_server_and_has_a_host_for_the_netrc() {
    let parse = |url, cache| Destination::parse(url, cache).unwrap();
    assert_eq!(parse("https://h", Some("default")).0.url(), "https://h");
    assert_eq!(parse("https://h/c/a/", None).0.url(), "https://h/c/a");
    assert_eq!(parse("https://h:1/x", Some("team-1")).0.url(), "https://h:1/x/c/team-1");
    assert_eq!(parse("http://[::1]:5000", Some("team")).host(), "::1");
    assert!(Destination::parse("h:5000", None).is_err());
    for cache in ["", "A", "../x", "a/b"] {
        assert!(Destination::parse("http://h", Some(cache)).is_err(), "{cache}");
    }
}

#[test]
fn a_server_that_is_not_there_and_an_answer_that_is_cut_are_worth_another_try() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let request = MissingRequest::default();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").unwrap();
    });
    let error = remote(&url).missing(&request).unwrap_err();
    assert!(error.is_transient(), "{error}");
    served.join().unwrap();
    // The listener is gone now.
    let error = remote(&url).missing(&request).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn an_answer_that_is_not_snowbanks_is_no_reason_to_ask_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let error = remote(&url).missing(&MissingRequest::default()).unwrap_err();
    assert!(matches!(error, RemoteError::Unusable { .. }), "{error}");
    served.join().unwrap();
}

#[test]
fn certificate_authorities_that_cannot_be_read_are_named() {
    let lookup = |name: &str| (name == "NIX_SSL_CERT_FILE").then(|| "/nonexistent/ca".into());
    let destination = Destination::parse("https://h", None).unwrap();
    let error = Remote::new(&destination, None, None, 1, &lookup).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/ca"), "{error}");
    assert!(
        Remote::new(&Destination::parse("http://h", None).unwrap(), None, None, 1, &lookup).is_ok()
    );
}
