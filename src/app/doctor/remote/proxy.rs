//! Whether the environment sends requests to a proxy: then Nix goes there, and never to the server itself.

use super::super::Finding;
use super::text::url_without_secrets;
use crate::client::nix_conf::view::Lookup;
use crate::source::upstream::connect::Address;

/// The proxy that counts for an address, and the variable that names it.
pub(super) struct Proxy {
    url: String,
    named_by: &'static str,
}

impl Proxy {
    /// For requests.
    pub(super) fn to_ureq(&self) -> Result<ureq::Proxy, Finding> {
        ureq::Proxy::new(&self.url).map_err(|_| {
            Finding::problem(
                format!(
                    "{} does not name a proxy: {}",
                    self.named_by,
                    url_without_secrets(&self.url)
                ),
                "http://HOST:PORT is expected, or socks5:// for a proxy of that kind",
            )
        })
    }
}

/// The proxy, as curl finds it.
pub(super) fn for_address(address: &Address, lookup: Lookup<'_>) -> Option<Proxy> {
    let get = |name: &str| {
        let value = lookup(name)?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    };
    let exempt = get("no_proxy").or_else(|| get("NO_PROXY")).unwrap_or_default();
    if exempt.split([',', ' ']).any(|rule| is_exempt(address.host(), rule)) {
        return None;
    }
    // HTTP_PROXY is what a CGI program gets of the header `Proxy`, so curl does not look at it.
    let names: &[&'static str] = if address.is_secure() {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    };
    names.iter().find_map(|named_by| get(named_by).map(|url| Proxy { url, named_by }))
}

fn is_exempt(host: &str, rule: &str) -> bool {
    let rule = rule.trim().trim_start_matches('.');
    let below = || host.strip_suffix(rule).is_some_and(|rest| rest.ends_with('.'));
    rule == "*" || (!rule.is_empty() && (host == rule || below()))
}

pub(super) fn findings(proxy: &Proxy) -> [Finding; 2] {
    [
        Finding::warning(
            format!(
                "{} is set: requests go to {}",
                proxy.named_by,
                url_without_secrets(&proxy.url)
            ),
            "put the host into no_proxy if they should not; the nix-daemon does not get this variable \
             from your shell, but from its own environment",
        ),
        Finding::skipped(
            "DNS, TCP and TLS as far as the server",
            "the proxy does these; what follows is asked through it",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_counts_for_its_scheme_and_for_hosts_that_are_not_exempt() {
        let secure = Address::parse("https://cache.example.org").unwrap();
        let plain = Address::parse("http://127.0.0.1:5000").unwrap();
        let named_by = |address, variables: &[(&str, &str)]| {
            let lookup = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).into())
            };
            for_address(address, &lookup).map(|proxy| proxy.named_by)
        };
        let https = ("https_proxy", "http://u:p@proxy:3128");
        assert_eq!(named_by(&secure, &[https]), Some("https_proxy"));
        assert_eq!(named_by(&plain, &[https]), None);
        assert_eq!(named_by(&secure, &[https, ("no_proxy", "a, .example.org")]), None);
        assert_eq!(named_by(&secure, &[https, ("NO_PROXY", "ample.org")]), Some("https_proxy"));
        assert_eq!(named_by(&plain, &[("all_proxy", "x")]), Some("all_proxy"));
    }

    #[test]
    fn the_password_of_a_proxy_is_not_shown() {
        let proxy = Proxy { url: "http://u:secret@proxy:3128".into(), named_by: "http_proxy" };
        let said = findings(&proxy)[0].to_string();
        assert!(said.contains("http://proxy:3128") && !said.contains("secret"), "{said}");
    }
}
