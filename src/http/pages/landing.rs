//! The page at `/`: how to use the cache, for everybody; and how the server is, for those who may see it.

use std::sync::Arc;

use axum::extract::{OriginalUri, State as Shared};
use axum::response::{Redirect, Response};
use http::Uri;
use http::header::HOST;
use http::request::Parts;
use maud::{Markup, html};

use super::viewer::Viewer;
use super::{Page, gather, status};
use crate::auth::{Audience, Denial};
use crate::http::auth::Admitted;
use crate::http::error::Failure;
use crate::http::state::{CacheOf, CountAs, State, Work};
use crate::metrics::Route;
use crate::source::cache::Cache;

/// What asks for a token: a browser asks for none by itself where everybody may read.
const SIGN_IN: &str = "sign-in";

/// The page of a cache whose name stands without the slash at the end, without which relative links go astray.
pub async fn root(_: CacheOf, OriginalUri(uri): OriginalUri) -> Redirect {
    Redirect::permanent(&format!("{}/", uri.path()))
}

/// The page of a cache.
pub async fn page(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    request: Parts,
) -> Result<Response, Failure> {
    if !state.landing_page {
        return Err(Failure::NotFound);
    }
    let viewer = Viewer::of(&state, &cache, &request).await?;
    if request.uri.query() == Some(SIGN_IN) && !viewer.is_known {
        return Err(Denial::NoCredential.into());
    }
    let is_default = cache.name == state.default.name;
    let url = url_of(&cache, is_default, &request);
    let status = match viewer.sees_status && cache.snapshot.is_none() {
        false => None,
        true => {
            let (shared, cache) = (Arc::clone(&state), Arc::clone(&cache));
            let caches = viewer.caches;
            let gather = move || gather::status(&shared, &cache, &caches);
            Some(state.blocking(Work::Large, gather).await?)
        }
    };
    let can_sign_in = !viewer.is_known && state.status_for != Audience::Nobody;
    let body = html! {
        (status::health(&state))
        @if let Some(status) = &status { (status::render(status)) }
        (how_to(&cache, &url))
        @if status.is_none() && can_sign_in && cache.snapshot.is_none() {
            p {
                a href={ "?" (SIGN_IN) } { "Sign in with a token" }
                " to see traffic, storage and what was pushed: any name, and the token as the password."
            }
        }
    };
    let title = match &cache.snapshot {
        None if is_default => "A Nix binary cache".into(),
        None => format!("The Nix binary cache {}", cache.name),
        Some(snapshot) => format!("The cache {} as it was at {snapshot}, read-only", cache.name),
    };
    let page = Page { title: &title, up: "", searched: "", copies: true };
    let mut response = page.with(&body);
    response.extensions_mut().insert(CountAs::route(Route::Landing));
    Ok(response)
}

/// The URL that clients use for this cache, as far as the request tells.
fn url_of(cache: &Cache, is_default: bool, request: &Parts) -> String {
    let origin = request.extensions.get().map(|admitted: &Admitted| &admitted.origin);
    let forwarded = request.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let is_secure = forwarded || origin.is_some_and(|origin| origin.is_secure);
    let scheme = if is_secure { "https" } else { "http" };
    let mut url = format!("{scheme}://{}", host(request));
    if !is_default {
        url += &format!("/c/{}", cache.name);
    }
    if let Some(snapshot) = &cache.snapshot {
        url += &format!("/@{snapshot}");
    }
    url
}

/// The host that the client called us by, if it can be one; else a word that nobody mistakes.
fn host(request: &Parts) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    // HTTP/2 has it in the URI.
    let authority = Uri::authority(&request.uri).map(http::uri::Authority::as_str);
    let header = || request.headers.get(HOST).and_then(|host| host.to_str().ok());
    authority
        .or_else(header)
        .filter(|host| !host.is_empty() && host.len() <= 255 && host.bytes().all(legal))
        .unwrap_or("this-host:5000")
        .to_owned()
}

fn how_to(cache: &Cache, url: &str) -> Markup {
    let keys: Vec<_> = cache.keys().public().iter().map(ToString::to_string).collect();
    html! {
        section aria-labelledby="use" {
            h2 id="use" { "Use this cache" }
            p { "Put this into " code { "/etc/nix/nix.conf" } ":" }
            pre class="copy" data-what="the lines for nix.conf" {
                "extra-substituters = " (url) "\nextra-trusted-public-keys = " (keys.join(" ")) "\n"
            }
            p { "or this into a NixOS configuration:" }
            pre class="copy" data-what="the NixOS settings" {
                "nix.settings = {\n  substituters = [ \"" (url) "\" ];\n  trusted-public-keys = [ "
                @for key in &keys { "\"" (key) "\" " }
                "];\n};\n"
            }
            p { "To see that it answers:" }
            pre class="copy" data-what="the command" { "curl " (url) "/nix-cache-info\n" }
            p class="quiet" {
                "Priority " (cache.info.priority) ", store directory "
                code { (cache.info.store_dir) } ". "
                a href="/health" { "Health" } " · " a href="/metrics" { "Metrics" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_host_is_as_the_client_says_it_if_it_can_be_one() {
        let host_of = |uri: &str, header: Option<&str>| {
            let mut request = Request::builder().uri(uri);
            if let Some(header) = header {
                request = request.header(HOST, header);
            }
            host(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(host_of("/", Some("cache.example:5000")), "cache.example:5000");
        assert_eq!(host_of("/", Some("[::1]:5000")), "[::1]:5000");
        assert_eq!(host_of("https://cache.example/", None), "cache.example", "as HTTP/2 has it");
        for (uri, header) in [("/", None), ("/", Some("<script>")), ("/", Some(""))] {
            assert_eq!(host_of(uri, header), "this-host:5000", "{header:?}");
        }
    }
}
