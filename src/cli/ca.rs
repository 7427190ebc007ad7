//! `snowbank ca`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CommandError, output, time};
use crate::tls::authority::names::{Domain, HostName, range};
use crate::tls::authority::record::Record;
use crate::tls::authority::{
    Authority, IssuedFiles, MAX_NAME, Plan, Usage, bundle, create, records,
};

/// For how many days a root is valid, if nothing else is said: ten years.
const ROOT_DAYS: u32 = 3650;
/// The same of an intermediate: five years.
const INTERMEDIATE_DAYS: u32 = 1825;
/// The same of a host's certificate: thirteen months, so that what is done once a year has a month's time.
const HOST_DAYS: u32 = 397;
/// No certificate is made for longer, in days: a century.
const MAX_DAYS: u32 = 36_525;
const DAY: i64 = 24 * 3600;

/// Makes a certificate authority of one's own, and certificates for servers and clients.
///
/// It is a directory of small files. root.pem is what hosts trust. root.key signs the intermediate alone and
/// belongs offline; intermediate.key signs the certificates of hosts. The authority is for one domain and, if
/// some are given, for ranges of addresses: clients believe it nothing else, even if a key of it is stolen.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank ca init --domain n3x.internal --ip 10.0.0.0/8
  snowbank ca issue cache.n3x.internal 10.0.0.5
  snowbank ca issue --client runner-3.n3x.internal --days 90
  snowbank ca bundle > n3x-root.pem
  snowbank ca ls
  snowbank ca revoke runner-3.n3x.internal

The server honours what was revoked once it has the new crl.pem (setting tls.client_crl); clients of Nix look
at no such list, so let certificates of servers be short, or have the server issue its own
(tls.certificate_from = \"internal-ca\").")]
pub(super) struct CaArguments {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    Init(InitArguments),
    Issue(IssueArguments),
    Bundle(BundleArguments),
    Ls(LsArguments),
    Revoke(RevokeArguments),
    Renew(RenewArguments),
}

#[derive(Debug, Args)]
struct PlaceArguments {
    /// The authority's directory
    #[arg(long, value_name = "DIR", default_value = "snowbank-ca")]
    dir: PathBuf,
}

/// Makes an authority: a root, and an intermediate below it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  snowbank ca init --domain n3x.internal --ip 10.0.0.0/8 --ip fd00::/8")]
struct InitArguments {
    #[command(flatten)]
    place: PlaceArguments,

    /// The domain whose names it may put into certificates
    #[arg(long)]
    domain: String,

    /// A range of addresses that it may put into certificates; repeatable. Without one, it may put none
    #[arg(long, value_name = "RANGE")]
    ip: Vec<String>,

    /// What its certificates are called [default: Snowbank CA]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// For how many days the root is valid
    #[arg(long, value_name = "N", default_value_t = ROOT_DAYS, value_parser = days())]
    days: u32,

    /// For how many days the intermediate is valid [default: 1825, or as long as the root]
    #[arg(long, value_name = "N", value_parser = days())]
    intermediate_days: Option<u32>,

    /// Make a new one even if there is one, which gets another name
    #[arg(long)]
    force: bool,
}

/// Issues a certificate with a new key, as NAME.pem and NAME.key
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank ca issue cache.n3x.internal 10.0.0.5 --out /etc/snowbank/tls
  snowbank ca issue --client runner-3.n3x.internal --days 90")]
struct IssueArguments {
    /// The names that it is for: DNS names, perhaps with *. before them, and addresses
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// One to be shown by a client, not by a server
    #[arg(long)]
    client: bool,

    /// For how many days it is valid [default: 397, or as long as the intermediate]
    #[arg(long, value_name = "N", value_parser = days())]
    days: Option<u32>,

    /// Where its files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// Put it in the place of files that are there
    #[arg(long)]
    force: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

/// Prints what a host must trust: the root's certificate, in PEM
#[derive(Debug, Args)]
#[command(after_help = "\
Example, on Debian:
  snowbank ca bundle > /usr/local/share/ca-certificates/n3x.crt && update-ca-certificates")]
struct BundleArguments {
    #[command(flatten)]
    place: PlaceArguments,
}

/// Lists all certificates that were issued, and the authority's own
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  snowbank ca ls --dir /etc/snowbank/ca")]
struct LsArguments {
    #[command(flatten)]
    place: PlaceArguments,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Revokes certificates, and writes the list of all that are revoked: crl.pem
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank ca revoke runner-3.n3x.internal
  snowbank ca revoke 5d3f1c0a9b8e7d6c5b4a39281706f5e4")]
struct RevokeArguments {
    /// A name, which is every good certificate that has it, or the serial number of one
    #[arg(value_name = "NAME|SERIAL")]
    wanted: String,

    #[command(flatten)]
    place: PlaceArguments,
}

/// Has the root sign the intermediate again, for a new time; root.key has to be there
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  snowbank ca renew --days 1825

The intermediate's key stays, and so does all that it has signed and revoked. Give the new intermediate.pem to
every server that has one. If a key of the authority was stolen, make a new one: `snowbank ca init --force`.")]
struct RenewArguments {
    /// For how many days it is valid [default: as many as before, or as the root has left]
    #[arg(long, value_name = "N", value_parser = days())]
    days: Option<u32>,

    #[command(flatten)]
    place: PlaceArguments,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS))
}

pub(super) fn run(arguments: &CaArguments) -> Result<(), CommandError> {
    let now = Timestamp::now().as_second();
    match &arguments.command {
        CaCommand::Init(arguments) => init(arguments, now),
        CaCommand::Issue(arguments) => issue(arguments, now),
        CaCommand::Bundle(arguments) => {
            output::print(&bundle(&arguments.place.directory()?)?);
            Ok(())
        }
        CaCommand::Ls(arguments) => list(arguments, now),
        CaCommand::Revoke(arguments) => revoke(arguments, now),
        CaCommand::Renew(arguments) => renew(arguments, now),
    }
}

impl PlaceArguments {
    fn directory(&self) -> Result<PathBuf, CommandError> {
        absolute("--dir", &self.dir)
    }
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path)
        .map_err(|error| CommandError::Usage(format!("{flag} {}: {error}", path.display())))
}

fn usage(error: impl std::fmt::Display) -> CommandError {
    CommandError::Usage(error.to_string())
}

fn init(arguments: &InitArguments, now: i64) -> Result<(), CommandError> {
    let directory = arguments.place.directory()?;
    let name = arguments.name.as_deref().unwrap_or("Snowbank CA");
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let why = format!("--name: 1 to {MAX_NAME} bytes of one line are expected");
        return Err(CommandError::Usage(why));
    }
    let intermediate_days =
        arguments.intermediate_days.unwrap_or(INTERMEDIATE_DAYS.min(arguments.days));
    if intermediate_days > arguments.days {
        let why = "--intermediate-days: the intermediate cannot be valid for longer than the root";
        return Err(CommandError::Usage(why.into()));
    }
    let ranges: Result<Vec<_>, _> = arguments.ip.iter().map(|text| range(text)).collect();
    let plan = Plan {
        name: name.into(),
        domain: Domain::parse(&arguments.domain).map_err(usage)?,
        ranges: ranges.map_err(usage)?,
        root_until: now + i64::from(arguments.days) * DAY,
        intermediate_until: now + i64::from(intermediate_days) * DAY,
    };
    let replaced = create(&directory, &plan, arguments.force, now)?;
    if let Some(replaced) = replaced {
        eprintln!("The authority that was there is now {}.", replaced.display());
    }
    eprintln!(
        "{} is an authority for {} now.\n\
         Hosts trust it by what `snowbank ca bundle` prints.\n\
         Move root.key to where no network leads: only `snowbank ca renew` takes it, and not before {}.",
        directory.display(),
        plan.domain.as_str(),
        time::show(plan.intermediate_until)
    );
    Ok(())
}

fn issue(arguments: &IssueArguments, now: i64) -> Result<(), CommandError> {
    let names: Result<Vec<_>, _> =
        arguments.names.iter().map(|name| HostName::parse(name)).collect();
    let names = names.map_err(usage)?;
    // clap has seen to it that there is one.
    let Some(first) = names.first() else { return Err(usage("a name is expected")) };
    let files = IssuedFiles::of(&absolute("--out", &arguments.out)?, first);
    let kind = if arguments.client { Usage::Client } else { Usage::Server };
    let authority = Authority::open(&arguments.place.directory()?)?;
    let not_after = match arguments.days {
        Some(days) => now + i64::from(days) * DAY,
        None => authority.end_by(now + i64::from(HOST_DAYS) * DAY)?,
    };
    let issued = authority.issue(&names, kind, &files, arguments.force, now, not_after)?;
    let (certificate, key) = (files.certificate.display(), files.key.display());
    if arguments.json {
        let said = json!({
            "serial": issued.serial,
            "certificate": files.certificate,
            "key": files.key,
            "expires": time::show(issued.not_after),
        });
        output::print(&format!("{said}\n"));
        return Ok(());
    }
    output::print(&format!("{certificate}\n{key}\n"));
    let ends = time::show(issued.not_after);
    match kind {
        Usage::Server => eprintln!(
            "Valid until {ends}. In the server's configuration:\n  \
             [tls]\n  certificate = \"{certificate}\"\n  key = \"{key}\""
        ),
        Usage::Client => eprintln!(
            "Valid until {ends}. Nix from 2.34 on takes it in a store's URL:\n  \
             https://HOST?tls-certificate={certificate}&tls-private-key={key}\n\
             snowbank push and snowbank agent take --tls-certificate and --tls-private-key."
        ),
    }
    Ok(())
}

fn list(arguments: &LsArguments, now: i64) -> Result<(), CommandError> {
    let all = records(&arguments.place.directory()?)?;
    let text = if arguments.json {
        Value::Array(all.iter().map(|record| describe(record, now)).collect()).to_string() + "\n"
    } else {
        table(&all, now)
    };
    output::print(&text);
    Ok(())
}

fn describe(record: &Record, now: i64) -> Value {
    json!({
        "serial": record.serial,
        "kind": record.kind.as_str(),
        "state": record.state(now).as_str(),
        "expires": time::show(record.not_after),
        "revoked": record.revoked.map(time::show),
        "names": record.names,
    })
}

fn table(records: &[Record], now: i64) -> String {
    let mut rows = vec![["SERIAL", "KIND", "STATE", "EXPIRES", "NAMES"].map(String::from)];
    rows.extend(records.iter().map(|record| {
        [
            record.serial.clone(),
            record.kind.as_str().into(),
            record.state(now).as_str().into(),
            time::show(record.not_after),
            record.names.join(","),
        ]
    }));
    output::table(&rows)
}

fn revoke(arguments: &RevokeArguments, now: i64) -> Result<(), CommandError> {
    let authority = Authority::open(&arguments.place.directory()?)?;
    let revoked = authority.revoke(&arguments.wanted, now)?;
    for record in &revoked {
        eprintln!("{} ({}) is revoked", record.serial, record.names.join(","));
    }
    if revoked.is_empty() {
        eprintln!("{} was revoked or had expired before", arguments.wanted);
    }
    eprintln!(
        "The list of all that are revoked; nothing is refused before it is copied to where the server's \
         tls.client_crl points:"
    );
    output::print(&format!("{}\n", authority.revocations().display()));
    Ok(())
}

fn renew(arguments: &RenewArguments, now: i64) -> Result<(), CommandError> {
    let authority = Authority::open(&arguments.place.directory()?)?;
    let not_after = arguments.days.map(|days| now + i64::from(days) * DAY);
    let ends = authority.renew(now, not_after)?;
    eprintln!(
        "The intermediate is valid until {}. Give intermediate.pem to every server that has one, and crl.pem to \
         each that has that; and move root.key away again.",
        time::show(ends)
    );
    Ok(())
}
