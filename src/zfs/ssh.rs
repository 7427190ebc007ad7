//! Another machine, reached by `ssh`.

use std::fmt;
use std::str::FromStr;

use super::name::{DatasetName, NameError};
use super::text::shorten;

/// How long `ssh` tries to connect, in seconds: less than a question may take in all.
const CONNECT_TIMEOUT: u64 = 10;

/// `user@host` or `host`. Ports, keys and jumps are said in `~/.ssh/config` of the user that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SshTarget(Box<str>);

/// A dataset, here or on another machine: `[user@host:]POOL/DATASET`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The other machine, if it is one.
    pub host: Option<SshTarget>,
    /// The dataset there.
    pub dataset: DatasetName,
}

/// Why a text is not a machine, or not a place on one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SshTargetError {
    /// The part before the colon.
    #[error(
        "{0:?} is not a machine for ssh: write host or user@host, of letters, digits and _ . - \
         (and : in a host), neither beginning with -"
    )]
    Host(String),
    /// The part after it.
    #[error(transparent)]
    Dataset(#[from] NameError),
}

impl SshTarget {
    /// Checks `user@host` or `host`.
    pub fn parse(text: &str) -> Result<Self, SshTargetError> {
        let (user, host) = match text.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, text),
        };
        let is_word = |word: &str, more: &[u8]| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
            !word.is_empty() && !word.starts_with('-') && word.bytes().all(allowed)
        };
        let valid = is_word(host, b"_.-:") && user.is_none_or(|user| is_word(user, b"_.-"));
        if valid && text.len() <= 255 {
            Ok(Self(text.into()))
        } else {
            Err(SshTargetError::Host(shorten(text)))
        }
    }

    /// The arguments of `ssh` before the command: it must never ask for a password.
    pub(super) fn options(&self) -> Vec<String> {
        let connect = format!("ConnectTimeout={CONNECT_TIMEOUT}");
        ["-o", "BatchMode=yes", "-o", &connect, "--", &self.0].map(String::from).into()
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for SshTarget {
    type Err = SshTargetError;

    fn from_str(text: &str) -> Result<Self, SshTargetError> {
        Self::parse(text)
    }
}

impl FromStr for Location {
    type Err = SshTargetError;

    /// A colon is allowed in a dataset too, so it separates a host only where no `/` stands before
    /// it: `host:tank/a` is on another machine, `tank/a:b` is here.
    fn from_str(text: &str) -> Result<Self, SshTargetError> {
        let first_part = text.split('/').next().unwrap_or_default();
        let Some((host, _)) = first_part.rsplit_once(':') else {
            return Ok(Self { host: None, dataset: DatasetName::parse(text)? });
        };
        let dataset = DatasetName::parse(&text[host.len() + 1..])?;
        Ok(Self { host: Some(SshTarget::parse(host)?), dataset })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(formatter, "{host}:{}", self.dataset),
            None => self.dataset.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_host_with_or_without_a_user() {
        for text in ["host", "root@10.0.0.1", "a_b.c-d@h-1.example", "root@fe80::1"] {
            assert_eq!(SshTarget::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "-oProxyCommand=x", "a@-h", "-a@h", "a@", "@h", "a b", "a@b@c", "h;x", "h$x"]
        {
            assert!(SshTarget::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_place_is_here_or_on_another_machine() {
        let here: Location = "tank/a:b".parse().unwrap();
        assert_eq!((here.host.as_ref(), here.dataset.as_str()), (None, "tank/a:b"));
        let there: Location = "root@host:tank/a".parse().unwrap();
        assert_eq!(there.host.as_ref().unwrap().to_string(), "root@host");
        assert_eq!(there.to_string(), "root@host:tank/a");
        let six: Location = "root@fe80::1:tank".parse().unwrap();
        assert_eq!(
            (six.host.unwrap().to_string(), six.dataset.as_str()),
            ("root@fe80::1".into(), "tank")
        );
        for text in ["", ":tank", "host:", "host:/tank", "a b:tank", "host:-r"] {
            assert!(text.parse::<Location>().is_err(), "{text:?}");
        }
    }
}
