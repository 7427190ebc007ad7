//! `snowbank top`

use std::io::IsTerminal as _;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use console::{Key, Term};
use jiff::Timestamp;

use super::CommandError;
use super::client::duration;
use super::output::print;
use crate::app::top::View;
use crate::client::remote::RemoteUrlError;
use crate::client::scrape::{Samples, Scraper};
use crate::source::upstream::connect::Address;

/// Shows how a server is, live: requests, transfers, pushes, caches, pools and what it asks elsewhere.
///
/// It reads what Prometheus reads, /metrics and /health, and so needs no token. On a terminal it goes on until q or
/// Ctrl-C; elsewhere, or with --once, it prints one look: what came in between two of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank top
  snowbank top https://cache.example.org --every 5s
  snowbank top --once | head -3")]
pub(super) struct TopArguments {
    /// The server
    #[arg(value_name = "URL", env = "SNOWBANK_TO", default_value = "http://127.0.0.1:5000")]
    url: String,

    /// How often to look
    #[arg(long, value_name = "TIME", value_parser = pause, default_value = "1s")]
    every: Duration,

    /// Print one look, and end
    #[arg(long)]
    once: bool,
}

fn pause(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    let read = duration(text)?;
    if allowed.contains(&read) { Ok(read) } else { Err("1s to 1h is expected".into()) }
}

pub(super) fn run(arguments: &TopArguments) -> Result<(), CommandError> {
    let lookup = |name: &str| std::env::var_os(name);
    let address = Address::parse(&arguments.url).map_err(RemoteUrlError::from)?;
    let scraper = Scraper::new(&address, &lookup).map_err(RemoteUrlError::from)?;
    let first = Look::take(&scraper)?;
    if arguments.once || !std::io::stdout().is_terminal() {
        std::thread::sleep(arguments.every);
        let second = Look::take(&scraper)?;
        print(&(second.lines_since(&first, scraper.url()).join("\n") + "\n"));
        return Ok(());
    }
    let term = Term::buffered_stdout();
    let shown = show(&term, &scraper, arguments.every, first);
    // However it ends, the terminal is left as it was.
    let _left = term.show_cursor().and_then(|()| term.flush());
    shown
}

/// How a server is at a moment.
struct Look {
    samples: Samples,
    troubles: Vec<String>,
    at: Instant,
}

impl Look {
    fn take(scraper: &Scraper) -> Result<Self, CommandError> {
        let samples = scraper.metrics()?;
        Ok(Self { samples, troubles: scraper.troubles()?, at: Instant::now() })
    }

    fn lines_since(&self, before: &Self, url: &str) -> Vec<String> {
        let (elapsed, at) = (self.at - before.at, Timestamp::now().as_second());
        let (now, before) = (&self.samples, &before.samples);
        View { url, before, now, elapsed, troubles: &self.troubles, at }.lines()
    }
}

/// Until a key says that it is enough. A server that does not answer is waited for, and that is shown.
fn show(
    term: &Term,
    scraper: &Scraper,
    every: Duration,
    mut before: Look,
) -> Result<(), CommandError> {
    let failed = CommandError::Output;
    let enough = keys(term.clone());
    term.hide_cursor().and_then(|()| term.clear_screen()).map_err(failed)?;
    let mut lines = vec![format!("{}: the first look is being taken; q ends", scraper.url())];
    loop {
        draw(term, &lines).map_err(failed)?;
        match enough.recv_timeout(every) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match Look::take(scraper) {
            Ok(now) => {
                lines = now.lines_since(&before, scraper.url());
                before = now;
            }
            Err(error) => lines = vec![format!("{error}; asked again soon, q ends")],
        }
    }
}

/// Tells once a key was pressed that ends it.
fn keys(term: Term) -> Receiver<()> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match term.read_key_raw() {
                Ok(Key::Char('q' | 'Q') | Key::Escape | Key::CtrlC) | Err(_) => break,
                Ok(_) => {}
            }
        }
        // Whoever waits may be gone.
        let _gone = tell.send(());
    });
    told
}

/// As many lines as there is room for, each as long as there is.
fn draw(term: &Term, lines: &[String]) -> std::io::Result<()> {
    let (height, width) = term.size();
    let (height, width) = (usize::from(height).max(2) - 1, usize::from(width).max(20));
    term.move_cursor_to(0, 0)?;
    for line in lines.iter().take(height) {
        term.clear_line()?;
        term.write_line(&console::truncate_str(line, width, "…"))?;
    }
    term.clear_to_end_of_screen()?;
    term.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_bounded() {
        assert_eq!(pause("5s"), Ok(Duration::from_secs(5)));
        for text in ["0s", "2h", "x"] {
            assert!(pause(text).is_err(), "{text}");
        }
    }
}
