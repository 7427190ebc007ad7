//! Client certificates: which are let in, what their names may do, and when they are good for nothing any more. With
//! curl and OpenSSL, because the Nix at hand shows none, and our own client.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    path::Path,
    process::{ChildStdout, Stdio},
};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SerialNumber, date_time_ymd,
};

use crate::{
    support::{
        PATIENCE,
        authority::{Authority, Issued, put},
        command,
        fixtures::path,
        host::{Home, Host, Process},
        nix::{Outcome, StorePath, run},
        pushed::narinfos,
        wait_until,
    },
    tls::Secure,
};

/// What the names that the tests issue may do.
const NAMES: &str = "\
[client.runners]
names = ['*.runners.example']
scopes = ['push', 'pull']
caches = ['default', 'team']
[client.readers]
names = ['CN=reader']
scopes = ['pull']
";

/// A server whose default cache only some may read, a way into it for each kind of right.
struct Private {
    clients: Authority,
    secure: Secure,
}

impl Private {
    /// `access` are lines of the default cache.
    fn start(access: &str) -> Self {
        let clients = Authority::new();
        clients.revoke(&[]);
        let settings = format!("[cache.default]\n{access}\n[cache.team]\npull = 'mtls'\n{NAMES}");
        let of_tls = tls_settings(&clients);
        let secure = Secure::start_with(&settings, &of_tls);
        Self { clients, secure }
    }

    fn get(&self, shown: Option<&Issued>, path: &str) -> Outcome {
        let mut words = vec!["--output", "/dev/null", "--write-out", "%{http_code}", "--no-fail"];
        words.extend(shown.iter().flat_map(|shown| {
            let (certificate, key) = (&shown.certificate, &shown.key);
            ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()]
        }));
        self.secure.curl(&words, path)
    }

    #[track_caller]
    fn status(&self, shown: Option<&Issued>, path: &str) -> String {
        self.get(shown, path).expect_success().text()
    }
}

fn tls_settings(clients: &Authority) -> String {
    let (authority, list) = (clients.bundle(), clients.revocations());
    format!("client_ca = '{}'\nclient_crl = '{}'\n", authority.display(), list.display())
}

fn narinfo() -> String {
    format!("/{}.narinfo", path("leaf").hash())
}

#[test]
fn certificates_that_are_no_good_end_the_connection_and_none_at_all_does_not() {
    let private = Private::start("");
    let clients = &private.clients;
    let names = ["one.runners.example"];
    let nothing = |_: &mut CertificateParams| ();
    let good = clients.issue_client("good", &names, nothing);
    assert_eq!(private.status(None, "/nix-cache-info"), "200");
    assert_eq!(private.status(Some(&good), "/nix-cache-info"), "200");
    let expired =
        clients.issue_client("expired", &names, |it| it.not_after = date_time_ymd(2021, 1, 1));
    let early =
        clients.issue_client("early", &names, |it| it.not_before = date_time_ymd(2098, 1, 1));
    let of_a_server =
        clients.issue_as("server", &names, ExtendedKeyUsagePurpose::ServerAuth, nothing);
    let of_another = Authority::new().issue_client("good", &names, nothing);
    let by_itself = clients.files("by-itself");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
    put(&by_itself.certificate, &params.self_signed(&key).unwrap().pem());
    put(&by_itself.key, &key.serialize_pem());
    let revoked = clients.issue_client("revoked", &names, |it| {
        it.serial_number = Some(SerialNumber::from(77_u64));
    });
    assert_eq!(private.status(Some(&revoked), "/nix-cache-info"), "200");
    clients.revoke(&[77]);
    wait_until("the list is loaded", PATIENCE, || {
        private.secure.server.metric("snowbank_tls_revocations", "") == 1.0
    });
    let before = private.secure.handshakes("result=\"error\"");
    let bad = [&expired, &early, &of_a_server, &of_another, &by_itself, &revoked];
    for (index, shown) in bad.into_iter().enumerate() {
        let ended = private.get(Some(shown), "/nix-cache-info").expect_failure();
        assert_eq!(ended.text(), "000", "no answer came: {index}");
    }
    assert_eq!(private.secure.handshakes("result=\"error\""), before + bad.len() as f64);
    assert_eq!(private.status(Some(&good), "/nix-cache-info"), "200");
}

#[test]
fn a_name_may_what_it_is_given_and_a_token_cache_takes_either() {
    let private = Private::start("pull = 'token'");
    let issue =
        |name: &str, alternative: &str| private.clients.issue_client(name, &[alternative], |_| ());
    let (runner, reader) = (issue("a", "a.runners.example"), issue("reader", "b.example"));
    let (stranger, deeper) = (issue("c", "c.example"), issue("d", "d.evil.runners.example"));
    let path = narinfo();
    for (shown, default, team) in [
        (None, "401", "403"),
        (Some(&runner), "200", "404"),
        (Some(&reader), "200", "404"),
        (Some(&stranger), "403", "403"),
        (Some(&deeper), "403", "403"),
    ] {
        assert_eq!(private.status(shown, &path), default);
        // It has not this path, which only those may know who may read it.
        assert_eq!(private.status(shown, &format!("/c/team{path}")), team);
    }
    let log = private.secure.server.log();
    assert!(!log.contains("BEGIN"), "{log}");
}

/// One connection over which requests are made by hand.
struct Session {
    process: Process,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(secure: &Secure, shown: &Issued, session: &Path) -> Self {
        let mut order = command("openssl");
        let address = secure.address().to_string();
        order.args(["s_client", "-quiet", "-connect", &address, "-servername", "localhost"]);
        order.arg("-CAfile").arg(secure.authority.bundle()).arg("-sess_out").arg(session);
        order.arg("-cert").arg(&shown.certificate).arg("-key").arg(&shown.key);
        order.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process(order.spawn().unwrap());
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        Self { process, answers }
    }

    /// The status line and the body.
    fn ask(&mut self, path: &str) -> (String, String) {
        let input = self.process.0.stdin.as_mut().unwrap();
        write!(input, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "it ended: {lines:?}");
            if line == "\r\n" {
                break;
            }
            lines.push(line.to_lowercase());
        }
        let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.trim().parse().unwrap()];
        self.answers.read_exact(&mut body).unwrap();
        (lines[0].trim().to_owned(), String::from_utf8(body).unwrap())
    }
}

#[test]
fn what_is_revoked_is_refused_on_connections_and_in_sessions_that_are_there_already() {
    let private = Private::start("pull = 'mtls'");
    let issue = |name: &str, serial: u64| {
        private.clients.issue_client(name, &["a.runners.example"], |it| {
            it.serial_number = Some(SerialNumber::from(serial));
        })
    };
    let (shown, other) = (issue("shown", 77), issue("other", 78));
    let file = private.clients.bundle().with_file_name("session");
    let mut session = Session::open(&private.secure, &shown, &file);
    let mut fellow = Session::open(&private.secure, &other, &file.with_extension("other"));
    let path = narinfo();
    for session in [&mut session, &mut fellow] {
        assert_eq!(session.ask(&path).0, "http/1.1 200 ok");
    }
    private.clients.revoke(&[77]);
    wait_until("the list is loaded", PATIENCE, || {
        private.secure.server.metric("snowbank_tls_revocations", "") == 1.0
    });
    let (status, body) = session.ask(&path);
    assert_eq!(
        (status.as_str(), body.trim()),
        ("http/1.1 403 forbidden", "this client certificate was revoked")
    );
    assert_eq!(fellow.ask(&path).0, "http/1.1 200 ok");
    // Neither a new connection nor one that goes on with the old session.
    assert_eq!(private.get(Some(&shown), "/nix-cache-info").expect_failure().text(), "000");
    let session = ["-sess_in", file.to_str().unwrap()];
    let certificate = ["-cert", shown.certificate.to_str().unwrap()];
    let key = ["-key", shown.key.to_str().unwrap()];
    let said = private.secure.openssl(&[session, certificate, key].concat());
    assert!(
        !said.stdout.windows(6).any(|word| word == b"Reused"),
        "an old session was gone on with"
    );
    // A list that cannot be read changes nothing.
    put(&private.clients.revocations(), "nonsense");
    wait_until("the log says so", PATIENCE, || {
        private
            .secure
            .server
            .log()
            .contains("a list of revoked certificates (X509 CRL) in PEM is expected")
    });
    assert_eq!(private.get(Some(&shown), "/nix-cache-info").expect_failure().text(), "000");
    assert_eq!(private.status(Some(&other), &path), "200");
}

/// A host that builds, and a server over TLS that takes pushes from certificates only.
struct Pushing {
    host: Host,
    top: StorePath,
    clients: Authority,
    own: Authority,
    home: Home,
}

impl Pushing {
    fn new() -> Self {
        let host = Host::new();
        let top = host.build("run \"top\" \"echo 1 >$out\"").remove(0);
        let (clients, own) = (Authority::new(), Authority::new());
        clients.revoke(&[]);
        let shown = own.issue("server");
        let settings = format!(
            "push = 'mtls'\n[tls]\ncertificate = '{}'\nkey = '{}'\n{}\n[client.runners]\n\
             names = ['*.runners.example']\nscopes = ['push']\n",
            shown.certificate.display(),
            shown.key.display(),
            tls_settings(&clients)
        );
        let home = Home::new(&host, &settings);
        Self { host, top, clients, own, home }
    }

    fn push(&self, url: &str, shown: Option<&Issued>) -> Outcome {
        let mut order = self.host.order_to_push(url, "", &[self.top.as_str()]);
        order.env("NIX_SSL_CERT_FILE", self.own.bundle());
        if let Some(shown) = shown {
            order.arg("--tls-certificate").arg(&shown.certificate);
            order.arg("--tls-private-key").arg(&shown.key);
        }
        run(&mut order, 120)
    }
}

#[test]
fn our_client_pushes_with_a_certificate_and_the_record_names_it() {
    let pushing = Pushing::new();
    let server = pushing.home.setup().listen(&["127.0.0.1:0", "https://127.0.0.1:0"]).start();
    let port = server.lines_after("listening on https://127.0.0.1:")[0].clone();
    let url = format!("https://localhost:{port}");
    let issue =
        |name: &str, alternative: &str| pushing.clients.issue_client(name, &[alternative], |_| ());
    let (runner, stranger) = (issue("a", "a.runners.example"), issue("b", "b.example"));
    for (shown, why) in [
        (None, "a client certificate is needed"),
        (Some(&stranger), "no name of this client certificate may do this here"),
    ] {
        let said = pushing.push(&url, shown).expect_failure().stderr;
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
    // Nor without TLS, whatever is named.
    let said = pushing.push(&server.url(), Some(&runner)).expect_failure().stderr;
    assert!(said.contains("a client certificate is needed"), "{said}");
    assert!(narinfos(&pushing.home.bank()).is_empty());
    pushing.push(&url, Some(&runner)).expect_success();
    pushing.host.assert_substituted(&server, std::slice::from_ref(&pushing.top));
    server.stop();
    let words = ["why", pushing.top.as_str()];
    let said = pushing.home.snowbank(&words).expect_success().text();
    assert!(
        said.contains("pushed by   a.runners.example with a certificate from 127.0.0.1"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_is_no_use_is_told_before_anything_is_sent() {
    let pushing = Pushing::new();
    let url = "https://localhost:9";
    let (one, other) = (pushing.own.issue("one"), pushing.own.issue("other"));
    let mixed = Issued { certificate: one.certificate.clone(), key: other.key };
    let said = pushing.push(url, Some(&mixed)).expect_failure().stderr;
    assert!(said.contains("is not that of the certificate"), "{said}");
    fs::remove_file(&one.key).unwrap();
    let said = pushing.push(url, Some(&one)).expect_failure().stderr;
    assert!(said.contains("one.key"), "{said}");
    let mut order = pushing.host.order_to_push(url, "", &[pushing.top.as_str()]);
    order.env("SNOWBANK_TLS_CERTIFICATE", &one.certificate);
    order.env("NIX_SSL_CERT_FILE", pushing.own.bundle());
    let said = run(&mut order, 60).expect_failure().stderr;
    assert!(said.contains("name --tls-private-key as well"), "{said}");
}

#[test]
fn an_agent_goes_on_with_the_certificate_that_replaces_its_own() {
    let pushing = Pushing::new();
    let server = pushing.home.setup().listen(&["127.0.0.1:0", "https://127.0.0.1:0"]).start();
    let port = server.lines_after("listening on https://127.0.0.1:")[0].clone();
    let old = pushing.clients.issue_client("runner", &["a.runners.example"], |it| {
        it.serial_number = Some(SerialNumber::from(77_u64));
        it.distinguished_name.push(DnType::OrganizationName, "old");
    });
    let mut order = pushing.host.snowbank();
    order.args(["agent", "--listen", "127.0.0.1:0", "--to", &format!("https://localhost:{port}")]);
    order.env("NIX_SSL_CERT_FILE", pushing.own.bundle());
    order.env("SNOWBANK_TLS_CERTIFICATE", &old.certificate);
    order.env("SNOWBANK_TLS_PRIVATE_KEY", &old.key).stdout(Stdio::null());
    let _agent = Process::start(&mut order, &pushing.host.file("agent.log"));
    let pushed = |expression: &str| {
        let path = pushing.host.build_and_queue(expression).remove(0);
        wait_until("it is pushed", PATIENCE, || {
            server.get(&format!("/{}.narinfo", path.hash())).status == 200
        });
    };
    pushed("run \"first\" \"echo 1 >$out\"");
    pushing.clients.issue_client("runner", &["b.runners.example"], |_| ());
    pushing.clients.revoke(&[77]);
    wait_until("the list is loaded", PATIENCE, || {
        server.metric("snowbank_tls_revocations", "") == 1.0
    });
    pushed("run \"second\" \"echo 2 >$out\"");
}
