//! Many who push at once, and some who stop in the middle. The letters are those of the reliability matrix.

use std::{
    fs,
    io::Write as _,
    net::{Shutdown, TcpStream},
    path::Path,
    sync::{Barrier, Mutex},
    thread,
    time::Duration,
};

use snowbank::nix::hash::Sha256;

use crate::support::{
    PATIENCE,
    http::field,
    nix::tempdir,
    push::{Made, STORE, Sent, Snapshot, assert_nothing_waits, assert_refused, compress, scripted},
    server::{Server, Setup},
    trees::Numbers,
    wait_until,
};

fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Runs it on so many threads, which all begin together.
fn at_once(count: usize, work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        for index in 0..count {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(index);
            });
        }
    });
}

#[test]
fn push_r5_32_clients_push_one_path_at_once_and_all_succeed_with_one_file() {
    let server = scripted("");
    let content = Numbers::from(5).bytes(300_000);
    let made = Made::file("one", &content);
    at_once(32, |index| {
        let sent = made.sent(["zstd", "xz", "none", "gzip"][index % 4]);
        let mut connection = server.connect();
        connection.put(&sent.url, &sent.bytes).expect(201);
        let answer = connection.put(&made.url(), made.narinfo(&sent).as_bytes());
        assert!([200, 201].contains(&answer.status), "{}: {}", answer.status, answer.text());
    });
    made.assert_served(&server);
    assert_eq!(entries(&server.bank().join("nar")).len(), 1);
    assert_nothing_waits(&server);
    let once = server.get(&made.url()).expect(200).text();
    for _ in 0..8 {
        assert_eq!(server.get(&made.url()).expect(200).text(), once, "one signature text");
    }
}

#[test]
fn push_of_32_paths_with_one_content_at_once_shares_one_file() {
    let server = scripted("");
    let content = Numbers::from(32).bytes(50_000);
    let paths: Vec<Made> = (0..32).map(|n| Made::file(&format!("same-{n}"), &content)).collect();
    let sent = paths[0].sent("zstd");
    at_once(32, |index| {
        let made = &paths[index];
        let mut connection = server.connect();
        connection.put(&sent.url, &sent.bytes).expect(201);
        connection.put(&made.url(), made.narinfo(&sent).as_bytes()).expect(201);
    });
    for made in &paths {
        made.assert_served(&server);
        server.get(&format!("/{}.ls", made.hash())).expect(200);
    }
    assert_eq!(entries(&server.bank().join("nar")).len(), 1);
}

#[test]
fn push_r6_of_another_content_for_a_path_is_a_conflict_that_names_both_and_leaves_nothing() {
    let server = scripted("");
    let (first, second) = (Made::file("build", b"monday\n"), Made::file("build", b"tuesday\n"));
    assert_eq!(first.url(), second.url());
    first.push(&server);
    let before = Snapshot::of(server.data());
    let text = server.get(&first.url()).expect(200).text();
    for compression in ["zstd", "none", "xz"] {
        let sent = second.sent(compression);
        let mut connection = server.connect();
        connection.put(&sent.url, &sent.bytes).expect(201);
        let refused = connection.put(&second.url(), second.narinfo(&sent).as_bytes());
        for hash in [first.info.nar_hash, second.info.nar_hash] {
            assert_refused(&refused, &[409], &hash.to_string());
        }
        before.assert_same(server.data(), "a refused build");
    }
    first.assert_served(&server);
    assert_eq!(server.get(&first.url()).expect(200).text(), text);
    server.get(&second.nar_url()).expect(404);
}

#[test]
fn push_r6_of_two_contents_at_once_takes_one_and_refuses_the_other() {
    let server = scripted("");
    for round in 0..20 {
        let name = format!("build-{round}");
        let contents = [Made::file(&name, b"left\n"), Made::file(&name, b"right\n")];
        let statuses = Mutex::new(Vec::new());
        at_once(2, |index| {
            let made = &contents[index];
            let sent = made.sent("zstd");
            let mut connection = server.connect();
            connection.put(&sent.url, &sent.bytes).expect(201);
            let answer = connection.put(&made.url(), made.narinfo(&sent).as_bytes());
            statuses.lock().unwrap().push((answer.status, index));
        });
        let mut statuses = statuses.into_inner().unwrap();
        statuses.sort_unstable();
        assert_eq!((statuses[0].0, statuses[1].0), (201, 409), "{statuses:?}");
        contents[statuses[0].1].assert_served(&server);
    }
}

#[test]
fn push_r7_of_pairs_with_swapped_urls_never_publishes_bytes_under_another_hash() {
    let server = scripted("");
    const PAIRS: usize = 1000;
    const CLIENTS: usize = 4;
    at_once(CLIENTS, |client| {
        let mut connection = server.connect();
        for pair in (client..PAIRS).step_by(CLIENTS) {
            let made = ["a", "b"].map(|side| {
                Made::file(&format!("{side}-{pair}"), format!("{side} of {pair}\n").as_bytes())
            });
            let sent = made.each_ref().map(|made| made.sent("zstd"));
            // The bytes of one under the name of the other are refused before anything is kept.
            if pair % 4 == 0 {
                let answer = connection.put(&sent[0].url, &sent[1].bytes);
                assert_refused(&answer, &[422], "hashes to");
            }
            for sent in &sent {
                connection.put(&sent.url, &sent.bytes).expect(201);
            }
            // The narinfo of each with the file of the other, as hydra#1804 had it.
            for (made, sent) in [(&made[0], &sent[1]), (&made[1], &sent[0])] {
                let answer = connection.put(&made.url(), made.narinfo(sent).as_bytes());
                assert_refused(&answer, &[422], "NarHash");
                connection.request("GET", &made.url(), &[]).expect(404);
            }
            // And then as it should be: the mistake has cost nothing.
            for (made, sent) in made.iter().zip(&sent) {
                connection.put(&made.url(), made.narinfo(sent).as_bytes()).expect(201);
            }
        }
    });
    let mut checked = 0;
    for name in entries(&server.bank().join("nar")) {
        let bytes = fs::read(server.bank().join("nar").join(&name)).unwrap();
        let nar = zstd::decode_all(&*bytes).unwrap();
        assert_eq!(name, format!("{}.nar.zst", Sha256::of(&nar).to_nix32()));
        checked += 1;
    }
    assert_eq!(checked, 2 * PAIRS);
    for pair in [0, 1, PAIRS - 1] {
        for side in ["a", "b"] {
            let content = format!("{side} of {pair}\n");
            Made::file(&format!("{side}-{pair}"), content.as_bytes()).assert_served(&server);
        }
    }
    assert_nothing_waits(&server);
}

/// Sends a head that promises all of it, then so many bytes, and then goes away.
fn send_and_leave(server: &Server, url: &str, bytes: &[u8], count: usize) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let length = bytes.len();
    let head =
        format!("PUT {url} HTTP/1.1\r\nHost: cache.test\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&bytes[..count]).unwrap();
    stream.flush().unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn push_r8_that_ends_early_leaves_nothing_and_one_that_was_sent_whole_is_taken() {
    let server = scripted("");
    let made = Made::file("aborted", &Numbers::from(8).bytes(8 << 20));
    let before = Snapshot::of(server.data());
    for compression in ["zstd", "none"] {
        let sent = made.sent(compression);
        let whole = sent.bytes.len();
        for count in [0, 1, whole / 2, whole - whole / 1000, whole - 1] {
            send_and_leave(&server, &sent.url, &sent.bytes, count);
            let name = sent.url.trim_start_matches("/nar/");
            wait_until("the temporary file to go", Duration::from_secs(1), || {
                entries(&server.bank().join("tmp")).is_empty()
            });
            assert!(!server.bank().join("pending").join(name).exists());
        }
        before.assert_same(server.data(), "what was not sent whole");
    }
    let sent = made.sent("zstd");
    send_and_leave(&server, &sent.url, &sent.bytes, sent.bytes.len());
    // Nobody hears the answer, and the NAR waits for its narinfo all the same.
    let name = sent.url.trim_start_matches("/nar/");
    wait_until("the NAR that was sent whole", PATIENCE, || {
        server.bank().join("pending").join(name).exists()
    });
    let mut connection = server.connect();
    connection.put(&made.url(), made.narinfo(&sent).as_bytes()).expect(201);
    made.assert_served(&server);
    assert_nothing_waits(&server);
}

#[test]
fn push_r8_of_half_a_narinfo_publishes_nothing_and_the_whole_is_taken_afterwards() {
    let server = scripted("");
    let made = Made::file("half", b"half a narinfo\n");
    let sent = made.sent("zstd");
    server.connect().put(&sent.url, &sent.bytes).expect(201);
    let before = Snapshot::of(server.data());
    let text = made.narinfo(&sent);
    for count in [0, 1, text.len() / 2, text.len() - 1] {
        send_and_leave(&server, &made.url(), text.as_bytes(), count);
    }
    server.get(&made.url()).expect(404);
    before.assert_same(server.data(), "half a narinfo");
    server.connect().put(&made.url(), text.as_bytes()).expect(201);
    made.assert_served(&server);
}

#[test]
fn push_of_a_nar_that_waits_survives_a_restart() {
    let own = tempdir();
    let data = own.path().join("data");
    let start = || Setup::on(&data).pushed_to(Path::new(STORE), "").start();
    let made = Made::file("patient", b"in between, the server is started again\n");
    let sent = Sent::of(compress("xz", &made.nar), "xz");
    let server = start();
    server.connect().put(&sent.url, &sent.bytes).expect(201);
    server.kill();
    let server = start();
    server.connect().put(&made.url(), made.narinfo(&sent).as_bytes()).expect(201);
    made.assert_served(&server);
    let text = server.get(&made.url()).expect(200).text();
    assert_eq!(field(&text, "Compression").as_deref(), Some("zstd"));
    assert_nothing_waits(&server);
}

#[test]
fn push_r5_r8_are_charged_to_the_quota_once_and_what_was_refused_is_given_back_to_the_byte() {
    const SIZE: usize = 1_500_000;
    let server = scripted("max_size = \"4 MiB\"");
    let bytes = |seed: u64| Numbers::from(seed).bytes(SIZE);
    let (first, second, third) = (
        Made::file("first", &bytes(1)),
        Made::file("second", &bytes(2)),
        Made::file("third", &bytes(3)),
    );
    first.push(&server);
    let put = |made: &Made| {
        let sent = made.sent("zstd");
        let mut connection = server.connect();
        connection.put(&sent.url, &sent.bytes).expect(201);
        connection.put(&made.url(), made.narinfo(&sent).as_bytes()).status
    };
    let lost = Made::file("first", &bytes(4));
    for _ in 0..4 {
        assert_eq!(put(&first), 200, "it is there");
        assert_eq!(put(&lost), 409);
        let sent = third.sent("zstd");
        send_and_leave(&server, &sent.url, &sent.bytes, sent.bytes.len() - 1);
        wait_until("the temporary file to go", PATIENCE, || {
            entries(&server.bank().join("tmp")).is_empty()
        });
        let other = server.connect().put(&sent.url, &second.sent("zstd").bytes);
        assert_refused(&other, &[422], "hashes to");
    }
    // All of it together was far more than the quota, and this is the first that could be refused.
    second.push(&server);
    let before = Snapshot::of(server.data());
    let sent = third.sent("zstd");
    let answer = server.connect().put(&sent.url, &sent.bytes);
    assert_refused(&answer, &[507], "space");
    before.assert_same(server.data(), "what has no room");
    for made in [&first, &second] {
        made.assert_served(&server);
    }
    Made::file("small", b"for this there is room\n").push(&server);
}

#[test]
fn push_of_32_paths_at_once_whose_content_is_here_already_needs_no_nar() {
    let server = scripted("");
    let content = Numbers::from(33).bytes(50_000);
    Made::file("first", &content).push(&server);
    for round in 0..4 {
        let paths: Vec<Made> =
            (0..32).map(|n| Made::file(&format!("more-{round}-{n}"), &content)).collect();
        let sent = paths[0].sent("xz");
        at_once(32, |index| {
            let made = &paths[index];
            server.connect().put(&made.url(), made.narinfo(&sent).as_bytes()).expect(201);
        });
        for made in &paths {
            made.assert_served(&server);
            server.get(&format!("/{}.ls", made.hash())).expect(200);
        }
        assert_nothing_waits(&server);
    }
    assert_eq!(entries(&server.bank().join("nar")).len(), 1);
}
