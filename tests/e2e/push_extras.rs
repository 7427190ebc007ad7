//! What comes along with paths: realisations, logs, listings, debug information, and the order in which the
//! newest Nix sends it all.

use std::{collections::BTreeMap, fs, sync::Mutex, thread};

use serde_json::json;

use crate::support::{
    nix::{Client, Store, StorePath, Version, tempdir},
    push::{
        Made, STORE, Sent, Snapshot, assert_nothing_waits, assert_refused, compress, path_of,
        scripted,
    },
    server::Setup,
    trees::BUILD_ID,
};

const CONTENT_ADDRESSED: &str = r#"
  let
    run = name: script: derivation {
      inherit name;
      system = builtins.currentSystem;
      builder = "/bin/sh";
      args = [ "-c" script ];
      PATH = "/usr/bin:/bin";
      __contentAddressed = true;
      outputHashMode = "recursive";
      outputHashAlgo = "sha256";
    };
  in run "user" "echo ${run "used" "echo used > $out"} > $out"
"#;

#[test]
fn push_of_content_addressed_outputs_brings_their_realisations() {
    let store = Store::fresh();
    let own = tempdir();
    let file = own.path().join("ca.nix");
    fs::write(&file, CONTENT_ADDRESSED).unwrap();
    let expression = ["--file", file.to_str().unwrap()];
    let features = ["--option", "extra-experimental-features", "nix-command ca-derivations"];
    let build = ["build", "--no-link", "--print-out-paths"];
    let built = store.run("nix", &[&build[..], &features, &expression].concat());
    let built = StorePath::new(built.trim());
    // Without a signature: the paths prove themselves, and nothing is said for the realisations.
    let server = Setup::bare().pushed_to(&store.directory(), "").start();
    let client = Client::new(Version::Current, &store);
    let url = server.url();
    let to = ["copy", "--to", &url];
    client.run("nix", &[&to[..], &features, &expression].concat());
    let names: Vec<_> = fs::read_dir(server.bank().join("realisations"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty(), "no realisation has come");
    let found: Vec<_> = names
        .iter()
        .map(|name| server.get(&format!("/realisations/{name}")).expect(200).json())
        .collect();
    assert!(found.iter().any(|value| value["outPath"] == built.base_name()), "{found:?}");
    let narinfo = server.get(&format!("/{}.narinfo", built.hash())).expect(200).text();
    assert!(narinfo.contains("CA: fixed:r:sha256:"), "{narinfo}");
    // Another machine has the derivation alone, builds nothing, and finds its output by the realisation.
    let other = Client::new(Version::Current, &store);
    let root = other.root();
    let build = ["build", "--no-link", "--store", root.to_str().unwrap(), "--max-jobs", "0"];
    let options = ["--option", "substituters", &url, "--option", "require-sigs", "false"];
    other.run("nix", &[&build[..], &options, &features, &expression].concat());
    assert_eq!(fs::read(other.real(&built)).unwrap(), fs::read(built.as_path()).unwrap());
    let before = Snapshot::of(server.data());
    let again = Client::new(Version::Current, &store);
    again.run("nix", &[&to[..], &features, &expression].concat());
    before.assert_same(server.data(), "the same realisations again");
}

#[test]
fn push_of_a_build_trace_is_kept_and_its_first_output_stays() {
    let server = scripted("");
    let (first, second) = (Made::file("first", b"first\n"), Made::file("second", b"second\n"));
    let url = format!("/build-trace-v2/{}/out.doi", path_of("some.drv"));
    let trace =
        |made: &Made| json!({"outPath": made.info.path, "signatures": []}).to_string().into_bytes();
    let before = Snapshot::of(server.data());
    let answer = server.connect().put(&url, &trace(&first));
    assert_refused(&answer, &[409], first.info.path.as_str());
    for (body, what) in [(&b"{"[..], "JSON"), (b"{}", "missing"), (br#"{"outPath":"../x"}"#, "")] {
        assert_refused(&server.connect().put(&url, body), &[422], what);
    }
    before.assert_same(server.data(), "a refused build trace");
    first.push(&server);
    second.push(&server);
    server.get(&url).expect(404);
    for _ in 0..2 {
        server.connect().put(&url, &trace(&first)).expect(201);
    }
    let before = Snapshot::of(server.data());
    let answer = server.connect().put(&url, &trace(&second));
    assert_refused(&answer, &[409], second.info.path.as_str());
    before.assert_same(server.data(), "another output");
    let value = server.get(&url).expect(200).json();
    assert_eq!(value["outPath"], first.info.path.as_str());
    // The signatures of others are added.
    let signature = "elsewhere-1:".to_owned() + &"A".repeat(86) + "==";
    let signed = json!({"outPath": first.info.path, "signatures": [signature]}).to_string();
    server.connect().put(&url, signed.as_bytes()).expect(201);
    let value = server.get(&url).expect(200).json();
    assert_eq!(value["signatures"][0]["keyName"], "elsewhere-1");
}

#[test]
fn push_of_a_compressed_narinfo_log_or_listing_is_read() {
    let server = scripted("");
    let derivation = path_of("logged.drv");
    for encoding in ["zstd", "xz", "bzip2", "gzip"] {
        let made = Made::file(&format!("by-{encoding}"), encoding.as_bytes());
        let sent = made.sent("none");
        server.connect().put(&sent.url, &sent.bytes).expect(201);
        let headers = [("Content-Type", "text/x-nix-narinfo"), ("Content-Encoding", encoding)];
        let body = compress(encoding, made.narinfo(&sent).as_bytes());
        let mut connection = server.connect();
        connection.send_with_body("PUT", &made.url(), &headers, &body).expect(201);
        made.assert_served(&server);
        let listing = server.get(&format!("/{}.ls", made.hash())).expect(200).body;
        let url = format!("/{}.ls", made.hash());
        let body = compress(encoding, &listing);
        connection.send_with_body("PUT", &url, &headers, &body).expect(201);
        let body = compress(encoding, b"the same log\n");
        let url = format!("/log/{derivation}");
        connection.send_with_body("PUT", &url, &headers, &body).expect(201);
    }
    assert_eq!(server.get(&format!("/log/{derivation}")).expect(200).text(), "the same log\n");
    let made = Made::file("by-nothing", b"x");
    let sent = made.sent("none");
    server.connect().put(&sent.url, &sent.bytes).expect(201);
    let before = Snapshot::of(server.data());
    let text = made.narinfo(&sent);
    for (encoding, body, statuses) in [
        ("br", text.clone().into_bytes(), [415]),
        ("nonsense", text.clone().into_bytes(), [415]),
        ("zstd", text.clone().into_bytes(), [422]),
        // A narinfo that is a bomb.
        ("zstd", compress("zstd", &vec![b'x'; 64 << 20]), [422]),
    ] {
        let mut connection = server.connect();
        let headers = [("Content-Encoding", encoding)];
        let answer = connection.send_with_body("PUT", &made.url(), &headers, &body);
        assert_refused(&answer, &statuses, "");
        before.assert_same(server.data(), encoding);
    }
}

#[test]
fn push_of_another_log_or_of_what_is_no_listing_is_refused() {
    let server = scripted("");
    let made = Made::file("made", b"x");
    made.push(&server);
    let log = format!("/log/{}", path_of("made.drv"));
    server.connect().put(&log, b"first\n").expect(201);
    let debug = format!("/debuginfo/{BUILD_ID}.debug");
    let before = Snapshot::of(server.data());
    assert_refused(&server.connect().put(&log, b"second\n"), &[409], "log");
    let listing = format!("/{}.ls", made.hash());
    assert_refused(&server.connect().put(&listing, b"{}"), &[422], "listing");
    assert_refused(&server.connect().put(&listing, b"<html>"), &[422], "listing");
    assert_refused(&server.connect().put(&debug, b"{}"), &[422], "debug");
    // What reads as one says nothing that the NAR does not say better, and is not kept.
    let elsewhere = br#"{"archive":"https://elsewhere.test/x","member":"../../etc/passwd"}"#;
    server.connect().put(&debug, elsewhere).expect(201);
    let empty = br#"{"version":1,"root":{"type":"directory","entries":{}}}"#;
    server.connect().put(&listing, empty).expect(201);
    before.assert_same(server.data(), "what is made of the NAR itself");
    server.get(&debug).expect(404);
    let served = server.get(&listing).expect(200).json();
    assert_eq!(served["root"]["type"], "regular");
}

/// Paths of growing size, each of which refers to some of those before it.
fn closure(count: usize) -> Vec<Made> {
    let mut closure: Vec<Made> = Vec::new();
    for index in 0..count {
        let references: Vec<_> = (0..index)
            .filter(|earlier| index % (earlier + 2) == 0)
            .map(|earlier| closure[earlier].info.path.clone())
            .collect();
        let mut content = "filling\n".repeat(100 * index);
        for reference in &references {
            content.push_str(&format!("{STORE}/{reference}\n"));
        }
        let mut made = Made::file(&format!("closure-{index}"), content.as_bytes());
        made.info.references = references;
        closure.push(made);
    }
    closure
}

#[test]
fn push_in_the_order_of_nix_2_35_all_nars_in_parallel_and_then_narinfos_by_reference() {
    let server = scripted("");
    let closure = closure(40);
    let mut connection = server.connect();
    connection.request("GET", "/nix-cache-info", &[]).expect(200);
    for made in &closure {
        connection.request("HEAD", &made.url(), &[]).expect(404);
    }
    let sent: BTreeMap<String, Sent> =
        closure.iter().map(|made| (made.hash(), made.sent("xz"))).collect();
    let mut largest_first: Vec<&Made> = closure.iter().collect();
    largest_first.sort_by_key(|made| std::cmp::Reverse(made.info.nar_size));
    let queue = Mutex::new(largest_first.into_iter());
    let next = || queue.lock().unwrap().next();
    let nar = [("Content-Type", "application/x-nix-nar")];
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = server.connect();
                while let Some(made) = next() {
                    let sent = &sent[&made.hash()];
                    let found = connection.request("HEAD", &sent.url, &[]).status;
                    assert!([200, 404].contains(&found), "{found}");
                    connection.send_with_body("PUT", &sent.url, &nar, &sent.bytes).expect(201);
                }
            });
        }
    });
    // Nothing can be seen of a path of which only the NAR has come.
    for made in &closure {
        connection.request("GET", &made.url(), &[]).expect(404);
        connection.request("GET", &made.nar_url(), &[]).expect(404);
    }
    let narinfo = [("Content-Type", "text/x-nix-narinfo")];
    for made in &closure {
        for reference in &made.info.references {
            let url = format!("/{}.narinfo", reference.hash());
            connection.request("GET", &url, &[]).expect(200);
        }
        let text = made.narinfo(&sent[&made.hash()]);
        connection.send_with_body("PUT", &made.url(), &narinfo, text.as_bytes()).expect(201);
    }
    for made in &closure {
        made.assert_served(&server);
    }
    assert_nothing_waits(&server);
}
