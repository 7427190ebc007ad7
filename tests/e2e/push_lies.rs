//! Narinfos that say something else than the bytes, or something that no narinfo may say.

use snowbank::{
    nix::{hash::Sha256, signature::KeyName},
    sign::SecretKey,
};

use crate::support::{
    push::{Made, STORE, Sent, Snapshot, assert_refused, nar_of_file, path_of, scripted},
    server::Server,
};

fn key(name: &str) -> SecretKey {
    SecretKey::generate(KeyName::parse(name).unwrap()).unwrap()
}

/// Replaces one field's line of a narinfo.
fn with(text: &str, field: &str, value: &str) -> String {
    let start = format!("{field}: ");
    let mut out = String::new();
    for line in text.lines() {
        match line.starts_with(&start) {
            true => out.push_str(&format!("{field}: {value}\n")),
            false => out.push_str(&format!("{line}\n")),
        }
    }
    assert_ne!(out, text, "{field} is changed");
    out
}

/// A path whose NAR waits, and a server where another path is there already.
struct Waiting {
    server: Server,
    made: Made,
    sent: Sent,
    there: Made,
}

impl Waiting {
    fn new(more: &str) -> Self {
        let server = scripted(more);
        let there = Made::file("there", b"here before\n");
        there.push(&server);
        let mut made = Made::file("waits", format!("{STORE}/{}\n", there.info.path).as_bytes());
        made.info.references = vec![there.info.path.clone()];
        let sent = made.sent("zstd");
        server.connect().put(&sent.url, &sent.bytes).expect(201);
        Self { server, made, sent, there }
    }

    fn text(&self) -> String {
        self.made.narinfo(&self.sent)
    }

    /// Each of these is refused, says why in one line, and changes nothing at all.
    #[track_caller]
    fn refuses(&self, statuses: &[u16], what: &str, text: &str) {
        let before = Snapshot::of(self.server.data());
        let answer = self.server.connect().put(&self.made.url(), text.as_bytes());
        assert_refused(&answer, statuses, what);
        before.assert_same(self.server.data(), what);
        self.server.get(&self.made.url()).expect(404);
    }

    /// The truth is taken after all, and what was there is as it was.
    #[track_caller]
    fn takes_the_truth(&self) {
        self.server.connect().put(&self.made.url(), self.text().as_bytes()).expect(201);
        self.made.assert_served(&self.server);
        self.there.assert_served(&self.server);
    }
}

#[test]
fn push_of_a_narinfo_that_lies_about_hashes_and_sizes_is_refused_with_the_field() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let other = Sha256::of(b"other").to_string();
    for (field, value) in [
        ("NarHash", other.as_str()),
        ("FileHash", &other),
        ("NarSize", "1"),
        ("NarSize", "18446744073709551615"),
        ("FileSize", "1"),
    ] {
        waiting.refuses(&[422], field, &with(&text, field, value));
    }
    waiting.takes_the_truth();
}

#[test]
fn push_of_a_narinfo_that_lies_about_references_is_refused_with_the_reference() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let there = waiting.there.info.path.to_string();
    let stranger = path_of("stranger").to_string();
    // In the bytes, but nowhere else: the reference must be here first.
    waiting.refuses(&[422], &stranger, &with(&text, "References", &format!("{there} {stranger}")));
    // The hash is here, but of a path with another name.
    let (hash, _) = there.split_once('-').unwrap();
    waiting.refuses(&[409], "-renamed", &with(&text, "References", &format!("{hash}-renamed")));
    let missing = Made::file("missing", b"x");
    let mut referring = Made::referring("needs", &[&missing]);
    let sent = referring.sent("zstd");
    let mut connection = waiting.server.connect();
    connection.put(&sent.url, &sent.bytes).expect(201);
    let before = Snapshot::of(waiting.server.data());
    let answer = connection.put(&referring.url(), referring.narinfo(&sent).as_bytes());
    assert_refused(&answer, &[409], missing.info.path.as_str());
    before.assert_same(waiting.server.data(), "a missing reference");
    // A path that holds its own hash refers to itself.
    referring = Made::file("itself", format!("{STORE}/{}\n", path_of("itself")).as_bytes());
    let sent = referring.sent("zstd");
    connection.put(&sent.url, &sent.bytes).expect(201);
    let answer = connection.put(&referring.url(), referring.narinfo(&sent).as_bytes());
    assert_refused(&answer, &[422], "its own path");
    referring.info.references = vec![path_of("itself")];
    connection.put(&referring.url(), referring.narinfo(&sent).as_bytes()).expect(201);
    waiting.takes_the_truth();
}

#[test]
fn push_of_a_second_path_with_bytes_that_are_here_leaves_nothing_when_it_is_refused() {
    let server = scripted("");
    let first = Made::file("first", b"the same bytes\n");
    first.push(&server);
    let mut second = Made::file("second", b"the same bytes\n");
    second.info.references = vec![first.info.path.clone()];
    let before = Snapshot::of(server.data());
    // The NAR is here already, so Nix does not send it.
    let text = second.narinfo(&second.sent("zstd"));
    let answer = server.connect().put(&second.url(), text.as_bytes());
    assert_refused(&answer, &[422], first.info.path.as_str());
    before.assert_same(server.data(), "a refused second path");
    second.info.references.clear();
    let text = second.narinfo(&second.sent("zstd"));
    server.connect().put(&second.url(), text.as_bytes()).expect(201);
    second.assert_served(&server);
    first.assert_served(&server);
}

#[test]
fn push_of_a_wrong_deriver_is_refused() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let no_derivation = format!("{text}Deriver: {}\n", path_of("no-derivation"));
    waiting.refuses(&[422], "deriver", &no_derivation);
    // A derivation that is here, and makes something else.
    let out = path_of("made");
    let derivation = format!(
        r#"Derive([("out","{STORE}/{out}","","")],[],[],"x86_64-linux","/bin/sh",[],[("out","{STORE}/{out}")])"#
    );
    let derivation = Made::of_nar("made.drv", nar_of_file(derivation.as_bytes()));
    derivation.push(&waiting.server);
    let drv = derivation.info.path.to_string();
    waiting.refuses(&[422], &drv, &format!("{text}Deriver: {drv}\n"));
    let mut right = Made::file("made", b"made by it\n");
    right.info.path = out;
    right.info.deriver = Some(derivation.info.path);
    right.push(&waiting.server);
    waiting.takes_the_truth();
}

#[test]
fn push_of_a_forged_content_address_is_refused() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let hash = waiting.made.info.nar_hash.to_nix32();
    let other = Sha256::of(b"other").to_nix32();
    for ca in [
        // The content is right and the path is not made of it, and then the content is not right either.
        format!("fixed:r:sha256:{hash}"),
        format!("fixed:r:sha256:{other}"),
        format!("fixed:sha256:{other}"),
        format!("text:sha256:{other}"),
        "nonsense".to_owned(),
        "fixed:r:sha256:tooshort".to_owned(),
    ] {
        waiting.refuses(&[422], waiting.made.info.path.as_str(), &format!("{text}CA: {ca}\n"));
    }
    waiting.takes_the_truth();
}

#[test]
fn push_of_a_narinfo_that_is_none_is_refused_with_the_field() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let path = waiting.made.info.path.to_string();
    let there = waiting.there.info.path.to_string();
    let full = |directory: &str, path: &str| format!("{directory}/{path}");
    for (what, text) in [
        ("StorePath", with(&text, "StorePath", &full("/gnu/store", &path))),
        ("StorePath", with(&text, "StorePath", &full("/nix/store/../store", &path))),
        ("StorePath", with(&text, "StorePath", "/nix/store/short")),
        (waiting.there.hash().as_str(), with(&text, "StorePath", &full(STORE, &there))),
        ("NarSize", with(&text, "NarSize", "0")),
        ("NarSize", with(&text, "NarSize", "-1")),
        ("NarSize", with(&text, "NarSize", "+1")),
        ("NarSize", with(&text, "NarSize", "18446744073709551616")),
        ("NarHash", with(&text, "NarHash", "sha256:short")),
        ("NarHash", with(&text, "NarHash", "md5:d41d8cd98f00b204e9800998ecf8427e")),
        ("References", with(&text, "References", "../../etc/passwd")),
        ("References", with(&text, "References", &format!("{there}\r"))),
        ("StorePath", text.replacen(&path, &format!("{path}\r"), 1)),
        ("NarSize", text.replacen("NarSize", "\rNarSize", 1)),
        ("Sig", format!("{text}Sig: nonsense\n")),
        ("signatures", format!("{text}{}", format!("Sig: {}\n", junk(&waiting)).repeat(17))),
        ("narinfo", "<!doctype html>\n".to_owned()),
        ("StorePath", String::new()),
        ("line", text.trim_end().to_owned()),
    ] {
        waiting.refuses(&[400, 413, 422], what, &text);
    }
    for field in [
        "StorePath",
        "URL",
        "Compression",
        "FileHash",
        "FileSize",
        "NarHash",
        "NarSize",
        "References",
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{field}: "))).unwrap();
        waiting.refuses(&[422], field, &format!("{text}{line}\n"));
    }
    for (field, value) in [("Deriver", "unknown-deriver"), ("CA", "text:x")] {
        waiting.refuses(&[422], field, &format!("{text}{field}: {value}\n{field}: {value}\n"));
    }
    waiting.takes_the_truth();
}

/// A signature by somebody whom nobody knows.
fn junk(waiting: &Waiting) -> String {
    key("stranger-1").sign(waiting.made.info.path.as_str()).to_string()
}

#[test]
fn push_of_a_narinfo_that_is_too_much_is_refused() {
    let waiting = Waiting::new("");
    let text = waiting.text();
    let one_line = format!("{text}Deriver: {}\n", "x".repeat(1 << 20));
    waiting.refuses(&[413], "bytes", &one_line);
    let many = format!("{} ", waiting.there.info.path).repeat(100_000);
    waiting.refuses(&[413], "bytes", &with(&text, "References", many.trim_end()));
    let many = format!("{} ", waiting.there.info.path).repeat(5000);
    waiting.refuses(&[413], "references", &with(&text, "References", many.trim_end()));
    waiting.takes_the_truth();
}

#[test]
fn push_of_a_bad_signature_by_a_known_key_is_refused_and_that_of_a_stranger_is_kept() {
    let known = key("known-1");
    let waiting = Waiting::new(&format!("trusted_keys = [\"{}\"]", known.public()));
    let text = waiting.text();
    let forged = key("known-1").sign("whatever");
    waiting.refuses(&[422], "known-1", &format!("{text}Sig: {forged}\n"));
    // A good signature, of another path.
    let stolen = waiting.there.clone().signed(&known).info.signatures.remove(0);
    waiting.refuses(&[422], "known-1", &format!("{text}Sig: {stolen}\n"));
    let (own, _) =
        waiting.server.key().split_once(':').map(|(a, b)| (a.to_owned(), b.len())).unwrap();
    waiting.refuses(&[422], &own, &format!("{text}Sig: {}\n", key(&own).sign("whatever")));
    let signed = waiting.made.clone().signed(&known).signed(&key("stranger-1"));
    let text = signed.narinfo(&waiting.sent);
    waiting.server.connect().put(&signed.url(), text.as_bytes()).expect(201);
    let served = waiting.server.get(&signed.url()).expect(200).text();
    for signature in &signed.info.signatures {
        assert!(served.contains(&format!("Sig: {signature}\n")), "{signature} is not in\n{served}");
    }
}

#[test]
fn push_of_a_narinfo_without_its_nar_is_refused() {
    let server = scripted("");
    let made = Made::file("hollow", b"never sent\n");
    let before = Snapshot::of(server.data());
    for compression in ["zstd", "xz", "none"] {
        let text = made.narinfo(&made.sent(compression));
        let answer = server.connect().put(&made.url(), text.as_bytes());
        assert_refused(&answer, &[409], "NAR is not here");
    }
    let elsewhere =
        with(&made.narinfo(&made.sent("zstd")), "URL", "https://elsewhere.test/x.nar.zst");
    let answer = server.connect().put(&made.url(), elsewhere.as_bytes());
    assert_refused(&answer, &[409], "NAR is not here");
    before.assert_same(server.data(), "a narinfo without its NAR");
    server.get(&made.url()).expect(404);
}
