//! How far something of many bytes is: a bar on a terminal, a line now and then elsewhere, on standard
//! error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

/// The least time between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(5);
const KNOWN: &str =
    "{prefix} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
const UNKNOWN: &str = "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec}";

/// How far one thing is.
pub(super) struct Progress {
    what: String,
    begin: Instant,
    total: Option<u64>,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows how far `what` is, of `total` bytes where that is known.
    pub(super) fn of(what: String, total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = if total.is_some() { KNOWN } else { UNKNOWN };
            // The template is a constant; were it wrong, the default bar would do.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(what.clone())
        });
        let now = Instant::now();
        Self { what, begin: now, total, last_line: now, bar }
    }

    /// So many bytes are done in all.
    pub(super) fn at(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        } else if self.last_line.elapsed() >= LINE_PAUSE {
            self.last_line = Instant::now();
            say(&line(&self.what, bytes, self.total, self.begin.elapsed()));
        }
    }

    /// It is over, however it ended.
    pub(super) fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, bytes: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = per_second(bytes, elapsed);
    let mut line = format!("{what}: {}", BinaryBytes(bytes));
    if let Some(total) = total {
        line += &format!(" of {}", BinaryBytes(total));
    }
    line += &format!(", {}/s", BinaryBytes(rate));
    let left = total.and_then(|total| total.saturating_sub(bytes).checked_div(rate));
    line + &left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default()
}

/// Bytes in a second.
pub(super) fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

/// Nobody may be reading, which is no reason not to go on.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_how_fast_and_how_long_it_takes() {
        let two_seconds = Duration::from_secs(2);
        assert_eq!(
            line("tank/a", 1 << 20, Some(3 << 20), two_seconds),
            "tank/a: 1.00 MiB of 3.00 MiB, 512.00 KiB/s, 4 s left"
        );
        assert_eq!(line("a", 1 << 20, None, two_seconds), "a: 1.00 MiB, 512.00 KiB/s");
        assert_eq!(line("a", 0, Some(0), Duration::ZERO), "a: 0 B of 0 B, 0 B/s");
    }
}
