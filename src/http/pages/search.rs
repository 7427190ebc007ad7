//! The search: by hash or path for everybody; by name, or by the derivation, for those who may see what is here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use maud::{Markup, html};
use percent_encoding::percent_decode_str;

use super::viewer::Viewer;
use super::{Page, show};
use crate::http::error::Failure;
use crate::http::state::{CacheOf, CountAs, State, Work};
use crate::index::state::{StateDb, StateError};
use crate::metrics::Route;
use crate::nix::store_path::StorePathHash;
use crate::source::cache::{Cache, Unavailable};
use crate::source::search::{Bounds, Found, Wanted, search};

/// Paths in a list.
const LISTED: u32 = 100;
/// Pushes that are looked at besides what is known by its name.
const RECENT: u32 = 500;
/// How long a search may go on.
const SEARCH: Duration = Duration::from_secs(2);
/// The longest text that is looked for, in bytes.
const MAX_TEXT: usize = 300;

/// What is found for `q`.
pub async fn page(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    request: Parts,
) -> Result<Response, Failure> {
    if !state.landing_page {
        return Err(Failure::NotFound);
    }
    let text = asked(request.uri.query().unwrap_or_default())?;
    let wanted = Wanted::parse(&text);
    if !matches!(wanted, Some(Wanted::Deriver(_)))
        && let Some(hash) = StorePathHash::in_text(&text)
    {
        return Ok(counted(Redirect::to(&format!("path/{hash}")).into_response()));
    }
    let viewer = Viewer::of(&state, &cache, &request).await?;
    let body = match wanted {
        _ if !viewer.sees_status => html! {
            p {
                "Only those who may see what is here can search by name: "
                a href="./?sign-in" { "sign in with a token" }
                ", or search for the hash of a path."
            }
        },
        None => html! {
            p { "No store path has such a name. A path, its hash, a part of its name, or a derivation is looked for." }
        },
        Some(wanted) => {
            let (db, cache) = (state.state_db.clone(), Arc::clone(&cache));
            let look = move || look(&cache, db.as_deref(), &wanted);
            let found = state.blocking(Work::Large, look).await??;
            results(&found)
        }
    };
    let page = Page { title: "Search", up: "", searched: &text, copies: false };
    Ok(counted(page.with(&body)))
}

fn counted(mut response: Response) -> Response {
    response.extensions_mut().insert(CountAs::route(Route::Search));
    response
}

/// The value of `q` in a query, as a form sends it.
fn asked(query: &str) -> Result<String, Failure> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("q=")).unwrap_or_default();
    let value = value.replace('+', " ");
    let text = percent_decode_str(&value).decode_utf8();
    let text = text.map_err(|_| Failure::BadRequest("what is searched for is not UTF-8"))?;
    if text.len() > MAX_TEXT {
        return Err(Failure::BadRequest("what is searched for is longer than any name"));
    }
    Ok(text.trim().to_owned())
}

/// Blocks.
fn look(cache: &Cache, db: Option<&StateDb>, wanted: &Wanted) -> Result<Found, Unavailable> {
    let likely = db.map_or(Ok(Vec::new()), |db| likely(cache, db, wanted));
    let likely = likely.unwrap_or_else(|error| {
        tracing::error!("a search goes without what was pushed: {error}");
        Vec::new()
    });
    let bounds = Bounds { most: LISTED, deadline: Instant::now() + SEARCH };
    search(cache, wanted, &likely, bounds)
}

/// What was pushed under such a name; and what was pushed lately, of which not all else may know yet.
fn likely(cache: &Cache, db: &StateDb, wanted: &Wanted) -> Result<Vec<StorePathHash>, StateError> {
    let recent = db.recent_pushes(&cache.name, RECENT)?.into_iter().map(|push| push.path);
    let named = match wanted {
        Wanted::Name(part) => db.pushed_with(&cache.name, part, LISTED)?,
        Wanted::Deriver(_) => Vec::new(),
    };
    Ok(named.into_iter().chain(recent).map(|path| path.hash()).collect())
}

fn results(found: &Found) -> Markup {
    html! {
        p role="status" {
            @match (found.paths.len(), found.is_whole) {
                (0, true) => "Nothing here is called so.",
                (0, false) => "Nothing was found in the time there was; not all was looked through.",
                (1, true) => "One path.",
                (all, true) => { (all) " paths." }
                (all, false) => { (all) " paths, and there may be more." }
            }
        }
        @if !found.paths.is_empty() { (show::paths("path/", &found.paths)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_sends_is_read_as_it_was_written() {
        for (query, text) in [
            ("q=hello", "hello"),
            ("q=a+b", "a b"),
            ("q=%2Fnix%2Fstore%2Fx", "/nix/store/x"),
            ("x=1&q=+gtk%2B3+", "gtk+3"),
            ("", ""),
        ] {
            assert_eq!(asked(query).unwrap(), text, "{query}");
        }
        assert!(asked("q=%ff").is_err());
        assert!(asked(&format!("q={}", "a".repeat(301))).is_err());
    }
}
