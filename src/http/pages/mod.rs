//! Pages for people: the one at `/` with the state of the server, one for each path, and the search. All of them are
//! made here, whole, and load nothing from anywhere: they work without JavaScript, and what little there is stands in
//! the page, by its hash in the policy.

pub mod browse;
mod chart;
mod gather;
mod graph;
pub mod landing;
pub mod path;
pub mod search;
mod show;
mod status;
mod viewer;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use http::HeaderValue;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::nix::hash::Sha256;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// Nothing but the page's own style, by its hash; its form leads back here only.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| policy("'none'"));
/// The same with the page's own script.
static POLICY_WITH_SCRIPT: LazyLock<HeaderValue> =
    LazyLock::new(|| policy(&format!("'sha256-{}'", hash_of(SCRIPT))));

fn policy(script: &str) -> HeaderValue {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src {script}; img-src data:; \
         base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        hash_of(STYLE)
    );
    // Base64 and words: always a value of a header. A browser shows nothing of a page with less leave.
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn hash_of(text: &str) -> String {
    BASE64.encode(&Sha256::of(text.as_bytes()).0)
}

/// One page.
struct Page<'a> {
    /// What it is about: the title, and the first heading.
    title: &'a str,
    /// What leads from it to the page of its cache: nothing, or `../` as often as needed.
    up: &'a str,
    /// What was searched for, where it is that page.
    searched: &'a str,
    /// Whether something in it is there to be copied, which takes the script.
    copies: bool,
}

impl Page<'_> {
    /// The whole page around its body.
    fn with(&self, body: &Markup) -> Response {
        let Self { title, up, searched, copies } = *self;
        let home = if up.is_empty() { "./" } else { up };
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · Snowbank" }
                    link rel="icon" href="data:,";
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    a class="skip" href="#content" { "Skip to the content" }
                    header {
                        a class="home" href=(home) { "❄ Snowbank" }
                        form role="search" action={ (up) "search" } {
                            input type="search" name="q" value=(searched) required
                                aria-label="A path, its hash, a part of its name, or its derivation"
                                placeholder="path, hash, name or .drv" maxlength="300";
                            button { "Search" }
                        }
                    }
                    main id="content" tabindex="-1" {
                        h1 { (title) }
                        (body)
                    }
                    @if copies {
                        p id="said" class="unseen" role="status" {}
                        script { (PreEscaped(SCRIPT)) }
                    }
                }
            }
        };
        html_response(markup, if copies { &POLICY_WITH_SCRIPT } else { &POLICY })
    }
}

/// A page that the browser may show and nothing else.
fn html_response(markup: Markup, policy: &HeaderValue) -> Response {
    let mut response = markup.into_string().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
