//! What a cache does not have is fetched from peers and upstreams when somebody asks for it: once, verified, and kept.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread,
};

use snowbank::nix::hash::Sha256;

use crate::support::{
    PATIENCE,
    bank::{DataDirectory, data_directory, each_file, replace},
    command,
    fixtures::{fixtures, path},
    http::{Connection, Response, field},
    nix::{Client, Scratch, StorePath, Version, run, tempdir},
    proxy::{Fault, FaultProxy},
    push::{Made, STORE, assert_nothing_waits, scripted},
    server::{Server, Setup},
    snowbank, wait_until,
};

/// A cache that has nothing of its own, and asks others.
struct Asking {
    own: Scratch,
}

impl Asking {
    fn new() -> Self {
        Self { own: tempdir() }
    }

    fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    /// A server with these settings of its default cache.
    fn start(&self, settings: &str) -> Server {
        let config = self.own.path().join("snowbank.toml");
        fs::write(&config, format!("[cache.default]\n{settings}\n")).unwrap();
        let bank = self.data().join("default");
        fs::create_dir_all(&bank).unwrap();
        let info = format!("StoreDir: {}\n", fixtures().store.directory().display());
        fs::write(bank.join("nix-cache-info"), info).unwrap();
        let setup = Setup::on(&self.data()).bank_only(&fixtures().store);
        setup.argument("--config").argument(config).start()
    }

    /// Whether the path is kept here.
    fn keeps(&self, path: &StorePath) -> bool {
        self.data().join(format!("default/{}.narinfo", path.hash())).exists()
    }
}

/// Somebody else's cache of the fixtures, in this compression.
fn upstream(compression: &str) -> (DataDirectory, Server) {
    let directory = data_directory(&fixtures().bank(compression));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    (directory, server)
}

fn upstreams(url: &str, key: &str) -> String {
    format!("upstreams = [{{ url = \"{url}\", keys = [\"{key}\"] }}]\n{PATIENT}")
}

/// A machine that is busy otherwise is no reason for a miss.
const PATIENT: &str = "upstream_deadline = \"30s\"\n";

/// Puts another NAR in the place of a path's, sound in itself, of which the narinfo says all but the NarHash.
fn lie(directory: &DataDirectory, path: &StorePath) {
    let file = directory.nar(path);
    let mut nar = zstd::decode_all(&fs::read(&file).unwrap()[..]).unwrap();
    let middle = nar.len() / 2;
    nar[middle] ^= 1;
    let bytes = zstd::bulk::compress(&nar, 3).unwrap();
    replace(&file, &bytes);
    let narinfo = directory.narinfo(path);
    let text = fs::read_to_string(&narinfo).unwrap();
    let line = |line: &str| match line.split_once(": ") {
        Some(("FileSize", _)) => format!("FileSize: {}\n", bytes.len()),
        Some(("FileHash", _)) => format!("FileHash: {}\n", Sha256::of(&bytes)),
        _ => format!("{line}\n"),
    };
    replace(&narinfo, text.lines().map(line).collect::<String>().as_bytes());
}

/// Nothing is remembered of what nobody has.
const NO_MEMORY: &str = "upstream_misses_kept = \"0ms\"\n";

fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

fn nar_url(server: &Server, path: &StorePath) -> String {
    format!("/{}", field(&narinfo(server, path).expect(200).text(), "URL").unwrap())
}

fn decoded(response: &Response) -> Vec<u8> {
    zstd::decode_all(&response.body[..]).unwrap()
}

/// The requests for narinfo and for NARs among what went through a proxy.
fn asked(proxy: &FaultProxy) -> (usize, usize) {
    let requests = proxy.requests();
    let count = |part: &str| {
        let is = |head: &&String| head.lines().next().is_some_and(|line| line.contains(part));
        requests.iter().filter(is).count()
    };
    (count(".narinfo"), count("/nar/"))
}

fn absent(number: usize) -> String {
    format!("/{number:032}.narinfo")
}

#[test]
fn both_versions_of_nix_substitute_through_us_and_what_came_stays() {
    for (version, compression) in Version::BOTH.into_iter().zip(["xz", "none"]) {
        let asking = Asking::new();
        let (_directory, theirs) = upstream(compression);
        let server = asking.start(&upstreams(&theirs.url(), &theirs.key()));
        let paths = [path("top"), path("website")];
        let client = Client::new(version, &fixtures().store);
        client.realise(&server.url(), &server.key(), &paths).expect_success();
        for name in ["top", "refs", "leaf", "website"] {
            assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
            wait_until("it to be kept", PATIENCE, || asking.keeps(path(name)));
        }
        theirs.stop();
        assert_nothing_waits(&server);
        server.stop();
        let server = asking.start("");
        let text = narinfo(&server, path("top")).expect(200).text();
        assert_eq!(field(&text, "Compression").as_deref(), Some("zstd"));
        let client = Client::new(version, &fixtures().store);
        client.copy_from(&server.url(), &server.key(), &paths).expect_success();
        assert!(client.dump(path("top")) == fixtures().dump(path("top")));
    }
}

#[test]
fn a_hundred_clients_that_want_one_path_make_one_request() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let proxy = FaultProxy::before(theirs.address(), Fault::None);
    let server = asking.start(&upstreams(&proxy.url(), &theirs.key()));
    let address = server.address();
    let ask = |url: String| {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let url = url.clone();
                thread::spawn(move || Connection::open(address).request("GET", &url, &[]))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap().expect(200)).collect::<Vec<_>>()
    };
    let narinfos = ask(format!("/{}.narinfo", path("website").hash()));
    assert_eq!(asked(&proxy), (1, 0));
    let url = field(&narinfos[0].text(), "URL").unwrap();
    let nars = ask(format!("/{url}"));
    assert_eq!(asked(&proxy), (1, 1));
    let dump = fixtures().dump(path("website"));
    for nar in &nars {
        assert!(nar.body == nars[0].body || decoded(nar) == dump);
    }
    assert!(decoded(&nars[0]) == dump);
    assert_eq!(server.metric("snowbank_narinfo_hits_total", "source=\"upstream\""), 100.0);
    wait_until("it to be kept", PATIENCE, || asking.keeps(path("website")));
    assert_eq!(server.metric("snowbank_pulled_nars_total", "result=\"ok\""), 1.0);
}

#[test]
fn who_wants_to_know_what_is_here_starts_nothing() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let proxy = FaultProxy::before(theirs.address(), Fault::None);
    let settings = upstreams(&proxy.url(), &theirs.key()) + "push = \"open\"\n";
    let server = asking.start(&settings);
    let leaf = format!("/{}.narinfo", path("leaf").hash());
    server.head(&leaf).expect(404);
    for directive in ["only-if-cached", "no-cache, Only-If-Cached"] {
        server.connect().request("GET", &leaf, &[("Cache-Control", directive)]).expect(404);
    }
    assert_eq!(asked(&proxy), (0, 0));
    // What is offered from elsewhere is not here either.
    let url = nar_url(&server, path("leaf"));
    server.head(&leaf).expect(404);
    server.head(&url).expect(404);
    assert_eq!(asked(&proxy), (1, 0));
}

#[test]
fn a_pushed_path_has_what_it_refers_to_fetched_and_its_closure_is_whole_without_the_upstream() {
    let asking = Asking::new();
    let (directory, theirs) = upstream("xz");
    // The upstream has all but the path that is pushed.
    fs::remove_file(directory.narinfo(path("top"))).unwrap();
    let settings = upstreams(&theirs.url(), &theirs.key()) + "push = \"open\"\n";
    let server = asking.start(&settings);
    let to = format!("{}?compression=none", server.url());
    let nix = ["--extra-experimental-features", "nix-command", "copy", "--to", &to];
    fixtures().store.run("nix", &[&nix[..], &[path("top").as_str()]].concat());
    // A real Nix asks for each path with GET, and sends what it is not offered.
    assert!(asking.keeps(path("top")));
    for name in ["refs", "leaf"] {
        wait_until("what it refers to to be kept", PATIENCE, || asking.keeps(path(name)));
    }
    theirs.stop();
    let client = Client::new(Version::Current, &fixtures().store);
    client.realise(&server.url(), &server.key(), &[path("top")]).expect_success();
    assert!(client.dump(path("refs")) == fixtures().dump(path("refs")));
}

#[test]
fn what_no_known_key_signed_is_not_taken() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let settings = format!("upstreams = [\"{}\"]\n{NO_MEMORY}{PATIENT}", theirs.url());
    let server = asking.start(&settings);
    narinfo(&server, path("leaf")).expect(404);
    assert_eq!(
        server.metric("snowbank_upstream_narinfo_requests_total", "result=\"untrusted\""),
        1.0
    );
    let url =
        format!("/nar/{}.nar.zst?hash={}", fixtures().nar_hash(path("leaf")), path("leaf").hash());
    server.get(&url).expect(404);
    server.stop();
    // The keys that the cache goes by count for all of them.
    let server = asking.start(&format!("{settings}upstream_keys = [\"{}\"]\n", theirs.key()));
    narinfo(&server, path("leaf")).expect(200);
}

#[test]
fn a_nar_that_is_not_what_was_signed_is_never_whole_and_never_kept() {
    let asking = Asking::new();
    let (directory, theirs) = upstream("zstd");
    lie(&directory, path("big"));
    let server = asking.start(&upstreams(&theirs.url(), &theirs.key()));
    let url = nar_url(&server, path("big"));
    if let Ok(response) = server.connect().try_request("GET", &url, &[]) {
        assert_eq!(response.status, 404, "a wrong NAR looks whole");
    }
    wait_until("the failure to be counted", PATIENCE, || {
        server.metric("snowbank_pulled_nars_total", "result=\"failed\"") == 1.0
    });
    // It is not offered again at once: clients go elsewhere.
    narinfo(&server, path("big")).expect(404);
    assert!(!asking.keeps(path("big")));
    assert_nothing_waits(&server);
}

#[test]
fn a_second_upstream_is_asked_where_the_first_has_no_nar() {
    let asking = Asking::new();
    let (first_directory, first) = upstream("xz");
    let (_second_directory, second) = upstream("zstd");
    let server = asking.start(&format!(
        "upstreams = [{{ url = \"{}\", keys = [\"{}\"] }}, {{ url = \"{}\", keys = [\"{}\"] }}]\n{PATIENT}",
        first.url(),
        first.key(),
        second.url(),
        second.key()
    ));
    let url = nar_url(&server, path("website"));
    assert_eq!(server.metric("snowbank_upstream_narinfo_requests_total", "result=\"hit\""), 1.0);
    fs::remove_file(first_directory.nar(path("website"))).unwrap();
    assert!(decoded(&server.get(&url).expect(200)) == fixtures().dump(path("website")));
    wait_until("it to be kept", PATIENCE, || asking.keeps(path("website")));
    assert_eq!(server.metric("snowbank_pulled_nars_total", "result=\"failed\""), 1.0);
}

#[test]
fn an_upstream_that_dies_within_a_nar_cuts_its_readers_and_the_next_try_is_whole() {
    let asking = Asking::new();
    let (directory, theirs) = upstream("zstd");
    let after =
        usize::try_from(fs::metadata(directory.nar(path("big"))).unwrap().len() / 2).unwrap();
    let proxy = FaultProxy::before(theirs.address(), Fault::Cut { after });
    let server = asking.start(&(upstreams(&proxy.url(), &theirs.key()) + NO_MEMORY));
    let url = nar_url(&server, path("big"));
    assert!(server.connect().try_request("GET", &url, &[]).is_err(), "it was not cut");
    assert_nothing_waits(&server);
    // The NAR is found by its URL alone, as a client remembers it.
    assert!(decoded(&server.get(&url).expect(200)) == fixtures().dump(path("big")));
    wait_until("it to be kept", PATIENCE, || asking.keeps(path("big")));
}

#[test]
fn killed_within_a_nar_nothing_of_it_is_left_and_its_url_is_good_afterwards() {
    let asking = Asking::new();
    let (directory, theirs) = upstream("zstd");
    let after =
        usize::try_from(fs::metadata(directory.nar(path("big"))).unwrap().len() / 2).unwrap();
    let proxy = FaultProxy::before(theirs.address(), Fault::Hold { after });
    let settings = upstreams(&proxy.url(), &theirs.key());
    let server = asking.start(&settings);
    let url = nar_url(&server, path("big"));
    let mut connection = server.connect();
    connection.send_request("GET", &url, &[]).unwrap();
    // What has come is sent on, before the rest is there.
    assert_eq!(connection.head().unwrap().status, 200);
    proxy.wait_for_the_fault();
    server.kill();
    proxy.release();
    let server = asking.start(&settings);
    assert_nothing_waits(&server);
    assert!(!asking.keeps(path("big")));
    assert!(decoded(&server.get(&url).expect(200)) == fixtures().dump(path("big")));
    wait_until("it to be kept", PATIENCE, || asking.keeps(path("big")));
}

#[test]
fn a_silent_upstream_is_not_asked_again_until_it_answers() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::before(silent.local_addr().unwrap(), Fault::None);
    let server =
        asking.start(&(upstreams(&proxy.url(), &theirs.key()).replace("30s", "200ms") + NO_MEMORY));
    for number in 0..50 {
        server.get(&absent(number)).expect(404);
    }
    let (narinfos, _) = asked(&proxy);
    assert!((1..=3).contains(&narinfos), "it was asked {narinfos} times");
    assert_eq!(server.metric("snowbank_upstream_up", "upstream="), 0.0);
    proxy.point_at(theirs.address());
    wait_until("it to be asked again", PATIENCE, || {
        server.get(&format!("/{}.narinfo", path("leaf").hash())).status == 200
    });
    assert_eq!(server.metric("snowbank_upstream_up", "upstream="), 1.0);
}

#[test]
fn a_cache_of_another_store_directory_is_not_asked() {
    let asking = Asking::new();
    let theirs = scripted("");
    let made = Made::file("x", b"x");
    made.push(&theirs);
    let server = asking.start(&upstreams(&theirs.url(), &theirs.key()));
    wait_until("it to be noticed", PATIENCE, || {
        server.metric("snowbank_upstream_up", "upstream=") == 0.0
    });
    assert!(server.log().contains("it is a cache of /nix/store, and this one is of /"));
    server.get(&made.url()).expect(404);
}

#[test]
fn what_nobody_has_is_asked_for_once_a_while() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let proxy = FaultProxy::before(theirs.address(), Fault::None);
    let server = asking.start(&upstreams(&proxy.url(), &theirs.key()));
    for _ in 0..20 {
        server.get(&absent(1)).expect(404);
    }
    assert_eq!(asked(&proxy), (1, 0));
}

#[test]
fn a_private_upstream_is_shown_its_token() {
    let asking = Asking::new();
    let private = Asking::new();
    let bank = private.data().join("default");
    let from = fixtures().bank("zstd");
    each_file(&from, &bank, |file, copy| {
        fs::copy(file, copy).unwrap();
    });
    let theirs = private.start("pull = \"token\"\n");
    let words = ["token", "create", "--cache", "default", "--scope", "pull", "--expires", "1d"];
    let mut order = command(snowbank());
    order.args(words).arg("--data-dir").arg(private.data());
    order.arg("--config").arg(private.own.path().join("snowbank.toml"));
    let token = run(&mut order, 60).expect_success().text();
    fs::write(asking.own.path().join("token"), token).unwrap();
    let key = theirs.key();
    let with = |file: &str| {
        format!(
            "upstreams = [{{ url = \"{}\", keys = [\"{key}\"], token_file = \"{file}\" }}]\n{PATIENT}",
            theirs.url()
        )
    };
    let server = asking.start(&with("token"));
    narinfo(&server, path("leaf")).expect(200);
    server.stop();
    fs::write(asking.own.path().join("token"), "another").unwrap();
    let server = asking.start(&with("token"));
    narinfo(&server, path("leaf")).expect(404);
    assert!(!server.log().contains("another"));
}

/// Two nodes that are each other's peers, on ports that are known before they start.
struct Pair {
    first: Asking,
    second: Asking,
    addresses: [SocketAddr; 2],
}

impl Pair {
    fn new() -> Self {
        // The ports were free a moment ago, which is all that can be had.
        let addresses =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        Self { first: Asking::new(), second: Asking::new(), addresses }
    }

    /// Starts both, with the same key.
    fn start(&self, more: &str) -> [Server; 2] {
        let key = self.first.own.path().join("key");
        fixtures().store.run(
            "nix-store",
            &[
                "--generate-binary-cache-key".as_ref(),
                "pair-1".as_ref(),
                key.as_os_str(),
                self.first.own.path().join("public").as_os_str(),
            ],
        );
        let [one, other] = self.addresses;
        let start = |asking: &Asking, own: SocketAddr, peer: SocketAddr| {
            let config = format!(
                "[cache.default]\nsigning_keys = [{key:?}]\npush = \"open\"\npeers = [\"http://{peer}\"]\n{PATIENT}{more}"
            );
            let file = asking.own.path().join("snowbank.toml");
            fs::write(&file, config).unwrap();
            let bank = asking.data().join("default");
            fs::create_dir_all(&bank).unwrap();
            fs::write(bank.join("nix-cache-info"), format!("StoreDir: {STORE}\n")).unwrap();
            Setup::on(&asking.data())
                .listen(&[&own.to_string()])
                .argument("--store")
                .argument("none")
                .argument("--config")
                .argument(file)
                .start()
        };
        [start(&self.first, one, other), start(&self.second, other, one)]
    }
}

fn asked_of_peer(server: &Server, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    server.metric("snowbank_upstream_narinfo_requests_total", &label)
}

#[test]
fn peers_have_what_each_of_them_was_given_and_ask_for_nothing_that_the_other_has_not() {
    let pair = Pair::new();
    let [first, second] = pair.start(NO_MEMORY);
    let knows = |server: &Server, paths: f64| {
        wait_until("the holdings of the peer to be known", PATIENCE, || {
            server.metric("snowbank_peer_paths", "") == paths
        });
    };
    let (one, two) = (Made::file("one", b"1"), Made::file("two", b"2"));
    one.push(&first);
    two.push(&second);
    knows(&first, 1.0);
    knows(&second, 1.0);
    let before = [asked_of_peer(&first, "miss"), asked_of_peer(&second, "miss")];
    for number in 0..100 {
        first.get(&absent(number)).expect(404);
        second.get(&absent(number)).expect(404);
    }
    let after = [asked_of_peer(&first, "miss"), asked_of_peer(&second, "miss")];
    assert_eq!(before, after, "misses asked the peer");
    for (server, made) in [(&second, &one), (&first, &two)] {
        let text = server.get(&made.url()).expect(200).text();
        let url = format!("/{}", field(&text, "URL").unwrap());
        assert!(decoded(&server.get(&url).expect(200)) == made.nar);
    }
    assert_eq!(first.metric("snowbank_narinfo_hits_total", "source=\"peer\""), 1.0);
    // What came later is known soon.
    let later = Made::referring("later", &[&one]);
    later.push(&first);
    wait_until("it to be had from the peer", PATIENCE, || second.get(&later.url()).status == 200);
}

#[test]
fn peers_that_know_nothing_of_each_other_do_not_ask_in_a_circle() {
    let pair = Pair::new();
    let [first, second] = pair.start(&format!("{NO_MEMORY}pull = \"public\"\n"));
    for number in 0..20 {
        first.get(&absent(number)).expect(404);
        second.get(&absent(number)).expect(404);
    }
    let asked = ["hit", "miss", "no_answer"].map(|result| asked_of_peer(&first, result));
    let total: f64 = asked.iter().sum();
    assert!(total <= 20.0, "{asked:?}");
}

#[test]
fn a_peer_that_is_gone_keeps_nobody_waiting_and_is_back_when_it_is() {
    let pair = Pair::new();
    let [first, second] = pair.start(NO_MEMORY);
    let one = Made::file("one", b"1");
    one.push(&second);
    wait_until("the path to be had", PATIENCE, || first.get(&one.url()).status == 200);
    second.stop();
    wait_until("the peer to be left alone", PATIENCE, || {
        first.metric("snowbank_upstream_up", "") == 0.0
    });
    let silent = asked_of_peer(&first, "no_answer");
    for number in 0..20 {
        first.get(&absent(number)).expect(404);
    }
    assert_eq!(asked_of_peer(&first, "no_answer"), silent);
}

#[test]
fn what_the_disk_lost_is_healed_from_an_upstream() {
    let asking = Asking::new();
    let (_directory, theirs) = upstream("zstd");
    let server = asking.start(&upstreams(&theirs.url(), &theirs.key()));
    let url = nar_url(&server, path("refs"));
    server.get(&url).expect(200);
    wait_until("it to be kept", PATIENCE, || asking.keeps(path("refs")));
    let file =
        asking.data().join(format!("default/nar/{}.nar.zst", fixtures().nar_hash(path("refs"))));
    let well = fs::read(&file).unwrap();
    replace(&file, &well[..well.len() / 2]);
    wait_until("it to be healed", PATIENCE, || {
        server.get(&format!("/nar/{}.nar", path("refs").hash()));
        fs::read(&file).is_ok_and(|bytes| bytes == well)
    });
    narinfo(&server, path("refs")).expect(200);
}
