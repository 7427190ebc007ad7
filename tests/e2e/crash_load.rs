//! SIGKILL at random moments under load: row R3 of the reliability matrix.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::support::{
    made::closure,
    pushed::{Acknowledged, Pushed, Pusher, Stop, check, check_left_over, names, narinfos, verify},
    server::Server,
    trees::Numbers,
};

const ROUNDS: usize = 200;
const PUSHERS: usize = 8;

/// What the pushers of all rounds share.
struct Load {
    next: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

impl Load {
    /// Pushes closure after closure until the server is gone.
    fn push(&self, server: &Server, is_stock: bool) {
        let Ok(mut pusher) = Pusher::to(server.address()) else { return };
        loop {
            // Two at a time push the same closure: what one has brought the other finds.
            let paths = closure(self.next.fetch_add(1, Ordering::Relaxed) / 2);
            let done =
                if is_stock { pusher.stock_closure(&paths) } else { pusher.native_closure(&paths) };
            let mut acknowledged = self.acknowledged.lock().unwrap();
            let Acknowledged { paths, signatures, logs } = std::mem::take(&mut pusher.acknowledged);
            acknowledged.paths.extend(paths);
            acknowledged.signatures.extend(signatures);
            acknowledged.logs.extend(logs);
            drop(acknowledged);
            match done {
                Ok(()) => {}
                Err(Stop::Gone(_)) => return,
                // Two that push one NAR in parts at once get in each other's way, and are told.
                Err(Stop::Refused(answer)) if answer.status == 409 || answer.status == 404 => {}
                Err(Stop::Refused(answer)) => panic!("{} {}", answer.status, answer.text()),
            }
        }
    }
}

#[test]
fn r3_two_hundred_kills_under_load_lose_nothing_and_leave_nothing_half() {
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    println!("seed {seed}");
    let mut numbers = Numbers::from(seed);
    let pushed = Pushed::new("");
    let load = Load { next: AtomicU64::new(0), acknowledged: Mutex::default() };
    let began = Instant::now();
    let (mut checked, mut left) = (0, 0);
    let mut server = pushed.start();
    for round in 0..ROUNDS {
        let pause = Duration::from_millis(numbers.below(300) as u64);
        thread::scope(|scope| {
            let (load, at) = (&load, &server);
            for index in 0..PUSHERS {
                scope.spawn(move || load.push(at, index % 2 == 0));
            }
            thread::sleep(pause);
            at.signal(rustix::process::Signal::KILL);
        });
        left += names(&pushed.bank().join("tmp")).len();
        drop(server);
        server = pushed.start();
        let visible = narinfos(&pushed.bank());
        let new = std::mem::take(&mut *load.acknowledged.lock().unwrap());
        let mut connection = server.connect();
        for hash in &new.paths {
            assert!(visible.contains(hash), "seed {seed}, round {round}: {hash} is gone");
            verify(&mut connection, hash, &visible);
        }
        check_left_over(&pushed.bank());
        checked += new.paths.len();
        // All that can be seen, acknowledged or not, now and then and at the end.
        if round % 50 == 49 {
            check(&server, &pushed.bank(), &new);
        }
    }
    println!(
        "{ROUNDS} kills, {checked} acknowledged and {} visible paths, {left} temporary files left by \
         kills, {:?}",
        narinfos(&pushed.bank()).len(),
        began.elapsed()
    );
    assert!(checked > 2 * ROUNDS, "only {checked} paths were acknowledged: that was no load");
    assert!(left > 0, "no kill struck in the middle of anything");
}
