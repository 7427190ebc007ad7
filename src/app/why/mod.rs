//! Why a path is in a cache or not: what the server's own data says of it, and what this machine does as a client.

pub mod client;
pub mod server;

use std::collections::BTreeSet;
use std::io::Read as _;

use self::client::Client;
use crate::bank::{Bank, BankError, open_regular};
use crate::config::Config;
use crate::nix::derivation;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::source::search::Wanted;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A path.
    Path(StorePathHash),
    /// What a derivation makes.
    Derivation(StorePath),
}

impl Asked {
    /// Reads what somebody typed; nothing where it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        match Wanted::parse(text) {
            Some(Wanted::Deriver(derivation)) => Some(Self::Derivation(derivation)),
            _ => StorePathHash::in_text(text).map(Self::Path),
        }
    }

    /// The paths that it is about: of a derivation the outputs that its file names, those that the store here has of
    /// it, and those that the banks of `config` have of it. Reads all their narinfos. Blocks.
    pub fn paths(
        &self,
        config: Option<&Config>,
        client: &Client,
    ) -> Result<BTreeSet<StorePathHash>, BankError> {
        let derivation = match self {
            Self::Path(hash) => return Ok([*hash].into()),
            Self::Derivation(derivation) => derivation,
        };
        let mut paths: BTreeSet<_> = outputs_of_file(client, derivation).into_iter().collect();
        paths.extend(client.built_by(derivation));
        for cache in config.iter().flat_map(|config| &config.caches) {
            let Some(store_dir) = Bank::store_dir_at(&cache.directory) else { continue };
            for hash in server::hashes(&cache.directory)? {
                let found = server::narinfo(&cache.directory, &store_dir, hash);
                // One that is damaged says nothing of what made it.
                if found.is_ok_and(|found| is_made_by(found.as_ref(), derivation)) {
                    paths.insert(hash);
                }
            }
        }
        Ok(paths)
    }
}

fn is_made_by(narinfo: Option<&NarInfo>, derivation: &StorePath) -> bool {
    narinfo.is_some_and(|narinfo| narinfo.info.deriver.as_ref() == Some(derivation))
}

/// What the `.drv` file in the store here says, if it is there.
fn outputs_of_file(client: &Client, derivation: &StorePath) -> Vec<StorePathHash> {
    let file = client.layout().real_dir.join(derivation.as_str());
    let Ok(Some((file, _))) = open_regular(&file) else { return Vec::new() };
    let mut text = Vec::new();
    if file.take(derivation::MAX_SIZE).read_to_end(&mut text).is_err() {
        return Vec::new();
    }
    let outputs = derivation::outputs(&text, &client.layout().store_dir).unwrap_or_default();
    outputs.into_values().flatten().map(|path| path.hash()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_is_told_from_a_path() {
        let hash = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";
        for text in [format!("/nix/store/{hash}-hello.drv"), format!("{hash}-hello.drv")] {
            let Some(Asked::Derivation(derivation)) = Asked::parse(&text) else { panic!("{text}") };
            assert_eq!(derivation.name(), "hello.drv");
        }
        for text in [format!("/nix/store/{hash}-hello"), format!("{hash}-hello"), hash.to_owned()] {
            assert_eq!(Asked::parse(&text), StorePathHash::parse(hash).map(Asked::Path), "{text}");
        }
        assert_eq!(Asked::parse("hello"), None);
    }
}
