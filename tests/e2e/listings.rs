//! Looking into a path without fetching it: listings, single files, debug information.

use serde_json::Value;

use crate::support::{
    bank::{self, data_directory},
    fixtures::{ORDINARY, fixtures, path},
    http::{Response, field},
    nix::{StorePath, tempdir},
    server::{Server, Setup},
    trees::BUILD_ID,
};

fn local() -> Server {
    Setup::bare().local_store(&fixtures().store).start()
}

fn both_sources() -> [(Server, Option<bank::DataDirectory>); 2] {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    [(local(), None), (server, Some(directory))]
}

#[test]
fn the_offsets_of_a_listing_point_at_the_contents() {
    for (server, _directory) in both_sources() {
        for name in ORDINARY.into_iter().chain(["small"]).filter(|&name| name != "bytes") {
            for prefix in ["", "/c/default"] {
                let url = format!("{prefix}/{}.ls", path(name).hash());
                let answer = server.get(&url).expect(200);
                assert!(answer.must("content-type").starts_with("application/json"));
                server.head(&url).expect(200);
                let listing = answer.json();
                assert_eq!(listing["version"], 1);
                let dump = fixtures().dump(path(name));
                assert_offsets(&listing["root"], path(name).as_path(), &dump);
            }
        }
    }
}

/// Every node is what lies on disk, and every file's bytes stand at its offset in the NAR.
#[track_caller]
fn assert_offsets(node: &Value, real: &std::path::Path, dump: &[u8]) {
    let metadata = std::fs::symlink_metadata(real).unwrap();
    match node["type"].as_str() {
        Some("directory") => {
            let entries = node["entries"].as_object().unwrap();
            assert_eq!(
                entries.len(),
                std::fs::read_dir(real).unwrap().count(),
                "entries of {real:?}"
            );
            for (name, child) in entries {
                assert_offsets(child, &real.join(name), dump);
            }
        }
        Some("symlink") => {
            assert_eq!(
                node["target"].as_str(),
                std::fs::read_link(real).unwrap().to_str(),
                "target of {real:?}"
            );
        }
        Some("regular") => {
            let contents = std::fs::read(real).unwrap();
            assert_eq!(node["size"], contents.len(), "size of {real:?}");
            let executable =
                std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
            assert_eq!(node["executable"], executable, "executable of {real:?}");
            let offset = usize::try_from(node["narOffset"].as_u64().unwrap_or(0)).unwrap();
            assert!(offset > 0 || contents.is_empty(), "narOffset of {real:?} is missing");
            assert!(
                dump[offset..].starts_with(&contents),
                "narOffset of {real:?} points at something else"
            );
        }
        other => panic!("{real:?} is listed as {other:?}"),
    }
}

#[test]
fn listings_equal_those_that_nix_writes() {
    let own = tempdir();
    let names: Vec<&str> =
        ["shapes", "names", "refs", "top", "file", "executable", "link"].to_vec();
    let paths: Vec<&str> = names.iter().map(|name| path(name).as_str()).collect();
    bank::build(&fixtures().store, &own.path().join("bank"), "zstd&write-nar-listing=true", &paths);
    for (server, _directory) in both_sources() {
        for name in &names {
            let theirs =
                std::fs::read(own.path().join("bank").join(format!("{}.ls", path(name).hash())))
                    .unwrap();
            let mut theirs: Value = serde_json::from_slice(&theirs).unwrap();
            let mut ours = server.get(&format!("/{}.ls", path(name).hash())).expect(200).json();
            normalise(&mut theirs["root"]);
            normalise(&mut ours["root"]);
            assert_eq!(ours, theirs, "the listing of {name}");
        }
    }
}

/// Older Nix leaves out `executable` when it is false, and an empty file's offset says nothing.
fn normalise(node: &mut Value) {
    if node["type"] == "regular" {
        if node.get("executable").is_none() {
            node["executable"] = Value::Bool(false);
        }
        if node["size"] == 0 {
            node.as_object_mut().unwrap().remove("narOffset");
        }
    }
    if let Some(entries) = node.get_mut("entries").and_then(Value::as_object_mut) {
        entries.values_mut().for_each(normalise);
    }
}

#[test]
fn names_that_are_no_text_do_not_break_a_listing() {
    let server = local();
    let answer = server.get(&format!("/{}.ls", path("bytes").hash()));
    assert!(matches!(answer.status, 200 | 404), "{}", answer.status);
    if answer.status == 200 {
        answer.json();
    }
}

#[test]
fn one_file_is_served_out_of_a_path() {
    for (server, _directory) in both_sources() {
        let serve = |store_path: &StorePath, inner: &str| {
            server.get(&format!("/serve/{}/{inner}", store_path.hash()))
        };
        assert_eq!(serve(path("refs"), "bin/hello").expect(200).text(), "echo hello\n");
        assert_eq!(serve(path("website"), "plain.txt").expect(200).text(), "plain\n");
        assert_eq!(
            server
                .get(&format!("/c/default/serve/{}/plain.txt", path("website").hash()))
                .expect(200)
                .text(),
            "plain\n"
        );
        assert_eq!(serve(path("names"), "gr%C3%BC%C3%9Fe").expect(200).text(), "grüße");
        assert_eq!(serve(path("names"), "%252e%252e").expect(200).text(), "%2e%2e");
        assert_eq!(
            serve(path("names"), "%3Cscript%3Ealert(1)%3C").expect(200).text(),
            "<script>alert(1)<"
        );
        assert_eq!(serve(path("small"), "share/part-199/file-98").expect(200).body.len(), 49);
        let url = format!("/serve/{}/plain.txt", path("website").hash());
        let head = server.head(&url).expect(200);
        assert_eq!(head.must("content-length"), "6");
        for absent in ["absent", "plain.txt/below", "dir/absent"] {
            serve(path("website"), absent).expect(404);
        }
        server.get("/serve/00000000000000000000000000000000/x").expect(404);
    }
}

#[test]
fn one_file_out_of_a_large_path_does_not_cost_the_whole_of_it() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let before = server.resident();
    let file = server.get(&format!("/serve/{}/big", path("big").hash())).expect(200);
    assert_eq!(file.body.len(), 300 << 20);
    let grown = server.resident().saturating_sub(before) / 1024;
    assert!(grown < 128, "serving a 300 MiB file took {grown} MiB");
}

#[test]
fn links_are_followed_within_the_path_and_never_out_of_it() {
    for (server, _directory) in both_sources() {
        let shapes = path("shapes").hash();
        for link in ["escape-link", "dangling-link", "self-link", "long-link"] {
            let answer = server.get(&format!("/serve/{shapes}/{link}"));
            assert!((300..500).contains(&answer.status), "{link}: {}", answer.status);
            assert!(
                !String::from_utf8_lossy(&answer.body).contains("root:"),
                "{link} leads out of the store"
            );
        }
        for escape in [
            "..",
            "../../../../etc/passwd",
            "%2e%2e/%2e%2e/etc/passwd",
            "nested/up-link/../../x",
            "/etc/passwd",
        ] {
            let answer = server.get(&format!("/serve/{shapes}/{escape}"));
            assert!((400..500).contains(&answer.status), "{escape}: {}", answer.status);
            assert!(
                !String::from_utf8_lossy(&answer.body).contains("root:"),
                "{escape} leads out of the store"
            );
        }
    }
}

#[test]
fn a_directory_has_an_index_with_every_name_escaped() {
    for (server, _directory) in both_sources() {
        for inner in ["", "dir/"] {
            let answer =
                server.get(&format!("/serve/{}/{inner}", path("website").hash())).expect(200);
            // `index.html` is store content and may stand in for the index of its directory.
            assert_harmless(&answer);
        }
        let index =
            server.get(&format!("/serve/{}/dir/", path("website").hash())).expect(200).text();
        assert!(index.contains("onerror"), "the file is in the index:\n{index}");
        assert!(!index.contains("<img src=x"), "a name became an element:\n{index}");
        let index = server.get(&format!("/serve/{}/", path("names").hash())).expect(200).text();
        assert!(!index.contains("<script>alert(1)"), "a name became a script");
        assert!(index.contains("日本語"));
        // A directory without its slash: the links of its index would be wrong, so it redirects or uses full links.
        let bare = server.get(&format!("/serve/{}/dir", path("website").hash()));
        assert!(matches!(bare.status, 200 | 301 | 302 | 307 | 308), "{}", bare.status);
    }
}

#[test]
fn no_script_from_a_store_runs_in_a_browser() {
    for (server, _directory) in both_sources() {
        for file in ["index.html", "page.svg"] {
            let answer =
                server.get(&format!("/serve/{}/{file}", path("website").hash())).expect(200);
            assert_harmless(&answer);
        }
    }
    // What a build printed is as little to be trusted.
    let server = local();
    let narinfo = server.get(&format!("/{}.narinfo", path("refs").hash())).expect(200).text();
    let log = server.get(&format!("/log/{}", field(&narinfo, "Deriver").unwrap())).expect(200);
    assert_eq!(log.must("x-content-type-options"), "nosniff");
}

/// A page may not run script: by policy, or because it is not a page.
#[track_caller]
fn assert_harmless(answer: &Response) {
    assert_eq!(answer.must("x-content-type-options"), "nosniff");
    let policy = answer.must("content-security-policy");
    let script = policy.split(';').map(str::trim).find(|part| part.starts_with("script-src"));
    let default = policy.split(';').map(str::trim).find(|part| part.starts_with("default-src"));
    let deciding = script.or(default).unwrap_or_default();
    let sandboxed = policy.split(';').any(|part| part.trim() == "sandbox");
    assert!(deciding.ends_with("'none'") || sandboxed, "script may run under {policy:?}");
}

#[test]
fn debug_information_is_found_by_its_build_id() {
    let own = tempdir();
    let data = own.path().join("data");
    bank::build(
        &fixtures().store,
        &data.join("default"),
        "zstd&index-debug-info=true",
        &[path("website").as_str()],
    );
    let server = Setup::on(&data).bank_only(&fixtures().store).start();
    for prefix in ["", "/c/default"] {
        let url = format!("{prefix}/debuginfo/{BUILD_ID}.debug");
        let answer = server.get(&url).expect(200).json();
        assert_eq!(
            answer["member"],
            format!("lib/debug/.build-id/{}/{}.debug", &BUILD_ID[..2], &BUILD_ID[2..])
        );
        let archive = answer["archive"]
            .as_str()
            .unwrap()
            .strip_prefix("../")
            .expect("relative to debuginfo/")
            .to_owned();
        server.get(&format!("{prefix}/{archive}")).expect(200);
        server.head(&url).expect(200);
        server.get(&format!("{prefix}/debuginfo/{}.debug", "0".repeat(40))).expect(404);
    }
}
