//! `snowbank format` on real disks.

mod dedicated;
mod kills;
mod pools;
mod refusals;
mod single_disk;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
};

use serde_json::Value;

use crate::support::{Disk, command, run};

/// The user of the machine that datasets and volumes are given to.
const USER: u32 = 1000;

/// A layout, and what becomes of it: undone when the value is dropped.
struct Setup {
    directory: tempfile::TempDir,
    pool: &'static str,
}

/// How a run of `snowbank format` ended.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Setup {
    /// `text` with `MOUNTS` standing for a directory of the setup's own.
    fn new(pool: &'static str, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let setup = Self { directory, pool };
        setup.write(text);
        setup
    }

    fn write(&self, text: &str) {
        let text = text.replace("MOUNTS", self.mounts().to_str().unwrap());
        fs::write(self.layout(), text).unwrap();
    }

    fn layout(&self) -> PathBuf {
        self.directory.path().join("layout.toml")
    }

    /// Where everything of the layout is mounted below.
    fn mounts(&self) -> PathBuf {
        self.directory.path().join("mounts")
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(std::env::var("SNOWBANK_BIN").unwrap());
        command.args(["format", "--layout"]).arg(self.layout()).args(arguments);
        command
    }

    fn format(&self, arguments: &[&str]) -> Ended {
        Ended::of(&mut self.command(arguments))
    }

    /// Runs it until it comes to the command of this number, counted from 1, where it is killed.
    fn killed_at(&self, number: usize) -> Ended {
        let fault = format!("format.command=kill:{number}");
        Ended::of(self.command(&[]).env("SNOWBANK_FAULT", fault))
    }

    /// Starts it as the leader of a process group of its own.
    fn started(&self) -> Child {
        let mut command = self.command(&[]);
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// The steps that it says it would do.
    fn steps(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments = [&["--dry-run", "--json"], arguments].concat();
        let said: Value =
            serde_json::from_str(&self.format(&arguments).succeeded().stdout).unwrap();
        said["steps"].as_array().unwrap().clone()
    }

    /// Everything that it is to bring about, in words that are the same for the same thing.
    fn state(&self, disk: &Disk) -> String {
        let device = disk.path().to_str().unwrap();
        let columns = "SIZE,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS";
        let mut state = run("lsblk", ["--noheadings", "--output", columns, device]);
        state += &run("zpool", ["list", "-Hp", "-o", "name,ashift,autotrim,health", self.pool]);
        let columns = "name,recordsize,quota,compression,atime,mountpoint,mounted,snowbank:new";
        state += &run("zfs", ["list", "-Hp", "-r", "-o", columns, self.pool]);
        for entry in walk(&self.mounts()) {
            let metadata = fs::metadata(&entry).unwrap();
            let (user, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
            state += &format!("{} {user}:{group} {mode:o}\n", entry.display());
        }
        state
    }

    /// That a run finds nothing to do, and does nothing.
    fn is_done(&self) {
        let before = self.history();
        let ended = self.format(&[]).succeeded();
        assert!(ended.stdout.contains("already"), "{}", ended.stdout);
        assert_eq!(before, self.history(), "it ran something");
    }

    /// What was ever done to the pool by a command.
    fn history(&self) -> String {
        run("zpool", ["history", self.pool])
    }

    /// Makes it all undone, so that the disks can be given back, or used again.
    fn undo(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let ours = self.directory.path().to_str().unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| point.starts_with(ours)).collect::<Vec<_>>().iter().rev()
        {
            let _ = command("umount").arg(point).status();
        }
        if quietly("zpool", ["list", self.pool]) {
            run("zpool", ["destroy", "-f", self.pool]);
        }
        let _ = fs::remove_dir_all(self.mounts());
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.undo();
    }
}

impl Ended {
    fn of(command: &mut std::process::Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Refused, and said why: `parts` are in it.
    #[track_caller]
    fn refused(self, parts: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(2), "{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
        assert_eq!(self.stdout, "", "it did something");
        self
    }
}

/// Whether the program succeeds, whatever it says.
fn quietly<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> bool {
    let mut command = command(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A directory and those below it, sorted.
fn walk(top: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(top) else { return Vec::new() };
    let mut found = vec![top.to_owned()];
    let inner = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    inner.for_each(|path| found.extend(walk(&path)));
    found.sort();
    found
}

/// Has udev look at everything, and waits for it.
fn settle() {
    run("udevadm", ["settle", "--timeout=30"]);
}

/// The first MiB of a disk, to see whether it changed.
fn beginning(disk: &Disk) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = vec![0; 1 << 20];
    fs::File::open(disk.path()).unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// A disk with a volume and the pool on it.
fn both(pool: &str, disk: &Disk) -> String {
    format!(
        "[disk.cache]\ndevice = {:?}\nwait = '0s'\npartitions = [\n\
         {{ name = 'yocto', size = '256M', type = 'ext4' }},\n\
         {{ name = 'pool', size = 'rest', type = 'zfs' }} ]\n\
         [pool]\nname = '{pool}'\npartitions = ['pool']\n\
         [dataset.default]\nrole = 'cache'\nmountpoint = 'MOUNTS/default'\nowner = 'snowbank'\n\
         quota = '200M'\n\
         [volume.yocto]\npartition = 'yocto'\nmountpoint = 'MOUNTS/yocto'\nowner = 'snowbank'\n",
        disk.path()
    )
}

/// A whole disk for the pool, with one dataset.
fn whole(pool: &str, disk: &Disk) -> String {
    format!(
        "[disk.cache]\ndevice = {:?}\nwait = '0s'\n[pool]\nname = '{pool}'\npartitions = ['cache']\n\
         [dataset.default]\nrole = 'cache'\nmountpoint = 'MOUNTS/default'\n",
        disk.path()
    )
}
