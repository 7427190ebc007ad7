//! Mounts and services of this machine: what moving a tree from below a running system takes.

use std::path::Path;

use super::super::command::Command;
use super::super::error::ZfsError;
use super::super::handle::Zfs;
use super::super::name::DatasetName;
use super::command;

/// Mounts a dataset whose mountpoint is `legacy`.
pub fn mount_dataset(dataset: &DatasetName, path: &Path) -> Command {
    command("mount", ["-t", "zfs", dataset.as_str()]).arg(path.to_string_lossy()).change()
}

/// Makes what is at `from` be seen at `to` as well: that file system alone, and not what is mounted in it.
pub fn bind(from: &Path, to: &Path) -> Command {
    command("mount", ["--bind"]).args([from.to_string_lossy(), to.to_string_lossy()]).change()
}

/// As [`bind`], with what is mounted in it, all at once.
pub fn bind_with_all_in_it(from: &Path, to: &Path) -> Command {
    command("mount", ["--rbind"]).args([from.to_string_lossy(), to.to_string_lossy()]).change()
}

/// Lets nothing be written through a mount; what is mounted elsewhere stays as it is.
pub fn make_read_only(path: &Path) -> Command {
    command("mount", ["-o", "remount,bind,ro"]).arg(path.to_string_lossy()).change()
}

/// Keeps a mount from being seen where it was not mounted: without it a bind of a shared tree is seen in every
/// copy of that tree.
pub fn make_private(path: &Path) -> Command {
    command("mount", ["--make-private"]).arg(path.to_string_lossy()).change()
}

/// Takes the last mount at a place away.
pub fn unmount(path: &Path) -> Command {
    command("umount", ["--"]).arg(path.to_string_lossy()).change()
}

/// Stops units, and waits until they are.
pub fn stop(units: &[&str]) -> Command {
    command("systemctl", ["stop"]).args(units.iter().copied()).change()
}

/// Starts units.
pub fn start(units: &[&str]) -> Command {
    command("systemctl", ["start"]).args(units.iter().copied()).change()
}

impl Zfs {
    /// Which of `units` this machine has. Without systemd it has none.
    pub fn units<'a>(&self, units: &[&'a str]) -> Result<Vec<&'a str>, ZfsError> {
        let mut found = Vec::new();
        for unit in units {
            let question = ["show", "--property=LoadState", *unit];
            let said = match self.read(&command("systemctl", question)) {
                // Not there, or there is no systemd that it could ask.
                Err(ZfsError::Missing { .. } | ZfsError::Failed { .. }) => return Ok(Vec::new()),
                said => said?,
            };
            if said.lines().any(|line| line == "LoadState=loaded") {
                found.push(*unit);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Fake;

    #[test]
    fn units_are_those_that_are_loaded() {
        let fake = Fake::new("exit 1");
        let script =
            "case $3 in a.socket) echo LoadState=loaded;; *) echo LoadState=not-found;; esac";
        let zfs = fake.zfs.with_program("systemctl", fake.install("systemctl", script));
        assert_eq!(zfs.units(&["a.socket", "b.service"]).unwrap(), ["a.socket"]);
        let refusing = fake.zfs.with_program("systemctl", fake.install("systemctl", "exit 1"));
        assert!(refusing.units(&["a.socket"]).is_ok_and(|units| units.is_empty()));
    }
}
