//! Shows how a push goes: bars on a terminal, a line now and then elsewhere, on standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};

use super::events::Events;
use super::push::PushSummary;
use super::remote::RemoteError;
use crate::nix::path_info::PathInfo;

/// The least time between two lines where there is no terminal.
const LINE_PAUSE: Duration = Duration::from_secs(5);
const TEMPLATE: &str =
    "{prefix} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";

/// A push as people see it.
pub struct Progress {
    style: Style,
    begin: Instant,
    state: Mutex<State>,
}

enum Style {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

#[derive(Default)]
struct State {
    paths: usize,
    done: usize,
    nar_bytes: u64,
    moved: u64,
    last_line: Option<Instant>,
}

impl Progress {
    /// As fits standard error; nothing but what goes wrong if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let style = if quiet {
            Style::Quiet
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::new(0);
            // The template is a constant; were it wrong, the default bar would do.
            if let Ok(template) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(template.progress_chars("=> "));
            }
            Style::Bar(bar)
        } else {
            Style::Lines
        };
        Self { style, begin: Instant::now(), state: Mutex::default() }
    }

    /// The closing line.
    pub fn finish(&self, summary: &PushSummary) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
        if !matches!(self.style, Style::Quiet) {
            say(&closing_line(summary, self.begin.elapsed()));
        }
    }

    /// Ends without a closing line.
    pub fn abandon(&self) {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        match &self.style {
            Style::Bar(bar) => {
                bar.set_length(state.nar_bytes);
                bar.set_position(state.moved);
                bar.set_prefix(format!("{}/{} paths", state.done, state.paths));
            }
            Style::Lines => {
                let last = *state.last_line.get_or_insert(self.begin);
                if last.elapsed() >= LINE_PAUSE {
                    state.last_line = Some(Instant::now());
                    say(&line(&state, self.begin.elapsed()));
                }
            }
            Style::Quiet => {}
        }
    }

    fn remark(&self, line: &str) {
        match &self.style {
            Style::Bar(bar) => bar.println(line),
            Style::Lines | Style::Quiet => say(line),
        }
    }
}

impl Events for Progress {
    fn begin(&self, paths: usize, nar_bytes: u64) {
        self.update(|state| {
            *state = State { paths, nar_bytes, last_line: state.last_line, ..State::default() };
        });
    }

    fn moved(&self, nar_bytes: i64) {
        self.update(|state| state.moved = state.moved.saturating_add_signed(nar_bytes));
    }

    fn uploaded(&self, _info: &PathInfo) {
        self.update(|state| state.done += 1);
    }

    fn failed(&self, info: &PathInfo, why: &str) {
        self.remark(&format!("snowbank: {}: {why}", info.path));
    }

    fn waiting(&self, error: &RemoteError, wait: Duration) {
        if !matches!(self.style, Style::Quiet) {
            self.remark(&format!("snowbank: trying again in {:.1} s: {error}", wait.as_secs_f32()));
        }
    }

    fn note(&self, line: &str) {
        if !matches!(self.style, Style::Quiet) {
            self.remark(&format!("snowbank: {line}"));
        }
    }
}

fn line(state: &State, elapsed: Duration) -> String {
    let rate = per_second(state.moved, elapsed);
    let left = match state.nar_bytes.saturating_sub(state.moved).checked_div(rate) {
        Some(seconds) => format!(", {seconds} s left"),
        None => String::new(),
    };
    format!(
        "{}/{} paths, {} of {}, {}/s{left}",
        state.done,
        state.paths,
        BinaryBytes(state.moved),
        BinaryBytes(state.nar_bytes),
        BinaryBytes(rate),
    )
}

fn closing_line(summary: &PushSummary, elapsed: Duration) -> String {
    let count = |count: usize| if count == 1 { "1 path".into() } else { format!("{count} paths") };
    let nar_bytes = BinaryBytes(summary.nar_bytes);
    let mut text = if summary.dry_run {
        format!("would push {} ({nar_bytes})", count(summary.pushed.len()))
    } else if summary.pushed.is_empty() {
        "nothing to push".to_owned()
    } else {
        let sent = BinaryBytes(summary.sent_bytes);
        format!("pushed {} ({nar_bytes}, {sent} sent)", count(summary.pushed.len()))
    };
    if summary.present > 0 {
        text += &format!(", {} there already", summary.present);
    }
    if summary.upstream > 0 {
        text += &format!(", {} left to an upstream", summary.upstream);
    }
    format!("{text}, in {:.1} s", elapsed.as_secs_f32())
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

/// Nobody may be reading, which is no reason not to push.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::super::testing::path_of;
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is_how_fast_and_how_long_it_takes() {
        let state =
            State { paths: 9, done: 2, nar_bytes: 3 << 20, moved: 1 << 20, last_line: None };
        let text = line(&state, Duration::from_secs(2));
        assert_eq!(text, "2/9 paths, 1.00 MiB of 3.00 MiB, 512.00 KiB/s, 4 s left");
        let none = State::default();
        assert_eq!(line(&none, Duration::ZERO), "0/0 paths, 0 B of 0 B, 0 B/s");
    }

    #[test]
    fn the_closing_line_says_what_became_of_every_path() {
        let mut summary = PushSummary {
            pushed: vec![path_of("a")],
            present: 3,
            upstream: 2,
            nar_bytes: 2048,
            sent_bytes: 1024,
            dry_run: false,
        };
        let second = Duration::from_secs(1);
        assert_eq!(
            closing_line(&summary, second),
            "pushed 1 path (2.00 KiB, 1.00 KiB sent), 3 there already, 2 left to an upstream, in 1.0 s"
        );
        summary.dry_run = true;
        assert!(closing_line(&summary, second).starts_with("would push 1 path (2.00 KiB), 3"));
        assert_eq!(closing_line(&PushSummary::default(), second), "nothing to push, in 1.0 s");
    }
}
