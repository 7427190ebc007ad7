//! Programs that stand in for `zfs`, `zpool` and `ssh` in tests.

use std::path::PathBuf;

use super::Zfs;

/// A directory with fakes of the programs, and a handle that runs them.
pub(crate) struct Fake {
    directory: tempfile::TempDir,
    /// Runs the fakes.
    pub(crate) zfs: Zfs,
}

impl Fake {
    /// Both programs are the shell script `script`; `$0` says which one is run.
    pub(crate) fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (zfs, zpool) = (directory.path().join("zfs"), directory.path().join("zpool"));
        let fake = Self { directory, zfs: Zfs::with_programs(zfs, zpool) };
        fake.install("zfs", script);
        fake.install("zpool", script);
        fake
    }

    /// Both programs print `answer`, whatever they are asked.
    pub(crate) fn that_prints(answer: &str) -> Self {
        let fake = Self::new("exec cat \"${0%/*}/answer\"");
        fake.install("answer", answer);
        fake
    }

    /// A file beside the programs, which they know as `${0%/*}/name`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An `ssh` that runs the fakes on this machine as a real one would there: its words are put
    /// together for a shell. The `PATH` that the command brings along is left out.
    pub(crate) fn ssh(&self) -> PathBuf {
        self.install(
            "ssh",
            "while [ \"$1\" != -- ]; do shift; done; shift 4; \
             PATH=\"${0%/*}:$PATH\"; exec /bin/sh -c \"env $*\"",
        )
    }

    /// Writes a program by a shell, not by this process: a test beside this one may fork at any
    /// time, and as long as its child has the file open for writing, the file cannot be run.
    pub(crate) fn install(&self, name: &str, script: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let text = if name == "answer" { script.into() } else { format!("#!/bin/sh\n{script}\n") };
        let write = duct::cmd!("/bin/sh", "-c", "cat > \"$1\" && chmod 0755 \"$1\"", "sh", &path);
        write.stdin_bytes(text).run().unwrap();
        path
    }
}
