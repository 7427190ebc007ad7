//! A real Prometheus that scrapes what a test started, every second.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream},
    process::Stdio,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    PATIENCE, command,
    front::free_port,
    host::Process,
    http::Connection,
    nix::{Scratch, tempdir},
    wait_for,
};

pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    own: Scratch,
}

impl Prometheus {
    #[track_caller]
    pub(crate) fn scraping(targets: &[SocketAddr]) -> Self {
        // Somebody else may be faster.
        for _ in 0..5 {
            let mut prometheus = Self::start_on(free_port(), targets);
            if prometheus.listens() {
                return prometheus;
            }
        }
        panic!("Prometheus did not start");
    }

    fn start_on(port: u16, targets: &[SocketAddr]) -> Self {
        let (own, address) = (tempdir(), SocketAddr::from(([127, 0, 0, 1], port)));
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{}]\n\
             scrape_configs:\n- job_name: snowbank\n  static_configs: [{{ targets: [{}] }}]\n",
            super::project().join("nixos/monitoring/rules.yml").display(),
            targets.join(", ")
        );
        let file = own.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut order = command("prometheus");
        order.arg(format!("--config.file={}", file.display()));
        order.arg(format!("--storage.tsdb.path={}", own.path().join("data").display()));
        order.arg(format!("--web.listen-address={address}")).stdout(Stdio::null());
        let process = Process::start(&mut order, &own.path().join("log"));
        Self { process, address, own }
    }

    /// Whether it does; it ends where it cannot.
    fn listens(&mut self) -> bool {
        let listens = wait_for("Prometheus to listen or end", PATIENCE, || {
            match self.process.0.try_wait().unwrap() {
                Some(_) => Some(false),
                None => TcpStream::connect(self.address).is_ok().then_some(true),
            }
        });
        if !listens {
            println!("{}", fs::read_to_string(self.own.path().join("log")).unwrap());
        }
        listens
    }

    /// The series that a query has now.
    #[track_caller]
    pub(crate) fn query(&self, query: &str) -> Vec<Value> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={query}");
        let answer = Connection::open(self.address).request("GET", &path, &[]);
        // It listens before it is ready.
        if answer.status == 503 {
            return Vec::new();
        }
        let json = answer.json();
        assert_eq!(json["status"], "success", "{query}: {json}");
        json["data"]["result"].as_array().unwrap().clone()
    }
}

/// The names of our metrics in a text.
pub(crate) fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_of_name(letter) && letter != ':');
    words
        .filter(|word| word.starts_with("snowbank_") || word.starts_with("process_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}
