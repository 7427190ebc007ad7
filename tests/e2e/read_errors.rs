//! Files that the disk does not give back (`EIO`, which is what ZFS says of a damaged block): the path is 404 at once and
//! for as long as that is so, never wrong bytes, and never 404 where everything fails.

use std::{fs, path::Path};

use crate::support::{
    PATIENCE,
    bad_disk::BadDisk,
    bank::{DataDirectory, data_directory, replace},
    fixtures::{fixtures, path},
    http::{Response, field},
    nix::{Client, Store, StorePath, Version, tempdir},
    pushed::narinfos,
    server::{Server, Setup},
    snapshots, trees, wait_until,
};

fn start(directory: &DataDirectory, disk: &BadDisk) -> Server {
    disk.under(Setup::on(&directory.data).bank_only(&fixtures().store)).start()
}

fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

fn url(directory: &DataDirectory, path: &StorePath) -> String {
    format!("/{}", field(&fs::read_to_string(directory.narinfo(path)).unwrap(), "URL").unwrap())
}

/// How often the log says that a file cannot be read.
fn said(server: &Server, file: &Path) -> usize {
    let name = file.file_name().unwrap().to_str().unwrap();
    let log = server.log();
    log.lines().filter(|line| line.contains("cannot be read") && line.contains(name)).count()
}

#[track_caller]
fn assert_others_are_served(server: &Server) {
    narinfo(server, path("leaf")).expect(200);
    let digits = path("leaf").hash();
    let nar = server.get(&format!("/nar/{digits}.nar")).expect(200);
    assert!(nar.body == fixtures().dump(path("leaf")));
    server.get("/health").expect(200);
    server.get("/00000000000000000000000000000000.narinfo").expect(404);
}

#[test]
fn a_nar_that_cannot_be_read_is_404_before_any_byte_and_so_is_its_narinfo() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let disk = BadDisk::new();
    let server = start(&directory, &disk);
    let refs = path("refs");
    // Known from memory before it happens.
    narinfo(&server, refs).expect(200);
    let (file, hash) = (directory.nar(refs), fixtures().nar_hash(refs));
    disk.damage(&file, 0);
    for url in [
        url(&directory, refs),
        format!("/nar/{hash}.nar"),
        format!("/nar/{}-{hash}.nar", refs.hash()),
        format!("/nar/{}.nar", refs.hash()),
        format!("/{}.narinfo", refs.hash()),
        format!("/serve/{}/bin/hello", refs.hash()),
    ] {
        server.get(&url).expect(404);
        server.head(&url).expect(404);
    }
    assert_others_are_served(&server);
    assert_eq!(said(&server, &file), 1, "the log says it once:\n{}", server.log());
    assert!(server.metric("snowbank_read_errors_total", "source=\"bank\"") >= 1.0);
    wait_until("it to be counted", PATIENCE, || {
        server.metric("snowbank_quarantined_files", "bank") == 1.0
    });
    // Nothing of it was taken away.
    assert!(file.exists() && directory.narinfo(refs).exists());
}

#[test]
fn a_nar_that_cannot_be_read_further_is_cut_and_404_from_then_on() {
    for (compression, name, names) in [
        ("zstd", "big", ["stored", "bare"].as_slice()),
        ("xz", "website", ["stored", "bare"].as_slice()),
    ] {
        for form in names {
            let directory = data_directory(&fixtures().bank(compression));
            let disk = BadDisk::new();
            let file = directory.nar(path(name));
            let size = fs::metadata(&file).unwrap().len();
            disk.damage(&file, size / 2);
            let server = start(&directory, &disk);
            narinfo(&server, path(name)).expect(200);
            let url = match *form {
                "bare" => format!("/nar/{}.nar", path(name).hash()),
                _ => url(&directory, path(name)),
            };
            let cut = server.connect().try_request("GET", &url, &[]);
            // A small one is read whole before the first byte of it is sent.
            let cut = cut.is_err() || cut.is_ok_and(|answer| answer.status == 404);
            assert!(cut, "{compression} {form}: half a NAR ended as if it were whole");
            wait_until("the path to be 404", PATIENCE, || {
                narinfo(&server, path(name)).status == 404
            });
            server.get(&url).expect(404);
            assert_others_are_served(&server);
            assert_eq!(said(&server, &file), 1, "{}", server.log());
        }
    }
}

#[test]
fn a_file_that_is_open_already_is_cut_and_404_from_then_on() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let disk = BadDisk::new();
    let server = start(&directory, &disk);
    let (url, file) = (url(&directory, path("big")), directory.nar(path("big")));
    server.get(&url).expect(200);
    disk.damage(&file, 1 << 20);
    // The file may be open still, and the first bytes of it may be on their way.
    let again = server.connect().try_request("GET", &url, &[]);
    assert!(again.is_err() || again.is_ok_and(|answer| answer.status == 404));
    wait_until("the path to be 404", PATIENCE, || server.get(&url).status == 404);
    narinfo(&server, path("big")).expect(404);
}

#[test]
fn a_narinfo_that_cannot_be_read_is_404_and_others_are_served() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let disk = BadDisk::new();
    disk.damage(&directory.narinfo(path("refs")), 0);
    let server = start(&directory, &disk);
    for _ in 0..3 {
        narinfo(&server, path("refs")).expect(404);
    }
    server.get(&format!("/nar/{}.nar", path("refs").hash())).expect(404);
    assert_others_are_served(&server);
    assert_eq!(said(&server, &directory.narinfo(path("refs"))), 1, "{}", server.log());
}

#[test]
fn a_log_that_cannot_be_read_is_404_or_cut() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let name = format!("{}-x.drv", "a".repeat(32));
    let log = directory.bank().join("log").join(&name);
    trees::write(&log, &trees::Numbers::from(1).bytes(1 << 20));
    let disk = BadDisk::new();
    disk.damage(&log, 600_000);
    let server = start(&directory, &disk);
    let cut = server.connect().try_request("GET", &format!("/log/{name}"), &[]);
    assert!(cut.is_err(), "half a log ended as if it were whole");
    wait_until("the log to be 404", PATIENCE, || server.get(&format!("/log/{name}")).status == 404);
    assert_others_are_served(&server);
}

#[test]
fn another_file_in_its_place_is_served_at_once() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let disk = BadDisk::new();
    let server = start(&directory, &disk);
    let (refs, bytes) = (path("refs"), fs::read(directory.nar(path("refs"))).unwrap());
    disk.damage(&directory.nar(refs), 0);
    server.get(&url(&directory, refs)).expect(404);
    narinfo(&server, refs).expect(404);
    let beside = directory.data.join("beside");
    fs::write(&beside, &bytes).unwrap();
    fs::rename(&beside, directory.nar(refs)).unwrap();
    assert!(server.get(&url(&directory, refs)).expect(200).body == bytes);
    narinfo(&server, refs).expect(200);
    wait_until("nothing to be in quarantine", PATIENCE, || {
        server.metric("snowbank_quarantined_files", "") == 0.0
    });
}

#[test]
fn another_source_that_has_the_path_answers_instead() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let own = tempdir();
    let part = own.path().join("part");
    snapshots::take(&directory.bank(), "x");
    fs::rename(snapshots::directory(&directory.bank(), "x"), &part).unwrap();
    // The part has files of its own.
    for file in
        [directory.nar(path("refs")), directory.nar(path("big")), directory.narinfo(path("top"))]
    {
        replace(&file, &fs::read(&file).unwrap());
    }
    let config = own.path().join("snowbank.toml");
    fs::write(&config, format!("[cache.default]\nparts = [{part:?}]\n")).unwrap();
    let disk = BadDisk::new();
    let setup = Setup::on(&directory.data).bank_only(&fixtures().store);
    let server = disk.under(setup.argument("--config").argument(&config)).start();
    narinfo(&server, path("refs")).expect(200);
    for file in [directory.nar(path("refs")), directory.narinfo(path("top"))] {
        disk.damage(&file, 0);
    }
    disk.damage(&directory.nar(path("big")), 1 << 20);
    let client = Client::new(Version::Current, &fixtures().store);
    client.copy_from(&server.url(), &server.key(), &[path("top")]).expect_success();
    for name in ["top", "refs", "leaf"] {
        assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
    }
    // One that has begun is cut. Whoever has its beginning does not get the end of another file for it.
    let url = url(&directory, path("big"));
    assert!(server.connect().try_request("GET", &url, &[]).is_err());
    wait_until("the part to answer", PATIENCE, || server.get(&url).status == 200);
    let ask = |range: &str| server.connect().request("GET", &url, &[("Range", range)]).status;
    assert_eq!((ask("bytes=1048576-"), ask("bytes=0-99")), (404, 206));
    let whole = fs::read(directory.nar(path("big"))).unwrap();
    assert!(server.get(&url).expect(200).body == whole);
}

#[test]
fn where_everything_fails_nothing_is_said_to_be_absent() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let disk = BadDisk::new();
    let server = start(&directory, &disk);
    for entry in [directory.bank(), directory.bank().join("nar")] {
        for file in fs::read_dir(entry).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                disk.damage(&file, 0);
            }
        }
    }
    for name in ["refs", "top", "leaf"] {
        narinfo(&server, path(name)).expect(503).must("retry-after");
        server.get(&url(&directory, path(name))).expect(503);
    }
    disk.repair();
    for name in ["refs", "top", "leaf"] {
        narinfo(&server, path(name)).expect(200);
        server.get(&url(&directory, path(name))).expect(200);
    }
}

#[test]
fn too_many_files_that_fail_at_once_are_taken_for_a_disk_that_does() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let text = fs::read_to_string(directory.narinfo(path("leaf"))).unwrap();
    let disk = BadDisk::new();
    let hash = |number: usize| format!("{number:0>32}");
    for number in 0..40 {
        let file = directory.bank().join(format!("{}.narinfo", hash(number)));
        fs::write(&file, text.replace(path("leaf").hash(), &hash(number))).unwrap();
    }
    let server = start(&directory, &disk);
    wait_until("all to be read", PATIENCE, || {
        server.get(&format!("/{}.narinfo", hash(39))).status == 200
            && server.metric("snowbank_source_paths", "bank")
                == narinfos(&directory.bank()).len() as f64
    });
    // Each narinfo is read once without being remembered, so that nobody reads them in the background later.
    for number in 0..39 {
        server.head(&format!("/nar/{}.nar", hash(number))).expect(200);
    }
    for number in 0..39 {
        disk.damage(&directory.bank().join(format!("{}.narinfo", hash(number))), 0);
    }
    let statuses: Vec<u16> = (0..39)
        .map(|number| server.get(&format!("/{}.narinfo?json", hash(number))).status)
        .collect();
    assert_eq!(statuses[..10], [404; 10], "{statuses:?}");
    assert_eq!(statuses[20..], [503; 19], "{statuses:?}");
    narinfo(&server, path("leaf")).expect(200);
}

#[test]
fn a_path_of_the_store_that_cannot_be_read_is_404() {
    let store = Store::fresh();
    let own = tempdir();
    let numbers = &mut trees::Numbers::from(1);
    for name in ["first", "later"] {
        for index in 0..4 {
            let file = own.path().join(name).join(format!("file-{index}"));
            trees::write(&file, &numbers.bytes(1 << 20));
        }
    }
    let [first, later] = ["first", "later"].map(|name| store.add(&own.path().join(name)));
    let disk = BadDisk::new();
    let server = disk.under(Setup::bare().local_store(&store)).start();
    disk.damage(&first.as_path().join("file-0"), 0);
    disk.damage(&later.as_path().join("file-3"), 0);
    for (path, cut) in [(&first, false), (&later, true)] {
        let text = narinfo(&server, path).expect(200).text();
        let url = format!("/{}", field(&text, "URL").unwrap());
        let answer = server.connect().try_request("GET", &url, &[]);
        match answer {
            Ok(answer) => assert_eq!(answer.status, 404, "of {path:?}"),
            Err(_) => assert!(cut, "{path:?} could have been refused before the first byte"),
        }
        wait_until("the path to be 404", PATIENCE, || narinfo(&server, path).status == 404);
        server.get(&url).expect(404);
    }
    assert!(server.metric("snowbank_read_errors_total", "source=\"store\"") >= 2.0);
}

#[test]
fn a_baked_file_that_cannot_be_read_is_baked_again() {
    let own = tempdir();
    let data = own.path().join("data");
    let disk = BadDisk::new();
    let server = disk.under(Setup::on(&data).local_store(&fixtures().store)).start();
    let hash = fixtures().nar_hash(path("website"));
    server.get(&format!("/nar/{hash}.nar")).expect(200);
    let baked = data.join(format!("baked/nar/{hash}.nar.zst"));
    // The file is there a moment before the server reads from it.
    let bakes = || server.metric("snowbank_bakes_total", "result=\"ok\"");
    wait_until("the path to be baked", PATIENCE, || bakes() >= 1.0);
    disk.damage(&baked, 0);
    for _ in 0..3 {
        let answer = server.get(&format!("/nar/{hash}.nar")).expect(200);
        assert!(answer.body == fixtures().dump(path("website")));
    }
    wait_until("the path to be baked again", PATIENCE, || bakes() >= 2.0);
    server.get(&format!("/nar/{hash}.nar.zst")).expect(200);
}
