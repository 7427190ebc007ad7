//! Configuration, directories, banks, keys, state.

use std::path::Path;

use indicatif::BinaryBytes;
use rustix::fs::{Access, access};

use super::Finding;
use crate::app::datasets::dataset_of;
use crate::app::{KEY_DIRECTORY, KEY_FILE};
use crate::bank::Bank;
use crate::config::{CacheConfig, Config, SigningKey};
use crate::index::state::{STATE_DIRECTORY, StateDb};
use crate::sign::SecretKey;
use crate::zfs::PoolName;
use crate::zfs::mounts::Mounts;
use crate::zfs::pool::{Health, kernel_state};

/// A bank with less than one part in this many of its size left is nearly full.
const NEARLY_FULL: u64 = 20;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let file = config.file.as_ref().map(|file| format!(" {}", file.display()));
    let count = config.caches.len();
    let mut findings = vec![Finding::ok(format!(
        "configuration{}, {count} cache{}",
        file.unwrap_or_else(|| " of defaults".into()),
        if count == 1 { "" } else { "s" }
    ))];
    let (data, state_directory) = (&config.data_dir, config.data_dir.join(STATE_DIRECTORY));
    findings.push(unless_lost(data, || data_directory(data)));
    findings.push(unless_lost(&state_directory, || state(data)));
    for cache in &config.caches {
        findings.push(unless_lost(&cache.directory, || bank(config, cache)));
        findings.extend(keys(config, cache));
    }
    findings
}

/// What is found there, but for what lies on a pool that gives nothing: who looks there waits for ever.
fn unless_lost(path: &Path, find: impl FnOnce() -> Finding) -> Finding {
    let lost = || -> Option<(PoolName, Health)> {
        let pool = Mounts::read().ok()?.covering(path)?.dataset()?.pool();
        let health = kernel_state(&pool).ok()?.filter(|health| !health.answers())?;
        Some((pool, health))
    };
    match lost() {
        None => find(),
        Some((pool, health)) => Finding::problem(
            format!("{} lies on the pool {pool}, which is {}", path.display(), health.as_str()),
            format!("`zpool status {pool}` says why; `zpool clear {pool}` when it is put right"),
        ),
    }
}

fn data_directory(directory: &Path) -> Finding {
    let shown = directory.display();
    if !directory.is_dir() {
        return Finding::problem(
            format!("data directory {shown} is not there"),
            "start the server once, or make it and give it to the server's user",
        );
    }
    if access(directory, Access::WRITE_OK).is_err() {
        return Finding::problem(
            format!("data directory {shown} cannot be written to by this user"),
            "give it to the server's user (chown), and run this as that user",
        );
    }
    Finding::ok(format!("data directory {shown}"))
}

fn state(directory: &Path) -> Finding {
    match StateDb::open_existing(directory) {
        Ok(Some(_)) => Finding::ok("state database"),
        Ok(None) => Finding::ok("state database: none yet; the server makes it at its start"),
        Err(error) => Finding::problem("state database", error.to_string()),
    }
}

/// The bank of a cache: there, mounted, writable, with room.
fn bank(config: &Config, cache: &CacheConfig) -> Finding {
    let (name, directory) = (&cache.name, &cache.directory);
    if let Some(dataset) = cache.dataset(&config.zfs) {
        let mounts = Mounts::read().unwrap_or_default();
        let real = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.clone());
        let mounted = mounts.at(&real).and_then(|mount| mount.dataset());
        if mounted.as_ref() != Some(&dataset) {
            return Finding::problem(
                format!("cache {name}: {dataset} is not mounted at {}", directory.display()),
                format!("`zfs mount {dataset}` as root, or `snowbank zfs init` if it is missing"),
            );
        }
    }
    if Bank::store_dir_at(directory).is_none() {
        return Finding::warning(
            format!("cache {name}: there is no bank at {} yet", directory.display()),
            "the server makes it at its start",
        );
    }
    if cache.is_written_to() && access(directory, Access::WRITE_OK).is_err() {
        return Finding::problem(
            format!("cache {name}: {} cannot be written to by this user", directory.display()),
            "give it to the server's user (chown), and run this as that user",
        );
    }
    let Ok(found) = rustix::fs::statvfs(directory.as_path()) else {
        return Finding::problem(
            format!("cache {name}: {} cannot be read", directory.display()),
            "look at what is mounted there",
        );
    };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    let (available, total) = (bytes(found.f_bavail), bytes(found.f_blocks));
    let room = format!(
        "cache {name} at {}: {} of {} free",
        directory.display(),
        BinaryBytes(available),
        BinaryBytes(total)
    );
    if available < total / NEARLY_FULL {
        let remedy = match dataset_of(config, cache) {
            Some(dataset) => {
                format!(
                    "`zfs set quota=` more, if the pool has it, or destroy snapshots of {dataset}"
                )
            }
            None => "make room, or pushes get 507 soon".into(),
        };
        return Finding::warning(room, remedy);
    }
    Finding::ok(room)
}

/// The keys that a cache signs with: there, ours alone, and keys.
fn keys(config: &Config, cache: &CacheConfig) -> Vec<Finding> {
    let finding = |key: &SigningKey| {
        let file = match key {
            SigningKey::File(file) => file.clone(),
            SigningKey::Generated => config.data_dir.join(KEY_DIRECTORY).join(KEY_FILE),
        };
        let name = &cache.name;
        unless_lost(&file, || {
            if *key == SigningKey::Generated && !file.exists() {
                return Finding::ok(format!("cache {name}: its key is made at the server's start"));
            }
            match SecretKey::load(&file) {
                Ok(key) => Finding::ok(format!("cache {name} signs as {}", key.public())),
                Err(error) => Finding::problem(format!("cache {name}: its key"), error.to_string()),
            }
        })
    };
    cache.signing_keys.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::config::{self, Environment, Overrides};
    use crate::nix::signature::KeyName;

    fn config(directory: &Path) -> Config {
        let lookup = |_: &str| None;
        let environment = Environment { lookup: &lookup, is_root: true };
        let overrides = Overrides { data_dir: Some(directory.into()), ..Overrides::default() };
        config::load(&overrides, &environment).unwrap()
    }

    fn verdicts(config: &Config) -> Vec<(Verdict, String)> {
        examine(config).into_iter().map(|finding| (finding.verdict, finding.to_string())).collect()
    }

    #[test]
    fn what_is_missing_before_the_first_start_is_told_from_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let fresh = verdicts(&config(directory.path()));
        assert!(fresh.iter().all(|(verdict, _)| *verdict < Verdict::Problem), "{fresh:?}");
        let nowhere = verdicts(&config(&directory.path().join("no")));
        assert_eq!(nowhere[1].0, Verdict::Problem);
        assert!(nowhere[1].1.contains("is not there"), "{nowhere:?}");
    }

    #[test]
    fn a_key_that_others_can_read_is_a_problem_with_its_remedy() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        let key = directory.path().join("key");
        let made = SecretKey::generate(KeyName::parse("test-1").unwrap()).unwrap();
        made.save(&key).unwrap();
        config.caches[0].signing_keys = vec![SigningKey::File(key.clone())];
        let said = keys(&config, &config.caches[0]);
        assert!(said[0].to_string().contains("signs as test-1:"), "{said:?}");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = keys(&config, &config.caches[0]);
        assert_eq!(said[0].verdict, Verdict::Problem);
        assert!(said[0].to_string().contains("chmod 0600"), "{said:?}");
    }

    #[test]
    fn a_dataset_that_is_not_mounted_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        config.zfs.dataset = Some("tank/snowbank".parse().unwrap());
        let said = bank(&config, &config.caches[0]);
        assert_eq!(said.verdict, Verdict::Problem);
        assert!(said.to_string().contains("`zfs mount tank/snowbank/default`"), "{said}");
    }
}
