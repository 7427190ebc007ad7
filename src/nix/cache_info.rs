//! `nix-cache-info`: what a client reads of a cache before anything else.

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
}
