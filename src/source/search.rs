//! Finding paths by their names, or by the derivation that made them.
//!
//! No index of names is kept: a million of them would take more memory than all else. The database of the local store
//! is asked, and what was pushed is on record; a bank is looked through, narinfo by narinfo, for as long as one may.

use std::time::Instant;

use super::Source;
use super::cache::{Cache, Unavailable};
use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StorePath, StorePathHash};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Paths whose names contain this.
    Name(String),
    /// Paths that this derivation made.
    Deriver(StorePath),
}

impl Wanted {
    /// A derivation where it is one by its name, else a part of a name; nothing where no name could contain it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let base = text.trim_end_matches('/').rsplit('/').next().unwrap_or(text);
        match StorePath::parse(base) {
            Ok(path) if path.name().ends_with(".drv") => return Some(Self::Deriver(path)),
            _ => {}
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
        let is_part = !text.is_empty() && text.len() <= 211 && text.bytes().all(legal);
        is_part.then(|| Self::Name(text.to_owned()))
    }

    /// Whether this is one.
    pub fn is(&self, info: &PathInfo) -> bool {
        match self {
            Self::Name(part) => info.path.name().contains(part.as_str()),
            Self::Deriver(derivation) => info.deriver.as_ref() == Some(derivation),
        }
    }
}

/// How long a search may go on.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many paths are enough.
    pub most: u32,
    /// When to stop looking.
    pub deadline: Instant,
}

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Each is there, at least now.
    pub paths: Vec<PathInfo>,
    /// Whether all was looked through, so that there are no others.
    pub is_whole: bool,
}

/// Looks for paths in all sources of a cache; those of `likely` are looked at first. Blocks.
pub fn search(
    cache: &Cache,
    wanted: &Wanted,
    likely: &[StorePathHash],
    bounds: Bounds,
) -> Result<Found, Unavailable> {
    cache.scan();
    let mut found = Found { paths: Vec::new(), is_whole: true };
    look_at(cache, wanted, likely, bounds, &mut found)?;
    for source in cache.sources() {
        let hashes = match &**source {
            Source::Store(store) => {
                store.search(wanted, bounds.most).map_err(|error| cache.unavailable(error))?
            }
            Source::Bank(_) => {
                // What came since the last scan may be among those that are likely, or not.
                found.is_whole &= source.presence().is_exact();
                source.presence().known().paths.as_slice().to_vec()
            }
        };
        look_at(cache, wanted, &hashes, bounds, &mut found)?;
    }
    found.paths.sort_by(|one, other| {
        (one.path.name(), one.path.hash()).cmp(&(other.path.name(), other.path.hash()))
    });
    Ok(found)
}

/// Looks at each of these paths, and keeps those that are wanted.
fn look_at(
    cache: &Cache,
    wanted: &Wanted,
    hashes: &[StorePathHash],
    bounds: Bounds,
    found: &mut Found,
) -> Result<(), Unavailable> {
    for hash in hashes {
        if found.paths.len() >= bounds.most as usize || Instant::now() >= bounds.deadline {
            found.is_whole = false;
            return Ok(());
        }
        let Some((_, narinfo)) = cache.first(|source| source.find(*hash))? else { continue };
        let is_new = |found: &Found| found.paths.iter().all(|known| known.path.hash() != *hash);
        if wanted.is(&narinfo.info) && is_new(found) {
            found.paths.push(narinfo.info);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::hash::Sha256;

    const HASH: &str = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("{HASH}-{name}")).unwrap()
    }

    #[test]
    fn a_derivation_is_known_by_its_ending_and_all_else_is_a_part_of_a_name() {
        let derivation = Wanted::Deriver(path("hello.drv"));
        for text in [format!("/nix/store/{HASH}-hello.drv"), format!("{HASH}-hello.drv")] {
            assert_eq!(Wanted::parse(&text), Some(derivation.clone()), "{text}");
        }
        assert_eq!(Wanted::parse(" hello-2.1 "), Some(Wanted::Name("hello-2.1".into())));
        for text in ["", " ", "<script>", "a b", "%", &"a".repeat(212)] {
            assert_eq!(Wanted::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_is_wanted_by_a_part_of_its_name_or_by_what_made_it() {
        let mut info = PathInfo::new(path("hello-2.10"), Sha256([0; 32]), 8);
        assert!(Wanted::Name("lo-2".into()).is(&info));
        assert!(!Wanted::Name("7rjj".into()).is(&info), "the hash is no part of the name");
        let derivation = Wanted::Deriver(path("hello.drv"));
        assert!(!derivation.is(&info));
        info.deriver = Some(path("hello.drv"));
        assert!(derivation.is(&info));
    }
}
