//! Any text as a name and as what `zfs`, `zpool` and the kernel print: a name that is accepted is
//! harmless on a command line and has one form, and nothing that is printed makes a panic.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use snowbank::zfs::arc::ArcStats;
use snowbank::zfs::dataset::Dataset;
use snowbank::zfs::mounts::Mounts;
use snowbank::zfs::name::MAX_NAME;
use snowbank::zfs::pool::{Pool, PoolStatus};
use snowbank::zfs::snapshot::SnapshotInfo;
use snowbank::zfs::ssh::Location;
use snowbank::zfs::{Bookmark, DatasetName, PoolName, Snapshot};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    let tank = PoolName::parse("tank").expect("it is a name");
    match kind {
        0 => check_names(&text),
        1 => text.lines().for_each(check_line),
        2 => check_status(PoolStatus::parse_json(&text, &tank)),
        3 => check_status(PoolStatus::parse_text(&text, &tank)),
        4 => {
            let mounts = Mounts::parse(bytes);
            for mount in mounts.iter() {
                assert!(mounts.at(&mount.point).is_some());
            }
            mounts.covering(Path::new("/a/b"));
        }
        _ => drop(ArcStats::parse(&text)),
    }
});

fn check_names(text: &str) {
    let is_harmless = |more: &[u8]| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        assert!(text.bytes().all(|byte| allowed(byte) || more.contains(&byte)), "{text:?}");
        assert!(!text.starts_with('-') && text.len() <= MAX_NAME, "{text:?}");
    };
    if let Ok(name) = DatasetName::parse(text) {
        is_harmless(b"/");
        assert_eq!(name.as_str(), text);
        assert!(name.is_within(&name.pool().root()));
        let parts = text.split('/');
        assert!(parts.clone().all(|part| !["", ".", ".."].contains(&part)), "{text:?}");
        assert_eq!(parts.last(), Some(name.last()));
    }
    if let Ok(snapshot) = Snapshot::parse(text) {
        is_harmless(b"/@");
        assert_eq!(snapshot.to_string(), text);
    }
    if let Ok(bookmark) = Bookmark::parse(text) {
        is_harmless(b"/#");
        assert_eq!(bookmark.to_string(), text);
    }
    if let Ok(location) = text.parse::<Location>() {
        assert_eq!(location.to_string(), text);
        let host = location.host.map_or_else(String::new, |host| host.to_string());
        assert!(
            !host.starts_with('-') && !host.contains([' ', '\'', '"', '$', ';', '\n']),
            "{text:?}"
        );
    }
}

fn check_line(line: &str) {
    if let Ok(dataset) = Dataset::parse(line) {
        assert_ne!(dataset.quota, Some(0), "no quota is none");
        assert!(line.starts_with(dataset.name.as_str()));
    }
    for properties in 0..3 {
        if let Ok(snapshot) = SnapshotInfo::parse(line, properties) {
            assert_eq!(snapshot.properties.len(), properties);
        }
    }
    if let Ok(pool) = Pool::parse(line) {
        assert!(line.starts_with(pool.name.as_str()));
    }
}

fn check_status(status: Result<PoolStatus, String>) {
    let Ok(status) = status else { return };
    assert!(status.damaged_files.len() <= 1000);
    assert!(status.message.is_none_or(|message| !message.contains('\n')));
}
