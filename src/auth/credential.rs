//! What a request shows of who it is from.

use data_encoding::{BASE64, BASE64_NOPAD};
use zeroize::Zeroizing;

use super::token::Shown;

/// What stands in a request's `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// More than one header: which of them counts would be a guess.
    Several,
    /// Something that cannot be a token of ours.
    Unreadable,
    /// Something that may be one.
    Token(Shown),
}

impl Credential {
    /// Reads the values of all `Authorization` headers of a request.
    pub fn of<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::None,
            (Some(_), Some(_)) => Self::Several,
            (Some(value), None) => read(value).map_or(Self::Unreadable, Self::Token),
        }
    }
}

fn read(value: &[u8]) -> Option<Shown> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Shown::parse(rest);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64.decode(rest).or_else(|_| BASE64_NOPAD.decode(rest)).ok()?;
    let decoded = Zeroizing::new(decoded);
    // The user may be any; a password may have colons, a user may not.
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Shown::parse(&decoded[colon + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "sb_abcdfghi_0123456789abcdfghijklmnpqrsvwxyz0123456789abcdfghijk";

    fn of(values: &[&str]) -> Credential {
        Credential::of(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_token_is_taken_as_bearer_and_as_the_password_of_any_user() {
        let basic = |user: &str| BASE64.encode(format!("{user}:{TOKEN}").as_bytes());
        let shown = Shown::parse(TOKEN.as_bytes()).unwrap();
        for value in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            format!("Basic {}", basic("nix")),
            format!("BASIC {}", basic("")),
            format!("Basic {}", basic("runner").trim_end_matches('=')),
        ] {
            assert_eq!(of(&[&value]), Credential::Token(shown.clone()), "{value}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_none() {
        assert_eq!(of(&[]), Credential::None);
        let without_colon = BASE64.encode(TOKEN.as_bytes());
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Digest x",
            TOKEN,
            "Basic !",
            &format!("Basic {without_colon}"),
        ] {
            assert_eq!(of(&[value]), Credential::Unreadable, "{value:?}");
        }
    }

    #[test]
    fn two_are_never_chosen_between() {
        let value = format!("Bearer {TOKEN}");
        assert_eq!(of(&[&value, &value]), Credential::Several);
        assert_eq!(of(&[&value, ""]), Credential::Several);
    }
}
