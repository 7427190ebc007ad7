//! `snowbank why`

mod describe;
mod explain;

use std::io::Write as _;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::CommandError;
use super::client::{SpoolArguments, layout_of_store};
use super::place::PlaceArguments;
use crate::app::why::Asked;
use crate::app::why::client::{Client, OnClient};
use crate::app::why::server::{Found, look};
use crate::client::credentials::Token;
use crate::client::identity::Identity;
use crate::client::nix_conf::view::View;
use crate::client::remote::{Destination, Remote, RemoteUrlError};
use crate::config::Config;
use crate::index::state::StateDb;
use crate::nix::store_path::StorePathHash;

/// Says why a path is in a cache, or is not; of a derivation, of each of its outputs.
///
/// On the host of a server, of each of its caches: whether it is there and since when; who pushed it, when and with
/// which token; what was refused; which pins keep it; when and why it was collected. It reads the banks and the state
/// database in the data directory; the server need not run.
///
/// On the machine of a client: whether it waits in the queue, is being pushed or is parked, and why; whether a Nix
/// here remembers that a cache has it or has it not, and for how long yet. With --at a cache is asked: whether it has
/// it, who signed it, whether a Nix here would trust that, and whether a push leaves it to an upstream. Run it as root
/// to see what the nix-daemon remembers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank why /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello-2.10
  snowbank why 7rjj86a50146dq4pd5h2fyvnnwxk9m0a --cache team --json
  snowbank why /nix/store/0c5p1gm5v1cwwdgz2vfqwdlkyjrkh2l5-hello-2.10.drv
  sudo snowbank why ./result --at https://cache.example.org

It ends with 0 where the path is in a bank here or in the cache that was asked, with 1 where it is in none; of several
outputs with 0 where all are.")]
pub(super) struct WhyArguments {
    /// A store path, its last part, its hash, a link to it, or a derivation
    #[arg(value_name = "PATH|DRV|HASH")]
    path: String,

    /// Look at this cache only; with --at it is the cache on that server
    #[arg(long, value_name = "NAME")]
    cache: Option<String>,

    /// Ask this server, or this cache on one, as a client would
    #[arg(long, value_name = "URL", env = "SNOWBANK_TO")]
    at: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    spool: SpoolArguments,

    #[command(flatten)]
    place: PlaceArguments,
}

/// What is known of one path.
struct Known {
    hash: StorePathHash,
    /// By the caches of a server here.
    caches: Vec<Found>,
    client: OnClient,
}

impl Known {
    fn is_here(&self) -> bool {
        let in_a_bank = self.caches.iter().any(|found| found.here.is_some());
        let at = self.client.cache.as_ref().is_some_and(|at| matches!(at.answer, Ok(Some(_))));
        in_a_bank || at
    }
}

pub(super) fn run(arguments: &WhyArguments) -> Result<(), CommandError> {
    let asked = asked(&arguments.path)?;
    let config = arguments.place.load()?;
    // A machine without the data of a server is one of a client.
    let config = Some(config).filter(|config| config.data_dir.exists());
    if let (Some(name), Some(config), None) = (&arguments.cache, &config, &arguments.at)
        && !config.caches.iter().any(|cache| cache.name == *name)
    {
        return Err(CommandError::Usage(format!("--cache {name}: there is no such cache")));
    }
    let client = client(arguments)?;
    let paths = asked.paths(config.as_ref(), &client)?;
    let now = Timestamp::now().as_second();
    let mut known = Vec::new();
    for hash in paths {
        let caches = config.as_ref().map(|config| in_banks(config, arguments, hash)).transpose()?;
        let caches = caches.unwrap_or_default();
        known.push(Known { hash, caches, client: client.look(hash, now) });
    }
    let text = match (arguments.json, &asked, &known[..]) {
        (true, Asked::Path(_), [one]) => describe::one(one).to_string() + "\n",
        (true, ..) => {
            let outputs: Vec<_> = known.iter().map(describe::one).collect();
            json!({"derivation": arguments.path, "outputs": outputs}).to_string() + "\n"
        }
        (false, ..) => known.iter().map(|known| explain::one(known, now)).collect(),
    };
    // A closed pipe (`| head`) is no failure of ours.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    if known.is_empty() {
        return Err(CommandError::NoOutput(arguments.path.clone()));
    }
    match known.iter().find(|known| !known.is_here()) {
        None => Ok(()),
        Some(known) => Err(CommandError::NotHere(known.hash)),
    }
}

/// What is asked about; of a link, such as `./result`, what it leads to.
fn asked(text: &str) -> Result<Asked, CommandError> {
    let is_link = || Path::new(text).is_symlink();
    let real = is_link().then(|| std::fs::canonicalize(text).ok()).flatten();
    let real = real.as_deref().and_then(Path::to_str);
    Asked::parse(real.unwrap_or(text)).or_else(|| Asked::parse(text)).ok_or_else(|| {
        CommandError::Usage(format!("{text:?} is no store path, no derivation and no hash of one"))
    })
}

fn in_banks(
    config: &Config,
    arguments: &WhyArguments,
    hash: StorePathHash,
) -> Result<Vec<Found>, CommandError> {
    let state = StateDb::open_existing(&config.data_dir)?;
    let wanted = |name: &str| arguments.cache.as_ref().is_none_or(|wanted| wanted == name);
    let caches = config.caches.iter().filter(|cache| wanted(&cache.name));
    caches.map(|cache| Ok(look(cache, hash, state.as_ref())?)).collect()
}

fn client(arguments: &WhyArguments) -> Result<Client, CommandError> {
    let lookup = |name: &str| std::env::var_os(name);
    let layout = layout_of_store(None)?;
    let views = View::all(Path::new("/"), &lookup);
    let cache = arguments.at.as_ref().map(|url| {
        let destination = Destination::parse(url, arguments.cache.as_deref())?;
        let token = Token::find(None, destination.host(), &lookup)?;
        let [certificate, key] = ["SNOWBANK_TLS_CERTIFICATE", "SNOWBANK_TLS_PRIVATE_KEY"]
            .map(|name| lookup(name).map(std::path::PathBuf::from));
        let identity = Identity::find(certificate.as_deref(), key.as_deref());
        let identity = identity.map_err(RemoteUrlError::from)?;
        Ok::<_, CommandError>(Remote::new(&destination, token, identity, 1, &lookup)?)
    });
    Ok(Client::new(layout, arguments.spool.directory(), views, cache.transpose()?))
}
