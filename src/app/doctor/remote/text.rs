//! How what a stranger said is shown.

use jiff::Timestamp;

/// The longest that is shown of it.
const MAX_SHOWN: usize = 200;

/// A text of a server, without what a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let printable = text.chars().map(|character| match character {
        character if character.is_control() => ' ',
        character => character,
    });
    printable.take(MAX_SHOWN).collect::<String>().trim().to_owned()
}

/// A URL without what may be secret in it: a user, a query, a fragment.
pub(super) fn url_without_secrets(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or_default();
    let bare = match bare.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let user = host.rfind('@').map_or(0, |position| position + 1);
            format!("{scheme}://{}", &rest[user..])
        }
        None => bare.to_owned(),
    };
    shown(&bare)
}

/// A day and a time, of seconds since 1970.
pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| "a time beyond all".into(), |time| time.to_string())
}

/// A length of time in its largest whole unit.
pub(super) fn length(seconds: u64) -> String {
    for (unit, name) in [(86_400, "day"), (3600, "hour"), (60, "minute")] {
        if seconds >= unit {
            let count = seconds / unit;
            return format!("{count} {name}{}", if count == 1 { "" } else { "s" });
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_and_nothing_that_moves_a_cursor_is_shown() {
        assert_eq!(shown("a\x1b[2Jb\n"), "a [2Jb");
        assert_eq!(shown(&"x".repeat(1000)).len(), MAX_SHOWN);
        assert_eq!(url_without_secrets("http://u:p@h:1/x?sig=1"), "http://h:1/x");
        assert_eq!(url_without_secrets("/x/@y?sig=1"), "/x/@y");
        assert_eq!(url_without_secrets("https://h/a@b"), "https://h/a@b");
    }

    #[test]
    fn times_are_said_in_words() {
        assert_eq!([length(59), length(3600), length(200_000)], ["59 s", "1 hour", "2 days"]);
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
    }
}
