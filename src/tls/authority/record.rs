//! What is known of a certificate that an authority has issued.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::issuer::IssueError;
use crate::tls::certificate::{alternative_names, host, malformed};

/// What a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The authority's root.
    Root,
    /// What the root has signed, and what signs the others.
    Intermediate,
    /// To be shown by a server.
    Server,
    /// To be shown by a client.
    Client,
}

impl Kind {
    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Intermediate => "intermediate",
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Whether a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Good,
    /// Its time is over.
    Expired,
    /// It was revoked before.
    Revoked,
}

impl State {
    /// For tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, in hexadecimal digits.
    pub serial: String,
    /// What it is.
    pub kind: Kind,
    /// What it is for: hosts; of an authority, its own name.
    pub names: Vec<String>,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// When it was revoked, in seconds since 1970.
    pub revoked: Option<i64>,
}

impl Record {
    /// Whether it can be used at `now`, in seconds since 1970.
    pub const fn state(&self, now: i64) -> State {
        match self.revoked {
            Some(_) => State::Revoked,
            None if now > self.not_after => State::Expired,
            None => State::Good,
        }
    }

    /// Whether it is none of an authority.
    pub const fn is_of_a_host(&self) -> bool {
        matches!(self.kind, Kind::Server | Kind::Client)
    }
}

/// Reads one. `path` is for messages.
pub(super) fn of(path: &Path, pem: &str, revoked: Option<i64>) -> Result<Record, IssueError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| malformed(path, error.to_string()))?;
    let (_, parsed) =
        X509Certificate::from_der(&der).map_err(|error| malformed(path, error.to_string()))?;
    let usage = parsed.extended_key_usage().ok().flatten();
    let kind = if parsed.is_ca() {
        if parsed.subject() == parsed.issuer() { Kind::Root } else { Kind::Intermediate }
    } else if usage.is_some_and(|usage| usage.value.client_auth) {
        Kind::Client
    } else {
        Kind::Server
    };
    let names = match kind {
        Kind::Root | Kind::Intermediate => vec![parsed.subject().to_string()],
        Kind::Server | Kind::Client => alternative_names(&parsed, host),
    };
    Ok(Record {
        serial: data_encoding::HEXLOWER.encode(parsed.raw_serial()),
        kind,
        names,
        not_after: parsed.validity().not_after.timestamp(),
        revoked,
    })
}
