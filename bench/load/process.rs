//! What a server costs, from `/proc`. A server may be several processes: nginx has a worker a core.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn family(pid: u32) -> Vec<u32> {
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    std::iter::once(pid).chain(children).collect()
}

/// Clock ticks are hundredths of a second on every Linux that Rust runs on.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let ticks = |pid: u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name, in brackets, may hold blanks; user and system time are the 12th and 13th after it.
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    family(pid).into_iter().map(ticks).sum::<u64>() as f64 / 100.0
}

/// Resident KiB, all processes together.
pub(crate) fn resident(pid: u32) -> u64 {
    let one = |pid: u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    family(pid).into_iter().map(one).sum()
}

/// The largest [`resident`] while `work` goes on.
pub(crate) fn most_resident(pid: u32, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(resident(pid));
                thread::sleep(Duration::from_millis(10));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        sampler.join().unwrap()
    })
}
