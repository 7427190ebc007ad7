//! What a TLS listener needs: the configuration that new connections get, and how it is exchanged.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};

use super::PROTOCOLS;
use super::certificate::{Certificate, CertificateError, Validity};
use super::challenge::{self, Challenges, Resolver};
use super::client::{self, ClientFiles};
use crate::auth::certificate::{Revocations, Serial};
use crate::bank::stamp::FileStamp;

/// Sessions of TLS 1.2 that can be gone on with; those of 1.3, and of 1.2 with tickets, take no memory.
const SESSIONS: usize = 4096;

/// The files that a certificate is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then its chain, in PEM.
    pub certificate: PathBuf,
    /// The key, in PEM.
    pub key: PathBuf,
}

/// Who puts the certificate where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFrom {
    /// Somebody else: it has to be there.
    Files,
    /// The server itself, which has the key of an authority: it is not there at the first start.
    Internal,
    /// The same, by way of an ACME server, which looks for its proof on the listener.
    Acme,
}

/// All that TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// What is shown to clients.
    pub certificate: CertificateFiles,
    /// Who puts it there.
    pub from: CertificateFrom,
    /// What clients may show; `None` asks them for nothing.
    pub clients: Option<ClientFiles>,
}

/// Why nothing can be served over TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The library cannot work with it.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// What a look at the files came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// Nothing has changed.
    Same,
    /// New connections get something else.
    New,
}

/// TLS as a server speaks it. Connections keep what they began with.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    challenges: Arc<Challenges>,
    current: RwLock<Current>,
    revocations: Arc<Revocations>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
    chain: Vec<CertificateDer<'static>>,
    stamps: Vec<Option<FileStamp>>,
}

impl Tls {
    /// Reads the files. Blocks.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let challenges = Arc::new(Challenges::default());
        let (current, revoked) = read(&files, &provider, &challenges)?;
        let revocations = Arc::new(Revocations::default());
        revocations.replace(revoked);
        Ok(Self { files, provider, challenges, current: RwLock::new(current), revocations })
    }

    /// The certificates of clients that were revoked, as of the last look.
    pub fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.revocations)
    }

    /// What a connection that comes now gets.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// From when until when the certificate is valid; `None` while there is none.
    pub fn validity(&self) -> Option<Validity> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).validity.clone()
    }

    /// The certificate that is shown, with its chain; empty while there is none.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).chain.clone()
    }

    /// The file that the certificate is read from.
    pub fn certificate_file(&self) -> &Path {
        &self.files.certificate.certificate
    }

    /// What an ACME server is shown.
    pub const fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Reads the files again if they have changed since they were last read with success. What cannot be
    /// used is an error, and changes nothing. Blocks.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let unchanged = stamps(&self.files)
            == self.current.read().unwrap_or_else(PoisonError::into_inner).stamps;
        if unchanged {
            return Ok(Reloaded::Same);
        }
        let (new, revoked) = read(&self.files, &self.provider, &self.challenges)?;
        self.revocations.replace(revoked);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(Reloaded::New)
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<FileStamp>> {
    let TlsFiles { certificate: CertificateFiles { certificate, key }, clients, .. } = files;
    let of_clients = clients.iter().flat_map(|clients| {
        [Some(&clients.authorities), clients.revocations.as_ref()].into_iter().flatten()
    });
    [certificate, key].into_iter().chain(of_clients).map(|path| FileStamp::of(path).ok()).collect()
}

/// What new connections get, and the certificates of clients that were revoked.
fn read(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    challenges: &Arc<Challenges>,
) -> Result<(Current, HashSet<Serial>), TlsError> {
    // Before they are read: what changes meanwhile is read again.
    let stamps = stamps(files);
    let certificate = own(files, provider)?;
    let trust = files.clients.as_ref().map(|files| client::trust(files, provider)).transpose()?;
    let (verifier, revoked) = match trust {
        Some(trust) => (trust.verifier, trust.revoked),
        None => (WebPkiClientVerifier::no_client_auth(), HashSet::new()),
    };
    let chain = certificate.as_ref().map(|certificate| certificate.chain().to_vec());
    let (own, validity) = certificate.map_or((None, None), |certificate| {
        (Some(Arc::new(certificate.certified)), Some(certificate.validity))
    });
    let resolver = Resolver { own, challenges: Arc::clone(challenges) };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    let is_asked = files.from == CertificateFrom::Acme;
    let asked_by_acme = is_asked.then_some(challenge::PROTOCOL);
    let protocols = PROTOCOLS.into_iter().chain(asked_by_acme);
    config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
    // A session is gone on with without a look at the client's certificate. With tickets of its own, the
    // new configuration goes on with none that began under the old one.
    config.ticketer = Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    let chain = chain.unwrap_or_default();
    Ok((Current { config: Arc::new(config), validity, chain, stamps }, revoked))
}

/// What is shown; `None` where it is still to be issued.
fn own(files: &TlsFiles, provider: &CryptoProvider) -> Result<Option<Certificate>, TlsError> {
    let CertificateFiles { certificate, key } = &files.certificate;
    if files.from != CertificateFrom::Files && !certificate.exists() {
        return Ok(None);
    }
    match Certificate::load(certificate, key, provider) {
        // Another one can be made at once.
        Err(error) if files.from == CertificateFrom::Internal => {
            tracing::error!("the certificate that was issued before cannot be used: {error}");
            Ok(None)
        }
        loaded => Ok(Some(loaded?)),
    }
}
