//! What lies on disk is a plain Nix binary cache: Nix reads it with the server off.

use std::fs;

use crate::support::{
    bank::data_directory,
    fixtures::{LARGE, ORDINARY, fixtures, path},
    nix::{Client, StorePath, Version},
    server::Setup,
};

#[test]
fn nix_reads_a_bank_that_a_server_has_used_with_the_server_off() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for name in ORDINARY {
        server.get(&format!("/{}.narinfo", path(name).hash())).expect(200);
        server.get(&format!("/{}.ls", path(name).hash()));
    }
    server.stop();
    let url = format!("file://{}", directory.bank().display());
    let paths: Vec<&StorePath> = ORDINARY.iter().chain(&LARGE).map(|name| path(name)).collect();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        let mut words = vec!["copy", "--no-check-sigs", "--from", &url, "--to"];
        let root = client.root();
        words.push(root.to_str().unwrap());
        words.extend(paths.iter().map(|path| path.as_str()));
        client.run("nix", &words);
        for path in &paths {
            assert!(client.dump(path) == fixtures().dump(path), "{path:?} has other bytes");
        }
    }
}

#[test]
fn a_bank_that_the_server_made_is_a_binary_cache_for_nix() {
    // With the host's store beside it, a new bank is for the same store directory.
    let server = Setup::bare().local_store(&fixtures().store).start();
    let bank = server.bank();
    server.stop_and_keep(|| {
        let info = fs::read_to_string(bank.join("nix-cache-info"))
            .expect("the server makes nix-cache-info in a new bank");
        assert!(
            info.contains(&format!("StoreDir: {}\n", fixtures().store.directory().display())),
            "{info}"
        );
        let client = Client::new(Version::Current, &fixtures().store);
        let url = format!("file://{}", bank.display());
        client.run("nix", &["store", "ping", "--store", &url]);
    });
}

#[test]
fn serving_changes_nothing_in_a_bank() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let before = narinfos_and_nars(&directory.bank());
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for (_, path) in fixtures().all() {
        server.get(&format!("/{}.narinfo", path.hash())).expect(200);
        server.get(&format!("/nar/{}.nar", fixtures().nar_hash(path))).expect(200);
    }
    server.stop();
    assert_eq!(narinfos_and_nars(&directory.bank()), before);
}

fn narinfos_and_nars(bank: &std::path::Path) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = [bank.to_path_buf(), bank.join("nar")]
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .filter(|(name, _)| name.ends_with(".narinfo") || name.contains(".nar"))
        .collect();
    all.sort();
    all
}
