//! `snowbank cache`: a cache becomes a dataset, and goes when its name is said twice.

use crate::commands::{Place, SERVICE_ID, property};
use crate::support::{Disk, Pool, command, run};

#[test]
fn a_cache_is_created_with_its_quota_and_destroyed_when_its_name_is_typed_again() {
    use std::os::unix::fs::MetadataExt as _;

    let pool = Pool::on([Disk::take()]);
    let place = Place::new("");
    place.init(&pool);
    let parent = format!("{}/snowbank", pool.name());
    let zfs = format!("[zfs]\ndataset = \"{parent}\"\n");
    place.configure(&zfs);
    let said = place.root(&["cache", "create", "team", "--quota", "1G"]).expect(0);
    assert!(said.ends_with("[cache.team]\nmax_size = \"1G\"\n"), "{said}");
    let dataset = format!("{parent}/team");
    assert_eq!(property(&dataset, "quota"), (1 << 30).to_string());
    assert_eq!(property(&dataset, "recordsize"), "1048576");
    let bank = place.bank("team");
    assert_eq!(std::fs::metadata(&bank).unwrap().uid(), SERVICE_ID);
    let team = format!("{zfs}[cache.team]\nmax_size = \"1G\"\n");
    place.configure(&team);
    assert!(place.root(&["cache", "create", "team"]).expect(0).starts_with("nothing to do"));
    let listed = place.service(&["cache", "ls", "--json"]).json();
    assert_eq!(listed[1]["dataset"], dataset, "{listed}");
    std::fs::write(bank.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    place.service(&["release", "create", "1.0", "--cache", "team"]).expect(0);

    // Not while it is served, not with releases, not by another name, not by those who may not.
    let destroy = ["cache", "destroy", "team", "--yes", "team"];
    assert_eq!(place.root(&destroy).code, Some(2));
    place.configure(&zfs);
    let refused = place.root(&destroy).refusal();
    assert!(refused.contains("--with-releases") && refused.contains("1.0"), "{refused}");
    let all = [&destroy[..], &["--with-releases"]].concat();
    run("zfs", ["hold", "theirs", &format!("{dataset}@release-1.0")]);
    assert!(place.root(&all).refusal().contains("held by theirs"));
    run("zfs", ["release", "theirs", &format!("{dataset}@release-1.0")]);
    assert_eq!(
        place.root(&["cache", "destroy", "team", "--yes", "tea", "--with-releases"]).code,
        Some(2)
    );
    assert_eq!(place.root(&["cache", "destroy", "team", "--with-releases"]).code, Some(2));
    assert_eq!(place.root(&["cache", "destroy", "default", "--yes", "default"]).code, Some(2));
    let asked = ["cache", "destroy", "team", "--with-releases"];
    let (code, said) = place.at_a_terminal(&asked, "tea");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("All of it goes, for good") && said.contains("1 releases"), "{said}");
    assert_eq!(property(&dataset, "mounted"), "yes");
    let (code, said) = place.at_a_terminal(&asked, "team");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("destroyed {dataset}")), "{said}");
    assert!(!command("zfs").args(["list", &dataset]).status().unwrap().success());
    assert!(place.root(&all).refusal().contains("there is no dataset"));
}

#[test]
fn what_is_no_name_of_a_cache_never_comes_near_a_command() {
    let place = Place::new("[zfs]\ndataset = \"nopool/snowbank\"\n");
    for name in ["-r", "a b", "$(x)", "@", "%", "state", "Team", "a/b", &"x".repeat(300)] {
        for words in [&["cache", "create", name][..], &["cache", "destroy", name, "--yes", name]] {
            let said = place.root(words);
            assert_eq!(said.code, Some(2), "{words:?}: {said:?}");
        }
    }
    // Without datasets a cache is a section of the configuration.
    let plain = Place::new("");
    let said = plain.root(&["cache", "create", "team"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("[cache.team]"), "{said:?}");
}

#[test]
fn a_place_that_was_a_mount_is_forgotten_when_it_is_told() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new("");
    place.init(&pool);
    // Without the dataset in the configuration a mount is remembered, and missed.
    place.serve().stop();
    run("zfs", ["unmount", &format!("{}/snowbank/default", pool.name())]);
    let absent = "/00000000000000000000000000000000.narinfo";
    let server = place.serve();
    server.get(absent).expect(503);
    server.stop();
    let said = place.service(&["cache", "forget", "default"]).expect(0);
    assert!(said.starts_with("forgotten"), "{said}");
    assert!(place.service(&["cache", "forget", "default"]).expect(0).starts_with("nothing"));
    // Root made the mount point, and the service writes there now.
    run("chown", ["1000:1000", place.bank("default").to_str().unwrap()]);
    place.serve().get(absent).expect(404);
}
