//! What ops scrape: as Prometheus wants it, with an alert for each thing that goes wrong and no empty panel.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf, process::Stdio};

use serde_json::Value;

use crate::{
    support::{
        PATIENCE,
        authority::Authority,
        bank::{DataDirectory, data_directory},
        command,
        fixtures::{ORDINARY, fixtures, path},
        host::{Agent, Host},
        http::{Connection, field},
        nix::{Scratch, run, tempdir},
        project,
        prometheus::{Prometheus, metrics_in},
        pushed::Pushed,
        server::{Server, Setup},
        snowbank, wait_for, wait_until,
    },
    tls,
};

fn monitoring(name: &str) -> PathBuf {
    project().join("nixos/monitoring").join(name)
}

fn promtool(words: &[&str], input: &str) -> (bool, String) {
    let mut order = command("promtool");
    order.args(words).current_dir(monitoring(""));
    let mut child =
        order.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_otherwise() {
    for words in [["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]] {
        let (is_well, said) = promtool(&words, "");
        assert!(is_well, "{said}");
    }
    let rules = fs::read_to_string(monitoring("rules.yml")).unwrap();
    let tests = fs::read_to_string(monitoring("rules.test.yml")).unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        let cases: Vec<&str> = tests
            .split("- name: ")
            .filter(|case| case.contains(&format!("alertname: {alert}\n")))
            .collect();
        let silent = cases.iter().filter(|case| case.contains("exp_alerts: []")).count();
        assert!(
            silent > 0 && cases.len() > silent,
            "{alert} has no test in which it is silent, or none in which it fires"
        );
        count += 1;
    }
    assert!(count > 10, "{count}");
}

/// A server that does all that it can without ZFS, an agent, and the upstream of the server.
struct Fleet {
    server: Server,
    agent: Agent,
    _upstream: (DataDirectory, Server),
    _host: Host,
    _authority: Authority,
    _directory: DataDirectory,
    own: Scratch,
}

impl Fleet {
    fn start() -> Self {
        let (authority, own) = (Authority::new(), tempdir());
        let directory = data_directory(&fixtures().bank("zstd"));
        let upstream = Setup::on(&directory.data).bank_only(&fixtures().store).start();
        let upstream = (directory, upstream);
        let directory = data_directory(&fixtures().bank("xz"));
        // Another cache of the same store directory.
        fs::create_dir(directory.data.join("team")).unwrap();
        let info = "nix-cache-info";
        fs::copy(directory.bank().join(info), directory.data.join("team").join(info)).unwrap();
        let more = format!(
            "[cache.default]\npush = \"token\"\nkeep_unused = \"30d\"\nupstream_deadline = \"30s\"\n\
             upstreams = [{{ url = \"{}\", keys = [\"{}\"] }}]\n[cache.team]\npush = \"open\"\n",
            upstream.1.url(),
            upstream.1.key()
        );
        let server = tls::setup(&authority.issue("server"), &directory, &own, (&more, "")).start();
        let host = Host::new();
        let mut order = host.snowbank();
        order.args(["agent", "--listen", "127.0.0.1:0", "--to", &server.url()]);
        let agent = Agent::start(&mut order, &host.file("log"));
        Self {
            server,
            agent,
            _upstream: upstream,
            _host: host,
            _authority: authority,
            _directory: directory,
            own,
        }
    }

    /// Something of everything.
    fn work(&self) {
        let server = &self.server;
        for name in ORDINARY {
            server.get(&format!("/{}.narinfo", path(name).hash())).expect(200);
        }
        server.get("/00000000000000000000000000000000.narinfo").expect(404);
        // From upstream.
        let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
        let url = field(&narinfo, "URL").unwrap();
        server.get(&format!("/{url}")).expect(200);
        server
            .connect()
            .request("PUT", &format!("/{}.narinfo", path("big").hash()), &[("content-length", "0")])
            .expect(401);
        let bank = fixtures().bank("zstd");
        let to = format!("{}/c/team", server.url());
        let words = ["import", bank.to_str().unwrap(), "--to", &to, "--quiet"];
        run(command(snowbank()).args(words), 60).expect_success();
        for words in [&["verify", "--cache", "default"][..], &["gc", "--cache", "default"]] {
            let mut order = command(snowbank());
            order.args(words).arg("--config").arg(self.own.path().join("snowbank.toml"));
            run(order.arg("--data-dir").arg(server.data()), 60).expect_success();
        }
    }

    fn exported(&self) -> [String; 2] {
        [self.server.address(), self.agent.address].map(|address| {
            Connection::open(address).request("GET", "/metrics", &[]).expect(200).text()
        })
    }
}

#[test]
fn what_is_exported_is_as_prometheus_wants_it_and_no_alert_is_about_anything_else() {
    let fleet = Fleet::start();
    fleet.work();
    let exported = fleet.exported();
    for text in &exported {
        let (is_well, said) = promtool(&["check", "metrics"], text);
        assert!(is_well && said.trim().is_empty(), "{said}");
    }
    let is_exported =
        |name: &str| exported.iter().any(|text| text.contains(&format!("# TYPE {name} ")));
    let rules = fs::read_to_string(monitoring("rules.yml")).unwrap();
    let names = metrics_in(&rules);
    assert!(names.len() > 15, "{names:?}");
    // Those of ZFS are seen where there is one: tests/zfs.
    for name in names.iter().filter(|name| !name.starts_with("snowbank_zfs_")) {
        assert!(is_exported(name), "{name} is not exported");
    }
}

#[test]
fn no_panel_of_the_dashboard_is_empty_while_a_server_works() {
    let fleet = Fleet::start();
    let prometheus = Prometheus::scraping(&[fleet.server.address(), fleet.agent.address]);
    wait_until("both to be scraped", PATIENCE, || prometheus.query("up == 1").len() == 2);
    fleet.work();
    let text = fs::read_to_string(monitoring("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut row, mut seen) = ("", 0);
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            row = title;
            continue;
        }
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*");
            if row == "ZFS" {
                // Understood, if nothing more: there is none here.
                prometheus.query(&query);
                continue;
            }
            wait_until(&format!("{row}: {title}: {query}"), PATIENCE, || {
                fleet.server.get(&format!("/{}.narinfo", path("leaf").hash())).expect(200);
                !prometheus.query(&query).is_empty()
            });
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
    // What the dashboard is rid of is no error, and none of the alerts is about what is well.
    for record in [
        "instance:snowbank_http_errors:ratio_rate5m",
        "instance:snowbank_narinfo_hits:ratio_rate5m",
    ] {
        wait_until(record, PATIENCE, || !prometheus.query(record).is_empty());
    }
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}");
    assert!(firing.is_empty(), "{firing:?}");
}

#[test]
fn a_scrape_of_a_hundred_caches_reads_nothing_but_what_the_kernel_knows_of_the_process() {
    let caches = (1..100).map(|number| format!("[cache.cache-{number}]\npush = 'token'\n"));
    let pushed = Pushed::new(&caches.collect::<String>());
    let trace = pushed.file("trace");
    let script = format!(
        "exec strace -D -f -y -s 24 -e signal=none -e trace=%file,%process,read,recvfrom,write,writev,sendto \
         -o '{}' \"$0\" \"$@\"",
        trace.display()
    );
    let mut server = pushed.setup("").after_shell(&script).start();
    let mut connection = server.connect();
    for _ in 0..20 {
        let text = connection.request("GET", "/metrics", &[]).expect(200).text();
        let caches = text.lines().filter(|line| line.starts_with("snowbank_source_up{"));
        assert_eq!(caches.count(), 100);
    }
    server.signal(rustix::process::Signal::TERM);
    server.wait(PATIENCE);
    let text = wait_for("the end of the trace", PATIENCE, || {
        let text = fs::read_to_string(&trace).unwrap();
        text.contains("+++ exited with 0 +++").then_some(text)
    });
    // From a request to its answer, in the thread that answers it.
    let mut answering: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut answered = 0;
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.contains("\"GET /metrics") {
            answering.insert(thread, Vec::new());
        } else if call.contains("\"HTTP/1.1 200") {
            for call in answering.remove(thread).into_iter().flatten() {
                // What is resumed here has begun in a line before, with its file.
                let is_of_the_process = call.contains("/proc/")
                    || call.contains("<anon_inode:")
                    || call.contains(" resumed>");
                assert!(is_of_the_process, "{call}");
            }
            answered += 1;
        } else if let Some(calls) = answering.get_mut(thread) {
            calls.push(call);
        }
    }
    assert_eq!(answered, 20, "{text}");
}
