//! No room: a file system that is full, and the quota of the cache. Rows R9 and R10 of the reliability matrix.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    command,
    made::{Form, Made},
    pushed::{Pushed, Pusher, Stop, check, names, narinfos, verify},
    server::Server,
    trees::Numbers,
};

const MIB: usize = 1 << 20;

/// A path of so many bytes that do not compress.
fn random(seed: u64, size: usize) -> Made {
    Made::new(&format!("random-{seed}"), &Numbers::from(seed).bytes(size), &[])
}

/// A server whose data directory is a small file system of its own, and where that can be seen.
fn on_small_file_system(pushed: &Pushed, mebibytes: usize) -> (Server, PathBuf) {
    fs::create_dir_all(pushed.data()).unwrap();
    let user = if rustix::process::getuid().is_root() { "" } else { "--map-root-user" };
    let probe = format!("unshare --mount {user} mount -t tmpfs -o size=1m none /mnt");
    let probe = command("sh").args(["-c", &probe]).output().unwrap();
    assert!(
        probe.status.success(),
        "a file system of 16 MiB cannot be mounted; it takes root, or user namespaces for others: {}",
        String::from_utf8_lossy(&probe.stderr)
    );
    let data = pushed.data();
    let mount = format!("mount -t tmpfs -o size={mebibytes}m none '{}'", data.display());
    let script =
        format!("exec unshare --mount {user} sh -c '{mount} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
    let script = script.replace(&format!("'{}'", data.display()), &data.display().to_string());
    let server = pushed.setup("").after_shell(&script).start();
    let seen = PathBuf::from(format!("/proc/{}/root{}", server.pid(), data.display()));
    (server, seen.join("default"))
}

type Send = fn(&mut Pusher, &Made) -> Result<(), Stop>;

const WAYS: [(&str, Send); 5] = [
    ("stock, bare", |pusher, made| pusher.stock(made, Form::Bare)),
    ("stock, zstd", |pusher, made| pusher.stock(made, Form::Zstd)),
    ("whole, seekable", |pusher, made| {
        pusher.whole(made, Form::Seekable)?;
        pusher.commit(&[made])
    }),
    ("parts, seekable", |pusher, made| {
        pusher.parts(made, Form::Seekable)?;
        pusher.commit(&[made])
    }),
    ("parts, plain", |pusher, made| {
        pusher.parts(made, Form::Zstd)?;
        pusher.commit(&[made])
    }),
];

#[track_caller]
fn expect_no_room(what: &str, done: Result<(), Stop>) {
    match done {
        Err(Stop::Refused(answer)) => {
            let text = answer.text();
            assert_eq!(answer.status, 507, "{what}: {text}");
            assert_eq!(text.trim_end().lines().count(), 1, "{what}: {text:?}");
            assert!(answer.header("retry-after").is_some(), "{what}");
        }
        other => panic!("{what}: {other:?} where there is no room"),
    }
}

#[test]
fn r9_a_full_disk_is_507_reads_go_on_and_pushes_work_again_when_there_is_room() {
    let pushed = Pushed::new("");
    let (mut server, bank) = on_small_file_system(&pushed, 16);
    let mut pusher = Pusher::to(server.address()).unwrap();
    let base = random(1, MIB);
    pusher.stock(&base, Form::Bare).unwrap();
    for (number, (what, send)) in WAYS.iter().enumerate() {
        let made = random(10 + number as u64, MIB);
        // Nothing left at all, and less than it takes.
        for left in [0, MIB / 2] {
            let ballast = bank.join("ballast");
            fill(&ballast, left);
            expect_no_room(&format!("{what}, {left} left"), send(&mut pusher, &made));
            assert_eq!(names(&bank.join("tmp")), [""; 0], "{what} left temporary files");
            verify(&mut server.connect(), &base.hash(), &narinfos(&bank));
            server.get("/nix-cache-info").expect(200);
            fs::remove_file(&ballast).unwrap();
        }
        send(&mut pusher, &made).unwrap_or_else(|stop| panic!("{what}, with room: {stop:?}"));
        check(&server, &bank, &pusher.acknowledged);
    }
    server.assert_alive();
}

/// Fills a file system but for `left` bytes.
fn fill(ballast: &Path, left: usize) {
    use std::io::Write;
    let mut file = fs::File::create(ballast).unwrap();
    let block = vec![1; 4096];
    while file.write_all(&block).is_ok() {}
    let full = file.metadata().unwrap().len();
    file.set_len(full.saturating_sub(left as u64)).unwrap();
}

/// The bytes of all NARs of a bank, wherever they are on their way. A name that goes meanwhile is counted nowhere.
fn bytes_of_nars(bank: &Path) -> u64 {
    let sum = |directory: &str| -> u64 {
        let Ok(entries) = fs::read_dir(bank.join(directory)) else { return 0 };
        let is_nar = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            !matches!(ending, Some("facts" | "ls" | "journal" | "state"))
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| is_nar(&entry.path()))
            .filter_map(|entry| entry.metadata().ok())
            // Facts, listings and narinfos are written in tmp/ as well, and are far smaller.
            .filter(|found| directory != "tmp" || found.len() > 4096)
            .map(|found| found.len())
            .sum()
    };
    // Against the direction in which they move, so that none is counted twice.
    ["nar", "pending", "uploads", "tmp"].into_iter().map(sum).sum()
}

#[test]
fn r10_many_uploads_at_the_edge_of_the_quota_never_pass_it() {
    const QUOTA: u64 = 8 << 20;
    let pushed = Pushed::new("max_size = \"8M\"\n[limits]\nuploads = 64\nuploads_per_client = 64");
    let server = pushed.start();
    let (taken, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let (most, samples) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut most, mut samples) = (0, 0);
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(bytes_of_nars(&pushed.bank()));
                samples += 1;
            }
            (most, samples)
        });
        let pushers: Vec<_> = (0..32)
            .map(|number| {
                let (server, taken, refused) = (&server, &taken, &refused);
                scope.spawn(move || {
                    let made = random(number, 512 << 10);
                    let (what, send) = WAYS[usize::try_from(number).unwrap() % WAYS.len()];
                    match send(&mut Pusher::to(server.address()).unwrap(), &made) {
                        Ok(()) => taken.fetch_add(1, Ordering::Relaxed),
                        other => {
                            expect_no_room(what, other);
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                })
            })
            .collect();
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    let (taken, refused) = (taken.into_inner(), refused.into_inner());
    println!("{taken} taken, {refused} refused, at most {most} bytes in {samples} samples");
    assert!(most <= QUOTA, "{most} bytes were there at once, of {QUOTA}");
    assert!(taken > 4 && refused > 8, "that was not the edge: {taken} taken, {refused} refused");
    check(&server, &pushed.bank(), &<_>::default());
}

/// A path whose NAR takes exactly `size` bytes in the form that is stored.
fn of_size(seed: u64, size: usize) -> Made {
    let all = Numbers::from(seed).bytes(2 * size);
    // A NAR's own size is a multiple of eight. Text at its end, which compresses a little, moves it by single bytes.
    let with_text = |length: usize, text: usize| {
        let mut bytes = all[..length].to_vec();
        bytes[length - text..].iter_mut().for_each(|byte| *byte &= 0x0f);
        let made = Made::new("exact", &bytes, &[]);
        let is = made.bytes(Form::Seekable).len();
        (made, is)
    };
    let mut length = size;
    for _ in 0..5 {
        length = (length + size + 16).checked_sub(with_text(length, 60_000).1).unwrap();
    }
    for text in 60_000..61_000 {
        let (made, is) = with_text(length, text);
        if is == size {
            return made;
        }
    }
    panic!("no NAR of exactly {size} bytes was found")
}

#[test]
fn r10_what_was_reserved_for_uploads_that_end_in_the_middle_is_free_again_to_the_byte() {
    let pushed = Pushed::new("max_size = \"4M\"");
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    let size = 4 * MIB;
    let (small, large) = (random(1, MIB), random(2, 3 * MIB / 2));
    pusher.stock(&small, Form::Bare).unwrap();
    let bytes = large.bytes(Form::Seekable);
    for (number, share) in [0, 1, 50, 99].into_iter().cycle().take(12).enumerate() {
        let cut = bytes.len() * share / 100;
        let hash = large.info.nar_hash.to_nix32();
        let path = match number % 3 {
            0 => format!("PUT /nar/{}.nar.zst", snowbank::nix::hash::Sha256::of(&bytes).to_nix32()),
            1 => format!("PUT /_snowbank/v1/nar/{hash}"),
            _ => {
                let (id, offset) = pusher.begin(&large, Form::Seekable).unwrap().unwrap();
                assert_eq!(offset, 0);
                format!("PATCH /_snowbank/v1/uploads/{id}")
            }
        };
        let mut connection = server.connect();
        let (length, nar_size) = (bytes.len(), large.nar.len());
        let head = format!(
            "{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nNar-Size: {nar_size}\r\n\
             Upload-Offset: 0\r\nPart-Hash: {}\r\n\r\n",
            snowbank::nix::hash::Sha256::of(b"")
        );
        connection.send(head.as_bytes()).unwrap();
        connection.send(&bytes[..cut]).unwrap();
    }
    // One that came as far as two parts, and is ended.
    let (id, _) = pusher.begin(&large, Form::Seekable).unwrap().unwrap();
    pusher.part(&id, 0, &bytes[..MIB]).unwrap();
    pusher.part(&id, MIB, &bytes[MIB..]).unwrap();
    let ended = pusher.ask("DELETE", &format!("/_snowbank/v1/uploads/{id}"), &[], b"").unwrap();
    assert_eq!(ended.status, 204);
    // A path that is there already needs no room twice.
    pusher.stock(&small, Form::Bare).unwrap();
    crate::support::wait_until("the broken uploads to be gone", crate::support::PATIENCE, || {
        names(&pushed.bank().join("tmp")).is_empty()
    });
    let used = bytes_of_nars(&pushed.bank());
    let rest = of_size(3, size - usize::try_from(used).unwrap());
    pusher.whole(&rest, Form::Seekable).unwrap();
    pusher.commit(&[&rest]).unwrap();
    assert_eq!(bytes_of_nars(&pushed.bank()), 4 << 20);
    expect_no_room("one byte more", pusher.whole(&Made::new("x", b"", &[]), Form::Seekable));
    check(&server, &pushed.bank(), &pusher.acknowledged);
}
