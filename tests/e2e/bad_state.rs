//! A store, a database or a bank that is not what it should be. Wrong bytes never end as if they were right, and what
//! we do not know is never said to be absent.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use rusqlite::Connection as Database;

use crate::support::{
    PATIENCE,
    bank::{data_directory, replace},
    fixtures::{fixtures, path},
    http::{Response, field},
    nix::{Client, Scratch, Store, StorePath, Version, tempdir},
    server::{Server, Setup},
    trees, wait_until,
};

/// A store of the test's own with one path in it: a tree of a few files, 3 MB.
fn changeable() -> (Store, StorePath, Scratch) {
    let store = Store::fresh();
    let own = tempdir();
    let source = own.path().join("victim");
    let mut numbers = trees::Numbers::from(1);
    for index in 0..3 {
        trees::write(&source.join(format!("file-{index}")), &numbers.bytes(1 << 20));
    }
    trees::write(&source.join("z-last"), b"the last file\n");
    let added = store.add(&source);
    (store, added, own)
}

fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

/// Change what lies in a store path, which is read-only.
fn change(file: &Path, bytes: &[u8]) {
    fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_changed_store_file_resets_the_connection_is_counted_and_not_baked() {
    for (what, size) in [("as long as before", 1 << 20), ("shorter", 1000), ("longer", 2 << 20)] {
        let (store, victim, _own) = changeable();
        let server = Setup::bare().local_store(&store).start();
        let url = field(&narinfo(&server, &victim).expect(200).text(), "URL").unwrap();
        change(&victim.as_path().join("file-1"), &vec![b'!'; size]);
        let answer = server.connect().try_request("GET", &format!("/{url}"), &[]);
        // Another size can be seen before the first byte; other bytes only after the last one.
        let refused = answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500);
        assert!(refused, "changed to be {what}: the NAR ended as if it were right");
        wait_until("the mismatch to be counted", PATIENCE, || {
            server.metric("snowbank_nar_hash_mismatches_total", "") >= 1.0
        });
        assert_eq!(
            server.metric("snowbank_bakes_total", "result=\"ok\""),
            0.0,
            "a changed path was baked"
        );
        let baked = server.data().join("baked/nar");
        let left = fs::read_dir(&baked).map_or(0, |entries| {
            entries.filter(|entry| !is_hidden(entry.as_ref().unwrap())).count()
        });
        assert_eq!(left, 0, "changed to be {what}: something lies in {baked:?}");
        let client = Client::new(Version::Current, &store);
        client.copy_from(&server.url(), &server.key(), &[&victim]).expect_failure();
    }
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

#[test]
fn a_store_path_whose_files_are_gone_is_never_a_short_success() {
    let (store, victim, _own) = changeable();
    let server = Setup::bare().local_store(&store).start();
    let url = field(&narinfo(&server, &victim).expect(200).text(), "URL").unwrap();
    fs::set_permissions(victim.as_path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(victim.as_path().join("z-last")).unwrap();
    let answer = server.connect().try_request("GET", &format!("/{url}"), &[]);
    let status = answer.map(|answer| answer.status);
    let refused = status.as_ref().is_err() || status.as_ref().is_ok_and(|&status| status >= 400);
    assert!(refused, "a file was missing and nobody said so: {status:?}");
    fs::remove_dir_all(victim.as_path()).unwrap();
    let answer = server.connect().try_request("GET", &format!("/{url}"), &[]);
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 400));
}

#[test]
fn a_locked_database_is_waited_for_shortly_and_never_said_to_be_empty() {
    let (store, victim, _own) = changeable();
    // Locked before the server comes: WAL lets readers in beside a writer, but not beside one that has it all.
    let database = Database::open(store.database()).unwrap();
    database.pragma_update(None, "locking_mode", "exclusive").unwrap();
    database
        .execute_batch(
            "begin exclusive; update ValidPaths set registrationTime = registrationTime + 1",
        )
        .unwrap();
    let server = match Setup::bare().local_store(&store).try_start(Stdio::null(), 1) {
        Ok(server) => server,
        Err((status, said)) => {
            panic!("a database that is locked now kept the server from starting: {status}\n{said}")
        }
    };
    for url in [format!("/{}.narinfo", victim.hash()), format!("/{}.narinfo", "0".repeat(32))] {
        let mut connection = server.connect();
        // Nix gives up on a silent server after five seconds or more.
        connection.patience(Duration::from_secs(10));
        connection.request("GET", &url, &[]).expect(503).must("retry-after");
    }
    assert_eq!(server.get("/health").status, 503);
    drop(database);
    wait_until("the path to be back", PATIENCE, || narinfo(&server, &victim).status == 200);
}

#[test]
fn writers_do_not_keep_readers_out() {
    let (store, victim, _own) = changeable();
    let server = Setup::bare().local_store(&store).start();
    let database = Database::open(store.database()).unwrap();
    database
        .execute_batch(
            "begin immediate; update ValidPaths set registrationTime = registrationTime + 1",
        )
        .unwrap();
    narinfo(&server, &victim).expect(200);
    database.execute_batch("rollback").unwrap();
}

#[test]
fn a_database_that_is_missing_or_of_no_schema_we_know_is_503_and_health_says_so() {
    for what in ["garbage", "another schema", "truncated", "missing"] {
        let (store, victim, _own) = changeable();
        let server = Setup::bare().local_store(&store).start();
        narinfo(&server, &victim).expect(200);
        drop(server);
        let file = store.database();
        for side in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{side}", file.display()));
        }
        match what {
            "missing" => fs::remove_file(&file).unwrap(),
            "garbage" => {
                fs::write(&file, b"this is no database at all, whatever its name says").unwrap()
            }
            "truncated" => fs::write(&file, &fs::read(&file).unwrap()[..5000]).unwrap(),
            _ => {
                fs::remove_file(&file).unwrap();
                Database::open(&file).unwrap().execute_batch("create table Other (x)").unwrap();
            }
        }
        // A server may refuse to start on this, with a message; one that starts must not say 404.
        let server = match Setup::bare().local_store(&store).try_start(Stdio::null(), 1) {
            Ok(server) => server,
            Err((status, said)) => {
                assert!(
                    !status.success() && said.to_lowercase().contains("database"),
                    "{what}: {said}"
                );
                assert!(!said.contains("panicked"), "{what}: {said}");
                continue;
            }
        };
        let answer = narinfo(&server, &victim);
        assert_eq!(answer.status, 503, "with a database that is {what}");
        answer.must("retry-after");
        // Which source it is; the path of the file is for the log.
        let health = server.get("/health").expect(503).text();
        assert!(health.contains("store"), "{what}: {health}");
        assert!(server.log().contains("database"), "{what}: {}", server.log());
    }
}

#[test]
fn a_database_that_goes_away_while_we_serve_is_503_and_comes_back() {
    let (store, victim, _own) = changeable();
    let server = Setup::bare().local_store(&store).start();
    narinfo(&server, &victim).expect(200);
    let aside = store.database().with_file_name("aside.sqlite");
    let directory = store.database().parent().unwrap().to_path_buf();
    let moved = directory.with_file_name("db-aside");
    fs::rename(&directory, &moved).unwrap();
    let never_asked = "11111111111111111111111111111111";
    wait_until("health to notice", PATIENCE, || server.get("/health").status == 503);
    let answer = server.get(&format!("/{never_asked}.narinfo")).expect(503);
    answer.must("retry-after");
    assert_ne!(narinfo(&server, &victim).status, 404);
    fs::rename(&moved, &directory).unwrap();
    let _ = fs::remove_file(aside);
    wait_until("the path to be back", PATIENCE, || narinfo(&server, &victim).status == 200);
    wait_until("health to recover", PATIENCE, || server.get("/health").status == 200);
}

#[test]
fn a_data_directory_that_is_not_there_any_more_is_503_and_never_404() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    narinfo(&server, path("refs")).expect(200);
    let aside = directory.data.with_file_name("aside");
    fs::rename(&directory.data, &aside).unwrap();
    wait_until("health to notice", PATIENCE, || server.get("/health").status == 503);
    assert!(!server.get("/health").text().is_empty(), "health says what is wrong");
    for url in [
        format!("/{}.narinfo", path("top").hash()),
        "/22222222222222222222222222222222.narinfo".to_owned(),
        format!("/nar/{}.nar", fixtures().nar_hash(path("top"))),
    ] {
        let answer = server.get(&url).expect(503);
        answer.must("retry-after").parse::<u32>().expect("Retry-After in seconds");
    }
    fs::rename(&aside, &directory.data).unwrap();
    wait_until("the path to be back", PATIENCE, || narinfo(&server, path("top")).status == 200);
}

#[test]
fn a_narinfo_that_does_not_parse_is_skipped_with_one_line_and_others_are_served() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let good = fs::read_to_string(directory.narinfo(path("refs"))).unwrap();
    let mut broken: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("binary".into(), (0..=255).collect()),
        ("no end".into(), good.trim_end().as_bytes().to_vec()),
        ("no size".into(), good.replace("NarSize: ", "Size: ").into_bytes()),
        ("a size of nothing".into(), replaced(&good, "NarSize", "0")),
        ("a negative size".into(), replaced(&good, "NarSize", "-1")),
        ("a huge size".into(), replaced(&good, "NarSize", "99999999999999999999")),
        ("a hash that is none".into(), replaced(&good, "NarHash", "sha256:xyz")),
        ("another path's".into(), fs::read(directory.narinfo(path("leaf"))).unwrap()),
        ("a URL that leads out".into(), replaced(&good, "URL", "../../../../etc/passwd")),
        ("an absolute URL".into(), replaced(&good, "URL", "/etc/passwd")),
        ("a reference that is a path".into(), replaced(&good, "References", "../x")),
        ("two of one".into(), format!("{good}{}\n", good.lines().next().unwrap()).into_bytes()),
        ("a line of a megabyte".into(), format!("{good}X: {}\n", "x".repeat(1 << 20)).into_bytes()),
    ];
    // Each under a name of its own, except the file's own store path stays that of `refs`.
    for (index, (what, bytes)) in broken.iter_mut().enumerate() {
        let hash = format!("{:0>32}", index);
        if what != "another path's" {
            *bytes = String::from_utf8(bytes.clone()).map_or(bytes.clone(), |text| {
                text.replace(&format!("/{}", path("refs").hash()), &format!("/{hash}")).into_bytes()
            });
        }
        fs::write(directory.bank().join(format!("{hash}.narinfo")), bytes).unwrap();
    }
    let mut server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for (index, (what, _)) in broken.iter().enumerate() {
        let hash = format!("{index:0>32}");
        let answer = server.get(&format!("/{hash}.narinfo"));
        // A URL is ours to write, and an unknown line may be dropped; nothing of it may come through.
        if answer.status == 200 {
            let text = answer.text();
            assert!(
                what.contains("URL") || what.contains("megabyte"),
                "{what} is served:\n{text:.600}"
            );
            assert!(!text.contains("passwd") && text.len() < 65_536, "{what} comes through");
        } else {
            assert_eq!(answer.status, 404, "{what}");
        }
    }
    narinfo(&server, path("refs")).expect(200);
    server.assert_alive();
    let lines = server.log().lines().filter(|line| line.contains(&format!("{:0>32}", 1))).count();
    assert!(lines >= 1, "the log says which narinfo is broken");
    assert!(lines <= 2, "and says it once, not {lines} times");
}

fn replaced(narinfo: &str, name: &str, value: &str) -> Vec<u8> {
    let lines = narinfo.lines().map(|line| {
        if line.starts_with(&format!("{name}: ")) {
            format!("{name}: {value}\n")
        } else {
            format!("{line}\n")
        }
    });
    lines.collect::<String>().into_bytes()
}

#[test]
fn a_narinfo_that_arrives_by_other_ways_is_found_and_a_replaced_one_is_noticed_on_restart() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let hidden = directory.narinfo(path("leaf"));
    let text = fs::read(&hidden).unwrap();
    fs::remove_file(&hidden).unwrap();
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    narinfo(&server, path("leaf")).expect(404);
    server.stop();
    fs::write(&hidden, text).unwrap();
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    narinfo(&server, path("leaf")).expect(200);
    // And gone again, while nobody looked.
    server.stop();
    fs::remove_file(&hidden).unwrap();
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    narinfo(&server, path("leaf")).expect(404);
}

#[test]
fn a_blob_of_the_wrong_size_or_kind_is_404_before_any_header() {
    for what in ["truncated", "zero length", "longer", "a directory", "a link", "gone"] {
        let directory = data_directory(&fixtures().bank("zstd"));
        let nar = directory.nar(path("refs"));
        let bytes = fs::read(&nar).unwrap();
        match what {
            "truncated" => replace(&nar, &bytes[..bytes.len() / 2]),
            "zero length" => replace(&nar, b""),
            "longer" => replace(&nar, &[bytes.as_slice(), b"more"].concat()),
            "a directory" => {
                fs::remove_file(&nar).unwrap();
                fs::create_dir(&nar).unwrap();
            }
            "a link" => {
                fs::remove_file(&nar).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", &nar).unwrap();
            }
            _ => fs::remove_file(&nar).unwrap(),
        }
        let mut server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
        let name = nar.file_name().unwrap().to_str().unwrap().to_owned();
        for url in
            [format!("/nar/{name}"), format!("/nar/{}.nar", fixtures().nar_hash(path("refs")))]
        {
            let answer = server.connect().try_request("GET", &url, &[]);
            let status = answer.map(|answer| answer.status);
            // A file that is longer than it says has all its bytes: only its hash can tell, and the client's does.
            let tolerable = what == "longer" && matches!(status, Ok(200) | Err(_));
            assert!(
                tolerable || status.as_ref().is_ok_and(|&status| status == 404),
                "{what}, {url}: {status:?}"
            );
        }
        narinfo(&server, path("leaf")).expect(200);
        server.assert_alive();
    }
}

#[test]
fn a_flipped_bit_in_a_blob_never_reaches_a_client_as_a_path() {
    let directory = data_directory(&fixtures().bank("none"));
    let nar = directory.nar(path("refs"));
    let mut bytes = fs::read(&nar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(&nar, &bytes);
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        client.copy_from(&server.url(), &server.key(), &[path("refs")]).expect_failure();
        // Nix may leave the files lying there, but it never says that the path is valid.
        let root = client.root();
        let words = ["--store", root.to_str().unwrap(), "--check-validity", path("refs").as_str()];
        client.try_run("nix-store", &words).expect_failure();
    }
}
