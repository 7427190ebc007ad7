//! The agent and the push as processes, while the server is away.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixDatagram,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    PATIENCE, command,
    http::Connection,
    nix::{Scratch, Store, StorePath, run, tempdir},
    wait_for, wait_until,
};

/// Nobody listens there: the port is that of a protocol that discards.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A host with one path in its store, and the roots of its queue where Nix looks for roots.
struct Host {
    store: Store,
    path: StorePath,
    own: Scratch,
}

impl Host {
    fn new() -> Self {
        let (store, own) = (Store::fresh(), tempdir());
        let source = own.path().join("source");
        fs::write(&source, "a path\n").unwrap();
        let path = store.add(&source);
        Self { store, path, own }
    }

    fn snowbank(&self) -> Command {
        let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
        order.env_clear().envs(self.store.environment());
        order.env("SNOWBANK_SPOOL", self.own.path().join("spool"));
        order.env("SNOWBANK_TO", NOWHERE);
        order
    }

    fn queue(&self, words: &[&str]) -> String {
        run(self.snowbank().arg("queue").args(words), 60).expect_success().text()
    }

    /// Has the collector of Nix remove whatever nobody keeps.
    fn collect(&self) {
        self.store.run("nix-store", &["--gc"]);
    }

    fn hook(&self) {
        run(self.snowbank().arg("hook").env("OUT_PATHS", &self.path), 60).expect_success();
    }
}

/// A process that is ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_is_queued_outlives_a_collection() {
    let host = Host::new();
    host.hook();
    host.collect();
    assert!(host.path.as_path().exists());
    // Without its root it would not have.
    let roots = host.store.directory().parent().unwrap().join("var/gcroots/snowbank");
    fs::remove_dir_all(roots).unwrap();
    host.collect();
    assert!(!host.path.as_path().exists());
}

#[test]
fn what_is_being_pushed_outlives_a_collection() {
    let host = Host::new();
    let log = host.own.path().join("log");
    let mut order = host.snowbank();
    order.arg("push").arg(&host.path).args(["--wait"]);
    order.stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let pushing = Process(order.spawn().unwrap());
    let said = || fs::read_to_string(&log).unwrap();
    wait_until("the push to wait for its server", PATIENCE, || said().contains("trying again"));
    host.collect();
    assert!(host.path.as_path().exists(), "{}", said());
    drop(pushing);
    host.collect();
    assert!(!host.path.as_path().exists());
    let late = run(host.snowbank().arg("push").arg(&host.path), 60).expect_failure();
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains("is not a valid path"), "{}", late.stderr);
}

#[test]
fn a_push_says_by_its_exit_code_whose_fault_it_was() {
    let host = Host::new();
    let push = |words: &[&str]| {
        let outcome = run(host.snowbank().arg("push").args(words), 60).expect_failure();
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        outcome.code
    };
    let path = host.path.as_str();
    assert_eq!(push(&[path, "--retry-for", "0"]), Some(1));
    assert_eq!(push(&["/nonexistent"]), Some(2));
    assert_eq!(push(&[path, "--to", "nowhere"]), Some(2));
    assert_eq!(push(&[path, "--token-file", "/nonexistent"]), Some(2));
    assert_eq!(push(&[path, "--store", "/nonexistent", "--quiet"]), Some(1));
}

#[test]
fn an_agent_without_its_server_is_alive_says_why_it_waits_and_ends_when_it_is_told() {
    let host = Host::new();
    host.hook();
    // The path of a unix socket may have 107 bytes.
    let short = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
    let socket = short.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut order = host.snowbank();
    order.args(["agent", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &socket);
    order.env("WATCHDOG_USEC", "2000000");
    order.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut agent = Process(order.spawn().unwrap());
    let mut lines = BufReader::new(agent.0.stdout.take().unwrap()).lines();
    let address = lines.next().unwrap().unwrap();
    let address = address.trim_start_matches("listening on http://").parse().unwrap();
    let get = |path: &str| Connection::open(address).request("GET", path, &[]);
    get("/health").expect(200);
    get("/else").expect(404);
    wait_until("the agent to try", PATIENCE, || {
        let text = get("/metrics").expect(200).text();
        let tried = !text.contains("snowbank_agent_waits_total 0");
        tried && text.contains("snowbank_agent_queue_depth 1")
    });
    let listed = wait_for("the entry to be taken", PATIENCE, || {
        let listed = host.queue(&["ls"]);
        listed.contains("pushing").then_some(listed)
    });
    assert!(listed.contains(host.path.as_str()), "{listed}");
    let mut said = String::new();
    let mut hear = |what: &str| {
        while !said.contains(what) {
            let mut buffer = [0; 4096];
            let count = systemd.recv(&mut buffer).unwrap();
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("STATUS=1 waiting, 0 parked");
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    hear("STOPPING=1");
    let status =
        wait_for("the agent to end", Duration::from_secs(10), || agent.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    // What it had taken is there for the next one.
    assert!(host.queue(&["ls"]).contains("waiting"));
}
