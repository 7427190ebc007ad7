//! The metrics of `snowbank agent`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::process::ProcessMetrics;

/// What became of an entry of the spool; the label `result`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryResult {
    /// The server has all of it.
    Acknowledged,
    /// It is laid aside, with a reason.
    Parked,
    /// It stays in the queue, to be tried again.
    Retried,
}

/// All metrics of an agent.
pub struct AgentMetrics {
    registry: Registry,
    process: ProcessMetrics,
    entries: IntCounterVec,
    uploads: IntCounterVec,
    /// Entries that wait.
    pub queue_depth: IntGauge,
    /// When the oldest entry that waits was put in, in seconds since 1970; 0 if none waits.
    pub queue_oldest: IntGauge,
    /// Entries that are parked.
    pub parked: IntGauge,
    /// Bytes sent.
    pub sent_bytes: IntCounter,
    /// Paths that became visible.
    pub pushed_paths: IntCounter,
    /// When something was last acknowledged, in seconds since 1970.
    pub last_success: IntGauge,
    /// Requests that are to be asked again.
    pub waits: IntCounter,
}

impl AgentMetrics {
    /// Registers everything.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            Ok(register!(registry, IntCounter::new(name, help)))
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            Ok(register!(registry, IntGauge::new(name, help)))
        };
        let by_result = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            Ok(register!(registry, IntCounterVec::new(Opts::new(name, help), &["result"])))
        };
        let entries = by_result(
            "snowbank_agent_entries_total",
            "Entries of the spool, by what became of them.",
        )?;
        let uploads = by_result("snowbank_agent_uploads_total", "NARs, by whether they arrived.")?;
        // A rate over a series that begins with its first failure misses that failure.
        for result in [EntryResult::Acknowledged, EntryResult::Parked, EntryResult::Retried] {
            entries.with_label_values(&[result.label()]).inc_by(0);
        }
        for result in ["ok", "failed"] {
            uploads.with_label_values(&[result]).inc_by(0);
        }
        Ok(Self {
            entries,
            uploads,
            queue_depth: gauge("snowbank_agent_queue_depth", "Entries that wait in the spool.")?,
            queue_oldest: gauge(
                "snowbank_agent_queue_oldest_timestamp_seconds",
                "When the oldest entry that waits was put in; 0 if none waits.",
            )?,
            parked: gauge("snowbank_agent_parked", "Entries that are parked with a reason.")?,
            sent_bytes: counter("snowbank_agent_sent_bytes_total", "Bytes of NARs sent.")?,
            pushed_paths: counter(
                "snowbank_agent_pushed_paths_total",
                "Paths that became visible by our pushes.",
            )?,
            last_success: gauge(
                "snowbank_agent_last_success_timestamp_seconds",
                "When an entry was last acknowledged; 0 before the first.",
            )?,
            waits: counter(
                "snowbank_agent_waits_total",
                "Requests that failed in passing, to be asked again.",
            )?,
            process: ProcessMetrics::new(&registry)?,
            registry,
        })
    }

    /// Counts an entry.
    pub fn entry(&self, result: EntryResult) {
        self.entries.with_label_values(&[result.label()]).inc();
    }

    /// Counts an upload.
    pub fn upload(&self, arrived: bool) {
        self.uploads.with_label_values(&[if arrived { "ok" } else { "failed" }]).inc();
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        self.process.render(&self.registry)
    }
}

impl EntryResult {
    const fn label(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Parked => "parked",
            Self::Retried => "retried",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_renders_before_anything_happened() {
        let metrics = AgentMetrics::new().unwrap();
        metrics.entry(EntryResult::Parked);
        metrics.upload(true);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "snowbank_agent_entries_total{result=\"parked\"} 1",
            "snowbank_agent_entries_total{result=\"acknowledged\"} 0",
            "snowbank_agent_uploads_total{result=\"ok\"} 1",
            "snowbank_agent_queue_depth 0",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
