//! The native API: what is missing, NARs in one request, and commits that are done as a whole or not at all.

use std::fs;

use serde_json::{Value, json};
use snowbank::{
    nix::{hash::Sha256, signature::KeyName},
    sign::SecretKey,
};

use crate::support::{
    bank::replace,
    http::Response,
    push::{Made, Snapshot, compress, path_of, scripted},
    server::Server,
};

const API: &str = "/_snowbank/v1";

#[track_caller]
fn put_nar(server: &Server, made: &Made) -> Response {
    put_bytes(server, made, made.info.nar_size, &compress("zstd", &made.nar))
}

fn put_bytes(server: &Server, made: &Made, size: u64, bytes: &[u8]) -> Response {
    let url = format!("{API}/nar/{}", made.info.nar_hash.to_nix32());
    server.connect().send_with_body("PUT", &url, &[("Nar-Size", &size.to_string())], bytes)
}

fn commit(server: &Server, paths: &[&Made]) -> Response {
    commit_with(server, paths, &[])
}

fn commit_with(server: &Server, paths: &[&Made], upstream: &[&Made]) -> Response {
    let infos = |made: &[&Made]| made.iter().map(|made| json!(made.info)).collect::<Vec<_>>();
    let request = json!({"paths": infos(paths), "upstream": infos(upstream)});
    server.connect().native("/commit", &request)
}

#[track_caller]
fn missing(server: &Server, paths: &[&Made], verify: bool) -> Vec<String> {
    let hashes: Vec<_> = paths.iter().map(|made| made.hash()).collect();
    let request = json!({"paths": hashes, "verify": verify});
    let answer = server.connect().native("/missing", &request).expect(200).json();
    let missing = answer["missing"].as_array().unwrap().iter();
    missing.map(|hash| hash.as_str().unwrap().to_owned()).collect()
}

/// What was refused: each path with its reason, those of no path under an empty one.
#[track_caller]
fn reasons(answer: &Response) -> Vec<(String, String)> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    assert!(!errors.is_empty(), "no reason in {}", answer.text());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reasons: Vec<_> =
        errors.iter().map(|error| (text(&error["path"]), text(&error["reason"]))).collect();
    assert!(reasons.iter().all(|(_, reason)| reason.lines().count() == 1), "{reasons:?}");
    reasons
}

#[track_caller]
fn refused(answer: &Response, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let reasons = reasons(answer);
    assert!(reasons.iter().any(|(_, reason)| reason.contains(what)), "no {what} in {reasons:?}");
}

fn closure() -> [Made; 3] {
    let base = Made::file("base", b"base\n");
    let middle = Made::referring("middle", &[&base]);
    let top = Made::referring("top", &[&base, &middle]);
    [base, middle, top]
}

#[test]
fn push_native_commits_a_closure_in_any_order_and_every_request_may_be_repeated() {
    let server = scripted("");
    let [base, middle, top] = closure();
    let all = [&top, &base, &middle];
    let hashes: Vec<_> = all.iter().map(|made| made.hash()).collect();
    for _ in 0..2 {
        assert_eq!(missing(&server, &all, false), hashes, "in the order of the question");
        for made in all {
            let state = put_nar(&server, made).expect(200).json();
            assert_eq!(state["complete"], true);
            assert_eq!(state["nar_hash"], made.info.nar_hash.to_string());
            server.get(&made.url()).expect(404);
        }
    }
    let answer = commit(&server, &all).expect(200).json();
    let published = answer["published"].as_array().unwrap();
    let position = |made: &Made| published.iter().position(|hash| *hash == made.hash()).unwrap();
    assert!(position(&base) < position(&middle) && position(&middle) < position(&top));
    let before = Snapshot::of(server.data());
    let again = commit(&server, &all).expect(200).json();
    assert_eq!(again["published"], json!([]));
    assert_eq!(again["present"].as_array().unwrap().len(), 3);
    before.assert_same(server.data(), "a commit of what is there");
    assert!(missing(&server, &all, true).is_empty());
    for made in all {
        made.assert_served(&server);
    }
}

#[test]
fn push_native_refuses_a_commit_as_a_whole_with_every_reason() {
    let server = scripted("");
    let there = Made::file("there", b"monday\n");
    there.push(&server);
    let good = Made::file("good", b"good\n");
    let hollow = Made::file("hollow", b"its NAR was never sent\n");
    let mut short = Made::file("short", b"another size\n");
    let absent = Made::file("absent", b"not sent\n");
    let dangling = Made::referring("dangling", &[&absent]);
    let conflict = Made::file("there", b"tuesday\n");
    // The content of a path that is there, and a reference that is not in it.
    let mut shared = Made::file("shared", b"monday\n");
    for made in [&good, &short, &dangling, &conflict] {
        put_nar(&server, made).expect(200);
    }
    short.info.nar_size -= 8;
    shared.info.references = vec![path_of("there")];
    let before = Snapshot::of(server.data());
    let answer = commit(&server, &[&good, &hollow, &short, &dangling, &shared]);
    let reasons_of = reasons(&answer);
    for (made, what) in [
        (&hollow, "NAR is not here"),
        (&short, "NarSize"),
        (&dangling, absent.info.path.as_str()),
        (&shared, "does not occur"),
    ] {
        let reason = reasons_of.iter().find(|(path, _)| *path == made.hash());
        assert!(reason.is_some_and(|(_, text)| text.contains(what)), "{what}: {reasons_of:?}");
    }
    assert_eq!(reasons_of.len(), 4, "{reasons_of:?}");
    before.assert_same(server.data(), "a refused commit");
    let answer = commit(&server, &[&good, &conflict]);
    refused(&answer, 409, &there.info.nar_hash.to_string());
    refused(&answer, 409, &conflict.info.nar_hash.to_string());
    server.get(&good.url()).expect(404);
    let name = format!("pending/{}.nar", conflict.info.nar_hash.to_nix32());
    assert!(!server.bank().join(name).exists(), "nothing of the build that lost remains");
    commit(&server, &[&good]).expect(200);
    good.assert_served(&server);
    there.assert_served(&server);
}

#[test]
fn push_native_takes_references_that_an_upstream_has_signed() {
    let key = |name: &str| SecretKey::generate(KeyName::parse(name).unwrap()).unwrap();
    let upstream = key("upstream-1");
    let server = scripted(&format!("upstream_keys = [\"{}\"]", upstream.public()));
    let answer = server.connect().native("/missing", &json!({"paths": []})).expect(200).json();
    assert_eq!(answer["upstream_keys"], json!([upstream.public().to_string()]));
    assert_eq!(answer["store_dir"], "/nix/store");
    let far = Made::file("far", b"lies elsewhere\n");
    let made = Made::referring("near", &[&far]);
    put_nar(&server, &made).expect(200);
    let before = Snapshot::of(server.data());
    refused(&commit(&server, &[&made]), 409, far.info.path.as_str());
    let mut stolen = far.clone().signed(&upstream);
    stolen.info.nar_hash = Sha256::of(b"another");
    let proofs = [far.clone(), far.clone().signed(&key("stranger-1")), stolen];
    for proof in &proofs {
        refused(&commit_with(&server, &[&made], &[proof]), 409, far.info.path.as_str());
        before.assert_same(server.data(), "no proof");
    }
    let proof = far.clone().signed(&upstream);
    commit_with(&server, &[&made], &[&proof]).expect(200);
    made.assert_served(&server);
    // The proof was no push.
    server.get(&far.url()).expect(404);
}

#[test]
fn push_native_refuses_nars_that_are_not_what_was_promised() {
    let server = scripted("");
    let made = Made::file("promised", b"so many bytes\n");
    let other = Made::file("other", b"other bytes\n");
    let size = made.info.nar_size;
    let good = compress("zstd", &made.nar);
    let before = Snapshot::of(server.data());
    refused(&put_bytes(&server, &made, size, &compress("zstd", &other.nar)), 422, "hashes to");
    refused(&put_bytes(&server, &made, size - 8, &good), 413, "refused");
    refused(&put_bytes(&server, &made, size + 8, &good), 422, &size.to_string());
    refused(&put_bytes(&server, &made, size, &good[..good.len() - 1]), 422, "refused");
    refused(&put_bytes(&server, &made, size, &made.nar), 422, "refused");
    refused(&put_bytes(&server, &made, size, b""), 422, "refused");
    let url = format!("{API}/nar/{}", made.info.nar_hash.to_nix32());
    for headers in [&[][..], &[("Nar-Size", "-1")], &[("Nar-Size", "many")]] {
        let answer = server.connect().send_with_body("PUT", &url, headers, &good);
        refused(&answer, 400, "nar-size");
    }
    before.assert_same(server.data(), "what was not promised");
    put_bytes(&server, &made, size, &good).expect(200);
    commit(&server, &[&made]).expect(200);
    made.assert_served(&server);
}

#[test]
fn push_native_refuses_requests_that_say_more_than_is_understood_or_ask_too_much() {
    let server = scripted("");
    let made = Made::file("made", b"x");
    let before = Snapshot::of(server.data());
    let mut info = json!(made.info);
    info["priority"] = json!(1);
    let new = json!({"nar_hash": made.info.nar_hash, "nar_size": 1, "form": "x", "force": true});
    for (url, request) in [
        ("/missing", json!({"paths": [], "force": true})),
        ("/missing", json!({"paths": ["short"]})),
        ("/missing", json!({"paths": ["../../../../../../../../../../../etc"]})),
        ("/missing", json!([])),
        ("/commit", json!({"paths": [], "force": true})),
        ("/commit", json!({"paths": [info]})),
        ("/commit", json!({"paths": [{"path": "x"}]})),
        ("/uploads", new),
    ] {
        refused(&server.connect().native(url, &request), 400, "");
    }
    let answer = server.connect().send_with_body("POST", &format!("{API}/commit"), &[], b"{");
    refused(&answer, 400, "");
    let hash = made.hash();
    let most = vec![&hash; 100_000];
    let answer = server.connect().native("/missing", &json!({"paths": most})).expect(200).json();
    assert_eq!(answer["missing"].as_array().unwrap().len(), 100_000);
    let more = vec![&hash; 100_001];
    refused(&server.connect().native("/missing", &json!({"paths": more})), 413, "100001");
    let infos = vec![json!(made.info); 10_001];
    refused(&server.connect().native("/commit", &json!({"paths": infos})), 413, "10001");
    let large = vec![b' '; (32 << 20) + 1];
    let answer = server.connect().send_with_body("POST", &format!("{API}/commit"), &[], &large);
    refused(&answer, 413, "bytes");
    before.assert_same(server.data(), "what was not understood");
}

#[test]
fn push_native_finds_a_flipped_byte_when_asked_to_and_a_new_push_heals_it() {
    let server = scripted("");
    let made = Made::file("rots", &b"bits rot\n".repeat(1000));
    let sound = Made::file("sound", b"these do not\n");
    for made in [&made, &sound] {
        put_nar(&server, made).expect(200);
    }
    commit(&server, &[&made, &sound]).expect(200);
    let both = [&made, &sound];
    assert!(missing(&server, &both, true).is_empty());
    let file = server.bank().join(made.nar_url().trim_start_matches('/'));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(&file, &bytes);
    assert!(missing(&server, &both, false).is_empty(), "the size is right");
    assert_eq!(missing(&server, &both, true), [made.hash()]);
    assert_eq!(missing(&server, &both, false), [made.hash()], "and it is so from now on");
    assert!(!file.exists() && fs::read_dir(server.bank().join("damaged")).unwrap().count() == 1);
    server.get(&made.url()).expect(404);
    server.get(&made.nar_url()).expect(404);
    put_nar(&server, &made).expect(200);
    commit(&server, &[&made]).expect(200);
    assert!(missing(&server, &both, true).is_empty());
    for made in both {
        made.assert_served(&server);
    }
}
