//! Where to listen: a TCP address, with TLS or without, a unix socket, or what systemd hands over.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:5000` or `[::1]:5000`; port 0 lets the kernel choose one.
    Tcp(SocketAddr),
    /// `https://0.0.0.0:5443`: the same, over TLS.
    Tls(SocketAddr),
    /// `unix:/run/snowbank/http.sock`, always absolute.
    Unix(PathBuf),
    /// `systemd`: every socket that the service manager passes in `LISTEN_FDS`.
    Systemd,
}

/// Why a text is no address to listen at; says what is allowed.
///
/// Host names are left out on purpose: what they mean changes with the resolver, and a server that
/// binds to another address than yesterday is a surprise nobody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an address is expected: an IP address with a port (\"127.0.0.1:5000\", \"[::]:5000\"), \
     the same over TLS (\"https://0.0.0.0:5443\"), \"unix:/absolute/path\" or \"systemd\""
)]
pub struct AddressError;

/// The longest path that the kernel takes for a unix socket, without the zero byte at its end.
const MAX_SOCKET_PATH: usize = 107;

impl ListenAddress {
    /// Whether only what runs on this host can connect. Nobody knows what systemd hands over.
    pub fn is_of_this_host(&self) -> bool {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
            Self::Systemd => false,
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.len() <= MAX_SOCKET_PATH && !path.contains('\0');
            let absolute = Path::new(path).is_absolute() && !path.ends_with('/');
            return if fits && absolute { Ok(Self::Unix(path.into())) } else { Err(AddressError) };
        }
        let (kind, address): (fn(_) -> _, _) = match text.strip_prefix("https://") {
            Some(address) => (Self::Tls, address),
            None => (Self::Tcp, text),
        };
        address.parse().map(kind).map_err(|_| AddressError)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Tls(address) => write!(formatter, "https://{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Systemd => formatter.write_str("systemd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_address_reads_and_prints_as_it_was_written() {
        for text in [
            "127.0.0.1:5000",
            "[::1]:0",
            "https://[::]:5443",
            "unix:/run/snowbank/http.sock",
            "systemd",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "5000",
            ":5000",
            "localhost:5000",
            "http://[::]:1",
            "https://x:1",
            "https://",
            "unix:",
            "unix:rel",
            "unix:/x/",
            &long,
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(AddressError), "{text}");
        }
    }
}
