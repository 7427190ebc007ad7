//! A server on a pool of its own, and what is done to the two.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    e2e::{
        made::Made,
        server::{Server, Setup},
        trees::Numbers,
    },
    support::{Disk, PATIENCE, Pool, run, wait_until},
};

pub(crate) const MIB: usize = 1 << 20;

/// A pool with a dataset for each cache, mounted where the server has its data.
pub(crate) struct Bed {
    pub(crate) pool: Pool,
    own: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new(disk: Disk, caches: &[(&str, &[&str])]) -> Self {
        let own = tempfile::tempdir().unwrap();
        let bed = Self { pool: Pool::on([disk]), own };
        run("zfs", ["create", "-o", "canmount=off", "-o", "mountpoint=none", &bed.parent()]);
        // Not where the server has its state: a pool whose files are open cannot be exported.
        run("zfs", ["create", "-o", "canmount=off", &bed.dataset("state")]);
        for (cache, options) in caches {
            let mountpoint = format!("mountpoint={}", bed.bank(cache).display());
            let mut words = vec!["create", "-o", "recordsize=1M", "-o", &mountpoint];
            words.extend(*options);
            let dataset = bed.dataset(cache);
            words.push(&dataset);
            run("zfs", words);
        }
        bed
    }

    pub(crate) fn parent(&self) -> String {
        format!("{}/snowbank", self.pool.name())
    }

    pub(crate) fn dataset(&self, cache: &str) -> String {
        format!("{}/{cache}", self.parent())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    pub(crate) fn bank(&self, cache: &str) -> PathBuf {
        self.data().join(cache)
    }

    pub(crate) fn config(&self, caches: &str) -> PathBuf {
        let file = self.own.path().join("config.toml");
        let parent = self.parent();
        let text = format!("zfs.dataset = \"{parent}\"\nzfs.interval = \"1s\"\n{caches}");
        fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn setup(&self, caches: &str) -> Setup {
        let setup = Setup::on(&self.data()).argument("--store").argument("none");
        setup.argument("--config").argument(self.config(caches))
    }

    pub(crate) fn start(&self, caches: &str) -> Server {
        self.setup(caches).start()
    }
}

/// What a server with a single cache that anybody may push to is told.
pub(crate) const OPEN: &str = "[cache.default]\npush = \"open\"\n";

pub(crate) fn random(seed: u64, size: usize) -> Made {
    Made::new(&format!("random-{seed}"), &Numbers::from(seed).bytes(size), &[])
}

pub(crate) fn health(server: &Server) -> (u16, Value) {
    let answer = server.get("/health");
    (answer.status, answer.json())
}

pub(crate) fn troubles(health: &Value) -> String {
    health["troubles"].to_string()
}

/// How long it takes until `/health` is 503.
#[track_caller]
pub(crate) fn until_unhealthy(server: &Server, what: &str) -> Duration {
    let began = Instant::now();
    wait_until(what, PATIENCE, || health(server).0 == 503);
    began.elapsed()
}

/// A fault of a device, for as long as this lives.
pub(crate) struct Injected;

impl Injected {
    pub(crate) fn new(words: &[&str]) -> Self {
        run("zinject", words);
        Self
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        run("zinject", ["-c", "all"]);
    }
}

/// The first device of a pool, as `zpool` names it.
pub(crate) fn device_of(pool: &str) -> String {
    let text = run("zpool", ["list", "-HvP", "-o", "name", pool]);
    let line = text.lines().find(|line| line.contains("/dev/")).expect("a device");
    line.split_whitespace().next().unwrap().to_owned()
}
