//! `snowbank rm`

use clap::Args;
use indicatif::BinaryBytes;

use super::output::print;
use super::place::PlaceArguments;
use super::{CommandError, collecting, release, user, zfs};
use crate::app::collecting::What;
use crate::config::DEFAULT_CACHE;
use crate::index::state::StateDb;

/// Removes paths from a cache, at once. What refers to them would not be whole, so it has to go as well, and that has to
/// be said; what is pinned is not removed.
///
/// `snowbank why` tells afterwards who removed a path, and when. Clients that have asked for it remember it for up to 30
/// days, and are told then that it is gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank rm /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello-2.10
  snowbank rm ./result --closure --cache team
  snowbank rm 7rjj86a50146dq4pd5h2fyvnnwxk9m0a --referrers --dry-run")]
pub(super) struct RmArguments {
    /// Store paths, links to such, or hashes
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,

    /// With all that only these need, and no pin keeps
    #[arg(long)]
    closure: bool,

    /// With all that refers to these
    #[arg(long)]
    referrers: bool,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// The cache
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CACHE)]
    cache: String,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &RmArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let cache = zfs::cache(&config, &arguments.cache)?;
    let db = StateDb::open(&config.data_dir)?;
    let what = What::Remove {
        paths: release::named(cache, &arguments.paths)?,
        closure: arguments.closure,
        referrers: arguments.referrers,
        by: format!("{}, by snowbank rm", user()),
    };
    let said = match arguments.dry_run {
        true => collecting::plan(&config, cache, &db, &what)?,
        false => collecting::carry_out(&config, cache, &db, &what)?,
    };
    if let Some(why) = said.error {
        return Err(CommandError::Queue(why));
    }
    let (count, gone) = match arguments.dry_run {
        true => (said.planned, "would go"),
        false => (said.removed, "are removed"),
    };
    if arguments.json {
        print(&(serde_json::to_string(&said).unwrap_or_default() + "\n"));
    } else {
        let kept = collecting::show_snapshots(&cache.name, &said);
        print(&format!("{count} paths {gone}: {}\n{kept}", BinaryBytes(said.bytes)));
    }
    if said.wanted_again + said.failed > 0 {
        let why = format!(
            "{} paths are being pushed or referred to at this moment, and stay; {} could not be removed",
            said.wanted_again, said.failed
        );
        return Err(CommandError::Queue(why));
    }
    Ok(())
}
