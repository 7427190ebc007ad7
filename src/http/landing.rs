//! The page at `/`: what to put into `nix.conf`.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue};
use maud::{DOCTYPE, Markup, html};

use super::error::Failure;
use super::state::{CacheOf, CountAs, State};
use crate::metrics::Route;
use crate::source::cache::Cache;

/// Nothing but the page's own style is loaded, and nothing runs.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The styles of the page and of directory listings, light and dark.
pub const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:46rem;margin:2rem auto;padding:0 1rem}\
pre{padding:1rem;overflow-x:auto;border:1px solid #8888;border-radius:.5rem;user-select:all}\
table{border-collapse:collapse}td,th{padding:.1rem 1rem .1rem 0;text-align:left}\
td.size{text-align:right;font-variant-numeric:tabular-nums}";

/// The page of a cache.
pub async fn page(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if !state.landing_page {
        return Err(Failure::NotFound);
    }
    let is_default = cache.name == state.default.name;
    let markup = render(&cache, is_default, &host(&headers));
    let mut response = html_response(markup);
    response.extensions_mut().insert(CountAs::route(Route::Landing));
    Ok(response)
}

/// A page that the browser may show and nothing else.
pub fn html_response(markup: Markup) -> Response {
    let mut response = markup.into_string().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The host that the client called us by, if it can be one; else a word that nobody mistakes.
fn host(headers: &HeaderMap) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| !host.is_empty() && host.len() <= 255 && host.bytes().all(legal))
        .unwrap_or("this-host:5000")
        .to_owned()
}

fn render(cache: &Cache, is_default: bool, host: &str) -> Markup {
    let mut url = format!("http://{host}");
    if !is_default {
        url += &format!("/c/{}", cache.name);
    }
    if let Some(snapshot) = &cache.snapshot {
        url += &format!("/@{snapshot}");
    }
    let keys: Vec<_> = cache.keys().public().iter().map(ToString::to_string).collect();
    let keys = keys.join(" ");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Snowbank: " (cache.title()) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body {
                h1 { "Snowbank" }
                @if let Some(snapshot) = &cache.snapshot {
                    p { "The cache as it was at the snapshot " code { (snapshot) } ", read-only." }
                }
                p { "A Nix binary cache. To use it, put this into " code { "/etc/nix/nix.conf" } ":" }
                pre { "extra-substituters = " (url) "\nextra-trusted-public-keys = " (keys) "\n" }
                p { "or into a NixOS configuration:" }
                pre {
                    "nix.settings = {\n  substituters = [ \"" (url) "\" ];\n  trusted-public-keys = [ "
                    @for key in keys.split(' ') { "\"" (key) "\" " }
                    "];\n};\n"
                }
                p { "To see that it answers:" }
                pre { "curl " (url) "/nix-cache-info\n" }
                p {
                    "Priority " (cache.info.priority) ", store directory "
                    code { (cache.info.store_dir) } ". "
                    a href="/health" { "Health" } " · " a href="/metrics" { "metrics" }
                }
            }
        }
    }
}
