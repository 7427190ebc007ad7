//! How sizes, times, paths and people are shown.

use indicatif::HumanBytes;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::nix::path_info::PathInfo;
use crate::nix::store_path::StorePath;

/// Such as `1.50 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Such as `12,345`.
pub(super) fn count(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// How long before `now` something was, both in seconds since 1970, with the time itself for machines.
pub(super) fn ago(now: i64, at: i64) -> Markup {
    let time = Timestamp::from_second(at).map_or_else(|_| "?".into(), |time| time.to_string());
    html! { time datetime=(time) title=(time) { (since(now.saturating_sub(at))) } }
}

fn since(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..0 => return "in the future".into(),
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

/// A path that leads to its page; `to` is what leads to that of a hash.
pub(super) fn path(to: &str, path: &StorePath) -> Markup {
    html! { a href={ (to) (path.hash()) } { (path) } }
}

/// Paths with what they take, as rows of a table.
pub(super) fn paths(to: &str, paths: &[PathInfo]) -> Markup {
    html! {
        div class="scroll" {
            table {
                thead { tr { th scope="col" { "Path" } th scope="col" class="number" { "NAR" } } }
                tbody {
                    @for info in paths {
                        tr {
                            td class="path" { (path(to, &info.path)) }
                            td class="number" { (bytes(info.nar_size)) }
                        }
                    }
                }
            }
        }
    }
}

/// Who pushed.
pub(super) fn pusher(name: &str, token: Option<&str>, address: &str) -> Markup {
    html! {
        (name)
        @if name != address { span class="quiet" { " from " (address) } }
        @if let Some(token) = token.filter(|token| *token != name) {
            span class="quiet" { ", token " (token) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        for (seconds, text) in [
            (-5, "in the future"),
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (3599, "59 minutes ago"),
            (3600, "1 hour ago"),
            (172_799, "47 hours ago"),
            (172_800, "2 days ago"),
        ] {
            assert_eq!(since(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn names_of_people_cannot_be_markup() {
        let shown = pusher("<b>", Some("t\"x"), "127.0.0.1").into_string();
        assert!(!shown.contains("<b>") && shown.contains("&lt;b&gt;"), "{shown}");
    }
}
