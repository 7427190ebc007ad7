//! The client certificate that is shown to a server over TLS, and where it comes from.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use ureq::tls::{ClientCert, PemItem, PrivateKey, parse_pem};

use crate::tls::certificate::{Certificate, CertificateError};
use crate::tls::files::Stamp;

/// The files of a certificate, which are read anew when they change: certificates are short-lived, and an
/// agent is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

/// Why no certificate can be shown though one was named.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of the two is missing.
    #[error("a client certificate takes two files: name {0} as well")]
    Half(&'static str),
    /// It cannot be used.
    #[error("client certificate: {0}")]
    Unusable(#[from] CertificateError),
    /// It cannot be read, though it could a moment ago.
    #[error("client certificate {}: {why}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Identity {
    /// What was named, which is both or neither.
    pub fn find(
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Result<Option<Self>, IdentityError> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Ok(Some(Self { certificate: certificate.to_owned(), key: key.to_owned() }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(IdentityError::Half("--tls-private-key")),
            (None, Some(_)) => Err(IdentityError::Half("--tls-certificate")),
        }
    }

    /// Tells whether the files are still those that were read.
    pub(super) fn stamps(&self) -> [Stamp; 2] {
        [Stamp::of(&self.certificate), Stamp::of(&self.key)]
    }

    /// Reads the files, and holds them against each other.
    pub(super) fn read(&self) -> Result<ClientCert, IdentityError> {
        Certificate::load(&self.certificate, &self.key, &ring::default_provider())?;
        let (mut chain, mut key) = (Vec::new(), None);
        for path in [&self.certificate, &self.key] {
            let failed = |why: String| IdentityError::Read { path: path.clone(), why };
            let pem = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            let pem = zeroize::Zeroizing::new(pem);
            for item in parse_pem(&pem) {
                match item.map_err(|error| failed(error.to_string()))? {
                    PemItem::Certificate(certificate) if *path == self.certificate => {
                        chain.push(certificate);
                    }
                    PemItem::PrivateKey(found) if *path == self.key => key = Some(found),
                    _ => {}
                }
            }
        }
        let missing = || IdentityError::Read { path: self.key.clone(), why: "no key".into() };
        let key: PrivateKey<'static> = key.ok_or_else(missing)?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}
