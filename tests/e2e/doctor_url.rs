//! `snowbank doctor URL`: what it says of servers that are well, and of each thing that is wrong with one.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use snowbank::client::nix_conf::view::View;

use crate::support::{
    authority::{Authority, HERE, Issued},
    bank::{DataDirectory, data_directory},
    command,
    fixtures::{fixtures, path},
    http::field,
    nix::{Client, Outcome, Scratch, Version, run, tempdir},
    server::{Server, Setup},
    snowbank,
};

/// Longer than all the steps that a silent server can hold up.
const BOUND: Duration = Duration::from_secs(45);

/// A client machine: its nix.conf and its environment.
pub(crate) struct Machine {
    own: Scratch,
    environment: Vec<(String, PathBuf)>,
}

impl Machine {
    fn new(conf: &str) -> Self {
        let own = tempdir();
        fs::write(own.path().join("nix.conf"), conf).unwrap();
        let mut environment = vec![("NIX_CONF_DIR".to_owned(), own.path().to_path_buf())];
        let store = fixtures().store.environment();
        environment.extend(store.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Self { own, environment }
    }

    /// One that uses the cache at `url` and trusts its key.
    pub(crate) fn of(url: &str, key: &str) -> Self {
        Self::new(&format!("substituters = {url}\ntrusted-public-keys = {key}\n"))
    }

    pub(crate) fn with(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_path_buf()));
        self
    }

    fn netrc(&self, text: &str) {
        fs::write(self.own.path().join("netrc"), text).unwrap();
    }

    pub(crate) fn doctor(&self, words: &[&str]) -> Said {
        let mut order = command(snowbank());
        order.arg("doctor").args(words);
        order.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Said(run(&mut order, 120))
    }
}

/// What the doctor said.
pub(crate) struct Said(Outcome);

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// The line with these words, of which the first is its verdict.
    #[track_caller]
    pub(crate) fn has(&self, verdict: &str, words: &[&str]) -> &Self {
        let text = self.text();
        let found = text
            .lines()
            .any(|line| line.starts_with(verdict) && words.iter().all(|word| line.contains(word)));
        assert!(found, "no {verdict} line with {words:?}:\n{text}{}", self.0.stderr);
        self
    }

    #[track_caller]
    fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.0.code, Some(code), "{}{}", self.text(), self.0.stderr);
        self
    }

    /// One problem, and the rest is skipped.
    #[track_caller]
    fn stops_at(&self, words: &[&str]) {
        self.has("problem", words).has("skipped", &["NAR: not looked at before that is put right"]);
        self.ends_with(1);
        let problems = self.text().lines().filter(|line| line.starts_with("problem")).count();
        assert_eq!(problems, 1, "{}", self.text());
    }
}

/// A server that has a bank and listens with TLS and without.
struct Secure {
    server: Server,
    _directory: DataDirectory,
    _own: Scratch,
}

impl Secure {
    fn start(issued: &Issued) -> Self {
        let (own, directory) = (tempdir(), data_directory(&fixtures().bank("zstd")));
        let config = own.path().join("snowbank.toml");
        let (certificate, key) = (issued.certificate.display(), issued.key.display());
        let text = format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
        fs::write(&config, text).unwrap();
        let server = Setup::on(&directory.data)
            .bank_only(&fixtures().store)
            .argument("--config")
            .argument(config)
            .listen(&["127.0.0.1:0", "https://127.0.0.1:0"])
            .start();
        Self { server, _directory: directory, _own: own }
    }

    fn port(&self) -> u16 {
        let address = &self.server.lines_after("listening on https://")[0];
        address.parse::<SocketAddr>().unwrap().port()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port())
    }

    /// A machine that has all it needs but for the authorities.
    fn machine(&self) -> Machine {
        Machine::of(&self.url(), &self.server.key())
    }
}

/// What a server of the test's own answers: the head without its first words, and the body.
type Answer = (&'static str, Vec<u8>);

/// A server that says what the test wants, to each request by its path.
fn answering(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let (head, body) = answer(path);
                let length = body.len();
                let head = format!("HTTP/1.1 {head}Content-Length: {length}\r\n");
                // The client may have seen enough.
                let _gone = client.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
                let _gone = client.write_all(&body);
            });
        }
    });
    url
}

/// A server of the files below a directory.
fn serving(directory: PathBuf) -> String {
    answering(move |path| match fs::read(directory.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK\r\n", body),
        Err(_) => ("404 Not Found\r\n", Vec::new()),
    })
}

#[test]
fn a_cache_with_tls_is_well_from_end_to_end() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.issue("server"));
    let machine = secure.machine().with("NIX_SSL_CERT_FILE", authority.bundle());
    let said = machine.doctor(&[&secure.url(), "--path", path("top").as_str()]);
    let bundle = authority.bundle();
    said.ends_with(0)
        .has("ok", &["one of the substituters"])
        .has("ok", &["DNS: localhost is", "127.0.0.1"])
        .has("ok", &["TLS 1.3, HTTP/2 (h2)"])
        .has("ok", &["certificate: it is for localhost"])
        .has("ok", &["certificate: it is valid until 2099-01-01"])
        .has("ok", &["issued by", "an authority of a test", bundle.to_str().unwrap()])
        .has("ok", &["clock: this machine and the server agree"])
        .has("ok", &["netrc: no login is asked for"])
        .has("ok", &["for the store directory", "as here"])
        .has("ok", &["asked before cache.nixos.org (40)"])
        .has("ok", &["signature: good, by"])
        .has("ok", &["NAR:", "NarHash and NarSize are right"]);
    assert!(!said.text().contains("problem"), "{}", said.text());
    let said = machine.doctor(&[&secure.url(), "--json"]);
    said.ends_with(0);
    let json: serde_json::Value = serde_json::from_str(&said.text()).unwrap();
    let lines = json.as_array().unwrap();
    assert!(lines.iter().any(|line| line["what"].as_str().unwrap().ends_with("is trusted")));
    assert!(lines.iter().any(|line| line["verdict"] == "skipped"));
}

#[test]
fn an_authority_that_is_not_known_is_named_with_the_file_that_lacks_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secure = Secure::start(&authority.issue("server"));
    let bundle = other.bundle();
    let machine = secure.machine().with("NIX_SSL_CERT_FILE", &bundle);
    machine.doctor(&[&secure.url()]).stops_at(&[
        "unknown authority",
        "an authority of a test",
        bundle.to_str().unwrap(),
        "NIX_SSL_CERT_FILE",
        "ssl-cert-file",
        "security.pki.certificateFiles",
    ]);
    // What nix.conf names counts before the environment.
    let conf = format!("ssl-cert-file = {}\n", authority.bundle().display());
    let machine = Machine::new(&conf).with("NIX_SSL_CERT_FILE", &bundle);
    machine
        .doctor(&[&secure.url()])
        .has("ok", &["ssl-cert-file of nix.conf"])
        .has("warning", &["none of the substituters", "extra-substituters = https://localhost"])
        .has("problem", &["key: untrusted", "extra-trusted-public-keys = "])
        .ends_with(1);
    let machine = secure.machine().with("NIX_SSL_CERT_FILE", "/nonexistent/ca.pem");
    machine.doctor(&[&secure.url()]).stops_at(&["no authorities", "/nonexistent/ca.pem"]);
    let secure = Secure::start(&authority.self_signed("alone"));
    let machine = secure.machine().with("NIX_SSL_CERT_FILE", &bundle);
    machine.doctor(&[&secure.url()]).stops_at(&["self-signed by CN=alone"]);
}

#[test]
fn a_certificate_for_another_host_or_another_time_is_told_as_that() {
    let authority = Authority::new();
    let said = |hosts: &[&str], years| {
        let secure = Secure::start(&authority.issue_for("server", hosts, years));
        let machine = secure.machine().with("NIX_SSL_CERT_FILE", authority.bundle());
        machine.doctor(&[&secure.url()])
    };
    said(&["cache.example.org", "10.0.0.1"], 2020..2099)
        .stops_at(&["wrong name", "not for localhost, but for cache.example.org, 10.0.0.1"]);
    let expired = said(&HERE, 2020..2021);
    expired.stops_at(&["it expired", "at 2021-01-01", "agree on that"]);
    expired.has("ok", &["clock: this machine and the server agree"]);
    said(&HERE, 2090..2099).stops_at(&["not valid before 2090-01-01"]);
    let both = said(&["cache.example.org"], 2020..2021);
    both.has("problem", &["wrong name"]).has("problem", &["it expired"]).ends_with(1);
}

#[test]
fn http_where_tls_is_spoken_and_the_reverse_are_told_so() {
    let authority = Authority::new();
    let secure = Secure::start(&authority.issue("server"));
    let machine = secure.machine();
    let url = secure.url().replace("https:", "http:");
    machine.doctor(&[&url]).stops_at(&["speaks TLS", "https://localhost:"]);
    let plain = secure.server.url();
    let url = plain.replace("http:", "https:");
    machine.doctor(&[&url]).stops_at(&["speaks plain HTTP", &plain]);
    // And where each is what it should be, the one without TLS is well too.
    let machine = Machine::of(&plain, &secure.server.key());
    machine.doctor(&[&plain]).ends_with(0).has("ok", &["HTTP/1.1, as always without TLS"]);
}

#[test]
fn who_refuses_and_who_says_nothing_are_told_apart_within_a_bounded_time() {
    let machine = Machine::new("");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    machine
        .doctor(&[&format!("https://127.0.0.1:{port}")])
        .stops_at(&["TCP: 127.0.0.1:", "connection refused: nothing listens there"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    machine
        .doctor(&[&format!("https://127.0.0.1:{port}")])
        .stops_at(&["took the connection, and said nothing in 10 s"]);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let start = Instant::now();
    machine
        .doctor(&[&format!("http://127.0.0.1:{port}")])
        .stops_at(&["connected, and then no answer in 10 s"]);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
}

#[test]
fn a_key_that_is_not_trusted_is_found_by_the_page_and_by_a_signature() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let (url, key) = (server.url(), server.key());
    let machine = Machine::new(&format!("substituters = {url}/\n"));
    let line = format!("extra-trusted-public-keys = {key}");
    machine.doctor(&[&url]).has("problem", &["key: untrusted", &line]).ends_with(1);
    let said = machine.doctor(&[&url, "--path", path("top").base_name()]);
    said.has("problem", &["signature: untrusted key", &line]).ends_with(1);
    // The bytes are right all the same.
    said.has("ok", &["NAR:", "NarHash and NarSize are right"]);
    let absent = "00000000000000000000000000000000";
    machine.doctor(&[&url, "--path", absent]).stops_at(&["the cache does not have", absent]);
    let wrong = machine.doctor(&[&url, "--path", "hello"]);
    wrong.ends_with(2);
}

#[test]
fn a_private_cache_asks_for_a_login_and_takes_that_of_the_netrc() {
    let (own, directory) = (tempdir(), data_directory(&fixtures().bank("zstd")));
    let config = own.path().join("snowbank.toml");
    fs::write(&config, "[cache.default]\npull = 'token'\n").unwrap();
    let server = Setup::on(&directory.data)
        .bank_only(&fixtures().store)
        .argument("--config")
        .argument(&config)
        .start();
    let mut order = command(snowbank());
    order.args(["token", "create", "--cache", "default", "--scope", "pull", "--name", "reader"]);
    order.args(["--expires", "never"]);
    order.arg("--config").arg(&config).arg("--data-dir").arg(&directory.data);
    let token = run(&mut order, 60).expect_success().text();
    let token = token.trim();
    let machine = Machine::of(&server.url(), &server.key());
    let words = [&server.url(), "--path", path("top").base_name()];
    let needed = "write a line `machine 127.0.0.1 login snowbank password TOKEN`";
    let without = machine.doctor(&words);
    without.stops_at(&["asks for a login (HTTP 401)", "netrc is not there", needed]);
    machine.netrc(&format!("machine elsewhere login x password {token}\n"));
    machine.doctor(&words).stops_at(&["has no entry for 127.0.0.1"]);
    machine.netrc("machine 127.0.0.1 login snowbank password sb_wrong\n");
    let wrong = machine.doctor(&words);
    wrong.stops_at(&["nix-cache-info: HTTP 401", "the login of the netrc is refused"]);
    assert!(!wrong.text().contains("sb_wrong"), "{}", wrong.text());
    machine.netrc(&format!("machine 127.0.0.1 login snowbank password {token}\n"));
    let well = machine.doctor(&words);
    well.ends_with(0)
        .has("ok", &["netrc:", "has a login for 127.0.0.1, which the server asks for"])
        .has("ok", &["signature: good"])
        .has("ok", &["NarHash and NarSize are right"]);
    assert!(!well.text().contains(token), "{}", well.text());
}

#[test]
fn a_nar_that_is_damaged_is_found() {
    let directory = data_directory(&fixtures().bank("none"));
    let (leaf, top) = (path("leaf"), path("top"));
    let nar = directory.nar(leaf);
    let mut bytes = fs::read(&nar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    crate::support::bank::replace(&nar, &bytes);
    let short = directory.nar(top);
    let bytes = fs::read(&short).unwrap();
    crate::support::bank::replace(&short, &bytes[..bytes.len() - 8]);
    let url = serving(directory.bank());
    let machine = Machine::new("require-sigs = false\n");
    let narinfo = fs::read_to_string(directory.narinfo(leaf)).unwrap();
    let hash = field(&narinfo, "NarHash").unwrap();
    machine
        .doctor(&[&url, "--path", leaf.base_name()])
        .has("problem", &["NAR:", "its bytes have the hash", &hash])
        .has("warning", &["require-sigs is false"])
        .ends_with(1);
    machine
        .doctor(&[&url, "--path", top.base_name()])
        .has("problem", &["NAR:", "it unpacks to"])
        .ends_with(1);
    machine
        .doctor(&[&url, "--path", path("file").base_name()])
        .has("ok", &["NarHash and NarSize are right"])
        .ends_with(0);
}

#[test]
fn a_web_page_and_a_redirect_are_named_for_what_they_are() {
    let machine = Machine::new("");
    let page = answering(|_| {
        ("200 OK\r\nContent-Type: text/html\r\n", b"<html>Please log in</html>".to_vec())
    });
    machine.doctor(&[&page]).stops_at(&["nix-cache-info: a web page comes instead"]);
    let moved = answering(|_| {
        ("301 Moved\r\nLocation: https://cache.example.org/nix-cache-info?s=secret\r\n", Vec::new())
    });
    let said = machine.doctor(&[&moved]);
    said.has("warning", &["a redirect to https://cache.example.org/nix-cache-info"])
        .has("warning", &["`snowbank doctor https://cache.example.org`"])
        .ends_with(0);
    assert!(!said.text().contains("secret"), "{}", said.text());
    let other = answering(|_| ("200 OK\r\n", b"StoreDir: /gnu/store\n".to_vec()));
    machine
        .doctor(&[&other])
        .has("problem", &["for the store directory /gnu/store, and here it is"])
        .has("warning", &["no WantMassQuery"])
        .ends_with(1);
}

#[test]
fn who_begins_an_answer_and_goes_silent_is_given_up() {
    // The length is more than ever comes.
    let bank = fixtures().bank("none");
    let stalling = |what: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bank = bank.clone();
        thread::spawn(move || {
            let mut held = Vec::new();
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut head = [0; 4096];
                let count = client.read(&mut head).unwrap();
                let head = String::from_utf8_lossy(&head[..count]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = fs::read(bank.join(path.trim_start_matches('/'))).unwrap_or_default();
                let more = if path.contains(what) { 1000 } else { 0 };
                let length = body.len() + more;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n");
                client.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
                client.write_all(&body).unwrap();
                // Kept open where more is awaited.
                held.extend((more > 0).then_some(client));
            }
        });
        url
    };
    let said = |what: &'static str| {
        let start = Instant::now();
        let url = stalling(what);
        let words = [&url, "--path", path("leaf").base_name()];
        let said = Machine::new("require-sigs = false\n").doctor(&words);
        assert!(start.elapsed() < BOUND, "{what}: {:?}", start.elapsed());
        said
    };
    thread::scope(|scope| {
        let info = scope.spawn(|| {
            said("nix-cache-info").stops_at(&["not all of the answer came in time"]);
        });
        let nar = said("/nar/");
        nar.has("problem", &["NAR:", "the connection broke after"]).ends_with(1);
        info.join().unwrap();
    });
}

#[test]
fn a_proxy_that_counts_is_named_and_asked_and_none_is_asked_for_hosts_that_are_exempt() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let refusing = answering(|_| ("407 Proxy Authentication Required\r\n", Vec::new()));
    let proxy = refusing.replace("http://", "http://user:secret@");
    let machine = Machine::of(&server.url(), &server.key()).with("http_proxy", &proxy);
    let said = machine.doctor(&[&server.url()]);
    said.has("warning", &["http_proxy is set: requests go to http://127.0.0.1:"])
        .has("skipped", &["DNS, TCP and TLS"])
        .stops_at(&["nix-cache-info:"]);
    assert!(!said.text().contains("secret"), "{}", said.text());
    machine.with("no_proxy", "127.0.0.1").doctor(&[&server.url()]).ends_with(0);
    // One for TLS does not count without.
    let machine = Machine::of(&server.url(), &server.key()).with("https_proxy", &proxy);
    machine.doctor(&[&server.url()]).ends_with(0);
}

#[test]
fn a_server_that_wants_a_certificate_of_the_client_is_told_from_one_that_is_ill() {
    let authority = Authority::new();
    let issued = authority.issue("server");
    let mut order = command("openssl");
    order.args(["s_server", "-accept", "127.0.0.1:0", "-Verify", "1", "-verify_return_error"]);
    order.arg("-cert").arg(&issued.certificate).arg("-key").arg(&issued.key).arg("-www");
    order.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = order.spawn().unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let accepts = lines.map_while(Result::ok).find(|line| line.starts_with("ACCEPT ")).unwrap();
    let url = format!("https://localhost:{}", accepts.rsplit(':').next().unwrap());
    let machine = Machine::new("").with("NIX_SSL_CERT_FILE", authority.bundle());
    let said = machine.doctor(&[&url]);
    server.kill().unwrap();
    server.wait().unwrap();
    said.has("ok", &["no ALPN"])
        .stops_at(&["the server wants a certificate of the client", "?tls-certificate="]);
}

/// The settings as a real Nix has them on a machine, and as they are read here.
#[track_caller]
fn assert_read_as_by_nix(machine: &Machine, version: Version, names: &[&str]) {
    let client = Client::new(version, &fixtures().store);
    let mut order = client.program("nix");
    order.args(["--extra-experimental-features", "nix-command", "show-config"]);
    order.envs(machine.environment.iter().map(|(name, value)| (name, value)));
    let shown = run(&mut order, 60).expect_success().text();
    let lookup = |name: &str| {
        let found = machine.environment.iter().rfind(|(known, _)| known == name);
        found.map(|(_, value)| value.clone().into_os_string())
    };
    let views = View::all(Path::new("/"), &lookup);
    let [view] = views.as_slice() else { panic!("there is no daemon here: {views:?}") };
    for &name in names {
        let start = format!("{name} = ");
        let nix = shown.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default();
        let ours = match name {
            "ssl-cert-file" => view.authorities.path.to_str().unwrap(),
            "netrc-file" => view.netrc.to_str().unwrap(),
            other => view.conf.get(other).unwrap_or_default(),
        };
        // Some versions sort them.
        let words =
            |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(words(ours), words(nix), "{name} of {version:?}");
    }
}

#[test]
fn nix_conf_is_read_as_a_real_nix_reads_it() {
    let lists = ["substituters", "trusted-substituters", "trusted-public-keys", "require-sigs"];
    let files = ["netrc-file", "ssl-cert-file"];
    let machine = Machine::new(
        "substituters = http://a http://b # not http://c\ninclude more.conf\n!include none.conf\n\
         extra-trusted-public-keys = k-1:AAAA\nbinary-caches = http://d\n",
    );
    let [more, user, other] =
        ["more.conf", "user.conf", "other.conf"].map(|name| machine.own.path().join(name));
    fs::write(&more, "extra-substituters = http://e\ntrusted-substituters = http://f\n").unwrap();
    fs::write(&user, "extra-substituters = http://g\nrequire-sigs = false\n").unwrap();
    fs::write(&other, "extra-substituters = http://h\nrequire-sigs = true\nnetrc-file = /n\n")
        .unwrap();
    for version in Version::BOTH {
        assert_read_as_by_nix(&machine, version, &lists);
    }
    assert_read_as_by_nix(&machine, Version::Current, &files[..1]);
    let named = format!("{}:{}", user.display(), other.display());
    let machine = machine.with("NIX_USER_CONF_FILES", named).with("SSL_CERT_FILE", "/ssl").with(
        "NIX_CONFIG",
        "extra-trusted-substituters = http://i\nextra-binary-caches = http://j",
    );
    for version in Version::BOTH {
        assert_read_as_by_nix(&machine, version, &lists);
    }
    assert_read_as_by_nix(&machine, Version::Current, &files);
    let machine = machine.with("NIX_SSL_CERT_FILE", "/nix-ssl");
    assert_read_as_by_nix(&machine, Version::Current, &files);
    let machine = machine.with("NIX_CONFIG", "ssl-cert-file = /conf");
    assert_read_as_by_nix(&machine, Version::Current, &files);
}

#[test]
fn what_the_daemon_does_not_get_of_the_user_is_said() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let (url, key) = (server.url(), server.key());
    let machine = Machine::of(&url, &key);
    let socket = machine.own.path().join("socket");
    fs::write(&socket, "").unwrap();
    // The nix.conf of the daemon is that of the machine which runs the tests, and does not know this cache.
    let said = machine.with("NIX_DAEMON_SOCKET_PATH", socket).doctor(&[&url]);
    said.has("warning", &["the nix-daemon and this user go by different substituters"])
        .has("ok", &["one of the substituters", "(for this user)"])
        .has("warning", &["none of the substituters", "(for the nix-daemon)", "/etc/nix/nix.conf"])
        .has("problem", &["key: untrusted", "(for the nix-daemon)"])
        .has("ok", &["is trusted (for this user)"])
        .ends_with(1);
}
