//! Parts: banks that other nodes write, served together with the cache's own as one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    bank::replace,
    fixtures::{ORDINARY, fixtures, path},
    http::{Response, field},
    nix::{Client, Scratch, StorePath, Version, run, tempdir},
    pushed::narinfos,
    server::{Server, Setup},
    wait_until,
};

/// A hash that no fixture has.
const ABSENT: &str = "00000000000000000000000000000000";

/// A node: its data directory, and the directories that it receives from others.
struct Node {
    own: Scratch,
    settings: String,
}

impl Node {
    /// One with `parts` parts, of which none has come.
    fn new(parts: usize) -> Self {
        let own = tempdir();
        let names: Vec<_> = (1..=parts).map(|number| part(own.path(), number)).collect();
        let node = Self { own, settings: format!("[cache.default]\nparts = {names:?}\n") };
        fill(&node.bank(), &[]);
        node
    }

    fn data(&self) -> PathBuf {
        self.own.path().join("data")
    }

    fn bank(&self) -> PathBuf {
        self.data().join("default")
    }

    /// The directory of a part, counted from 1.
    fn part(&self, number: usize) -> PathBuf {
        part(self.own.path(), number)
    }

    fn setup(&self) -> Setup {
        let config = self.own.path().join("snowbank.toml");
        fs::write(&config, &self.settings).unwrap();
        Setup::on(&self.data()).bank_only(&fixtures().store).argument("--config").argument(config)
    }

    fn start(&self) -> Server {
        self.setup().start()
    }
}

fn part(own: &Path, number: usize) -> PathBuf {
    own.join(format!("from-n{number}"))
}

/// Has a bank at `directory` hold these paths and nothing else, as files of its own.
fn fill(directory: &Path, paths: &[&StorePath]) {
    let from = fixtures().bank("zstd");
    fs::create_dir_all(directory.join("nar")).unwrap();
    for path in paths {
        let name = format!("{}.narinfo", path.hash());
        let url = field(&fs::read_to_string(from.join(&name)).unwrap(), "URL").unwrap();
        for name in [url, name] {
            fs::copy(from.join(&name), directory.join(&name)).unwrap();
        }
    }
    fs::copy(from.join("nix-cache-info"), directory.join("nix-cache-info")).unwrap();
}

fn narinfo(server: &Server, path: &StorePath) -> Response {
    server.get(&format!("/{}.narinfo", path.hash()))
}

fn status(server: &Server, source: &str) -> String {
    let health = server.get("/health").json();
    health["caches"]["default"][source]["status"].as_str().unwrap_or("none").to_owned()
}

/// All names below a directory.
fn names(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(names(&path));
        }
        found.push(path);
    }
    found.sort_unstable();
    found
}

#[test]
fn both_versions_of_nix_substitute_from_a_union_of_three_banks() {
    let node = Node::new(2);
    // Every third path is here, and what the paths refer to is mostly elsewhere.
    let third = |which: usize| -> Vec<&StorePath> {
        ORDINARY
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 3 == which)
            .map(|(_, n)| path(n))
            .collect()
    };
    for (which, directory) in [node.bank(), node.part(1), node.part(2)].iter().enumerate() {
        fill(directory, &third(which));
    }
    let before = (names(&node.part(1)), names(&node.part(2)));
    let server = node.start();
    for version in Version::BOTH {
        let client = Client::new(version, &fixtures().store);
        let all: Vec<_> = ORDINARY.iter().map(|name| path(name)).collect();
        client.copy_from(&server.url(), &server.key(), &all).expect_success();
        for path in &all {
            assert!(client.dump(path) == fixtures().dump(path), "{path:?}");
        }
        let client = Client::new(version, &fixtures().store);
        client.realise(&server.url(), &server.key(), &[path("top")]).expect_success();
    }
    for source in ["bank", "part-1", "part-2"] {
        assert_eq!(status(&server, source), "ok");
        let paths = server.metric("snowbank_source_paths", &format!("source=\"{source}\""));
        assert_eq!(paths, 4.0, "{source}");
    }
    assert!(server.metric("snowbank_narinfo_hits_total", "source=\"part\"") >= 8.0);
    server.stop();
    // Whoever keeps them finds nothing that he did not put there.
    assert_eq!((names(&node.part(1)), names(&node.part(2))), before);
}

#[test]
fn a_part_is_read_where_nothing_can_be_written() {
    let node = Node::new(1);
    fill(&node.part(1), &[path("refs")]);
    // Root writes where it likes, and so the file system itself is read-only where the server sees it.
    let user = if rustix::process::getuid().is_root() { "" } else { "--map-root-user" };
    let directory = node.part(1).display().to_string();
    let mount =
        format!("mount --bind {directory} {directory} && mount -o remount,bind,ro {directory}");
    let script =
        format!("exec unshare --mount {user} sh -c '{mount} && exec \"$0\" \"$@\"' \"$0\" \"$@\"");
    let server = node.setup().after_shell(&script).start();
    narinfo(&server, path("refs")).expect(200);
    assert_eq!(status(&server, "part-1"), "ok");
}

#[test]
fn a_part_that_has_not_come_is_empty_and_its_first_snapshot_is_served_soon() {
    let node = Node::new(2);
    fill(&node.bank(), &[path("leaf")]);
    // The place is there, the dataset is not.
    fs::create_dir_all(node.part(2)).unwrap();
    let server = node.start();
    for part in ["part-1", "part-2"] {
        assert_eq!(status(&server, part), "not there yet");
    }
    server.get("/health").expect(200);
    narinfo(&server, path("leaf")).expect(200);
    narinfo(&server, path("refs")).expect(404);
    server.get(&format!("/nar/{}.nar", fixtures().nar_hash(path("refs")))).expect(404);
    assert_eq!(server.metric("snowbank_source_up", "part-1"), 0.0);
    for number in [1, 2] {
        let path = [path("refs"), path("top")][number - 1];
        let staged = node.own.path().join("staged");
        fill(&staged, &[path]);
        let _ = fs::remove_dir(node.part(number));
        fs::rename(&staged, node.part(number)).unwrap();
        wait_until("the part to be served", Duration::from_secs(5), || {
            narinfo(&server, path).status == 200
        });
        assert_eq!(status(&server, &format!("part-{number}")), "ok");
    }
    // What comes later is found as well.
    fill(&node.part(1), &[path("file")]);
    wait_until("a new path to be served", Duration::from_secs(5), || {
        narinfo(&server, path("file")).status == 200
    });
}

#[test]
fn a_part_that_was_there_and_is_gone_makes_a_miss_503_and_nothing_else() {
    let node = Node::new(1);
    fill(&node.bank(), &[path("leaf")]);
    fill(&node.part(1), &[path("refs")]);
    let server = node.start();
    narinfo(&server, path("refs")).expect(200);
    let aside = node.own.path().join("aside");
    fs::rename(node.part(1), &aside).unwrap();
    fs::create_dir(node.part(1)).unwrap();
    wait_until("the part to be missed", PATIENCE, || narinfo(&server, path("refs")).status == 503);
    server.get(&format!("/{ABSENT}.narinfo")).expect(503).must("retry-after");
    server.get("/health").expect(503);
    assert_eq!(status(&server, "part-1"), "cannot be read");
    narinfo(&server, path("leaf")).expect(200);
    fs::remove_dir(node.part(1)).unwrap();
    fs::rename(&aside, node.part(1)).unwrap();
    wait_until("the part to be back", PATIENCE, || narinfo(&server, path("refs")).status == 200);
    server.get(&format!("/{ABSENT}.narinfo")).expect(404);
}

#[test]
fn another_file_system_in_the_place_of_a_part_is_read_anew() {
    let node = Node::new(1);
    fill(&node.part(1), &[path("refs")]);
    let other = node.own.path().join("other");
    fill(&other, &[path("leaf")]);
    let server = node.start();
    narinfo(&server, path("refs")).expect(200);
    narinfo(&server, path("leaf")).expect(404);
    // Both are old: nothing but which directory it is tells them apart.
    let (aside, start) = (node.own.path().join("aside"), Instant::now());
    wait_until("both to be older than any tick", PATIENCE, || {
        start.elapsed() > Duration::from_millis(200)
    });
    for (there, gone) in [("leaf", "refs"), ("refs", "leaf")] {
        fs::rename(node.part(1), &aside).unwrap();
        fs::rename(&other, node.part(1)).unwrap();
        fs::rename(&aside, &other).unwrap();
        wait_until("the other one to be served", Duration::from_secs(5), || {
            narinfo(&server, path(there)).status == 200
        });
        // What memory says is believed for 20 ms after a look, and that one may have come before the other directory.
        wait_until("what is gone to be 404", Duration::from_secs(5), || {
            narinfo(&server, path(gone)).status == 404
        });
    }
}

#[test]
fn of_two_nars_of_one_path_the_first_source_wins_and_both_can_be_fetched() {
    let node = Node::new(2);
    let refs = path("refs");
    fill(&node.part(1), &[refs]);
    // Another build of the same path: the NAR of `shapes` under its name.
    fill(&node.part(2), &[path("shapes")]);
    let at =
        |directory: &Path, path: &StorePath| directory.join(format!("{}.narinfo", path.hash()));
    let text = fs::read_to_string(at(&node.part(2), path("shapes"))).unwrap();
    let other: String = text
        .lines()
        .filter(|line| !line.starts_with("References:") && !line.starts_with("CA:"))
        .map(|line| {
            if line.starts_with("StorePath: ") {
                format!("StorePath: {}\nReferences: \n", refs.as_str())
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    fs::write(at(&node.part(2), refs), other).unwrap();
    let server = node.start();
    let (first, second) = (fixtures().dump(refs), fixtures().dump(path("shapes")));
    let hashes = [fixtures().nar_hash(refs), fixtures().nar_hash(path("shapes"))];
    let said =
        |server: &Server| field(&narinfo(server, refs).expect(200).text(), "NarHash").unwrap();
    assert_eq!(said(&server), format!("sha256:{}", hashes[0]));
    for (hash, nar) in hashes.iter().zip([&first, &second]) {
        for name in [format!("{hash}.nar"), format!("{}-{hash}.nar", refs.hash())] {
            assert!(server.get(&format!("/nar/{name}")).expect(200).body == *nar, "{name}");
        }
    }
    assert!(server.get(&format!("/nar/{}.nar", refs.hash())).expect(200).body == first);
    // Without the first the second is what there is, narinfo and NAR.
    fs::remove_file(at(&node.part(1), refs)).unwrap();
    wait_until("the second to be served", PATIENCE, || {
        said(&server) == format!("sha256:{}", hashes[1])
    });
    assert!(server.get(&format!("/nar/{}.nar", refs.hash())).expect(200).body == second);
}

#[test]
fn what_a_part_has_can_be_referred_to_and_is_still_pushed_here_by_our_own_client() {
    let node = Node::new(1);
    fill(&node.part(1), &[path("refs"), path("leaf")]);
    let server = node.setup().environment("SNOWBANK_PUSH", "open").start();
    // Stock Nix sees that the references are there, and sends only the rest.
    let top = path("top").as_str();
    let url = format!("{}?compression=zstd", server.url());
    let copy = fixtures().store.program("nix").args(["copy", "--to", &url, top]).output().unwrap();
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    assert_eq!(narinfos(&node.bank()).into_iter().collect::<Vec<_>>(), [path("top").hash()]);
    // Ours makes the node's own bank whole.
    let mut order = crate::support::command(env!("CARGO_BIN_EXE_snowbank"));
    order.envs(fixtures().store.environment()).args(["push", top, "--to", &server.url()]);
    run(&mut order, 120).expect_success();
    let mut expected = [path("top"), path("refs"), path("leaf")].map(|path| path.hash().to_owned());
    expected.sort_unstable();
    assert_eq!(narinfos(&node.bank()).into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_part_of_another_store_is_refused_at_the_start() {
    let node = Node::new(1);
    fill(&node.part(1), &[]);
    replace(&node.part(1).join("nix-cache-info"), b"StoreDir: /gnu/store\n");
    let (status, said) = node.setup().try_start(Stdio::null(), 1).map(drop).unwrap_err();
    assert!(!status.success() && said.contains("from-n1") && said.contains("/gnu/store"), "{said}");
}
