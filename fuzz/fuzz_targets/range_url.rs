//! Any text as each thing that stands in a request: ranges lie inside, and a name that is accepted
//! is the only one for what it means and cannot leave its directory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snowbank::http::range::{Asked, asked, none_match_names};
use snowbank::nix::hash::Sha256;
use snowbank::nix::nar_url::{NarFileName, NarRequest};
use snowbank::nix::realisation::{BuildTraceKey, DrvOutput, OutputName};
use snowbank::nix::store_path::{StoreDir, StorePath, StorePathHash};

fuzz_target!(|bytes: &[u8]| {
    let Some((size, text)) = bytes.split_first_chunk() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    check_range(text, u64::from_le_bytes(*size));
    check_tags(text);
    check_nar_request(text);
    check_store_path(text);
    check_realisation(text);
    check_hash(text);
});

fn check_range(header: &str, size: u64) {
    if let Asked::Part(range) = asked(Some(header), size) {
        assert!(range.start < range.end && range.end <= size, "{range:?} lies inside {size}");
        let plain = format!("bytes={}-{}", range.start, range.end - 1);
        assert_eq!(asked(Some(&plain), size), Asked::Part(range));
    }
}

fn check_tags(header: &str) {
    let tag = "\"tag\"";
    if none_match_names(header, tag) {
        assert!(header.contains(tag) || header.trim() == "*");
    }
    assert!(none_match_names(&format!("{header}, W/{tag}"), tag), "one more tag is one more");
}

fn check_nar_request(text: &str) {
    let (name, query) = match text.split_once('?') {
        Some((name, query)) => (name, Some(query)),
        None => (text, None),
    };
    match NarRequest::parse(name, query) {
        Some(NarRequest::File { name: file, path }) => {
            assert_eq!(file.file_name(), name, "a file has one name");
            assert_eq!(NarFileName::parse(name), Some(file));
            assert_eq!(file.url(), format!("nar/{name}"));
            assert!(!name.contains(['/', '\0']));
            if let Some(path) = path {
                let query = format!("hash={path}");
                let again = NarRequest::parse(name, Some(&query));
                assert_eq!(again, Some(NarRequest::File { name: file, path: Some(path) }));
            }
        }
        Some(NarRequest::OfPath { path, nar_hash }) => {
            let hash = nar_hash.map_or_else(String::new, |hash| format!("-{}", hash.to_nix32()));
            assert_eq!(format!("{path}{hash}.nar"), name, "a path has one name");
        }
        None => {}
    }
}

fn check_store_path(text: &str) {
    if let Some(hash) = StorePathHash::parse(text) {
        assert_eq!(hash.to_string(), text);
        assert_eq!(StorePathHash::from_bytes(*hash.as_bytes()), hash);
    }
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.as_str(), text);
        assert_eq!(format!("{}-{}", path.hash(), path.name()), text);
        assert!(!text.contains(['/', '\0', '\n']));
        let store_dir = StoreDir::default();
        assert_eq!(store_dir.parse_path(&store_dir.join(&path)), Ok(path));
    }
    if let Ok(store_dir) = StoreDir::parse(text) {
        assert_eq!(store_dir.as_str(), text);
        assert!(text.starts_with('/') && !text.ends_with('/') && !text.contains("/../"));
    }
}

fn check_realisation(text: &str) {
    if let Some(output) = OutputName::parse(text) {
        assert_eq!(output.as_str(), text);
        assert!(!text.contains(['/', '\0', '!']) && text != "." && text != "..");
    }
    if let Some(key) = DrvOutput::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Some((derivation, output)) = text.split_once('/')
        && let Some(key) = BuildTraceKey::parse(derivation, output)
    {
        assert_eq!(format!("{}/{}", key.derivation, key.output.as_str()), text);
        assert!(derivation.ends_with(".drv"));
    }
}

fn check_hash(text: &str) {
    if let Ok(hash) = Sha256::parse(text) {
        assert_eq!(Sha256::parse(&hash.to_string()), Ok(hash));
        assert_eq!(Sha256::parse(&hash.to_sri()), Ok(hash));
    }
    if let Some(hash) = Sha256::from_nix32(text) {
        assert_eq!(hash.to_nix32(), text, "a hash has one form in names");
    }
}
