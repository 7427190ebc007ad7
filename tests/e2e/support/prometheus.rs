//! A real Prometheus that scrapes what a test started, every second.

use std::{collections::BTreeSet, fs, net::SocketAddr, process::Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    command,
    front::{listens, on_free_port},
    host::Process,
    http::Connection,
    nix::{Scratch, tempdir},
};

pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    own: Scratch,
}

impl Prometheus {
    #[track_caller]
    pub(crate) fn scraping(targets: &[SocketAddr]) -> Self {
        on_free_port("Prometheus", |port| {
            let mut prometheus = Self::start_on(port, targets);
            let log = prometheus.own.path().join("log");
            listens(&mut prometheus.process.0, port, &log).then_some(prometheus)
        })
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
