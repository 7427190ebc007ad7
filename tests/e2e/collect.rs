//! Collecting: what is wanted stays, whole; what is not goes, with its bytes; and readers, pushers and kills beside it
//! do no harm.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use snowbank::nix::{hash::Sha256, narinfo::NarInfo, store_path::StoreDir};

use crate::support::{
    PATIENCE, command,
    host::{Home, Host, narinfo},
    made::{Form, Made, closure},
    nix::{Outcome, run},
    pushed::{Acknowledged, Pushed, Pusher, Stop, check, names, narinfos},
    snowbank, wait_until,
};

/// Nothing is held, and nothing is kept: what no pin keeps goes with the next collection.
const NOTHING_KEPT: &str =
    "collect_every = \"never\"\nkeep_unused = \"0s\"\nkeep_at_least = \"0s\"";

fn gc(pushed: &Pushed, words: &[&str]) -> Outcome {
    run(&mut order(pushed, &[&["gc", "--json"], words].concat()), 60)
}

fn order(pushed: &Pushed, words: &[&str]) -> std::process::Command {
    let mut order = command(snowbank());
    order.args(words).arg("--config").arg(pushed.file("config.toml"));
    order.arg("--data-dir").arg(pushed.data());
    order
}

#[track_caller]
fn said(outcome: Outcome) -> Value {
    let text = outcome.expect_success().text();
    let said: Value = serde_json::from_str(&text).unwrap();
    said[0].clone()
}

/// Times are of whole seconds, and what came in this one stays: waits until so many would go.
#[track_caller]
fn wait_until_planned(pushed: &Pushed, count: u64) {
    wait_until("it is a second later", PATIENCE, || {
        said(gc(pushed, &["--dry-run"]))["planned"] == count
    });
}

#[test]
fn what_is_pinned_stays_with_all_it_needs_and_a_real_nix_has_it() {
    let host = Host::new();
    let built = host.build(
        r#"
        let
          common = run "common" "echo common > $out";
          old = run "old" "echo ${common} only-of-old > $out";
          kept = run "kept" "echo ${common} > $out";
        in [ old kept ]
        "#,
    );
    let settings = format!("push = \"open\"\n{NOTHING_KEPT}");
    let home = Home::new(&host, &settings);
    let server = home.start();
    let words: Vec<&str> = built.iter().map(|path| path.as_str()).collect();
    host.pushed(&server.url(), "", &words);
    let closure: BTreeSet<String> =
        host.closure(&built).iter().map(|path| path.hash().to_owned()).collect();
    assert_eq!((closure.len(), narinfos(&home.bank())), (3, closure));
    let [old, kept] = &built[..] else { panic!("{built:?}") };

    let unknown = home.snowbank(&["pin", "add", "main", &"7".repeat(32)]).expect_failure();
    assert!(unknown.stderr.contains("is in no bank"), "{}", unknown.stderr);
    home.snowbank(&["pin", "add", "main", kept.as_str(), "--keep-revisions", "2"]).expect_success();
    let pins = home.snowbank(&["pin", "ls"]).expect_success().text();
    assert!(pins.contains("main") && pins.contains("2 revisions"), "{pins}");
    let history = home.snowbank(&["pin", "history", "main"]).expect_success().text();
    assert!(history.lines().nth(1).unwrap().ends_with(kept.hash()), "{history}");

    let mut freed = 0;
    wait_until("the old one goes", PATIENCE, || {
        let text = home.snowbank(&["gc", "--json"]).expect_success().text();
        let said: Value = serde_json::from_str(&text).unwrap();
        freed += said[0]["bytes"].as_u64().unwrap();
        said[0]["removed"] == 1
    });
    assert!(freed > 0);
    narinfo(&server, old).expect(404);
    host.assert_substituted(&server, std::slice::from_ref(kept));
    assert_eq!(names(&home.bank().join("nar")).len(), 2);
    let why = home.snowbank(&["why", old.as_str()]).expect_failure().text();
    assert!(why.contains("collected"), "{why}");
    // It can be pushed again, and stays as long as somebody asks for it.
    host.pushed(&server.url(), "", &[old.as_str()]);
    host.assert_substituted(&server, std::slice::from_ref(old));
    drop(server);

    // Without a server, and without the pin, all goes.
    home.snowbank(&["pin", "rm", "main"]).expect_success();
    home.snowbank(&["pin", "rm", "main"]).expect_failure();
    wait_until("all has gone", PATIENCE, || {
        home.snowbank(&["gc"]).expect_success();
        narinfos(&home.bank()).is_empty()
    });
    for directory in ["nar", "debuginfo"] {
        assert_eq!(names(&home.bank().join(directory)), [""; 0], "{directory}");
    }
    assert_eq!(names(&home.bank()).iter().filter(|name| name.ends_with(".ls")).count(), 0);
}

#[test]
fn what_somebody_asked_for_a_moment_ago_stays() {
    let pushed =
        Pushed::new("collect_every = \"never\"\nkeep_unused = \"3s\"\nkeep_at_least = \"3s\"");
    let server = pushed.start();
    let paths = [Made::new("used", b"used", &[]), Made::new("unused", b"unused", &[])];
    let mut pusher = Pusher::to(server.address()).unwrap();
    for path in &paths {
        pusher.stock(path, Form::Zstd).unwrap();
    }
    let wanted = format!("/{}.narinfo", paths[0].hash());
    let nar = {
        let answer = server.get(&wanted).expect(200);
        NarInfo::parse(&answer.body, &StoreDir::default()).unwrap().url
    };
    // Once by its narinfo and once by its NAR alone, as a client does that remembers the narinfo.
    for path in [&wanted, &format!("/{nar}")] {
        let mut connection = server.connect();
        wait_until("the unused one goes", Duration::from_secs(60), || {
            connection.request("GET", path, &[]).expect(200);
            said(gc(&pushed, &[]));
            let there = narinfos(&pushed.bank());
            assert!(there.contains(&paths[0].hash()), "it was in use");
            !there.contains(&paths[1].hash())
        });
        pusher.stock(&paths[1], Form::Zstd).unwrap();
    }
    // What was asked for outlives the server.
    server.get(&wanted).expect(200);
    drop(server);
}

#[test]
fn a_download_that_has_begun_ends_whole_though_its_path_is_collected() {
    let pushed = Pushed::new(NOTHING_KEPT);
    let server = pushed.start();
    let bytes: Vec<u8> = {
        let mut numbers = crate::support::trees::Numbers::from(7);
        numbers.bytes(64 << 20)
    };
    let large = Made::new("large", &bytes, &[]);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock(&large, Form::Zstd).unwrap();
    let answer = server.get(&format!("/{}.narinfo", large.hash())).expect(200);
    let narinfo = NarInfo::parse(&answer.body, &StoreDir::default()).unwrap();
    let mut slow = TcpStream::connect(server.address()).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(slow, "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", narinfo.url).unwrap();
    let mut first = [0; 64 << 10];
    slow.read_exact(&mut first).unwrap();
    wait_until("it is collected", PATIENCE, || said(gc(&pushed, &[]))["removed"] == 1);
    server.get(&format!("/{}.narinfo", large.hash())).expect(404);
    server.get(&format!("/{}", narinfo.url)).expect(404);
    assert_eq!(names(&pushed.bank().join("nar")), [""; 0]);
    let mut all = first.to_vec();
    slow.read_to_end(&mut all).unwrap();
    let body = memchr::memmem::find(&all, b"\r\n\r\n").unwrap() + 4;
    assert_eq!(Sha256::of(&all[body..]), narinfo.file_hash.unwrap());
}

#[test]
fn what_belongs_to_no_path_goes_and_one_path_that_cannot_be_read_hinders_nobody() {
    let pushed = Pushed::new(NOTHING_KEPT);
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    let paths = closure(1);
    pusher.native_closure(&paths).unwrap();
    let poison = Made::new("poison", b"poison", &[]);
    pusher.stock(&poison, Form::Zstd).unwrap();
    let file = pushed.bank().join(format!("{}.narinfo", poison.hash()));
    fs::write(&file, "not a narinfo").unwrap();
    let stray = pushed.bank().join(format!("nar/{}.nar.zst", Sha256::of(b"x").to_nix32()));
    fs::write(&stray, "nobody's").unwrap();
    fs::write(pushed.bank().join("nar/README"), "mine").unwrap();
    let mut last = Value::Null;
    wait_until("all others have gone", PATIENCE, || {
        last = said(gc(&pushed, &[]));
        narinfos(&pushed.bank()) == BTreeSet::from([poison.hash()]) && !stray.exists()
    });
    assert_eq!((&last["unreadable"], &last["failed"]), (&1.into(), &0.into()), "{last}");
    assert!(file.exists(), "it is kept for inspection");
    let left = names(&pushed.bank().join("nar"));
    // Of the poisoned path nobody knows the NAR any more.
    assert_eq!(left, ["README"]);
    assert_eq!(names(&pushed.bank().join("debuginfo")), [""; 0]);
}

#[test]
fn a_collection_that_is_killed_anywhere_leaves_what_is_whole_and_the_next_one_ends_it() {
    let mut killed = 0;
    for place in ["unlink", "fsync"] {
        for count in 1..200 {
            let pushed = Pushed::new(NOTHING_KEPT);
            let server = pushed.start();
            let mut pusher = Pusher::to(server.address()).unwrap();
            let paths = closure(count);
            pusher.native_closure(&paths).unwrap();
            server.stop();
            wait_until_planned(&pushed, 4);
            let mut order = order(&pushed, &["gc"]);
            order.env("SNOWBANK_FAULT", format!("publish.{place}=kill:{count}"));
            let code = run(&mut order, 60).code;
            let server = pushed.start();
            check_whole(&server, &pushed.bank());
            server.stop();
            said(gc(&pushed, &[]));
            assert_eq!(narinfos(&pushed.bank()), BTreeSet::new());
            assert_eq!(names(&pushed.bank().join("nar")), [""; 0], "{place} {count}");
            if code == Some(0) {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed > 10, "killed {killed} times only");
}

/// What can be seen is whole, with all that it refers to.
#[track_caller]
fn check_whole(server: &crate::support::server::Server, bank: &Path) {
    crate::support::pushed::check_visible(server, bank, &Acknowledged::default());
}

#[test]
fn pushes_downloads_and_collections_at_once_leave_nothing_dangling() {
    let pushed = Pushed::new(NOTHING_KEPT);
    let server = pushed.start();
    let (ends, pushes, reads, gone) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let address = server.address();
    thread::scope(|scope| {
        for half in 0..2 {
            let (ends, pushes) = (&ends, &pushes);
            scope.spawn(move || {
                let mut pusher = Pusher::to(address).unwrap();
                let mut number = half;
                while !ends.load(Ordering::Acquire) {
                    // The same again and again, after they have been alone for long enough to go.
                    number = (number + 1) % 200;
                    match pusher.native_closure(&closure(number)) {
                        Ok(()) => drop(pushes.fetch_add(1, Ordering::Relaxed)),
                        // What it refers to went a moment ago, and it is told so.
                        Err(Stop::Refused(answer)) if answer.status == 409 => {}
                        // The other one, who has the same name, sent the same parts and was faster:
                        // it is told to begin anew, as clients do.
                        Err(Stop::Refused(answer))
                            if answer.status == 404 && answer.text().contains("begin anew") => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut connection = server.connect();
            while !ends.load(Ordering::Acquire) {
                // What is read stays for another second, so not all is.
                for hash in narinfos(&pushed.bank()).into_iter().step_by(7) {
                    let answer = connection.request("GET", &format!("/{hash}.narinfo"), &[]);
                    if answer.status == 404 {
                        continue;
                    }
                    let narinfo =
                        NarInfo::parse(&answer.expect(200).body, &StoreDir::default()).unwrap();
                    let answer = connection.request("GET", &format!("/{}", narinfo.url), &[]);
                    match answer.status {
                        200 => assert_eq!(narinfo.file_hash, Some(Sha256::of(&answer.body))),
                        404 => {}
                        status => panic!("{status}"),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            let removed = said(gc(&pushed, &[]))["removed"].as_u64().unwrap();
            gone.fetch_add(removed, Ordering::Relaxed);
        }
        ends.store(true, Ordering::Release);
    });
    for (what, count) in [("pushes", &pushes), ("reads", &reads), ("collected", &gone)] {
        let count = count.load(Ordering::Relaxed);
        assert!(count > 20, "{what}: {count}");
    }
    check_whole(&server, &pushed.bank());
}

#[test]
fn what_is_removed_by_hand_goes_at_once_and_takes_what_refers_to_it_only_if_told_to() {
    // Everything is kept, and was asked for a moment ago.
    let pushed = Pushed::new("");
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    let below = Made::new("below", b"below", &[]);
    let middle = Made::new("middle", b"middle", &[&below]);
    let (top, beside) = (Made::new("top", b"top", &[&middle]), Made::new("beside", b"x", &[]));
    for path in [&below, &middle, &top, &beside] {
        pusher.stock(path, Form::Zstd).unwrap();
    }
    let rm = |words: &[&str]| run(&mut order(&pushed, &[&["rm"], words].concat()), 60);
    let there = || narinfos(&pushed.bank());
    let hashes = |paths: &[&Made]| paths.iter().map(|path| path.hash()).collect::<BTreeSet<_>>();

    let refused = rm(&[&middle.hash()]).expect_failure().stderr;
    assert!(refused.contains(&top.hash()) && refused.contains("--referrers"), "{refused}");
    let mut pin = order(&pushed, &["pin", "add", "main", &top.hash()]);
    run(&mut pin, 30).expect_success();
    let pinned = rm(&[&middle.hash(), "--referrers"]).expect_failure().stderr;
    assert!(pinned.contains("is pinned"), "{pinned}");
    assert_eq!(there().len(), 4);
    run(&mut order(&pushed, &["pin", "rm", "main"]), 30).expect_success();

    let dry =
        rm(&[&middle.hash(), "--referrers", "--closure", "--dry-run"]).expect_success().text();
    assert!(dry.starts_with("3 paths would go"), "{dry}");
    assert_eq!(there().len(), 4);
    rm(&[&middle.hash(), "--referrers"]).expect_success();
    assert_eq!(there(), hashes(&[&below, &beside]));
    let why = run(&mut order(&pushed, &["why", &top.hash()]), 30).expect_failure().text();
    assert!(why.contains("removed by") && why.contains("snowbank rm"), "{why}");
    for path in [&middle, &top] {
        pusher.stock(path, Form::Zstd).unwrap();
    }
    rm(&[&top.hash(), "--closure"]).expect_success();
    assert_eq!(there(), hashes(&[&beside]));
    check(&server, &pushed.bank(), &Acknowledged::default());
    let gone = rm(&[&top.hash()]).expect_failure();
    assert!(gone.stderr.contains("is in no bank"), "{}", gone.stderr);
    // Without a server as well.
    server.stop();
    rm(&[&beside.hash()]).expect_success();
    assert_eq!((there(), names(&pushed.bank().join("nar"))), (BTreeSet::new(), Vec::new()));
}

#[test]
fn a_cache_is_collected_on_its_schedule_by_age_and_by_size() {
    let kept = Made::new("kept", b"kept", &[]);
    let large = Made::new("large", &vec![7; 3 << 20], &[]);
    // Of the large one nothing is left where it is compressed: it has the blocks of any small file.
    for (settings, goes) in [
        ("collect_every = \"1s\"\nkeep_unused = \"0s\"\nkeep_at_least = \"0s\"", 2),
        (
            "collect_every = \"1s\"\nkeep_at_least = \"0s\"\ncollect_above = \"1\"\ncollect_to = \"0\"",
            2,
        ),
        ("collect_every = \"1s\"\nkeep_at_least = \"0s\"\nkeep_free = \"1000000G\"", 2),
        ("collect_every = \"1s\"\nkeep_at_least = \"0s\"", 0),
        ("collect_every = \"1s\"\nkeep_unused = \"0s\"", 0),
    ] {
        let pushed = Pushed::new(settings);
        let server = pushed.start();
        let mut pusher = Pusher::to(server.address()).unwrap();
        for made in [&kept, &large] {
            pusher.stock(made, Form::Zstd).unwrap();
        }
        let collected = || server.metric("snowbank_collected_paths_total", "cache=\"default\"");
        let last = || server.metric("snowbank_collected_timestamp_seconds", "cache=\"default\"");
        let first = last();
        wait_until("it was collected some times", PATIENCE, || last() > first + 3.0);
        wait_until("what is to go has gone", PATIENCE, || collected() == f64::from(goes));
        assert_eq!(
            narinfos(&pushed.bank()).len(),
            2 - usize::try_from(goes).unwrap(),
            "{settings}"
        );
    }
}
