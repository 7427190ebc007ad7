//! The names in a directory of a path.

use axum::response::Response;
use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{Page, show};
use crate::nix::store_path::StorePathHash;
use crate::source::browse::{Entry, Kind};

/// What needs no escape in one part of a URL's path.
pub(in crate::http) const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Names in a list; a page stays below 100 kB if they are of usual length.
const LISTED: usize = 400;

/// The page of a directory in a path. The directory's own page, where there is one, is not taken for it: its scripts
/// would not run, so it would be broken, and the names are what one comes for.
pub(in crate::http) fn directory(
    hash: StorePathHash,
    components: &[Vec<u8>],
    list: &[Entry],
) -> Response {
    let here: Vec<_> = components.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let title = format!("{hash}/{}", here.join("/"));
    let up = "../".repeat(components.len() + 2);
    let body = html! {
        p {
            @if components.is_empty() {
                a href={ (up) "path/" (hash) } { "The path’s page" }
            } @else {
                a href="../" { "The directory above" }
            }
        }
        (entries("./", list))
    };
    Page { title: &title, up: &up, searched: "", copies: false }.with(&body)
}

/// A table of names; `to` is what leads to the directory.
pub(super) fn entries(to: &str, entries: &[Entry]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead {
                    tr {
                        th scope="col" { "Name" }
                        th scope="col" class="number" { "Bytes" }
                        th scope="col" class="number" { "In the NAR at" }
                    }
                }
                tbody { @for entry in entries.iter().take(LISTED) { (row(to, entry)) } }
            }
        }
        @if entries.len() > LISTED {
            p { "And " (show::count((entries.len() - LISTED) as u64)) " more; the listing (.ls) has all." }
        }
    }
}

fn row(to: &str, entry: &Entry) -> Markup {
    let name = String::from_utf8_lossy(&entry.name);
    let slash = if entry.kind == Kind::Directory { "/" } else { "" };
    html! {
        tr {
            td class="path" {
                a href={ (to) (percent_encode(&entry.name, PLAIN)) (slash) } { (name) (slash) }
                @if entry.kind == Kind::Symlink { " " span class="quiet" { "link" } }
            }
            @if let Kind::File { size, nar_offset } = entry.kind {
                td class="number" { (size) }
                td class="number" { @if let Some(offset) = nar_offset { (offset) } }
            } @else {
                td {}
                td {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_where_they_are_shown_and_where_they_lead() {
        let kind = Kind::File { size: 7, nar_offset: Some(96) };
        let entry = Entry { name: b"<b>\"&?#%".to_vec(), kind };
        let shown = entries("./", &[entry]).into_string();
        assert!(shown.contains("href=\"./%3Cb%3E%22%26%3F%23%25\""), "{shown}");
        assert!(shown.contains("&lt;b&gt;") && !shown.contains("<b>"), "{shown}");
        assert!(shown.contains(">7<") && shown.contains(">96<"), "{shown}");
    }

    #[test]
    fn a_page_of_many_names_is_below_100_kb() {
        let entry = |number: usize| Entry {
            name: format!("a-name-of-some-length-{number:06}.tar.gz").into_bytes(),
            kind: Kind::File { size: 1 << 40, nar_offset: Some(1 << 40) },
        };
        let list: Vec<_> = (0..10_000).map(entry).collect();
        let page = directory(StorePathHash::from_bytes([7; 20]), &[], &list);
        let size = http_body::Body::size_hint(page.body()).exact().unwrap();
        assert!(size < 100_000, "{size} bytes");
        assert!(entries("./", &list).into_string().contains("9,600 more"), "the rest is counted");
    }
}
