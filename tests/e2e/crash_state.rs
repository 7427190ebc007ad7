//! What lies between a push and its end, broken by others or left for too long: rows R14 and R16 of the reliability
//! matrix as far as they are about pushes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use crate::support::{
    made::{Form, Made, closure},
    pushed::{Pushed, Pusher, Stop, check, narinfos, verify},
};

/// The ways in which a file can be something else.
const DAMAGES: [&str; 6] =
    ["truncated", "zero length", "random bytes", "one bit", "a directory", "a link"];

fn damage(file: &Path, how: &str) {
    let bytes = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    match how {
        "truncated" => fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
        "zero length" => fs::write(file, b"").unwrap(),
        "random bytes" => {
            let mut numbers = crate::support::trees::Numbers::from(5);
            fs::write(file, numbers.bytes(bytes.len())).unwrap();
        }
        "one bit" => {
            let mut changed = bytes;
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            fs::write(file, changed).unwrap();
        }
        "a directory" => fs::create_dir(file).unwrap(),
        _ => std::os::unix::fs::symlink("/etc/passwd", file).unwrap(),
    }
}

/// A server that was killed with NARs that wait and an upload of which a part came.
fn interrupted(paths: &[Made]) -> Pushed {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_nar(&paths[0], Form::Bare).unwrap();
    pusher.whole(&paths[1], Form::Seekable).unwrap();
    let (id, _) = pusher.begin(&paths[2], Form::Zstd).unwrap().unwrap();
    let bytes = paths[2].bytes(Form::Zstd);
    pusher.part(&id, 0, &bytes[..bytes.len() / 3]).unwrap();
    server.kill();
    pushed
}

fn files(pushed: &Pushed) -> Vec<PathBuf> {
    let in_directory = |directory: &str| {
        let directory = pushed.bank().join(directory);
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let mut files = [in_directory("pending"), in_directory("uploads")].concat();
    files.sort_unstable_by_key(|path| (path.extension().map(ToOwned::to_owned), path.clone()));
    files
}

/// All that can be seen is whole.
fn verify_all(server: &crate::support::server::Server, pushed: &Pushed) {
    let visible = narinfos(&pushed.bank());
    for hash in &visible {
        verify(&mut server.connect(), hash, &visible);
    }
}

#[test]
fn r14_damage_to_what_waits_is_never_published() {
    let paths = closure(3);
    let count = files(&interrupted(&paths)).len();
    assert_eq!(count, 8, "two NARs with facts and listing, and an upload with its state");
    let cases: Vec<_> = (0..count).flat_map(|index| DAMAGES.map(|how| (index, how))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((index, how)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            damaged(&paths, *index, how);
        }
    };
    thread::scope(|scope| {
        // Most of the time they wait for the disk.
        let workers = [(); 6].map(|()| scope.spawn(work));
        for worker in workers {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// One case: a file of those that wait, and what became of it.
fn damaged(paths: &[Made], index: usize, how: &str) {
    let pushed = interrupted(paths);
    let file = files(&pushed).swap_remove(index);
    damage(&file, how);
    let what = format!("{} is {how}", file.file_name().unwrap().display());
    let mut server = match pushed.setup("").try_start(Stdio::null(), 1) {
        Ok(server) => server,
        Err((_, said)) => {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(said.contains(name), "{what}, and the server does not say so: {said}");
            return;
        }
    };
    let mut pusher = Pusher::to(server.address()).unwrap();
    // Straight to the end, as if all of it were well; it may be refused.
    let attempts = [
        pusher.stock_narinfo(&paths[0], Form::Bare),
        pusher.commit(&[&paths[1]]),
        pusher.parts(&paths[2], Form::Zstd),
        pusher.commit(&[&paths[2]]),
    ];
    for done in attempts {
        assert!(!matches!(done, Err(Stop::Gone(_))), "{what}: {done:?}");
    }
    server.assert_alive();
    verify_all(&server, &pushed);
    if how == "a directory" {
        return;
    }
    for push in [Pusher::stock_closure, Pusher::native_closure] {
        push(&mut pusher, paths).unwrap_or_else(|stop| panic!("{what}, repeated: {stop:?}"));
    }
    check(&server, &pushed.bank(), &pusher.acknowledged);
}

#[test]
fn r14_a_journal_that_does_not_read_stops_the_start_and_is_named() {
    let paths = closure(4);
    for how in DAMAGES {
        let pushed = Pushed::new("");
        let server = pushed.setup("publish.link=kill:1").start();
        let mut pusher = Pusher::to(server.address()).unwrap();
        pusher.whole(&paths[0], Form::Seekable).unwrap();
        assert!(pusher.commit(&[&paths[0]]).is_err());
        drop(server);
        let journals: Vec<_> = files(&pushed)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "journal"))
            .collect();
        let [journal] = journals.as_slice() else { panic!("one journal, and not {journals:?}") };
        damage(journal, how);
        let Err((_, said)) = pushed.setup("").try_start(Stdio::null(), 1) else {
            panic!("{how}: a server starts on a journal that it cannot believe")
        };
        let name = journal.file_name().unwrap().to_str().unwrap();
        assert!(said.contains(name), "{how}: the journal is not named: {said}");
        // The way out is to remove it: nothing of that commit was acknowledged or seen.
        fs::remove_file(journal).or_else(|_| fs::remove_dir(journal)).unwrap();
        let server = pushed.start();
        Pusher::to(server.address()).unwrap().native_closure(&paths).unwrap();
        verify_all(&server, &pushed);
    }
}

#[test]
fn r16_letting_go_of_what_is_too_old_races_with_pushes_of_it() {
    const ROUNDS: u64 = 25;
    let pushed = Pushed::new("[limits]\npending_age = \"1m\"");
    let (mut expired, mut in_time) = (0, 0);
    let mut server = pushed.start();
    let mut acknowledged = crate::support::pushed::Acknowledged::default();
    for round in 0..ROUNDS {
        let paths = closure(500 + round);
        let mut pusher = Pusher::to(server.address()).unwrap();
        pusher.stock_nar(&paths[0], Form::Bare).unwrap();
        pusher.whole(&paths[1], Form::Seekable).unwrap();
        let (id, _) = pusher.begin(&paths[2], Form::Zstd).unwrap().unwrap();
        let bytes = paths[2].bytes(Form::Zstd);
        pusher.part(&id, 0, &bytes[..bytes.len() / 2]).unwrap();
        server.kill();
        for file in files(&pushed) {
            let old = SystemTime::now() - Duration::from_secs(3600);
            fs::File::open(file).unwrap().set_modified(old).unwrap();
        }
        // It looks for the first time when it starts, and so do these.
        server = pushed.start();
        let address = server.address();
        let outcomes = thread::scope(|scope| {
            let (first, second, third) = (&paths[0], &paths[1], &paths[2]);
            let (bytes, id) = (&bytes, &id);
            let stock = scope.spawn(move || {
                let mut pusher = Pusher::to(address).unwrap();
                (pusher.stock_narinfo(first, Form::Bare), pusher.acknowledged)
            });
            let parts = scope.spawn(move || {
                let mut pusher = Pusher::to(address).unwrap();
                let half = bytes.len() / 2;
                let done = pusher.part(id, half, &bytes[half..]);
                (done.and_then(|()| pusher.finish(id, bytes)), pusher.acknowledged)
            });
            let whole = scope.spawn(move || {
                let mut pusher = Pusher::to(address).unwrap();
                (pusher.stock(third, Form::Bare).or(Ok(())), {
                    let _ = pusher.commit(&[first, second]);
                    pusher.acknowledged
                })
            });
            [stock.join().unwrap(), parts.join().unwrap(), whole.join().unwrap()]
        });
        for (done, acknowledgements) in outcomes {
            acknowledged.paths.extend(acknowledgements.paths);
            match done {
                Ok(()) => in_time += 1,
                Err(Stop::Refused(answer)) => {
                    let text = answer.text();
                    assert!([404, 409].contains(&answer.status), "{} {text}", answer.status);
                    expired += 1;
                }
                Err(Stop::Gone(error)) => panic!("{error}"),
            }
        }
        let mut pusher = Pusher::to(address).unwrap();
        pusher.native_closure(&paths).unwrap();
        acknowledged.paths.extend(pusher.acknowledged.paths);
    }
    check(&server, &pushed.bank(), &acknowledged);
    println!("{ROUNDS} rounds: {expired} came too late, {in_time} in time");
    assert!(expired > 0, "nothing was ever let go of");
}
