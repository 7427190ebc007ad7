//! What the commands of the client have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::CommandError;
use crate::client::closure::LocalPaths;
use crate::client::credentials::Token;
use crate::client::identity::Identity;
use crate::client::remote::{Destination, Remote, RemoteUrlError};
use crate::codec::seekable;
use crate::config::{self, Environment};
use crate::source::local::StoreLayout;

/// Where to push to.
#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// The server, or a cache on it [example: --to https://cache.example.org]
    #[arg(long, value_name = "URL", env = "SNOWBANK_TO", default_value = "http://127.0.0.1:5000")]
    to: String,

    /// The cache on that server, if it is not the default one [example: --cache team]
    #[arg(long, value_name = "NAME", env = "SNOWBANK_CACHE")]
    cache: Option<String>,

    /// The file with the token that may push; else SNOWBANK_TOKEN_FILE, SNOWBANK_TOKEN, or the
    /// password that a netrc has for the host (NETRC, ~/.netrc, /etc/nix/netrc)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The client certificate to show, in PEM, for a server that asks for one; read again when it changes
    #[arg(long, value_name = "FILE", env = "SNOWBANK_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,

    /// The key of that certificate
    #[arg(long, value_name = "FILE", env = "SNOWBANK_TLS_PRIVATE_KEY")]
    tls_private_key: Option<PathBuf>,
}

/// Which store to push from.
#[derive(Debug, Args)]
pub(super) struct StoreArguments {
    /// The root of a chroot store; else the store that Nix uses here [example: --store /srv/chroot]
    #[arg(long, value_name = "ROOT")]
    store: Option<PathBuf>,
}

/// How to push.
#[derive(Debug, Args)]
pub(super) struct TransferArguments {
    /// How hard to compress: 1 to 19, or -7 to -1 for more speed
    #[arg(long, default_value_t = seekable::LEVEL, allow_hyphen_values = true, value_name = "LEVEL")]
    pub(super) level: i32,

    /// The most uploads at once; how many there are is found out
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = jobs)]
    pub(super) jobs: usize,

    /// Push what an upstream of the cache signed, too
    #[arg(long)]
    pub(super) all: bool,
}

/// Where the queue is.
#[derive(Debug, Args)]
pub(super) struct SpoolArguments {
    /// The queue's directory [default: /var/spool/snowbank for root, else
    /// $XDG_STATE_HOME/snowbank/spool] [example: --spool /var/spool/snowbank]
    #[arg(long, value_name = "DIR", env = "SNOWBANK_SPOOL")]
    spool: Option<PathBuf>,
}

/// Where the roots are that keep what is queued.
#[derive(Debug, Args)]
pub(super) struct RootsArguments {
    /// Where roots are made that keep what is queued from the collector [default:
    /// gcroots/snowbank in Nix's state directory]
    #[arg(long, value_name = "DIR", env = "SNOWBANK_ROOTS")]
    roots: Option<PathBuf>,
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl ServerArguments {
    /// The cache, with whatever token and certificate there is for it.
    pub(super) fn remote(&self, connections: usize) -> Result<Remote, CommandError> {
        let lookup = |name: &str| std::env::var_os(name);
        let destination = Destination::parse(&self.to, self.cache.as_deref())?;
        let token = Token::find(self.token_file.as_deref(), destination.host(), &lookup)?;
        let (certificate, key) = (self.tls_certificate.as_deref(), self.tls_private_key.as_deref());
        let identity = Identity::find(certificate, key).map_err(RemoteUrlError::from)?;
        Ok(Remote::new(&destination, token, identity, connections, &lookup)?)
    }
}

impl StoreArguments {
    /// The store.
    pub(super) fn paths(&self) -> Result<LocalPaths, CommandError> {
        Ok(LocalPaths::new(layout_of_store(self.store.as_deref())?))
    }

    /// The nix-daemon's socket, where a variable names it; a chroot store has none.
    pub(super) fn daemon_socket(&self) -> Option<PathBuf> {
        variable("NIX_DAEMON_SOCKET_PATH").filter(|_| self.store.is_none())
    }
}

/// The Nix store of whoever runs the command, or the one at this root.
pub(super) fn layout_of_store(root: Option<&Path>) -> Result<StoreLayout, CommandError> {
    let lookup = |name: &str| std::env::var_os(name);
    let environment =
        Environment { lookup: &lookup, is_root: rustix::process::geteuid().is_root() };
    let found = config::store_of_command(root, &environment)?;
    Ok(StoreLayout {
        store_dir: found.store_dir,
        real_dir: found.real_store_dir,
        state_dir: found.state_dir,
        log_dir: found.log_dir,
    })
}

impl SpoolArguments {
    /// The directory.
    pub(super) fn directory(&self) -> PathBuf {
        if let Some(directory) = &self.spool {
            return directory.clone();
        }
        let state = || {
            variable("XDG_STATE_HOME")
                .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        };
        match state().filter(|_| !rustix::process::geteuid().is_root()) {
            Some(state) => state.join("snowbank/spool"),
            None => "/var/spool/snowbank".into(),
        }
    }
}

impl RootsArguments {
    /// The directory.
    pub(super) fn directory(&self) -> PathBuf {
        let state = || variable("NIX_STATE_DIR").unwrap_or_else(|| "/nix/var/nix".into());
        self.roots.clone().unwrap_or_else(|| state().join("gcroots/snowbank"))
    }
}

pub(super) fn jobs(text: &str) -> Result<usize, String> {
    let allowed = |jobs: &usize| (1..=256).contains(jobs);
    text.parse().ok().filter(allowed).ok_or_else(|| "1 to 256 are expected".into())
}

/// A time such as `90`, `90s`, `10m` or `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.as_bytes().last()),
        None => (text, None),
    };
    let seconds: u64 = match unit {
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => 1,
    };
    let number: Option<u64> = number.parse().ok();
    let total = number.and_then(|number| number.checked_mul(seconds));
    total.map(Duration::from_secs).ok_or_else(|| "a time such as 90s, 10m or 2h is expected".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        for (text, seconds) in [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-1", "1d", "1.5h", "99999999999999999999", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn uploads_at_once_are_bounded() {
        assert_eq!(jobs("16"), Ok(16));
        for text in ["0", "257", "x"] {
            assert!(jobs(text).is_err(), "{text}");
        }
    }
}
