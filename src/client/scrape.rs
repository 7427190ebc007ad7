//! The metrics of a server as Prometheus gets them, read back: the text format 0.0.4.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use ureq::Agent;

use crate::source::upstream::connect::{Address, AuthoritiesError, Connector};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest text that is read.
const MAX_TEXT: u64 = 64 << 20;

/// All that a server said at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, Vec<Sample>>);

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    labels: Vec<(String, String)>,
    /// What it is now.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty where it has none of that name.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl Samples {
    /// Reads a text. What is no sample is passed over.
    pub fn parse(text: &str) -> Self {
        let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = line_of(line) {
                samples.entry(name.to_owned()).or_default().push(sample);
            }
        }
        Self(samples)
    }

    /// All of a name.
    pub fn all(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of those of a name whose labels are these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_meant =
            |sample: &&Sample| labels.iter().all(|(name, value)| sample.label(name) == *value);
        // Not `sum`, which makes -0 of nothing.
        self.all(name).iter().filter(is_meant).fold(0.0, |sum, sample| sum + sample.value)
    }
}

fn line_of(line: &str) -> Option<(&str, Sample)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series, Sample { labels: Vec::new(), value }));
    };
    Some((name, Sample { labels: labels_of(labels.strip_suffix('}')?)?, value }))
}

/// `name="value",…`, with `\\`, `\"` and `\n` in values.
fn labels_of(mut rest: &str) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, letter) => value.push(letter),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &after[end + 1..];
    }
    Some(labels)
}

/// Asks a server again and again.
pub struct Scraper {
    agent: Agent,
    url: String,
}

/// A server did not say how it is.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {why}")]
pub struct ScrapeError {
    url: String,
    why: String,
}

impl Scraper {
    /// Will ask the server at this address, whichever cache of it that names.
    pub fn new(
        address: &Address,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, AuthoritiesError> {
        let agent = Connector::new(address, 1, 0, lookup)?.agent(None);
        Ok(Self { agent, url: address.split().0.to_owned() })
    }

    /// The server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it is now.
    pub fn metrics(&self) -> Result<Samples, ScrapeError> {
        self.get("/metrics", &[200]).map(|text| Samples::parse(&text))
    }

    /// What is wrong with it, one line each.
    pub fn troubles(&self) -> Result<Vec<String>, ScrapeError> {
        let text = self.get("/health", &[200, 503])?;
        let health: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| self.failed("/health", &error.to_string()))?;
        let troubles = health["troubles"].as_array().into_iter().flatten();
        let line = |trouble: &serde_json::Value| {
            let of = |name: &str| trouble[name].as_str().unwrap_or("?").to_owned();
            format!("{}: cache {}: {}", of("severity"), of("cache"), of("what"))
        };
        Ok(troubles.map(line).collect())
    }

    fn get(&self, path: &str, statuses: &[u16]) -> Result<String, ScrapeError> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let answer = request.config().timeout_global(Some(PATIENCE)).build().call();
        let mut answer = answer.map_err(|error| self.failed(path, &error.to_string()))?;
        let status = answer.status().as_u16();
        if !statuses.contains(&status) {
            return Err(self.failed(path, &format!("HTTP {status}; is it a Snowbank?")));
        }
        let text = answer.body_mut().with_config().limit(MAX_TEXT).read_to_string();
        text.map_err(|error| self.failed(path, &error.to_string()))
    }

    fn failed(&self, path: &str, why: &str) -> ScrapeError {
        ScrapeError { url: format!("{}{path}", self.url), why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{Metrics, SourceLabel};

    #[test]
    fn what_our_own_server_says_is_read_back() {
        let metrics = Metrics::new().unwrap();
        metrics.narinfo_hit(SourceLabel::Bank);
        metrics.source("a \"b\"\\\n{c,d}", "store", true, 7);
        let samples = Samples::parse(&String::from_utf8(metrics.render().unwrap()).unwrap());
        assert_eq!(samples.sum("snowbank_narinfo_hits_total", &[("source", "bank")]), 1.0);
        assert_eq!(samples.sum("snowbank_narinfo_hits_total", &[]), 1.0);
        let paths = samples.all("snowbank_source_paths");
        assert_eq!((paths.len(), paths[0].value), (1, 7.0));
        assert_eq!(paths[0].label("cache"), "a \"b\"\\\n{c,d}");
        assert_eq!(
            samples.all("snowbank_build_info")[0].label("version"),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(samples.all("absent"), []);
    }

    #[test]
    fn what_is_no_sample_is_passed_over() {
        let samples =
            Samples::parse("a 1\n\nb\nc{x=\"1} 2\nd{x=\"1\"} three\n# a 7\ne{x=\"1\"} +Inf\n");
        assert_eq!(samples.0.keys().collect::<Vec<_>>(), ["a", "e"]);
        assert_eq!(samples.sum("e", &[]), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic(text in any::<String>(), labels in "[a-z=\",\\\\{}é ]{0,40}") {
            let _ = Samples::parse(&text);
            let _ = Samples::parse(&format!("a{{{labels}}} 1"));
        }
    }
}
