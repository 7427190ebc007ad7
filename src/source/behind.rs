//! Work that takes seconds of a processor, and that nobody waits for.

use std::panic::resume_unwind;

/// A tenth of the processor beside somebody who wants all of it (`sched(7)`); not less, because who pushes waits now
/// and then for what is done so.
const NICENESS: i32 = 10;

/// Does work in a thread that leaves the processor to whoever answers requests, and waits for it.
pub fn behind_requests<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Where the system refuses, it is merely not behind. On Linux it is of this thread alone, and of those
            // that it starts.
            let _ = rustix::process::nice(NICENESS);
            work()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel says it: by the 19th field of `/proc/thread-self/stat`.
    fn niceness() -> i32 {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The name, in brackets, may hold blanks.
        let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
        fields.skip(16).map(|field| field.parse().unwrap()).next().unwrap()
    }

    #[test]
    fn what_is_done_behind_requests_is_and_whoever_waits_for_it_is_not() {
        let before = niceness();
        let (done, started_by_it) = behind_requests(|| {
            let started_by_it = std::thread::scope(|scope| scope.spawn(niceness).join().unwrap());
            (niceness(), started_by_it)
        });
        let expected = (before + NICENESS).min(19);
        assert_eq!((done, started_by_it, niceness()), (expected, expected, before));
    }
}
