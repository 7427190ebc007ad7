//! What a client thinks of a certificate that it is shown: its names, its time, and who stands for it, each
//! for itself, so that all that is wrong can be said at once.

use std::path::Path;
use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError as Refusal, Error, RootCertStore};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::{CertificateError, alternative_names, chain, host, read};

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The hosts that it is for: names and addresses.
    pub names: Vec<String>,
    /// From when it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when, in seconds since 1970.
    pub not_after: i64,
}

/// The certificates of a file: whoever they signed is believed.
#[derive(Debug)]
pub struct Authorities(RootCertStore);

/// Why nobody of the authorities stands for a certificate.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Distrust {
    /// None of them signed it, nor any that came with it.
    #[error("no authority of the file signed it")]
    UnknownIssuer,
    /// One of them has the name of its issuer and another key.
    #[error("the file has an authority of that name, with another key")]
    OtherKey,
    /// It is an authority's own.
    #[error("it is the certificate of an authority, and not one of a server")]
    Authority,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Described {
    /// Reads a certificate.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: alternative_names(&parsed, host),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    /// Whether nobody but itself stands for it.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer
    }
}

/// Whether a certificate is for the server of that name.
pub fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let parsed = ParsedCertificate::try_from(certificate);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

impl Authorities {
    /// Reads a file of certificates. Those that cannot be used do not make the others useless.
    pub fn load(path: &Path) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain(path, &read(path)?)?);
        Ok(Self(roots))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them stands for the first certificate of `chain`, by way of the others. `now` is in
    /// seconds since 1970; whether the certificate itself is valid then is the caller's to say.
    pub fn stand_for(
        &self,
        chain: &[CertificateDer<'_>],
        described: &Described,
        now: i64,
    ) -> Result<(), Distrust> {
        let Some((first, rest)) = chain.split_first() else { return Err(Distrust::UnknownIssuer) };
        let parsed = ParsedCertificate::try_from(first).map_err(|error| distrust(&error))?;
        // Else its own age would hide what there is to say of those above it.
        let then = now.clamp(described.not_before, described.not_after.max(described.not_before));
        let then =
            UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(then).unwrap_or(0)));
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.0, rest, then, algorithms)
            .map_err(|error| distrust(&error))
    }
}

fn distrust(error: &Error) -> Distrust {
    match error {
        Error::InvalidCertificate(Refusal::UnknownIssuer) => Distrust::UnknownIssuer,
        Error::InvalidCertificate(Refusal::BadSignature) => Distrust::OtherKey,
        other if other.to_string().contains("CaUsedAsEndEntity") => Distrust::Authority,
        Error::InvalidCertificate(Refusal::Expired | Refusal::ExpiredContext { .. }) => {
            Distrust::Other("a certificate above it has expired".into())
        }
        other => Distrust::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    use super::*;

    struct Made {
        authority: String,
        chain: Vec<CertificateDer<'static>>,
    }

    fn made() -> Made {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let names = ["h.example", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        Made { authority: authority.pem(), chain: vec![certificate.der().clone()] }
    }

    fn load(pem: &str) -> Authorities {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        Authorities::load(file.path()).unwrap()
    }

    #[test]
    fn names_time_and_authority_are_looked_at_one_by_one() {
        let made = made();
        let described = Described::of(&made.chain[0]).unwrap();
        assert_eq!(described.names, ["h.example", "127.0.0.1"]);
        assert!(described.issuer.contains("a root") && !described.is_self_signed());
        assert_eq!(described.not_after, 1_609_459_200);
        let is_for =
            |name: &'static str| is_for(&made.chain[0], &ServerName::try_from(name).unwrap());
        assert!(is_for("h.example") && is_for("127.0.0.1") && !is_for("other.example"));
        // Its age is for the caller to see.
        let now = 1_800_000_000;
        let authorities = load(&made.authority);
        assert_eq!(authorities.stand_for(&made.chain, &described, now), Ok(()));
        let other = load(&self::made().authority);
        // It has the same name.
        assert_eq!(other.stand_for(&made.chain, &described, now), Err(Distrust::OtherKey));
        let none = Authorities(RootCertStore::empty());
        assert_eq!(none.stand_for(&made.chain, &described, now), Err(Distrust::UnknownIssuer));
    }

    #[test]
    fn a_server_that_shows_the_certificate_of_an_authority_is_told_so() {
        let mut params = CertificateParams::new(["h.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let chain = [certificate.der().clone()];
        let described = Described::of(&chain[0]).unwrap();
        assert!(described.is_self_signed());
        let authorities = load(&certificate.pem());
        let refused = authorities.stand_for(&chain, &described, 1_800_000_000);
        assert_eq!(refused, Err(Distrust::Authority));
    }

    #[test]
    fn a_file_without_certificates_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "none").unwrap();
        let error = Authorities::load(file.path()).unwrap_err().to_string();
        assert!(error.contains("a certificate in PEM is expected"), "{error}");
    }
}
