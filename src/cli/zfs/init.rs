//! `snowbank zfs init`

use clap::Args;

use crate::app::datasets::layout;
use crate::cli::CommandError;
use crate::cli::output::print;
use crate::cli::place::PlaceArguments;
use crate::cli::progress::{Progress, say};
use crate::config::Config;
use crate::zfs::account::Account;
use crate::zfs::layout::{Copied, Files, Found, Plan, Step, Watcher};
use crate::zfs::name::UserName;
use crate::zfs::{DatasetName, Zfs};

/// What the parent is called where only a pool is named.
const PARENT: &str = "snowbank";

/// Makes a dataset of each cache of the configuration, and one for the server's state, and delegates to
/// the service user what it needs to manage them.
///
/// It may be run as often as one likes, and after each change of the configuration: what is there as it
/// should be is left alone, what drifted from the property table is set. It needs root, because only
/// root mounts; the server does not need it afterwards.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs init tank --dry-run                      # prints the commands, runs none
  snowbank zfs init tank                                # below tank/snowbank
  snowbank zfs init tank/caches --user nixcache --config /etc/snowbank.toml
  snowbank zfs init tank --adopt                        # a bank that is a plain directory moves into its dataset

What --adopt copies stays where it was, as DIRECTORY.before-zfs, for you to remove. It can be interrupted
and run again; stop the server before.")]
pub(super) struct InitArguments {
    /// The pool, or the dataset in it, that everything goes below [default: `dataset` of `[zfs]` in the
    /// configuration; POOL/snowbank where only a pool is named]
    #[arg(value_name = "POOL[/PARENT]")]
    parent: Option<DatasetName>,

    /// The user that the server runs as, by name or number; root needs no rights
    #[arg(long, value_name = "USER", default_value = "snowbank")]
    user: UserName,

    /// Print the commands that would be run, and run none
    #[arg(long)]
    dry_run: bool,

    /// Move files that lie in the directory of a cache into its new dataset
    #[arg(long)]
    adopt: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &InitArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let parent = parent(arguments.parent.as_ref(), &config)?;
    let zfs = Zfs::find()?;
    let layout = layout(&config, &parent, account(&zfs, &arguments.user)?)
        .map_err(|error| CommandError::Usage(error.to_string()))?;
    let files = if arguments.adopt { Files::Adopt } else { Files::Refuse };
    let plan = layout.plan(&Found::look(&zfs, &layout)?, files)?;
    for remark in &plan.remarks {
        let (found, wanted) = (remark.drift.found.as_deref().unwrap_or("-"), remark.drift.wanted);
        let (name, value) = (wanted.name, wanted.value);
        say(&format!("{} has {name}={found} and not {value}, which stays", remark.dataset));
    }
    if arguments.dry_run {
        print(&plan.steps.iter().map(|step| format!("{step}\n")).collect::<String>());
    } else {
        carry_out(&plan, &zfs)?;
    }
    if plan.is_empty() {
        let caches = match config.caches.len() {
            1 => "1 cache".into(),
            count => format!("{count} caches"),
        };
        print(&format!("nothing to do: {parent} has all that {caches} and the state need\n"));
    }
    if config.zfs.dataset.is_none() {
        print(&advice(&parent, &config));
    }
    Ok(())
}

/// Below what everything goes, by the command line or the configuration.
fn parent(named: Option<&DatasetName>, config: &Config) -> Result<DatasetName, CommandError> {
    let usage = |why: String| Err(CommandError::Usage(why));
    let configured = config.zfs.dataset.as_ref();
    let Some(named) = named else {
        return match configured {
            Some(parent) => Ok(parent.clone()),
            None => usage("name a pool: the configuration has no `dataset` in [zfs]".into()),
        };
    };
    let parent = match named.parent() {
        Some(_) => named.clone(),
        None => named.child(PARENT).map_err(|error| CommandError::Usage(error.to_string()))?,
    };
    match configured {
        Some(other) if *other != parent => usage(format!(
            "{parent} is not what the configuration says: dataset = \"{other}\" in [zfs]; change one of them"
        )),
        _ => Ok(parent),
    }
}

/// Whose everything is to be; nobody where it is root's.
pub(in crate::cli) fn account(zfs: &Zfs, user: &UserName) -> Result<Option<Account>, CommandError> {
    match Account::find(zfs, user)? {
        Some(account) if account.uid == 0 => Ok(None),
        Some(account) => Ok(Some(account)),
        None => Err(CommandError::Usage(format!(
            "--user {user}: there is no such user; make it (`useradd --system {user}`), name another, or \
             say --user root"
        ))),
    }
}

pub(in crate::cli) fn carry_out(plan: &Plan, zfs: &Zfs) -> Result<(), CommandError> {
    if plan.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(CommandError::NotRoot("making and mounting datasets"));
    }
    let mut shown = Shown::default();
    let done = plan.carry_out(zfs, &mut shown);
    shown.end_copy();
    Ok(done?)
}

/// Shows each step as it begins.
#[derive(Default)]
struct Shown {
    copy: Option<Progress>,
}

impl Shown {
    fn end_copy(&mut self) {
        if let Some(progress) = self.copy.take() {
            progress.end();
        }
    }
}

impl Watcher for Shown {
    fn begin(&mut self, step: &Step) {
        self.end_copy();
        print(&format!("{step}\n"));
        if let Step::Copy { from, .. } = step {
            self.copy = Some(Progress::of(from.display().to_string(), None));
        }
    }

    fn copied(&mut self, copied: Copied) {
        if let Some(progress) = &mut self.copy {
            progress.at(copied.bytes);
        }
    }
}

/// What the configuration still lacks.
fn advice(parent: &DatasetName, config: &Config) -> String {
    let file = config.file.as_ref().map(|file| format!(" {}", file.display())).unwrap_or_default();
    format!(
        "\nPut this into the configuration{file}, so that a cache is served only while its dataset is \
         mounted,\nand its quota is that of the dataset:\n\n[zfs]\ndataset = \"{parent}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, Overrides};

    fn config(dataset: Option<&str>) -> Config {
        let lookup = |name: &str| (name == "HOME").then(|| "/root".into());
        let environment = Environment { lookup: &lookup, is_root: true };
        let mut config = config::load(&Overrides::default(), &environment).unwrap();
        config.zfs.dataset = dataset.map(|dataset| dataset.parse().unwrap());
        config
    }

    fn chosen(named: Option<&str>, configured: Option<&str>) -> Result<String, String> {
        let named = named.map(|named| named.parse().unwrap());
        let parent = parent(named.as_ref(), &config(configured));
        parent.map(|parent| parent.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_parent_is_named_or_configured_and_not_both_differently() {
        assert_eq!(chosen(Some("tank"), None).unwrap(), "tank/snowbank");
        assert_eq!(chosen(Some("tank/a/b"), None).unwrap(), "tank/a/b");
        assert_eq!(chosen(None, Some("tank/x")).unwrap(), "tank/x");
        assert_eq!(chosen(Some("tank"), Some("tank/snowbank")).unwrap(), "tank/snowbank");
        assert!(chosen(Some("tank"), Some("tank/x")).unwrap_err().contains("tank/x"));
        assert!(chosen(None, None).unwrap_err().contains("name a pool"));
    }

    #[test]
    fn each_cache_of_a_configuration_and_the_state_are_datasets() {
        let mut config = config(None);
        config.caches[0].max_size = Some(5 << 30);
        let layout = layout(&config, &"tank/snowbank".parse().unwrap(), None).unwrap();
        let members: Vec<_> = layout
            .members
            .iter()
            .map(|member| (member.dataset.to_string(), member.mountpoint.display().to_string()))
            .collect();
        assert_eq!(
            members,
            [
                ("tank/snowbank/state".into(), "/var/lib/snowbank/state".into()),
                ("tank/snowbank/default".into(), "/var/lib/snowbank/default".into()),
            ]
        );
        assert_eq!(layout.members[1].quota, Some(5 << 30));
    }
}
