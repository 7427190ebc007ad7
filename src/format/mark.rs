//! The mark on a disk that is being partitioned.
//!
//! `sfdisk` writes a table in several places, one after another: the copy at the end of the disk, the
//! one at its beginning. Killed in between, it leaves a disk that no program takes for blank and none
//! for partitioned. So before it is started, one block is written that says what is about to happen:
//! it lies in the gap that every table leaves before the first partition, it is written past all
//! caches, and it either is there or is not. When the table is whole, and known to the kernel, the
//! mark is taken away.
//!
//! A mark is believed only where there is nothing else to be seen: of a disk with a file system, or
//! with a table that is not the layout's, it proves nothing, because somebody else has been there since.

use super::layout::{MIB, Name};

/// Where the mark is, in bytes: the last block before the first partition.
pub const POSITION: u64 = MIB - SIZE;
/// How much is read to find it.
pub const SIZE: u64 = 4096;

const BEGINNING: &str = "snowbank format is partitioning this disk as ";

/// What is written on the disk that the layout calls `name`.
pub fn text(name: &Name) -> String {
    format!("{BEGINNING}{name}\n")
}

/// Whether `block` is a mark, whatever the disk was called.
pub fn is_mark(block: &[u8]) -> bool {
    let Some(rest) = block.strip_prefix(BEGINNING.as_bytes()) else { return false };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return false };
    let name = rest.get(..end).and_then(|name| str::from_utf8(name).ok());
    name.is_some_and(|name| Name::parse(name).is_some())
        && rest.get(end + 1..).is_some_and(|padding| padding.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_known_again_and_nothing_else_is_one() {
        let mut block = text(&Name::parse("cache").unwrap()).into_bytes();
        block.resize(4096, 0);
        assert!(is_mark(&block));
        let mut longer = block.clone();
        longer[4095] = 1;
        assert!(!is_mark(&longer));
        assert!(!is_mark(&[0; 4096]) && !is_mark(b"") && !is_mark(BEGINNING.as_bytes()));
        assert!(!is_mark(&block[1..]));
    }
}
