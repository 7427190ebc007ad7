//! `snowbank doctor`

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::CommandError;
use super::output::print;
use super::place::PlaceArguments;
use crate::app::doctor::remote::{self, Question};
use crate::app::doctor::{Finding, Verdict, examine};
use crate::config::{self, Environment};

/// Says what is wrong, and what to do about it: on the host of a server, or on the way from this machine to a
/// cache.
///
/// Without a URL it looks at all that a server needs on its host. Run it there, as the user that the server runs
/// as: then it sees what that user may not.
///
/// With the URL of a cache it looks, on the machine of a client, at what a Nix here would meet: nix.conf (as the
/// nix-daemon and as the user have it), DNS, TCP, TLS, the clock, HTTP, nix-cache-info, the netrc, the key and
/// one path. As root it sees the environment of the nix-daemon too. It changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank doctor
  snowbank doctor --config /etc/snowbank.toml --json
  snowbank doctor https://cache.example.org
  sudo snowbank doctor https://cache.example.org --path /nix/store/0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5-hello

Each line is ok, or skipped, or a warning or a problem with what to do about it.
It ends with 0 if nothing is a problem, with 1 otherwise.")]
pub(super) struct DoctorArguments {
    /// The cache to examine the way to, from this machine; else this host is examined
    #[arg(value_name = "URL", conflicts_with_all = ["config", "data_dir"])]
    url: Option<String>,

    /// A path to fetch from there and check, whole: HASH-NAME, its 32 digits, or a full store path
    #[arg(long, value_name = "PATH", requires = "url")]
    path: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &DoctorArguments) -> Result<(), CommandError> {
    let findings = match &arguments.url {
        Some(url) => on_the_way(url, arguments.path.as_deref())?,
        None => examine(&arguments.place.load()?, Timestamp::now().as_second()),
    };
    print(&if arguments.json {
        Value::Array(findings.iter().map(describe).collect()).to_string() + "\n"
    } else {
        findings.iter().map(|finding| format!("{finding}\n")).collect()
    });
    match findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count() {
        0 => Ok(()),
        count => Err(CommandError::Problems(count)),
    }
}

fn on_the_way(url: &str, path: Option<&str>) -> Result<Vec<Finding>, CommandError> {
    let lookup = |name: &str| std::env::var_os(name);
    let is_root = rustix::process::geteuid().is_root();
    let store = config::store_of_command(None, &Environment { lookup: &lookup, is_root })?;
    let question = Question::parse(url, path, store.store_dir)
        .map_err(|error| CommandError::Usage(error.to_string()))?;
    Ok(remote::examine(&question, &lookup))
}

fn describe(finding: &Finding) -> Value {
    json!({
        "verdict": finding.verdict.word(),
        "what": finding.what,
        "remedy": finding.remedy,
    })
}
