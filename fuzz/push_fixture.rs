//! What the target `push` finds in its bank, for it and for its seeds.

use snowbank::nix::hash::Sha256;
use snowbank::nix::nar::{Encoder, Event};
use snowbank::nix::nar_url::NarFileName;

/// A path that is visible.
pub(crate) const THERE: &str = "11111111111111111111111111111111-there";
/// A path whose NAR waits, and which refers to THERE.
pub(crate) const WAITS: &str = "22222222222222222222222222222222-waits";

/// The NAR of a path: a file that names another one.
pub(crate) fn nar(name: &str) -> Vec<u8> {
    let contents: &[u8] = if name == THERE { b"there" } else { THERE.as_bytes() };
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
    let size = contents.len() as u64;
    for event in [
        Event::File { executable: false, size, contents_offset: 0 },
        Event::Contents(contents),
        Event::FileEnd,
    ] {
        encoder.event(&event, &mut bytes);
    }
    bytes
}

/// A narinfo of a path that was sent without compression.
pub(crate) fn narinfo(name: &str, references: &str) -> String {
    let nar = nar(name);
    let hash = Sha256::of(&nar);
    let (url, size) = (NarFileName::bare(hash).url(), nar.len());
    format!(
        "StorePath: /nix/store/{name}\nURL: {url}\nCompression: none\nFileHash: {hash}\nFileSize: {size}\n\
         NarHash: {hash}\nNarSize: {size}\nReferences: {references}\n"
    )
}
