//! `snowbank zfs replicate`: copies that follow, through interruptions, absences and meddling, and nodes that all push.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::bed::{MIB, OPEN, random};
use crate::commands::{Place, SERVICE_ID, property};
use crate::e2e::http::Response;
use crate::e2e::made::{Made, closure};
use crate::e2e::pushed::{Pusher, verify};
use crate::e2e::server::Server;
use crate::e2e::snowbank;
use crate::support::{Disk, PATIENCE, Pool, command, run, wait_until};

/// A machine: a pool, a place, and a cache that anybody may push to.
pub(crate) struct Node {
    pool: Pool,
    pub(crate) place: Place,
}

impl Node {
    pub(crate) fn new() -> Self {
        let pool = Pool::on([Disk::take()]);
        let place = Place::on(&pool, "", OPEN);
        Self { pool, place }
    }

    /// `more` is said of the cache.
    fn configure(&self, more: &str) {
        let parent = self.dataset("");
        let parent = parent.trim_end_matches('/');
        self.place.configure(&format!("[zfs]\ndataset = \"{parent}\"\n{OPEN}{more}"));
    }

    pub(crate) fn dataset(&self, name: &str) -> String {
        format!("{}/snowbank/{name}", self.pool.name())
    }

    /// Where what it gets from another node is seen.
    pub(crate) fn received(&self, name: &str) -> PathBuf {
        self.pool.path().join("snowbank").join(name)
    }

    fn bank(&self) -> PathBuf {
        self.place.bank("default")
    }

    /// A file of random bytes in the bank, as the service would write it.
    pub(crate) fn write(&self, name: &str, size: usize) {
        let file = self.bank().join(name);
        run("/bin/sh", ["-c", &format!("head -c {size} /dev/urandom > {}", file.display())]);
        std::os::unix::fs::chown(file, Some(SERVICE_ID), Some(SERVICE_ID)).unwrap();
    }

    /// One run as the service user, told as JSON.
    fn replicate(&self, to: &str) -> serde_json::Value {
        self.place.service(&["zfs", "replicate", "default", "--to", to, "--json"]).json()
    }

    fn refused(&self, to: &str) -> String {
        self.place.service(&["zfs", "replicate", "default", "--to", to]).refusal()
    }

    /// A run that goes on beside the test.
    fn begin(&self, words: &[&str]) -> Child {
        let mut order = command(snowbank());
        order.args(["zfs", "replicate", "default"]).args(words);
        order.env("SNOWBANK_CONFIG", self.place.config());
        order.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// The names of what is after the `@` or `#` of a dataset.
fn kept(kind: &str, dataset: &str) -> Vec<String> {
    let text =
        run("zfs", ["list", "-H", "-o", "name", "-t", kind, "-s", "createtxg", "-d", "1", dataset]);
    text.lines().map(|line| line.split(['@', '#']).next_back().unwrap().to_owned()).collect()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// How a run ended, and what it said to people.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn the_service_keeps_a_copy_that_follows_and_lets_go_only_of_its_own() {
    let (a, b) = (Node::new(), Node::new());
    let to = b.dataset("from-a");
    a.write("one", 3 * MIB);
    let planned =
        a.place.service(&["zfs", "replicate", "default", "--to", &to, "--dry-run"]).expect(0);
    assert!(planned.contains(" | zfs receive -s -u -o readonly=on "), "{planned}");
    assert!(kept("snapshot", &a.dataset("default")).is_empty(), "a dry run changes nothing");

    let first = a.replicate(&to);
    assert_eq!(first["sent"][0]["from"], serde_json::Value::Null);
    assert!(first["sent"][0]["bytes"].as_u64().unwrap() > 3 * MIB as u64, "{first}");
    assert!(
        first["remarks"][0].as_str().unwrap().contains(&format!("`zfs mount {to}`")),
        "{first}"
    );
    assert_eq!((property(&to, "readonly"), property(&to, "mounted")), ("on".into(), "no".into()));
    run("zfs", ["mount", &to]);

    // Whoever looked for a name in vain finds it once it has come.
    let copy = b.received("from-a");
    assert!(copy.join("one").exists() && !copy.join("two").exists());
    let open = fs::File::open(copy.join("one")).unwrap();
    a.write("two", 100);
    let second = a.replicate(&to);
    assert_eq!(second["remarks"].as_array().unwrap().len(), 0, "{second}");
    let bytes = second["sent"][0]["bytes"].as_u64().unwrap();
    assert!(bytes < MIB as u64, "only what changed: {second}");
    assert_eq!(fs::read(copy.join("two")).unwrap(), fs::read(a.bank().join("two")).unwrap());
    assert_eq!(open.metadata().unwrap().len(), 3 * MIB as u64);
    drop(open);

    // Nothing changed, so nothing is sent, and nothing is left of it.
    let before = kept("snapshot", &a.dataset("default"));
    let idle = a.replicate(&to);
    assert_eq!(idle["sent"].as_array().unwrap().len(), 0, "{idle}");
    assert_eq!(kept("snapshot", &a.dataset("default")), before);

    a.place.service(&["zfs", "snapshot", "default", "mine"]).expect(0);
    for number in 0..5 {
        a.write(&format!("more-{number}"), 10);
        a.replicate(&to);
    }
    let here = kept("snapshot", &a.dataset("default"));
    let there = kept("snapshot", &to);
    assert_eq!(here.iter().filter(|name| name.starts_with("replica-")).count(), 3, "{here:?}");
    assert!(here.contains(&"mine".to_owned()), "{here:?}");
    assert_eq!(there.len(), 3, "{there:?}");
    assert_eq!(kept("bookmark", &a.dataset("default")), there[2..]);
}

#[test]
fn an_interrupted_stream_is_gone_on_with_and_one_whose_snapshot_is_gone_begins_anew() {
    let (a, b) = (Node::new(), Node::new());
    let to = b.dataset("from-a");
    a.write("small", 10);
    a.replicate(&to);
    a.write("large", 200 * MIB);
    for how in ["TERM", "KILL"] {
        let used = || {
            run("zpool", ["sync", b.pool.name()]);
            property(&to, "used").parse::<usize>().unwrap()
        };
        let before = used();
        let child = a.begin(&["--to", &to]);
        wait_until("some of it has arrived", PATIENCE, || used() > before + 8 * MIB);
        let by = if how == "TERM" {
            rustix::process::Signal::TERM
        } else {
            rustix::process::Signal::KILL
        };
        signal(&child, by);
        let (code, said) = end(child);
        println!("{how}: {said}");
        if how == "TERM" {
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("was stopped after"), "{said}");
        }
        wait_until("what was received is kept", PATIENCE, || {
            property(&to, "receive_resume_token") != "-"
        });
    }
    let done = a.replicate(&to);
    assert_eq!(done["sent"][0]["resumed"], true, "{done}");
    assert!(done["sent"][0]["bytes"].as_u64().unwrap() < 200 * MIB as u64, "{done}");
    run("zfs", ["mount", &to]);
    let copied = || fs::read(b.received("from-a").join("large")).unwrap();
    assert!(copied() == fs::read(a.bank().join("large")).unwrap());

    a.write("large", 201 * MIB);
    let child = a.begin(&["--to", &to]);
    wait_until("some of it has arrived", PATIENCE, || {
        run("zpool", ["sync", b.pool.name()]);
        property(&to, "used").parse::<usize>().unwrap() > 210 * MIB
    });
    signal(&child, rustix::process::Signal::TERM);
    end(child);
    let ours = kept("snapshot", &a.dataset("default"));
    run("zfs", ["destroy", &format!("{}@{}", a.dataset("default"), ours.last().unwrap())]);
    let anew = a.replicate(&to);
    assert_eq!(anew["sent"][0]["resumed"], false, "{anew}");
    assert!(copied() == fs::read(a.bank().join("large")).unwrap());
}

#[test]
fn a_node_that_was_away_catches_up_though_all_snapshots_are_gone() {
    let (a, b) = (Node::new(), Node::new());
    let to = b.dataset("from-a");
    a.write("one", 1000);
    a.replicate(&to);
    run("zfs", ["mount", &to]);
    // A day of pruning by somebody who knows nothing of the copy.
    for name in kept("snapshot", &a.dataset("default")) {
        run("zfs", ["destroy", &format!("{}@{name}", a.dataset("default"))]);
    }
    a.write("two", 2 * MIB);
    let caught_up = a.replicate(&to);
    let from = caught_up["sent"][0]["from"].as_str().unwrap();
    assert!(from.starts_with(&format!("{}#replica-", a.dataset("default"))), "{caught_up}");
    assert!(caught_up["sent"][0]["bytes"].as_u64().unwrap() < 3 * MIB as u64);
    assert!(b.received("from-a").join("two").exists());
    // Without a base there is no copy any more, and nothing is done to what is there.
    for name in kept("snapshot", &a.dataset("default")) {
        run("zfs", ["destroy", &format!("{}@{name}", a.dataset("default"))]);
    }
    for name in kept("bookmark", &a.dataset("default")) {
        run("zfs", ["destroy", &format!("{}#{name}", a.dataset("default"))]);
    }
    let refused = a.refused(&to);
    assert!(refused.contains("has no snapshot in common"), "{refused}");
    assert!(b.received("from-a").join("two").exists());
}

#[test]
fn a_copy_that_somebody_changed_is_left_alone_until_rollback_is_said() {
    let (a, b) = (Node::new(), Node::new());
    let to = b.dataset("from-a");
    a.write("one", 1000);
    a.replicate(&to);
    run("zfs", ["mount", &to]);
    let copy = b.received("from-a");

    run("zfs", ["snapshot", &format!("{to}@theirs")]);
    a.write("two", 1000);
    let refused = a.refused(&to);
    assert!(refused.contains("@theirs") && refused.contains("--rollback"), "{refused}");
    assert_eq!(kept("snapshot", &to).last().unwrap(), "theirs");
    let rollback = ["zfs", "replicate", "default", "--to", &to, "--rollback"];
    a.place.service(&rollback).expect(0);
    assert!(!kept("snapshot", &to).contains(&"theirs".to_owned()) && copy.join("two").exists());

    run("zfs", ["set", "readonly=off", &to]);
    fs::write(copy.join("stray"), "x").unwrap();
    run("zpool", ["sync"]);
    a.write("three", 1000);
    assert!(a.refused(&to).contains("bytes were written to it"));
    assert!(copy.join("stray").exists());
    a.place.service(&rollback).expect(0);
    assert!(!copy.join("stray").exists() && copy.join("three").exists());
    assert_eq!(property(&to, "readonly"), "on", "it is made read-only again");
}

#[test]
fn what_cannot_be_a_copy_is_told_with_what_to_do() {
    let a = Node::new();
    let itself = a.refused(&format!("{}/copy", a.dataset("default")));
    assert!(itself.contains("lies in it"), "{itself}");
    let nowhere = a.refused(&format!("{}/no/copy", a.pool.name()));
    assert!(nowhere.contains(&format!("zfs create {}/no", a.pool.name())), "{nowhere}");
    run("zfs", ["create", &format!("{}/other", a.pool.name())]);
    let other = a.refused(&format!("{}/other", a.pool.name()));
    assert!(other.contains("it is no copy of it"), "{other}");
    assert!(kept("snapshot", &a.dataset("default")).is_empty(), "nothing is left of those");
    let words =
        ["-r", "a b", "$(x)", "@", "%", "-oProxyCommand=x:tank/a", "h;x:tank/a", "a@b@c:tank/a"];
    for to in words.into_iter().chain([&*"x".repeat(300)]) {
        let said = a.place.service(&["zfs", "replicate", "default", "--to", to]);
        assert_eq!(said.code, Some(2), "{to}: {said:?}");
    }
}

#[test]
fn one_run_at_a_time_copies_to_one_place() {
    let (a, b) = (Node::new(), Node::new());
    let (to, other) = (b.dataset("from-a"), b.dataset("other"));
    let name = format!("replicate-{}.lock", to.replace('/', "_"));
    let lock = fs::File::create(a.place.data().join("state").join(name)).unwrap();
    fs::set_permissions(a.place.data().join("state"), fs::Permissions::from_mode(0o777)).unwrap();
    lock.set_permissions(fs::Permissions::from_mode(0o666)).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = a.refused(&to);
    assert!(refused.contains("another run copies"), "{refused}");
    a.replicate(&other);
    drop(lock);
    a.replicate(&to);
}

#[test]
fn another_machine_is_reached_by_ssh() {
    let (a, b) = (Node::new(), Node::new());
    // What ssh does, without a network: the words are put together for a shell.
    let bin = tempfile::tempdir().unwrap();
    let ssh = bin.path().join("ssh");
    let script = "#!/bin/sh\necho \"$*\" >> \"${0%/*}/log\"\nwhile [ \"$1\" != -- ]; do shift; done\n\
                  shift 2; exec /bin/sh -c \"$*\"\n";
    fs::write(&ssh, script).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.path().display());
    let to = format!("root@node-b:{}", b.dataset("from-a"));
    let mut order = command(snowbank());
    order.args(["zfs", "replicate", "default", "--to", &to, "--mountpoint", "/mnt/copy of a"]);
    order.env("SNOWBANK_CONFIG", a.place.config()).env("PATH", path);
    a.write("one", 1000);
    let output = order.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Root on the other side may mount, so it is.
    assert!(fs::exists("/mnt/copy of a/one").unwrap());
    let log = fs::read_to_string(bin.path().join("log")).unwrap();
    assert!(
        log.lines()
            .all(|line| line.contains("BatchMode=yes") && line.contains("-- root@node-b env ")),
        "{log}"
    );
}

#[test]
fn three_nodes_push_send_to_each_other_and_serve_everything_within_an_interval() {
    let nodes = [Node::new(), Node::new(), Node::new()];
    let name = |from: usize| format!("from-{from}");
    let others = |node: usize| (0..nodes.len()).filter(move |other| *other != node);
    for (number, node) in nodes.iter().enumerate() {
        let parts: Vec<_> =
            others(number).map(|from| node.received(&name(from)).display().to_string()).collect();
        node.configure(&format!("parts = {parts:?}\n"));
    }
    let servers: Vec<Server> = nodes.iter().map(|node| node.place.serve()).collect();
    // As root, so that what is received is mounted at once.
    let runs: Vec<Child> = (0..nodes.len())
        .flat_map(|from| others(from).map(move |to| (from, to)))
        .map(|(from, to)| {
            let to = nodes[to].dataset(&name(from));
            nodes[from].begin(&["--to", &to, "--every", "2s"])
        })
        .collect();
    let pushed: Vec<Vec<Made>> = (0..nodes.len()).map(|node| closure(node as u64)).collect();
    for (server, paths) in servers.iter().zip(&pushed) {
        Pusher::to(server.address()).unwrap().stock_closure(paths).unwrap();
    }
    let all: Vec<String> = pushed.iter().flatten().map(Made::hash).collect();
    let visible = all.iter().cloned().collect();
    let get = |server: &Server, hash: &str| -> Response { server.get(&format!("/{hash}.narinfo")) };
    for server in &servers {
        wait_until("everything is served everywhere", 3 * PATIENCE, || {
            all.iter().all(|hash| get(server, hash).status == 200)
        });
        let mut connection = server.connect();
        for hash in &all {
            verify(&mut connection, hash, &visible);
        }
    }
    // What comes later comes as quickly, and to all.
    let late = random(77, MIB);
    let begun = Instant::now();
    Pusher::to(servers[1].address()).unwrap().stock(&late, crate::e2e::made::Form::Bare).unwrap();
    for server in &servers {
        wait_until("it is served", PATIENCE, || get(server, &late.hash()).status == 200);
    }
    println!("{:?} from a push to all nodes", begun.elapsed());
    for mut child in runs {
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        signal(&child, rustix::process::Signal::TERM);
        let (code, said) = end(child);
        assert_eq!(code, Some(0), "{said}");
    }
}
