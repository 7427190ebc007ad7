//! Views: a cache as it was at a snapshot of its bank, under `@<snapshot>/`. The snapshots are directories where ZFS
//! would show them; those of a real pool are in `tests/zfs`.

use std::{fs, path::Path, sync::Barrier, thread, time::Duration};

use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    bank::{DataDirectory, data_directory},
    command,
    fixtures::{LOG, ORDINARY, fixtures, path},
    http::{Response, field},
    nix::{Client, StorePath, Version, run},
    server::{Server, Setup},
    snapshots::{self, destroy, take},
    trees, wait_until,
};

const REALISATION: &str = r#"{"dependentRealisations":{},"signatures":[],"id":"#;

/// A bank with every object there is, a snapshot `before` of it, and nothing of it afterwards but `leaf`.
fn emptied() -> DataDirectory {
    let directory = data_directory(&fixtures().bank("zstd"));
    let bank = directory.bank();
    let out = path("refs").base_name();
    let realisation = format!("{REALISATION}\"sha256:{}!out\",\"outPath\":\"{out}\"}}", digits());
    trees::write(&bank.join(format!("realisations/{}", doi())), realisation.as_bytes());
    trees::write(&bank.join(format!("log/{}", derivation())), LOG.as_bytes());
    trees::write(&bank.join("debuginfo/abcd.debug"), br#"{"archive":"../nar/x","member":"m"}"#);
    trees::write(&bank.join("tmp/secret"), b"unfinished");
    trees::write(&bank.join("pending/secret.narinfo"), b"waiting");
    take(&bank, "before");
    for entry in fs::read_dir(&bank).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(path("leaf").hash()) || [".zfs", "nix-cache-info"].contains(&&*name) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            // The NAR of `leaf` goes as well: what a view has is not what the bank has.
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    directory
}

fn digits() -> String {
    "ab".repeat(32)
}

fn doi() -> String {
    format!("sha256:{}!out.doi", digits())
}

fn derivation() -> String {
    format!("{}-refs-1.0.drv", "a".repeat(32))
}

fn start(directory: &DataDirectory) -> Server {
    Setup::on(&directory.data).bank_only(&fixtures().store).start()
}

fn narinfo(server: &Server, view: &str, path: &StorePath) -> Response {
    server.get(&format!("{view}/{}.narinfo", path.hash()))
}

/// Where the view of a snapshot answers.
fn of(snapshot: &str) -> [String; 2] {
    [format!("/@{snapshot}"), format!("/c/default/@{snapshot}")]
}

#[test]
fn a_view_serves_everything_as_it_was() {
    let directory = emptied();
    let server = start(&directory);
    let refs = path("refs");
    narinfo(&server, "", refs).expect(404);
    let hash = fixtures().nar_hash(refs);
    for view in of("before") {
        let text = server.get(&format!("{view}/nix-cache-info")).expect(200).text();
        let store_dir = fixtures().store.directory().display().to_string();
        assert_eq!(field(&text, "StoreDir"), Some(store_dir));
        let text = narinfo(&server, &view, refs).expect(200).text();
        let name = server.key().split_once(':').unwrap().0.to_owned();
        assert!(field(&text, "Sig").unwrap().starts_with(&format!("{name}:")), "{text}");
        let json = server.get(&format!("{view}/{}.narinfo?json", refs.hash())).expect(200).json();
        assert_eq!(json["path"], refs.as_str());
        // The NAR, as it lies and under every name that a client may remember.
        let url = field(&text, "URL").unwrap();
        let file = fs::read(snapshots::directory(&directory.bank(), "before").join(&url)).unwrap();
        assert!(server.get(&format!("{view}/{url}")).expect(200).body == file);
        let (digits, dump) = (refs.hash(), fixtures().dump(refs));
        for name in [
            format!("{hash}.nar"),
            format!("{hash}.nar?hash={digits}"),
            format!("{digits}-{hash}.nar"),
            format!("{digits}.nar"),
        ] {
            let answer = server.get(&format!("{view}/nar/{name}")).expect(200);
            assert!(answer.body == dump, "{view}/nar/{name}");
        }
        let listing = server.get(&format!("{view}/{}.ls", refs.hash())).expect(200).json();
        assert!(listing["root"]["entries"]["bin"]["entries"]["hello"].is_object(), "{listing}");
        let file = server.get(&format!("{view}/serve/{}/bin/hello", refs.hash())).expect(200);
        assert_eq!(file.text(), "echo hello\n");
        let names = server.get(&format!("{view}/serve/{}", refs.hash()));
        assert_eq!(names.header("location"), Some(&*format!("{view}/serve/{}/", refs.hash())));
        let link = server.get(&format!("{view}/serve/{}/link", refs.hash()));
        let target = link.must("location");
        assert!(target.starts_with(&format!("{view}/serve/{}", path("leaf").hash())), "{target}");
        assert_eq!(server.get(&format!("{view}/log/{}", derivation())).expect(200).text(), LOG);
        let found = server.get(&format!("{view}/realisations/{}", doi())).expect(200).json();
        assert_eq!(found["outPath"], refs.base_name());
        assert!(!found["signatures"].as_array().unwrap().is_empty(), "{found}");
        server.get(&format!("{view}/debuginfo/abcd.debug")).expect(200);
        for url in ["/log/", "/tmp/secret", "/pending/secret.narinfo", "/@before/nix-cache-info"] {
            server.get(&format!("{view}{url}")).expect(404);
        }
    }
}

#[test]
fn the_page_of_a_view_shows_the_configuration_for_that_view() {
    let directory = emptied();
    let server = start(&directory);
    for url in ["/@before", "/@before/", "/%40before/", "/c/default/@before/"] {
        let page = server.get(url).expect(200).text();
        assert!(page.contains("http://cache.test/@before\n"), "{url}: {page}");
        assert!(page.contains(&server.key()), "{url}");
    }
}

#[test]
fn both_versions_of_nix_substitute_from_a_view() {
    let directory = emptied();
    let (bank, name) = (directory.bank(), "auto_2026-11-24_12:00.1");
    fs::rename(snapshots::directory(&bank, "before"), snapshots::directory(&bank, name)).unwrap();
    let server = start(&directory);
    let paths: Vec<_> = ORDINARY.iter().map(|name| path(name)).collect();
    for version in Version::BOTH {
        let escaped = name.replace(':', "%3A");
        for view in of(name).into_iter().chain(of(&escaped)) {
            let client = Client::new(version, &fixtures().store);
            let url = format!("{}{view}", server.url());
            client.copy_from(&url, &server.key(), &paths).expect_success();
            for path in &paths {
                assert!(client.dump(path) == fixtures().dump(path), "{path:?} from {view}");
            }
        }
        // And the live cache has none of it.
        let client = Client::new(version, &fixtures().store);
        client.realise(&server.url(), &server.key(), &[path("top")]).expect_failure();
        let url = format!("{}/@{name}", server.url());
        client.realise(&url, &server.key(), &[path("top")]).expect_success();
    }
}

#[test]
fn nobody_writes_to_a_view() {
    let directory = data_directory(&fixtures().bank("zstd"));
    take(&directory.bank(), "before");
    let server = Setup::on(&directory.data)
        .bank_only(&fixtures().store)
        .environment("SNOWBANK_PUSH", "open")
        .start();
    for view in of("before").into_iter().chain(of("absent")) {
        for (method, url) in [
            ("PUT", format!("{}.narinfo", path("leaf").hash())),
            ("PUT", format!("nar/{}.nar", fixtures().nar_hash(path("leaf")))),
            ("PUT", format!("log/{}", derivation())),
            ("DELETE", format!("{}.narinfo", path("leaf").hash())),
            ("POST", "_snowbank/v1/missing".into()),
            ("GET", "_snowbank/v1/uploads/00".into()),
        ] {
            let answer = server.connect().request(
                method,
                &format!("{view}/{url}"),
                &[("Content-Length", "0")],
            );
            let answer = answer.expect(405);
            assert_eq!(answer.must("allow"), "GET, HEAD");
            let line = answer.text();
            assert!(line.contains("read-only") && line.lines().count() == 1, "{line}");
        }
    }
    assert!(server.metric("snowbank_denied_requests_total", "read-only") >= 6.0);
}

#[test]
fn a_view_is_read_by_those_who_may_read_its_cache() {
    let directory = data_directory(&fixtures().bank("zstd"));
    take(&directory.bank(), "before");
    let config = directory.data.with_file_name("snowbank.toml");
    fs::write(&config, "[cache.default]\npull = 'token'\n").unwrap();
    let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
    order.args(["token", "create", "--cache", "default", "--scope", "pull", "--expires", "1d"]);
    order.arg("--config").arg(&config).arg("--data-dir").arg(&directory.data);
    let token = run(&mut order, 30).expect_success().text();
    let server = Setup::on(&directory.data)
        .bank_only(&fixtures().store)
        .argument("--config")
        .argument(&config)
        .start();
    let urls = |view: &str| {
        [
            format!("/@{view}/nix-cache-info"),
            format!("/@{view}/{}.narinfo", path("leaf").hash()),
            format!("/c/default/@{view}/"),
        ]
    };
    for url in urls("before").iter().chain(&urls("absent")) {
        // A stranger cannot even tell which snapshots there are.
        server.get(url).expect(401).must("www-authenticate");
    }
    let shown = format!("Bearer {}", token.trim());
    let ask = |url: &str| server.connect().request("GET", url, &[("Authorization", &shown)]);
    for url in urls("before") {
        let answer = ask(&url).expect(200);
        let keep = answer.must("cache-control");
        assert!(keep.starts_with("private") || keep == "no-store", "{url}: {keep}");
    }
    for url in urls("absent") {
        ask(&url).expect(404);
    }
}

#[test]
fn a_snapshot_that_does_not_exist_is_404_and_a_bank_that_is_away_is_503() {
    let directory = emptied();
    let server = start(&directory);
    for view in of("absent").into_iter().chain(of("-x")).chain(of("..")).chain(of("a%2fb")) {
        for url in ["nix-cache-info".to_owned(), format!("{}.narinfo", path("leaf").hash())] {
            server.get(&format!("{view}/{url}")).expect(404);
        }
    }
    server.get("/c/absent/@before/nix-cache-info").expect(404);
    narinfo(&server, "/@before", path("refs")).expect(200);
    let aside = directory.data.join("aside");
    fs::rename(directory.bank(), &aside).unwrap();
    fs::create_dir(directory.bank()).unwrap();
    for view in of("before").into_iter().chain(of("absent")) {
        wait_until("the bank to be missed", PATIENCE, || {
            let answer = narinfo(&server, &view, path("refs"));
            assert_ne!(answer.status, 404, "{view} while the bank is away");
            answer.status == 503
        });
        server.get(&format!("{view}/nix-cache-info")).expect(503).must("retry-after");
    }
    fs::remove_dir(directory.bank()).unwrap();
    fs::rename(&aside, directory.bank()).unwrap();
    narinfo(&server, "/@before", path("refs")).expect(200);
}

#[test]
fn a_snapshot_that_is_destroyed_is_404_soon_and_another_of_its_name_is_another() {
    let directory = emptied();
    let bank = directory.bank();
    let server = start(&directory);
    let url = format!("/@before/{}.narinfo", path("refs").hash());
    let cache_info = "/@before/nix-cache-info";
    server.get(&url).expect(200);
    destroy(&bank, "before");
    for url in [&url, cache_info] {
        wait_until("the view to be gone", Duration::from_secs(5), || server.get(url).status == 404);
        server.get(url).expect(404);
    }
    take(&bank, "before");
    server.get(cache_info).expect(200);
    server.get(&url).expect(404);
    narinfo(&server, "/@before", path("leaf")).expect(404);
}

/// Whether the process has anything open, or works anywhere, below `directory`.
fn holds(server: &Server, directory: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.into_iter().any(|target| target.starts_with(directory))
}

#[test]
fn a_view_holds_nothing_open() {
    let directory = emptied();
    let server = start(&directory);
    let snapshot = snapshots::directory(&directory.bank(), "before");
    let text = narinfo(&server, "/@before", path("refs")).expect(200).text();
    let url = format!("/@before/{}", field(&text, "URL").unwrap());
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.request("GET", &url, &[]).expect(200);
    }
    // The connection is open still; what was read for it is not.
    wait_until("everything in the snapshot to be closed", Duration::from_millis(900), || {
        !holds(&server, &snapshot)
    });
}

#[test]
fn many_views_and_many_who_ask_at_once_are_answered_and_few_stay_open() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let names: Vec<String> = (0..20).map(|number| format!("hourly-{number}")).collect();
    for name in &names {
        take(&directory.bank(), name);
    }
    let server = start(&directory);
    let start = Barrier::new(names.len() * 2);
    thread::scope(|scope| {
        for name in names.iter().chain(&names) {
            let (server, start) = (&server, &start);
            scope.spawn(move || {
                start.wait();
                for view in of(name) {
                    narinfo(server, &view, path("top")).expect(200);
                    narinfo(server, &view, path("refs")).expect(200);
                }
            });
        }
    });
    let open = server.metric("snowbank_views_open", "");
    assert!((1.0..=8.0).contains(&open), "{open} views are open");
    assert!(server.metric("snowbank_view_requests_total", "") >= 160.0);
    // Of the snapshots nothing is told one by one, and of the live bank nothing else than before.
    let text = server.get("/metrics").expect(200).text();
    assert!(!text.contains("hourly"), "a snapshot has a series of its own");
    assert_eq!(server.metric("snowbank_source_up", ""), 1.0);
    let bank = directory.bank();
    let paths = fs::read_dir(&bank)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "narinfo"));
    assert_eq!(server.metric("snowbank_source_paths", "bank"), paths.count() as f64);
}

#[test]
fn a_view_is_signed_with_the_keys_of_today() {
    let directory = emptied();
    let file = directory.data.with_file_name("key");
    let config = directory.data.with_file_name("snowbank.toml");
    fs::write(&config, format!("cache.default.signing_keys = ['{}']\n", file.display())).unwrap();
    let generate = |name: &str| {
        let _ = fs::remove_file(&file);
        let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
        run(order.args(["key", "generate", name, "--out"]).arg(&file), 30).expect_success();
    };
    generate("first-1");
    let server = Setup::on(&directory.data)
        .bank_only(&fixtures().store)
        .argument("--config")
        .argument(&config)
        .start();
    let signature = || {
        let text = narinfo(&server, "/@before", path("refs")).expect(200).text();
        field(&text, "Sig").unwrap()
    };
    assert!(signature().starts_with("first-1:"));
    generate("second-1");
    server.signal(Signal::HUP);
    wait_until("the new key to sign", PATIENCE, || signature().starts_with("second-1:"));
}
