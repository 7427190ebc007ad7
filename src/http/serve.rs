//! `serve/<hash>/<path>`: one file out of a path, without unpacking the rest.
//!
//! Anybody may have built what is in a path, so nothing of it runs in a browser: every answer is
//! sandboxed, is never sniffed, and HTML and SVG are shown as text.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, State as Shared};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method};
use percent_encoding::{percent_decode_str, percent_encode};

use super::body::BlockingBody;
use super::error::Failure;
use super::narinfo::parse_hash;
use super::pages::browse::{PLAIN, directory};
use super::state::{CacheOf, CountAs, Params, State, Work};
use crate::metrics::Route;
use crate::nix::store_path::StorePathHash;
use crate::source::browse::{self, Item};

const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");

/// The root of a path without the slash at its end, without which relative links go astray.
pub async fn root(OriginalUri(uri): OriginalUri) -> Redirect {
    Redirect::permanent(&format!("{}/", uri.path()))
}

/// A file, a directory's names, or where a link leads.
pub async fn get(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    OriginalUri(uri): OriginalUri,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let hash = parse_hash(params.get("hash"))?;
    // The parts are taken from the URL as it came: a name may hold an escaped byte that is no text.
    let (prefix, below) = split_url(uri.path()).ok_or(Failure::NotFound)?;
    let components = components(below)?;
    let (asked, names) = (Arc::clone(&cache), components.clone());
    let found = state.blocking(Work::Large, move || browse::open(&asked, hash, &names)).await??;
    let mut response = match found.ok_or(Failure::NotFound)? {
        Item::File { chunks, size } => {
            file(chunks, size, &components, request.method == Method::HEAD)
        }
        Item::Directory(_) if !uri.path().ends_with('/') => {
            Redirect::permanent(&format!("{}/", uri.path())).into_response()
        }
        Item::Directory(entries) => directory(hash, &components, &entries),
        Item::Symlink(target) => {
            let (hash, names) =
                browse::follow(&cache, hash, &components, &target).ok_or(Failure::NotFound)?;
            Redirect::temporary(&url(prefix, hash, &names)).into_response()
        }
    };
    response.extensions_mut().insert(CountAs::route(Route::Serve));
    Ok(response)
}

/// What stands before `/serve/` and what follows the hash.
fn split_url(path: &str) -> Option<(&str, &str)> {
    let (prefix, rest) = path.split_once("/serve/")?;
    Some((prefix, rest.split_once('/').map_or("", |(_, below)| below)))
}

fn components(below: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let decode = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
    let parts: Vec<_> = below.split('/').filter(|part| !part.is_empty()).map(decode).collect();
    let illegal = |part: &Vec<u8>| {
        matches!(part.as_slice(), b"" | b"." | b"..") || part.contains(&b'/') || part.contains(&0)
    };
    if parts.iter().any(illegal) {
        return Err(Failure::BadRequest("a name in the path is not one that a NAR can hold"));
    }
    Ok(parts)
}

fn url(prefix: &str, hash: StorePathHash, names: &[Vec<u8>]) -> String {
    let mut url = format!("{prefix}/serve/{hash}");
    for name in names {
        // Writing into a String cannot fail.
        let _ = write!(url, "/{}", percent_encode(name, PLAIN));
    }
    if names.is_empty() {
        url.push('/');
    }
    url
}

fn file(
    chunks: crate::source::chunks::BoxedChunks,
    size: u64,
    components: &[Vec<u8>],
    head: bool,
) -> Response {
    let body = if head || size == 0 {
        Body::empty()
    } else {
        Body::new(BlockingBody::new(chunks, Some(size)))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(components));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// By the name's ending; what a browser would run is text.
fn content_type(components: &[Vec<u8>]) -> HeaderValue {
    let name = components.last().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
    let guessed = mime_guess::from_path(&*name).first_raw().unwrap_or("application/octet-stream");
    let active = ["html", "xml", "svg", "javascript", "ecmascript", "wasm"];
    if active.iter().any(|word| guessed.contains(word)) || guessed.starts_with("text/") {
        return HeaderValue::from_static("text/plain; charset=utf-8");
    }
    HeaderValue::from_static(guessed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_run_is_text() {
        for name in ["a.html", "a.svg", "a.js", "a.xhtml", "a.xml", "a.mjs", "a.htm", "a.wasm"] {
            let kind = content_type(&[name.into()]);
            assert_eq!(kind, "text/plain; charset=utf-8", "{name}");
        }
        assert_eq!(content_type(&[b"a.png".to_vec()]), "image/png");
        assert_eq!(content_type(&[b"hello".to_vec()]), "application/octet-stream");
    }

    #[test]
    fn names_that_climb_are_refused_however_they_are_escaped() {
        for bad in ["..", "a/../b", "%2e%2e", "a%2fb", "%00", "."] {
            assert!(components(bad).is_err(), "{bad}");
        }
        assert_eq!(
            components("a/b%20c/%ff").unwrap(),
            [b"a".to_vec(), b"b c".to_vec(), vec![0xff]]
        );
        assert!(components("").unwrap().is_empty());
    }

    #[test]
    fn links_are_written_with_every_special_byte_escaped() {
        let hash = StorePathHash::from_bytes([0; 20]);
        let link = url("/c/x", hash, &[b"a b".to_vec(), b"<\"?#%".to_vec()]);
        assert_eq!(link, format!("/c/x/serve/{hash}/a%20b/%3C%22%3F%23%25"));
    }
}
