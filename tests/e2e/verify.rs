//! Every path is held against its bytes: what is wrong is found, not served, and put back.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::Value;

use crate::support::{
    PATIENCE,
    bank::replace,
    command,
    http::field,
    nix::{Outcome, Scratch, run, tempdir},
    push::{Made, STORE},
    server::{Server, Setup},
    snowbank,
    trees::Numbers,
    wait_until,
};

/// A cache that anybody may push to, over many starts.
struct Place {
    own: Scratch,
}

impl Place {
    fn new() -> Self {
        Self { own: tempdir() }
    }

    fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    fn bank(&self) -> PathBuf {
        self.data().join("default")
    }

    /// A server with these settings of its default cache.
    fn start(&self, settings: &str) -> Server {
        Setup::on(&self.data()).pushed_to(Path::new(STORE), settings).start()
    }

    fn order(&self, words: &[&str]) -> Command {
        let mut order = command(snowbank());
        order.arg("verify").args(words).arg("--data-dir").arg(self.data());
        order.arg("--config").arg(self.data().with_extension("toml"));
        order
    }

    fn verify(&self, words: &[&str]) -> Outcome {
        run(&mut self.order(words), 120)
    }

    /// What is not mended, by path.
    fn findings(&self, words: &[&str], code: i32) -> Vec<(String, Value)> {
        let outcome = self.verify(&[&["--json"], words].concat());
        let text = String::from_utf8_lossy(&outcome.stdout);
        assert_eq!(outcome.code, Some(code), "{}{text}", outcome.stderr);
        let said: Value = serde_json::from_str(&text).unwrap();
        let findings = said[0]["findings"].as_array().unwrap().clone();
        let path = |found: &Value| found["path"].as_str().unwrap().to_owned();
        findings.into_iter().map(|found| (path(&found), found)).collect()
    }

    fn paths(&self, words: &[&str], code: i32) -> BTreeSet<String> {
        self.findings(words, code).into_iter().map(|(path, _)| path).collect()
    }

    fn narinfo(&self, made: &Made) -> PathBuf {
        self.bank().join(format!("{}.narinfo", made.hash()))
    }

    fn nar(&self, made: &Made) -> PathBuf {
        self.bank().join(made.nar_url().trim_start_matches('/'))
    }

    fn listing(&self, made: &Made) -> PathBuf {
        self.bank().join(format!("{}.ls", made.hash()))
    }
}

fn made(count: usize) -> Vec<Made> {
    let mut numbers = Numbers::from(11);
    let bytes = |number: usize| 100 + number * 977;
    (0..count)
        .map(|number| Made::file(&format!("path-{number}"), &numbers.bytes(bytes(number))))
        .collect()
}

/// Turns one bit of a file around, any of them.
fn flip(file: &Path, numbers: &mut Numbers) {
    let mut bytes = fs::read(file).unwrap();
    let at = numbers.below(bytes.len() * 8);
    bytes[at / 8] ^= 1 << (at % 8);
    replace(file, &bytes);
}

#[test]
fn bits_that_flip_are_all_found_none_is_served_and_a_peer_brings_all_back() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (server, peer) = (place.start(""), elsewhere.start(""));
    let paths = made(60);
    for made in &paths {
        made.push(&server);
        made.push(&peer);
    }
    assert_eq!(place.paths(&[], 0), BTreeSet::new());
    let mut numbers = Numbers::from(12);
    let mut wrong = BTreeSet::new();
    for (number, made) in paths.iter().enumerate().filter(|(number, _)| number % 4 != 3) {
        let file = match number % 4 {
            0 => place.nar(made),
            1 => place.narinfo(made),
            _ => place.listing(made),
        };
        flip(&file, &mut numbers);
        wrong.insert(made.hash());
    }
    assert_eq!(place.paths(&[], 1), wrong);
    assert_eq!(place.paths(&["--findings"], 1), wrong);
    let none_is_served = |server: &Server| {
        for (number, made) in paths.iter().enumerate() {
            let is_damaged = matches!(number % 4, 0 | 1);
            let status = if is_damaged { 404 } else { 200 };
            server.get(&made.url()).expect(status);
            if number % 4 == 0 {
                server.get(&made.nar_url()).expect(404);
            }
        }
    };
    none_is_served(&server);
    assert_eq!(fs::read_dir(place.bank().join("damaged")).unwrap().count(), 15);
    server.stop();
    let server = place.start("");
    none_is_served(&server);
    server.stop();

    let settings =
        format!("heal_from = [\"{}\"]\nupstream_keys = [\"{}\"]\n", peer.url(), peer.key());
    let server = place.start(&settings);
    assert_eq!(place.paths(&["--repair"], 0), BTreeSet::new());
    assert_eq!(place.paths(&["--findings"], 0), BTreeSet::new());
    for made in &paths {
        made.assert_served(&server);
        let listing = format!("/{}.ls", made.hash());
        assert!(server.get(&listing).expect(200).body == peer.get(&listing).expect(200).body);
    }
}

#[test]
fn what_nobody_has_is_listed_with_what_refers_to_it() {
    let place = Place::new();
    let server = place.start("");
    let needed = Made::file("needed", b"needed by others");
    let others = [Made::referring("one", &[&needed]), Made::referring("two", &[&needed])];
    needed.push(&server);
    others.iter().for_each(|made| made.push(&server));
    replace(&place.nar(&needed), b"nothing of a NAR");
    let findings = place.findings(&["--repair"], 1);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let (path, found) = &findings[0];
    assert_eq!(*path, needed.hash());
    let referrers: BTreeSet<&str> =
        found["referrers"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let expected: Vec<String> = others.iter().map(Made::hash).collect();
    assert_eq!(referrers, expected.iter().map(String::as_str).collect());
    let text = place.verify(&["--findings"]);
    assert!(text.stdout.windows(24).any(|part| part == b"    2 paths refer to it:"));
    // Whoever pushes it again puts it back.
    needed.push(&server);
    assert_eq!(place.paths(&["--anew"], 0), BTreeSet::new());
    needed.assert_served(&server);
}

#[test]
fn a_signature_that_is_not_of_a_known_key_of_that_name_and_a_missing_reference_are_found() {
    let place = Place::new();
    let server = place.start("");
    let needed = Made::file("needed", b"needed by others");
    let other = Made::referring("other", &[&needed]);
    needed.push(&server);
    other.push(&server);
    let name = server.key().split(':').next().unwrap().to_owned();
    server.stop();
    fs::remove_file(place.narinfo(&needed)).unwrap();
    // As somebody else writes it, without our sum.
    let text = fs::read_to_string(place.narinfo(&other)).unwrap();
    let (sum, text) = text.split_once('\n').unwrap();
    assert!(sum.starts_with("SnowbankSum: "));
    let forged = format!("{text}Sig: {name}:{}==\n", "A".repeat(86));
    replace(&place.narinfo(&other), forged.as_bytes());
    let server = place.start("");
    let findings = place.findings(&[], 1);
    let kinds: Vec<&str> = findings[0].1["what"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!((findings.len(), kinds), (1, vec!["dangling", "signature"]));
    // The signature goes; what is missing is missing still.
    let findings = place.findings(&["--repair"], 1);
    let what = findings[0].1["what"].as_array().unwrap();
    assert_eq!((what.len(), &what[0]["kind"]), (1, &"dangling".into()));
    assert!(!fs::read_to_string(place.narinfo(&other)).unwrap().contains("Sig: "));
    needed.push(&server);
    assert_eq!(place.paths(&[], 0), BTreeSet::new());
}

#[test]
fn without_a_server_the_same_is_found_and_a_server_that_starts_then_does_not_serve_it() {
    let place = Place::new();
    let server = place.start("");
    let paths = made(6);
    paths.iter().for_each(|made| made.push(&server));
    server.stop();
    replace(&place.nar(&paths[2]), b"nothing of a NAR");
    fs::remove_file(place.listing(&paths[4])).unwrap();
    let wrong = |numbers: &[usize]| numbers.iter().map(|number| paths[*number].hash()).collect();
    assert_eq!(place.paths(&[], 1), wrong(&[2, 4]));
    assert_eq!(place.paths(&["--repair"], 1), wrong(&[2]));
    let server = place.start("");
    server.get(&paths[2].url()).expect(404);
    server.get(&format!("/{}.ls", paths[4].hash())).expect(200);
}

#[test]
fn by_itself_it_finds_what_is_wrong_and_heals_it() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let peer = elsewhere.start("");
    let settings = format!("heal_from = [\"{}\"]\nverify_every = \"1s\"\n", peer.url());
    let server = place.start(&settings);
    let paths = made(4);
    for made in &paths {
        made.push(&server);
        made.push(&peer);
    }
    let well = fs::read(place.nar(&paths[1])).unwrap();
    flip(&place.nar(&paths[1]), &mut Numbers::from(13));
    wait_until("it to be found and healed", PATIENCE, || {
        fs::read(place.nar(&paths[1])).is_ok_and(|bytes| bytes == well)
    });
    wait_until("it to be counted", PATIENCE, || {
        server.metric("snowbank_verify_mended_total", "cache=\"default\"") >= 1.0
    });
    assert!(server.metric("snowbank_verified_paths_total", "cache=\"default\"") >= 1.0);
    paths.iter().for_each(|made| made.assert_served(&server));
    assert_eq!(place.paths(&["--findings"], 0), BTreeSet::new());
}

#[test]
fn beside_pushes_and_collections_nothing_is_found_that_is_well() {
    let place = Place::new();
    let settings = "keep_unused = \"0s\"\nkeep_at_least = \"0s\"\ncollect_every = \"1s\"\n";
    let server = place.start(settings);
    let paths = made(40);
    thread::scope(|scope| {
        let pusher = scope.spawn(|| {
            for _ in 0..6 {
                for made in &paths {
                    let sent = made.sent("zstd");
                    let mut connection = server.connect();
                    connection.put(&sent.url, &sent.bytes);
                    connection.put(&made.url(), made.narinfo(&sent).as_bytes());
                }
            }
        });
        while !pusher.is_finished() {
            assert_eq!(place.paths(&["--anew"], 0), BTreeSet::new());
        }
    });
    let text = server.get("/nix-cache-info").expect(200).text();
    assert_eq!(field(&text, "StoreDir").as_deref(), Some(STORE));
}

#[test]
fn verifying_that_is_killed_anywhere_serves_nothing_wrong_and_the_next_one_finds_all() {
    let (mut killed, mut numbers) = (0, Numbers::from(21));
    for step in ["rename", "fsync_directory"] {
        for count in 1..50 {
            let place = Place::new();
            let server = place.start("");
            let paths = made(6);
            for made in &paths {
                made.push(&server);
            }
            server.stop();
            let (wrong, well) = paths.split_at(3);
            for made in wrong {
                flip(&place.nar(made), &mut numbers);
            }
            let mut order = place.order(&[]);
            order.env("SNOWBANK_FAULT", format!("publish.{step}=kill:{count}"));
            let code = run(&mut order, 60).code;
            let found = place.paths(&[], 1);
            assert_eq!(found, wrong.iter().map(Made::hash).collect(), "{step} {count}");
            let server = place.start("");
            for made in wrong {
                server.get(&format!("/{}.narinfo", made.hash())).expect(404);
            }
            for made in well {
                server.get(&format!("/{}.narinfo", made.hash())).expect(200);
                server.get(&made.nar_url()).expect(200);
            }
            // It came to its end, and says what is wrong.
            if code == Some(1) {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 3 * 3, "killed {killed} times only");
}
