//! `[tls]` and `[client.<name>]`: what is shown to those who come by `https://`, and what they may show.

use std::path::{Path, PathBuf};

use toml::Value;

use super::check::Section;
use super::checked::DEFAULT_CACHE;
use super::error::{ConfigError, Origin};
use super::raw::{Raw, RawClient, RawTls};
use super::setting::Setting;
use crate::auth::certificate::{ClientGrant, NamePattern};
use crate::http::listen::ListenAddress;
use crate::tls::client::ClientFiles;
use crate::tls::server::{CertificateFiles, TlsFiles};

const BOTH: &str = "it takes both tls.certificate and tls.key, or neither";
const NO_CERTIFICATE: &str = "it takes tls.certificate and tls.key as well";
const NO_SCOPES: &str = "\"push\", \"pull\" or both are expected";
const NO_AUTHORITY: &str =
    "it takes tls.client_ca as well, which says whose certificates are looked at";

pub(super) fn check(
    raw: &RawTls,
    origin: &Origin,
    base: &Path,
    home: Option<&Path>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let section = Section { origin, prefix: "tls." };
    let file = |setting: &Setting| match setting.value().as_str() {
        Some("none") => Ok(None),
        _ => setting.path(base, home).map(Some),
    };
    let read = |name: &str, value: &Option<Value>| -> Result<Option<PathBuf>, ConfigError> {
        let mut path = None;
        section.set(name, value, &mut path, file)?;
        Ok(path)
    };
    let authorities = read("client_ca", &raw.client_ca)?;
    let revocations = read("client_crl", &raw.client_crl)?;
    if authorities.is_none() && revocations.is_some() {
        return Err(refuse(&section, "client_crl", &raw.client_crl, NO_AUTHORITY));
    }
    match (read("certificate", &raw.certificate)?, read("key", &raw.key)?) {
        (Some(certificate), Some(key)) => {
            let clients = authorities.map(|authorities| ClientFiles { authorities, revocations });
            Ok(Some(TlsFiles { certificate: CertificateFiles { certificate, key }, clients }))
        }
        (None, None) if authorities.is_some() => {
            Err(refuse(&section, "client_ca", &raw.client_ca, NO_CERTIFICATE))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(refuse(&section, "certificate", &raw.certificate, BOTH)),
        (None, Some(_)) => Err(refuse(&section, "key", &raw.key, BOTH)),
    }
}

fn refuse(section: &Section<'_>, name: &str, value: &Option<Value>, why: &str) -> ConfigError {
    let value = value.clone().unwrap_or_else(|| "none".into());
    Setting::new(section.origin, format!("{}{name}", section.prefix), value).refuse(why)
}

/// An address over TLS is of no use without a certificate.
pub(super) fn has_what_it_takes(
    listen: &[ListenAddress],
    files: Option<&TlsFiles>,
) -> Result<(), String> {
    match listen.iter().find(|address| matches!(address, ListenAddress::Tls(_))) {
        Some(address) if files.is_none() => {
            Err(format!("{address} has no certificate to show: set tls.certificate and tls.key"))
        }
        _ => Ok(()),
    }
}

/// What the names in certificates of clients may do. A section without names and scopes says nothing.
pub(super) fn clients(
    raw: &Raw,
    origin: &Origin,
    files: Option<&TlsFiles>,
) -> Result<Vec<ClientGrant>, ConfigError> {
    let has_authority = files.is_some_and(|files| files.clients.is_some());
    let knows = |cache: &str| cache == DEFAULT_CACHE || raw.cache.contains_key(cache);
    let mut grants = Vec::new();
    for (name, settings) in &raw.client {
        let prefix = format!("client.{name}.");
        let section = Section { origin, prefix: &prefix };
        let grant = grant(settings, &section, &knows)?;
        let has_scopes = grant.push || grant.pull;
        if grant.names.is_empty() && !has_scopes {
            continue;
        }
        if grant.names.is_empty() {
            return Err(refuse(
                &section,
                "names",
                &settings.names,
                "at least one name is expected",
            ));
        }
        if !has_scopes {
            return Err(refuse(&section, "scopes", &settings.scopes, NO_SCOPES));
        }
        if !has_authority {
            return Err(refuse(&section, "names", &settings.names, NO_AUTHORITY));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn grant(
    raw: &RawClient,
    section: &Section<'_>,
    knows: &dyn Fn(&str) -> bool,
) -> Result<ClientGrant, ConfigError> {
    let mut grant = ClientGrant { names: Vec::new(), push: false, pull: false, caches: None };
    section.set("names", &raw.names, &mut grant.names, |setting| {
        let pattern = |item: Setting| {
            NamePattern::parse(item.text()?).ok_or_else(|| {
                item.refuse("a name such as \"*.ci.example.org\" or \"CN=runner\" is expected")
            })
        };
        setting.list()?.map(pattern).collect()
    })?;
    if let Some(setting) = section.get("scopes", &raw.scopes) {
        for item in setting.list()? {
            match item.one_of(&[("push", true), ("pull", false)])? {
                true => grant.push = true,
                false => grant.pull = true,
            }
        }
    }
    section.set("caches", &raw.caches, &mut grant.caches, |setting| {
        if setting.value().as_str() == Some("all") {
            return Ok(None);
        }
        let cache = |item: Setting| match item.text()? {
            name if knows(name) => Ok(name.to_owned()),
            _ => Err(item.refuse("there is no cache of this name")),
        };
        setting.list()?.map(cache).collect::<Result<_, _>>().map(Some)
    })?;
    Ok(grant)
}
