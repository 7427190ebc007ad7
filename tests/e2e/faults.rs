//! Faults of the disk and of the process: reads that fail in the middle, a large bank, paths that are collected while
//! they are sent, and the end of the server. The letters are those of the reliability matrix.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    bank::{data_directory, replace},
    fixtures::{fixtures, path},
    http::{Connection, field},
    nix::{Store, tempdir},
    server::{Server, Setup},
    trees, wait_until,
};

/// A request whose answer has begun and of which only the head has been read.
fn begun(server: &Server, url: &str) -> (Connection, usize) {
    let mut connection = server.connect();
    connection.send_request("GET", url, &[]).unwrap();
    let head = connection.head().unwrap().expect(200);
    let length = head.must("content-length").parse().unwrap();
    (connection, length)
}

#[test]
fn r12_a_blob_that_ends_while_it_is_sent_aborts_the_connection() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let nar = directory.nar(path("big"));
    // Our own copy: this one is cut in place, under the server's open file.
    let bytes = fs::read(&nar).unwrap();
    replace(&nar, &bytes);
    let mut server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
    let (mut connection, length) = begun(&server, &format!("/{}", field(&narinfo, "URL").unwrap()));
    fs::OpenOptions::new().write(true).open(&nar).unwrap().set_len(1 << 20).unwrap();
    assert!(
        connection.exactly(length).is_err(),
        "a file that ended early was sent as if it were whole"
    );
    wait_until("the aborted transfer to be counted", PATIENCE, || {
        server.metric("snowbank_aborted_transfers_total", "") >= 1.0
    });
    server.assert_alive();
    server.get(&format!("/{}.narinfo", path("leaf").hash())).expect(200);
}

#[test]
fn r12_a_store_file_that_ends_while_it_is_sent_aborts_the_connection() {
    let store = Store::fresh();
    let own = tempdir();
    trees::big(&own.path().join("victim"), 100);
    let victim = store.add(&own.path().join("victim"));
    let mut server = Setup::bare().local_store(&store).start();
    let (mut connection, length) =
        begun(&server, &format!("/nar/{}.nar", nar_hash(&store, &victim)));
    fs::OpenOptions::new()
        .write(true)
        .open(victim.as_path().join("big"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    assert!(
        connection.exactly(length).is_err(),
        "a file that ended early was sent as if it were whole"
    );
    server.assert_alive();
    server.get("/nix-cache-info").expect(200);
}

fn nar_hash(store: &Store, path: &crate::support::nix::StorePath) -> String {
    let hash = store.run("nix-store", &["--query", "--hash", path.as_str()]);
    hash.trim().strip_prefix("sha256:").unwrap().to_owned()
}

#[test]
fn r15_a_bank_of_a_hundred_thousand_paths_is_ready_soon_and_complete() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let text = fs::read_to_string(directory.narinfo(path("leaf"))).unwrap();
    let hash = |index: usize| format!("{index:0>32}");
    for index in 0..100_000 {
        let other = text.replace(path("leaf").hash(), &hash(index));
        fs::write(directory.bank().join(format!("{}.narinfo", hash(index))), other).unwrap();
    }
    // The first start reads them all, the second may remember; both have to be ready within patience.
    for _ in 0..2 {
        let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
        let mut connection = server.connect();
        for index in (0..100_000).step_by(997).chain([99_999]) {
            let url = format!("/{}.narinfo", hash(index));
            wait_until(&format!("{url} to be found"), PATIENCE, || {
                connection.request("GET", &url, &[]).status == 200
            });
        }
        connection.request("GET", &format!("/{}.narinfo", hash(100_000)), &[]).expect(404);
        assert!(server.resident() < 256 * 1024, "100,000 paths take {} KiB", server.resident());
        server.stop();
    }
}

#[test]
fn r15_requests_are_never_answered_404_while_a_bank_is_still_being_read() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let text = fs::read_to_string(directory.narinfo(path("leaf"))).unwrap();
    for index in 0..20_000 {
        let hash = format!("{index:0>32}");
        fs::write(
            directory.bank().join(format!("{hash}.narinfo")),
            text.replace(path("leaf").hash(), &hash),
        )
        .unwrap();
    }
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let mut connection = server.connect();
    for index in (0..20_000).rev().step_by(501) {
        let status = connection.request("GET", &format!("/{index:0>32}.narinfo"), &[]).status;
        assert!(matches!(status, 200 | 503), "a path that is there was answered {status}");
    }
}

#[test]
fn r18_a_path_collected_while_it_is_sent_is_whole_or_an_error() {
    let store = Store::fresh();
    let own = tempdir();
    trees::small_files(&own.path().join("victim"), 100);
    trees::big(&own.path().join("victim/zz"), 50);
    let victim = store.add(&own.path().join("victim"));
    let expected =
        crate::support::nix::run(store.program("nix-store").args(["--dump", victim.as_str()]), 60);
    let server = Setup::bare().local_store(&store).start();
    let (mut connection, length) =
        begun(&server, &format!("/nar/{}.nar", nar_hash(&store, &victim)));
    let mut body = connection.exactly(100_000).unwrap();
    // Nix sees that the server has the path open and spares it; a careless administrator does not.
    store.run("nix-store", &["--delete", "--ignore-liveness", victim.as_str()]);
    if let Ok(rest) = connection.exactly(length - body.len()) {
        body.extend(rest);
        assert!(body == expected.stdout, "a collected path was sent whole, with other bytes");
    }
    server.get(&format!("/{}.narinfo", victim.hash())).expect(404);
}

#[test]
fn r23_sigterm_finishes_fifty_downloads_and_ends_with_zero() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let mut server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
    let url = format!("/{}", field(&narinfo, "URL").unwrap());
    let expected = fs::read(directory.nar(path("big"))).unwrap();
    let downloads: Vec<(Connection, usize)> = (0..50).map(|_| begun(&server, &url)).collect();
    server.signal(Signal::TERM);
    // Nobody new is let in any more.
    wait_until("the server to stop accepting", PATIENCE, || {
        std::net::TcpStream::connect(server.address()).is_err()
    });
    thread::scope(|scope| {
        for (mut connection, length) in downloads {
            let expected = &expected;
            scope.spawn(move || {
                let mut at = 0;
                while at < length {
                    let part = connection
                        .exactly((length - at).min(1 << 20))
                        .expect("the download goes on to its end");
                    assert!(part == expected[at..at + part.len()], "other bytes at {at}");
                    at += part.len();
                }
            });
        }
    });
    let status = server.wait(PATIENCE);
    assert!(status.success(), "ended with {status}");
}

#[test]
fn r23_a_second_signal_ends_at_once() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let mut server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
    let _held = begun(&server, &format!("/{}", field(&narinfo, "URL").unwrap()));
    server.signal(Signal::TERM);
    wait_until("the server to stop accepting", PATIENCE, || {
        std::net::TcpStream::connect(server.address()).is_err()
    });
    server.assert_alive();
    server.signal(Signal::TERM);
    server.wait(Duration::from_secs(5));
}

#[test]
fn a_killed_server_leaves_nothing_half_baked_behind() {
    let own = tempdir();
    let data = own.path().join("data");
    let server = Setup::on(&data).local_store(&fixtures().store).start();
    let url = format!("/nar/{}.nar", fixtures().nar_hash(path("big")));
    let (mut connection, _) = begun(&server, &url);
    connection.exactly(50 << 20).unwrap();
    server.kill();
    let server = Setup::on(&data).local_store(&fixtures().store).start();
    let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
    assert_eq!(field(&narinfo, "Compression").as_deref(), Some("none"), "half a bake is no bake");
    let whole = server.get(&url).expect(200);
    assert!(whole.body == fixtures().dump(path("big")));
    let left = walk(&data.join("baked"))
        .into_iter()
        .filter(|name| name.contains("tmp") || name.contains("temp"));
    wait_until("the path to be baked", PATIENCE, || {
        let narinfo = server.get(&format!("/{}.narinfo", path("big").hash())).expect(200).text();
        field(&narinfo, "Compression").as_deref() == Some("zstd")
    });
    // What the killed server was writing has been cleared away.
    assert!(left.count() <= 1, "the temporary file of the killed server is still there");
}

fn walk(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .map(|entries| entries.flatten().collect::<Vec<_>>())
        .unwrap_or_default();
    entries
        .into_iter()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path()),
            _ => vec![entry.file_name().to_string_lossy().into_owned()],
        })
        .collect()
}
