//! Many downloads over HTTP/2, from the server itself and with nginx and Caddy before it: none of them may be short.

use std::{fmt::Write as _, fs};

use crate::{
    support::{
        command,
        fixtures::{ORDINARY, path},
        front::{Front, Kind},
        http::field,
        nix::{Version, run, tempdir},
    },
    tls::Secure,
};

const DOWNLOADS: usize = 1000;

/// One in so many is of 300 MiB.
const LARGE_EVERY: usize = 250;

/// Every NAR, by its path on the server; the large one comes last.
fn nars(secure: &Secure) -> Vec<(String, Vec<u8>)> {
    let nar = |name: &&str| {
        let narinfo = secure.server.get(&format!("/{}.narinfo", path(name).hash())).expect(200);
        let url = format!("/{}", field(&narinfo.text(), "URL").unwrap());
        let bytes = secure.server.get(&url).expect(200).body;
        (url, bytes)
    };
    ORDINARY.iter().chain(&["big"]).map(nar).collect()
}

/// Fetches NARs in turn, 25 at once as Nix does, and holds each against what the server sent without TLS.
#[track_caller]
fn download(secure: &Secure, base: &str, what: &str) {
    let (nars, own) = (nars(secure), tempdir());
    let small = nars.len() - 1;
    let nth = |number: usize| match number % LARGE_EVERY {
        0 => &nars[small],
        _ => &nars[number % small],
    };
    let mut orders = String::new();
    for number in 0..DOWNLOADS {
        let file = own.path().join(number.to_string());
        let (url, _) = nth(number);
        writeln!(orders, "url = \"{base}{url}\"\noutput = \"{}\"", file.display()).unwrap();
    }
    let list = own.path().join("orders");
    fs::write(&list, orders).unwrap();
    let mut order = command("curl");
    order.args(["--silent", "--show-error", "--fail", "--http2", "--max-time", "300"]);
    order.args(["--parallel", "--parallel-max", "25", "--write-out", "%{http_version}\\n"]);
    order.arg("--cacert").arg(secure.authority.bundle()).arg("--config").arg(&list);
    let versions = run(&mut order, 320).expect_success().text();
    let over_http2 = versions.lines().filter(|version| *version == "2").count();
    assert_eq!((versions.lines().count(), over_http2), (DOWNLOADS, DOWNLOADS), "{what}");
    for number in 0..DOWNLOADS {
        let (url, expected) = nth(number);
        let got = fs::read(own.path().join(number.to_string())).unwrap();
        assert!(
            got == *expected,
            "{what}: {url} came with {} of {} bytes",
            got.len(),
            expected.len()
        );
    }
}

#[test]
fn a_thousand_downloads_from_the_server_itself_are_whole() {
    let secure = Secure::start("");
    download(&secure, &secure.url(), "ourselves");
    assert!(secure.server.metric("snowbank_connections_total", "event=\"http2\"") >= 1.0);
    assert_eq!(secure.server.metric("snowbank_aborted_transfers_total", ""), 0.0);
}

#[track_caller]
fn through(kind: Kind) {
    let secure = Secure::start("");
    let shown = secure.authority.issue("front");
    let front = Front::start(kind, &shown, secure.server.address());
    download(&secure, &front.url(), &front.url());
    for version in Version::BOTH {
        secure.substitute(version, &front.url());
    }
    assert_eq!(
        secure.server.metric("snowbank_aborted_transfers_total", ""),
        0.0,
        "{}",
        front.log()
    );
}

#[test]
fn a_thousand_downloads_with_nginx_in_front_are_whole() {
    through(Kind::Nginx);
}

#[test]
fn a_thousand_downloads_with_caddy_in_front_are_whole() {
    through(Kind::Caddy);
}
