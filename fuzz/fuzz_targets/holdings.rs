//! Any bytes as what a peer says that it holds: what is read is told as it was read, and learnt without harm.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snowbank::index::holdings::{Held, Known, News};
use snowbank::nix::store_path::StorePathHash;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(known) = Known::parse(text)
    {
        assert_eq!(Known::parse(&known.query()), Some(known));
    }
    let Ok(news) = News::read(bytes) else { return };
    assert_eq!(news.to_bytes(), bytes, "there is one way to tell it");
    let (known, told) = (news.known, news.len());
    let mut held = Held::default();
    assert!(held.may_have(StorePathHash::from_bytes([0; 20])), "nothing is known yet");
    held.learn(news.clone());
    held.learn(news);
    assert_eq!(held.known(), Some(known));
    assert!(held.len() >= told && held.len() <= 2 * told);
});
