//! Which certificate a client is shown: the server's own, or the proof that an ACME server asks for.
//!
//! Whoever can answer on a name's TLS port with a certificate that holds what the ACME server wants to see has
//! the name (`tls-alpn-01`, RFC 8737). It asks with a protocol of its own in ALPN, so nobody else ever sees that
//! certificate.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// What an ACME server speaks when it looks for its proof.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// The proofs that are asked for just now, by name.
#[derive(Debug, Default)]
pub struct Challenges(RwLock<HashMap<String, Arc<CertifiedKey>>>);

/// Why a proof cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// It cannot be made.
    #[error("a certificate for {0} cannot be made: {1}")]
    Make(String, rcgen::Error),
    /// It cannot be used.
    #[error("a certificate for {0} cannot be used: {1}")]
    Use(String, rustls::Error),
}

impl Challenges {
    /// Shows that we have `name`; `digest` is what the ACME server expects.
    pub fn show(&self, name: &str, digest: &[u8; 32]) -> Result<(), ProofError> {
        let make = || {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
            let key = KeyPair::generate()?;
            Ok((params.self_signed(&key)?, key))
        };
        let (certificate, key) = make().map_err(|error| ProofError::Make(name.into(), error))?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        // Not held against its certificate: that has what nobody but an ACME server knows, and marks it critical.
        let key = any_supported_type(&key).map_err(|error| ProofError::Use(name.into(), error))?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        shown.insert(name.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    /// Shows nothing any more.
    pub fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn get(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.get(&name.to_ascii_lowercase()).cloned()
    }
}

/// Chooses for a connection.
#[derive(Debug)]
pub(super) struct Resolver {
    /// What everybody is shown; nothing before the first certificate has come.
    pub(super) own: Option<Arc<CertifiedKey>>,
    pub(super) challenges: Arc<Challenges>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.any(|protocol| protocol == PROTOCOL) {
            return self.challenges.get(hello.server_name()?);
        }
        self.own.clone()
    }
}
