//! HTTPS and HTTP/2 from the server itself, with a real Nix, curl and OpenSSL as clients.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    PATIENCE,
    authority::{Authority, Issued, put},
    bank::{DataDirectory, data_directory},
    command,
    fixtures::{ORDINARY, fixtures, path},
    nix::{Client, Outcome, Scratch, StorePath, Version, run, tempdir},
    server::{Server, Setup},
    wait_until,
};

/// A server that has a bank and listens with TLS and without.
pub(crate) struct Secure {
    pub(crate) authority: Authority,
    pub(crate) server: Server,
    _directory: DataDirectory,
    _own: Scratch,
}

/// How a server is set up that shows `issued`, with more lines of its configuration, and of `[tls]`.
pub(crate) fn setup(
    issued: &Issued,
    directory: &DataDirectory,
    own: &Scratch,
    (more, of_tls): (&str, &str),
) -> Setup {
    let config = own.path().join("snowbank.toml");
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let text = format!("{more}\n[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n{of_tls}");
    fs::write(&config, text).unwrap();
    Setup::on(&directory.data)
        .bank_only(&fixtures().store)
        .argument("--config")
        .argument(config)
        .listen(&["127.0.0.1:0", "https://127.0.0.1:0"])
}

impl Secure {
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(more, "")
    }

    /// With more lines of the configuration, and of `[tls]`.
    pub(crate) fn start_with(more: &str, of_tls: &str) -> Self {
        let (authority, own) = (Authority::new(), tempdir());
        let directory = data_directory(&fixtures().bank("zstd"));
        let server = setup(&authority.issue("server"), &directory, &own, (more, of_tls)).start();
        Self { authority, server, _directory: directory, _own: own }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.lines_after("listening on https://")[0].parse().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.address().port())
    }

    /// curl, which ends with an error for a status of 400 or more.
    pub(crate) fn curl(&self, words: &[&str], path: &str) -> Outcome {
        let mut order = command("curl");
        order.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--cacert"]);
        order.arg(self.authority.bundle()).args(words).arg(format!("{}{path}", self.url()));
        run(&mut order, 90)
    }

    /// `openssl s_client` that says nothing itself; what it is told of the connection.
    pub(crate) fn openssl(&self, words: &[&str]) -> Outcome {
        let mut order = command("openssl");
        let address = self.address().to_string();
        order.args(["s_client", "-connect", &address, "-servername", "localhost", "-CAfile"]);
        order.arg(self.authority.bundle()).arg("-verify_return_error").args(words);
        run(&mut order, 60)
    }

    /// A real Nix that trusts the authority has all paths from `url`, as they are.
    #[track_caller]
    pub(crate) fn substitute(&self, version: Version, url: &str) {
        let client = Client::new(version, &fixtures().store);
        let bundle = self.authority.bundle();
        copy_trusting(&bundle, &client, url, &self.server.key()).expect_success();
        for path in ordinary() {
            assert!(
                client.dump(path) == fixtures().dump(path),
                "{path:?} arrived with other bytes"
            );
        }
    }

    pub(crate) fn handshakes(&self, labels: &str) -> f64 {
        self.server.metric("snowbank_tls_handshakes_total", labels)
    }
}

/// What comes of it when a real Nix that trusts the authorities of `bundle` copies all paths from `url`.
pub(crate) fn copy_trusting(bundle: &Path, client: &Client, url: &str, key: &str) -> Outcome {
    let mut order = client.program("nix");
    order.env("NIX_SSL_CERT_FILE", bundle);
    run(order.args(client.copy_words(url, key, &ordinary())), 180)
}

fn ordinary() -> Vec<&'static StorePath> {
    ORDINARY.iter().map(|name| path(name)).collect()
}

#[test]
fn a_real_nix_substitutes_over_http2_with_the_authority_in_its_settings() {
    let (secure, other) = (Secure::start(""), Authority::new());
    for version in Version::BOTH {
        let before = secure.server.metric("snowbank_connections_total", "event=\"http2\"");
        secure.substitute(version, &secure.url());
        let after = secure.server.metric("snowbank_connections_total", "event=\"http2\"");
        assert!(after > before, "{version:?} did not speak HTTP/2");
        // Who trusts another authority gets nothing.
        let stranger = Client::new(version, &fixtures().store);
        let key = secure.server.key();
        let copied = copy_trusting(&other.bundle(), &stranger, &secure.url(), &key);
        let said = copied.expect_failure().stderr;
        assert!(said.contains("SSL peer certificate"), "{said}");
    }
    assert!(secure.handshakes("result=\"ok\",version=\"1.3\"") >= 2.0);
}

#[test]
fn tls_1_2_and_1_3_are_spoken_with_either_http_and_nothing_older() {
    let secure = Secure::start("");
    let versions = [("--tls-max", "1.2", "1.2"), ("--tlsv1.3", "--no-progress-meter", "1.3")];
    for (word, value, version) in versions {
        for (http, protocol) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let shown = ["--output", "/dev/null", "--write-out", "%{http_version}"];
            let words = [&[word, value, http][..], &shown].concat();
            let said = secure.curl(&words, "/nix-cache-info").expect_success().text();
            assert_eq!(said, protocol, "TLS {version}");
        }
        assert_eq!(secure.handshakes(&format!("version=\"{version}\"")), 2.0);
    }
    assert_eq!(secure.server.metric("snowbank_connections_total", "event=\"http2\""), 2.0);
    for old in ["-tls1", "-tls1_1"] {
        secure.openssl(&[old, "-cipher", "ALL:@SECLEVEL=0"]).expect_failure();
    }
    assert_eq!(secure.handshakes("result=\"error\""), 2.0);
    // Without ALPN it is HTTP/1.1.
    let alpn = secure.curl(&["--no-alpn"], "/nix-cache-info").expect_success().text();
    assert!(alpn.starts_with("StoreDir: "), "{alpn}");
}

#[test]
fn no_cipher_without_forward_secrecy_and_authenticated_encryption_is_taken() {
    let secure = Secure::start("");
    let all = ["ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"];
    let all = run(command("openssl").args(all), 60).expect_success().text();
    let all: Vec<&str> = all.trim().split(':').collect();
    assert!(all.len() > 30 && all.contains(&"AES128-SHA"), "{all:?}");
    let taken = all.into_iter().filter(|cipher| {
        let words = ["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")];
        secure.openssl(&words).succeeded()
    });
    let taken: Vec<&str> = taken.collect();
    let expected = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ];
    assert_eq!(taken.iter().collect::<BTreeSet<_>>(), expected.iter().collect::<BTreeSet<_>>());
}

#[test]
fn sessions_are_gone_on_with() {
    let secure = Secure::start("");
    for version in ["-tls1_2", "-tls1_3"] {
        let file = tempdir();
        let session = file.path().join("session");
        let session = session.to_str().unwrap();
        let request =
            r"GET /nix-cache-info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let ask = |how: &str| {
            let script = format!(
                "printf '{request}' | openssl s_client -ign_eof -connect {} -servername localhost \
                 -CAfile {} {version} {how} {session} 2>&1",
                secure.address(),
                secure.authority.bundle().display()
            );
            run(command("sh").args(["-c", &script]), 60).expect_success().text()
        };
        let first = ask("-sess_out");
        assert!(first.contains("New, TLSv1") && first.contains("StoreDir: "), "{first}");
        let second = ask("-sess_in");
        assert!(second.contains("Reused, TLSv1") && second.contains("StoreDir: "), "{second}");
    }
}

#[test]
fn another_certificate_is_shown_without_a_failed_request_and_a_broken_one_changes_nothing() {
    let secure = Secure::start("");
    let shown = || {
        let said = secure.openssl(&["-alpn", "http/1.1"]).expect_success().text();
        let lines: Vec<_> = said.lines().filter(|line| line.contains("CN")).collect();
        lines.join("\n")
    };
    assert!(shown().contains("server"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut requests = 0;
                    while !over.load(Ordering::Relaxed) {
                        secure.curl(&[], "/nix-cache-info").expect_success();
                        requests += 1;
                    }
                    requests
                })
            })
            .collect();
        // A key without its certificate: nobody is shown that.
        let other = secure.authority.issue("other");
        let files = secure.authority.files("server");
        put(&files.key, &fs::read_to_string(&other.key).unwrap());
        wait_until("the log says what is wrong", PATIENCE, || {
            secure.server.log().contains("is not that of the certificate")
        });
        assert!(shown().contains("server") && !shown().contains("other"));
        assert_eq!(secure.server.metric("snowbank_tls_reloads_total", "result=\"failed\""), 1.0);
        put(&files.certificate, &fs::read_to_string(&other.certificate).unwrap());
        wait_until("the other certificate is shown", PATIENCE, || shown().contains("other"));
        put(&files.certificate, "nonsense");
        wait_until("the log says that it is none", PATIENCE, || {
            secure.server.log().contains("a certificate in PEM is expected")
        });
        assert!(shown().contains("other"));
        over.store(true, Ordering::Relaxed);
        let requests: usize = asking.into_iter().map(|asked| asked.join().unwrap()).sum();
        println!("{requests} requests, none of which failed");
        assert!(requests > 4);
    });
    assert_eq!(secure.server.metric("snowbank_tls_reloads_total", "result=\"ok\""), 1.0);
    let expiry = secure.server.metric("snowbank_tls_certificate_expiry_timestamp_seconds", "");
    assert_eq!(expiry, 4_070_908_800.0, "2099-01-01");
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let secure = Secure::start("");
    let mut stream = TcpStream::connect(secure.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /nix-cache-info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{said}");
    wait_until("it is counted", PATIENCE, || secure.handshakes("result=\"plain_http\"") == 1.0);
}

#[test]
fn handshakes_that_stall_are_given_up_and_hinder_nobody() {
    let secure = Secure::start("limits.head_timeout = \"1s\"");
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(secure.address()).unwrap()).collect();
    let mut half = TcpStream::connect(secure.address()).unwrap();
    half.write_all(&[22, 3, 1]).unwrap();
    secure.curl(&[], "/nix-cache-info").expect_success();
    wait_until("all of them are given up", PATIENCE, || {
        secure.handshakes("result=\"timeout\"") == 201.0
    });
    for mut stream in silent.into_iter().chain([half]) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        // The end, or a reset: either way it is closed.
        let _ended = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
}

#[test]
fn a_server_whose_certificate_cannot_be_used_says_why_and_does_not_start() {
    let (authority, own) = (Authority::new(), tempdir());
    let directory = data_directory(&fixtures().bank("zstd"));
    let (one, other) = (authority.issue("one"), authority.issue("other"));
    let refused = |issued: &Issued, why: &str| {
        let order = setup(issued, &directory, &own, ("", ""));
        let (status, said) = order.try_start(std::process::Stdio::null(), 2).err().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    };
    let mixed = Issued { certificate: one.certificate.clone(), key: other.key.clone() };
    refused(&mixed, "is not that of the certificate");
    let absent = Issued { certificate: own.path().join("none.pem"), key: other.key.clone() };
    refused(&absent, "none.pem: No such file or directory");
    let swapped = Issued { certificate: one.key.clone(), key: one.key.clone() };
    refused(&swapped, "a certificate in PEM is expected");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&one.key, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&one, "everybody on this machine can read the key");
}

#[test]
fn a_reader_over_http2_that_takes_nothing_is_cut_and_one_that_is_slow_is_not() {
    let secure = Secure::start("limits.stall_timeout = \"2s\"");
    let large = path("big");
    let nar = format!("/nar/{}.nar", large.hash());
    // curl takes less than the server would give, for longer than the server waits.
    let slow = ["--http2", "--limit-rate", "20M", "--output", "/dev/null"];
    secure.curl(&slow, &nar).expect_success();
    let mut order = command("sh");
    let script = format!(
        "curl --silent --http2 --cacert {} {}{nar} | {{ head -c 1000 >/dev/null; sleep 20; }}",
        secure.authority.bundle().display(),
        secure.url()
    );
    let mut reader = order.args(["-c", &script]).spawn().unwrap();
    wait_until("the silent one is cut", Duration::from_secs(30), || {
        secure.server.metric("snowbank_connections_total", "event=\"stall_timeout\"") == 1.0
    });
    reader.kill().unwrap();
    reader.wait().unwrap();
    secure.curl(&[], "/nix-cache-info").expect_success();
}
