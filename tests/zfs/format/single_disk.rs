//! One disk with everything, and a system that runs from it.

use std::fs;

use super::*;

fn layout(pool: &str, device: &str) -> String {
    format!(
        "[disk.system]\ndevice = {device:?}\nwait = '0s'\npartitions = [\n\
         {{ name = 'esp', size = '128M', type = 'esp', label = 'ESP' }},\n\
         {{ name = 'root', size = '300M', type = 'ext4', label = 'nixos' }},\n\
         {{ name = 'pool', size = 'rest', type = 'zfs' }} ]\n\
         [pool]\nname = '{pool}'\npartitions = ['pool']\n[dataset]\n"
    )
}

#[test]
fn a_blank_disk_gets_boot_partition_root_and_pool() {
    let disk = Disk::take();
    let setup = Setup::new("single", &layout("single", disk.path().to_str().unwrap()));
    setup.format(&[]).succeeded();
    setup.is_done();
    let columns = ["--noheadings", "--raw", "--output", "FSTYPE,LABEL,PARTLABEL,PARTTYPE"];
    let said = run("lsblk", columns.into_iter().chain([disk.path().to_str().unwrap()]));
    let lines: Vec<_> = said.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "vfat ESP snowbank-esp c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "ext4 nixos snowbank-root 0fc63daf-8483-4772-8e79-3d69d8477de4",
            "zfs_member single snowbank-pool 6a898cc3-1dd2-11b2-99a6-080020736631",
        ]
    );
}

/// A disk that can grow: a file.
struct Growing {
    file: tempfile::NamedTempFile,
    node: String,
    link: PathBuf,
}

impl Growing {
    fn new(name: &str, size: u64) -> Self {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(size).unwrap();
        let path = file.path().to_str().unwrap();
        // The device that makes the others is there only with its module, where no systemd has made it.
        run("modprobe", ["loop"]);
        let node = run("losetup", ["--find", "--show", "--partscan", path]).trim().to_owned();
        let link = Path::new("/dev/disk").join(name);
        std::os::unix::fs::symlink(&node, &link).unwrap();
        Self { file, node, link }
    }

    fn grow(&self, size: u64) {
        self.file.as_file().set_len(size).unwrap();
        run("losetup", ["--set-capacity", &self.node]);
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.link);
        let _ = command("losetup").args(["--detach", &self.node]).status();
    }
}

#[test]
fn on_a_running_system_only_what_is_missing_is_made_in_free_space_also_of_a_disk_that_has_grown() {
    let disk = Growing::new("growing", 560 << 20);
    let device = disk.link.to_str().unwrap();
    // The system as its image was made: full, the names are those of the tool that made it.
    let script = "label: gpt\n\
                  size=128MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=\"disk-main-ESP\"\n\
                  size=400MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=\"disk-main-root\"\n";
    run("sh", ["-ec", &format!("printf '%s' '{script}' | sfdisk --quiet {device}")]);
    settle();
    run("mkfs.vfat", ["-n", "ESP", &format!("{}p1", disk.node)]);
    run("mkfs.ext4", ["-q", "-L", "nixos", &format!("{}p2", disk.node)]);
    let mounted = tempfile::tempdir().unwrap();
    let point = mounted.path().to_str().unwrap();
    run("mount", [&format!("{}p2", disk.node), point]);
    fs::write(mounted.path().join("file"), "the running system").unwrap();

    let setup = Setup::new("grown", &layout("grown", device));
    setup.format(&[]).refused(&["partitions that the layout does not name", "disk-main-root"]);
    let text = fs::read_to_string(setup.layout()).unwrap();
    let named = text
        .replace("size = '128M'", "partlabel = 'disk-main-ESP', keep = true")
        .replace("size = '300M'", "partlabel = 'disk-main-root', keep = true");
    setup.write(&named);
    setup.format(&[]).refused(&["no room for the partition pool", "64 MiB"]);
    disk.grow(1200 << 20);
    let ended = setup.format(&[]).succeeded();
    assert!(
        ended.stdout.contains("add what is missing in its free space: pool"),
        "{}",
        ended.stdout
    );
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "the running system");
    let size: u64 = run("zpool", ["list", "-Hp", "-o", "size", "grown"]).trim().parse().unwrap();
    assert!(size > 500 << 20, "{size}");
    setup.is_done();
    let verified = run("sfdisk", ["--verify", device]);
    assert!(verified.contains("No errors detected."), "{verified}");
    run("umount", [point]);
    setup.undo();
}
