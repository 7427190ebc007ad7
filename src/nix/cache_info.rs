//! `nix-cache-info`: what a client reads of a cache before anything else.

use super::hash::shorten;
use super::store_path::StoreDir;

/// The name of the object.
pub const NAME: &str = "nix-cache-info";

/// What a cache says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Must equal the client's, else the client refuses the cache.
    pub store_dir: StoreDir,
    /// Whether clients may ask for many paths at once; without it Nix asks only for what it builds.
    pub want_mass_query: bool,
    /// Lower is asked first; cache.nixos.org has 40.
    pub priority: u32,
}

impl CacheInfo {
    /// The text as Nix reads it.
    pub fn to_text(&self) -> String {
        format!(
            "StoreDir: {}\nWantMassQuery: {}\nPriority: {}\n",
            self.store_dir,
            u8::from(self.want_mass_query),
            self.priority
        )
    }
}

/// The store directory that a cache on disk says it is for; `None` where it says nothing.
pub fn store_dir_of(text: &str) -> Option<&str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == "StoreDir")
        .map(|(_, value)| value.trim())
}

/// What a cache says of itself, as a client reads it: all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadInfo {
    /// The store directory.
    pub store_dir: Option<String>,
    /// Whether many paths may be asked for at once; without it Nix takes it for no.
    pub want_mass_query: Option<bool>,
    /// Lower is asked first; without it Nix takes it for 0.
    pub priority: Option<i32>,
}

/// Why a text is not a `nix-cache-info`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CacheInfoError {
    /// A line that is not `Key: value`, shortened.
    #[error("{0:?} is not `Key: value`")]
    Line(String),
    /// Not a number.
    #[error("the priority {0:?} is no number")]
    Priority(String),
    /// Nothing that is asked for stands in it.
    #[error("neither StoreDir, WantMassQuery nor Priority stands in it")]
    Nothing,
}

impl ReadInfo {
    /// Reads a `nix-cache-info`; keys that are not known are passed over, as Nix does.
    pub fn parse(text: &str) -> Result<Self, CacheInfoError> {
        let mut info = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) =
                line.split_once(':').ok_or_else(|| CacheInfoError::Line(shorten(line)))?;
            let value = value.trim();
            match key.trim() {
                "StoreDir" => info.store_dir = Some(value.to_owned()),
                "WantMassQuery" => info.want_mass_query = Some(value == "1"),
                "Priority" => {
                    let number = value.parse();
                    let number = number.map_err(|_| CacheInfoError::Priority(shorten(value)))?;
                    info.priority = Some(number);
                }
                _ => {}
            }
        }
        if info == Self::default() { Err(CacheInfoError::Nothing) } else { Ok(info) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_nix_reads() {
        let info =
            CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 };
        assert_eq!(info.to_text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
        assert_eq!(store_dir_of(&info.to_text()), Some("/nix/store"));
        assert_eq!(store_dir_of("WantMassQuery: 1\n"), None);
    }

    #[test]
    fn a_client_reads_what_is_there_and_nothing_else() {
        let parse = ReadInfo::parse;
        let read = parse("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\nX: y\n").unwrap();
        assert_eq!(read.store_dir.as_deref(), Some("/nix/store"));
        assert_eq!((read.want_mass_query, read.priority), (Some(true), Some(30)));
        assert_eq!(parse("StoreDir: /gnu/store").unwrap().priority, None);
        assert!(matches!(parse("<!DOCTYPE html>\n"), Err(CacheInfoError::Line(_))));
        assert!(matches!(parse("Priority: high\n"), Err(CacheInfoError::Priority(_))));
        assert_eq!(parse(""), Err(CacheInfoError::Nothing));
    }
}
