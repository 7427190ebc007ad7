//! `snowbank doctor`

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::CommandError;
use super::output::print;
use super::place::PlaceArguments;
use crate::app::doctor::{Finding, Verdict, examine};

/// Looks at everything that a server needs on its host, and says what to do about what is wrong.
///
/// Run it on the host of the server, as the user that the server runs as: then it sees what that user may not.
/// It changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank doctor
  snowbank doctor --config /etc/snowbank.toml --json

It ends with 0 if nothing is a problem, with 1 otherwise.")]
pub(super) struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &DoctorArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let findings = examine(&config, Timestamp::now().as_second());
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

fn describe(finding: &Finding) -> Value {
    json!({
        "verdict": finding.verdict.word(),
        "what": finding.what,
        "remedy": finding.remedy,
    })
}
