//! The certificate of an authority with its key: what signs others.
//!
//! Of whichever authority: one of `snowbank ca`, or an intermediate of step-ca, Vault or a company.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::names::{Constraints, HostName};
use crate::tls::certificate::{Certificate, CertificateError, malformed};

/// A certificate is valid from this long before it was made, in seconds, for clocks that are behind.
const BEFORE: i64 = 3600;
/// The longest common name (RFC 5280, appendix A: ub-common-name). A name that is longer is an alternative
/// name alone, which is what is looked at.
const MAX_COMMON_NAME: usize = 64;

/// Why no certificate is made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The authority's files cannot be used.
    #[error(transparent)]
    Files(#[from] CertificateError),
    /// They are of something else.
    #[error("{}: it is a certificate, but not one of an authority", .0.display())]
    NotAnAuthority(PathBuf),
    /// The key is one that we cannot sign with.
    #[error(
        "{}: a key in the form of PKCS #8 is expected, and `openssl pkcs8 -topk8 -nocrypt -in KEY` makes one \
         of another form ({why})",
        path.display()
    )]
    Key {
        /// Its file.
        path: PathBuf,
        /// What the library says.
        why: rcgen::Error,
    },
    /// Nobody would believe it.
    #[error(
        "{name}: the authority is for {permitted} and what is below, so nobody would believe it"
    )]
    NotPermitted {
        /// The name that is not to be had.
        name: HostName,
        /// What is.
        permitted: String,
    },
    /// It would be valid for longer than its authority.
    #[error(
        "it would be valid for longer than {}, which ends on {}: fewer --days, or `snowbank ca renew`",
        path.display(),
        date(*end)
    )]
    TooLong {
        /// The authority's certificate.
        path: PathBuf,
        /// When that one ends, in seconds since 1970.
        end: i64,
    },
    /// The authority's own time is over.
    #[error(
        "{}: it ended on {}: have whoever signed it sign it again, for an intermediate of `snowbank ca` by \
         `snowbank ca renew`; in the place of a root that has ended, make a new authority",
        path.display(),
        date(*end)
    )]
    Ended {
        /// The authority's certificate.
        path: PathBuf,
        /// When it ended, in seconds since 1970.
        end: i64,
    },
    /// The library would write the authority's name otherwise than it is, and nobody would believe it.
    #[error(
        "{}: its subject has an attribute twice, or one of a kind that cannot be repeated here; an intermediate with \
         a simpler subject, such as O and CN, does", .0.display()
    )]
    UnfitName(PathBuf),
    /// The library refuses.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The system has no random bytes.
    #[error("the system gave no random bytes for a serial number: {0}")]
    Random(getrandom::Error),
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To be shown by a server.
    Server,
    /// To be shown by a client.
    Client,
}

/// A certificate that was just made.
pub struct Issued {
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// It alone, in PEM.
    pub certificate: String,
    /// It and what stands between it and the root, in PEM.
    pub chain: String,
    /// Its key, in PEM.
    pub key: Zeroizing<String>,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
}

/// An authority that signs.
#[derive(Debug)]
pub struct Issuer {
    signer: rcgen::Issuer<'static, KeyPair>,
    path: PathBuf,
    /// Its own certificate, and what followed it in its file, in PEM.
    chain: String,
    constraints: Constraints,
    common_name: String,
    /// Its name, as DER.
    subject: Vec<u8>,
    not_before: i64,
    not_after: i64,
}

impl Issuer {
    /// Reads a certificate, with whatever of its chain follows it, and its key. Blocks.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IssueError> {
        let provider = ring::default_provider();
        let (loaded, pem) = Certificate::load_with_key(certificate, key, &provider)?;
        let pair = signing_key(key, &pem)?;
        let own = &loaded.chain()[0];
        let (_, parsed) = X509Certificate::from_der(own)
            .map_err(|error| malformed(certificate, error.to_string()))?;
        if !parsed.is_ca() {
            return Err(IssueError::NotAnAuthority(certificate.into()));
        }
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        Ok(Self {
            constraints: Constraints::of(&parsed),
            common_name: common_name.to_owned(),
            subject: parsed.subject().as_raw().to_vec(),
            not_before: loaded.validity.not_before,
            not_after: loaded.validity.not_after,
            chain: loaded.chain().iter().map(|der| to_pem(der)).collect(),
            signer: rcgen::Issuer::from_ca_cert_der(own, pair)?,
            path: certificate.into(),
        })
    }

    /// The names that it may put into certificates.
    pub const fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// The common name of its subject; empty where there is none.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// Until when its own certificate is valid, in seconds since 1970.
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }

    /// For how long its own certificate was made, in seconds.
    pub const fn lifetime(&self) -> i64 {
        self.not_after - self.not_before - BEFORE
    }

    /// Makes a certificate with a new key. Times are in seconds since 1970.
    pub fn issue(
        &self,
        names: &[HostName],
        usage: Usage,
        now: i64,
        not_after: i64,
    ) -> Result<Issued, IssueError> {
        if let Some(name) = names.iter().find(|name| !self.constraints.permit(name)) {
            let permitted = self.constraints.to_string();
            return Err(IssueError::NotPermitted { name: name.clone(), permitted });
        }
        let mut subject = DistinguishedName::new();
        if let Some(name) = names.iter().find_map(common_name) {
            subject.push(DnType::CommonName, name);
        }
        let names: Vec<String> = names.iter().map(HostName::to_string).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate()?;
        let (certificate, serial) = self.sign(params, &key, now, not_after)?;
        Ok(Issued {
            serial,
            chain: format!("{certificate}{}", self.chain),
            certificate,
            key: Zeroizing::new(key.serialize_pem()),
            not_after,
        })
    }

    /// Signs a certificate of `key`: in PEM, with its number.
    pub(super) fn sign(
        &self,
        params: CertificateParams,
        key: &KeyPair,
        now: i64,
        not_after: i64,
    ) -> Result<(String, String), IssueError> {
        if now >= self.not_after {
            return Err(IssueError::Ended { path: self.path.clone(), end: self.not_after });
        }
        if not_after > self.not_after {
            return Err(IssueError::TooLong { path: self.path.clone(), end: self.not_after });
        }
        let (params, serial) = numbered(params, now, not_after)?;
        let signed = params.signed_by(key, &self.signer)?;
        let parsed = X509Certificate::from_der(signed.der());
        if !parsed.is_ok_and(|(_, parsed)| parsed.issuer().as_raw() == self.subject) {
            return Err(IssueError::UnfitName(self.path.clone()));
        }
        Ok((signed.pem(), serial))
    }

    /// The list of certificates that it has revoked, each by its number and with the time, in PEM.
    pub(super) fn revocations(
        &self,
        revoked: &[(Vec<u8>, i64)],
        now: i64,
    ) -> Result<String, IssueError> {
        Ok(revocation_list(revoked, now, self.not_after).signed_by(&self.signer)?.pem()?)
    }
}

/// A list of revoked certificates. It holds as long as its authority's own certificate, which ends at `until`:
/// whoever revokes one makes the next list.
pub(super) fn revocation_list(
    revoked: &[(Vec<u8>, i64)],
    now: i64,
    until: i64,
) -> CertificateRevocationListParams {
    let entry = |(number, at): &(Vec<u8>, i64)| RevokedCertParams {
        serial_number: SerialNumber::from_slice(number),
        revocation_time: date_time_ymd(1970, 1, 1) + after_1970(*at),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: date_time_ymd(1970, 1, 1) + after_1970(now),
        // Also of an authority that has ended already: its end is then in the past.
        next_update: date_time_ymd(1970, 1, 1) + after_1970(until.max(now + BEFORE)),
        // It has to grow, and time does.
        crl_number: SerialNumber::from(u64::try_from(now).unwrap_or(0)),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// What can be the name of a subject. OpenSSL and GnuTLS hold the common name of a certificate that has addresses alone
/// against the domains of its authority, so that an address there has nobody believe it.
fn common_name(name: &HostName) -> Option<&str> {
    match name {
        HostName::Dns(name) if name.len() <= MAX_COMMON_NAME => Some(name),
        _ => None,
    }
}

/// A key to sign with, from its file in PEM.
pub(super) fn signing_key(path: &Path, pem: &[u8]) -> Result<KeyPair, IssueError> {
    let text = str::from_utf8(pem).map_err(|_| malformed(path, "PEM is expected".into()))?;
    KeyPair::from_pem(text).map_err(|why| IssueError::Key { path: path.into(), why })
}

/// Gives a certificate its times and its number, which nobody can guess.
pub(super) fn numbered(
    mut params: CertificateParams,
    now: i64,
    not_after: i64,
) -> Result<(CertificateParams, String), IssueError> {
    let mut number = [0_u8; 16];
    getrandom::fill(&mut number).map_err(IssueError::Random)?;
    // Neither negative nor with a zero at its beginning, which some would leave out.
    number[0] = number[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&number));
    params.not_before = date_time_ymd(1970, 1, 1) + after_1970(now - BEFORE);
    params.not_after = date_time_ymd(1970, 1, 1) + after_1970(not_after);
    params.use_authority_key_identifier_extension = true;
    Ok((params, data_encoding::HEXLOWER.encode(&number)))
}

fn to_pem(der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), config)
}

/// How long after 1970 it is; what is before is as good as 1970.
fn after_1970(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// `2036-11-25T07:00:00Z`
pub(super) fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |time| time.to_string())
}
