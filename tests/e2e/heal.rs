//! What the disk has lost is fetched from where it still is, held against its NarHash, and put back; and whoever pushes it
//! again puts it back as well.

use std::{fs, path::PathBuf};

use crate::support::{
    PATIENCE,
    bad_disk::BadDisk,
    bank::{DataDirectory, data_directory, each_file, replace},
    fixtures::{fixtures, path},
    http::{Response, field},
    nix::{Client, Scratch, StorePath, Version, tempdir},
    push::{Snapshot, assert_nothing_waits},
    server::{Server, Setup},
    wait_until,
};

/// A server on a disk that fails, and what its cache holds.
struct Ill {
    directory: DataDirectory,
    disk: BadDisk,
    own: Scratch,
}

impl Ill {
    fn new() -> Self {
        Self {
            directory: data_directory(&fixtures().bank("zstd")),
            disk: BadDisk::new(),
            own: tempdir(),
        }
    }

    /// A server that anybody may push to, with more settings of its cache.
    fn start(&self, more: &str) -> Server {
        let config = self.own.path().join("snowbank.toml");
        fs::write(&config, format!("[cache.default]\npush = \"open\"\n{more}\n")).unwrap();
        let setup = Setup::on(&self.directory.data).bank_only(&fixtures().store);
        self.disk.under(setup.argument("--config").argument(config)).start()
    }

    /// A copy of the cache in files of its own.
    fn copy(&self) -> PathBuf {
        let copy = self.own.path().join("copy");
        each_file(&self.directory.bank(), &copy, |file, copy| {
            fs::copy(file, copy).unwrap();
        });
        copy
    }

    /// All that a healed cache is: asked for, copied by a real Nix, and well on the disk that fails still.
    fn assert_healed(&self, server: &Server, names: &[&str]) {
        wait_until("nothing to be in quarantine", PATIENCE, || {
            server.metric("snowbank_quarantined_files", "source=\"bank\"") == 0.0
        });
        let client = Client::new(Version::Current, &fixtures().store);
        for name in names {
            narinfo(server, path(name)).expect(200);
            client.copy_from(&server.url(), &server.key(), &[path(name)]).expect_success();
            assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
        }
        assert_nothing_waits(server);
    }
}

fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

/// The uncompressed NAR of a path.
fn nar_url(name: &str) -> String {
    format!("/nar/{}.nar", path(name).hash())
}

/// Another server, that lost nothing.
fn elsewhere(directory: &DataDirectory) -> Server {
    Setup::on(&directory.data).bank_only(&fixtures().store).start()
}

fn healed(server: &Server, result: &str) -> f64 {
    server.metric("snowbank_heals_total", &format!("result=\"{result}\""))
}

fn heal_from(server: &Server) -> String {
    format!("heal_from = [\"{}\"]", server.url())
}

#[test]
fn what_another_part_of_the_cache_has_is_put_back() {
    let ill = Ill::new();
    let part = ill.copy();
    let server = ill.start(&format!("parts = [{part:?}]"));
    narinfo(&server, path("refs")).expect(200);
    ill.disk.damage(&ill.directory.nar(path("refs")), 0);
    ill.disk.damage(&ill.directory.narinfo(path("top")), 0);
    let big = ill.directory.nar(path("big"));
    ill.disk.damage(&big, 1 << 20);
    // Meanwhile the part answers.
    let refs = server.get(&nar_url("refs")).expect(200);
    assert!(refs.body == fixtures().dump(path("refs")));
    narinfo(&server, path("top")).expect(200);
    let url = format!("/{}", field(&narinfo(&server, path("big")).text(), "URL").unwrap());
    assert!(server.connect().try_request("GET", &url, &[]).is_err(), "it was cut");
    wait_until("three paths to be healed", PATIENCE, || healed(&server, "ok") == 3.0);
    server.stop();
    assert!(!big.exists(), "what was damaged lies among the NARs still");
    let server = ill.start("");
    ill.assert_healed(&server, &["refs", "big", "top"]);
}

#[test]
fn what_a_cache_elsewhere_has_is_put_back_and_what_nobody_has_stays_404() {
    let ill = Ill::new();
    let well = data_directory(&fixtures().bank("xz"));
    let peer = elsewhere(&well);
    let server = ill.start(&heal_from(&peer));
    let lost = path("website");
    fs::remove_file(well.narinfo(lost)).unwrap();
    for name in ["refs", "leaf", "website"] {
        narinfo(&server, path(name)).expect(200);
        ill.disk.damage(&ill.directory.nar(path(name)), 0);
    }
    for name in ["refs", "leaf", "website"] {
        let answer = server.get(&nar_url(name));
        assert!([200, 404].contains(&answer.status), "{name} is healed, or not there");
        assert!(answer.status == 404 || answer.body == fixtures().dump(path(name)));
    }
    wait_until("two paths to be healed", PATIENCE, || healed(&server, "ok") == 2.0);
    for name in ["refs", "leaf"] {
        narinfo(&server, path(name)).expect(200);
        assert!(
            server.get(&nar_url(name)).expect(200).body == fixtures().dump(path(name)),
            "{name}"
        );
    }
    wait_until("the third to be given up", PATIENCE, || healed(&server, "failed") == 1.0);
    narinfo(&server, lost).expect(404);
    let log = server.log();
    assert_eq!(log.matches("and is healed").count(), 2, "{log}");
    assert_eq!(log.matches("could not be healed: nobody else has it").count(), 1, "{log}");
    assert_eq!(server.metric("snowbank_quarantined_files", "source=\"bank\""), 1.0);
    // Its time comes later, however often it is asked for.
    narinfo(&server, lost).expect(404);
    assert_eq!(healed(&server, "failed"), 1.0);
}

#[test]
fn what_is_not_the_same_nar_elsewhere_is_never_taken() {
    type Spoil = fn(&DataDirectory);
    let spoiled: [(&str, Spoil); 3] = [
        ("other bytes", |well| {
            let file = well.nar(path("refs"));
            let mut bytes = fs::read(&file).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            replace(&file, &bytes);
        }),
        ("those of another path", |well| {
            let (ours, other) = (well.nar(path("refs")), well.nar(path("leaf")));
            let text = fs::read_to_string(well.narinfo(path("refs"))).unwrap();
            let size = field(&text, "FileSize").unwrap();
            let bytes = fs::read(other).unwrap();
            replace(&ours, &bytes);
            let text = text.replace(&size, &bytes.len().to_string());
            replace(&well.narinfo(path("refs")), text.as_bytes());
        }),
        ("another NarHash", |well| {
            let text = fs::read_to_string(well.narinfo(path("refs"))).unwrap();
            let ours = format!("NarHash: {}", field(&text, "NarHash").unwrap());
            let theirs = format!("NarHash: sha256:{}", fixtures().nar_hash(path("leaf")));
            replace(&well.narinfo(path("refs")), text.replace(&ours, &theirs).as_bytes());
        }),
    ];
    for (what, spoil) in spoiled {
        let ill = Ill::new();
        let well = data_directory(&fixtures().bank("zstd"));
        spoil(&well);
        let peer = elsewhere(&well);
        let server = ill.start(&heal_from(&peer));
        let before = Snapshot::of(&ill.directory.bank());
        ill.disk.damage(&ill.directory.nar(path("refs")), 0);
        server.get(&nar_url("refs")).expect(404);
        wait_until("an attempt to be made", PATIENCE, || healed(&server, "failed") == 1.0);
        narinfo(&server, path("refs")).expect(404);
        assert_nothing_waits(&server);
        before.assert_same(&ill.directory.bank(), what);
        assert_eq!(healed(&server, "ok"), 0.0, "{what}");
    }
}

#[test]
fn a_narinfo_that_is_lost_is_believed_elsewhere_only_where_a_known_key_signed_it() {
    let ill = Ill::new();
    let well = data_directory(&fixtures().bank("zstd"));
    let peer = elsewhere(&well);
    ill.disk.damage(&ill.directory.narinfo(path("refs")), 0);
    let server = ill.start(&heal_from(&peer));
    narinfo(&server, path("refs")).expect(404);
    wait_until("an attempt to be made", PATIENCE, || healed(&server, "failed") == 1.0);
    narinfo(&server, path("refs")).expect(404);
    assert!(server.log().contains("no key that this cache knows"), "{}", server.log());
    server.stop();
    let known = format!("{}\ntrusted_keys = [\"{}\"]", heal_from(&peer), peer.key());
    let server = ill.start(&known);
    narinfo(&server, path("refs"));
    wait_until("the path to be healed", PATIENCE, || healed(&server, "ok") == 1.0);
    ill.assert_healed(&server, &["refs"]);
}

#[test]
fn what_the_hosts_store_has_is_put_back() {
    let ill = Ill::new();
    let config = ill.own.path().join("snowbank.toml");
    fs::write(&config, "[cache.default]\npush = \"open\"\n").unwrap();
    let setup = Setup::on(&ill.directory.data).local_store(&fixtures().store);
    let server = ill.disk.under(setup.argument("--config").argument(config)).start();
    ill.disk.damage(&ill.directory.nar(path("website")), 0);
    ill.disk.damage(&ill.directory.narinfo(path("refs")), 0);
    for name in ["website", "refs"] {
        narinfo(&server, path(name)).expect(200);
        assert!(server.get(&nar_url(name)).expect(200).body == fixtures().dump(path(name)));
    }
    wait_until("two paths to be healed", PATIENCE, || healed(&server, "ok") == 2.0);
    assert!(server.log().contains("from=\"store\""), "{}", server.log());
    server.stop();
    let server = ill.start("");
    ill.assert_healed(&server, &["website", "refs"]);
}

#[test]
fn a_file_that_was_cut_short_is_healed_as_well() {
    let ill = Ill::new();
    let well = data_directory(&fixtures().bank("zstd"));
    let peer = elsewhere(&well);
    let file = ill.directory.nar(path("refs"));
    let bytes = fs::read(&file).unwrap();
    replace(&file, &bytes[..bytes.len() / 2]);
    let server = ill.start(&heal_from(&peer));
    narinfo(&server, path("refs"));
    wait_until("the path to be healed", PATIENCE, || healed(&server, "ok") == 1.0);
    ill.assert_healed(&server, &["refs"]);
}

#[test]
fn whoever_pushes_a_path_again_that_cannot_be_read_heals_it() {
    let ill = Ill::new();
    // As the server itself stores it: the damaged file has the name that the new one gets.
    let server = ill.start("");
    let store = &fixtures().store;
    let push = |server: &Server| {
        // What Nix remembers of this cache is of no use here.
        let words = ["copy", "--refresh", "--to", &server.url()];
        store.run("nix", &[&words[..], &[path("leaf").as_str(), path("refs").as_str()]].concat());
    };
    for name in ["leaf", "refs"] {
        fs::remove_file(ill.directory.narinfo(path(name))).unwrap();
    }
    wait_until("it to be seen", PATIENCE, || narinfo(&server, path("refs")).status == 404);
    push(&server);
    narinfo(&server, path("refs")).expect(200);
    for file in [ill.directory.nar(path("refs")), ill.directory.narinfo(path("leaf"))] {
        ill.disk.damage(&file, 0);
    }
    for name in ["refs", "leaf"] {
        server.get(&nar_url(name));
        wait_until("it to be 404", PATIENCE, || narinfo(&server, path(name)).status == 404);
    }
    push(&server);
    ill.assert_healed(&server, &["refs", "leaf"]);
}
