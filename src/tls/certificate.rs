//! A certificate with its chain and its key, read from two files in PEM.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// No certificate and no key is longer than this, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is larger than any certificate.
    #[error("{}: it is larger than {MAX_FILE} bytes, so it is no certificate and no key", .0.display())]
    TooLarge(PathBuf),
    /// It is not what it should be.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Everybody on the machine can read the key.
    #[error("{}: everybody on this machine can read the key: `chmod 0600` it", .0.display())]
    Exposed(PathBuf),
    /// Certificate and key are not of each other.
    #[error("the key {} is not that of the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// A certificate that a server can show: the chain is one, and the key is that of its first certificate.
#[derive(Debug)]
pub struct Certificate {
    /// For rustls.
    pub(super) certified: CertifiedKey,
    /// When, and for what.
    pub validity: Validity,
}

/// When a certificate is valid, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From when, in seconds since 1970.
    pub not_before: i64,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
    /// The hosts that it is for: DNS names and addresses.
    pub names: Vec<String>,
}

impl Validity {
    /// Whether it is time for the next one: a third of its time is left, which is long enough to be tried many
    /// times, or it is not for these names.
    pub fn is_due(&self, now: i64, names: &[String]) -> bool {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        let has = |name: &String| self.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        now >= self.not_after.saturating_sub(lifetime / 3) || !names.iter().all(has)
    }
}

impl Certificate {
    /// Reads a certificate, with whatever of its chain follows it in the file, and its key.
    pub fn load(
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        Ok(Self::load_with_key(certificate, key, provider)?.0)
    }

    /// The same with the key in PEM as it was read, for whoever hands both to another library.
    pub fn load_with_key(
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), CertificateError> {
        let chain = chain(certificate, &read(certificate)?)?;
        let (key_pem, key_der) = read_key(key)?;
        let validity = validity(certificate, &chain[0])?;
        let certified = CertifiedKey::from_der(chain, key_der, provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                return CertificateError::Mismatch {
                    certificate: certificate.into(),
                    key: key.into(),
                };
            }
            malformed(key, error.to_string())
        })?;
        Ok((Self { certified, validity }, key_pem))
    }

    /// The certificate and what follows it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.into(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(CertificateError::TooLarge(path.into()));
    }
    Ok(bytes)
}

/// All certificates of a file, of which there is at least one.
pub(super) fn chain(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| malformed(path, error.to_string()))?;
    if all.is_empty() {
        return Err(malformed(path, "a certificate in PEM is expected".into()));
    }
    Ok(all)
}

fn read_key(path: &Path) -> Result<(Zeroizing<Vec<u8>>, PrivateKeyDer<'static>), CertificateError> {
    let pem = read(path)?;
    let failed = |source| CertificateError::Read { path: path.into(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    // A group may be one that holds just those who serve; everybody is everybody.
    if mode & 0o007 != 0 {
        return Err(CertificateError::Exposed(path.into()));
    }
    let der = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| malformed(path, "a private key in PEM is expected".into()))?;
    Ok((pem, der))
}

fn validity(path: &Path, der: &CertificateDer<'_>) -> Result<Validity, CertificateError> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|error| malformed(path, error.to_string()))?;
    Ok(Validity {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        names: alternative_names(&parsed, host),
    })
}

/// The subject alternative names that `take` takes.
pub(super) fn alternative_names(
    certificate: &X509Certificate<'_>,
    take: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|names| &names.value.general_names);
    names.filter_map(take).collect()
}

/// A name that a host has: a DNS name or an address.
pub(super) fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

/// An address as certificates have it, of either family.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

pub(super) fn malformed(path: &Path, what: String) -> CertificateError {
    CertificateError::Malformed { path: path.into(), what }
}
