//! Addresses of caches elsewhere, and connections to them.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may move.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections are let go before a server or a proxy closes them under us.
const IDLE_AGE: Duration = Duration::from_secs(30);
/// Where certificate authorities are, if no variable says so.
const CA_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// `http://host[:port][/path]`, or with `https`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    base: String,
    host: String,
    port: u16,
}

/// Not a URL that we can speak to.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of a cache: http://HOST[:PORT] or https://HOST[:PORT] is expected")]
pub struct AddressError(String);

/// The certificate authorities cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("certificate authorities in {}: {source}", path.display())]
pub struct AuthoritiesError {
    /// The bundle.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl Address {
    /// Reads the URL of a server, or of a cache on it.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let bad = || AddressError(url.chars().take(200).collect());
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let (Some(scheme), Some(authority), None) = (scheme, authority, uri.query()) else {
            return Err(bad());
        };
        let base = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let usual = if scheme == "https" { 443 } else { 80 };
        Ok(Self { base, host, port: authority.port_u16().unwrap_or(usual) })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// The host without a port, as a netrc names it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the URL leaves it out.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is spoken to with TLS.
    pub fn is_secure(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The URL without its path, and the path, which is empty or begins with a slash.
    pub fn split(&self) -> (&str, &str) {
        let host = self.base.find("://").map_or(0, |position| position + 3);
        match self.base[host..].find('/') {
            Some(slash) => self.base.split_at(host + slash),
            None => (&self.base, ""),
        }
    }
}

/// How connections to an address are made. A connection must come about in 10 s, and then move at least some
/// bytes every 60 s.
#[derive(Debug)]
pub struct Connector {
    connections: usize,
    redirects: u32,
    /// Where it is spoken to over TLS.
    authorities: Option<RootCerts>,
}

impl Connector {
    /// For an address; nothing is sent. `connections` are kept when they are idle, and at most `redirects` are
    /// followed. `lookup` reads the environment: the certificate authorities are where Nix looks for them.
    pub fn new(
        address: &Address,
        connections: usize,
        redirects: u32,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, AuthoritiesError> {
        // Reading a bundle of some hundred certificates takes a while, and plain HTTP needs none.
        let authorities = address.is_secure().then(|| authorities(lookup)).transpose()?;
        Ok(Self { connections, redirects, authorities })
    }

    /// What makes these connections; over TLS, `certificate` is shown where it is asked for.
    pub fn agent(&self, certificate: Option<ClientCert>) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(self.redirects)
            .max_redirects_will_error(false)
            .user_agent(concat!("snowbank/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT))
            .max_idle_age(IDLE_AGE)
            .max_idle_connections(self.connections)
            .max_idle_connections_per_host(self.connections);
        if let Some(authorities) = &self.authorities {
            let tls = TlsConfig::builder().root_certs(authorities.clone());
            config = config.tls_config(tls.client_cert(certificate).build());
        }
        config.build().new_agent()
    }
}

/// The certificate authorities that Nix would trust.
fn authorities(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<RootCerts, AuthoritiesError> {
    let variable = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = variable("NIX_SSL_CERT_FILE").or_else(|| variable("SSL_CERT_FILE"));
    let path = path.or_else(|| CA_BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.exists()));
    let path = path.unwrap_or_else(|| CA_BUNDLES[0].into());
    let failed = |source| AuthoritiesError { path: path.clone(), source };
    let pem = std::fs::read(&path).map_err(failed)?;
    // One certificate that does not parse does not make the others useless.
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let none = io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it");
        return Err(failed(none));
    }
    Ok(certificates.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_a_server_or_of_a_cache_on_it() {
        let parse = |url| Address::parse(url).unwrap();
        assert_eq!(parse("http://h:5000/").url(), "http://h:5000");
        assert_eq!(parse("https://h/c/a/").url(), "https://h/c/a");
        assert_eq!(parse("http://h:5000").host(), "h");
        assert_eq!(parse("http://[::1]:5000").host(), "::1");
        assert_eq!(parse("http://[::1]:5000/c/a").split(), ("http://[::1]:5000", "/c/a"));
        assert_eq!(parse("https://h/").split(), ("https://h", ""));
        assert_eq!((parse("http://h").port(), parse("https://h").port()), (80, 443));
        let wrong =
            ["", "h:5000", "ftp://h", "file:///x", "http://", "http://u:p@h", "http://h?x=1"];
        for url in wrong {
            assert!(Address::parse(url).is_err(), "{url}");
        }
    }
}
