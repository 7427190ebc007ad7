//! Who issues the certificate that the server shows: an ACME server, or the server itself with the key of an
//! intermediate.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::acme::{Acme, AcmeError, AcmeSettings, Obtained};
use super::authority::issuer::Issuer;
use super::authority::names::HostName;
use super::authority::{IssueError, Usage};
use super::challenge::Challenges;

/// For how long the server issues itself a certificate, in seconds. Nix looks at no list of revoked certificates:
/// whoever steals the key is believed for a week at most. It is renewed with a third of it left.
const LIFETIME: i64 = 7 * 24 * 3600;

/// Who is to issue it, and for which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerSettings {
    /// An ACME server.
    Acme(AcmeSettings),
    /// The server itself.
    Internal(InternalSettings),
}

/// The authority that the server holds, and what it issues itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalSettings {
    /// The certificate of the authority, then what is to be shown of its chain, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The names to be in the certificate.
    pub names: Vec<HostName>,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssuanceError {
    /// By ACME.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// By ourselves.
    #[error(transparent)]
    Internal(#[from] IssueError),
}

/// What issues the server's certificate.
#[derive(Debug)]
pub enum Issuance {
    /// An ACME server does.
    Acme(Acme),
    /// The server itself does.
    Internal(InternalSettings),
}

impl Issuance {
    /// Keeps what it has to keep in `directory`, which is private.
    pub fn new(settings: IssuerSettings, directory: &Path) -> Self {
        match settings {
            IssuerSettings::Acme(settings) => Self::Acme(Acme::new(settings, directory)),
            IssuerSettings::Internal(settings) => Self::Internal(settings),
        }
    }

    /// Whether nobody else is asked, so that it can be tried as often as one likes.
    pub const fn is_near(&self) -> bool {
        matches!(self, Self::Internal(_))
    }

    /// The names to be in the certificate.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Acme(acme) => acme.names().to_vec(),
            Self::Internal(settings) => settings.names.iter().map(HostName::to_string).collect(),
        }
    }

    /// Whether the certificate at the head of `chain` is by whoever would issue the next one. Only an authority of
    /// our own can be exchanged for another under the same name. Blocks.
    pub fn is_by_the_same(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Self::Internal(settings) = self else { return true };
        // One that cannot be read issues nothing better.
        let own = CertificateDer::from_pem_file(&settings.certificate);
        !own.is_ok_and(|own| chain.get(1) != Some(&own))
    }

    /// Has a certificate issued; an ACME server is shown its proof in `challenges`. `now` is in seconds since 1970.
    /// Reads and writes files, and blocks while it waits for answers: for a thread of its own.
    pub async fn obtain(
        &self,
        challenges: &Challenges,
        now: i64,
    ) -> Result<Obtained, IssuanceError> {
        match self {
            Self::Acme(acme) => Ok(acme.obtain(challenges).await?),
            Self::Internal(settings) => Ok(settings.issue(now)?),
        }
    }
}

impl InternalSettings {
    fn issue(&self, now: i64) -> Result<Obtained, IssueError> {
        let issuer = Issuer::load(&self.certificate, &self.key)?;
        let not_after = issuer.not_after().min(now + LIFETIME);
        let issued = issuer.issue(&self.names, Usage::Server, now, not_after)?;
        Ok(Obtained { certificate: issued.chain, key: issued.key })
    }
}
