//! A real Nix substitutes, copies and looks, in both versions, from the local store and from a bank.

use std::{ffi::OsString, fs, thread};

use crate::support::{
    bank::{DataDirectory, data_directory},
    fixtures::{LARGE, LOG, ORDINARY, fixtures, path},
    http::field,
    nix::{Client, Store, StorePath, Version, run, tempdir},
    proxy::{Fault, FaultProxy},
    server::{Server, Setup},
    wait_until,
};

fn from_the_local_store() -> Server {
    Setup::bare().local_store(&fixtures().store).start()
}

fn from_a_bank(compression: &str) -> (Server, DataDirectory) {
    let directory = data_directory(&fixtures().bank(compression));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    (server, directory)
}

fn ordinary() -> Vec<&'static StorePath> {
    ORDINARY.iter().map(|name| path(name)).collect()
}

#[track_caller]
fn assert_arrived(client: &Client<'_>, paths: &[&StorePath]) {
    for path in paths {
        assert!(client.dump(path) == fixtures().dump(path), "{path:?} arrived with other bytes");
    }
}

#[test]
fn both_versions_copy_every_kind_of_path_from_the_local_store() {
    let server = from_the_local_store();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        client.copy_from(&server.url(), &server.key(), &ordinary()).expect_success();
        assert_arrived(&client, &ordinary());
        // The same again comes from what the first time baked, and must be the same.
    }
    wait_until("the paths to be baked", crate::support::PATIENCE, || {
        server.metric("snowbank_bakes_total", "") >= 1.0
    });
}

#[test]
fn both_versions_copy_every_kind_of_path_from_a_bank() {
    for compression in ["zstd", "none", "xz", "gzip", "bzip2"] {
        let (server, _directory) = from_a_bank(compression);
        for version in Version::BOTH {
            let client = Client::new(version, &fixtures().store);
            client.copy_from(&server.url(), &server.key(), &ordinary()).expect_success();
            assert_arrived(&client, &ordinary());
        }
    }
}

#[test]
fn both_versions_realise_through_substituters_with_signatures_required() {
    let server = from_the_local_store();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        client.realise(&server.url(), &server.key(), &[path("top")]).expect_success();
        assert_arrived(&client, &[path("top"), path("refs"), path("leaf")]);
    }
}

#[test]
fn a_client_that_does_not_trust_the_key_refuses_what_is_not_content_addressed() {
    let server = from_the_local_store();
    let stranger = Setup::bare().local_store(&fixtures().store).start().key();
    assert_ne!(server.key(), stranger, "two fresh servers must not share a key");
    let client = Client::new(Version::Current, &fixtures().store);
    let outcome = client.copy_from(&server.url(), &stranger, &[path("refs")]).expect_failure();
    assert!(outcome.stderr.contains("lacks a signature"), "{}", outcome.stderr);
}

#[test]
fn a_content_addressed_path_needs_no_signature() {
    let server = from_the_local_store();
    let stranger = Setup::bare().local_store(&fixtures().store).start().key();
    let client = Client::new(Version::Current, &fixtures().store);
    client
        .copy_from(&server.url(), &stranger, &[path("fixed"), path("flat"), path("leaf")])
        .expect_success();
    assert_arrived(&client, &[path("fixed"), path("flat"), path("leaf")]);
}

#[test]
fn large_paths_arrive_whole_from_the_local_store() {
    let server = from_the_local_store();
    for version in Version::BOTH {
        for name in LARGE {
            let client = Client::new(version, &fixtures().store);
            client.copy_from(&server.url(), &server.key(), &[path(name)]).expect_success();
            assert_arrived(&client, &[path(name)]);
        }
    }
}

#[test]
fn large_paths_arrive_whole_from_a_bank() {
    let (server, _directory) = from_a_bank("zstd");
    for version in Version::BOTH {
        for name in LARGE {
            let client = Client::new(version, &fixtures().store);
            client.copy_from(&server.url(), &server.key(), &[path(name)]).expect_success();
            assert_arrived(&client, &[path(name)]);
        }
    }
}

#[test]
fn nar_bytes_equal_the_dump_of_nix_unbaked_and_baked() {
    let server = from_the_local_store();
    for (name, path) in fixtures().all() {
        let narinfo = server.get(&format!("/{}.narinfo", path.hash())).expect(200).text();
        let url = field(&narinfo, "URL").unwrap();
        let nar_hash = fixtures().nar_hash(path);
        assert_eq!(url, format!("nar/{nar_hash}.nar"), "of the unbaked {name}");
        assert_eq!(
            field(&narinfo, "Compression").as_deref(),
            Some("none"),
            "of the unbaked {name}"
        );
        let raw = server.get(&format!("/{url}")).expect(200);
        assert!(raw.body == fixtures().dump(path), "the NAR of {name} differs from Nix's");
        // Read once, it is baked: the narinfo says so, and both forms hold the same NAR.
        let baked = wait_for_bake(&server, path);
        let compressed = server.get(&format!("/{}", field(&baked, "URL").unwrap())).expect(200);
        assert_eq!(
            field(&baked, "FileSize").unwrap(),
            compressed.body.len().to_string(),
            "of {name}"
        );
        let unpacked =
            zstd::stream::decode_all(compressed.body.as_slice()).expect("the baked NAR is zstd");
        assert!(unpacked == raw.body, "the baked NAR of {name} differs");
        let again = server.get(&format!("/nar/{nar_hash}.nar")).expect(200);
        assert!(again.body == raw.body, "the NAR of {name} differs once it is baked");
    }
}

/// The narinfo of a path once it says that the path is baked.
#[track_caller]
fn wait_for_bake(server: &Server, path: &StorePath) -> String {
    crate::support::wait_for(&format!("{path:?} to be baked"), crate::support::PATIENCE, || {
        let narinfo = server.get(&format!("/{}.narinfo", path.hash())).expect(200).text();
        (field(&narinfo, "Compression").as_deref() == Some("zstd")).then_some(narinfo)
    })
}

#[test]
fn path_info_says_what_the_database_says() {
    let server = from_the_local_store();
    for name in ORDINARY {
        let path = path(name);
        let ours = path_info(&server.url(), path);
        let theirs = path_info("auto", path);
        for key in ["narHash", "narSize", "references", "deriver", "ca"] {
            assert_eq!(ours[key], theirs[key], "{key} of {name}");
        }
        assert_eq!(
            ours["signatures"].as_array().map(Vec::len),
            Some(1),
            "{name} carries our signature"
        );
    }
}

fn path_info(store: &str, path: &StorePath) -> serde_json::Value {
    let text =
        fixtures().store.run("nix", &["path-info", "--json", "--store", store, path.as_str()]);
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all[path.as_str()].clone()
}

#[test]
fn nix_store_ls_and_cat_look_into_a_path() {
    let (bank, _directory) = from_a_bank("zstd");
    for server in [from_the_local_store(), bank] {
        for version in Version::BOTH {
            let client = Client::new(version, &fixtures().store);
            let within = |inner: &str| format!("{}/{inner}", path("refs").as_str());
            let listing = client.run(
                "nix",
                &["store", "ls", "--store", &server.url(), "-R", "--json", path("shapes").as_str()],
            );
            let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
            assert_eq!(listing["entries"]["relative-link"]["target"], "bin/run");
            assert_eq!(listing["entries"]["bin"]["entries"]["run"]["executable"], true);
            assert_eq!(listing["entries"]["empty"]["entries"], serde_json::json!({}));
            let cat = client
                .run("nix", &["store", "cat", "--store", &server.url(), &within("bin/hello")]);
            assert_eq!(cat, "echo hello\n");
        }
    }
}

#[test]
fn nix_log_shows_the_log_of_a_path() {
    let server = from_the_local_store();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        let words = ["log", "--store", &server.url(), path("refs").as_str()];
        assert_eq!(client.run("nix", &words), LOG, "by the path, {version:?}");
    }
}

#[test]
fn a_path_built_a_second_ago_is_served_and_a_collected_one_is_not() {
    let store = Store::fresh();
    let own = tempdir();
    fs::write(own.path().join("first"), "first").unwrap();
    fs::write(own.path().join("second"), "second").unwrap();
    let first = store.add(&own.path().join("first"));
    let server = Setup::bare().local_store(&store).start();
    let narinfo = |path: &StorePath| server.get(&format!("/{}.narinfo", path.hash()));
    narinfo(&first).expect(200);
    let second = store.add(&own.path().join("second"));
    narinfo(&second).expect(200);
    store.run("nix-store", &["--delete", first.as_str()]);
    narinfo(&first).expect(404);
    narinfo(&second).expect(200);
}

#[test]
fn a_path_made_again_with_other_bytes_is_never_answered_from_memory() {
    // Not content-addressed, so that its store path stays while its NAR changes.
    let store = Store::fresh();
    let own = tempdir();
    let build = |salt: &str| {
        fs::write(own.path().join("salt"), salt).unwrap();
        let script = format!("/bin/cat {} >$out", own.path().join("salt").display());
        let expression = format!(
            "derivation {{ name = \"changes\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" \"{script}\" ]; PATH = \"/usr/bin:/bin\"; }}"
        );
        let expression = own.path().join("changes.nix").tap_write(&expression);
        StorePath::new(store.run("nix-build", &["--no-out-link", &expression]).trim())
    };
    let first = build("one");
    let server = Setup::bare().local_store(&store).start();
    let narinfo = || server.get(&format!("/{}.narinfo", first.hash())).expect(200).text();
    let before = field(&narinfo(), "NarHash").unwrap();
    server.get(&format!("/nar/{}.nar", &before["sha256:".len()..])).expect(200);
    store.run("nix-store", &["--delete", first.as_str()]);
    let second = build("another");
    assert_eq!(first, second, "the fixture must keep its store path");
    let after = narinfo();
    assert_ne!(field(&after, "NarHash").unwrap(), before);
    let client = Client::new(Version::Current, &store);
    client.copy_from(&server.url(), &server.key(), &[&second]).expect_success();
    assert_eq!(fs::read(client.real(&second)).unwrap(), b"another");
}

trait TapWrite {
    fn tap_write(self, text: &str) -> String;
}

impl TapWrite for std::path::PathBuf {
    fn tap_write(self, text: &str) -> String {
        fs::write(&self, text).unwrap();
        self.into_os_string().into_string().unwrap()
    }
}

#[test]
fn a_chroot_store_under_another_root_is_served() {
    let own = tempdir();
    let (root, source) = (own.path().join("root"), own.path().join("hello"));
    fs::write(&source, "hello from a chroot store").unwrap();
    let store = Store::fresh();
    // Such a store is for /nix/store, so the variables that say otherwise are left out.
    let words = [OsString::from("--store"), root.clone().into(), "--add".into(), source.into()];
    let plain = |order: &mut std::process::Command| {
        for (key, _) in store.environment() {
            order.env_remove(key);
        }
    };
    let mut order = store.program("nix-store");
    plain(&mut order);
    let added = StorePath::new(run(order.args(words), 60).expect_success().text().trim());
    assert!(added.as_str().starts_with("/nix/store/"));
    let server = Setup::bare().argument("--store").argument(&root).start();
    let cache_info = server.get("/nix-cache-info").expect(200).text();
    assert_eq!(field(&cache_info, "StoreDir").as_deref(), Some("/nix/store"));
    let narinfo = server.get(&format!("/{}.narinfo", added.hash())).expect(200).text();
    assert_eq!(field(&narinfo, "StorePath").as_deref(), Some(added.as_str()));
    let client = Client::new(Version::Current, &store);
    let mut order = client.program("nix");
    plain(&mut order);
    run(order.args(client.copy_words(&server.url(), &server.key(), &[&added])), 60)
        .expect_success();
    assert_eq!(fs::read(client.real(&added)).unwrap(), b"hello from a chroot store");
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was_baked_and_unbaked() {
    let (bank, _directory) = from_a_bank("zstd");
    // In the order of the list: a bank's compressed file, and a NAR made on the way.
    for server in [bank, from_the_local_store()] {
        for version in Version::BOTH {
            let proxy = FaultProxy::before(server.address(), Fault::Cut { after: 40 << 20 });
            let client = Client::new(version, &fixtures().store);
            client.copy_from(&proxy.url(), &server.key(), &[path("big")]).expect_success();
            assert!(proxy.has_happened(), "the connection was never cut");
            assert_resumed(&proxy);
            assert_arrived(&client, &[path("big")]);
        }
    }
}

#[track_caller]
fn assert_resumed(proxy: &FaultProxy) {
    let requests = proxy.requests();
    let ranges = requests
        .iter()
        .filter(|head| head.contains("/nar/") && head.to_lowercase().contains("\r\nrange: bytes="));
    assert_eq!(
        ranges.count(),
        1,
        "Nix asks for the rest once, and not for the whole again: {requests:#?}"
    );
}

#[test]
fn a_client_outlives_a_restart_of_the_server_in_the_middle_of_a_download() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let start = || Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let first = start();
    let key = first.key();
    let proxy = FaultProxy::before(first.address(), Fault::Hold { after: 40 << 20 });
    let client = Client::new(Version::Current, &fixtures().store);
    thread::scope(|scope| {
        let download = scope.spawn(|| client.copy_from(&proxy.url(), &key, &[path("big")]));
        proxy.wait_for_the_fault();
        first.kill();
        let second = start();
        assert_eq!(second.key(), key, "a restart keeps the key");
        proxy.point_at(second.address());
        proxy.release();
        download.join().unwrap().expect_success();
        second.stop();
    });
    assert_resumed(&proxy);
    assert_arrived(&client, &[path("big")]);
}
