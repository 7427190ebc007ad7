//! Certificates that clients show: who signs them, which were revoked, and what stands in them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{
    CertificateRevocationList, FromDer as _, GeneralName, X509Certificate, X509Error, X509Name,
};

use super::certificate::{self, CertificateError};
use crate::auth::certificate::{ClientCertificate, Serial};

/// Where it is written who may show a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities that sign certificates of clients, in PEM.
    pub authorities: PathBuf,
    /// Their lists of revoked certificates, in PEM.
    pub revocations: Option<PathBuf>,
}

/// What certificates of clients are held against.
pub(super) struct Trust {
    /// For rustls: asks for a certificate, and lets in who has none.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// For connections that are there already, and for those that go on with an old session.
    pub(super) revoked: HashSet<Serial>,
}

/// Reads who is trusted. Blocks.
pub(super) fn trust(
    files: &ClientFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Trust, CertificateError> {
    let path = &files.authorities;
    let mut roots = RootCertStore::empty();
    for authority in certificate::chain(path, &certificate::read(path)?)? {
        roots.add(authority).map_err(|error| certificate::malformed(path, error.to_string()))?;
    }
    let lists = files.revocations.as_deref().map(lists).transpose()?.unwrap_or_default();
    let revoked = match &files.revocations {
        Some(path) => revoked(path, &lists)?,
        None => HashSet::new(),
    };
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists)
            // An authority above may have no list of its own, and another one none at all.
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            // Reading what is public takes no certificate.
            .allow_unauthenticated()
            .build()
            .map_err(|error| certificate::malformed(path, error.to_string()))?;
    Ok(Trust { verifier, revoked })
}

fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, CertificateError> {
    let pem = certificate::read(path)?;
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| certificate::malformed(path, error.to_string()))?;
    if all.is_empty() {
        let what = "a list of revoked certificates (X509 CRL) in PEM is expected";
        return Err(certificate::malformed(path, what.into()));
    }
    Ok(all)
}

fn revoked(
    path: &Path,
    lists: &[CertificateRevocationListDer<'_>],
) -> Result<HashSet<Serial>, CertificateError> {
    let mut revoked = HashSet::new();
    for list in lists {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| certificate::malformed(path, error.to_string()))?;
        let all = list.iter_revoked_certificates();
        revoked.extend(all.map(|one| serial(list.issuer(), one.raw_serial())));
    }
    Ok(revoked)
}

fn serial(issuer: &X509Name<'_>, number: &[u8]) -> Serial {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    Serial { issuer: issuer.as_raw().to_vec(), number: number[zeros..].to_vec() }
}

/// What stands in a certificate.
pub fn read(
    der: &CertificateDer<'_>,
) -> Result<ClientCertificate, x509_parser::nom::Err<X509Error>> {
    let (_, parsed) = X509Certificate::from_der(der)?;
    let names = certificate::alternative_names(&parsed, |name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    let common_name = parsed.subject().iter_common_name().next();
    Ok(ClientCertificate {
        names,
        common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
        not_after: parsed.validity().not_after.timestamp(),
        serial: serial(parsed.issuer(), parsed.raw_serial()),
    })
}
