//! Requests that nobody should send: what they get, and that everybody else is served as before.

use std::{io::Write, time::Duration};

use crate::support::{
    fixtures::{fixtures, path},
    server::{Server, Setup},
};

fn local() -> Server {
    Setup::bare().local_store(&fixtures().store).start()
}

/// The server lives and serves.
#[track_caller]
fn assert_serves(server: &mut Server) {
    server.assert_alive();
    server.get(&format!("/{}.narinfo", path("leaf").hash())).expect(200);
}

#[test]
fn paths_that_lead_elsewhere_are_refused_without_a_word() {
    let mut server = local();
    // Something to be found beside the bank, and in the directory above.
    let secret = "the words of the secret file";
    std::fs::write(server.data().join("secret.narinfo"), secret).unwrap();
    std::fs::write(server.data().join("secret"), secret).unwrap();
    let hash = path("leaf").hash();
    let ups = [
        "..",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "..%00",
        "..%5c..",
        "....//",
    ];
    let mut urls: Vec<String> = Vec::new();
    for up in ups {
        for below in [
            "",
            "nar/",
            "log/",
            "realisations/",
            "build-trace-v2/x.drv/",
            "debuginfo/",
            "c/",
            "c/default/",
            "c/default/nar/",
        ] {
            for name in ["secret", "secret.narinfo", "keys/secret", "etc/passwd"] {
                for separator in ["/", "%2f", "%5c", "\\"] {
                    urls.push(format!("/{below}{up}{separator}{name}"));
                    urls.push(format!(
                        "/{below}{up}{separator}{up}{separator}{up}{separator}{up}{separator}{name}"
                    ));
                }
            }
        }
        urls.push(format!("/serve/{hash}/{up}/{up}/{up}/etc/passwd"));
    }
    urls.extend(
        [
            "//etc/passwd",
            "/nar//etc/passwd",
            "/log//etc/passwd",
            "/c//default/secret",
            "/nar/%2fetc%2fpasswd",
        ]
        .map(String::from),
    );
    let mut connection = server.connect();
    for url in urls {
        let answer = connection.try_request("GET", &url, &[]).unwrap_or_else(|_| {
            // What is no URL at all may end the connection.
            connection = server.connect();
            crate::support::http::Response { status: 400, headers: Vec::new(), body: Vec::new() }
        });
        assert!((400..500).contains(&answer.status), "{url}: {}", answer.status);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!body.contains(secret) && !body.contains("root:"), "{url} was found");
        assert!(
            !body.contains(server.data().to_str().unwrap()),
            "{url}: the body names our directory: {body}"
        );
        if answer.headers.iter().any(|(name, value)| name == "connection" && value == "close") {
            connection = server.connect();
        }
    }
    assert_serves(&mut server);
}

#[test]
fn hashes_of_the_wrong_length_or_alphabet_are_not_found() {
    let mut server = local();
    let hash = path("leaf").hash();
    let nar_hash = fixtures().nar_hash(path("leaf"));
    let uppercase = hash.to_uppercase();
    assert_ne!(hash, uppercase);
    let mut connection = server.connect();
    for name in [
        String::new(),
        hash[..31].to_owned(),
        format!("{hash}0"),
        uppercase,
        format!("{}e", &hash[..31]),
        format!("{}o", &hash[..31]),
        format!("{}t", &hash[..31]),
        format!("{}u", &hash[..31]),
        format!("{}.", &hash[..31]),
        format!("{}%00", &hash[..31]),
        format!("{hash}.narinfo"),
        format!("{hash}%00"),
        format!("{hash}%0a"),
        format!("%20{hash}"),
        path("leaf").base_name().to_owned(),
    ] {
        for url in [format!("/{name}.narinfo"), format!("/{name}.ls"), format!("/serve/{name}/")] {
            let answer = connection.request("GET", &url, &[]);
            assert!(matches!(answer.status, 400 | 404), "{url}: {}", answer.status);
        }
    }
    for name in [
        nar_hash[..51].to_owned(),
        format!("{nar_hash}0"),
        nar_hash.to_uppercase(),
        // 52 characters hold 260 bits, four more than a hash: the first digit may not be just anything.
        format!("z{}", &nar_hash[1..]),
        format!("sha256:{nar_hash}"),
        format!("{nar_hash}.nar"),
    ] {
        for ending in [".nar", ".nar.zst"] {
            let answer = connection.request("GET", &format!("/nar/{name}{ending}"), &[]);
            assert!(matches!(answer.status, 400 | 404), "{name}{ending}: {}", answer.status);
        }
    }
    assert_serves(&mut server);
}

#[test]
fn an_url_of_100_kb_and_ten_thousand_headers_are_refused() {
    let mut server = local();
    let long = "a".repeat(100_000);
    let headers: String = (0..10_000).map(|index| format!("X-{index}: y\r\n")).collect();
    let one_header = format!("X-Long: {long}\r\n");
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /nar/{long}.nar HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n{headers}\r\n"),
        format!("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n{}\r\n", one_header.repeat(10)),
    ] {
        let mut connection = server.connect();
        // The server may answer and close before it has read all.
        let _ = connection.send(request.as_bytes());
        let answer = connection.head();
        // A reset may overtake the answer; what counts is that this is no success.
        if let Ok(answer) = answer {
            assert!((400..500).contains(&answer.status), "{:.60}: {}", request, answer.status);
        }
    }
    assert_serves(&mut server);
}

#[test]
fn a_query_of_ten_thousand_parameters_is_no_trouble() {
    let mut server = local();
    let query: String = (0..2_000).map(|index| format!("a{index}=b&")).collect();
    let answer = server.connect().try_request(
        "GET",
        &format!("/{}.narinfo?{query}", path("leaf").hash()),
        &[],
    );
    assert!(answer.is_ok_and(|answer| answer.status == 200 || (400..500).contains(&answer.status)));
    assert_serves(&mut server);
}

#[test]
fn ten_thousand_ranges_cost_one_refusal() {
    let mut server = local();
    let url = format!("/nar/{}.nar", fixtures().nar_hash(path("small")));
    server.get(&url).expect(200);
    let ranges: Vec<String> =
        (0..4_000).map(|index| format!("{}-{}", index * 2, index * 2)).collect();
    let before = server.resident();
    let answer = server.connect().try_request(
        "GET",
        &url,
        &[("Range", &format!("bytes={}", ranges.join(",")))],
    );
    assert!(answer.is_ok_and(|answer| (400..500).contains(&answer.status)));
    assert!(server.resident() < before + 32 * 1024, "the ranges took memory");
    assert_serves(&mut server);
}

#[test]
fn requests_that_two_servers_would_read_differently_are_refused_and_the_connection_closed() {
    let mut server = local();
    let smuggled = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    let length = smuggled.len();
    for (what, request) in [
        (
            "a length and chunks",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a list of lengths",
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, {length}\r\n\r\n{smuggled}"),
        ),
        (
            "a signed length",
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +{length}\r\n\r\n{smuggled}"),
        ),
        (
            "a folded header",
            format!("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c: d\r\n\r\n{smuggled}"),
        ),
        (
            "a blank before the colon",
            format!("GET /nix-cache-info HTTP/1.1\r\nHost : x\r\n\r\n{smuggled}"),
        ),
        (
            "an unknown coding",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n{smuggled}"
            ),
        ),
        (
            "a chunk size beyond all",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{smuggled}"
            ),
        ),
        (
            "a chunk size that is none",
            format!(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{smuggled}"
            ),
        ),
        (
            "NUL in a header",
            format!("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n{smuggled}"),
        ),
        (
            "a lone return in a header",
            format!("GET /nix-cache-info HTTP/1.1\r\nHost: x\r\nX-A: a\rb\r\n\r\n{smuggled}"),
        ),
        ("garbage", format!("\u{0}\u{1}\u{2}garbage\r\n\r\n{smuggled}")),
        ("another protocol", format!("GET / SMTP/9.9\r\n\r\n{smuggled}")),
    ] {
        let mut connection = server.connect();
        // A server that waits for more of a body has taken nothing for a request either.
        connection.patience(Duration::from_secs(2));
        let _ = connection.send(request.as_bytes());
        let all = String::from_utf8_lossy(&connection.whatever_comes()).into_owned();
        assert!(!all.starts_with("HTTP/1.1 2"), "{what} is accepted: {all:.200}");
        assert!(
            all.matches("HTTP/1.1 ").count() <= 1,
            "after {what} the next bytes are a request: {all:.400}"
        );
    }
    assert_serves(&mut server);
}

#[test]
fn a_body_that_nobody_asked_for_is_not_taken_for_a_request() {
    let mut server = local();
    let smuggled = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    for method in ["GET", "HEAD", "POST"] {
        let mut connection = server.connect();
        let request = format!(
            "{method} /absent HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        );
        connection.send(request.as_bytes()).unwrap();
        let all = String::from_utf8_lossy(&connection.whatever_comes()).into_owned();
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{method}: {all:.400}");
    }
    assert_serves(&mut server);
}

#[test]
fn requests_one_behind_the_other_are_answered_in_order() {
    let server = local();
    let mut connection = server.connect();
    let names = ["leaf", "refs", "top", "fixed", "shapes"];
    let requests: String = names
        .map(|name| format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n", path(name).hash()))
        .concat();
    connection.send(requests.repeat(20).as_bytes()).unwrap();
    for _ in 0..20 {
        for name in names {
            let answer = connection.response(false).unwrap().expect(200);
            assert!(
                answer.text().starts_with(&format!("StorePath: {}\n", path(name).as_str())),
                "out of order at {name}"
            );
        }
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_still_a_request() {
    let server = local();
    let mut connection = server.connect();
    let request = format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n", path("leaf").hash());
    for byte in request.as_bytes() {
        connection.send(std::slice::from_ref(byte)).unwrap();
    }
    connection.response(false).unwrap().expect(200);
}

#[test]
fn old_clients_that_speak_http_1_0_are_served() {
    let server = local();
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    write!(stream, "GET /nix-cache-info HTTP/1.0\r\n\r\n").unwrap();
    let mut all = String::new();
    std::io::Read::read_to_string(&mut stream, &mut all).unwrap();
    assert!(all.contains(" 200 ") && all.contains("StoreDir:"), "{all}");
}

#[test]
fn a_hundred_thousand_misses_take_no_memory() {
    let server = local();
    let mut numbers = crate::support::trees::Numbers::from(99);
    let mut connection = server.connect();
    let hash = |numbers: &mut crate::support::trees::Numbers| -> String {
        (0..32)
            .map(|_| char::from(b"0123456789abcdfghijklmnpqrsvwxyz"[numbers.below(32)]))
            .collect()
    };
    let mut ask = |count: usize| {
        // In batches, one behind the other, so that it is the server that has to keep up.
        for _ in 0..count / 100 {
            let batch: String = (0..100)
                .map(|_| format!("GET /{}.narinfo HTTP/1.1\r\nHost: x\r\n\r\n", hash(&mut numbers)))
                .collect();
            connection.send(batch.as_bytes()).unwrap();
            for _ in 0..100 {
                connection.response(false).unwrap().expect(404);
            }
        }
    };
    ask(10_000);
    let before = server.resident();
    ask(90_000);
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "90,000 misses made the server grow by {grown} KiB");
}

#[test]
fn what_a_request_says_is_not_taken_over_into_the_log_as_lines_of_its_own() {
    let server = local();
    server.get("/absent%0aERROR%20forged%20line");
    server.connect().request("GET", "/absent", &[("User-Agent", "x\u{1b}[31mred")]);
    assert!(!server.log().lines().any(|line| line.trim_start().starts_with("ERROR forged line")));
    assert!(
        !server.log().contains("\u{1b}[31mred"),
        "a terminal sequence from a request is in the log"
    );
}
