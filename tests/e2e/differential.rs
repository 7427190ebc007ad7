//! Thousands of trees made by chance: our NAR of each equals what Nix makes of it (R26).

use std::process::Stdio;

use crate::support::{
    http::field,
    nix::{Store, StorePath, tempdir},
    server::Setup,
    trees,
};

const TREES: u64 = 2_000;

#[test]
fn two_thousand_trees_have_the_nars_that_nix_gives_them() {
    let own = tempdir();
    let store = Store::fresh();
    let mut words = vec!["--add".to_owned()];
    for seed in 0..TREES {
        let tree = own.path().join(format!("tree-{seed}"));
        trees::any(&tree, seed);
        words.push(tree.into_os_string().into_string().unwrap());
    }
    let added = store.run("nix-store", &words);
    let paths: Vec<StorePath> = added.lines().map(StorePath::new).collect();
    assert_eq!(paths.len(), usize::try_from(TREES).unwrap());

    // One process for all dumps: started once for each tree, Nix would take most of a minute to start.
    let expected = export(&store, &paths);
    let server = Setup::bare().local_store(&store).start();
    let mut connection = server.connect();
    for (path, expected) in paths.iter().zip(&expected) {
        let narinfo =
            connection.request("GET", &format!("/{}.narinfo", path.hash()), &[]).expect(200).text();
        // Not its URL: where two trees have the same NAR, the second one's is baked by now.
        let nar_hash = field(&narinfo, "NarHash").unwrap().replace("sha256:", "");
        let nar = connection.request("GET", &format!("/nar/{nar_hash}.nar"), &[]).expect(200).body;
        assert_eq!(field(&narinfo, "NarSize").unwrap(), nar.len().to_string(), "{path:?}");
        assert!(&nar == expected, "the NAR of {path:?} differs from Nix's");
    }
}

/// The NARs of `nix-store --export`: for each path a 1, its NAR, and what else Nix knows of it.
fn export(store: &Store, paths: &[StorePath]) -> Vec<Vec<u8>> {
    let mut child = store
        .program("nix-store")
        .arg("--export")
        .args(paths)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut all).unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = all.as_slice();
    let mut found = std::collections::BTreeMap::new();
    while number(&mut rest) == 1 {
        // A NAR says nowhere how long it is.
        let length = nar_length(rest);
        let nar = rest[..length].to_vec();
        rest = &rest[length..];
        assert_eq!(number(&mut rest), 0x4558_494e, "the mark that follows a NAR in an export");
        let path = string(&mut rest);
        for _ in 0..number(&mut rest) {
            string(&mut rest);
        }
        string(&mut rest);
        if number(&mut rest) == 1 {
            string(&mut rest);
        }
        found.insert(path, nar);
    }
    paths.iter().map(|path| found.remove(path.as_str()).unwrap()).collect()
}

fn number(from: &mut &[u8]) -> u64 {
    let (number, rest) = from.split_first_chunk::<8>().unwrap();
    *from = rest;
    u64::from_le_bytes(*number)
}

fn string(from: &mut &[u8]) -> String {
    String::from_utf8(bytes(from).to_vec()).unwrap()
}

fn bytes<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(number(from)).unwrap();
    let (bytes, rest) = from.split_at(length);
    *from = &rest[length.next_multiple_of(8) - length..];
    bytes
}

/// Where the NAR that `from` begins with ends: after the brackets that it opens have closed. A string that holds
/// contents, a name or a target is skipped whole, so a bracket in one is none.
fn nar_length(from: &[u8]) -> usize {
    let mut rest = from;
    assert_eq!(bytes(&mut rest), b"nix-archive-1");
    let mut depth = 0;
    loop {
        match bytes(&mut rest) {
            b"(" => depth += 1,
            b")" => depth -= 1,
            b"contents" | b"target" | b"name" | b"type" => {
                bytes(&mut rest);
            }
            _ => {}
        }
        if depth == 0 {
            return from.len() - rest.len();
        }
    }
}
