//! The native API: NARs that come in parts, over interruptions of every kind.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    path::Path,
};

use serde_json::{Value, json};
use snowbank::{
    codec::seekable::{Encoder, Settings},
    nix::hash::Sha256,
};

use crate::support::{
    PATIENCE,
    http::Response,
    nix::tempdir_in_memory,
    push::{Made, STORE, Snapshot, assert_nothing_waits, compress, nar_of_file, scripted},
    server::{Server, Setup},
    trees::Numbers,
    wait_until,
};

const API: &str = "/_snowbank/v1";

fn begin(server: &Server, made: &Made, form: &str) -> Value {
    let request =
        json!({"nar_hash": made.info.nar_hash, "nar_size": made.info.nar_size, "form": form});
    server.connect().native("/uploads", &request).expect(200).json()
}

fn id(state: &Value) -> &str {
    state["upload"].as_str().unwrap()
}

fn part_of(server: &Server, id: &str, offset: usize, hash: Sha256, part: &[u8]) -> Response {
    let headers = [("Upload-Offset", &*offset.to_string()), ("Part-Hash", &*hash.to_string())];
    server.connect().send_with_body("PATCH", &format!("{API}/uploads/{id}"), &headers, part)
}

fn part(server: &Server, id: &str, offset: usize, part: &[u8]) -> Response {
    part_of(server, id, offset, Sha256::of(part), part)
}

fn finish(server: &Server, id: &str, bytes: &[u8]) -> Response {
    let request = json!({"file_size": bytes.len(), "file_hash": Sha256::of(bytes)});
    server.connect().native(&format!("/uploads/{id}/finish"), &request)
}

fn state_of(server: &Server, id: &str) -> Response {
    server.get(&format!("{API}/uploads/{id}"))
}

#[track_caller]
fn refused(answer: &Response, status: u16, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let reason = answer.json()["errors"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(what) && reason.lines().count() == 1, "{what}: {reason}");
}

#[track_caller]
fn commit(server: &Server, made: &Made) {
    server.connect().native("/commit", &json!({"paths": [made.info]})).expect(200);
    made.assert_served(server);
    assert_nothing_waits(server);
}

fn large(name: &str) -> Made {
    Made::of_nar(name, nar_of_file(&Numbers::from(7).bytes(5 << 20)))
}

/// In the form that the server stores.
fn seekable(made: &Made) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), Settings::default()).unwrap();
    encoder.write_all(&made.nar).unwrap();
    encoder.finish().unwrap().1
}

#[test]
fn push_native_in_parts_goes_on_after_the_server_was_killed() {
    let own = tempdir_in_memory();
    let data = own.path().join("data");
    let start = || Setup::on(&data).pushed_to(Path::new(STORE), "").start();
    for (name, bytes) in [("seekable", true), ("plain", false)].map(|(name, is_seekable)| {
        let made = large(name);
        (name, if is_seekable { seekable(&made) } else { compress("zstd", &made.nar) })
    }) {
        let made = large(name);
        let server = start();
        let state = begin(&server, &made, name);
        assert_eq!((&state["offset"], &state["complete"]), (&json!(0), &json!(false)));
        let (first, rest) = bytes.split_at(bytes.len() / 3);
        part(&server, id(&state), 0, first).expect(200);
        server.kill();
        let server = start();
        let same = begin(&server, &made, name);
        assert_eq!(same["upload"], state["upload"]);
        assert_eq!(same["offset"], first.len());
        // Who compresses otherwise makes other bytes, and begins anew.
        let other = begin(&server, &made, "another-form");
        assert_ne!(other["upload"], state["upload"]);
        let url = format!("{API}/uploads/{}", id(&other));
        for status in [204, 404] {
            server.connect().request("DELETE", &url, &[]).expect(status);
        }
        let (second, third) = rest.split_at(rest.len() / 2);
        part(&server, id(&state), first.len(), second).expect(200);
        let done = part(&server, id(&state), first.len() + second.len(), third).expect(200).json();
        assert_eq!(done["offset"], bytes.len());
        server.kill();
        let server = start();
        let done = finish(&server, id(&state), &bytes).expect(200).json();
        assert_eq!(done["complete"], true);
        server.get(&made.url()).expect(404);
        // What is here whole need not be sent.
        assert_eq!(begin(&server, &made, name)["complete"], true);
        server.kill();
        commit(&start(), &made);
    }
}

#[test]
fn push_native_of_a_seekable_file_is_stored_as_it_came() {
    let server = scripted("");
    let made = large("as-it-came");
    let bytes = seekable(&made);
    let state = begin(&server, &made, "seekable");
    part(&server, id(&state), 0, &bytes).expect(200);
    finish(&server, id(&state), &bytes).expect(200);
    commit(&server, &made);
    assert!(server.get(&made.nar_url()).expect(200).body == bytes);
}

#[test]
fn push_native_refuses_parts_that_are_not_what_or_where_they_should_be() {
    let server = scripted("");
    let made = large("parts");
    let bytes = compress("zstd", &made.nar);
    let state = begin(&server, &made, "zstd");
    let upload = id(&state);
    let (first, rest) = bytes.split_at(1 << 20);
    part(&server, upload, 0, first).expect(200);
    let before = Snapshot::of(server.data());
    let unchanged = |what: &str| {
        assert_eq!(state_of(&server, upload).expect(200).json()["offset"], first.len(), "{what}");
    };
    refused(&part(&server, upload, 0, first), 409, &first.len().to_string());
    refused(&part(&server, upload, first.len() + 1, rest), 409, &first.len().to_string());
    before.assert_same(server.data(), "another offset");
    let url = format!("{API}/uploads/{upload}");
    for headers in [&[][..], &[("Upload-Offset", "0")], &[("Upload-Offset", "-1")]] {
        let answer = server.connect().send_with_body("PATCH", &url, headers, rest);
        refused(&answer, 400, "header");
    }
    refused(&part_of(&server, upload, first.len(), Sha256::of(b"other"), rest), 422, "hashes to");
    unchanged("another hash");
    let too_large = vec![0; (16 << 20) + 1];
    refused(&part(&server, upload, first.len(), &too_large), 413, "smaller");
    unchanged("too large");
    // A client that goes away in the middle of a part.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PATCH {url} HTTP/1.1\r\nHost: cache.test\r\nUpload-Offset: {}\r\nPart-Hash: {}\r\n\
         Content-Length: {}\r\n\r\n",
        first.len(),
        Sha256::of(rest),
        rest.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&rest[..rest.len() / 2]).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    unchanged("half a part");
    // Its request may hold the upload for as long as its end is on its way.
    wait_until("the upload to be free again", PATIENCE, || {
        let answer = part(&server, upload, first.len(), rest);
        assert!([200, 409].contains(&answer.status), "{}", answer.text());
        answer.status == 200
    });
    finish(&server, upload, &bytes).expect(200);
    commit(&server, &made);
}

#[test]
fn push_native_refuses_to_finish_what_is_not_what_was_promised_and_lets_go_of_it() {
    let server = scripted("");
    let made = large("promised");
    let other = Made::file("other", b"not it\n");
    let good = compress("zstd", &made.nar);
    let before = Snapshot::of(server.data());
    for (what, bytes, told) in [
        ("another NAR", compress("zstd", &other.nar), None),
        ("no NAR", b"not zstd".to_vec(), None),
        ("cut", good[..good.len() - 1].to_vec(), None),
        ("nothing", Vec::new(), None),
        ("another hash of a seekable file", seekable(&made), Some(Sha256::of(b"other"))),
        ("another hash of another file", good.clone(), Some(Sha256::of(b"other"))),
    ] {
        let state = begin(&server, &made, "zstd");
        part(&server, id(&state), 0, &bytes).expect(200);
        let hash = told.unwrap_or_else(|| Sha256::of(&bytes));
        let request = json!({"file_size": bytes.len(), "file_hash": hash});
        let url = format!("/uploads/{}/finish", id(&state));
        let answer = server.connect().native(&url, &request);
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        refused(&state_of(&server, id(&state)), 404, "begin anew");
        before.assert_same(server.data(), what);
    }
    // Where only the size is wrong more may come.
    let state = begin(&server, &made, "zstd");
    part(&server, id(&state), 0, &good[..1000]).expect(200);
    refused(&finish(&server, id(&state), &good), 409, "1000");
    part(&server, id(&state), 1000, &good[1000..]).expect(200);
    finish(&server, id(&state), &good).expect(200);
    commit(&server, &made);
}

#[test]
fn push_native_knows_no_upload_that_it_did_not_begin() {
    let server = scripted("");
    let before = Snapshot::of(server.data());
    let unknown = "0123456789abcdef0123456789abcdef";
    for id in [unknown, "short", "..%2f..%2fkeys", "0123456789ABCDEF0123456789ABCDEF"] {
        refused(&state_of(&server, id), 404, "");
        refused(&part(&server, id, 0, b"x"), 404, "");
        refused(&finish(&server, id, b"x"), 404, "");
        let url = format!("{API}/uploads/{id}");
        refused(&server.connect().request("DELETE", &url, &[]), 404, "");
    }
    let made = Made::file("made", b"x");
    for form in ["", "Zstd", "../x", &"x".repeat(65)] {
        let request = json!({"nar_hash": made.info.nar_hash, "nar_size": 1, "form": form});
        refused(&server.connect().native("/uploads", &request), 422, "form");
    }
    before.assert_same(server.data(), "unknown uploads");
}
