//! `snowbank push` that is killed, whose server is killed, whose paths are collected, and whose path is there
//! already with other bytes.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use snowbank::nix::store_path::StorePath as Parsed;

use crate::support::{
    PATIENCE,
    host::{Home, Host, Process},
    made::{Form, Made},
    nix::{Client, StorePath, Version, run},
    proxy::{Fault, FaultProxy},
    pushed::{Pusher, narinfos},
    wait_until,
};

/// Of an upload.
const PART: u64 = 16 << 20;

/// One path that goes in four parts.
fn large(host: &Host) -> StorePath {
    host.build("run \"large\" \"head -c 60000000 /dev/urandom >$out\"").remove(0)
}

#[test]
fn a_push_that_was_killed_goes_on_where_it_was() {
    let host = Host::new();
    let large = large(&host);
    let home = Home::new(&host, "push = 'token'");
    let (server, token) = (home.start(), home.token("push"));
    let mut order = host.order_to_push(&server.url(), &token, &[large.as_str()]);
    let killed = run(order.env("SNOWBANK_FAULT", "push.part=kill:3"), 60).expect_failure();
    assert_eq!(killed.code, None, "{}", killed.stderr);
    assert_eq!(home.arrived(), 2 * PART);
    assert!(narinfos(&home.bank()).is_empty());
    let said = host.pushed(&server.url(), &token, &[large.as_str()]);
    let whole = fs::metadata(home.nar(&large)).unwrap().len();
    assert_eq!(said["sent_bytes"], whole - 2 * PART, "the beginning was sent again");
    host.assert_substituted(&server, &[large]);
}

#[test]
fn a_push_whose_server_was_killed_goes_on_with_the_next_one_where_it_was() {
    let host = Host::new();
    let large = large(&host);
    let home = Home::new(&host, "push = 'token'");
    let token = home.token("push");
    // Before its fifth answer: two questions, the beginning, a part, and a part that it has and says nothing of.
    let first = home.setup().environment("SNOWBANK_FAULT", "push.answer=kill:5").start();
    let proxy = FaultProxy::before(first.address(), Fault::None);
    let words = [large.as_str(), "--wait", "--json"];
    let mut order = host.order_to_push(&proxy.url(), &token, &words);
    let output = fs::File::create(host.file("json")).unwrap();
    let mut pushing = Process::start(order.stdout(output), &host.file("said"));
    let said = || fs::read_to_string(host.file("said")).unwrap();
    wait_until("the push to wait for its server", PATIENCE, || said().contains("trying again"));
    let arrived = home.arrived();
    assert!(arrived > 0);
    first.kill();
    let second = home.start();
    proxy.point_at(second.address());
    let status =
        crate::support::wait_for("the push to end", PATIENCE, || pushing.0.try_wait().unwrap());
    assert!(status.success(), "{}", said());
    let text = fs::read_to_string(host.file("json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let whole = fs::metadata(home.nar(&large)).unwrap().len();
    // What was not answered for is not counted as sent, and was not sent again.
    assert_eq!(json["sent_bytes"], whole - (arrived - PART), "{arrived} had arrived: {json}");
    host.assert_substituted(&second, &[large]);
}

/// A path that refers to one of several files.
fn collected(number: usize) -> String {
    let files = "mkdir $out; for file in 1 2 3 4 5 6 7 8 9; do head -c 90000 /dev/urandom >$out/$file; done";
    format!("run \"top-{number}\" \"echo ${{run \"low-{number}\" \"{files}\"}} >$out\"")
}

#[test]
fn a_push_while_the_store_is_collected_publishes_nothing_that_is_not_whole() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    // Two Nixes that make the same state directory at once get in each other's way.
    host.build(&collected(99));
    let ended = AtomicBool::new(false);
    let acknowledged: Vec<StorePath> = thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                host.store.run("nix-store", &["--gc"]);
            }
        });
        let mut acknowledged = Vec::new();
        for number in 0..12 {
            let path = host.build(&collected(number)).remove(0);
            // What was built is anybody's to collect, until the push holds it.
            let outcome = host.push(&server.url(), "", &[path.as_str()]);
            match outcome.code {
                Some(0) => acknowledged.push(path),
                code => {
                    assert_eq!(code, Some(1));
                    assert!(outcome.stderr.contains(path.base_name()), "{}", outcome.stderr);
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        acknowledged
    });
    println!("{} of 12 were pushed before they were collected", acknowledged.len());
    // One that is in the store again is pushed, whatever became of those before.
    let last = host.build("run \"last\" \"echo last >$out\"").remove(0);
    host.pushed(&server.url(), "", &[last.as_str()]);
    let visible = narinfos(&home.bank());
    for path in acknowledged.iter().chain([&last]) {
        assert!(visible.contains(path.hash()), "{path:?} was acknowledged and is not visible");
    }
    // Nix verifies what it takes, and takes nothing without what it refers to.
    let visible: Vec<StorePath> = visible
        .iter()
        .map(|hash| {
            let text = server.get(&format!("/{hash}.narinfo")).expect(200).text();
            StorePath::new(&crate::support::http::field(&text, "StorePath").unwrap())
        })
        .collect();
    let other = Client::new(Version::Current, &host.store);
    let named: Vec<&StorePath> = visible.iter().collect();
    other.copy_from(&server.url(), &server.key(), &named).expect_success();
}

#[test]
fn a_path_that_somebody_else_pushed_meanwhile_with_other_bytes_is_a_conflict_that_names_both() {
    let host = Host::new();
    let path = host.build("run \"same\" \"echo ours >$out\"").remove(0);
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    // It is told that the server has nothing, later than the other one has pushed.
    let proxy = FaultProxy::before(server.address(), Fault::Hold { after: 0 });
    let mut order = host.order_to_push(&proxy.url(), "", &[path.as_str()]);
    let outcome = thread::scope(|scope| {
        let push = scope.spawn(|| run(&mut order, 60));
        proxy.wait_for_the_fault();
        let mut other = Made::new("same", b"theirs", &[]);
        other.info.path = Parsed::parse(path.base_name()).unwrap();
        let mut pusher = Pusher::to(server.address()).unwrap();
        pusher.whole(&other, Form::Zstd).unwrap();
        pusher.commit(&[&other]).unwrap();
        proxy.release();
        (push.join().unwrap().expect_failure(), other.info.nar_hash.to_nix32())
    });
    let (outcome, theirs) = outcome;
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (Some(1), 1), "{}", outcome.stderr);
    let ours = host.store.run("nix-store", &["-q", "--hash", path.as_str()]);
    let ours = ours.trim().trim_start_matches("sha256:");
    let why = home.snowbank(&["why", path.as_str()]).expect_success().text();
    for hash in [ours, &theirs] {
        assert!(outcome.stderr.contains(hash), "{hash} is not in {}", outcome.stderr);
        assert!(why.contains(hash), "{hash} is not in\n{why}");
    }
}
