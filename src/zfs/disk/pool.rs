//! Making and importing pools. Never with `zpool create -f`: what it would override is what protects
//! a pool that is not imported.

use super::super::command::Command;
use super::super::name::PoolName;

/// A new pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPool<'a> {
    /// Its name.
    pub name: &'a PoolName,
    /// What it is made of.
    pub devices: Vec<String>,
    /// Whether each device holds everything.
    pub mirror: bool,
    /// The exponent of the smallest block.
    pub ashift: u8,
    /// Whether freed space is given back to the devices.
    pub autotrim: bool,
    /// The properties of its own dataset.
    pub properties: Vec<(&'a str, &'a str)>,
}

/// Without a cache file a pool is imported by whoever wants it, from the devices that are there; with
/// one, an image of this machine would look for the devices of this machine.
const NO_CACHE_FILE: &str = "cachefile=none";

/// Makes a pool and mounts nothing of it.
pub fn create(pool: &NewPool<'_>) -> Command {
    let (ashift, autotrim) = (pool.ashift, if pool.autotrim { "on" } else { "off" });
    let own = [format!("ashift={ashift}"), format!("autotrim={autotrim}"), NO_CACHE_FILE.into()];
    let own = own.into_iter().flat_map(|one| ["-o".to_owned(), one]);
    let properties = pool.properties.iter();
    let of_dataset =
        properties.flat_map(|(name, value)| ["-O".to_owned(), format!("{name}={value}")]);
    let mirror = pool.mirror.then(|| "mirror".to_owned());
    Command::zpool(["create"])
        .args(own)
        .args(of_dataset)
        .arg(pool.name.as_str())
        .args(mirror)
        .args(pool.devices.iter().cloned())
        .change()
}

/// Imports a pool by its guid, which no two pools share, and mounts nothing of it. With `from_other`
/// also one that another machine used last and did not export.
pub fn import(guid: u64, from_other: bool) -> Command {
    let force = from_other.then(|| "-f".to_owned());
    Command::zpool(["import", "-N", "-o", NO_CACHE_FILE]).args(force).arg(guid.to_string()).change()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_made_without_force() {
        let name = PoolName::parse("cache").unwrap();
        let mut pool = NewPool {
            name: &name,
            devices: vec!["/dev/a".into()],
            mirror: false,
            ashift: 12,
            autotrim: true,
            properties: vec![("mountpoint", "none")],
        };
        assert_eq!(
            create(&pool).to_string(),
            "zpool create -o ashift=12 -o autotrim=on -o cachefile=none -O mountpoint=none cache /dev/a"
        );
        pool.mirror = true;
        pool.devices.push("/dev/b".into());
        assert!(create(&pool).to_string().ends_with(" cache mirror /dev/a /dev/b"));
    }

    #[test]
    fn a_pool_is_imported_by_its_guid() {
        assert_eq!(import(7, false).to_string(), "zpool import -N -o cachefile=none 7");
        assert_eq!(import(7, true).to_string(), "zpool import -N -o cachefile=none -f 7");
    }
}
