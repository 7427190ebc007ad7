//! The names that a certificate is for, and those that an authority may put into one.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use rustls::pki_types::DnsName;
use x509_parser::extensions::{GeneralName, GeneralSubtree};
use x509_parser::prelude::X509Certificate;

use crate::tls::certificate::address;

/// A host that a certificate is for: a DNS name in lower case, perhaps with `*` for its first label, or an
/// address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostName {
    /// `cache.n3x.internal` or `*.n3x.internal`.
    Dns(String),
    /// An address of either family.
    Address(IpAddr),
}

/// What cannot be the name of a host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no DNS name and no address; names such as cache.n3x.internal, *.n3x.internal and 10.0.0.5 are"
)]
pub struct BadName(pub String);

/// What cannot be the domain of an authority.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no domain; one such as n3x.internal is, without a dot at its beginning or end")]
pub struct BadDomain(pub String);

/// What cannot be a range of addresses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadRange {
    /// It is none.
    #[error("{0:?} is no range of addresses; 10.0.0.0/8, fd00::/8 and 10.0.0.5 are")]
    Malformed(String),
    /// It has an address where the beginning of the range should be.
    #[error("{given} is not the beginning of a range: is {meant} meant, or {given_address} alone?")]
    NotABeginning {
        /// What was written.
        given: IpNet,
        /// The range that it is in.
        meant: IpNet,
        /// The address in it.
        given_address: IpAddr,
    },
}

impl HostName {
    /// Reads a name as people write it.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let below = text.strip_prefix("*.").unwrap_or(text);
        // `*.internal` would be for every domain of the network.
        let is_too_wide = below.len() < text.len() && !below.contains('.');
        match dns(below) {
            Some(_) if !is_too_wide => Ok(Self::Dns(text.to_ascii_lowercase())),
            _ => Err(BadName(text.into())),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => formatter.write_str(name),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}

/// The domain whose names an authority is for, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// Reads a domain as people write it.
    pub fn parse(text: &str) -> Result<Self, BadDomain> {
        let is_address = text.parse::<IpAddr>().is_ok();
        let domain = dns(text).filter(|_| !is_address);
        domain.map(Self).ok_or_else(|| BadDomain(text.into()))
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a range of addresses: `10.0.0.0/8`, or one address alone.
pub fn range(text: &str) -> Result<IpNet, BadRange> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let given: IpNet = text.parse().map_err(|_| BadRange::Malformed(text.into()))?;
    if given == given.trunc() {
        return Ok(given);
    }
    Err(BadRange::NotABeginning { given, meant: given.trunc(), given_address: given.addr() })
}

/// A DNS name in lower case. rustls takes one that ends with a dot, and no certificate has such a one.
fn dns(text: &str) -> Option<String> {
    let name = DnsName::try_from(text).ok()?;
    (!text.ends_with('.')).then(|| name.as_ref().to_ascii_lowercase())
}

/// The names that an authority's certificate lets it put into others (RFC 5280, 4.2.1.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    pub(super) permitted: Subtrees,
    pub(super) excluded: Subtrees,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subtrees {
    pub(super) domains: Vec<String>,
    pub(super) ranges: Vec<IpNet>,
}

impl Constraints {
    /// Those of a certificate; one that has none permits every name.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let Some(found) = certificate.name_constraints().ok().flatten() else {
            return Self::default();
        };
        let subtrees =
            |list: &Option<Vec<GeneralSubtree<'_>>>| Subtrees::of(list.as_deref().unwrap_or(&[]));
        Self {
            permitted: subtrees(&found.value.permitted_subtrees),
            excluded: subtrees(&found.value.excluded_subtrees),
        }
    }

    /// Whether a certificate for `name` would be believed.
    pub fn permit(&self, name: &HostName) -> bool {
        let Self { permitted, excluded } = self;
        match name {
            HostName::Dns(name) => {
                let covers = |domain: &String| covers(domain, name);
                !excluded.domains.iter().any(covers)
                    && (permitted.domains.is_empty() || permitted.domains.iter().any(covers))
            }
            HostName::Address(address) => {
                let covers = |range: &IpNet| range.contains(address);
                !excluded.ranges.iter().any(covers)
                    && (permitted.ranges.is_empty() || permitted.ranges.iter().any(covers))
            }
        }
    }
}

impl fmt::Display for Constraints {
    /// What is permitted, for whoever asked for something else.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subtrees { domains, ranges } = &self.permitted;
        let ranges = ranges.iter().map(IpNet::to_string);
        let all: Vec<String> = domains.iter().cloned().chain(ranges).collect();
        formatter.write_str(&all.join(", "))
    }
}

/// Whether `name` is `domain` or below it. A domain that begins with a dot, as some write it, is for what is
/// below it alone.
fn covers(domain: &str, name: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    match name.strip_suffix(domain.as_str()) {
        Some("") => true,
        Some(rest) => domain.is_empty() || domain.starts_with('.') || rest.ends_with('.'),
        None => false,
    }
}

impl Subtrees {
    fn of(list: &[GeneralSubtree<'_>]) -> Self {
        let mut subtrees = Self::default();
        for subtree in list {
            match &subtree.base {
                GeneralName::DNSName(domain) => subtrees.domains.push((*domain).to_owned()),
                GeneralName::IPAddress(bytes) => subtrees.ranges.extend(masked(bytes)),
                _ => {}
            }
        }
        subtrees
    }
}

/// An address and its mask.
fn masked(bytes: &[u8]) -> Option<IpNet> {
    let (start, mask) = bytes.split_at(bytes.len() / 2);
    IpNet::with_netmask(address(start)?, address(mask)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn constraints(permitted: (&[&str], &[&str]), excluded: (&[&str], &[&str])) -> Constraints {
        let subtrees = |(domains, ranges): (&[&str], &[&str])| Subtrees {
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            ranges: ranges.iter().map(|text| range(text).unwrap()).collect(),
        };
        Constraints { permitted: subtrees(permitted), excluded: subtrees(excluded) }
    }

    fn permits(constraints: &Constraints, name: &str) -> bool {
        constraints.permit(&HostName::parse(name).unwrap())
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        for (text, shown) in [
            ("Cache.N3X.internal", "cache.n3x.internal"),
            ("*.n3x.internal", "*.n3x.internal"),
            ("localhost", "localhost"),
            ("10.0.0.5", "10.0.0.5"),
            ("FD00::0:1", "fd00::1"),
        ] {
            assert_eq!(HostName::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            ".",
            "a b",
            "a..b",
            ".n3x.internal",
            "n3x.internal.",
            "*",
            "*.",
            "*.internal",
            "a.*.b",
            "**.n3x.internal",
            "https://n3x.internal",
            "n3x.internal:443",
            "10.0.0.0/8",
            "-a.b",
            "ä.example",
            "a/b",
            "a\nb",
        ] {
            assert_eq!(HostName::parse(text), Err(BadName(text.into())), "{text:?}");
        }
    }

    #[test]
    fn a_domain_is_a_name_and_nothing_else() {
        assert_eq!(Domain::parse("N3X.internal").unwrap().as_str(), "n3x.internal");
        for text in
            ["", ".n3x.internal", "n3x.internal.", "*.n3x.internal", "10.0.0.1", "::1", "a b"]
        {
            assert_eq!(Domain::parse(text), Err(BadDomain(text.into())), "{text:?}");
        }
    }

    #[test]
    fn a_range_begins_where_it_begins() {
        assert_eq!(range("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(range("10.0.0.5").unwrap().to_string(), "10.0.0.5/32");
        assert_eq!(range("::1").unwrap().to_string(), "::1/128");
        let said = range("10.1.2.3/8").unwrap_err().to_string();
        assert!(said.contains("is 10.0.0.0/8 meant, or 10.1.2.3 alone?"), "{said}");
        for text in ["", "10.0.0.0/33", "10.0.0/8", "n3x.internal"] {
            assert_eq!(range(text), Err(BadRange::Malformed(text.into())));
        }
    }

    #[test]
    fn what_is_permitted_and_what_is_excluded_are_held_apart_by_kind() {
        let ours = constraints((&["n3x.internal"], &["10.0.0.0/8"]), (&[], &[]));
        for name in ["n3x.internal", "a.n3x.internal", "*.n3x.internal", "10.255.0.1"] {
            assert!(permits(&ours, name), "{name}");
        }
        for name in ["an3x.internal", "n3x.internal.example", "internal", "11.0.0.1", "::1"] {
            assert!(!permits(&ours, name), "{name}");
        }
        let no_addresses = constraints((&["n3x.internal"], &[]), (&[], &["0.0.0.0/0", "::/0"]));
        assert!(permits(&no_addresses, "n3x.internal"));
        assert!(!permits(&no_addresses, "10.0.0.1") && !permits(&no_addresses, "::1"));
        let others = constraints((&[".example"], &[]), (&["secret.example"], &[]));
        assert!(permits(&others, "a.example") && permits(&others, "10.0.0.1"));
        assert!(!permits(&others, "example") && !permits(&others, "a.secret.example"));
        assert!(permits(&Constraints::default(), "anything.at.all"));
    }

    proptest! {
        #[test]
        fn what_is_read_as_a_name_is_read_again_as_the_same(text in "[a-zA-Z0-9.*:_-]{0,40}") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert_eq!(HostName::parse(&name.to_string()), Ok(name));
            }
        }

        #[test]
        fn a_name_is_within_a_domain_if_its_last_labels_are_the_domains(
            labels in prop::collection::vec("[a-z]{1,3}", 1..5),
            domain in prop::collection::vec("[a-z]{1,3}", 1..4),
        ) {
            let constraints = constraints((&[&domain.join(".")], &[]), (&[], &[]));
            let name = HostName::Dns(labels.join("."));
            prop_assert_eq!(constraints.permit(&name), labels.ends_with(&domain));
        }
    }
}
