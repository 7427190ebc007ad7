//! Roots that keep the collector of the local store away from what is being pushed.
//!
//! For the time of a push, [`TempRoots`]: told to the nix-daemon where there is one, which keeps them
//! as long as the connection; else written to `<state>/temproots/<pid>` under its lock, as a Nix
//! without a daemon does (`gc.cc`). Without either nothing is lost: a path that vanishes while it is
//! sent is an error that names it, and no half of it becomes visible.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::daemon::Daemon;
use crate::nix::store_path::StorePath;
use crate::source::local::StoreLayout;

/// How often a collector that is starting or ending is asked again.
const COLLECTOR_TRIES: u32 = 50;
const COLLECTOR_PAUSE: Duration = Duration::from_millis(100);

/// Roots that are gone when this is dropped, or the process dies.
#[derive(Debug)]
pub enum TempRoots {
    /// The daemon has them.
    Daemon(Daemon),
    /// They are in a file of ours.
    File(RootsFile),
}

/// Our file in `temproots/`, locked: the collector takes a file that it can lock for one of a dead
/// process.
#[derive(Debug)]
pub struct RootsFile {
    file: File,
    path: PathBuf,
}

impl TempRoots {
    /// Keeps `roots`, and what they refer to, in the store at `layout`. `socket` is the daemon's.
    pub fn hold(layout: &StoreLayout, socket: &Path, roots: &[StorePath]) -> io::Result<Self> {
        let full = roots.iter().map(|root| layout.store_dir.join(root));
        match UnixStream::connect(socket) {
            Ok(stream) => {
                let mut daemon = Daemon::greet(stream)?;
                for root in full {
                    daemon.add_temp_root(&root)?;
                }
                Ok(Self::Daemon(daemon))
            }
            Err(_) => {
                let mut file = RootsFile::create(&layout.state_dir)?;
                for root in full {
                    file.add(&layout.state_dir, &root)?;
                }
                Ok(Self::File(file))
            }
        }
    }
}

/// Where the daemon of a store listens.
pub fn daemon_socket(layout: &StoreLayout, named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| layout.state_dir.join("daemon-socket/socket"))
}

impl RootsFile {
    fn create(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("temproots").join(std::process::id().to_string());
        loop {
            // One that is there is of a process with our number that is dead.
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            // A collector that came between has written into it that it removed it.
            if file.metadata()?.size() == 0 {
                return Ok(Self { file, path });
            }
        }
    }

    fn add(&mut self, state_dir: &Path, root: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let gc_lock = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let gc_lock = gc_lock.open(state_dir.join("gc.lock"))?;
        for _ in 0..COLLECTOR_TRIES {
            // Shared with everybody who adds roots; only a collector has it alone.
            let shared = rustix::fs::flock(&gc_lock, FlockOperation::NonBlockingLockShared);
            if shared.is_ok() || tell_collector(state_dir, root).is_ok() {
                self.file.write_all(root.as_bytes())?;
                return self.file.write_all(&[0]);
            }
            std::thread::sleep(COLLECTOR_PAUSE);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a running garbage collection takes no roots"))
    }
}

impl Drop for RootsFile {
    fn drop(&mut self) {
        // What is left behind is taken for what it is by the next collection.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tells a collection that is running of a root, and waits until it has taken note.
fn tell_collector(state_dir: &Path, root: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(state_dir.join("gc-socket/socket"))?;
    stream.write_all(format!("{root}\n").as_bytes())?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer == *b"1" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::testing::{Store, path_of};
    use super::*;

    #[test]
    fn without_a_daemon_the_roots_are_in_a_locked_file_until_they_are_dropped() {
        let store = Store::new();
        let layout = store.layout();
        let socket = daemon_socket(&layout, None);
        let [a, b] = ["a", "b"].map(path_of);
        let file = store.at("var/temproots").join(std::process::id().to_string());
        // A dead process of our number left one behind.
        std::fs::write(&file, "old").unwrap();
        let roots = TempRoots::hold(&layout, &socket, &[a.clone(), b.clone()]).unwrap();
        let expected = format!("/nix/store/{a}\0/nix/store/{b}\0");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
        let other = File::open(&file).unwrap();
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(roots);
        assert!(!file.exists());
    }

    #[test]
    fn a_collection_that_is_running_is_told() {
        let store = Store::new();
        let lock = File::create(store.at("var/gc.lock")).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        std::fs::create_dir(store.at("var/gc-socket")).unwrap();
        let listener = UnixListener::bind(store.at("var/gc-socket/socket")).unwrap();
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = vec![0; 200];
            let length = stream.read(&mut line).unwrap();
            stream.write_all(b"1").unwrap();
            String::from_utf8(line[..length].to_vec()).unwrap()
        });
        let path = path_of("a");
        let layout = store.layout();
        let socket = daemon_socket(&layout, None);
        let _roots = TempRoots::hold(&layout, &socket, std::slice::from_ref(&path)).unwrap();
        assert_eq!(collector.join().unwrap(), format!("/nix/store/{path}\n"));
    }

    #[test]
    fn a_store_whose_state_cannot_be_written_is_an_error() {
        let store = Store::new();
        std::fs::remove_dir(store.at("var/temproots")).unwrap();
        let layout = store.layout();
        assert!(TempRoots::hold(&layout, &daemon_socket(&layout, None), &[path_of("a")]).is_err());
    }
}
