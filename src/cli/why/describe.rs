//! What is known of a path, in JSON.

use serde_json::{Value, json};

use super::Known;
use crate::app::why::client::{AtCache, Memory, OnClient};
use crate::app::why::server::{Found, Here};
use crate::cli::time;
use crate::client::spool::{EntryState, Listed};
use crate::nix::hash::Sha256;
use crate::nix::path_info::PathInfo;

/// All of it.
pub(super) fn one(known: &Known) -> Value {
    let caches: Vec<_> = known.caches.iter().map(in_bank).collect();
    let hash = known.hash.to_string();
    json!({"hash": hash, "caches": caches, "client": on_client(&known.client)})
}

fn sha256(hash: Sha256) -> String {
    format!("sha256:{}", hash.to_nix32())
}

fn path(info: &PathInfo) -> Value {
    let signatures: Vec<_> = info.signatures.iter().map(ToString::to_string).collect();
    json!({
        "path": info.path.to_string(),
        "nar_hash": sha256(info.nar_hash),
        "nar_size": info.nar_size,
        "signatures": signatures,
    })
}

fn in_bank(found: &Found) -> Value {
    let here = found.here.as_ref().map(|Here { narinfo, since, upstream }| {
        let mut here = path(&narinfo.info);
        here["since"] = since.map(time::show).into();
        here["upstream"] = upstream.as_ref().map(ToString::to_string).into();
        here
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
        "here": here,
        "pushes": pushes.collect::<Vec<_>>(),
        "conflicts": conflicts.collect::<Vec<_>>(),
        "collected": tombstones.collect::<Vec<_>>(),
        "pins": found.kept_by.pins,
        "pins_are_whole": found.kept_by.is_whole,
    })
}

fn on_client(client: &OnClient) -> Value {
    let OnClient { queued, last_error, built, memories, cache } = client;
    let (entries, failure) = match queued {
        Ok(listed) => (listed.iter().map(queue).collect::<Vec<_>>(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    json!({
        "built": built.as_ref().map(path),
        "queue": entries,
        "queue_failure": failure,
        "last_error": last_error,
        "remembered": memories.iter().map(remembered).collect::<Vec<_>>(),
        "at": cache.as_ref().map(at_cache),
    })
}

fn queue(one: &Listed) -> Value {
    let (state, reason) = match &one.state {
        EntryState::Waiting => ("waiting", None),
        EntryState::Taken => ("pushing", None),
        EntryState::Parked(reason) => ("parked", Some(reason)),
    };
    json!({"id": one.id, "state": state, "reason": reason, "time": one.time})
}

fn remembered(memory: &Memory) -> Value {
    let Memory { who, what, until } = memory;
    match what {
        Err(why) => json!({"by": who.to_string(), "failure": why}),
        Ok(one) => json!({
            "by": who.to_string(),
            "cache": one.cache,
            "is_there": one.nar.is_some(),
            "at": time::show(one.at),
            "until": time::show(*until),
        }),
    }
}

fn at_cache(at: &AtCache) -> Value {
    let AtCache { url, answer, trust, left_to } = at;
    let trust: Vec<_> = trust
        .iter()
        .map(|(who, finding)| {
            json!({"by": who.to_string(), "verdict": finding.verdict.word(), "what": finding.what})
        })
        .collect();
    json!({
        "url": url,
        "here": answer.as_ref().ok().and_then(Option::as_ref).map(|narinfo| path(&narinfo.info)),
        "failure": answer.as_ref().err(),
        "trust": trust,
        "left_to": left_to.as_ref().map(ToString::to_string),
    })
}
