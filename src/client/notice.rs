//! Waits for something to come into a directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// A watch on a directory, that can be woken.
#[derive(Debug)]
pub struct Notice {
    inotify: OwnedFd,
    wake: OwnedFd,
}

impl Notice {
    /// Watches `directory` from now on; what comes while nobody waits is noticed by the next wait.
    pub fn watch(directory: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // Entries are renamed to their names.
        inotify::add_watch(&inotify, directory, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        Ok(Self { inotify, wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)? })
    }

    /// Ends a wait, now or the next one.
    pub fn wake(&self) {
        // It can only fail when it would count past 2^64.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Waits until something has come, somebody wakes us, or `limit` has passed.
    pub fn wait(&self, limit: Duration) {
        let limit = Timespec::try_from(limit).ok();
        let mut descriptors =
            [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        // A signal ends the wait early, which is no harm: the caller looks again.
        let _ = poll(&mut descriptors, limit.as_ref());
        let mut buffer = [0; 4096];
        for descriptor in [&self.inotify, &self.wake] {
            while matches!(rustix::io::read(descriptor, &mut buffer), Ok(1..) | Err(Errno::INTR)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_comes_before_or_during_a_wait_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let notice = Notice::watch(directory.path()).unwrap();
        let put = |name: &str| {
            let (new, named) = (directory.path().join(".new"), directory.path().join(name));
            std::fs::write(&new, "x").unwrap();
            std::fs::rename(new, named).unwrap();
        };
        let begin = Instant::now();
        put("a");
        notice.wait(LONG);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| notice.wait(LONG));
            put("b");
            waiting.join().unwrap();
            let waiting = scope.spawn(|| notice.wait(LONG));
            notice.wake();
            waiting.join().unwrap();
        });
        assert!(begin.elapsed() < LONG);
        // Nothing is left over.
        let begin = Instant::now();
        notice.wait(Duration::from_millis(50));
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_watched() {
        assert!(Notice::watch(Path::new("/nonexistent/spool")).is_err());
    }
}
