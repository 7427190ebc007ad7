//! `snowbank why`

use std::io::{Read as _, Write as _};

use clap::Args;
use serde_json::{Value, json};

use super::place::PlaceArguments;
use super::{CommandError, time};
use crate::bank::{Bank, BankError, open_regular};
use crate::config::CacheConfig;
use crate::index::state::{ConflictRecord, PushRecord, StateDb, Tombstone};
use crate::nix::narinfo::{MAX_TEXT, NarInfo};
use crate::nix::store_path::StorePathHash;

/// Says why a path is in the caches: who pushed it, when and with which token; or that it is not there, and when and
/// why it was collected.
///
/// It reads the banks and the state database in the data directory; the server need not run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank why /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello-2.10
  snowbank why 7rjj86a50146dq4pd5h2fyvnnwxk9m0a --cache team --json

It ends with 0 where the path is in a bank, with 1 where it is in none.")]
pub(super) struct WhyArguments {
    /// A store path, its last part, or its hash
    #[arg(value_name = "PATH|HASH")]
    path: String,

    /// Look at this cache only
    #[arg(long, value_name = "NAME")]
    cache: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

/// What one cache knows of a path.
struct Found {
    cache: String,
    narinfo: Option<NarInfo>,
    pushes: Vec<PushRecord>,
    conflicts: Vec<ConflictRecord>,
    tombstones: Vec<Tombstone>,
}

pub(super) fn run(arguments: &WhyArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let hash = StorePathHash::in_text(&arguments.path).ok_or_else(|| {
        CommandError::Usage(format!("{:?} is no store path and no hash of one", arguments.path))
    })?;
    if let Some(name) = &arguments.cache
        && !config.caches.iter().any(|cache| cache.name == *name)
    {
        return Err(CommandError::Usage(format!("--cache {name}: there is no such cache")));
    }
    let state = StateDb::open_existing(&config.data_dir)?;
    let mut found = Vec::new();
    for cache in &config.caches {
        if arguments.cache.as_ref().is_none_or(|name| *name == cache.name) {
            found.push(look(cache, hash, state.as_ref())?);
        }
    }
    let text = if arguments.json {
        let caches: Vec<_> = found.iter().map(describe).collect();
        json!({"hash": hash.to_string(), "caches": caches}).to_string() + "\n"
    } else {
        found.iter().map(explain).collect()
    };
    // A closed pipe (`| head`) is no failure of ours.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    match found.iter().any(|found| found.narinfo.is_some()) {
        true => Ok(()),
        false => Err(CommandError::NotHere(hash)),
    }
}

fn look(
    cache: &CacheConfig,
    hash: StorePathHash,
    state: Option<&StateDb>,
) -> Result<Found, CommandError> {
    let name = Some(cache.name.as_str());
    let pushes = state.map(|state| state.pushes_of(name, hash)).transpose()?;
    let conflicts = state.map(|state| state.conflicts_of(name, hash)).transpose()?;
    let tombstones = state.map(|state| state.tombstones_of(name, hash)).transpose()?;
    Ok(Found {
        cache: cache.name.clone(),
        tombstones: tombstones.unwrap_or_default(),
        narinfo: narinfo(cache, hash)?,
        pushes: pushes.unwrap_or_default(),
        conflicts: conflicts.unwrap_or_default(),
    })
}

fn narinfo(cache: &CacheConfig, hash: StorePathHash) -> Result<Option<NarInfo>, CommandError> {
    let path = cache.directory.join(format!("{hash}.narinfo"));
    let Some((file, _)) = open_regular(&path)? else { return Ok(None) };
    let Some(store_dir) = Bank::store_dir_at(&cache.directory) else {
        return Err(BankError::Away(cache.directory.clone()).into());
    };
    let mut text = Vec::new();
    let read = file.take(MAX_TEXT as u64 + 1).read_to_end(&mut text);
    read.map_err(|source| BankError::Io { path: path.clone(), source })?;
    match NarInfo::parse(&text, &store_dir) {
        Ok(narinfo) => Ok(Some(narinfo)),
        Err(_) => Err(BankError::Damaged { path, what: "not a narinfo" }.into()),
    }
}

fn who(name: &str, token: Option<&str>, address: &str) -> String {
    match token {
        Some(token) if token == name => format!("token {token} from {address}"),
        Some(token) => format!("{name} with token {token} from {address}"),
        // Whoever shows nothing is known by the address alone.
        None if name != address => format!("{name} with a certificate from {address}"),
        None => format!("{address}, without a token"),
    }
}

fn explain(found: &Found) -> String {
    let mut text = match &found.narinfo {
        None => format!("cache {}: not in its bank\n", found.cache),
        Some(narinfo) => {
            let info = &narinfo.info;
            let mut text = format!(
                "cache {}: {}\n  NarHash     sha256:{}, {} bytes\n",
                found.cache,
                info.path,
                info.nar_hash.to_nix32(),
                info.nar_size
            );
            for signature in &info.signatures {
                text += &format!("  signed by   {}\n", signature.key_name());
            }
            if info.signatures.is_empty() {
                text += "  signed by   nobody; the server's keys sign while it answers\n";
            }
            if found.pushes.is_empty() {
                text += "  pushed by   nobody that is on record: it came another way\n";
            }
            text
        }
    };
    for push in &found.pushes {
        let by = who(&push.pusher, push.token.as_deref(), &push.address);
        text += &format!("  pushed by   {by} on {}", time::show(push.at));
        let kept = found.narinfo.as_ref().map(|narinfo| narinfo.info.nar_hash);
        if kept != Some(push.nar_hash) {
            text += &format!(" (another NAR, sha256:{})", push.nar_hash.to_nix32());
        }
        text.push('\n');
    }
    for conflict in &found.conflicts {
        let by = who(&conflict.pusher, conflict.token.as_deref(), &conflict.address);
        text += &format!(
            "  refused     sha256:{} of {by} on {}: sha256:{} was there\n",
            conflict.refused.to_nix32(),
            time::show(conflict.at),
            conflict.kept.to_nix32()
        );
    }
    for tombstone in &found.tombstones {
        text += &format!("  collected   on {}: {}\n", time::show(tombstone.at), tombstone.why);
    }
    text
}

fn describe(found: &Found) -> Value {
    let sha256 = |hash: crate::nix::hash::Sha256| format!("sha256:{}", hash.to_nix32());
    let path = found.narinfo.as_ref().map(|narinfo| {
        let info = &narinfo.info;
        let signatures: Vec<_> = info.signatures.iter().map(ToString::to_string).collect();
        json!({
            "path": info.path.to_string(),
            "nar_hash": sha256(info.nar_hash),
            "nar_size": info.nar_size,
            "signatures": signatures,
        })
    });
    let pushes = found.pushes.iter().map(|push| {
        json!({
            "at": time::show(push.at),
            "pusher": push.pusher,
            "token": push.token,
            "address": push.address,
            "nar_hash": sha256(push.nar_hash),
            "nar_size": push.nar_size,
        })
    });
    let conflicts = found.conflicts.iter().map(|conflict| {
        json!({
            "at": time::show(conflict.at),
            "pusher": conflict.pusher,
            "token": conflict.token,
            "address": conflict.address,
            "kept": sha256(conflict.kept),
            "refused": sha256(conflict.refused),
        })
    });
    let tombstones = found
        .tombstones
        .iter()
        .map(|tombstone| json!({"at": time::show(tombstone.at), "why": tombstone.why}));
    json!({
        "cache": found.cache,
        "here": path,
        "pushes": pushes.collect::<Vec<_>>(),
        "conflicts": conflicts.collect::<Vec<_>>(),
        "collected": tombstones.collect::<Vec<_>>(),
    })
}
