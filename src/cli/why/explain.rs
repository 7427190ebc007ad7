//! What is known of a path, for people.

use super::Known;
use crate::app::why::client::{AtCache, Memory, OnClient};
use crate::app::why::server::{Found, Here};
use crate::cli::time;
use crate::client::spool::{EntryState, Listed};
use crate::nix::path_info::PathInfo;

/// All of it, some lines.
pub(super) fn one(known: &Known, now: i64) -> String {
    let Known { hash, caches, client } = known;
    let mut text: String = caches.iter().map(in_bank).collect();
    if let Some(at) = &client.cache {
        text += &at_cache(at);
    }
    let here = on_client(client, now);
    // On the host of a server that is nobody's client there is nothing to say of it.
    if !here.is_empty() || text.is_empty() {
        text += &format!("this machine, of {hash}:\n");
        text += if here.is_empty() {
            "  nothing is known here; ask a cache with --at URL\n"
        } else {
            &here
        };
    }
    text
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

fn path(info: &PathInfo) -> String {
    let mut text =
        format!("  NarHash     sha256:{}, {} bytes\n", info.nar_hash.to_nix32(), info.nar_size);
    for signature in &info.signatures {
        text += &format!("  signed by   {}\n", signature.key_name());
    }
    text
}

fn in_bank(found: &Found) -> String {
    let mut text = match &found.here {
        None => format!("cache {}: not in its bank\n", found.cache),
        Some(Here { narinfo, since, upstream }) => {
            let info = &narinfo.info;
            let mut text = format!("cache {}: {}\n{}", found.cache, info.path, path(info));
            if info.signatures.is_empty() {
                text += "  signed by   nobody; the server's keys sign while it answers\n";
            }
            if let Some(since) = since {
                text += &format!("  here since  {}\n", time::show(*since));
            }
            if let Some(key) = upstream {
                text +=
                    &format!("  upstream    {key} signed it, so a push would have left it out\n");
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
        let kept = found.here.as_ref().map(|here| here.narinfo.info.nar_hash);
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
    for pin in &found.kept_by.pins {
        text += &format!("  kept by     pin {pin}\n");
    }
    if !found.kept_by.is_whole {
        text += "  kept by     not known: what is pinned is too much to follow\n";
    }
    for tombstone in &found.tombstones {
        text += &format!("  collected   on {}: {}\n", time::show(tombstone.at), tombstone.why);
    }
    text
}

fn at_cache(at: &AtCache) -> String {
    let AtCache { url, answer, trust, left_to } = at;
    let mut text = match answer {
        Err(why) => format!("{url}: not known: {why}\n"),
        Ok(None) => format!("{url}: not there\n"),
        Ok(Some(narinfo)) => format!("{url}: {}\n{}", narinfo.info.path, path(&narinfo.info)),
    };
    for (who, finding) in trust {
        text += &format!("  for {who}: {finding}\n");
    }
    if let Some(key) = left_to {
        text += &format!(
            "  a push leaves it out: {key} signed it, which is an upstream of the cache; --all pushes it\n"
        );
    }
    text
}

fn on_client(client: &OnClient, now: i64) -> String {
    let OnClient { queued, last_error, built, memories, .. } = client;
    let mut text = String::new();
    if let Some(info) = built {
        text += &format!("  in the store here: {}\n{}", info.path, path(info));
    }
    match queued {
        Err(why) => text += &format!("  queue       not known: {why}\n"),
        Ok(listed) => {
            let lines = listed.iter().map(|one| queue(one, last_error.as_deref()));
            text += &lines.collect::<String>();
            if listed.is_empty() && built.is_some() {
                text += "  queue       not in it: pushed, or never put in\n";
            }
        }
    }
    text + &memories.iter().map(|memory| remembered(memory, now)).collect::<String>()
}

fn queue(one: &Listed, last_error: Option<&str>) -> String {
    let since = i64::try_from(one.time).map_or_else(|_| "?".into(), time::show);
    let failed =
        last_error.map(|error| format!("; the last try failed: {error}")).unwrap_or_default();
    match &one.state {
        EntryState::Waiting => format!("  queue       waits since {since}{failed}\n"),
        EntryState::Taken => {
            format!("  queue       is being pushed, waited since {since}{failed}\n")
        }
        EntryState::Parked(why) => format!(
            "  queue       parked: {why}\n              try it again: snowbank queue retry {}\n",
            one.id
        ),
    }
}

fn remembered(memory: &Memory, now: i64) -> String {
    let Memory { who, what, until } = memory;
    match what {
        Err(why) => format!("  remembered  not known for {who}: {why}\n"),
        Ok(one) => {
            let what = match &one.nar {
                None => "has it not",
                Some(_) => "has it",
            };
            let left = until.saturating_sub(now);
            let hint = match &one.nar {
                None => "; asked again before that with --option narinfo-cache-negative-ttl 0",
                Some(_) => "",
            };
            format!(
                "  remembered  by {who}: {} {what}, for {left} s yet, until {}{hint}\n",
                one.cache,
                time::show(*until)
            )
        }
    }
}
