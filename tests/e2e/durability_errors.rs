//! A disk that refuses once, at every call of a push: rows R9 and R11 of the reliability matrix. The push is refused
//! with the reason, nothing of it is left, everything else goes on, and the next attempt works in the same process.

use std::{
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    made::{Form, Made, closure},
    pushed::{
        Pushed, Pusher, Stop, check, check_left_over, check_visible, names, narinfos, verify,
    },
};

type Push = fn(&mut Pusher, &[Made]) -> Result<(), Stop>;

/// What a place is told, what a pusher is told then, and what of it must be in the line.
struct Refusal {
    errno: &'static str,
    places: &'static [&'static str],
    status: u16,
}

/// The calls that may need room, or find a disk that is broken.
const REFUSALS: [Refusal; 3] = [
    Refusal {
        errno: "ENOSPC",
        places: &[
            "ingest.write",
            "publish.create",
            "publish.fsync",
            "publish.link",
            "publish.rename",
            "publish.write",
        ],
        status: 507,
    },
    Refusal {
        errno: "EDQUOT",
        places: &["ingest.write", "publish.create", "publish.write"],
        status: 507,
    },
    Refusal {
        errno: "EIO",
        places: &[
            "ingest.truncate",
            "ingest.write",
            "publish.create",
            "publish.fsync",
            "publish.fsync_directory",
            "publish.link",
            "publish.rename",
            "publish.syncfs",
            "publish.unlink",
            "publish.write",
        ],
        status: 500,
    },
];

/// Refuses one place again and again, each time at its next call, until a push does not come by so often. Says how many
/// calls were refused.
fn refused_at_every_call(refusal: &Refusal, place: &str, push: Push, from: u64) -> usize {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let base = Made::new("base", b"it is there already", &[]);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock(&base, Form::Zstd).unwrap();
    let mut acknowledged = pusher.acknowledged;
    server.stop();
    for call in 1.. {
        let fault = format!("{place}={}:{call}", refusal.errno);
        let mut server = match pushed.setup(&fault).try_start(Stdio::null(), 1) {
            Ok(server) => server,
            Err((status, said)) => {
                // What a start needs is refused: it ends and says why.
                assert!(status.code().is_some() && said.contains("os error"), "{status}: {said}");
                continue;
            }
        };
        let paths = closure(from + call);
        let mut pusher = Pusher::to(server.address()).unwrap();
        let done = push(&mut pusher, &paths);
        let was_refused = match &done {
            Ok(()) => false,
            Err(Stop::Refused(answer)) => {
                let text = answer.text();
                assert_eq!(answer.status, refusal.status, "{fault}: {text}");
                assert_eq!(text.trim_end().lines().count(), 1, "{fault}: {text:?}");
                assert!(!text.contains("e2e-"), "{fault} tells a path of the server: {text}");
                true
            }
            Err(Stop::Gone(error)) => panic!("{fault}: {error}\n{}", server.log()),
        };
        assert_eq!(names(&pushed.bank().join("tmp")), [""; 0], "{fault} left temporary files");
        let visible = narinfos(&pushed.bank());
        verify(&mut server.connect(), &base.hash(), &visible);
        if was_refused {
            push(&mut pusher, &paths).unwrap_or_else(|stop| panic!("{fault}, repeated: {stop:?}"));
        }
        acknowledged.paths.extend(pusher.acknowledged.paths);
        check_visible(&server, &pushed.bank(), &acknowledged);
        if place != "publish.unlink" {
            // What may not be removed stays until the next start.
            check_left_over(&pushed.bank());
        }
        server.assert_alive();
        // As an end by power would: what was acknowledged does not wait for a clean end.
        server.kill();
        if !was_refused {
            check(&pushed.start(), &pushed.bank(), &acknowledged);
            return usize::try_from(call).unwrap() - 1;
        }
    }
    unreachable!("a push makes so many calls and no more")
}

fn refused_everywhere(push: Push, needed: &[&str], least: usize) {
    let all: Vec<(&Refusal, &str)> = REFUSALS
        .iter()
        .flat_map(|refusal| refusal.places.iter().map(move |place| (refusal, *place)))
        .collect();
    let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((refusal, place)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let calls = refused_at_every_call(refusal, place, push, 1000);
            println!("{place}={}: refused at {calls} calls", refusal.errno);
            assert!(calls > 0 || !needed.contains(place), "a push does not come by {place}");
            sum.fetch_add(calls, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers = [(); 6].map(|()| scope.spawn(work));
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let sum = sum.into_inner();
    println!("{sum} calls refused");
    assert!(sum >= least, "only {sum} calls were refused");
}

#[test]
fn r9_r11_a_stock_push_that_the_disk_refuses_at_any_call_is_told_and_works_when_repeated() {
    refused_everywhere(Pusher::stock_closure, &["ingest.write", "publish.fsync"], 200);
}

#[test]
fn r9_r11_a_native_push_that_the_disk_refuses_at_any_call_is_told_and_works_when_repeated() {
    refused_everywhere(Pusher::native_closure, &["ingest.write", "publish.syncfs"], 200);
}
