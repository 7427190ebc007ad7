//! That the machine is what the other tests take it for.

use serde_json::Value;

use crate::support::{Disk, Pool, run};

#[test]
fn a_pool_can_be_made_and_its_version_is_known() {
    let pool = Pool::on([Disk::take()]);
    assert_eq!(run("zpool", ["list", "-H", "-o", "health", pool.name()]), "ONLINE\n");
    assert!(pool.path().is_dir(), "{} is not mounted", pool.path().display());
    let version: Value = serde_json::from_str(&run("zfs", ["version", "-j"])).unwrap();
    let of = |part: &str, prefix: &str| {
        let found = version["zfs_version"][part].as_str();
        found
            .and_then(|name| name.strip_prefix(prefix))
            .unwrap_or_else(|| panic!("no {part} in {version}"))
    };
    // The programs and the kernel module are of one version.
    assert_eq!(of("userland", "zfs-2."), of("kernel", "zfs-kmod-2."));
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
