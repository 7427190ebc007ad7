use std::sync::Mutex as StdMutex;

use super::super::testing::Store;
use super::super::testing::server::{Failure, Server};
use super::*;
use crate::native::PART_SIZE;
use crate::nix::signature::KeyName;
use crate::sign::SecretKey;

#[derive(Default)]
struct Watcher {
    waits: StdMutex<usize>,
    moved: StdMutex<i64>,
    stop_after: Option<i64>,
    stop: Stop,
}

impl Events for Watcher {
    fn waiting(&self, _error: &RemoteError, _wait: Duration) {
        *self.waits.lock().unwrap() += 1;
    }

    fn moved(&self, nar_bytes: i64) {
        let mut moved = self.moved.lock().unwrap();
        *moved += nar_bytes;
        if self.stop_after.is_some_and(|limit| *moved > limit) {
            self.stop.stop();
        }
    }
}

fn settings() -> PushSettings {
    PushSettings {
        patience: Patience { retry_for: Some(Duration::from_secs(60)) },
        ..Default::default()
    }
}

fn push_with(
    store: &Store,
    server: &Server,
    settings: &PushSettings,
    watcher: &Watcher,
    roots: &[&StorePath],
) -> Result<PushSummary, PushError> {
    let (remote, paths) = (server.remote(), LocalPaths::new(store.layout()));
    let push =
        Push { remote: &remote, paths: &paths, settings, stop: &watcher.stop, events: watcher };
    push.run(&roots.iter().map(|root| (*root).clone()).collect::<Vec<_>>())
}

fn push(store: &Store, server: &Server, roots: &[&StorePath]) -> Result<PushSummary, PushError> {
    push_with(store, server, &settings(), &Watcher::default(), roots)
}

fn names(paths: &[StorePath]) -> Vec<&str> {
    paths.iter().map(StorePath::name).collect()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}

#[test]
fn what_an_earlier_push_has_sent_is_not_sent_again() {
    let (store, server) = (Store::new(), Server::start());
    let a = store.add("a", b"aaa", &[]);
    let b = store.add("b", b"bbb", &[&a]);
    push(&store, &server, &[&a]).unwrap();
    // As if it had been sent and not committed.
    server.state().visible.clear();
    let summary = push(&store, &server, &[&b]).unwrap();
    assert_eq!(names(&summary.pushed), ["a", "b"]);
    assert_eq!(server.count("PUT"), 2, "one for each NAR");
}

#[test]
fn a_closure_is_asked_for_sent_and_committed_once() {
    let (store, server) = (Store::new(), Server::start());
    let a = store.add("a", b"aaa", &[]);
    let b = store.add("b", b"bbb", &[&a]);
    let summary = push(&store, &server, &[&b]).unwrap();
    assert_eq!(names(&summary.pushed), ["a", "b"]);
    assert_eq!(
        (server.count("POST missing"), server.count("PUT"), server.count("POST commit")),
        // Which paths are missing, and which NARs an earlier push has sent.
        (2, 2, 1)
    );
    assert_eq!(server.state().nars.len(), 2);
    let again = push(&store, &server, &[&b]).unwrap();
    assert_eq!((again.pushed.len(), again.present), (0, 2));
    assert_eq!(server.state().log.len(), 6, "one question is all it takes");
    // Another path on top: only that.
    let c = store.add("c", b"ccc", &[&b]);
    let more = push(&store, &server, &[&c, &a]).unwrap();
    assert_eq!((names(&more.pushed), more.present), (vec!["c"], 2));
}

#[test]
fn what_an_upstream_signed_stays_there_and_is_proved() {
    let (store, server) = (Store::new(), Server::start());
    let key = SecretKey::generate(KeyName::parse("upstream-1").unwrap()).unwrap();
    server.state().upstream_keys = vec![key.public().to_string()];
    let signed = store.add("signed", b"1", &[]);
    let forged = store.add("forged", b"2", &[]);
    let top = store.add("top", b"3", &[&signed, &forged]);
    let sign = |of: &StorePath| key.sign(&fingerprint(&StoreDir::default(), &store.info(of)));
    store.sign(&signed, &sign(&signed).to_string());
    // A signature of another path, by the right key's name.
    store.sign(&forged, &sign(&signed).to_string());
    let dry = PushSettings { dry_run: true, ..settings() };
    let planned = push_with(&store, &server, &dry, &Watcher::default(), &[&top]).unwrap();
    assert_eq!((names(&planned.pushed), planned.upstream), (vec!["forged", "top"], 1));
    assert_eq!(server.state().nars.len(), 0);
    push(&store, &server, &[&top]).unwrap();
    let commit = server.state().commits.remove(0);
    let proofs: Vec<_> = commit.upstream.iter().map(|info| info.path.name()).collect();
    assert_eq!(proofs, ["signed"]);
    assert!(!commit.upstream[0].signatures.is_empty());
    let all = PushSettings { all: true, ..settings() };
    let rest = push_with(&store, &server, &all, &Watcher::default(), &[&top]).unwrap();
    assert_eq!(names(&rest.pushed), ["signed"]);
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_an_error_at_once() {
    let (store, server) = (Store::new(), Server::start());
    let a = store.add("a", b"aaa", &[]);
    server.state().failures.extend([
        ("POST missing", Failure::Status(503)),
        ("PUT", Failure::HangUp),
        ("POST commit", Failure::HangUp),
    ]);
    let watcher = Watcher::default();
    push_with(&store, &server, &settings(), &watcher, &[&a]).unwrap();
    assert_eq!(*watcher.waits.lock().unwrap(), 3);
    for status in [401, 404, 501] {
        server.state().failures.push_back(("POST missing", Failure::Status(status)));
        let watcher = Watcher::default();
        let error = push_with(&store, &server, &settings(), &watcher, &[&a]).unwrap_err();
        assert!(matches!(error, PushError::Remote(_)) && error.culprits().is_empty());
        assert_eq!(*watcher.waits.lock().unwrap(), 0);
    }
    let impatient =
        PushSettings { patience: Patience { retry_for: Some(Duration::ZERO) }, ..settings() };
    server.state().failures.push_back(("POST missing", Failure::Status(503)));
    // The first wait may be as short as nothing, but is never none of the patience.
    let result = push_with(&store, &server, &impatient, &Watcher::default(), &[&a]);
    assert!(matches!(result, Err(PushError::Remote(RemoteError::Busy { status: 503, .. }))));
}

#[test]
fn a_path_that_differs_from_its_registration_is_named_and_the_others_are_sent() {
    let (store, server) = (Store::new(), Server::start());
    let (good, bad) = (store.add("good", b"good", &[]), store.add("bad", b"bad!", &[]));
    let gone = store.add("gone", b"gone", &[]);
    let top = store.add("top", b"t", &[&good, &bad, &gone]);
    std::fs::remove_file(store.real(&bad)).unwrap();
    std::fs::write(store.real(&bad), "bed!").unwrap();
    std::fs::remove_file(store.real(&gone)).unwrap();
    let error = push(&store, &server, &[&top]).unwrap_err();
    let mut culprits = error.culprits();
    culprits.sort();
    let mut expected = vec![bad.hash(), gone.hash()];
    expected.sort();
    assert_eq!(culprits.iter().map(|(path, _)| *path).collect::<Vec<_>>(), expected);
    let state = server.state();
    assert!(state.nars.contains_key(&store.info(&good).nar_hash));
    assert!(!state.nars.contains_key(&store.info(&bad).nar_hash));
    assert!(state.visible.is_empty(), "nothing that refers to it is visible");
}

#[test]
fn a_nar_that_the_server_lost_before_the_commit_is_sent_once_more() {
    let (store, server) = (Store::new(), Server::start());
    let a = store.add("a", b"aaa", &[]);
    let b = store.add("b", b"bbb", &[&a]);
    server.state().failures.push_back(("POST commit", Failure::LoseNars));
    let summary = push(&store, &server, &[&b]).unwrap();
    assert_eq!(names(&summary.pushed), ["a", "b"]);
    assert_eq!((server.count("PUT"), server.count("POST commit")), (4, 2));
    // One that loses them every time is not believed for ever.
    let c = store.add("c", b"ccc", &[]);
    server.state().failures.extend([("POST commit", Failure::LoseNars); 9]);
    assert_eq!(push(&store, &server, &[&c]).unwrap_err().culprits()[0].0, c.hash());
    assert_eq!(server.count("PUT"), 4 + ROUNDS);
}

#[test]
fn a_refused_commit_names_its_culprits() {
    let (store, server) = (Store::new(), Server::start());
    let a = store.add("a", b"aaa", &[]);
    server.state().refused.insert(a.hash(), "its signature is none that is trusted".into());
    let error = push(&store, &server, &[&a]).unwrap_err();
    assert_eq!(error.culprits(), [(a.hash(), "its signature is none that is trusted".into())]);
    assert_eq!(server.count("PUT"), 1, "sending it again would help nobody");
}

#[test]
fn a_large_nar_goes_in_parts_through_every_failure() {
    let (store, server) = (Store::new(), Server::start());
    let content = noise(3 * PART_SIZE + 12_345);
    let large = store.add("large", &content, &[]);
    server.state().failures.extend([
        // Arrived, but no answer came; then not arrived; then an upload that has another offset.
        ("PATCH", Failure::HangUp),
        ("PATCH", Failure::Status(503)),
        ("PATCH", Failure::Status(409)),
        ("POST uploads/finish", Failure::HangUp),
    ]);
    let watcher = Watcher::default();
    push_with(&store, &server, &settings(), &watcher, &[&large]).unwrap();
    assert!(server.state().uploads.is_empty());
    let info = store.info(&large);
    let sent = server.state().nars[&info.nar_hash].clone();
    assert_eq!(zstd::decode_all(&sent[..]).unwrap(), store.nar(&large));
    assert!(server.count("PUT") == 0 && server.count("PATCH") >= 4);
}

#[test]
fn a_push_that_was_stopped_goes_on_where_it_was() {
    let (store, server) = (Store::new(), Server::start());
    let content = noise(4 * PART_SIZE);
    let large = store.add("large", &content, &[]);
    let part = i64::try_from(PART_SIZE).unwrap();
    let watcher = Watcher { stop_after: Some(part * 2 + part / 2), ..Watcher::default() };
    let error = push_with(&store, &server, &settings(), &watcher, &[&large]).unwrap_err();
    assert!(matches!(error, PushError::Stopped), "{error}");
    let left: Vec<_> = server.state().uploads.values().map(|(_, bytes)| bytes.len()).collect();
    assert!(left.len() == 1 && left[0] >= PART_SIZE, "{left:?}");
    assert!(server.state().visible.is_empty());
    let before = server.count("PATCH");
    let summary = push(&store, &server, &[&large]).unwrap();
    let sent = server.state().nars[&store.info(&large).nar_hash].len();
    assert_eq!(summary.sent_bytes, (sent - left[0]) as u64, "the beginning is not sent again");
    assert!(server.count("PATCH") - before <= 4);
}

#[test]
fn a_large_path_that_changes_while_it_is_read_leaves_nothing_behind() {
    let (store, server) = (Store::new(), Server::start());
    let mut content = noise(3 * PART_SIZE);
    let large = store.add("large", &content, &[]);
    // The last byte differs: known only when all but the end was sent.
    *content.last_mut().unwrap() ^= 1;
    std::fs::remove_file(store.real(&large)).unwrap();
    std::fs::write(store.real(&large), &content).unwrap();
    let error = push(&store, &server, &[&large]).unwrap_err();
    assert_eq!(error.culprits()[0].0, large.hash());
    let state = server.state();
    assert!(state.uploads.is_empty() && state.nars.is_empty() && state.visible.is_empty());
}

#[test]
fn questions_and_commits_keep_to_what_the_server_takes() {
    let store = Store::new();
    let info = |name: &str| store.info(&store.register(name, &[]));
    let base = info("x");
    let many = vec![base.clone(); MAX_MISSING + 1];
    let sizes = |questions: Vec<Vec<StorePathHash>>| -> Vec<usize> {
        questions.iter().map(Vec::len).collect()
    };
    assert_eq!(sizes(questions(&many, false)), [MAX_MISSING, 1]);
    let large = PathInfo { nar_size: MAX_VERIFY, ..base.clone() };
    assert_eq!(sizes(questions(&vec![large; 5], true)), [2, 2, 1]);
    let infos: Vec<&PathInfo> = vec![&base; MAX_COMMIT + 1];
    let lengths: Vec<usize> = batches(&infos).iter().map(|batch| batch.len()).collect();
    assert_eq!(lengths, [MAX_COMMIT, 1]);
    let wide = PathInfo { references: vec![base.path.clone(); 30_000], ..base };
    let infos = [&wide, &wide, &wide, &wide, &wide];
    let lengths: Vec<usize> = batches(&infos).iter().map(|batch| batch.len()).collect();
    assert_eq!(lengths, [2, 2, 1]);
    assert!(batches(&[]).is_empty());
}
