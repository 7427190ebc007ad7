//! Which Nix store is the local one.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;

use super::Environment;
use super::checked::StoreLocation;
use super::error::{ConfigError, Origin};
use super::raw::RawStore;
use super::setting::Setting;
use crate::nix::store_path::StoreDir;

/// Reads `"auto"`, `"none"`, the root of a chroot store, or the table form.
pub(super) fn check(
    setting: &Setting,
    base: &Path,
    environment: &Environment<'_>,
) -> Result<Option<StoreLocation>, ConfigError> {
    match setting.value() {
        Value::Table(_) => table(setting, base, environment).map(Some),
        Value::String(text) if text == "auto" => automatic(setting.origin(), environment).map(Some),
        Value::String(text) if text == "none" => Ok(None),
        // A word without a slash is more likely a slip than a directory.
        Value::String(text) if text.contains('/') => {
            let root = setting.path(base, environment.home().as_deref())?;
            Ok(Some(chroot(&root, StoreDir::default())))
        }
        _ => Err(setting.refuse(
            "\"auto\", \"none\", a directory such as \"/srv/chroot\", or a table with root, \
             store_dir, state_dir, log_dir is expected",
        )),
    }
}

/// The store that a command works on: the chroot store at `root`, else the one that Nix would use.
pub fn store_of_command(
    root: Option<&Path>,
    environment: &Environment<'_>,
) -> Result<StoreLocation, ConfigError> {
    let found = automatic(&Origin::Environment("environment"), environment)?;
    Ok(match root {
        // As Nix has it: what the paths are called comes from the environment all the same.
        Some(root) => {
            StoreLocation { store_dir: found.store_dir, ..chroot(root, StoreDir::default()) }
        }
        None => found,
    })
}

/// The store that a Nix command without options would use in this environment.
pub(super) fn automatic(
    origin: &Origin,
    environment: &Environment<'_>,
) -> Result<StoreLocation, ConfigError> {
    // Nix takes an empty variable for one that is not set, and NIX_STORE for an older spelling.
    let text = |name| environment.text(name);
    let store_dir = match text("NIX_STORE_DIR").or_else(|| text("NIX_STORE")) {
        Some(directory) => {
            let value = Value::String(directory);
            store_dir(&Setting::new(origin, "NIX_STORE_DIR (environment)", value))?
        }
        None => StoreDir::default(),
    };
    let path = |name, default: &str| environment.path(name).unwrap_or_else(|| default.into());
    Ok(StoreLocation {
        real_store_dir: store_dir.as_str().into(),
        store_dir,
        state_dir: path("NIX_STATE_DIR", "/nix/var/nix"),
        log_dir: path("NIX_LOG_DIR", "/nix/var/log/nix"),
        optional: true,
    })
}

/// The table form: a root or the usual place, with any of the directories elsewhere.
fn table(
    setting: &Setting,
    base: &Path,
    environment: &Environment<'_>,
) -> Result<StoreLocation, ConfigError> {
    // `keys.rs` has refused unknown keys already, with a better message than serde's.
    let raw = RawStore::deserialize(setting.value().clone())
        .map_err(|_| setting.refuse("only root, store_dir, state_dir and log_dir are expected"))?;
    let home = environment.home();
    let path = |name: &str, value: &Option<Value>| -> Result<Option<PathBuf>, ConfigError> {
        let inner = value.as_ref().map(|value| setting.inner(name, value));
        inner.map(|inner| inner.path(base, home.as_deref())).transpose()
    };
    let logical = match &raw.store_dir {
        Some(value) => store_dir(&setting.inner("store_dir", value))?,
        None => StoreDir::default(),
    };
    let root = path("root", &raw.root)?.unwrap_or_else(|| "/".into());
    let mut location = chroot(&root, logical);
    if let Some(directory) = path("state_dir", &raw.state_dir)? {
        location.state_dir = directory;
    }
    if let Some(directory) = path("log_dir", &raw.log_dir)? {
        location.log_dir = directory;
    }
    Ok(location)
}

/// Where `nix --store ROOT` keeps what: everything below the root, under its usual name.
fn chroot(root: &Path, store_dir: StoreDir) -> StoreLocation {
    StoreLocation {
        real_store_dir: root.join(store_dir.as_str().trim_start_matches('/')),
        store_dir,
        state_dir: root.join("nix/var/nix"),
        log_dir: root.join("nix/var/log/nix"),
        optional: false,
    }
}

fn store_dir(setting: &Setting) -> Result<StoreDir, ConfigError> {
    StoreDir::parse(setting.text()?).map_err(|_| {
        setting.refuse(
            "an absolute directory without a slash at its end is expected, such as \"/nix/store\"",
        )
    })
}
