//! `[tls]` and `[client.<name>]`: what is shown to those who come by `https://`, and what they may show.

use std::path::{Path, PathBuf};

use toml::Value;

use super::caches::Places;
use super::check::Section;
use super::checked::DEFAULT_CACHE;
use super::error::{ConfigError, Origin};
use super::raw::{Raw, RawClient, RawTls};
use super::setting::Setting;
use crate::auth::Right;
use crate::auth::certificate::{ClientGrant, NamePattern};
use crate::http::listen::ListenAddress;
use crate::source::upstream::connect::Address;
use crate::tls::acme::AcmeSettings;
use crate::tls::authority::names::HostName;
use crate::tls::client::ClientFiles;
use crate::tls::issuance::{InternalSettings, IssuerSettings};
use crate::tls::server::{CertificateFiles, CertificateFrom, TlsFiles};

const BOTH: &str = "it takes both tls.certificate and tls.key, or neither";
const BOTH_OF_THE_AUTHORITY: &str = "it takes both tls.ca_certificate and tls.ca_key";
const NO_CERTIFICATE: &str = "it takes tls.certificate and tls.key as well";
const NOT_BY_ACME: &str = "it takes tls.certificate_from = \"acme\" as well";
const NOT_INTERNAL: &str = "it takes tls.certificate_from = \"internal-ca\" as well";
const NOT_ISSUED: &str = "it takes tls.certificate_from = \"internal-ca\" or \"acme\" as well";
const IS_ISSUED: &str =
    "the server has its certificate issued (tls.certificate_from), so none can be named";
const NO_DIRECTORY: &str = "the URL of the ACME server's directory is expected";
const A_DIRECTORY: &str =
    "a URL such as \"https://ca.example.org/acme/acme/directory\" is expected";
const A_NAME: &str = "a DNS name such as \"cache.example.org\" is expected; with \"internal-ca\", an address does as well";
/// Where what is issued lies, certificate and key in one file, in the data directory: of each issuer another one,
/// so that whoever goes from one to the other gets a certificate of the other at once.
const BY_ACME: &str = "tls/issued.pem";
const BY_ITSELF: &str = "tls/internal.pem";
const NO_SCOPES: &str = "\"push\", \"pull\", \"pin\" or several of them are expected";
const NO_AUTHORITY: &str =
    "it takes tls.client_ca as well, which says whose certificates are looked at";

/// What is shown, and who issues it, if the server sees to that itself.
pub(super) type Shown = (Option<TlsFiles>, Option<IssuerSettings>);

pub(super) fn check(
    raw: &RawTls,
    places: &Places<'_>,
    data_dir: &Path,
) -> Result<Shown, ConfigError> {
    let section = Section { origin: places.origin, prefix: "tls." };
    let clients = client_files(raw, &section, places)?;
    let mut from = CertificateFrom::Files;
    section.set("certificate_from", &raw.certificate_from, &mut from, |setting| {
        setting.one_of(&[
            ("files", CertificateFrom::Files),
            ("internal-ca", CertificateFrom::Internal),
            ("acme", CertificateFrom::Acme),
        ])
    })?;
    let given = pair(("certificate", &raw.certificate), ("key", &raw.key), BOTH, &section, places)?;
    let authority = ("ca_certificate", &raw.ca_certificate);
    let authority =
        pair(authority, ("ca_key", &raw.ca_key), BOTH_OF_THE_AUTHORITY, &section, places)?;
    let names = names(raw, &section)?;
    let acme = acme(raw, &section, places)?;
    if from != CertificateFrom::Internal && authority.is_some() {
        return Err(refuse(&section, "ca_certificate", &raw.ca_certificate, NOT_INTERNAL));
    }
    if from != CertificateFrom::Acme && acme.is_some() {
        return Err(refuse(&section, "acme_directory", &raw.acme_directory, NOT_BY_ACME));
    }
    if from == CertificateFrom::Files {
        if given.is_none() && clients.is_some() {
            return Err(refuse(&section, "client_ca", &raw.client_ca, NO_CERTIFICATE));
        }
        if !names.is_empty() {
            return Err(refuse(&section, "names", &raw.names, NOT_ISSUED));
        }
        let files = |certificate| TlsFiles { certificate, from, clients };
        return Ok((given.map(files), None));
    }
    if given.is_some() {
        return Err(refuse(&section, "certificate", &raw.certificate, IS_ISSUED));
    }
    if names.is_empty() {
        return Err(refuse(&section, "names", &raw.names, "at least one name is expected"));
    }
    let (own, issuer) = match (from, acme, authority) {
        (CertificateFrom::Acme, Some(acme), _) => {
            let names = proved(&names, raw, &section)?;
            (BY_ACME, IssuerSettings::Acme(AcmeSettings { names, ..acme }))
        }
        (CertificateFrom::Acme, None, _) => {
            return Err(refuse(&section, "acme_directory", &raw.acme_directory, NO_DIRECTORY));
        }
        (_, _, Some(CertificateFiles { certificate, key })) => {
            (BY_ITSELF, IssuerSettings::Internal(InternalSettings { certificate, key, names }))
        }
        (_, _, None) => {
            let value = &raw.ca_certificate;
            return Err(refuse(&section, "ca_certificate", value, BOTH_OF_THE_AUTHORITY));
        }
    };
    let own = data_dir.join(own);
    let certificate = CertificateFiles { certificate: own.clone(), key: own };
    Ok((Some(TlsFiles { certificate, from, clients }), Some(issuer)))
}

/// A file that may be none.
fn file(
    name: &str,
    value: &Option<Value>,
    section: &Section<'_>,
    places: &Places<'_>,
) -> Result<Option<PathBuf>, ConfigError> {
    let mut path = None;
    section.set(name, value, &mut path, |setting| match setting.value().as_str() {
        Some("none") => Ok(None),
        _ => setting.path(places.base, places.home).map(Some),
    })?;
    Ok(path)
}

/// A certificate and its key: both or neither.
fn pair(
    (certificate, certificate_value): (&str, &Option<Value>),
    (key, key_value): (&str, &Option<Value>),
    expected: &str,
    section: &Section<'_>,
    places: &Places<'_>,
) -> Result<Option<CertificateFiles>, ConfigError> {
    let files = (
        file(certificate, certificate_value, section, places)?,
        file(key, key_value, section, places)?,
    );
    match files {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(refuse(section, certificate, certificate_value, expected)),
        (None, Some(_)) => Err(refuse(section, key, key_value, expected)),
    }
}

/// The names to be in what is issued.
fn names(raw: &RawTls, section: &Section<'_>) -> Result<Vec<HostName>, ConfigError> {
    let mut names = Vec::new();
    section.set("names", &raw.names, &mut names, |setting| {
        let name = |item: Setting| HostName::parse(item.text()?).map_err(|_| item.refuse(A_NAME));
        setting.list()?.map(name).collect()
    })?;
    Ok(names)
}

fn client_files(
    raw: &RawTls,
    section: &Section<'_>,
    places: &Places<'_>,
) -> Result<Option<ClientFiles>, ConfigError> {
    let authorities = file("client_ca", &raw.client_ca, section, places)?;
    let revocations = file("client_crl", &raw.client_crl, section, places)?;
    if authorities.is_none() && revocations.is_some() {
        return Err(refuse(section, "client_crl", &raw.client_crl, NO_AUTHORITY));
    }
    Ok(authorities.map(|authorities| ClientFiles { authorities, revocations }))
}

/// All but the names. `None` where no directory is named.
fn acme(
    raw: &RawTls,
    section: &Section<'_>,
    places: &Places<'_>,
) -> Result<Option<AcmeSettings>, ConfigError> {
    let text = |setting: &Setting| match setting.text()? {
        "none" => Ok(None),
        text => Ok(Some(text.to_owned())),
    };
    let (mut directory, mut contact) = (None, None);
    section.set("acme_directory", &raw.acme_directory, &mut directory, |setting| {
        let directory = text(setting)?;
        let is_address = directory.as_deref().is_none_or(|url| Address::parse(url).is_ok());
        if is_address { Ok(directory) } else { Err(setting.refuse(A_DIRECTORY)) }
    })?;
    section.set("acme_contact", &raw.acme_contact, &mut contact, |setting| {
        let contact = text(setting)?;
        let is_mail = contact.as_deref().is_none_or(|mail| mail.contains('@'));
        if is_mail { Ok(contact) } else { Err(setting.refuse("a mail address is expected")) }
    })?;
    let authorities = file("acme_ca", &raw.acme_ca, section, places)?;
    let names = Vec::new();
    Ok(directory.map(|directory| AcmeSettings { directory, contact, authorities, names }))
}

/// The names that are proved by what leads to port 443 of them.
fn proved(
    names: &[HostName],
    raw: &RawTls,
    section: &Section<'_>,
) -> Result<Vec<String>, ConfigError> {
    let proved = |name: &HostName| match name {
        HostName::Dns(name) if !name.starts_with('*') => Ok(name.clone()),
        _ => Err(refuse(section, "names", &raw.names, A_NAME)),
    };
    names.iter().map(proved).collect()
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
        Some(address) if files.is_none() => Err(format!(
            "{address} has no certificate to show: set tls.certificate and tls.key, or tls.certificate_from"
        )),
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
        let has_scopes = grant.push || grant.pull || grant.pin;
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
    let mut grant =
        ClientGrant { names: Vec::new(), push: false, pull: false, pin: false, caches: None };
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
            let scope = [("push", Right::Push), ("pull", Right::Pull), ("pin", Right::Pin)];
            match item.one_of(&scope)? {
                Right::Push => grant.push = true,
                Right::Pull => grant.pull = true,
                Right::Pin => grant.pin = true,
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
