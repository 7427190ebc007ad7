//! SIGKILL at every step of a push: each place of the pipeline that has a name ([`snowbank::fault`]), each time that a
//! small closure comes by it. Row R1 of the reliability matrix on the real binary.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    PATIENCE,
    made::{Form, Made, closure},
    pushed::{Acknowledged, Pushed, Pusher, Stop, check},
};

/// Every place in the sources that can be armed and that a push comes by.
const PLACES: [&str; 13] = [
    "ingest.read",
    "ingest.truncate",
    "ingest.write",
    "publish.create",
    "publish.fsync",
    "publish.fsync_directory",
    "publish.link",
    "publish.mkdir",
    "publish.rename",
    "publish.syncfs",
    "publish.unlink",
    "publish.write",
    "push.answer",
];

/// How many servers are killed at once: most of the time they wait for the disk.
const WORKERS: usize = 6;

type Push = fn(&mut Pusher, &[Made]) -> Result<(), Stop>;

/// The numbers of calls that a place was killed at, summed over all places.
#[derive(Default)]
struct Kills(AtomicUsize);

/// Runs `push` on a server that is killed at the `call`th time that it comes by `place`, and looks at what is there
/// after a restart. Says whether it was killed.
fn killed_at(place: &str, call: usize, push: Push, paths: &[Made]) -> bool {
    let pushed = Pushed::new("");
    let fault = format!("{place}=kill:{call}");
    let mut acknowledged = Acknowledged::default();
    let killed = match pushed.setup(&fault).try_start(Stdio::null(), 1) {
        // It makes the cache when it starts.
        Err((status, said)) => {
            assert_eq!(status.signal(), Some(9), "{fault}: {said}");
            true
        }
        Ok(mut server) => {
            let mut pusher = Pusher::to(server.address()).unwrap();
            let done = push(&mut pusher, paths);
            acknowledged = pusher.acknowledged;
            if let Err(Stop::Refused(answer)) = &done {
                panic!("{fault}: {} {}", answer.status, answer.text());
            }
            if done.is_err() {
                let status = server.wait(PATIENCE);
                assert_eq!(status.signal(), Some(9), "{fault}: {}", server.log());
            } else {
                server.kill();
            }
            done.is_err()
        }
    };
    // Also after a push that came to its end: the kill is after the last answer.
    let server = pushed.start();
    check(&server, &pushed.bank(), &acknowledged);
    let mut again = Pusher::to(server.address()).unwrap();
    push(&mut again, paths).unwrap_or_else(|stop| panic!("{fault}, repeated: {stop:?}"));
    check(&server, &pushed.bank(), &again.acknowledged);
    assert_eq!(again.acknowledged.paths.len(), paths.len(), "{fault}");
    killed
}

/// Every place, every call.
fn killed_everywhere(push: Push, needed: &[&str], least: usize) {
    let (next, kills) = (AtomicUsize::new(0), Kills::default());
    let work = || {
        while let Some(place) = PLACES.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut call = 1;
            let paths = closure(7);
            while killed_at(place, call, push, &paths) {
                call += 1;
            }
            assert!(call > 1 || !needed.contains(place), "a push does not come by {place}");
            println!("{place}: killed at {} calls", call - 1);
            kills.0.fetch_add(call - 1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers = [(); WORKERS].map(|()| scope.spawn(work));
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let kills = kills.0.into_inner();
    println!("{kills} kill points");
    assert!(kills >= least, "only {kills} kill points");
}

#[test]
fn a_stock_push_that_is_killed_at_any_step_leaves_nothing_half_and_loses_nothing() {
    let needed: Vec<_> = PLACES
        .into_iter()
        .filter(|place| !["publish.syncfs", "ingest.truncate"].contains(place))
        .collect();
    killed_everywhere(Pusher::stock_closure, &needed, 80);
}

#[test]
fn a_native_push_that_is_killed_at_any_step_leaves_nothing_half_and_loses_nothing() {
    killed_everywhere(Pusher::native_closure, &PLACES, 80);
}

#[test]
fn the_places_that_are_killed_at_are_all_that_there_are() {
    let mut places = Vec::new();
    collect(&crate::support::project().join("src"), &mut places);
    places.sort_unstable();
    places.dedup();
    // Those of the client and of the formatter are their own tests'.
    let others = ["spool.", "push.part", "format."];
    places.retain(|place| !others.iter().any(|other| place.starts_with(other)));
    assert_eq!(places, PLACES);
}

fn collect(directory: &Path, places: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, places);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.ends_with("src/fault.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let found = text.split("fault::point(\"").skip(1);
            places.extend(found.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
}

#[test]
fn a_recovery_that_is_killed_at_any_step_is_finished_by_the_next_one() {
    let paths = closure(8);
    let mut kills = 0;
    for place in ["publish.create", "publish.rename", "publish.syncfs", "publish.unlink"] {
        for call in 1.. {
            let pushed = Pushed::new("");
            // The commit is decided and nothing of it is visible yet: its first narinfo is refused its name.
            let died = in_the_middle_of_a_commit(&pushed, &paths);
            let fault = format!("{place}=kill:{call}");
            let killed = pushed.setup(&fault).try_start(Stdio::null(), 1).is_err();
            let server = pushed.start();
            let mut expected = died;
            // The journal was there, so the whole commit is.
            expected.paths.extend(paths.iter().map(Made::hash));
            check(&server, &pushed.bank(), &expected);
            if !killed {
                assert!(call > 1, "a recovery does not come by {place}");
                break;
            }
            kills += 1;
        }
    }
    println!("{kills} kill points in recovery");
}

/// Pushes, and is killed after the journal got its name.
fn in_the_middle_of_a_commit(pushed: &Pushed, paths: &[Made]) -> Acknowledged {
    let server = pushed.setup("publish.link=kill:1").start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    for made in &paths[..3] {
        pusher.whole(made, Form::Seekable).unwrap();
    }
    let done = pusher.commit(&paths.iter().collect::<Vec<_>>());
    assert!(matches!(done, Err(Stop::Gone(_))), "the first link is after the journal: {done:?}");
    pusher.acknowledged
}
