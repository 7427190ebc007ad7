//! `[tls]`: what is shown to those who come by `https://`.

use std::path::{Path, PathBuf};

use super::check::Section;
use super::error::{ConfigError, Origin};
use super::raw::RawTls;
use super::setting::Setting;
use crate::http::listen::ListenAddress;
use crate::tls::server::CertificateFiles;

const BOTH: &str = "it takes both tls.certificate and tls.key, or neither";

pub(super) fn check(
    raw: &RawTls,
    origin: &Origin,
    base: &Path,
    home: Option<&Path>,
) -> Result<Option<CertificateFiles>, ConfigError> {
    let section = Section { origin, prefix: "tls." };
    let file = |setting: &Setting| match setting.value().as_str() {
        Some("none") => Ok(None),
        _ => setting.path(base, home).map(Some),
    };
    let (mut certificate, mut key): (Option<PathBuf>, Option<PathBuf>) = (None, None);
    section.set("certificate", &raw.certificate, &mut certificate, file)?;
    section.set("key", &raw.key, &mut key, file)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(refuse(&section, "certificate", &raw.certificate)),
        (None, Some(_)) => Err(refuse(&section, "key", &raw.key)),
    }
}

fn refuse(section: &Section<'_>, name: &str, value: &Option<toml::Value>) -> ConfigError {
    let value = value.clone().unwrap_or_else(|| "none".into());
    Setting::new(section.origin, format!("{}{name}", section.prefix), value).refuse(BOTH)
}

/// An address over TLS is of no use without a certificate.
pub(super) fn has_what_it_takes(
    listen: &[ListenAddress],
    files: Option<&CertificateFiles>,
) -> Result<(), String> {
    match listen.iter().find(|address| matches!(address, ListenAddress::Tls(_))) {
        Some(address) if files.is_none() => {
            Err(format!("{address} has no certificate to show: set tls.certificate and tls.key"))
        }
        _ => Ok(()),
    }
}
