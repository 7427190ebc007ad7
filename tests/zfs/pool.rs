//! That the machine is what the other tests take it for.

use crate::support::{Disk, Pool, run};

#[test]
fn a_pool_can_be_made_and_its_version_is_known() {
    let pool = Pool::on([Disk::take()]);
    assert_eq!(run("zpool", ["list", "-H", "-o", "health", pool.name()]), "ONLINE\n");
    assert!(pool.path().is_dir(), "{} is not mounted", pool.path().display());
    let version = run("zfs", ["version"]);
    let of = |component: &str| {
        let found = version.lines().find_map(|line| line.strip_prefix(component));
        found.unwrap_or_else(|| panic!("no {component} in {version}")).to_owned()
    };
    // The programs and the kernel module are of one version, and of one that writes JSON.
    assert_eq!(of("zfs-2."), of("zfs-kmod-2."));
    assert!(run("zfs", ["version", "-j"]).contains(r#""kernel": "zfs-kmod-2."#));
}

#[test]
fn a_pool_is_gone_with_its_value_and_leaves_a_blank_disk() {
    let disk = Disk::take();
    let device = disk.path().to_owned();
    drop(Pool::on([disk]));
    assert_eq!(run("zpool", ["list", "-H"]), "");
    assert_eq!(
        run("lsblk", ["--noheadings", "--output", "FSTYPE,PTTYPE", device.to_str().unwrap()])
            .trim(),
        ""
    );
}
