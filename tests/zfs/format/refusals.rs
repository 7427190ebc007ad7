//! Disks that hold something.

use std::fs;

use super::*;

/// What is on a disk, by the program that puts it there; and what it is called then.
const SIGNED: [(&str, &str); 5] = [
    ("mkfs.ext4 -q -L precious", "ext4 labelled \"precious\""),
    ("mkswap -q -L precious", "swap labelled \"precious\""),
    ("mkfs.vfat -n PRECIOUS", "vfat labelled \"PRECIOUS\""),
    ("sh -c 'printf x | dd of=$0 bs=1 seek=4096 conv=notrunc status=none'", "not zero"),
    ("sh -c 'echo label: dos | sfdisk --quiet $0'", "a partition table (dos)"),
];

#[test]
fn a_disk_with_anything_on_it_is_refused_untouched_until_it_may_be_wiped() {
    let disk = Disk::take();
    let device = disk.path().to_str().unwrap();
    let setup = Setup::new("signed", &whole("signed", &disk));
    for (program, called) in SIGNED {
        run("sh", ["-ec", &format!("{program} {device}")]);
        settle();
        let before = beginning(&disk);
        setup.format(&[]).refused(&[
            "disk cache (/dev/vd",
            called,
            "nothing was changed",
            "--wipe cache",
        ]);
        setup.format(&["--dry-run"]).refused(&[called]);
        assert_eq!(before, beginning(&disk), "{called}");
        run("wipefs", ["--quiet", "--all", device]);
        run("dd", ["if=/dev/zero", &format!("of={device}"), "bs=1M", "count=1", "status=none"]);
    }
    // The last one again, which is wiped now.
    run("mkfs.ext4", ["-q", "-L", "precious", device]);
    settle();
    setup
        .format(&["--wipe", "other"])
        .refused(&["--wipe other: the layout has no such disk, only cache"]);
    let ended = setup.format(&["--wipe", "cache"]).succeeded();
    assert!(ended.stdout.contains("--wipe cache: destroy everything on it"), "{}", ended.stdout);
    setup.is_done();
    // It has what it should have: there is nothing to wipe any more.
    fs::write(setup.mounts().join("default/kept"), "kept").unwrap();
    setup.format(&["--wipe", "cache"]).succeeded();
    assert!(setup.mounts().join("default/kept").exists());
}

#[test]
fn a_disk_in_use_is_not_wiped() {
    let disk = Disk::take();
    let device = disk.path().to_str().unwrap();
    let setup = Setup::new("used", &whole("used", &disk));
    let mounted = tempfile::tempdir().unwrap();
    let point = mounted.path().to_str().unwrap();
    run("mkfs.ext4", ["-q", device]);
    settle();
    run("mount", [device, point]);
    fs::write(mounted.path().join("file"), "precious").unwrap();
    setup.format(&["--wipe", "cache"]).refused(&["it is in use", "is mounted at", point]);
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "precious");
    run("umount", [point]);

    run("wipefs", ["--quiet", "--all", device]);
    run("zpool", ["create", "-o", "cachefile=none", "-m", "none", "other", device]);
    settle();
    setup.format(&["--wipe", "cache"]).refused(&["it is in use", "in the imported pool other"]);
    run("zpool", ["destroy", "other"]);
}

/// Defect 1: an empty dataset was mounted over the running `/nix/store`.
#[test]
fn nothing_is_mounted_over_files_and_nothing_is_made_before_that_is_known() {
    let disk = Disk::take();
    let setup = Setup::new("over", &both("over", &disk));
    let before = beginning(&disk);
    for name in ["default", "yocto"] {
        let directory = setup.mounts().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), "precious").unwrap();
        setup.format(&[]).refused(&[directory.to_str().unwrap(), "is not an empty directory"]);
        assert_eq!(before, beginning(&disk));
        fs::remove_file(directory.join("file")).unwrap();
    }
    setup.format(&[]).succeeded();
}

#[test]
fn a_name_that_the_kernel_gives_is_refused() {
    let disk = Disk::take();
    let setup = Setup::new("named", &whole("named", &disk));
    let node = fs::canonicalize(disk.path()).unwrap();
    let text = fs::read_to_string(setup.layout()).unwrap();
    setup.write(&text.replace(disk.path().to_str().unwrap(), node.to_str().unwrap()));
    setup.format(&[]).refused(&["that the kernel gives anew at every boot", "/dev/disk/by-id"]);
}

/// Defect 3: `mkfs.ext4` was not in the unit's path, and it failed in the midst of it at every boot.
#[test]
fn nothing_is_begun_for_which_a_program_is_missing() {
    let disk = Disk::take();
    let setup = Setup::new("without", &both("without", &disk));
    let before = beginning(&disk);
    let program = Path::new("/usr/sbin/mkfs.ext4");
    let hidden = Path::new("/usr/sbin/mkfs.ext4.hidden");
    fs::rename(program, hidden).unwrap();
    let ended = setup.format(&[]);
    fs::rename(hidden, program).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("`mkfs.ext4` is not installed here"), "{}", ended.stderr);
    assert_eq!(before, beginning(&disk));
    // A unit has hardly any path at all.
    Ended::of(setup.command(&[]).env("PATH", "/nonexistent")).succeeded();
}

#[test]
fn only_root_is_let_near_a_disk() {
    let disk = Disk::take();
    let setup = Setup::new("nobody", &whole("nobody", &disk));
    run("chmod", ["-R", "a+rX", setup.directory.path().to_str().unwrap()]);
    let mut command = setup.command(&["--dry-run"]);
    command.uid(USER).gid(USER);
    Ended::of(&mut command).refused(&["takes root"]);
}
