//! Any bytes as a narinfo and as a signature: what parses prints, and what is printed parses equal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snowbank::nix::narinfo::{MAX_REFERENCES, MAX_SIGNATURES, NarInfo};
use snowbank::nix::signature::{Signature, fingerprint};
use snowbank::nix::store_path::StoreDir;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(signature) = Signature::parse(text)
    {
        assert_eq!(signature.to_string(), text, "a signature has one form");
    }

    let store_dir = StoreDir::default();
    let Ok(narinfo) = NarInfo::parse(bytes, &store_dir) else { return };
    let info = &narinfo.info;
    assert!(info.nar_size > 0 && !narinfo.url.is_empty() && !narinfo.compression.is_empty());
    assert!(info.references.len() <= MAX_REFERENCES && info.signatures.len() <= MAX_SIGNATURES);
    assert!(info.references.is_sorted_by(|first, second| first < second), "sorted, each once");

    let text = narinfo.to_text(&store_dir);
    let again = NarInfo::parse(text.as_bytes(), &store_dir).expect("what we print we read");
    assert_eq!(again, narinfo);
    assert_eq!(again.to_text(&store_dir), text);

    let signed = fingerprint(&store_dir, info);
    assert_eq!(fingerprint(&store_dir, &again.info), signed);
    // A path has neither of the two separators, so nothing in a field can pass for another field.
    let fields: Vec<_> = signed.split(';').collect();
    let [version, path, nar_hash, nar_size, references] = fields[..] else {
        panic!("a fingerprint has five fields: {signed}")
    };
    assert_eq!(version, "1");
    assert_eq!(path, store_dir.join(&info.path));
    assert_eq!(nar_hash, info.nar_hash.to_string());
    assert_eq!(nar_size, info.nar_size.to_string());
    let expected: Vec<_> = info.references.iter().map(|path| store_dir.join(path)).collect();
    assert_eq!(references, expected.join(","));

    let json = narinfo.to_json(&store_dir);
    assert_eq!(json["references"].as_array().map(Vec::len), Some(info.references.len()));
});
