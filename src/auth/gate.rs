//! The one place that says who may do what.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::certificate::{ClientCertificate, ClientGrant, Revocations};
use super::credential::Credential;
use super::failures::Failures;
use super::{PullPolicy, PushPolicy};
use crate::index::state::{StateDb, StateError, TokenRecord};

/// What somebody wants to do with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Read it.
    Pull,
    /// Write to it, or ask what only those who write may know.
    Push,
    /// Say what it is to keep, and ask what is pinned.
    Pin,
}

/// Who may do what with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Who may push.
    pub push: PushPolicy,
    /// Who may read.
    pub pull: PullPolicy,
}

/// Why somebody may not. None of it depends on what the cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody may push.
    #[error("this cache takes no pushes")]
    NoPushes,
    /// Nobody may push to a view.
    #[error("a view of a snapshot is read-only; push to the cache itself")]
    ReadOnly,
    /// Nothing was shown.
    #[error("a token is needed, as Authorization: Bearer or as the password in netrc")]
    NoCredential,
    /// No certificate was shown.
    #[error("a client certificate is needed, over https://")]
    NoCertificate,
    /// A certificate was shown, and ended while the connection went on.
    #[error("this client certificate has expired")]
    CertificateExpired,
    /// The same, of one that was revoked.
    #[error("this client certificate was revoked")]
    CertificateRevoked,
    /// None of its names may do this with this cache.
    #[error("no name of this client certificate may do this here")]
    CertificateMayNot,
    /// More than one thing was shown.
    #[error("more than one Authorization header")]
    Several,
    /// What was shown is no token, or not one of ours.
    #[error("this token is not known here")]
    Wrong,
    /// The same, too often from one address.
    #[error("this token is not known here, and there were too many like it; ask again in a minute")]
    TooMany,
    /// It was a token.
    #[error("this token has expired")]
    Expired,
    /// It was a token.
    #[error("this token was revoked")]
    Revoked,
    /// The token is for other caches.
    #[error("this token is not for this cache")]
    OtherCache,
    /// The token has not the scope push.
    #[error("this token may not push")]
    MayNotPush,
    /// The token has not the scope pull.
    #[error("this token may not pull")]
    MayNotPull,
    /// The token has not the scope pin.
    #[error("this token may not pin")]
    MayNotPin,
    /// The tokens cannot be read now.
    #[error("tokens cannot be checked now; the server's log says why")]
    Unavailable,
}

impl Denial {
    /// The label `reason` of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoPushes => "no-pushes",
            Self::ReadOnly => "read-only",
            Self::NoCredential => "no-credential",
            Self::NoCertificate => "no-certificate",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CertificateMayNot => "certificate-other-scope",
            Self::Several => "several-credentials",
            Self::Wrong => "wrong",
            Self::TooMany => "too-many-wrong",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::OtherCache => "other-cache",
            Self::MayNotPush | Self::MayNotPull | Self::MayNotPin => "other-scope",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Right {
    /// The label `right` of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Pin => "pin",
        }
    }
}

/// Who asks, and what they show.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// What stands in the request.
    pub credential: &'a Credential,
    /// What the connection began with.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// From where; `None`: a unix socket.
    pub source: Option<IpAddr>,
}

/// Why somebody may.
#[derive(Clone, Debug, PartialEq)]
pub enum Leave {
    /// Everybody may.
    Open,
    /// By this token.
    Token(Arc<TokenRecord>),
    /// By this certificate.
    Certificate(Arc<ClientCertificate>),
}

/// What client certificates are good for.
#[derive(Debug, Default)]
pub struct Clients {
    /// What their names may do.
    pub grants: Vec<ClientGrant>,
    /// Those that are good for nothing any more.
    pub revocations: Arc<Revocations>,
}

/// Decides, from memory. What it knows of tokens is as new as the database: ask
/// [`Self::is_current`] first, and [`Self::refresh`] where it is not.
pub struct Gate {
    policies: BTreeMap<String, CachePolicy>,
    clients: Clients,
    state: Option<Arc<StateDb>>,
    tokens: RwLock<Arc<Table>>,
    refreshing: Mutex<()>,
    failures: Failures,
    clock: Clock,
}

/// The tokens by id, as they were at a version of the database.
#[derive(Default)]
struct Table {
    version: Option<i64>,
    changes: i64,
    by_id: Arc<HashMap<String, Arc<TokenRecord>>>,
}

impl Gate {
    /// Holds caches to their policies. Without a `state` no token can be checked.
    pub fn new(
        policies: BTreeMap<String, CachePolicy>,
        clients: Clients,
        state: Option<Arc<StateDb>>,
    ) -> Self {
        Self {
            policies,
            clients,
            state,
            tokens: RwLock::default(),
            refreshing: Mutex::default(),
            failures: Failures::default(),
            clock: Clock::start(SystemTime::now(), Instant::now()),
        }
    }

    /// Whether everybody may, so that nothing needs to be asked.
    pub fn is_open(&self, cache: &str, right: Right) -> bool {
        self.policy(cache).is_some_and(|policy| match right {
            Right::Pull => policy.pull == PullPolicy::Public,
            // Without the database nobody could say later who pushed what.
            Right::Push => policy.push == PushPolicy::Open && self.state.is_some(),
            // Who may only push says nothing of what stays.
            Right::Pin => false,
        })
    }

    /// Whether no token was made or revoked, by whichever process, since they were last read. Takes
    /// microseconds and waits for nobody.
    pub fn is_current(&self) -> bool {
        match &self.state {
            // An error is met again, and told, by `refresh`.
            Some(state) => {
                state.data_version().ok().is_some_and(|now| self.tokens().version == Some(now))
            }
            None => true,
        }
    }

    /// Reads the tokens again, if they changed. Blocks.
    pub fn refresh(&self) -> Result<(), StateError> {
        let Some(state) = &self.state else { return Ok(()) };
        let _only_one = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        // The version is taken first: what is written while we read is noticed next time.
        let version = Some(state.data_version()?);
        let known = self.tokens();
        if known.version == version {
            return Ok(());
        }
        let table = if known.version.is_some() && state.token_changes()? == known.changes {
            Table { version, changes: known.changes, by_id: Arc::clone(&known.by_id) }
        } else {
            let tokens = state.tokens()?;
            let by_id = tokens.all.into_iter().map(|token| (token.id.clone(), Arc::new(token)));
            Table { version, changes: tokens.changes, by_id: Arc::new(by_id.collect()) }
        };
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(())
    }

    /// Whether the caller may, and by what. A cache that does not exist is nobody's.
    pub fn check(&self, cache: &str, right: Right, caller: Caller<'_>) -> Result<Leave, Denial> {
        if self.is_open(cache, right) {
            return Ok(Leave::Open);
        }
        let policy = self.policy(cache);
        if right == Right::Push && policy.is_none_or(|policy| policy.push == PushPolicy::None) {
            return Err(Denial::NoPushes);
        }
        if self.state.is_none() {
            return Err(Denial::Unavailable);
        }
        let by_certificate = match caller.certificate {
            Some(certificate) => self.check_certificate(cache, right, certificate),
            None => Err(Denial::NoCertificate),
        };
        let only_certificates = policy.is_some_and(|policy| match right {
            Right::Pull => policy.pull == PullPolicy::Certificate,
            Right::Push | Right::Pin => policy.push == PushPolicy::Certificate,
        });
        match (by_certificate, caller.credential) {
            (Ok(leave), _) => Ok(leave),
            (Err(denial), _) if only_certificates => Err(denial),
            // Who shows a certificate and no token hears what is wrong with the certificate.
            (Err(denial), Credential::None) if caller.certificate.is_some() => Err(denial),
            _ => self.check_token(cache, right, caller),
        }
    }

    /// Who the caller is, if this cache knows them: whoever may do anything with it by what they show, whatever
    /// everybody may.
    pub fn knows(&self, cache: &str, caller: Caller<'_>) -> Option<Leave> {
        const ANY: [Right; 3] = [Right::Pull, Right::Push, Right::Pin];
        let by_certificate = caller.certificate.and_then(|certificate| {
            ANY.into_iter().find_map(|right| self.check_certificate(cache, right, certificate).ok())
        });
        if by_certificate.is_some() {
            return by_certificate;
        }
        for right in ANY {
            match self.check_token(cache, right, caller) {
                Ok(leave) => return Some(leave),
                Err(Denial::MayNotPull | Denial::MayNotPush) => {}
                // Asked once: a wrong token counts as one guess.
                Err(_) => return None,
            }
        }
        None
    }

    fn check_certificate(
        &self,
        cache: &str,
        right: Right,
        certificate: &Arc<ClientCertificate>,
    ) -> Result<Leave, Denial> {
        if self.clients.revocations.has(&certificate.serial) {
            return Err(Denial::CertificateRevoked);
        }
        if self.clock.seconds(SystemTime::now(), Instant::now()) > certificate.not_after {
            return Err(Denial::CertificateExpired);
        }
        let may = |grant: &ClientGrant| match right {
            Right::Pull => grant.pull,
            Right::Push => grant.push,
            Right::Pin => grant.pin,
        };
        let mut grants = self.clients.grants.iter().filter(|grant| grant.is_of(certificate));
        match grants.any(|grant| may(grant) && grant.is_for(cache)) {
            true => Ok(Leave::Certificate(Arc::clone(certificate))),
            false => Err(Denial::CertificateMayNot),
        }
    }

    fn check_token(&self, cache: &str, right: Right, caller: Caller<'_>) -> Result<Leave, Denial> {
        let source = caller.source;
        let shown = match caller.credential {
            Credential::None => return Err(Denial::NoCredential),
            Credential::Several => return Err(Denial::Several),
            Credential::Unreadable => return Err(self.wrong(source)),
            Credential::Token(shown) => shown,
        };
        let tokens = self.tokens();
        let token = tokens.by_id.get(&shown.id);
        let is_right = shown.is(token.map(Arc::as_ref));
        let Some(token) = token.filter(|_| is_right) else { return Err(self.wrong(source)) };
        // Whoever has the secret is no guesser: none of these count as failures.
        if token.revoked.is_some() {
            return Err(Denial::Revoked);
        }
        let now = self.clock.seconds(SystemTime::now(), Instant::now());
        if token.expires.is_some_and(|expires| now >= expires) {
            return Err(Denial::Expired);
        }
        if !token.caches.as_ref().is_none_or(|caches| caches.iter().any(|own| own == cache)) {
            return Err(Denial::OtherCache);
        }
        match right {
            Right::Pull if !token.pull => Err(Denial::MayNotPull),
            Right::Push if !token.push => Err(Denial::MayNotPush),
            Right::Pin if !token.pin => Err(Denial::MayNotPin),
            _ => Ok(Leave::Token(Arc::clone(token))),
        }
    }

    fn wrong(&self, source: Option<IpAddr>) -> Denial {
        match self.failures.count(source, Instant::now()) {
            true => Denial::TooMany,
            false => Denial::Wrong,
        }
    }

    fn policy(&self, cache: &str) -> Option<CachePolicy> {
        self.policies.get(cache).copied()
    }

    /// A poisoned lock holds a whole table: it is only ever swapped.
    fn tokens(&self) -> Arc<Table> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wall clock, which a token's end is judged by. While the process runs it is never behind what
/// has passed since the start, so that a clock that is set back opens nothing that was closed.
struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    const fn start(wall: SystemTime, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// Seconds since 1970.
    fn seconds(&self, wall: SystemTime, steady: Instant) -> i64 {
        let least = self.wall + steady.saturating_duration_since(self.steady);
        let since = wall.max(least).duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests;
