//! Names that no cache has, methods that none answers, and whose signature a cache asks for.

use std::fs;

use snowbank::{
    nix::{hash::Sha256, signature::KeyName},
    sign::SecretKey,
};

use crate::support::{
    fixtures::{fixtures, path},
    nix::{Client, Store, Version, tempdir},
    push::{Made, Snapshot, assert_refused, scripted},
    server::Setup,
    trees,
};

fn key(name: &str) -> SecretKey {
    SecretKey::generate(KeyName::parse(name).unwrap()).unwrap()
}

#[test]
fn push_of_names_outside_the_layout_is_refused_and_writes_nothing() {
    let server = scripted("");
    let made = Made::file("there", b"here before\n");
    made.push(&server);
    let hash = made.hash();
    let file = Sha256::of(b"x").to_nix32();
    let names = [
        "/".to_owned(),
        "//".to_owned(),
        "/nix-cache-info".to_owned(),
        "/index.html".to_owned(),
        "/..".to_owned(),
        "/../outside.narinfo".to_owned(),
        "/%2e%2e/outside.narinfo".to_owned(),
        "/..%2foutside.narinfo".to_owned(),
        "/%252e%252e%252foutside".to_owned(),
        format!("/{hash}.narinfo.narinfo"),
        format!("/{hash}.narinfo/"),
        format!("//{hash}.narinfo"),
        format!("/{hash}.narinfo%00"),
        format!("/{hash}.narinfo%0a"),
        format!("/{}.narinfo", hash.to_uppercase()),
        format!("/{hash}0.narinfo"),
        format!("/{}.narinfo", hash.replacen(char::is_alphanumeric, "e", 1)),
        format!("/{hash}.ls/"),
        format!("/c/none/{hash}.narinfo"),
        format!("/c/none/nar/{file}.nar"),
        format!("/c/..%2fdefault/{hash}.narinfo"),
        format!("/c/DEFAULT/{hash}.narinfo"),
        format!("/nar/{file}"),
        format!("/nar/{file}.nar/"),
        format!("/nar/{file}.nar.exe"),
        format!("/nar/..%2f{file}.nar"),
        format!("/nar/../{file}.nar"),
        format!("/nar/{hash}.nar"),
        format!("/nar/{hash}-{file}.nar"),
        "/log/x".to_owned(),
        format!("/log/{}", made.info.path),
        "/log/..%2f..%2fx.drv".to_owned(),
        "/debuginfo/..%2fx.debug".to_owned(),
        "/debuginfo/zz".to_owned(),
        "/realisations/x.doi".to_owned(),
        "/realisations/..%2fx!out.doi".to_owned(),
        format!("/build-trace-v2/{}/out.doi", made.info.path),
        format!("/build-trace-v2/{hash}-x.drv/..%2f.doi"),
        format!("/serve/{hash}"),
        "/metrics".to_owned(),
        "/health".to_owned(),
        "/pending/x".to_owned(),
        "/tmp/x".to_owned(),
        "/_snowbank/v1/nar/short".to_owned(),
        "/_snowbank/v1/uploads/..%2fx".to_owned(),
        "/_snowbank/v1/elsewhere".to_owned(),
    ];
    let before = Snapshot::of(server.data());
    for name in &names {
        let answer = server.connect().put(name, b"x");
        assert!((400..500).contains(&answer.status), "PUT {name}: {}", answer.status);
        assert!(answer.text().trim_end().lines().count() <= 1, "{name}: {}", answer.text());
        before.assert_same(server.data(), name);
    }
    let outside = server.data().parent().unwrap().join("outside.narinfo");
    assert!(!outside.exists());
    made.assert_served(&server);
}

#[test]
fn push_by_any_other_method_is_refused_and_nothing_is_deleted() {
    let server = scripted("");
    let made = Made::file("there", b"here before\n");
    made.push(&server);
    let before = Snapshot::of(server.data());
    for method in ["DELETE", "POST", "PATCH", "MOVE", "PROPFIND", "put"] {
        for url in [made.url(), made.nar_url(), format!("/{}.ls", made.hash())] {
            let answer = server.connect().send_with_body(method, &url, &[], b"x");
            assert!([400, 404, 405, 501].contains(&answer.status), "{method}: {}", answer.status);
        }
    }
    before.assert_same(server.data(), "another method");
    made.assert_served(&server);
}

#[test]
fn push_to_a_cache_that_asks_for_signatures_takes_signed_paths_and_content_addressed_ones() {
    let (trusted, stranger) = (key("trusted-1"), key("stranger-1"));
    let settings = format!("accept = \"trusted\"\ntrusted_keys = [\"{}\"]", trusted.public());
    let server = Setup::bare().pushed_to(&fixtures().store.directory(), &settings).start();
    let own = tempdir();
    let file = |name: &str, key: &SecretKey| {
        let file = own.path().join(name);
        key.save(&file).unwrap();
        file.display().to_string()
    };
    let (trusted, stranger) = (file("trusted", &trusted), file("stranger", &stranger));
    let client = || Client::new(Version::Current, &fixtures().store);
    let refs = path("refs");
    let copy = |settings: &str| {
        let url = format!("{}{settings}", server.url());
        client().try_run("nix", &["copy", "--to", &url, refs.as_str()])
    };
    for settings in [String::new(), format!("?secret-key={stranger}")] {
        let outcome = copy(&settings).expect_failure();
        assert!(outcome.stderr.contains("403"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("trusted key"), "{}", outcome.stderr);
        server.get(&format!("/{}.narinfo", refs.hash())).expect(404);
    }
    copy(&format!("?secret-key={trusted}")).expect_success();
    let text = server.get(&format!("/{}.narinfo", refs.hash())).expect(200).text();
    assert!(text.contains("Sig: trusted-1:"), "{text}");
    assert!(!text.contains("stranger-1"), "a signature that nobody can check is not kept: {text}");
    // Flat and recursive, and what builtins.toFile made: their names prove their content.
    for name in ["fixed", "flat", "leaf"] {
        client().run("nix", &["copy", "--to", &server.url(), path(name).as_str()]);
        server.get(&format!("/{}.narinfo", path(name).hash())).expect(200);
    }
}

#[test]
fn push_of_what_nix_added_to_its_store_needs_no_signature() {
    let store = Store::fresh();
    let own = tempdir();
    trees::website(&own.path().join("site"));
    let site = own.path().join("site").display().to_string();
    let added = store.run("nix", &["store", "add-path", &site]);
    let settings = "accept = \"trusted\"";
    let server = Setup::bare().pushed_to(&store.directory(), settings).start();
    let client = Client::new(Version::Current, &store);
    client.run("nix", &["copy", "--to", &server.url(), added.trim()]);
    assert_eq!(fs::read_dir(server.bank().join("nar")).unwrap().count(), 1);
}

#[test]
fn push_of_forged_trust_to_a_cache_that_asks_for_signatures_is_refused() {
    let trusted = key("trusted-1");
    let server =
        scripted(&format!("accept = \"trusted\"\ntrusted_keys = [\"{}\"]", trusted.public()));
    let made = Made::file("unsigned", b"nobody signed this\n");
    let sent = made.sent("zstd");
    let mut connection = server.connect();
    connection.put(&sent.url, &sent.bytes).expect(201);
    let before = Snapshot::of(server.data());
    let mut refuses = |made: &Made, statuses: &[u16], what: &str| {
        let answer = connection.put(&made.url(), made.narinfo(&sent).as_bytes());
        assert_refused(&answer, statuses, what);
        before.assert_same(server.data(), what);
    };
    refuses(&made, &[403], "trusted key");
    refuses(&made.clone().signed(&key("stranger-1")), &[403], "trusted key");
    refuses(&made.clone().signed(&key("trusted-1")), &[422], "trusted-1");
    for ca in ["fixed:r:sha256", "fixed:r:sha1", "fixed:git:sha256"] {
        let mut forged = made.clone();
        forged.info.ca = Some(format!("{ca}:{}", made.info.nar_hash.to_nix32()));
        refuses(&forged, &[403, 422], made.info.path.as_str());
    }
    let signed = made.signed(&trusted);
    connection.put(&signed.url(), signed.narinfo(&sent).as_bytes()).expect(201);
    signed.assert_served(&server);
}
