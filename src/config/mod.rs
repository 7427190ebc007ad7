//! The configuration: `raw` (what the file says) becomes `checked` (what it means), once, at start.
//!
//! A value comes from the file, then the environment, then a flag; the later one wins. A mistake in
//! any of them is a [`ConfigError`]: one line with the place, the key, the value and what is allowed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

mod caches;
mod check;
mod checked;
mod error;
mod keep;
mod keys;
mod raw;
mod setting;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod upstreams;
mod zfs;

pub use checked::{
    Bake, CacheConfig, Config, DEFAULT_CACHE, FirstRead, Limits, Log, LogFormat, RESERVED_NAMES,
    SigningKey, Source, StoreLocation, UpstreamConfig, Zfs,
};
pub use error::{ConfigError, Origin};
pub use store::store_of_command;

use raw::Raw;

// What other files of ours that are written in TOML are read with.
pub(crate) use check::Section;
pub(crate) use keys::fields_of;
pub(crate) use setting::Setting;

/// The documented example: every setting, commented, at its default.
pub const EXAMPLE: &str = include_str!("example.toml");

/// What the flags of the command line say; it wins over file and environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// `--data-dir DIR`
    pub data_dir: Option<PathBuf>,
    /// `--listen ADDR`, repeated; empty where it was not given.
    pub listen: Vec<String>,
    /// `--store auto|none|ROOT`
    pub store: Option<String>,
    /// What relative paths in flags and variables are taken from; absolute.
    pub working_dir: PathBuf,
}

/// What is asked of the environment; a value of its own, so that tests need not change the real one.
pub struct Environment<'a> {
    /// Looks a variable up.
    pub lookup: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether the process runs as root, which decides where data lie by default.
    pub is_root: bool,
}

/// Reads the file that `overrides` or the environment names, if any, and applies what overrides it.
pub fn load(overrides: &Overrides, environment: &Environment<'_>) -> Result<Config, ConfigError> {
    let named = overrides.config.clone().or_else(|| environment.path("SNOWBANK_CONFIG"));
    let Some(file) = named else {
        let nowhere = Origin::Environment("environment");
        return check::check(&Raw::default(), &nowhere, Path::new("/"), overrides, environment);
    };
    let text = std::fs::read_to_string(overrides.working_dir.join(&file))
        .map_err(|source| ConfigError::Unreadable { file: file.clone(), source })?;
    parse(&text, &file, overrides, environment)
}

/// Checks what a command line calls a cache that is not in the configuration yet.
pub fn check_new_cache(name: &str) -> Result<(), ConfigError> {
    caches::check_name(name, &Origin::Flag("NAME"))
}

/// Reads a quota that a command line gives, such as `500G`, by the rule of `max_size`.
pub fn quota_of_flag(flag: &'static str, text: &str) -> Result<u64, ConfigError> {
    let setting = Setting::new(&Origin::Flag(flag), "max_size", Value::String(text.to_owned()));
    setting.size(1 << 20..=i64::MAX.unsigned_abs())
}

/// As [`load`], of the text that was read from `file`.
fn parse(
    text: &str,
    file: &Path,
    overrides: &Overrides,
    environment: &Environment<'_>,
) -> Result<Config, ConfigError> {
    let table: Table = text.parse().map_err(|error| syntax(file, text, &error))?;
    let origin = Origin::File(file.to_owned());
    keys::check(&origin, &table)?;
    let raw = Raw::deserialize(table).map_err(|error| syntax(file, text, &error))?;
    let absolute = overrides.working_dir.join(file);
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let config = check::check(&raw, &origin, base, overrides, environment)?;
    Ok(Config { file: Some(file.to_owned()), ..config })
}

/// The parser's message without the lines it draws, so that it stays one line.
pub(crate) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or_default();
    ConfigError::Syntax {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        message: error.message().replace('\n', ", "),
    }
}

impl Overrides {
    fn data_dir(&self, environment: &Environment<'_>) -> Option<Setting> {
        let flag = self.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        overriding("data_dir", ("--data-dir", flag), "SNOWBANK_DATA_DIR", environment)
    }

    fn store(&self, environment: &Environment<'_>) -> Option<Setting> {
        overriding("store", ("--store", self.store.clone()), "SNOWBANK_STORE", environment)
    }

    /// What overrides `push` of the default cache; there is no flag for it.
    fn push(&self, environment: &Environment<'_>) -> Option<Setting> {
        overriding("cache.default.push", ("", None), "SNOWBANK_PUSH", environment)
    }

    fn listen(&self, environment: &Environment<'_>) -> Option<Setting> {
        let list =
            |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
        if !self.listen.is_empty() {
            return Some(Setting::new(
                &Origin::Flag("--listen"),
                "listen",
                list(self.listen.clone()),
            ));
        }
        let origin = Origin::Environment("SNOWBANK_LISTEN");
        let text = environment.text("SNOWBANK_LISTEN")?;
        Some(Setting::new(&origin, "listen", list(text.split(',').map(str::to_owned).collect())))
    }
}

/// The flag if it was given, else the variable if it is set.
fn overriding(
    key: &str,
    (flag, value): (&'static str, Option<String>),
    variable: &'static str,
    environment: &Environment<'_>,
) -> Option<Setting> {
    match value {
        Some(text) => Some(Setting::new(&Origin::Flag(flag), key, Value::String(text))),
        None => environment
            .text(variable)
            .map(|text| Setting::new(&Origin::Environment(variable), key, Value::String(text))),
    }
}

impl Environment<'_> {
    /// A variable that is set and not empty.
    fn text(&self, name: &str) -> Option<String> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        Some(value.to_string_lossy().into_owned())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.lookup)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn home(&self) -> Option<PathBuf> {
        self.path("HOME").filter(|home| home.is_absolute())
    }
}
