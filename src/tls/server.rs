//! What a TLS listener needs: the configuration that new connections get, and how it is exchanged.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, Ticketer};
use rustls::server::ServerSessionMemoryCache;
use rustls::sign::SingleCertAndKey;

use super::PROTOCOLS;
use super::certificate::{Certificate, CertificateError};
use super::files::Stamp;

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
    /// New connections get another certificate, valid until then, in seconds since 1970.
    New(i64),
}

/// TLS as a server speaks it. Connections keep what they began with.
#[derive(Debug)]
pub struct Tls {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    not_after: i64,
    stamp: [Stamp; 2],
}

impl Tls {
    /// Reads the files. Blocks.
    pub fn new(files: CertificateFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(read(&files, &provider)?);
        Ok(Self { files, provider, current })
    }

    /// What a connection that comes now gets.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Until when the certificate is valid, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).not_after
    }

    /// Reads the files again if they have changed since they were last read with success. What cannot be
    /// used is an error, and changes nothing. Blocks.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let before = self.current.read().unwrap_or_else(PoisonError::into_inner).stamp;
        if stamps(&self.files) == before {
            return Ok(Reloaded::Same);
        }
        let new = read(&self.files, &self.provider)?;
        let not_after = new.not_after;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(Reloaded::New(not_after))
    }
}

fn stamps(files: &CertificateFiles) -> [Stamp; 2] {
    [Stamp::of(&files.certificate), Stamp::of(&files.key)]
}

fn read(files: &CertificateFiles, provider: &Arc<CryptoProvider>) -> Result<Current, TlsError> {
    // Before they are read: what changes meanwhile is read again.
    let stamp = stamps(files);
    let certificate = Certificate::load(&files.certificate, &files.key, provider)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.certified)));
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    config.ticketer = Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    Ok(Current { config: Arc::new(config), not_after: certificate.not_after, stamp })
}
