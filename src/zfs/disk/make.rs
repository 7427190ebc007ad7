//! Commands that make file systems, mount them, and take away what was there.

use std::path::Path;
use std::time::Duration;

use super::super::command::Command;
use super::command;

/// Making a file system writes a little of every block group: minutes on a large, slow disk.
const MAKING: Duration = Duration::from_secs(1800);
/// How large a block [`mark`] writes: the largest sector of any disk.
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

/// An ext4 file system, whose top directory belongs to `owner` (user, group).
pub fn ext4(device: &str, label: &str, owner: (u32, u32)) -> Command {
    let owner = format!("root_owner={}:{}", owner.0, owner.1);
    command("mkfs.ext4", ["-q", "-L", label, "-E", &owner, device]).within(MAKING)
}

/// A FAT32 file system, as an EFI system partition has.
pub fn fat32(device: &str, label: &str) -> Command {
    command("mkfs.vfat", ["-F", "32", "-n", label, device]).within(MAKING)
}

/// Erases what a device of `size` bytes is recognised by: every signature, and the first and the last
/// MiB, where the labels of pools are, which `zpool create` would still find.
pub fn erase(device: &str, size: u64) -> [Command; 3] {
    let at = |start: u64| {
        command("dd", ["if=/dev/zero", &format!("of={device}"), "bs=1M", "count=1"])
            .args([format!("seek={start}"), "oflag=seek_bytes".into()])
            .args(["conv=notrunc,fsync", "status=none"])
            .change()
    };
    let signatures = command("wipefs", ["--quiet", "--all", device]).change();
    [signatures, at(0), at(size.saturating_sub(MIB))]
}

/// Writes `text` at the byte `position` of a disk, as one block, past all caches: it is there, or it is not.
/// `position` is a multiple of 4096.
pub fn mark(disk: &str, position: u64, text: &str) -> Command {
    command("dd", [format!("of={disk}"), format!("bs={BLOCK}"), "count=1".into()])
        .args([format!("seek={}", position / BLOCK), "oflag=direct".into()])
        .args(["conv=sync,notrunc,fsync", "status=none"])
        .input(text)
        .change()
}

/// Takes away what [`mark`] wrote.
pub fn unmark(disk: &str, position: u64) -> Command {
    command("dd", ["if=/dev/zero".into(), format!("of={disk}"), format!("bs={BLOCK}")])
        .args(["count=1".into(), format!("seek={}", position / BLOCK)])
        .args(["oflag=direct", "conv=notrunc,fsync", "status=none"])
        .change()
}

/// Waits until udev has done what there is to do. Whenever a program that could write to a whole disk
/// closes it, udev has the kernel read the table again, and for a moment the disk has no partitions;
/// whoever opens one then finds nothing. For a disk that is not there yet it does not wait.
pub fn settle() -> Command {
    command("udevadm", ["settle", "--timeout=50"]).change()
}

/// A directory, with those above it.
pub fn directory(path: &Path) -> Command {
    command("mkdir", ["-p", "--"]).arg(path.to_string_lossy()).change()
}

/// Mounts an ext4 file system.
pub fn mount_ext4(device: &str, path: &Path, options: &[String]) -> Command {
    let mut words = vec!["-t".to_owned(), "ext4".to_owned()];
    if !options.is_empty() {
        words.extend(["-o".to_owned(), options.join(",")]);
    }
    words.extend([device.to_owned(), path.to_string_lossy().into_owned()]);
    command("mount", words).change()
}

/// Gives a directory, and nothing below it, to `owner` (user, group).
pub fn give(path: &Path, owner: (u32, u32)) -> Command {
    command("chown", [format!("{}:{}", owner.0, owner.1), "--".into()])
        .arg(path.to_string_lossy())
        .change()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_one_would_type() {
        let options = ["noatime".to_owned(), "nodev".into()];
        let shown = [
            ext4("/dev/a1", "yocto", (30, 100)),
            mark("/dev/a", (1 << 20) - 4096, "mine\n"),
            unmark("/dev/a", (1 << 20) - 4096),
            mount_ext4("/dev/a1", Path::new("/var/cache/my data"), &options),
            give(Path::new("/srv"), (1, 2)),
        ]
        .map(|command| command.script());
        assert_eq!(
            shown,
            [
                "mkfs.ext4 -q -L yocto -E root_owner=30:100 /dev/a1",
                "dd of=/dev/a bs=4096 count=1 seek=255 oflag=direct conv=sync,notrunc,fsync \
                 status=none <<'END'\nmine\nEND",
                "dd if=/dev/zero of=/dev/a bs=4096 count=1 seek=255 oflag=direct \
                 conv=notrunc,fsync status=none",
                "mount -t ext4 -o noatime,nodev /dev/a1 '/var/cache/my data'",
                "chown 1:2 -- /srv",
            ]
        );
        let [_, first, last] = erase("/dev/a", 10 << 20).map(|command| command.to_string());
        assert!(first.contains(" seek=0 ") && last.contains(" seek=9437184 "), "{first}\n{last}");
    }
}
