//! What the tests stand on: commands that must succeed, disks, and pools that are gone when a test is over.

use std::{
    ffi::OsStr,
    fmt::Debug,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) use crate::e2e::wait_until;

/// Long enough for anything that works, under emulation too; short enough that a hang is a failure of its own test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Wait until what is `seen` is as it is wanted, and fail with `what` and the last of it when it is not.
pub(crate) fn wait_to_see<T: Debug>(
    what: &str,
    mut seen: impl FnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) {
    let start = Instant::now();
    loop {
        let now = seen();
        if wanted(&now) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}; it is {now:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The one place that starts a process.
#[expect(
    clippy::disallowed_methods,
    reason = "the ban keeps processes out of the server; these are its tests"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// What the program prints. Fails with all that it said if it does not succeed.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let mut command = command(program);
    command.args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// A disk of the machine that is this test's alone. Blank when it is taken and when it is given back.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

/// Those that nobody has; `None` before the first test asks.
static FREE_DISKS: Mutex<Option<Vec<PathBuf>>> = Mutex::new(None);

fn with_free_disks<T>(change: impl FnOnce(&mut Vec<PathBuf>) -> T) -> T {
    let mut free = FREE_DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    change(free.get_or_insert_with(all_disks))
}

fn all_disks() -> Vec<PathBuf> {
    let names = std::env::var("SNOWBANK_VM_DISKS").unwrap_or_default();
    let disks: Vec<_> = names.split_whitespace().rev().map(PathBuf::from).collect();
    assert!(
        !disks.is_empty(),
        "SNOWBANK_VM_DISKS names no disk: these tests are run by tests/zfs/run"
    );
    disks
}

/// No test takes a third of it, on a busy machine under emulation either.
const LONGEST: Duration = Duration::from_secs(600);

/// Called when a test begins. When none has for too long, says what hangs, and ends them all: what waits in the kernel for
/// a pool is ended by nothing else, and the machine would be waited for until its own time is over.
fn watch() {
    static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);
    let begin = || BEGUN.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now());
    if begin().is_some() {
        return;
    }
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_secs(1));
            let begun = *BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
            if begun.is_some_and(|begun| begun.elapsed() > LONGEST) {
                let said = format!("\nno test has begun for {LONGEST:?}; what waits:\n{}", stuck());
                // Not by a macro, whose words are kept for the test that began this thread.
                let _ = std::io::stderr().write_all(said.as_bytes());
                std::process::exit(1);
            }
        }
    });
}

/// Every process that no signal ends, with where in the kernel it is.
fn stuck() -> String {
    let mut found = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        // `PID (NAME) STATE …`; a name may have blanks.
        if read("stat").rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')) {
            found += &format!("{}\n{}\n", read("cmdline").replace('\0', " "), read("stack"));
        }
    }
    found
}

impl Disk {
    pub(crate) fn take() -> Self {
        watch();
        let disk = with_free_disks(Vec::pop);
        Self(disk.unwrap_or_else(|| panic!("the machine has no disk left")))
    }

    /// Its name below `/dev/disk/by-id`.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes it out of the machine, as if somebody had pulled it.
    pub(crate) fn pull(&self) {
        let device = fs::canonicalize(&self.0).unwrap();
        let name = device.file_name().unwrap().to_str().unwrap();
        // Of the slot that it is in: behind the driver's device is that of the bus.
        fs::write(format!("/sys/block/{name}/device/../remove"), "1").unwrap();
        assert!(!self.0.exists(), "the disk is there still");
    }

    /// Puts what was pulled back, and waits until it can be used as before.
    pub(crate) fn put_back(&self) {
        fs::write("/sys/bus/pci/rescan", "1").unwrap();
        wait_until("the disk is back", PATIENCE, || self.0.exists());
        // The names of its partitions come later than its own.
        run("udevadm", ["settle", "--timeout=60"]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not only the signatures: an old label would be back as soon as somebody makes the same partition again.
        let discard = command("blkdiscard").arg("--force").arg(&self.0).output();
        let settle = command("udevadm").args(["settle", "--timeout=30"]).output();
        if [discard, settle].into_iter().all(|done| done.is_ok_and(|done| done.status.success())) {
            with_free_disks(|free| free.push(self.0.clone()));
        } else {
            // Nobody gets it again; the test that runs short of disks says so.
            eprintln!("{} cannot be made blank", self.0.display());
        }
    }
}

/// A pool with a name of its own, mounted, destroyed when the value is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Pool {
    name: String,
    // Made blank once the pool is gone.
    disks: Vec<Disk>,
}

impl Pool {
    /// A pool whose data is spread over the disks.
    pub(crate) fn on(disks: impl IntoIterator<Item = Disk>) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let disks: Vec<_> = disks.into_iter().collect();
        let name = format!("test{}", MADE.fetch_add(1, Ordering::Relaxed));
        create(&name, disks.iter().map(Disk::path));
        Self { name, disks }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it was made of.
    pub(crate) fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// Where its root dataset is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        mountpoint(&self.name)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let destroyed = || {
            let status = command("zpool").args(["destroy", "-f", &self.name]).status();
            status.is_ok_and(|status| status.success())
        };
        // Busy is what it is while the last process that has a file of it open is on its way out.
        if thread::panicking() {
            let deadline = Instant::now() + PATIENCE;
            while !destroyed() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(500));
            }
        } else {
            wait_until("the pool can be destroyed", PATIENCE, destroyed);
        }
    }
}

/// Make a pool of these disks (or other words that say what it is made of), mounted at [`mountpoint`].
pub(crate) fn create<A: AsRef<OsStr>>(name: &str, layout: impl IntoIterator<Item = A>) {
    let mut create = vec!["create".into(), "-o".into(), "cachefile=none".into(), "-m".into()];
    create.push(mountpoint(name).into_os_string());
    create.push(name.into());
    create.extend(layout.into_iter().map(|word| word.as_ref().to_owned()));
    run("zpool", create);
}

/// Where the root dataset of a pool of the tests is mounted.
pub(crate) fn mountpoint(name: &str) -> PathBuf {
    Path::new("/mnt").join(name)
}
