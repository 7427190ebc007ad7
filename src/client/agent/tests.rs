use std::sync::Arc;

use super::super::hook::{self, Built};
use super::super::retry::Patience;
use super::super::spool::EntryState;
use super::super::testing::Store;
use super::super::testing::server::{Failure, Server};
use super::*;

const LONG: Duration = Duration::from_secs(60);

struct Host {
    store: Store,
    server: Server,
    spool: Spool,
    settings: AgentSettings,
    metrics: Arc<AgentMetrics>,
    stop: Arc<Stop>,
}

impl Host {
    fn new() -> Self {
        let store = Store::new();
        let push = PushSettings {
            patience: Patience { retry_for: Some(Duration::ZERO) },
            ..PushSettings::default()
        };
        let roots = store.at("roots");
        Self {
            server: Server::start(),
            spool: Spool::new(store.at("spool")),
            settings: AgentSettings { push, include_drv: false, roots },
            metrics: Arc::new(AgentMetrics::new().unwrap()),
            stop: Arc::default(),
            store,
        }
    }

    /// What the hook does after a build.
    fn built(&self, outs: &[&StorePath]) {
        let full = |path: &&StorePath| self.store.layout().store_dir.join(path);
        let built = Built { drv: None, outs: outs.iter().map(full).collect() };
        hook::run(built, &self.spool, &self.settings.roots).unwrap();
    }

    /// Runs an agent until `done`, and gives back whether that came about.
    fn run_until(&self, done: impl Fn(&Self) -> bool) -> bool {
        self.spool.prepare().unwrap();
        let notice = Arc::new(Notice::watch(self.spool.directory()).unwrap());
        let thread = {
            let (spool, settings) = (self.spool.clone(), self.settings.clone());
            let (remote, layout) = (self.server.remote(), self.store.layout());
            let (metrics, stop) = (Arc::clone(&self.metrics), Arc::clone(&self.stop));
            let notice = Arc::clone(&notice);
            std::thread::spawn(move || {
                let (paths, pulse) = (LocalPaths::new(layout), Pulse::default());
                let agent = Agent {
                    spool: &spool,
                    remote: &remote,
                    paths: &paths,
                    settings: &settings,
                    stop: &stop,
                    metrics: &metrics,
                    pulse: &pulse,
                };
                agent.run(&notice);
            })
        };
        let begin = Instant::now();
        while !done(self) && begin.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop.stop();
        notice.wake();
        thread.join().unwrap();
        done(self)
    }

    fn waiting(&self) -> usize {
        self.spool.depth().unwrap().0
    }

    fn parked(&self) -> Vec<String> {
        let listed = self.spool.list().unwrap().into_iter();
        let reasons = listed.filter_map(|one| match one.state {
            EntryState::Parked(reason) => Some(reason),
            _ => None,
        });
        reasons.collect()
    }

    fn roots(&self) -> usize {
        std::fs::read_dir(&self.settings.roots).map_or(0, Iterator::count)
    }

    fn is_visible(&self, path: &StorePath) -> bool {
        self.server.state().visible.contains(&path.hash())
    }
}

#[test]
fn what_was_built_before_and_while_it_runs_arrives_in_one_push_each_and_its_roots_go() {
    let host = Host::new();
    let a = host.store.add("a", b"aaa", &[]);
    let b = host.store.add("b", b"bbb", &[&a]);
    host.built(&[&b]);
    host.built(&[&a]);
    assert_eq!(host.roots(), 2);
    assert!(host.run_until(|host| host.waiting() == 0));
    assert!(host.is_visible(&a) && host.is_visible(&b));
    assert_eq!((host.server.count("POST commit"), host.roots()), (1, 0));
    let text = String::from_utf8(host.metrics.render().unwrap()).unwrap();
    assert!(text.contains("snowbank_agent_entries_total{result=\"acknowledged\"} 2"), "{text}");
    assert!(host.metrics.last_success.get() > 0 && host.metrics.queue_depth.get() == 0);
}

#[test]
fn an_entry_that_comes_later_wakes_the_agent() {
    let host = Host::new();
    let a = host.store.add("a", b"aaa", &[]);
    let put = std::cell::Cell::new(false);
    let begin = Instant::now();
    let arrived = host.run_until(|host| {
        if !put.replace(true) {
            host.built(&[&a]);
        }
        host.is_visible(&a) && host.waiting() == 0
    });
    assert!(arrived && begin.elapsed() < SLOW_POLL, "{:?}", begin.elapsed());
}

#[test]
fn bad_paths_are_parked_with_their_reasons_and_the_others_go_on() {
    let host = Host::new();
    let good = host.store.add("good", b"good", &[]);
    let changed = host.store.add("changed", b"changed", &[]);
    let above = host.store.add("above", b"above", &[&changed]);
    let collected = host.store.add("collected", b"collected", &[]);
    let refused = host.store.add("refused", b"refused", &[]);
    for path in [&good, &above, &collected, &refused] {
        host.built(&[path]);
    }
    host.spool
        .append("0", &Entry { time: 0, drv: None, outs: vec!["/etc/passwd".into()] })
        .unwrap();
    std::fs::write(host.spool.directory().join("00.entry"), "snowbank-spool 1\nou").unwrap();
    std::fs::remove_file(host.store.real(&changed)).unwrap();
    std::fs::write(host.store.real(&changed), "CHANGED").unwrap();
    host.store.forget(&collected);
    host.server.state().refused.insert(refused.hash(), "we do not like it".into());
    assert!(host.run_until(|host| host.waiting() == 0));
    assert!(host.is_visible(&good));
    let mut parked = host.parked();
    parked.sort();
    for (what, word) in [
        ("a path elsewhere", "/etc/passwd"),
        ("a torn one", "torn"),
        ("one whose reference changed", "HTTP 422: not what was promised"),
        ("one that is gone", "collected is not a valid path"),
        ("one that is refused", "we do not like it"),
    ] {
        assert!(parked.iter().any(|reason| reason.contains(word)), "{what} in {parked:?}");
    }
    assert_eq!((parked.len(), host.roots()), (5, 3), "what is parked keeps its roots");
}

#[test]
fn a_path_that_was_collected_after_the_server_had_it_is_no_failure() {
    let host = Host::new();
    let path = host.store.add("path", b"path", &[]);
    host.built(&[&path]);
    host.store.forget(&path);
    host.server.state().visible.insert(path.hash());
    assert!(host.run_until(|host| host.waiting() == 0));
    assert_eq!(host.parked(), [""; 0]);
}

#[test]
fn while_the_server_cannot_nothing_is_lost_and_the_reason_is_known() {
    let host = Host::new();
    let (a, b) = (host.store.add("a", b"aaa", &[]), host.store.add("b", b"bbb", &[]));
    host.built(&[&a]);
    host.built(&[&b]);
    // Neither a server that is busy nor a token that is wrong is an entry's fault.
    let failures = [503, 401, 404].map(|status| ("POST missing", Failure::Status(status)));
    host.server.state().failures.extend(failures);
    assert!(host.run_until(|host| host.spool.last_error().is_some()));
    assert_eq!((host.parked().len(), host.roots()), (0, 2));
    let mut host = host;
    host.stop = Arc::default();
    assert!(host.run_until(|host| host.waiting() == 0));
    assert!(host.is_visible(&a) && host.is_visible(&b));
    assert_eq!((host.parked().len(), host.spool.last_error()), (0, None));
    assert!(host.server.state().failures.is_empty());
}

#[test]
fn an_entry_that_the_server_chokes_on_holds_up_nobody() {
    let host = Host::new();
    let choke = host.store.add("choke", &[b'x'; 4000], &[]);
    host.built(&[&choke]);
    let others: Vec<_> =
        ["a", "b", "c"].map(|name| host.store.add(name, name.as_bytes(), &[])).into();
    others.iter().for_each(|path| host.built(&[path]));
    let hash = host.store.info(&choke).nar_hash;
    host.server.state().chokes_on = Some(hash);
    let all = |host: &Host| others.iter().all(|path| host.is_visible(path)) && host.waiting() == 1;
    assert!(host.run_until(all));
    assert_eq!((host.parked().len(), host.is_visible(&choke)), (0, false));
}

#[test]
fn what_a_hook_could_keep_but_not_queue_is_queued_by_the_agent() {
    let host = Host::new();
    let (a, b) = (host.store.add("a", b"aaa", &[]), host.store.add("b", b"bbb", &[]));
    host.built(&[&a, &b]);
    // The spool was full, and is not any more.
    let claim = host.spool.take(1, |_| false).unwrap().pop().unwrap();
    let id = claim.id.clone();
    host.spool.acknowledge(claim).unwrap();
    let (remote, paths) = (host.server.remote(), LocalPaths::new(host.store.layout()));
    let agent = Agent {
        spool: &host.spool,
        remote: &remote,
        paths: &paths,
        settings: &host.settings,
        stop: &host.stop,
        metrics: &host.metrics,
        pulse: &Pulse::default(),
    };
    agent.adopt_roots(SystemTime::now()).unwrap();
    assert_eq!(host.waiting(), 0, "a hook may be about to queue it");
    for _ in 0..2 {
        agent.adopt_roots(SystemTime::now() + LONG * 2).unwrap();
        assert_eq!(host.waiting(), 1);
    }
    assert!(host.spool.known().unwrap().contains(&id));
    assert!(host.run_until(|host| host.waiting() == 0));
    assert!(host.is_visible(&a) && host.is_visible(&b));
    assert_eq!(host.roots(), 0);
}
