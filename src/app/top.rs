//! What `snowbank top` shows: what came and went between two looks at the metrics of a server, as lines of text.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};

use crate::client::scrape::{Sample, Samples};

/// The seconds of a histogram.
const LATENCY: &str = "snowbank_http_request_duration_seconds";
/// What [`LATENCY`] and requests are told apart by.
const ROUTE: &str = "route";

/// Two looks at one server.
pub struct View<'a> {
    /// Its address.
    pub url: &'a str,
    /// The earlier look.
    pub before: &'a Samples,
    /// The later one.
    pub now: &'a Samples,
    /// The time between them.
    pub elapsed: Duration,
    /// What is wrong, one line each.
    pub troubles: &'a [String],
    /// In seconds since 1970.
    pub at: i64,
}

impl View<'_> {
    /// All of it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.head()];
        lines.extend(self.troubles.iter().map(|trouble| format!("  ! {trouble}")));
        lines.push(self.requests());
        lines.push(self.transfers());
        lines.push(self.process());
        lines.extend(self.routes());
        lines.extend(self.pushes());
        lines.extend(self.caches());
        lines.extend(self.pools());
        lines.extend(self.upstreams());
        lines
    }

    fn head(&self) -> String {
        let version = self.now.all("snowbank_build_info").first();
        let version = version.map_or("?", |sample| sample.label("version"));
        let started = self.now.sum("process_start_time_seconds", &[]);
        #[expect(clippy::cast_precision_loss, reason = "shown in minutes and days")]
        let up = Duration::from_secs_f64((self.at as f64 - started).max(0.0));
        let well = if self.troubles.is_empty() { "all is well" } else { "something is wrong" };
        format!("{}  snowbank {version}, up {}, {well}", self.url, HumanDuration(up))
    }

    fn requests(&self) -> String {
        let gauge = |name: &str| self.now.sum(name, &[]);
        let hits = self.grown("snowbank_narinfo_hits_total", &[]);
        let misses = self.grown("snowbank_narinfo_misses_total", &[]);
        let asked = hits + misses;
        let rate =
            if asked > 0.0 { format!("{:.1} %", 100.0 * hits / asked) } else { "–".into() };
        format!(
            "requests   {:.0}/s   {:.0} in flight   {:.0} connections   hit rate {rate}   {} denied",
            self.per_second("snowbank_http_requests_total", &[]),
            gauge("snowbank_http_requests_in_flight"),
            gauge("snowbank_connections_open"),
            per_second(self.per_second("snowbank_denied_requests_total", &[])),
        )
    }

    fn transfers(&self) -> String {
        let sent = |encoding: &str| {
            self.per_second("snowbank_http_sent_bytes_total", &[("encoding", encoding)])
        };
        let (plain, compressed, other) = (sent("nar"), sent("compressed"), sent("other"));
        format!(
            "transfers  {} sent (NARs plain {}, compressed {}, other {})   {} cut short",
            rate(plain + compressed + other),
            rate(plain),
            rate(compressed),
            rate(other),
            per_second(self.per_second("snowbank_aborted_transfers_total", &[])),
        )
    }

    fn process(&self) -> String {
        let gauge = |name: &str| self.now.sum(name, &[]);
        format!(
            "process    {:.0} % of a core   {} of memory   {:.0} open files   {:.0} threads",
            100.0 * self.per_second("process_cpu_seconds_total", &[]),
            bytes(gauge("process_resident_memory_bytes")),
            gauge("process_open_fds"),
            gauge("process_threads"),
        )
    }

    /// A line for each kind of request that there was.
    fn routes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for sample in self.now.all(&format!("{LATENCY}_count")) {
            let labels = [(ROUTE, sample.label(ROUTE))];
            let count = self.per_second("snowbank_http_requests_total", &labels);
            if count == 0.0 {
                continue;
            }
            let errors: f64 = ["500", "503", "504", "507"]
                .iter()
                .map(|status| {
                    let labels = [labels[0], ("status", *status)];
                    self.per_second("snowbank_http_requests_total", &labels)
                })
                .sum();
            lines.push(format!(
                "  {:<15} {count:>9.0}/s   p50 {:>9}   p99 {:>9}   {} failed",
                labels[0].1,
                self.quantile(0.5, labels[0].1),
                self.quantile(0.99, labels[0].1),
                per_second(errors),
            ));
        }
        lines
    }

    fn pushes(&self) -> Vec<String> {
        let stage = |name: &str| {
            let labels = [("stage", name)];
            let count = self.grown("snowbank_ingest_stage_duration_seconds_count", &labels);
            let sum = self.grown("snowbank_ingest_stage_duration_seconds_sum", &labels);
            let mean = if count > 0.0 { seconds(sum / count) } else { "–".into() };
            format!("{name} {mean}")
        };
        let mut lines = vec![format!(
            "pushes     {} paths   {} of NARs   {} · {} · {}",
            per_second(self.per_second("snowbank_pushed_paths_total", &[])),
            rate(self.per_second("snowbank_pushed_nar_bytes_total", &[])),
            stage("receive"),
            stage("keep"),
            stage("publish"),
        )];
        for last in self.now.all("snowbank_last_push_timestamp_seconds") {
            #[expect(clippy::cast_precision_loss, reason = "shown in minutes and days")]
            let ago = Duration::from_secs_f64((self.at as f64 - last.value).max(0.0));
            let cache = last.label("cache");
            let waiting = self.now.sum("snowbank_waiting_nars", &[("cache", cache)]);
            lines.push(format!(
                "  {cache:<15} last {} ago   {waiting:.0} NARs wait for their narinfo",
                HumanDuration(ago)
            ));
        }
        lines
    }

    fn caches(&self) -> Vec<String> {
        let mut lines = vec!["caches".to_owned()];
        for paths in self.now.all("snowbank_source_paths") {
            let (cache, source) = (paths.label("cache"), paths.label("source"));
            let labels = [("cache", cache), ("source", source)];
            let up = self.now.sum("snowbank_source_up", &labels) > 0.0;
            let state = if up { "" } else { "   AWAY" };
            lines.push(format!(
                "  {cache:<15} {source:<10} {:>10.0} paths   {:>11}{state}",
                paths.value,
                bytes(self.now.sum("snowbank_source_nar_bytes", &labels)),
            ));
        }
        lines
    }

    fn pools(&self) -> Vec<String> {
        let pools = self.now.all("snowbank_zfs_pool_size_bytes");
        let pool = |size: &Sample| {
            let name = size.label("pool");
            let of = |metric: &str| self.now.sum(metric, &[("pool", name)]);
            let states = self.now.all("snowbank_zfs_pool_health");
            let state = states.iter().find(|one| one.label("pool") == name && one.value > 0.0);
            let taken = of("snowbank_zfs_pool_allocated_bytes");
            format!(
                "  {name:<15} {:<10} {} of {} taken, {:.0} %   {:.0} errors",
                state.map_or("?", |state| state.label("state")).to_uppercase(),
                bytes(taken),
                bytes(size.value),
                100.0 * taken / size.value.max(1.0),
                of("snowbank_zfs_pool_errors"),
            )
        };
        let lines: Vec<_> = pools.iter().map(pool).collect();
        if lines.is_empty() { lines } else { [vec!["pools".to_owned()], lines].concat() }
    }

    fn upstreams(&self) -> Vec<String> {
        let line = |up: &Sample| {
            let state = if up.value > 0.0 { "answers" } else { "does not answer" };
            format!("  {:<15} {}   {state}", up.label("cache"), up.label("upstream"))
        };
        let lines: Vec<_> = self.now.all("snowbank_upstream_up").iter().map(line).collect();
        if lines.is_empty() { lines } else { [vec!["asks".to_owned()], lines].concat() }
    }

    /// How much counters have grown; one that began anew, with the server, by what it is.
    fn grown(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (before, now) = (self.before.sum(name, labels), self.now.sum(name, labels));
        if now < before { now } else { now - before }
    }

    fn per_second(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.grown(name, labels) / self.elapsed.as_secs_f64().max(0.001)
    }

    /// A quantile of how long requests took that came between the looks, as far as the buckets tell it.
    fn quantile(&self, quantile: f64, route: &str) -> String {
        let name = format!("{LATENCY}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.now.all(&name).iter().filter(|sample| sample.label(ROUTE) == route) {
            let end = sample.label("le");
            let grown = self.grown(&name, &[(ROUTE, route), ("le", end)]);
            buckets.push((end.parse().unwrap_or(f64::INFINITY), grown));
        }
        match within(quantile, &buckets) {
            None => "–".into(),
            Some(Ok(value)) => seconds(value),
            Some(Err(least)) => format!(">{}", seconds(least)),
        }
    }
}

/// A quantile by cumulative buckets, their ends rising: between the ends of its bucket, evenly. Of the last one, which
/// has no end, only where it begins is known.
fn within(quantile: f64, buckets: &[(f64, f64)]) -> Option<Result<f64, f64>> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = quantile * all;
    let (mut begin, mut below) = (0.0, 0.0);
    for (end, count) in buckets {
        if *count >= rank {
            if end.is_infinite() {
                return Some(Err(begin));
            }
            return Some(Ok(begin + (end - begin) * (rank - below) / (count - below).max(1e-9)));
        }
        (begin, below) = (*end, *count);
    }
    None
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
fn bytes(bytes: f64) -> String {
    BinaryBytes(bytes.max(0.0) as u64).to_string()
}

fn rate(per_second: f64) -> String {
    format!("{}/s", bytes(per_second))
}

/// Of what is rare.
fn per_second(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(before: &'a Samples, now: &'a Samples) -> View<'a> {
        let elapsed = Duration::from_secs(2);
        View { url: "http://a", before, now, elapsed, troubles: &[], at: 1_000_000 }
    }

    #[test]
    fn rates_are_what_came_between_two_looks() {
        let before = Samples::parse(
            "snowbank_http_requests_total{route=\"nar\",status=\"200\"} 100\n\
             snowbank_narinfo_hits_total{source=\"bank\"} 5\nsnowbank_narinfo_misses_total 7\n",
        );
        let now = Samples::parse(
            "snowbank_http_requests_total{route=\"nar\",status=\"200\"} 140\n\
             snowbank_http_requests_total{route=\"nar\",status=\"503\"} 4\n\
             snowbank_http_request_duration_seconds_count{route=\"nar\"} 44\n\
             snowbank_narinfo_hits_total{source=\"bank\"} 8\nsnowbank_narinfo_misses_total 8\n\
             snowbank_http_requests_in_flight 3\n",
        );
        let text = view(&before, &now).lines().join("\n");
        for part in ["22/s   3 in flight", "hit rate 75.0 %", "2.0/s failed"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        // The server began anew.
        let text = view(&now, &before).lines().join("\n");
        assert!(text.contains("50/s") && !text.contains('-'), "{text}");
    }

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        let buckets = [(0.1, 50.0), (0.2, 90.0), (1.0, 99.0), (f64::INFINITY, 100.0)];
        assert_eq!(within(0.5, &buckets), Some(Ok(0.1)));
        let Some(Ok(value)) = within(0.7, &buckets) else { panic!() };
        assert!((value - 0.15).abs() < 1e-9, "{value}");
        assert_eq!(
            within(0.999, &buckets),
            Some(Err(1.0)),
            "no more than where it begins is known"
        );
        assert_eq!(within(0.5, &[(0.1, 0.0), (f64::INFINITY, 0.0)]), None);
        assert_eq!(within(0.5, &[]), None);
    }

    #[test]
    fn pools_and_caches_have_their_lines() {
        let now = Samples::parse(
            "snowbank_zfs_pool_size_bytes{pool=\"tank\"} 1073741824\n\
             snowbank_zfs_pool_allocated_bytes{pool=\"tank\"} 536870912\n\
             snowbank_zfs_pool_health{pool=\"tank\",state=\"online\"} 0\n\
             snowbank_zfs_pool_health{pool=\"tank\",state=\"degraded\"} 1\n\
             snowbank_zfs_pool_errors{pool=\"tank\",kind=\"read\"} 2\n\
             snowbank_source_paths{cache=\"team\",source=\"bank\"} 12\n\
             snowbank_source_up{cache=\"team\",source=\"bank\"} 0\n\
             snowbank_upstream_up{cache=\"team\",upstream=\"http://b\"} 0\n\
             snowbank_last_push_timestamp_seconds{cache=\"team\"} 999880\n",
        );
        let text = view(&now, &now).lines().join("\n");
        for part in [
            "DEGRADED   512.00 MiB of 1.00 GiB taken, 50 %   2 errors",
            "12 paths",
            "AWAY",
            "http://b   does not answer",
            "last 2 minutes ago",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
