//! `snowbank queue`

use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::json;

use super::CommandError;
use super::client::{SpoolArguments, duration};
use crate::client::notice::Notice;
use crate::client::spool::{EntryState, Listed, Spool};

/// How often a queue that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows what waits to be pushed, and what could not be.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank queue ls
  snowbank queue ls --json
  snowbank queue why /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello
  snowbank queue retry --all
  snowbank queue wait --timeout 10m")]
pub(super) struct QueueArguments {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Lists what waits, what is being pushed, and what is parked
    Ls {
        #[command(flatten)]
        spool: SpoolArguments,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Has parked entries tried again
    Retry {
        #[command(flatten)]
        spool: SpoolArguments,
        /// Which, as `queue ls` names them
        #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
        ids: Vec<String>,
        /// All that are parked
        #[arg(long)]
        all: bool,
    },
    /// Says where an entry stands, and why
    Why {
        #[command(flatten)]
        spool: SpoolArguments,
        /// An id as `queue ls` names it, a store path, or a part of one
        #[arg(value_name = "ID|PATH")]
        what: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Waits until the queue is empty; ends with 0 if nothing is parked then, else with 1
    Wait {
        #[command(flatten)]
        spool: SpoolArguments,
        /// How long to wait; then it ends with 1 [example: --timeout 10m]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
    },
}

pub(super) fn run(arguments: &QueueArguments) -> Result<(), CommandError> {
    match &arguments.command {
        QueueCommand::Ls { spool, json } => {
            let spool = Spool::new(spool.directory());
            let listed = spool.list().map_err(|error| failed(&spool, error))?;
            print(&show(&listed, spool.last_error().as_deref(), *json));
            Ok(())
        }
        QueueCommand::Retry { spool, ids, all } => retry(&Spool::new(spool.directory()), ids, *all),
        QueueCommand::Why { spool, what, json } => {
            let spool = Spool::new(spool.directory());
            let mut listed = spool.list().map_err(|error| failed(&spool, error))?;
            listed.retain(|one| is_meant(one, what));
            if listed.is_empty() {
                let what = what.clone();
                return Err(CommandError::Queue(format!(
                    "{what} is not in the queue: pushed, or never put in"
                )));
            }
            let last_error = spool.last_error();
            if *json {
                print(&show(&listed, last_error.as_deref(), true));
            } else {
                let lines = listed.iter().map(|one| explain(one, last_error.as_deref()));
                print(&lines.collect::<String>());
            }
            Ok(())
        }
        QueueCommand::Wait { spool, timeout } => wait(&Spool::new(spool.directory()), *timeout),
    }
}

fn failed(spool: &Spool, error: io::Error) -> CommandError {
    CommandError::Queue(format!("the queue {}: {error}", spool.directory().display()))
}

fn retry(spool: &Spool, ids: &[String], all: bool) -> Result<(), CommandError> {
    let fail = |error| failed(spool, error);
    let ids = if all {
        let listed = spool.list().map_err(fail)?.into_iter();
        let parked = listed.filter(|one| matches!(one.state, EntryState::Parked(_)));
        parked.map(|one| one.id).collect()
    } else {
        ids.to_vec()
    };
    for id in &ids {
        // An id is a file's name, and nothing else may be.
        let is_id = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !is_id || !spool.retry(id).map_err(fail)? {
            return Err(CommandError::Queue(format!("{id} is not parked")));
        }
    }
    print(&format!("{} queued again\n", ids.len()));
    Ok(())
}

fn wait(spool: &Spool, timeout: Option<Duration>) -> Result<(), CommandError> {
    let begin = Instant::now();
    // What goes out of the queue tells nobody, so it is looked at; what comes in only wakes us.
    let notice = Notice::watch(spool.directory()).ok();
    loop {
        let (waiting, parked, _) = spool.depth().map_err(|error| failed(spool, error))?;
        match (waiting, parked) {
            (0, 0) => return Ok(()),
            (0, parked) => {
                let line = format!("{parked} parked; `snowbank queue ls` says why");
                return Err(CommandError::Queue(line));
            }
            _ => {}
        }
        if timeout.is_some_and(|timeout| begin.elapsed() >= timeout) {
            let why = spool.last_error().map(|why| format!(": {why}")).unwrap_or_default();
            return Err(CommandError::Queue(format!("{waiting} still wait{why}")));
        }
        match &notice {
            Some(notice) => notice.wait(LOOK_EVERY),
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn is_meant(listed: &Listed, what: &str) -> bool {
    let names = |entry: &crate::client::spool::Entry| {
        entry.outs.iter().chain(&entry.drv).any(|path| path.contains(what))
    };
    listed.id == what || listed.entry.as_ref().is_ok_and(names)
}

fn show(listed: &[Listed], last_error: Option<&str>, json: bool) -> String {
    if json {
        let entries: Vec<_> = listed.iter().map(as_json).collect();
        let value = json!({ "entries": entries, "last_error": last_error });
        return serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    }
    let mut text = String::new();
    for one in listed {
        let (state, reason) = words(&one.state);
        let what = match &one.entry {
            Ok(entry) => entry.outs.join(" "),
            Err(why) => why.clone(),
        };
        text += &format!("{}  {state:<7}  {:>6}  {what}{reason}\n", one.id, age(one.time));
    }
    if let Some(error) = last_error {
        text += &format!("the last try failed: {error}\n");
    }
    text
}

fn words(state: &EntryState) -> (&'static str, String) {
    match state {
        EntryState::Waiting => ("waiting", String::new()),
        EntryState::Taken => ("pushing", String::new()),
        EntryState::Parked(reason) => ("parked", format!("  ({reason})")),
    }
}

fn as_json(listed: &Listed) -> serde_json::Value {
    let reason = match &listed.state {
        EntryState::Parked(reason) => Some(reason),
        _ => None,
    };
    let entry = listed.entry.as_ref().ok();
    json!({
        "id": listed.id,
        "state": words(&listed.state).0,
        "time": listed.time,
        "outs": entry.map(|entry| &entry.outs),
        "drv": entry.and_then(|entry| entry.drv.as_ref()),
        "reason": reason,
        "damage": listed.entry.as_ref().err(),
    })
}

fn explain(listed: &Listed, last_error: Option<&str>) -> String {
    let mut text = format!("{}, since {}\n", listed.id, age(listed.time));
    match &listed.entry {
        Ok(entry) => entry.outs.iter().for_each(|out| text += &format!("  {out}\n")),
        Err(why) => text += &format!("  {why}\n"),
    }
    text += &match (&listed.state, last_error) {
        (EntryState::Parked(reason), _) => {
            format!("  parked: {reason}\n  try it again: snowbank queue retry {}\n", listed.id)
        }
        (EntryState::Taken, None) => "  an agent is pushing it\n".to_owned(),
        (EntryState::Waiting, None) => "  waits for an agent; does one run?\n".to_owned(),
        (_, Some(error)) => format!("  the agent's last try failed: {error}\n"),
    };
    text
}

fn age(time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match now.saturating_sub(time) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A closed pipe (`| head`) is no failure of ours.
fn print(text: &str) {
    let _closed = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::spool::Entry;

    fn spool_with_one() -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().join("spool"));
        let entry = Entry { time: 7, drv: None, outs: vec!["/nix/store/x-hello".into()] };
        spool.append("1", &entry).unwrap();
        (directory, spool)
    }

    #[test]
    fn a_queue_is_waited_for_until_it_is_empty_and_parked_entries_are_a_failure() {
        let (_directory, spool) = spool_with_one();
        let error = wait(&spool, Some(Duration::ZERO)).unwrap_err().to_string();
        assert!(error.contains("1 still wait"), "{error}");
        let other = spool.clone();
        let agent = std::thread::spawn(move || {
            let claim = other.claim("1").unwrap().unwrap();
            other.park(claim, "no").unwrap();
        });
        let error = wait(&spool, Some(Duration::from_secs(60))).unwrap_err().to_string();
        assert!(error.contains("1 parked"), "{error}");
        agent.join().unwrap();
        retry(&spool, &[], true).unwrap();
        spool.acknowledge(spool.claim("1").unwrap().unwrap()).unwrap();
        wait(&spool, None).unwrap();
    }

    #[test]
    fn only_what_is_parked_is_tried_again_and_no_other_file_is_touched() {
        let (_directory, spool) = spool_with_one();
        for id in ["1", "../1", "", "2"] {
            let error = retry(&spool, &[id.to_owned()], false).unwrap_err();
            assert!(error.to_string().contains("is not parked"), "{id}");
        }
    }

    #[test]
    fn an_entry_is_found_by_its_id_and_by_its_paths_and_says_why() {
        let (_directory, spool) = spool_with_one();
        let one = spool.list().unwrap().remove(0);
        for what in ["1", "hello", "/nix/store/x-hello"] {
            assert!(is_meant(&one, what), "{what}");
        }
        assert!(!is_meant(&one, "other"));
        assert!(explain(&one, None).contains("does one run?"));
        assert!(explain(&one, Some("away")).contains("away"));
        spool.park(spool.claim("1").unwrap().unwrap(), "refused").unwrap();
        let listed = spool.list().unwrap();
        assert!(explain(&listed[0], None).contains("queue retry 1"));
        let json: serde_json::Value = serde_json::from_str(&show(&listed, None, true)).unwrap();
        assert_eq!(json["entries"][0]["reason"], "refused");
        assert!(
            show(&listed, Some("away"), false).contains("(refused)\nthe last try failed: away")
        );
    }
}
