//! A real Nix pushes over HTTP, in every compression, and another one substitutes what arrived.

use std::{fs, path::Path};

use snowbank::{nix::signature::KeyName, sign::SecretKey};

use crate::support::{
    fixtures::{LOG, fixtures, path},
    http::{field, fields},
    nix::{Client, StorePath, Version, tempdir},
    push::{Snapshot, assert_nothing_waits},
    server::{Server, Setup},
    trees,
};

/// A tree with references between its paths, and one of everything that a NAR may hold.
const PUSHED: [&str; 8] =
    ["leaf", "refs", "top", "shapes", "names", "website", "executable", "fixed"];

fn server() -> Server {
    Setup::bare().pushed_to(&fixtures().store.directory(), "").start()
}

fn pushed() -> Vec<&'static StorePath> {
    PUSHED.iter().map(|name| path(name)).collect()
}

/// `nix copy --to`, by a client of its own, which remembers nothing of other servers.
#[track_caller]
fn copy_to(client: &Client<'_>, server: &Server, settings: &str, paths: &[&StorePath]) {
    let url = format!("{}{settings}", server.url());
    let mut words = vec!["copy", "--to", &url];
    words.extend(paths.iter().map(|path| path.as_str()));
    client.run("nix", &words);
}

#[track_caller]
fn assert_substituted_elsewhere(server: &Server, paths: &[&StorePath]) {
    let other = Client::new(Version::Current, &fixtures().store);
    other.copy_from(&server.url(), &server.key(), paths).expect_success();
    for path in paths {
        assert!(other.dump(path) == fixtures().dump(path), "{path:?} arrived with other bytes");
        let text = server.get(&format!("/{}.narinfo", path.hash())).expect(200).text();
        let hash = format!("sha256:{}", fixtures().nar_hash(path));
        assert_eq!(field(&text, "NarHash"), Some(hash));
    }
}

/// All of it, in one compression, with everything that Nix can be told to send besides.
fn pushes_compressed_as(compression: &str) {
    let server = server();
    let client = Client::new(Version::Current, &fixtures().store);
    let settings =
        format!("?compression={compression}&write-nar-listing=true&index-debug-info=true");
    copy_to(&client, &server, &settings, &pushed());
    assert_substituted_elsewhere(&server, &pushed());
    assert_substituted_from_memory(&client, &server);
    assert_nothing_waits(&server);
    assert_debug_information_is_found(&server);
    // Whatever it came in, it lies here in our form, with our listing.
    for path in pushed() {
        let text = server.get(&format!("/{}.narinfo", path.hash())).expect(200).text();
        let url = format!("nar/{}.nar.zst", fixtures().nar_hash(path));
        assert_eq!(field(&text, "URL"), Some(url.clone()));
        let size = fs::metadata(server.bank().join(url)).unwrap().len();
        assert_eq!(field(&text, "FileSize"), Some(size.to_string()));
        server.get(&format!("/{}.ls", path.hash())).expect(200);
    }
}

/// Whoever pushed remembers for 30 days what it called the NARs then, and asks for just that.
#[track_caller]
fn assert_substituted_from_memory(pusher: &Client<'_>, server: &Server) {
    let mut words = pusher.copy_words(&server.url(), &server.key(), &pushed());
    // What it remembers has no signature of ours.
    words.insert(1, "--no-check-sigs".into());
    pusher.run("nix", &words);
    for path in pushed() {
        assert!(pusher.dump(path) == fixtures().dump(path), "{path:?} came back with other bytes");
    }
}

#[track_caller]
fn assert_debug_information_is_found(server: &Server) {
    let id = trees::BUILD_ID;
    let found = server.get(&format!("/debuginfo/{id}.debug")).expect(200).json();
    let nar = format!("nar/{}.nar.zst", fixtures().nar_hash(path("website")));
    assert_eq!(found["archive"], format!("../{nar}"));
    assert_eq!(found["member"], format!("lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]));
    server.head(&format!("/{nar}")).expect(200);
}

#[test]
fn push_arrives_compressed_as_zstd() {
    pushes_compressed_as("zstd");
}

#[test]
fn push_arrives_not_compressed() {
    pushes_compressed_as("none");
}

#[test]
fn push_arrives_compressed_as_xz_and_debug_information_names_our_nar_and_not_that_of_nix() {
    pushes_compressed_as("xz");
}

#[test]
fn push_arrives_compressed_as_bzip2() {
    pushes_compressed_as("bzip2");
}

#[test]
fn push_arrives_compressed_as_gzip() {
    pushes_compressed_as("gzip");
}

#[test]
fn push_arrives_compressed_as_lz4() {
    pushes_compressed_as("lz4");
}

#[test]
fn push_arrives_from_an_old_nix() {
    let server = server();
    let client = Client::new(Version::Old, &fixtures().store);
    copy_to(&client, &server, "?write-nar-listing=true&index-debug-info=true", &pushed());
    assert_substituted_elsewhere(&server, &pushed());
    assert_substituted_from_memory(&client, &server);
    assert_nothing_waits(&server);
    assert_debug_information_is_found(&server);
}

#[test]
fn push_of_what_is_there_changes_nothing() {
    let server = server();
    let first = Client::new(Version::Current, &fixtures().store);
    copy_to(&first, &server, "", &pushed());
    let before = Snapshot::of(server.data());
    copy_to(&first, &server, "", &pushed());
    // Another machine does not remember that they are there, and another compression names other files.
    let second = Client::new(Version::Old, &fixtures().store);
    copy_to(&second, &server, "?compression=none", &pushed());
    before.assert_same(server.data(), "a second push");
}

#[test]
fn push_of_a_large_path_arrives_whole() {
    let server = server();
    let client = Client::new(Version::Current, &fixtures().store);
    copy_to(&client, &server, "?compression=zstd", &[path("small")]);
    assert_substituted_elsewhere(&server, &[path("small")]);
}

#[test]
fn push_of_a_log_is_read_by_nix_log() {
    for settings in ["", "?log-compression=xz", "?log-compression=zstd"] {
        let server = server();
        for version in Version::BOTH {
            let client = Client::new(version, &fixtures().store);
            copy_to(&client, &server, "", &[path("refs")]);
            let url = format!("{}{settings}", server.url());
            client.run("nix", &["store", "copy-log", "--to", &url, path("refs").as_str()]);
            let log = client.run("nix", &["log", "--store", &server.url(), path("refs").as_str()]);
            assert_eq!(log, LOG, "{version:?} {settings}");
        }
    }
}

#[test]
fn push_of_a_signature_is_seen_by_others_and_kept_on_disk_and_changes_nothing_else() {
    let server = server();
    let client = Client::new(Version::Current, &fixtures().store);
    copy_to(&client, &server, "", &[path("refs")]);
    let url = format!("/{}.narinfo", path("refs").hash());
    let before = server.get(&url).expect(200).text();
    let own = tempdir();
    let key = own.path().join("key");
    let secret = SecretKey::generate(KeyName::parse("elsewhere-1").unwrap()).unwrap();
    secret.save(&key).unwrap();
    let sign = || {
        let words = ["store", "sign", "--store", &server.url(), "-k", text(&key)];
        // Another client each time: this one would remember the narinfo.
        let client = Client::new(Version::Current, &fixtures().store);
        client.run("nix", &[&words[..], &[path("refs").as_str()]].concat());
    };
    sign();
    let after = server.get(&url).expect(200).text();
    let signatures = fields(&after, "Sig");
    let of_elsewhere = signatures.iter().find(|text| text.starts_with("elsewhere-1:"));
    let of_elsewhere = of_elsewhere.unwrap_or_else(|| panic!("not there: {signatures:?}"));
    let without = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("Sig: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without(&after), without(&before), "nothing else of it changes");
    for signature in fields(&before, "Sig") {
        assert!(signatures.contains(&signature), "{signature} is gone");
    }
    let stored = server.bank().join(format!("{}.narinfo", path("refs").hash()));
    let on_disk = fields(&fs::read_to_string(&stored).unwrap(), "Sig");
    assert_eq!(on_disk, [of_elsewhere.as_str()], "and the server's own is not on disk");
    // A client that trusts that key alone takes the path.
    let trusting = Client::new(Version::Current, &fixtures().store);
    let public = secret.public().to_string();
    trusting.copy_from(&server.url(), &public, &[path("refs")]).expect_success();
    let snapshot = Snapshot::of(server.data());
    sign();
    snapshot.assert_same(server.data(), "signing again");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
