//! How the page at `/` shows the state of the server.

use maud::{Markup, html};

use super::chart::charts;
use super::gather::{CacheStatus, Known, NotKnown, PlaceStatus, Status};
use super::show;
use crate::http::state::State;
use crate::index::state::{FindingRecord, PushRecord, Verification};
use crate::index::uses::Use;
use crate::keep::watch::{PoolReport, Severity, Trouble};
use crate::metrics::SourceLabel;
use crate::nix::store_path::StorePath;
use crate::zfs::pool::Health;

/// What leads to the page of a path.
const TO_PATH: &str = "path/";

/// One line for everybody: whether all is well.
pub(super) fn health(state: &State) -> Markup {
    let troubles = state.watch.troubles();
    let is_away = |source: &_| !crate::source::Source::vital(source).is_well();
    let away =
        state.caches.values().any(|cache| cache.sources().iter().any(|source| is_away(source)));
    let worst = troubles.iter().map(|trouble| trouble.severity).max();
    html! {
        p {
            @match (away, worst) {
                (true, _) | (_, Some(Severity::Unavailable)) => {
                    span class="bad" { "✖ Something is not served, or cannot be pushed." }
                }
                (false, Some(Severity::Degraded)) => {
                    span class="fair" { "▲ All is served, and somebody should look." }
                }
                (false, None) => span class="good" { "✔ All is well." }
            }
        }
    }
}

/// All of it, for those who may see it.
pub(super) fn render(status: &Status) -> Markup {
    let Status { now, troubles, caches, report, pushes, asked_for, about, .. } = status;
    html! {
        @if !troubles.is_empty() { (wrong(troubles)) }
        section aria-labelledby="traffic" {
            h2 id="traffic" { "The last twelve hours" }
            (charts(*now, &status.intervals))
        }
        section aria-labelledby="storage" {
            h2 id="storage" { "Storage" }
            (storage(caches, report))
            @for (name, pool) in &report.pools { (self::pool(*now, name.as_str(), pool)) }
        }
        section aria-labelledby="pushes" {
            h2 id="pushes" { "Pushed lately" }
            (known(pushes, |pushes| recent(*now, pushes)))
        }
        section aria-labelledby="top" {
            h2 id="top" { "Asked for most" }
            (known(asked_for, |paths| top(*now, paths)))
        }
        section aria-labelledby="care" {
            h2 id="care" { "Collecting and verifying" }
            @for cache in caches { (care(*now, cache)) }
        }
        @if caches.iter().any(|cache| !cache.places.is_empty()) {
            section aria-labelledby="elsewhere" {
                h2 id="elsewhere" { "Peers and upstreams" }
                (elsewhere(caches))
            }
        }
        section aria-labelledby="about" {
            h2 id="about" { "This server" }
            details {
                summary { "Version, libraries and limits" }
                dl { @for (name, value) in about { dt { (name) } dd { (value) } } }
            }
        }
    }
}

/// What the state database knows, or that it cannot be asked.
fn known<T>(known: &Known<T>, show: impl FnOnce(&T) -> Markup) -> Markup {
    match known {
        Ok(known) => show(known),
        Err(NotKnown) => html! {
            p class="bad" { "Not known: the state database cannot be read; the server's log says why." }
        },
    }
}

fn wrong(troubles: &[Trouble]) -> Markup {
    html! {
        section aria-labelledby="wrong" {
            h2 id="wrong" { "What is wrong" }
            ul {
                @for trouble in troubles {
                    @let class = match trouble.severity {
                        Severity::Degraded => "fair",
                        Severity::Unavailable => "bad",
                    };
                    li { span class=(class) { (trouble) } }
                }
            }
        }
    }
}

fn storage(caches: &[CacheStatus], report: &crate::keep::watch::Report) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th scope="col" { "Cache" }
                        th scope="col" { "Source" }
                        @for name in ["Paths", "Files of NARs", "On disk", "Held by snapshots", "Left"] {
                            th scope="col" class="number" { (name) }
                        }
                    }
                }
                tbody {
                    @for cache in caches {
                        @let dataset = report.of_cache(&cache.name).map(|(dataset, _)| dataset);
                        @for (index, source) in cache.sources.iter().enumerate() {
                            // The dataset is that of the bank, which is the first.
                            @let dataset = dataset.filter(|_| index == 0);
                            @let of_dataset = |bytes: Option<u64>| bytes.map_or("–".into(), show::bytes);
                            tr {
                                th scope="row" { @if index == 0 { (cache.name) } }
                                td {
                                    (source.name)
                                    @if !source.is_there { " " span class="bad" { "away" } }
                                }
                                td class="number" { (show::count(source.paths as u64)) }
                                td class="number" { (of_dataset(source.nar_bytes)) }
                                td class="number" { (of_dataset(dataset.map(|found| found.used))) }
                                td class="number" {
                                    (of_dataset(dataset.map(|found| found.used_by_snapshots)))
                                }
                                td class="number" { (of_dataset(dataset.map(|found| found.available))) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn pool(now: i64, name: &str, found: &PoolReport) -> Markup {
    let pool = &found.pool;
    let class = match pool.health {
        Health::Online => "good",
        Health::Degraded => "fair",
        _ => "bad",
    };
    html! {
        h3 { "Pool " (name) }
        dl {
            dt { "State" }
            dd { span class=(class) { (pool.health.as_str()) } }
            dt { "Taken" }
            dd {
                (show::bytes(pool.allocated)) " of " (show::bytes(pool.size))
                " (" (pool.capacity_percent) " %)"
                @if let Some(percent) = pool.fragmentation_percent { ", " (percent) " % fragmented" }
            }
            dt { "Last scrub" }
            dd {
                @match found.scrub_age(now) {
                    Some(age) => (show::ago(now, now - age)),
                    None => "none that ended",
                }
            }
            @if let Some(message) = found.status.as_ref().and_then(|status| status.message.as_ref()) {
                dt { "ZFS says" }
                dd { (message) }
            }
        }
    }
}

fn recent(now: i64, pushes: &[PushRecord]) -> Markup {
    html! {
        @if pushes.is_empty() {
            p class="quiet" { "Nothing that is on record." }
        } @else {
            div class="scroll" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Path" }
                            th scope="col" class="number" { "NAR" }
                            th scope="col" { "By" }
                            th scope="col" { "When" }
                        }
                    }
                    tbody {
                        @for push in pushes {
                            tr {
                                td class="path" { (show::path(TO_PATH, &push.path)) }
                                td class="number" { (show::bytes(push.nar_size)) }
                                td {
                                    (show::pusher(&push.pusher, push.token.as_deref(), &push.address))
                                }
                                td { (show::ago(now, push.at)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn top(now: i64, paths: &[(StorePath, Use)]) -> Markup {
    html! {
        @if paths.is_empty() {
            p class="quiet" { "Nothing yet; what is asked for is counted once a minute." }
        } @else {
            div class="scroll" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Path" }
                            th scope="col" class="number" { "Times" }
                            th scope="col" { "Last" }
                        }
                    }
                    tbody {
                        @for (path, used) in paths {
                            tr {
                                td class="path" { (show::path(TO_PATH, path)) }
                                td class="number" { (show::count(used.count.into())) }
                                td { (show::ago(now, used.last)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn care(now: i64, cache: &CacheStatus) -> Markup {
    html! {
        h3 { "Cache " (cache.name) }
        dl {
            dt { "Collected, or first served" }
            dd {
                (known(&cache.collected, |collected| match collected {
                    Some(at) => show::ago(now, *at),
                    None => html! { "never" },
                }))
            }
            dt { "Verified" }
            dd { (known(&cache.verification, |verification| verified(now, verification.as_ref()))) }
            dt { "Found" }
            dd { (known(&cache.findings, |(all, first)| findings(*all, first))) }
            @if cache.quarantined > 0 {
                dt { "Cannot be read" }
                dd class="bad" { (cache.quarantined) " files; they are answered as not there" }
            }
        }
    }
}

fn verified(now: i64, verification: Option<&Verification>) -> Markup {
    let Some(Verification { began, paths, bytes, ended, .. }) = verification else {
        return html! { "never" };
    };
    let what = format!("{} paths, {}", show::count(*paths), show::bytes(*bytes));
    match ended {
        Some(ended) => html! { "to the end " (show::ago(now, *ended)) ": " (what) },
        None => html! { "since " (show::ago(now, *began)) ", and going on: " (what) " so far" },
    }
}

fn findings(all: usize, first: &[FindingRecord]) -> Markup {
    html! {
        @if all == 0 {
            "nothing that is not mended"
        } @else {
            span class="bad" { (all) " things that are not mended" }
            ul {
                @for FindingRecord { hash, kind, what, .. } in first {
                    li { a href={ (TO_PATH) (hash) } { (hash) } ": " (kind) ", " (what) }
                }
            }
            @if all > first.len() { p { "and more; " code { "snowbank verify" } " tells all." } }
        }
    }
}

fn elsewhere(caches: &[CacheStatus]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th scope="col" { "Cache" }
                        th scope="col" { "Asks" }
                        th scope="col" { "Which is" }
                        th scope="col" { "State" }
                    }
                }
                tbody {
                    @for cache in caches {
                        @for PlaceStatus { url, kind, answers } in &cache.places {
                            tr {
                                th scope="row" { (cache.name) }
                                td class="path" { (url) }
                                td {
                                    @match kind { SourceLabel::Peer => "a peer", _ => "an upstream" }
                                }
                                td {
                                    @if *answers {
                                        span class="good" { "answers" }
                                    } @else {
                                        span class="bad" { "does not answer" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
