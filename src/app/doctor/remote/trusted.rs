//! Keys: with which the cache signs, and whether they are trusted here.

use super::super::Finding;
use super::Client;
use super::agent::Cache;
use crate::client::nix_conf::view::View;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::fingerprint;
use crate::nix::store_path::StoreDir;
use crate::sign::PublicKey;

/// Who said it is not known here, so nobody should take it without a look.
const COMPARE: &str = "once you have compared it with what the cache's administrator says";

/// Judges the keys that the page of the cache shows.
pub(super) fn keys_of_page(client: &Client<'_>, cache: &Cache, findings: &mut Vec<Finding>) {
    let keys = shown_keys(cache);
    if keys.is_empty() {
        findings.push(Finding::skipped(
            "the key of the cache",
            "its page does not show one; with `--path` a signature shows which it is",
        ));
    }
    for key in &keys {
        findings.extend(client.in_each_view(|view| judge_key(view, key)));
    }
}

/// The keys that the page of the cache says to trust, if it has such a page.
pub(super) fn shown_keys(cache: &Cache) -> Vec<PublicKey> {
    match cache.get("") {
        Ok(answer) if answer.status == 200 => keys_in(&String::from_utf8_lossy(&answer.body)),
        _ => Vec::new(),
    }
}

fn keys_in(page: &str) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    let words = page.split(|character: char| {
        character.is_whitespace() || matches!(character, '"' | '\'' | '<' | '>' | ';' | ',')
    });
    for key in words.filter_map(PublicKey::parse) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn trusted_keys(view: &View) -> Vec<PublicKey> {
    view.conf.list("trusted-public-keys").filter_map(PublicKey::parse).collect()
}

fn judge_key(view: &View, key: &PublicKey) -> Finding {
    let trusted = trusted_keys(view);
    let name = key.name();
    if trusted.contains(key) {
        return Finding::ok(format!("key: {name} is trusted"));
    }
    if view.conf.is_false("require-sigs") {
        return unchecked(view);
    }
    if trusted.iter().any(|other| other.name() == name) {
        return Finding::problem(
            format!(
                "key: the cache signs with {key}, and nix.conf trusts another key of that name"
            ),
            format!("replace it in trusted-public-keys of {}, {COMPARE}", view.file.display()),
        );
    }
    Finding::problem(
        format!(
            "key: untrusted: the cache signs with {name}, which is none of the trusted-public-keys"
        ),
        format!(
            "write `extra-trusted-public-keys = {key}` into {}, {COMPARE}",
            view.file.display()
        ),
    )
}

fn unchecked(view: &View) -> Finding {
    Finding::warning(
        "key: require-sigs is false: Nix takes whatever comes, signed by anybody or nobody",
        format!("take `require-sigs = false` out of {}, and trust the key", view.file.display()),
    )
}

/// Judges the signatures of a path. `shown` are the keys of the cache's page.
pub(in crate::app) fn judge_signatures(
    view: &View,
    store_dir: &StoreDir,
    info: &PathInfo,
    shown: &[PublicKey],
) -> Finding {
    let text = fingerprint(store_dir, info);
    let trusted = trusted_keys(view);
    let good = |key: &&PublicKey| info.signatures.iter().any(|sig| key.verifies(&text, sig));
    if let Some(key) = trusted.iter().find(good) {
        return Finding::ok(format!("signature: good, by {}, which is trusted", key.name()));
    }
    if view.conf.is_false("require-sigs") {
        return unchecked(view);
    }
    if info.ca.is_some() {
        return Finding::ok("signature: none is needed, the path is addressed by its content");
    }
    let names: Vec<&str> = info.signatures.iter().map(|sig| sig.key_name().as_str()).collect();
    if names.is_empty() {
        return Finding::problem(
            "signature: the path has none, so Nix does not take it",
            "have the cache sign it (`nix store sign`), or push it to one that signs what it serves",
        );
    }
    let of_that_name = |key: &&PublicKey| names.contains(&key.name().as_str());
    if let Some(key) = trusted.iter().find(of_that_name) {
        return Finding::problem(
            format!(
                "signature: that by {} is not of the key which nix.conf trusts by that name",
                key.name()
            ),
            "the cache has another key now, or the narinfo was changed on the way: ask its administrator",
        );
    }
    let key =
        shown.iter().find(good).map_or_else(|| format!("{}:…", names[0]), ToString::to_string);
    Finding::problem(
        format!(
            "signature: untrusted key: signed by {}, none of which is in trusted-public-keys",
            names.join(", ")
        ),
        format!(
            "write `extra-trusted-public-keys = {key}` into {}, {COMPARE}",
            view.file.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::nix_conf::NixConf;
    use crate::client::nix_conf::view::{AuthoritiesFile, Who};
    use crate::nix::hash::Sha256;
    use crate::nix::signature::KeyName;
    use crate::nix::store_path::StorePath;
    use crate::sign::SecretKey;

    fn view(text: &str) -> View {
        let mut conf = NixConf::with_defaults();
        conf.apply_text(text, "x");
        let authorities = AuthoritiesFile { path: "/ca".into(), named_by: "x" };
        let (file, netrc) = ("/etc/nix/nix.conf".into(), "/etc/nix/netrc".into());
        View { who: Who::User, conf, file, authorities, netrc, cache: None, origin: None }
    }

    fn key(name: &str) -> SecretKey {
        SecretKey::generate(KeyName::parse(name).unwrap()).unwrap()
    }

    #[test]
    fn the_keys_of_a_page_are_found_in_its_text() {
        let (one, two) = (key("one-1").public(), key("two-1").public());
        let page = format!(
            "<pre>extra-trusted-public-keys = {one} {two}\n</pre><p>[ \"{one}\" ]; a:b https://x</p>"
        );
        assert_eq!(keys_in(&page), [one, two]);
        assert!(keys_in("<html>").is_empty());
    }

    #[test]
    fn a_key_is_trusted_unknown_or_another_of_the_same_name() {
        let ours = key("cache-1").public();
        let said = |text: &str| judge_key(&view(text), &ours).to_string();
        assert!(said(&format!("extra-trusted-public-keys = {ours}")).starts_with("ok"));
        let unknown = said("");
        assert!(unknown.contains("untrusted") && unknown.contains(&ours.to_string()), "{unknown}");
        let other = key("cache-1").public();
        let other = said(&format!("trusted-public-keys = {other}"));
        assert!(other.contains("another key of that name"), "{other}");
        assert!(said("require-sigs = false").starts_with("warning"));
    }

    #[test]
    fn a_signature_is_judged_by_the_trusted_keys() {
        let (secret, store_dir) = (key("cache-1"), StoreDir::default());
        let path = StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        let mut info = PathInfo::new(path, Sha256::of(b"x"), 1);
        let said = |text: &str, info: &PathInfo, shown: &[PublicKey]| {
            judge_signatures(&view(text), &store_dir, info, shown).to_string()
        };
        assert!(said("", &info, &[]).contains("the path has none"));
        info.signatures = vec![secret.sign(&fingerprint(&store_dir, &info))];
        let trusts = format!("trusted-public-keys = {}", secret.public());
        assert!(said(&trusts, &info, &[]).starts_with("ok"));
        let unknown = said("", &info, &[secret.public()]);
        assert!(unknown.contains("untrusted key: signed by cache-1"), "{unknown}");
        assert!(unknown.contains(&secret.public().to_string()), "{unknown}");
        info.nar_size = 2;
        assert!(said(&trusts, &info, &[]).contains("is not of the key"));
        info.ca = Some("fixed:r:sha256:x".into());
        assert!(said("", &info, &[]).contains("none is needed"));
    }
}
