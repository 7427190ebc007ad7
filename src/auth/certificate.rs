//! Client certificates: what they say of who shows them, and what whoever has such a name may do.
//!
//! That a certificate is signed by an authority that is trusted for it, is valid and is not revoked is found
//! out when the connection begins. It ends, or is revoked, while connections go on and are gone on with: so
//! both are asked again at each request.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// What stands in a certificate whose chain was verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// Its subject alternative names that are DNS names, mail addresses and URIs.
    pub names: Vec<String>,
    /// The common name of its subject.
    pub common_name: Option<String>,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// Which one it is.
    pub serial: Serial,
}

/// What tells a certificate from all others: who signed it, as DER, and its number there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serial {
    /// The name of the authority, as DER.
    pub issuer: Vec<u8>,
    /// The number, without leading zeros.
    pub number: Vec<u8>,
}

impl ClientCertificate {
    /// For people: its first name.
    pub fn label(&self) -> &str {
        let first = self.names.first().or(self.common_name.as_ref());
        first.map_or("a certificate without a name", String::as_str)
    }
}

/// What whoever shows a certificate with such a name may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientGrant {
    /// Which names; one is enough.
    pub names: Vec<NamePattern>,
    /// Whether they may push.
    pub push: bool,
    /// Whether they may read private caches.
    pub pull: bool,
    /// Whether they may pin.
    pub pin: bool,
    /// The caches that this is for; `None` is all.
    pub caches: Option<Vec<String>>,
}

impl ClientGrant {
    pub(super) fn is_of(&self, certificate: &ClientCertificate) -> bool {
        self.names.iter().any(|pattern| pattern.matches(certificate))
    }

    pub(super) fn is_for(&self, cache: &str) -> bool {
        self.caches.as_ref().is_none_or(|caches| caches.iter().any(|own| own == cache))
    }
}

/// A pattern for names: `*` stands for any characters but dots and slashes, so for a label of a DNS name
/// or a part of it. Letters are compared without their case, as DNS does.
///
/// One that begins with `CN=` is for the common name of the subject, any other for the subject alternative
/// names: who issues certificates for a domain does not always look at the common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Reads a pattern; `None` for what no name could match.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix(COMMON_NAME).unwrap_or(text);
        let legal = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        (!name.trim().is_empty() && name.len() <= MAX_PATTERN && name.bytes().all(legal))
            .then(|| Self(text.to_owned()))
    }

    fn matches(&self, certificate: &ClientCertificate) -> bool {
        match self.0.strip_prefix(COMMON_NAME) {
            Some(pattern) => {
                certificate.common_name.as_ref().is_some_and(|name| glob(pattern, name))
            }
            None => certificate.names.iter().any(|name| glob(&self.0, name)),
        }
    }
}

const COMMON_NAME: &str = "CN=";
/// No DNS name is longer than 253 bytes; this leaves room for a URI.
const MAX_PATTERN: usize = 1024;

/// Whether `pattern` matches all of `name`. Takes at most as many steps as both lengths multiplied.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where to go on if the last star has to stand for one more byte.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if at < pattern.len() && pattern[at] == b'*' {
            star = Some((at + 1, from));
            at += 1;
        } else if at < pattern.len() && pattern[at].eq_ignore_ascii_case(&name[from]) {
            at += 1;
            from += 1;
        } else if let Some((after, taken)) = star
            && !matches!(name[taken], b'.' | b'/')
        {
            star = Some((after, taken + 1));
            (at, from) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The certificates that are good for nothing any more, as of the last look.
#[derive(Debug, Default)]
pub struct Revocations(RwLock<HashSet<Serial>>);

impl Revocations {
    /// Puts these in the place of those before.
    pub fn replace(&self, revoked: HashSet<Serial>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = revoked;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn has(&self, serial: &Serial) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(serial)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(names: &[&str], common_name: Option<&str>) -> ClientCertificate {
        ClientCertificate {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            common_name: common_name.map(str::to_owned),
            not_after: 0,
            serial: Serial { issuer: Vec::new(), number: Vec::new() },
        }
    }

    #[test]
    fn a_star_is_a_label_or_a_part_of_one_and_no_more() {
        for (pattern, name, expected) in [
            ("runner-1.ci.example", "runner-1.ci.example", true),
            ("runner-1.ci.example", "Runner-1.CI.example", true),
            ("runner-1.ci.example", "runner-1.ci.example.evil", false),
            ("*.ci.example", "runner-1.ci.example", true),
            ("*.ci.example", "a.b.ci.example", false),
            ("*.ci.example", "ci.example", false),
            ("*.ci.example", ".ci.example", true),
            ("runner-*.ci.example", "runner-12.ci.example", true),
            ("runner-*.ci.example", "runner-1.evil.ci.example", false),
            ("*-*.ci.example", "a-b-c.ci.example", true),
            ("*", "anything", true),
            ("*", "any.thing", false),
            ("**", "anything", true),
            ("spiffe://n3x/ci/*", "spiffe://n3x/ci/one", true),
            ("spiffe://n3x/ci/*", "spiffe://n3x/ci/one/two", false),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_common_name_is_matched_only_by_a_pattern_that_names_it() {
        let both = certificate(&["runner-1.ci.example"], Some("ops"));
        let matches = |pattern: &str| NamePattern::parse(pattern).unwrap().matches(&both);
        assert!(matches("runner-*.ci.example") && matches("CN=ops") && matches("CN=o*"));
        assert!(!matches("ops") && !matches("CN=runner-1.ci.example"));
        assert_eq!(both.label(), "runner-1.ci.example");
    }

    #[test]
    fn what_can_match_nothing_is_no_pattern() {
        for text in ["", " ", "CN=", "a\nb", "ä.example", &"a".repeat(2000)] {
            assert_eq!(NamePattern::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_itself_with_a_part_of_a_label_left_out(
            name in "[a-z0-9-]{1,8}(\\.[a-z0-9-]{1,8}){0,3}", cut in 0_usize..8, length in 0_usize..8,
        ) {
            prop_assert!(glob(&name, &name));
            let (from, to) = (cut.min(name.len()), (cut + length).min(name.len()));
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert_eq!(glob(&pattern, &name), !name[from..to].contains('.'), "{}", pattern);
        }
    }
}
