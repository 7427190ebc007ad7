//! Metrics of the process and its build, under the names that the client libraries of Prometheus give them. Read from `/proc` when
//! they are scraped, which is memory (`proc_pid_stat(5)`).

use prometheus::{Counter, Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// All of them.
pub struct ProcessMetrics {
    processor: Counter,
    resident: IntGauge,
    virtual_size: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
    threads: IntGauge,
    started: IntGauge,
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Of the processor, by us and for us, in ticks.
    ticks: u64,
    threads: u64,
    /// In ticks after the system's start.
    started: u64,
    /// In bytes.
    virtual_size: u64,
    /// In pages.
    resident: u64,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            Ok::<_, prometheus::Error>(register!(registry, IntGauge::new(name, help)))
        };
        let build = register!(
            registry,
            IntGaugeVec::new(
                Opts::new("snowbank_build_info", "Always 1; the labels say which build this is."),
                &["version"],
            )
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            processor: register!(
                registry,
                Counter::with_opts(Opts::new(
                    "process_cpu_seconds_total",
                    "Time of processors, in user and in system mode.",
                ))
            ),
            resident: gauge("process_resident_memory_bytes", "Resident memory.")?,
            virtual_size: gauge("process_virtual_memory_bytes", "Virtual memory.")?,
            open_files: gauge("process_open_fds", "Open file descriptors.")?,
            most_files: gauge("process_max_fds", "How many may be open at most.")?,
            threads: gauge("process_threads", "Threads.")?,
            started: gauge("process_start_time_seconds", "When the process was started.")?,
        })
    }

    /// The text that Prometheus scrapes, of all that is registered with this.
    pub(super) fn render(&self, registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
        self.look();
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Looks anew. What cannot be read stays as it was.
    fn look(&self) {
        let set =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let read = |file: &str| std::fs::read_to_string(file).ok();
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            let seconds = stat.ticks as f64 / clock_ticks_per_second() as f64;
            self.processor.inc_by((seconds - self.processor.get()).max(0.0));
            set(&self.resident, stat.resident * page_size() as u64);
            set(&self.virtual_size, stat.virtual_size);
            set(&self.threads, stat.threads);
            if self.started.get() == 0
                && let Some(booted) = read("/proc/stat").as_deref().and_then(boot_time)
            {
                set(&self.started, booted + stat.started / clock_ticks_per_second());
            }
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // The directory that is being read is one of them.
            set(&self.open_files, (files.count() as u64).saturating_sub(1));
        }
        set(&self.most_files, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
    }
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in brackets, which may hold blanks; the third is the first of the rest.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_size: field(23)?,
            resident: field(24)?,
        })
    }
}

/// When the system was started, in seconds since 1970.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual_whatever_the_name_is() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1234 5000000 321 18446744073709551615";
        let stat =
            Stat { ticks: 200, threads: 9, started: 1234, virtual_size: 5_000_000, resident: 321 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
    }

    #[test]
    fn what_is_said_is_of_this_process() {
        let metrics = ProcessMetrics::new(&Registry::new()).unwrap();
        let before = metrics.processor.get();
        let mut sum = 0_u64;
        while metrics.processor.get() <= before {
            sum = (0..1_000_000).fold(sum, u64::wrapping_add);
            metrics.look();
        }
        assert!(sum > 0 && metrics.resident.get() > 1 << 20 && metrics.threads.get() > 0);
        assert!(metrics.resident.get() < metrics.virtual_size.get());
        let files = metrics.open_files.get();
        assert!((3..metrics.most_files.get()).contains(&files), "{files}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let age = now.cast_signed() - metrics.started.get();
        assert!((-2..24 * 60 * 60).contains(&age), "{age}");
    }
}
