//! The page of a path: its narinfo, what it refers to, the files in it; and for those who may see it who pushed it,
//! what keeps it, and how often it is asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use jiff::Timestamp;
use maud::{Markup, html};

use super::viewer::Viewer;
use super::{Page, browse, graph, show};
use crate::http::error::Failure;
use crate::http::narinfo::parse_hash;
use crate::http::state::{CacheOf, CountAs, Params, State, Work};
use crate::index::state::{ConflictRecord, PushRecord, StateDb, StateError, Tombstone};
use crate::index::uses::Use;
use crate::keep::keepers::{Keepers, keepers};
use crate::metrics::Route;
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::browse::{Entry, Item, open};
use crate::source::cache::{Answer, Cache, Unavailable};

/// References in a list; a page stays below 100 kB.
const LISTED: usize = 200;
/// How long pins may be followed.
const FOLLOW: Duration = Duration::from_secs(1);
/// What leads from this page to that of its cache.
const UP: &str = "../";

/// What is known of a path that is here.
struct Here {
    answer: Arc<Answer>,
    /// Those that are here themselves, as far as they are listed.
    references: Vec<PathInfo>,
    /// Those that are not, among the same.
    missing: Vec<StorePath>,
    /// What is in it; nothing where it is a file or a link.
    entries: Vec<Entry>,
}

/// What the state database knows of a path.
struct Record {
    pushes: Vec<PushRecord>,
    conflicts: Vec<ConflictRecord>,
    tombstones: Vec<Tombstone>,
    used: Option<Use>,
    kept_by: Keepers,
}

/// The page.
pub async fn page(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    if !state.landing_page {
        return Err(Failure::NotFound);
    }
    let hash = parse_hash(params.get("hash"))?;
    let viewer = Viewer::of(&state, &cache, &request).await?;
    let (shared, asked) = (Arc::clone(&state), Arc::clone(&cache));
    let gather = move || {
        let here = here(&asked, hash)?;
        let record = shared.state_db.as_ref().filter(|_| viewer.sees_status);
        let record = record.map(|db| recorded(db, &asked, hash)).transpose();
        Ok::<_, Unavailable>((here, record))
    };
    let (here, record) = state.blocking(Work::Large, gather).await??;
    let record = record.map_err(|error| {
        tracing::error!("a page lacks what the state database knows: {error}");
        Failure::Internal(error.to_string())
    })?;
    let now = Timestamp::now().as_second();
    let title = match &here {
        Some(here) => here.answer.narinfo.info.path.to_string(),
        None => hash.to_string(),
    };
    let body = html! {
        @match &here {
            Some(here) => (render(&cache, here)),
            None => p { "This path is not here." },
        }
        @if let Some(record) = &record { (history(now, record)) }
    };
    let page = Page { title: &title, up: UP, searched: "", copies: here.is_some() };
    let status = if here.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = (status, page.with(&body)).into_response();
    response.extensions_mut().insert(CountAs::route(Route::Path));
    Ok(response)
}

/// Blocks.
fn here(cache: &Cache, hash: StorePathHash) -> Result<Option<Here>, Unavailable> {
    let Some(answer) = cache.find(hash)? else { return Ok(None) };
    let (mut references, mut missing) = (Vec::new(), Vec::new());
    for reference in answer.narinfo.info.references.iter().take(LISTED) {
        match cache.find(reference.hash())? {
            Some(found) => references.push(found.narinfo.info.clone()),
            None => missing.push(reference.clone()),
        }
    }
    let entries = match open(cache, hash, &[])? {
        Some(Item::Directory(entries)) => entries,
        _ => Vec::new(),
    };
    Ok(Some(Here { answer, references, missing, entries }))
}

/// Blocks.
fn recorded(db: &StateDb, cache: &Cache, hash: StorePathHash) -> Result<Record, StateError> {
    let name = Some(cache.name.as_str());
    let kept = db.use_of(&cache.name, hash)?;
    let lately = cache.uses().of(hash);
    let references = |hash| {
        // One that cannot be read leads nowhere.
        let found = cache.find(hash).ok().flatten();
        let info = found.as_ref().map(|answer| &answer.narinfo.info);
        info.map(|info| info.references.iter().map(StorePath::hash).collect()).unwrap_or_default()
    };
    let pinned = db.pinned_by_name(&cache.name)?;
    Ok(Record {
        pushes: db.pushes_of(name, hash)?,
        conflicts: db.conflicts_of(name, hash)?,
        tombstones: db.tombstones_of(name, hash)?,
        used: match (kept, lately) {
            (Some(kept), Some(lately)) => Some(kept.and(lately)),
            (kept, lately) => kept.or(lately),
        },
        kept_by: keepers(&pinned, hash, references, Instant::now() + FOLLOW),
    })
}

fn render(cache: &Cache, here: &Here) -> Markup {
    let info = &here.answer.narinfo.info;
    let hash = info.path.hash();
    let full = cache.info.store_dir.join(&info.path);
    let text = String::from_utf8_lossy(&here.answer.text);
    let others: Vec<_> =
        here.references.iter().filter(|other| other.path != info.path).cloned().collect();
    html! {
        p {
            (show::bytes(info.nar_size)) " as a NAR. "
            a href={ (UP) (hash) ".narinfo" } { "narinfo" } " · "
            a href={ (UP) (here.answer.narinfo.url) } { "NAR" } " · "
            a href={ (UP) (hash) ".ls" } { "listing as JSON" }
        }
        pre class="copy" data-what="the command" { "nix-store --realise " (full) "\n" }
        section aria-labelledby="narinfo" {
            h2 id="narinfo" { "narinfo" }
            pre class="copy" data-what="the narinfo" { (text) }
        }
        section aria-labelledby="references" {
            h2 id="references" { "Refers to" }
            @if others.is_empty() && here.missing.is_empty() {
                p class="quiet" { "Nothing but itself." }
            } @else {
                (graph::draw(info, &others))
                (show::paths("", &others))
            }
            @if !here.missing.is_empty() {
                p class="bad" { "And these, which are not here:" }
                ul { @for path in &here.missing { li { (path) } } }
            }
            @if info.references.len() > LISTED {
                p class="quiet" { "And " (info.references.len() - LISTED) " more, which the narinfo has." }
            }
        }
        section aria-labelledby="files" {
            h2 id="files" { "Files" }
            @if here.entries.is_empty() {
                p { a href={ (UP) "serve/" (hash) "/" } { "What it holds" } }
            } @else {
                (browse::entries(&format!("{UP}serve/{hash}/"), &here.entries))
            }
        }
    }
}

fn history(now: i64, record: &Record) -> Markup {
    let Record { pushes, conflicts, tombstones, used, kept_by } = record;
    html! {
        section aria-labelledby="history" {
            h2 id="history" { "History" }
            dl {
                dt { "Asked for" }
                dd {
                    @match used {
                        Some(used) => {
                            (show::count(used.count.into())) (if used.count == 1 { " time" } else { " times" })
                            ", last " (show::ago(now, used.last))
                        }
                        None => "never, as far as is known",
                    }
                }
                dt { "Kept by pins" }
                dd {
                    @if kept_by.pins.is_empty() {
                        "none"
                    } @else {
                        @for (index, name) in kept_by.pins.iter().enumerate() {
                            @if index > 0 { ", " }
                            code { (name) }
                        }
                    }
                    @if !kept_by.is_whole { " (not all that is pinned was looked through)" }
                }
                dt { "Pushed by" }
                dd {
                    @if pushes.is_empty() { "nobody that is on record" }
                    ul {
                        @for push in pushes {
                            li {
                                (show::pusher(&push.pusher, push.token.as_deref(), &push.address))
                                ", " (show::ago(now, push.at))
                            }
                        }
                    }
                }
                @if !conflicts.is_empty() {
                    dt { "Refused" }
                    dd {
                        ul {
                            @for one in conflicts {
                                li {
                                    "another NAR, " code { "sha256:" (one.refused.to_nix32()) } ", of "
                                    (show::pusher(&one.pusher, one.token.as_deref(), &one.address))
                                    ", " (show::ago(now, one.at))
                                }
                            }
                        }
                    }
                }
                @if !tombstones.is_empty() {
                    dt { "Collected" }
                    dd {
                        ul {
                            @for one in tombstones { li { (show::ago(now, one.at)) ": " (one.why) } }
                        }
                    }
                }
            }
        }
    }
}
