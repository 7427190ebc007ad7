//! What is delegated to a service that manages datasets without being root.

/// A right that the service needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// As `zfs allow` calls it.
    pub name: &'static str,
    /// What it is needed for.
    pub reason: &'static str,
}

const fn right(name: &'static str, reason: &'static str) -> Right {
    Right { name, reason }
}

/// What the service user may do with the parent and all below it. On Linux nobody but root mounts and
/// unmounts, whatever is delegated (zfs-allow(8)); all else that the service does is here.
pub const SERVICE: [Right; 14] = [
    right("snapshot", "scheduled snapshots, releases and replication make them"),
    right("hold", "a release holds its snapshot"),
    right("release", "a release that is removed lets go of it"),
    right("destroy", "snapshots that no rule keeps go; what is mounted cannot be destroyed by it"),
    right("mount", "ZFS asks for it where something is destroyed or received; it mounts nothing"),
    right("bookmark", "replication remembers where it was when the snapshot is gone"),
    right("send", "replication reads from here"),
    right("receive", "replication from elsewhere writes here"),
    right("create", "what is received becomes a dataset"),
    right("rollback", "`snowbank zfs replicate --rollback` undoes what was written to a copy"),
    right("quota", "the quota follows the configuration"),
    right("refquota", "a limit that leaves snapshots out can be set instead"),
    right("readonly", "a copy that was received is only read"),
    right("userprop", "who made a snapshot is noted at it"),
];

/// Their names.
pub fn names() -> [&'static str; SERVICE.len()] {
    SERVICE.map(|right| right.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_stands_once_and_has_a_reason() {
        let mut names = names();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        assert!(SERVICE.iter().all(|right| right.reason.len() > 10));
    }
}
