//! From what somebody calls a path to everything that has to be sent with it.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::nix::path_info::PathInfo;
use crate::nix::store_path::{StorePath, StorePathError, StorePathHash};
use crate::source::local::StoreLayout;
use crate::source::local::database::{Database, DatabaseError};

/// How long the Nix database may be locked by others: a client has time.
const DATABASE_DEADLINE: Duration = Duration::from_secs(60);
/// As many symlinks as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// Why a path cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// There is nothing of that name.
    #[error("{}: {source}", path.display())]
    NotThere {
        /// As it was given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is somewhere else.
    #[error("{} is not in the store {store}: {why}", path.display())]
    NotInStore {
        /// As it was given.
        path: PathBuf,
        /// The store directory.
        store: String,
        /// What it is instead.
        why: StorePathError,
    },
    /// The database does not know it, or not any more.
    #[error("{0} is not a valid path of this store (never built, or collected)")]
    Invalid(StorePath),
    /// The database says nothing.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The local store, as far as a push reads it.
pub struct LocalPaths {
    layout: StoreLayout,
    database: Database,
}

impl LocalPaths {
    /// The store at `layout`; nothing is opened.
    pub fn new(layout: StoreLayout) -> Self {
        let directory = layout.state_dir.join("db");
        let database = Database::new(&directory, layout.store_dir.clone(), DATABASE_DEADLINE);
        Self { layout, database }
    }

    /// Where it is.
    pub const fn layout(&self) -> &StoreLayout {
        &self.layout
    }

    /// The store path that `argument` names: `<hash>-<name>`, a full path in the store or below one
    /// of its paths, or a symlink to such, like `./result`.
    pub fn resolve(&self, argument: &Path) -> Result<StorePath, ClosureError> {
        if let Some(path) = argument.to_str().and_then(|text| StorePath::parse(text).ok()) {
            return Ok(path);
        }
        let failed = |source| ClosureError::NotThere { path: argument.into(), source };
        let mut path = std::path::absolute(argument).map_err(failed)?;
        // The last component only, as Nix does: what a store path is a link to does not matter.
        for _ in 0..MAX_SYMLINKS {
            if let Some(base_name) = self.base_name(&path) {
                return self.parse(argument, base_name);
            }
            let Ok(target) = std::fs::read_link(&path) else { break };
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        let path = std::fs::canonicalize(&path).map_err(failed)?;
        self.parse(argument, self.base_name(&path).unwrap_or_else(|| &path))
    }

    /// What follows the store directory in `path`, up to the next slash.
    fn base_name<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let logical = Path::new(self.layout.store_dir.as_str());
        let inside =
            path.strip_prefix(logical).or_else(|_| path.strip_prefix(&self.layout.real_dir));
        match inside.ok()?.components().next()? {
            Component::Normal(name) => Some(Path::new(name)),
            _ => None,
        }
    }

    fn parse(&self, argument: &Path, base_name: &Path) -> Result<StorePath, ClosureError> {
        let text = String::from_utf8_lossy(base_name.as_os_str().as_bytes());
        StorePath::parse(&text).map_err(|why| ClosureError::NotInStore {
            path: argument.into(),
            store: self.layout.store_dir.to_string(),
            why,
        })
    }

    /// The closure of `roots`, references first. One that is not valid is an error that names it.
    pub fn closure(&self, roots: &[StorePath]) -> Result<Vec<PathInfo>, ClosureError> {
        let hashes: Vec<StorePathHash> = roots.iter().map(StorePath::hash).collect();
        let (infos, _invalid) = self.database.closure(&hashes)?;
        // The database goes by the hash; another name with it is a slip, and not a valid path.
        let known: HashSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
        match roots.iter().find(|root| !known.contains(root)) {
            Some(root) => Err(ClosureError::Invalid(root.clone())),
            None => Ok(infos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Store;
    use super::*;

    #[test]
    fn every_way_to_name_a_path_leads_to_it() {
        let store = Store::new();
        let path = store.add("tree", b"x", &[]);
        let paths = LocalPaths::new(store.layout());
        let real = store.real(&path);
        let link = store.at("result");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let second = store.at("second");
        std::os::unix::fs::symlink("result", &second).unwrap();
        let logical = PathBuf::from(store.layout().store_dir.join(&path));
        let below = logical.join("bin/x");
        for name in [Path::new(path.as_str()), &real, &link, &second, &logical, &below] {
            assert_eq!(paths.resolve(name).unwrap(), path, "{name:?}");
        }
    }

    #[test]
    fn what_is_no_store_path_is_named_in_the_error() {
        let store = Store::new();
        let paths = LocalPaths::new(store.layout());
        let missing = store.at("missing");
        assert!(matches!(paths.resolve(&missing), Err(ClosureError::NotThere { .. })));
        std::fs::write(&missing, "x").unwrap();
        assert!(matches!(paths.resolve(&missing), Err(ClosureError::NotInStore { .. })));
        let links = Path::new(store.layout().store_dir.as_str()).join(".links");
        let error = paths.resolve(&links).unwrap_err();
        assert!(error.to_string().contains(".links"), "{error}");
        let round = store.at("round");
        std::os::unix::fs::symlink(&round, &round).unwrap();
        assert!(paths.resolve(&round).is_err());
    }

    #[test]
    fn a_closure_has_every_path_once_and_references_first() {
        let store = Store::new();
        let a = store.add("a", b"a", &[]);
        let b = store.add("b", b"b", &[&a]);
        let c = store.add("c", b"c", &[&a, &b]);
        let itself = store.add_self_reference("self", b"s", &[&c]);
        store.add("unrelated", b"u", &[&a]);
        let paths = LocalPaths::new(store.layout());
        let closure = paths.closure(&[itself.clone(), b.clone()]).unwrap();
        let names: Vec<_> = closure.iter().map(|info| info.path.name()).collect();
        assert_eq!(names, ["a", "b", "c", "self"]);
        let last = closure.last().unwrap();
        let mut expected = vec![c, itself];
        expected.sort();
        assert_eq!(last.references, expected);
        assert!(paths.closure(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_root_that_is_not_valid_is_named() {
        let store = Store::new();
        let known = store.add("known", b"x", &[]);
        let paths = LocalPaths::new(store.layout());
        let unknown = StorePath::parse(&format!("{}-unknown", "0".repeat(32))).unwrap();
        let error = paths.closure(&[known.clone(), unknown]).unwrap_err();
        assert!(
            matches!(&error, ClosureError::Invalid(path) if path.name() == "unknown"),
            "{error}"
        );
        // Another name with the hash of a valid path is another path.
        let other = StorePath::parse(&format!("{}-other", known.hash())).unwrap();
        assert!(matches!(paths.closure(&[other]), Err(ClosureError::Invalid(_))));
    }

    #[test]
    fn a_chain_longer_than_a_stack_is_a_closure_too() {
        let store = Store::new();
        let mut last = store.register("0", &[]);
        for number in 1..3000 {
            last = store.register(&number.to_string(), &[&last]);
        }
        let closure = LocalPaths::new(store.layout()).closure(&[last]).unwrap();
        let names: Vec<_> = closure.iter().map(|info| info.path.name().parse::<u32>()).collect();
        assert!(names.iter().zip(0..3000).all(|(name, number)| *name == Ok(number)));
        assert_eq!(names.len(), 3000);
    }
}
