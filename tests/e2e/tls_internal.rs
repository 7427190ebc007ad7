//! A server that holds an intermediate of `snowbank ca`, and issues itself what it shows.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, time::SystemTime};

use crate::{
    support::{
        PATIENCE,
        bank::{DataDirectory, data_directory},
        ca::Ca,
        command,
        fixtures::fixtures,
        nix::{Client, Outcome, Version, run},
        server::{Server, Setup},
        wait_until,
    },
    tls::copy_trusting,
};

/// Where a server keeps what it issues itself, over many starts.
struct Home(DataDirectory);

impl Home {
    fn new() -> Self {
        Self(data_directory(&fixtures().bank("zstd")))
    }

    fn start(&self, ca: &Ca, names: &[&str]) -> Server {
        let config = self.0.data.with_extension("toml");
        let (certificate, key) = (ca.file("intermediate.pem"), ca.file("intermediate.key"));
        let text = format!(
            "[tls]\ncertificate_from = 'internal-ca'\nnames = {names:?}\nca_certificate = '{}'\nca_key = '{}'\n",
            certificate.display(),
            key.display()
        );
        fs::write(&config, text).unwrap();
        Setup::on(&self.0.data)
            .bank_only(&fixtures().store)
            .argument("--config")
            .argument(config)
            .listen(&["127.0.0.1:0", "https://127.0.0.1:0"])
            .start()
    }

    /// The same, once a certificate was issued.
    fn start_and_issue(&self, ca: &Ca, names: &[&str]) -> Server {
        let server = self.start(ca, names);
        wait_until("a certificate is issued", PATIENCE, || renewals(&server, "ok") == 1.0);
        server
    }

    fn certificate(&self) -> String {
        let file = self.0.data.join("tls/internal.pem");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut order = command("openssl");
        run(order.args(["x509", "-in"]).arg(file), 30).expect_success().text()
    }
}

fn renewals(server: &Server, result: &str) -> f64 {
    server.metric("snowbank_tls_renewals_total", &format!("result=\"{result}\""))
}

fn url(server: &Server, host: &str) -> String {
    let address = &server.lines_after("listening on https://")[0];
    format!("https://{host}:{}", address.parse::<SocketAddr>().unwrap().port())
}

fn curl(server: &Server, host: &str, bundle: &Path) -> Outcome {
    let mut order = command("curl");
    order.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--cacert"]).arg(bundle);
    run(order.arg(format!("{}/nix-cache-info", url(server, host))), 90)
}

#[test]
fn a_server_with_an_intermediate_shows_what_a_real_nix_believes_for_a_week() {
    let (ca, home) = (Ca::init(&["--domain", "localhost", "--ip", "127.0.0.1"]), Home::new());
    // The root is where no network leads.
    fs::rename(ca.file("root.key"), ca.around().join("offline.key")).unwrap();
    let server = home.start_and_issue(&ca, &["localhost", "127.0.0.1"]);
    let bundle = ca.bundle();
    for host in ["localhost", "127.0.0.1"] {
        for version in Version::BOTH {
            let client = Client::new(version, &fixtures().store);
            let url = url(&server, host);
            copy_trusting(&bundle, &client, &url, &server.key()).expect_success();
        }
    }
    let week = 7.0 * 24.0 * 3600.0;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    wait_until("its end is among the metrics", PATIENCE, || {
        let ends = server.metric("snowbank_tls_certificate_expiry_timestamp_seconds", "");
        ends > now + week - 120.0 && ends < now + week + 1.0
    });
}

#[test]
fn what_was_issued_is_kept_until_its_authority_is_another() {
    let (ca, home) = (Ca::init(&["--domain", "localhost"]), Home::new());
    let server = home.start_and_issue(&ca, &["localhost"]);
    let first = home.certificate();
    drop(server);
    let server = home.start(&ca, &["localhost"]);
    curl(&server, "localhost", &ca.bundle()).expect_success();
    assert_eq!((renewals(&server, "ok"), home.certificate()), (0.0, first.clone()));
    drop(server);

    // The same names by a new authority, which nobody believes by way of the old one.
    ca.run(&["init", "--domain", "localhost", "--force"]).expect_success();
    let key = fs::read(ca.file("intermediate.key")).unwrap();
    fs::write(ca.file("intermediate.key"), "none").unwrap();
    let server = home.start(&ca, &["localhost"]);
    wait_until("a failure is told", PATIENCE, || renewals(&server, "failed") == 1.0);
    // The old one goes on.
    assert_eq!(home.certificate(), first);
    assert!(
        curl(&server, "localhost", &ca.bundle())
            .expect_failure()
            .stderr
            .contains("SSL certificate")
    );
    let log = server.log();
    assert!(log.contains("what is in use stays") && log.contains("intermediate.key"), "{log}");
    drop(server);
    fs::write(ca.file("intermediate.key"), key).unwrap();
    let server = home.start_and_issue(&ca, &["localhost"]);
    assert_ne!(home.certificate(), first);
    curl(&server, "localhost", &ca.bundle()).expect_success();
}

#[test]
fn names_that_the_authority_is_not_for_are_told_and_nothing_is_shown() {
    let (ca, home) = (Ca::init(&["--domain", "n3x.internal"]), Home::new());
    let server = home.start(&ca, &["cache.example.org"]);
    wait_until("a failure is told", PATIENCE, || renewals(&server, "failed") == 1.0);
    let log = server.log();
    assert!(log.contains("cache.example.org: the authority is for n3x.internal"), "{log}");
    curl(&server, "localhost", &ca.bundle()).expect_failure();
}

#[test]
fn an_intermediate_of_another_authority_does_as_well() {
    let (ca, home) = (Ca::nowhere(), Home::new());
    let file = |name: &str| ca.file(name).to_str().unwrap().to_owned();
    fs::create_dir(ca.directory()).unwrap();
    let openssl = |words: &[&str]| run(command("openssl").args(words), 60).expect_success();
    // As a company makes them, with RSA above.
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "10",
        "-subj",
        "/O=Company/CN=Root",
        "-keyout",
        &file("root.key"),
        "-out",
        &file("root.pem"),
    ]);
    openssl(&["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", &file("sec1.key")]);
    openssl(&[
        "pkcs8",
        "-topk8",
        "-nocrypt",
        "-in",
        &file("sec1.key"),
        "-out",
        &file("intermediate.key"),
    ]);
    openssl(&[
        "req",
        "-new",
        "-key",
        &file("intermediate.key"),
        "-subj",
        "/O=Company/CN=Below",
        "-out",
        &file("csr"),
    ]);
    fs::write(ca.file("extensions"), "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &file("csr"),
        "-CA",
        &file("root.pem"),
        "-CAkey",
        &file("root.key"),
        "-days",
        "5",
        "-extfile",
        &file("extensions"),
        "-out",
        &file("intermediate.pem"),
    ]);
    let server = home.start_and_issue(&ca, &["localhost"]);
    curl(&server, "localhost", &ca.file("root.pem")).expect_success();
    // No longer than its authority: five days, of which a moment is over.
    let intermediate =
        openssl(&["x509", "-noout", "-enddate", "-in", &file("intermediate.pem")]).text();
    let own = openssl(&[
        "x509",
        "-noout",
        "-enddate",
        "-in",
        home.0.data.join("tls/internal.pem").to_str().unwrap(),
    ])
    .text();
    assert_eq!(own, intermediate);
    drop(server);

    // A key of another form is told how to be mended.
    fs::copy(ca.file("sec1.key"), ca.file("intermediate.key")).unwrap();
    fs::set_permissions(ca.file("intermediate.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let fresh = Home::new();
    let server = fresh.start(&ca, &["localhost"]);
    wait_until("a failure is told", PATIENCE, || renewals(&server, "failed") == 1.0);
    assert!(server.log().contains("openssl pkcs8 -topk8"), "{}", server.log());
}

/// What lies in `certs/test-only`, which is for tests and must be of no use for anything else.
#[test]
fn the_authority_of_the_tests_is_for_this_machine_alone_and_says_so() {
    let (ca, home) = (Ca::nowhere(), Home::new());
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/test-only");
    fs::create_dir(ca.directory()).unwrap();
    for name in ["root.pem", "intermediate.pem", "intermediate.key"] {
        fs::copy(ours.join(name), ca.file(name)).unwrap();
    }
    // No checkout keeps a mode of 0600.
    fs::set_permissions(ca.file("intermediate.key"), fs::Permissions::from_mode(0o600)).unwrap();
    for certificate in ["root.pem", "intermediate.pem"] {
        let mut order = command("openssl");
        order.args(["x509", "-noout", "-text", "-in"]).arg(ours.join(certificate));
        let text = run(&mut order, 30).expect_success().text();
        assert!(text.contains("Subject: CN = FOR TESTS ONLY"), "{text}");
        let (_, constraints) = text.split_once("X509v3 Name Constraints: critical").unwrap();
        let lines: Vec<&str> = constraints.lines().skip(1).take(5).map(str::trim).collect();
        let expected = ["Permitted:", "DNS:localhost", "email:localhost", "IP:127.0.0.0/255.0.0.0"];
        assert_eq!(lines[..4], expected, "{text}");
        assert!(lines[4].starts_with("IP:0:0:0:0:0:0:0:1/FFFF:FFFF:"), "{text}");
    }
    let server = home.start_and_issue(&ca, &["localhost", "127.0.0.1"]);
    for host in ["localhost", "127.0.0.1"] {
        curl(&server, host, &ca.file("root.pem")).expect_success();
    }
    let other = Home::new();
    let elsewhere = other.start(&ca, &["cache.n3x.internal"]);
    wait_until("a failure is told", PATIENCE, || renewals(&elsewhere, "failed") >= 1.0);
    let log = elsewhere.log();
    assert!(log.contains("the authority is for localhost"), "{log}");
}

/// The library keeps one attribute of a kind, and what it would sign had another issuer than the authority's name.
#[test]
fn an_authority_whose_name_cannot_be_repeated_issues_nothing_that_nobody_would_believe() {
    let (ca, home) = (Ca::nowhere(), Home::new());
    fs::create_dir(ca.directory()).unwrap();
    let mut order = command("openssl");
    order.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    order.args(["-days", "10", "-subj", "/DC=corp/DC=example/CN=Issuing", "-keyout"]);
    order.arg(ca.file("intermediate.key")).arg("-out").arg(ca.file("intermediate.pem"));
    run(&mut order, 60).expect_success();
    let server = home.start(&ca, &["localhost"]);
    wait_until("a failure is told", PATIENCE, || renewals(&server, "failed") >= 1.0);
    assert!(server.log().contains("has an attribute twice"), "{}", server.log());
    assert!(!home.0.data.join("tls/internal.pem").exists());
}

#[test]
fn what_was_issued_and_is_spoilt_is_issued_again() {
    let (ca, home) = (Ca::init(&["--domain", "localhost"]), Home::new());
    home.start_and_issue(&ca, &["localhost"]).stop();
    let file = home.0.data.join("tls/internal.pem");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let server = home.start_and_issue(&ca, &["localhost"]);
    curl(&server, "localhost", &ca.bundle()).expect_success();
    home.certificate();
}
