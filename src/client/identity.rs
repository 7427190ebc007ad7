//! The client certificate that is shown to a server over TLS, and where it comes from.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use ureq::tls::{Certificate as UreqCertificate, ClientCert, PrivateKey};

use crate::bank::stamp::FileStamp;
use crate::tls::certificate::{Certificate, CertificateError};

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
    /// Its key cannot be used for what speaks HTTP.
    #[error("client certificate: {0}")]
    Key(ureq::Error),
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
    pub(super) fn stamps(&self) -> [Option<FileStamp>; 2] {
        [&self.certificate, &self.key].map(|path| FileStamp::of(path).ok())
    }

    /// Reads the files, and holds them against each other.
    pub(super) fn read(&self) -> Result<ClientCert, IdentityError> {
        let provider = ring::default_provider();
        let (certificate, key) =
            Certificate::load_with_key(&self.certificate, &self.key, &provider)?;
        let chain: Vec<_> = certificate
            .chain()
            .iter()
            .map(|one| UreqCertificate::from_der(one).to_owned())
            .collect();
        let key = PrivateKey::from_pem(&key).map_err(IdentityError::Key)?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }
}
