//! What there is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{
    ADOPTING, Found, FoundDataset, Layout, LayoutError, Mounted, Place, aside, beside, rights,
};
use crate::zfs::dataset::{Dataset, Kind, Mountpoint};
use crate::zfs::mounts::{Mount, Mounts};
use crate::zfs::name::DatasetName;
use crate::zfs::properties::Role;
use crate::zfs::{Zfs, ZfsError};

impl Found {
    /// Looks at everything that a layout concerns, and changes nothing.
    pub fn look(zfs: &Zfs, layout: &Layout) -> Result<Self, LayoutError> {
        let parent = zfs.find_dataset(&layout.parent)?;
        let mut found = Self { above: true, ..Self::default() };
        match (&parent, layout.parent.parent()) {
            (Some(_), _) => {
                let datasets = zfs.list(&layout.parent, true)?;
                found.note_datasets(zfs, layout, datasets)?;
                if let Some(account) = &layout.account {
                    let all = rights::names();
                    let missing = zfs.missing_permissions(&account.name, &all, &layout.parent)?;
                    found.rights = all.into_iter().filter(|name| !missing.contains(name)).collect();
                }
            }
            (None, Some(above)) => found.above = zfs.find_dataset(&above)?.is_some(),
            (None, None) => found.above = false,
        }
        found.note_places(layout, parent.as_ref())?;
        Ok(found)
    }

    fn note_datasets(
        &mut self,
        zfs: &Zfs,
        layout: &Layout,
        datasets: Vec<Dataset>,
    ) -> Result<(), ZfsError> {
        let meant = |dataset: &Dataset| {
            dataset.name == layout.parent
                || layout.members.iter().any(|member| member.dataset == dataset.name)
        };
        let datasets: Vec<_> = datasets.into_iter().filter(meant).collect();
        let names: Vec<&DatasetName> = datasets.iter().map(|dataset| &dataset.name).collect();
        let mut properties = zfs.get(&names, &asked_properties())?;
        for dataset in datasets {
            let (of_this, rest) =
                properties.into_iter().partition(|property| property.of == dataset.name.as_str());
            properties = rest;
            let name = dataset.name.clone();
            self.datasets.insert(name, FoundDataset { dataset, properties: of_this });
        }
        Ok(())
    }

    fn note_places(
        &mut self,
        layout: &Layout,
        parent: Option<&Dataset>,
    ) -> Result<(), LayoutError> {
        let mounts = Mounts::read().map_err(LayoutError::io(Path::new("/proc/self/mountinfo")))?;
        let mut paths = vec![layout.directory.clone()];
        for member in &layout.members {
            let directory = &member.mountpoint;
            paths.extend([directory.clone(), beside(directory), aside(directory)]);
        }
        if let Some(Mountpoint::Path(path)) = parent.map(|parent| &parent.mountpoint) {
            paths.push(path.clone());
        }
        for path in paths {
            let place = look_at(&path, &mounts).map_err(LayoutError::io(&path))?;
            self.places.insert(path, place);
        }
        Ok(())
    }

    /// What is at a path that was looked at.
    pub(super) fn place(&self, path: &Path) -> &Place {
        self.places.get(path).unwrap_or(&Place::Missing)
    }
}

/// The properties that plans are made of: those of all roles, and our mark.
fn asked_properties() -> Vec<&'static str> {
    let roles = [Role::Parent, Role::Cache, Role::State];
    let mut names: Vec<_> = roles.iter().flat_map(|role| role.names()).collect();
    names.extend(["canmount", ADOPTING]);
    names.sort_unstable();
    names.dedup();
    names
}

fn look_at(path: &Path, mounts: &Mounts) -> io::Result<Place> {
    // A symbolic link in the place of a directory is taken for the directory that it leads to, as ZFS
    // does when it mounts.
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Missing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Place::NoDirectory);
        }
        Err(error) => return Err(error),
    };
    let metadata = std::fs::metadata(&real)?;
    if !metadata.is_dir() {
        return Ok(Place::NoDirectory);
    }
    Ok(Place::Directory {
        empty: is_empty(&real, mounts)?,
        owner: (metadata.uid(), metadata.gid()),
        mounted: mounts.at(&real).map(mounted),
    })
}

/// Whether nothing is in a directory but mount points and the directories that lead to them.
fn is_empty(directory: &Path, mounts: &Mounts) -> io::Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        let leads_to_mounts = mounts.iter().any(|mount| mount.point.starts_with(&path));
        let holds_nothing =
            || mounts.at(&path).is_some() || is_empty(&path, mounts).unwrap_or(false);
        if !(leads_to_mounts && holds_nothing()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn mounted(mount: &Mount) -> Mounted {
    // A bind mount shows a part of a dataset, which is not what is looked for.
    let whole = mount.root == Path::new("/");
    match mount.dataset().filter(|_| whole) {
        Some(dataset) => Mounted::Dataset(dataset),
        None => Mounted::Other(mount.source.clone()),
    }
}

impl FoundDataset {
    pub(super) fn is_volume(&self) -> bool {
        self.dataset.kind == Kind::Volume
    }

    /// The value of a property, as ZFS prints it; none where it is not set.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let property = self.properties.iter().find(|property| property.name == name)?;
        (property.value != "-").then_some(property.value.as_str())
    }

    /// Where files are being moved into it from.
    pub(super) fn adopting(&self) -> Option<&Path> {
        self.value(ADOPTING).map(Path::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mounts = Mounts::default();
        let look = |path: &Path| look_at(path, &mounts).unwrap();
        assert_eq!(look(&root.join("nothing")), Place::Missing);
        let is_empty = |place| matches!(place, Place::Directory { empty: true, mounted: None, .. });
        assert!(is_empty(look(&root)));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(!is_empty(look(&root)));
        assert_eq!(look(&root.join("file")), Place::NoDirectory);
        assert_eq!(look(&root.join("file/below")), Place::NoDirectory);
    }

    #[test]
    fn what_is_mounted_below_is_no_file_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let line = format!("30 22 0:25 / {}/a/b rw - zfs tank/b rw\n", root.display());
        let line = line + &format!("31 22 0:26 /part {} rw - zfs tank/whole rw\n", root.display());
        let mounts = Mounts::parse(line.as_bytes());
        let Place::Directory { empty, mounted, .. } = look_at(&root, &mounts).unwrap() else {
            panic!("it is a directory")
        };
        assert!(empty);
        assert_eq!(mounted, Some(Mounted::Other("tank/whole".into())), "a bind mount of a part");
        std::fs::write(root.join("a/file"), "").unwrap();
        let place = look_at(&root, &mounts).unwrap();
        assert!(matches!(place, Place::Directory { empty: false, .. }), "{place:?}");
    }
}
