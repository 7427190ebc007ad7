//! Paths of another binary cache are brought into one of ours, and taken out of it again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::support::{
    bank::{data_directory, replace},
    command,
    fixtures::{ORDINARY, fixtures, path},
    nix::{Client, Outcome, Scratch, Version, run, tempdir},
    push::assert_nothing_waits,
    pushed::narinfos,
    server::{Server, Setup},
    snowbank,
};

/// A server that anybody may push to, for the paths of the fixtures.
fn empty() -> Server {
    Setup::within(tempdir()).pushed_to(&fixtures().store.directory(), "").start()
}

fn command_line(words: &[&str]) -> Outcome {
    run(command(snowbank()).args(words), 120)
}

fn import(from: &str, to: &Server, words: &[&str], code: i32) -> Value {
    let url = to.url();
    let outcome =
        command_line(&[&["import", from, "--to", &url, "--json", "--quiet"], words].concat());
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.code, Some(code), "{}{text}", outcome.stderr);
    serde_json::from_str(&text).unwrap()
}

fn all() -> Vec<String> {
    ORDINARY.iter().map(|name| path(name).as_str().to_owned()).collect()
}

fn assert_substituted(from: &Server, names: &[&str]) {
    let client = Client::new(Version::Current, &fixtures().store);
    let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
    client.copy_from(&from.url(), &from.key(), &paths).expect_success();
    for name in names {
        assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
    }
}

#[test]
fn a_file_cache_in_each_compression_comes_whole_and_again_for_nothing() {
    for compression in ["none", "xz", "zstd", "gzip", "bzip2"] {
        let server = empty();
        let bank = fixtures().bank(compression);
        let from = format!("file://{}", bank.display());
        let said = import(&from, &server, &[], 0);
        let count = fs::read_dir(&bank).unwrap().filter(|entry| {
            entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "narinfo")
        });
        let count = count.count();
        assert_eq!(said["imported"], count, "{compression}: {said}");
        assert_substituted(&server, &ORDINARY);
        assert_nothing_waits(&server);
        let again = import(bank.to_str().unwrap(), &server, &[], 0);
        assert_eq!((&again["imported"], &again["present"]), (&0.into(), &count.into()));
    }
}

#[test]
fn a_server_gives_the_closures_that_are_named_in_each_form_of_its_urls() {
    // The store served live has NARs without a FileHash, a bank has files.
    let live = Setup::within(tempdir()).local_store(&fixtures().store).start();
    let directory = data_directory(&fixtures().bank("xz"));
    let banked = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for theirs in [&live, &banked] {
        let server = empty();
        let refused = command_line(&["import", &theirs.url(), "--to", &server.url()]);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("name the paths"), "{}", refused.stderr);
        // Both have made themselves a key, which has the name of the host.
        let words = [path("top").as_str(), path("link").hash()];
        let refused = import(&theirs.url(), &server, &words, 1);
        assert!(refused["failed"][0]["why"].as_str().unwrap().contains("signature"), "{refused}");
        let words = [&words[..], &["--without-signatures"]].concat();
        let said = import(&theirs.url(), &server, &words, 0);
        assert_eq!(said["imported"], 4, "{said}");
        assert_substituted(&server, &["top", "refs", "leaf", "link"]);
    }
}

#[test]
fn what_is_wrong_keeps_only_that_from_coming_which_needs_it() {
    let directory = data_directory(&fixtures().bank("xz"));
    let bank = directory.bank();
    // refs needs leaf, and top needs both.
    let nar = directory.nar(path("leaf"));
    let mut bytes = fs::read(&nar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    replace(&nar, &bytes);
    replace(&directory.narinfo(path("website")), b"nothing of a narinfo\n");
    let server = empty();
    let said = import(bank.to_str().unwrap(), &server, &[], 1);
    let failed: Vec<&str> = said["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    for name in ["leaf", "refs", "top", "website"] {
        assert!(failed.contains(&path(name).hash()), "{name}: {said}");
        server.get(&format!("/{}.narinfo", path(name).hash())).expect(404);
    }
    assert_eq!(failed.len(), 4, "{said}");
    assert_substituted(&server, &["file", "fixed", "bytes", "shapes"]);
    // Once it is right there, the rest comes.
    let well = fixtures().bank("xz");
    let said = import(well.to_str().unwrap(), &server, &[], 0);
    assert_eq!(said["imported"], 4, "{said}");
    assert_substituted(&server, &ORDINARY);
}

#[test]
fn an_import_that_is_killed_leaves_what_is_whole_and_goes_on_when_it_is_run_again() {
    let bank = fixtures().bank("xz");
    let all = all().len() as u64;
    let mut cut = 0;
    for enough in 1..all {
        let server = empty();
        let mut child = command(snowbank())
            .args([
                "import",
                bank.to_str().unwrap(),
                "--to",
                &server.url(),
                "--quiet",
                "--jobs",
                "1",
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while (narinfos(&server.bank()).len() as u64) < enough
            && child.try_wait().unwrap().is_none()
        {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let came = narinfos(&server.bank()).len() as u64;
        cut += usize::from(came < all);
        let said = import(bank.to_str().unwrap(), &server, &[], 0);
        let [imported, present] = ["imported", "present"].map(|what| said[what].as_u64().unwrap());
        assert_eq!(imported + present, all, "{said}");
        // What was sent whole before the end still becomes visible after it.
        assert!((came..=came + 1).contains(&present), "{came} were there, {said}");
        assert_substituted(&server, &ORDINARY);
    }
    assert!(cut > 0, "it was never in time");
}

/// A bank of ours with all of the fixtures, and the words that export from it.
fn exporting() -> (Scratch, String) {
    let own = tempdir();
    let bank = fixtures().bank("zstd");
    (own, bank.to_str().unwrap().to_owned())
}

/// `nix-store --import` into the store of a client: how it ended, and what it said.
fn import_into(client: &Client<'_>, file: &Path) -> (bool, String) {
    let mut order = client.program("nix-store");
    order.arg("--store").arg(client.root()).arg("--import");
    let output = order.stdin(Stdio::from(fs::File::open(file).unwrap())).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_exported_is_what_nix_exports_and_takes() {
    let (own, bank) = exporting();
    for name in ["refs", "leaf", "link", "bytes"] {
        let ours = command_line(&["export", "--from", &bank, "--no-closure", path(name).as_str()]);
        let theirs =
            run(fixtures().store.program("nix-store").args(["--export", path(name).as_str()]), 60);
        assert!(ours.expect_success().stdout == theirs.expect_success().stdout, "{name}");
    }
    let file = own.path().join("closure.nar");
    let out = file.to_str().unwrap();
    command_line(&["export", "--from", &bank, "--output", out, path("top").as_str()])
        .expect_success();
    let streamed = command_line(&["export", "--from", &bank, path("top").hash()]).expect_success();
    assert!(streamed.stdout == fs::read(&file).unwrap());
    let client = Client::new(Version::Current, &fixtures().store);
    let (has_ended_well, said) = import_into(&client, &file);
    assert!(has_ended_well, "{said}");
    for name in ["top", "refs", "leaf"] {
        assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
    }
}

#[test]
fn an_export_that_was_cut_goes_on_and_a_nar_that_is_wrong_ends_it_so_that_nix_refuses_it() {
    let (own, bank) = exporting();
    let file = own.path().join("closure.nar");
    let out = file.to_str().unwrap();
    let words = [&["export", "--from", &bank, "--output", out, "--json"][..]].concat();
    let paths = all();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    command_line(&[&words[..], &paths].concat()).expect_success();
    let whole = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    for (cut, spoilt) in [(whole.len() / 2, None), (whole.len() - 1, Some(whole.len() / 3))] {
        let mut part = whole[..cut].to_vec();
        if let Some(position) = spoilt {
            part[position] ^= 1;
        }
        fs::write(own.path().join("closure.nar.part"), part).unwrap();
        let said = command_line(&[&words[..], &paths].concat()).expect_success();
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert!(said["present"].as_u64().unwrap() > 0, "{said}");
        assert!(fs::read(&file).unwrap() == whole);
        fs::remove_file(&file).unwrap();
    }

    let directory = data_directory(&fixtures().bank("zstd"));
    let nar = directory.nar(path("refs"));
    let mut bytes = fs::read(&nar).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    replace(&nar, &bytes);
    let from = directory.bank();
    let from = from.to_str().unwrap();
    let cut = command_line(&["export", "--from", from, path("top").as_str()]);
    assert_eq!(cut.code, Some(1), "{}", cut.stderr);
    let file = own.path().join("wrong.nar");
    fs::write(&file, &cut.stdout).unwrap();
    let client = Client::new(Version::Current, &fixtures().store);
    let (has_ended_well, said) = import_into(&client, &file);
    assert!(!has_ended_well, "{said}");
    assert!(client.real(path("leaf")).exists() && !client.real(path("top")).exists());
    let file = own.path().join("never.nar");
    let words =
        ["export", "--from", from, "--output", file.to_str().unwrap(), path("top").as_str()];
    assert_eq!(command_line(&words).code, Some(1));
    assert!(!file.exists());
}

#[test]
fn a_file_cache_that_is_exported_is_one_that_nix_substitutes_from() {
    let (own, _) = exporting();
    let server = empty();
    import(fixtures().bank("xz").to_str().unwrap(), &server, &[], 0);
    let directory = own.path().join("cache");
    let out = directory.to_str().unwrap();
    let paths = all();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let url = server.url();
    let words = [&["export", "--from", &url, "--file-cache", out, "--json"][..], &paths].concat();
    let said: Value =
        serde_json::from_slice(&command_line(&words).expect_success().stdout).unwrap();
    assert!(said["written"].as_u64().unwrap() >= 12, "{said}");
    let client = Client::new(Version::Current, &fixtures().store);
    let wanted: Vec<_> = ORDINARY.iter().map(|name| path(name)).collect();
    client.copy_from(&format!("file://{out}"), &server.key(), &wanted).expect_success();
    for name in ORDINARY {
        assert!(client.dump(path(name)) == fixtures().dump(path(name)), "{name}");
    }
    // What is there is not written again, and what is gone is; what was left half done goes after a day.
    let left = ["tmp/1-1.part", "tmp/1-2.part"].map(|name| directory.join(name));
    let ago = [48, 1].map(|hours| SystemTime::now() - Duration::from_secs(hours * 60 * 60));
    for (left, then) in left.iter().zip(ago) {
        fs::write(left, "half").unwrap();
        fs::File::options().write(true).open(left).unwrap().set_modified(then).unwrap();
    }
    fs::remove_file(directory.join(format!("{}.narinfo", path("leaf").hash()))).unwrap();
    let again: Value =
        serde_json::from_slice(&command_line(&words).expect_success().stdout).unwrap();
    assert_eq!(again["written"], 1, "{again}");
    assert_eq!(left.map(|left| left.exists()), [false, true]);
}

/// What is in the files of a directory that are whole, by their names in it.
fn files_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![directory.to_path_buf()]);
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_none_or(|ending| ending != "part") {
                let name = path.strip_prefix(directory).unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn an_export_that_is_killed_leaves_nothing_wrong_and_goes_on_when_it_is_run_again() {
    let (own, bank) = exporting();
    let paths = ["top", "bytes", "link"].map(|name| path(name).as_str());
    for form in ["--file-cache", "--output"] {
        let words = |out: &Path| {
            let words = ["export", "--from", &bank, form, out.to_str().unwrap()];
            [&words[..], &paths].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let contents = |out: &Path| match form {
            "--output" => BTreeMap::from([(PathBuf::new(), fs::read(out).unwrap_or_default())]),
            _ => files_of(out),
        };
        let reference = own.path().join(format!("whole{form}"));
        run(command(snowbank()).args(words(&reference)), 60).expect_success();
        let whole = contents(&reference);
        let mut killed = 0;
        for step in ["write", "fsync", "rename"] {
            let mut has_ended = false;
            for count in 1..200 {
                let out = own.path().join(format!("killed{form}-{step}-{count}"));
                let mut order = command(snowbank());
                order.args(words(&out));
                order.env("SNOWBANK_FAULT", format!("publish.{step}=kill:{count}"));
                has_ended = run(&mut order, 60).code == Some(0);
                if out.exists() {
                    // Whatever is visible is as it will be.
                    for (name, bytes) in contents(&out) {
                        let name_said = name.display();
                        assert!(
                            whole.get(&name) == Some(&bytes),
                            "{form} {step} {count}: {name_said}"
                        );
                    }
                }
                run(command(snowbank()).args(words(&out)), 60).expect_success();
                assert!(contents(&out) == whole, "{form} {step} {count}");
                if has_ended {
                    break;
                }
                killed += 1;
            }
            assert!(has_ended, "{form} {step} never ends");
        }
        // Writing to one file has no such points: the test of one that was cut is about that.
        let expected = if form == "--output" { 2 } else { 9 };
        assert!(killed >= expected, "{form}: killed {killed} times only");
    }
}
