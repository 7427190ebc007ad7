//! What a real `nix-build` queued by its post-build hook, on its way to a real server.

use std::{fs, net::SocketAddr};

use crate::support::{
    PATIENCE,
    host::{Agent, Home, Host, narinfo},
    http::Connection,
    nix::StorePath,
    proxy::{Fault, FaultProxy},
    pushed::names,
    wait_until,
};

/// So many derivations, each upon the one before; the last is what they are built for.
fn chain(name: &str, count: usize) -> String {
    let mut expression = "\"nothing\"".to_owned();
    for number in 0..count {
        expression = format!("(run \"{name}-{number}\" \"echo {number} ${{{expression}}} >$out\")");
    }
    expression
}

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

/// An agent of a host that shows the token in its file.
fn start_agent(host: &Host, url: &str, name: &str) -> Agent {
    let mut order = host.snowbank();
    order.args(["agent", "--listen", "127.0.0.1:0", "--to", url]);
    order.arg("--token-file").arg(host.file("token"));
    Agent::start(&mut order, &host.file(name))
}

impl Agent {
    fn metric(&self, series: &str) -> f64 {
        let text =
            Connection::open(self.address).request("GET", "/metrics", &[]).expect(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
    }
}

fn write_token(host: &Host, token: &str) {
    fs::write(host.file("token"), token).unwrap();
}

#[track_caller]
fn assert_drained(host: &Host) {
    host.queue(&["wait", "--timeout", "60s"]).expect_success();
    // The root of an entry goes after the entry.
    wait_until("the roots to be gone", PATIENCE, || names(&host.roots()).is_empty());
}

#[test]
fn what_was_built_while_the_server_was_away_arrives_though_it_dies_once_more() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'token'");
    write_token(&host, &home.token("push"));
    let proxy = FaultProxy::before(nowhere(), Fault::None);
    let agent = start_agent(&host, &proxy.url(), "log");
    let built = host.build_and_queue(&chain("away", 3));
    wait_until("the agent to try in vain", PATIENCE, || {
        agent.metric("snowbank_agent_waits_total") > 0.0
    });
    assert_eq!(names(&host.roots()).len(), 3);
    let mut first = home.setup().environment("SNOWBANK_FAULT", "push.answer=kill:4").start();
    proxy.point_at(first.address());
    first.wait(PATIENCE);
    let second = home.start();
    proxy.point_at(second.address());
    assert_drained(&host);
    host.assert_substituted(&second, &built);
    let acknowledged = "snowbank_agent_entries_total{result=\"acknowledged\"}";
    wait_until("all to be counted", PATIENCE, || agent.metric(acknowledged) == 3.0);
    for (series, value) in [
        ("snowbank_agent_queue_depth", 0.0),
        ("snowbank_agent_queue_oldest_timestamp_seconds", 0.0),
        ("snowbank_agent_parked", 0.0),
        ("snowbank_agent_pushed_paths_total", 3.0),
        ("snowbank_agent_uploads_total{result=\"failed\"}", 0.0),
    ] {
        wait_until(&format!("{series} to be {value}"), PATIENCE, || agent.metric(series) == value);
    }
    assert!(agent.metric("snowbank_agent_sent_bytes_total") > 0.0);
    assert!(agent.metric("snowbank_agent_last_success_timestamp_seconds") > 0.0);
}

#[test]
fn a_wrong_token_loses_nothing_and_the_right_one_counts_as_soon_as_it_is_in_the_file() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'token'");
    let server = home.start();
    write_token(&host, "wrong");
    let agent = start_agent(&host, &server.url(), "log");
    let built = host.build_and_queue(&chain("token", 1));
    wait_until("the agent to be refused", PATIENCE, || {
        agent.metric("snowbank_agent_entries_total{result=\"retried\"}") > 0.0
    });
    let why = host.queue(&["why", built[0].as_str()]).expect_success().text();
    assert!(why.contains("last try failed") && why.contains("token"), "{why}");
    assert_eq!(agent.metric("snowbank_agent_parked"), 0.0);
    write_token(&host, &home.token("push"));
    assert_drained(&host);
    host.assert_substituted(&server, &built);
}

#[test]
fn one_bad_path_is_parked_while_the_others_arrive_and_goes_when_it_was_mended() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'token'");
    let server = home.start();
    write_token(&host, &home.token("push"));
    let expression = |name: &str| format!("run \"{name}\" \"echo {name} >$out\"");
    let [good, bad, late] =
        ["good", "poison", "late"].map(|name| host.build_and_queue(&expression(name)).remove(0));
    Host::overwrite(&bad, b"venom!\n");
    let _agent = start_agent(&host, &server.url(), "log");
    let waited = host.queue(&["wait", "--timeout", "60s"]).expect_failure();
    assert!(waited.stderr.contains("1 parked"), "{}", waited.stderr);
    for path in [&good, &late] {
        narinfo(&server, path).expect(200);
    }
    narinfo(&server, &bad).expect(404);
    let why = host.queue(&["why", bad.as_str()]).expect_success().text();
    assert!(why.contains("parked: ") && why.contains("queue retry"), "{why}");
    assert_eq!(names(&host.roots()).len(), 1, "what is parked is kept");
    Host::overwrite(&bad, b"poison\n");
    host.queue(&["retry", "--all"]).expect_success();
    assert_drained(&host);
    host.assert_substituted(&server, &[good, bad, late]);
}

#[test]
fn two_agents_on_one_queue_share_it() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'token'");
    let server = home.start();
    write_token(&host, &home.token("push"));
    let agents = ["one", "two"].map(|name| start_agent(&host, &server.url(), name));
    let built: Vec<StorePath> = host.build_and_queue(&chain("shared", 6));
    assert_drained(&host);
    host.assert_substituted(&server, &built);
    let acknowledged = "snowbank_agent_entries_total{result=\"acknowledged\"}";
    wait_until("each entry to be counted once", PATIENCE, || {
        agents.iter().map(|agent| agent.metric(acknowledged)).sum::<f64>() == 6.0
    });
    for agent in &agents {
        assert_eq!(agent.metric("snowbank_agent_entries_total{result=\"parked\"}"), 0.0);
    }
}
