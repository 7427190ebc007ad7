//! A blank second disk.

use std::{fs, os::unix::fs::MetadataExt as _, thread, time::Duration};

use super::*;
use crate::support::{PATIENCE, wait_until};

#[test]
fn a_blank_disk_becomes_what_the_layout_says_and_a_second_run_does_nothing() {
    let disk = Disk::take();
    let setup = Setup::new("blank", &both("blank", &disk));
    let ended = setup.format(&[]).succeeded();
    assert!(ended.stdout.contains("pool blank: make it on pool\n"), "{}", ended.stdout);
    let mounts = setup.mounts();
    for name in ["default", "yocto"] {
        assert_eq!(fs::metadata(mounts.join(name)).unwrap().uid(), USER, "{name}");
    }
    let state = setup.state(&disk);
    for part in [
        "snowbank-yocto",
        "snowbank-pool",
        "blank\t12\ton\tONLINE",
        // Not new any more.
        "blank/default\t1048576\t209715200\tzstd\toff",
        "yes\t-\n",
    ] {
        assert!(state.contains(part), "no {part:?} in {state}");
    }
    setup.is_done();
    assert_eq!(setup.state(&disk), state);
    // Nothing is written down anywhere but on the disk.
    assert!(!Path::new("/etc/zfs/zpool.cache").exists());
    assert_eq!(run("zpool", ["get", "-Hp", "-o", "value", "cachefile", "blank"]), "none\n");
}

#[test]
fn what_a_dry_run_prints_does_the_same_in_a_shell() {
    let disk = Disk::take();
    let setup = Setup::new("printed", &both("printed", &disk));
    let before = beginning(&disk);
    let script = setup.format(&["--dry-run"]).succeeded().stdout;
    assert_eq!(before, beginning(&disk), "a dry run wrote to the disk");
    run("sh", ["-ec", &script]);
    settle();
    setup.is_done();
    assert_eq!(setup.format(&["--dry-run"]).succeeded().stdout, "# nothing to do\n");
}

#[test]
fn after_a_reboot_everything_is_imported_and_mounted_again() {
    let disk = Disk::take();
    let setup = Setup::new("reboot", &both("reboot", &disk));
    setup.format(&[]).succeeded();
    let mounts = setup.mounts();
    for name in ["default", "yocto"] {
        fs::write(mounts.join(name).join("file"), name).unwrap();
    }
    let state = setup.state(&disk);
    run("umount", [mounts.join("yocto")]);
    run("zpool", ["export", "reboot"]);
    let ended = setup.format(&["--json"]).succeeded();
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    let kinds: Vec<_> =
        said["steps"].as_array().unwrap().iter().map(|step| &step["kind"]).collect();
    assert_eq!(kinds, ["import-pool", "mount-dataset", "mount-volume"]);
    for name in ["default", "yocto"] {
        assert_eq!(fs::read_to_string(mounts.join(name).join("file")).unwrap(), name);
    }
    assert_eq!(setup.state(&disk), state);
}

/// Defect 8: the disk is attached after the machine has started.
#[test]
fn a_disk_that_comes_late_is_waited_for() {
    let disk = Disk::take();
    let setup = Setup::new("late", &whole("late", &disk).replace("'0s'", "'50s'"));
    let node = fs::canonicalize(disk.path()).unwrap();
    let name = node.file_name().unwrap().to_str().unwrap();
    // /sys/block/vdb is a link into the PCI device that the disk is.
    let device = fs::canonicalize(format!("/sys/block/{name}/device/..")).unwrap();
    fs::write(device.join("remove"), "1").unwrap();
    wait_until("the disk is gone", PATIENCE, || !disk.path().exists());
    let missing = setup.write_with_wait("0s").format(&[]);
    assert_eq!(missing.status.code(), Some(1), "{}", missing.stderr);
    assert!(missing.stderr.contains("disk cache: not there after 0ns"), "{}", missing.stderr);

    let waiting = setup.write_with_wait("50s").started();
    // Long enough to have looked several times; whether it has, only makes the test weaker.
    thread::sleep(Duration::from_secs(3));
    fs::write("/sys/bus/pci/rescan", "1").unwrap();
    let status = waiting.wait_with_output().unwrap().status;
    assert!(status.success(), "{status}");
    setup.is_done();
}

impl Setup {
    fn write_with_wait(&self, wait: &str) -> &Self {
        let text = fs::read_to_string(self.layout()).unwrap();
        let lines = text.lines().map(|line| match line.starts_with("wait = ") {
            true => format!("wait = '{wait}'\n"),
            false => format!("{line}\n"),
        });
        fs::write(self.layout(), lines.collect::<String>()).unwrap();
        self
    }
}
