//! The framing of a NAR: turns [`Event`]s into bytes.

use super::read::Event;

/// Writes the words around names, targets and contents.
///
/// It is for writers that walk a real tree, so it trusts the order of the events; names must come
/// sorted and legal. It keeps no contents: a writer that copies contents itself sends
/// [`Event::File`] and [`Event::FileEnd`] and leaves [`Event::Contents`] out.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    started: bool,
    /// Open directories.
    depth: usize,
    /// The size of the open file, of which only the padding depends.
    file_size: u64,
}

/// How many zeros follow `length` bytes, up to a multiple of eight.
pub const fn padding(length: u64) -> usize {
    ((8 - (length & 7)) & 7) as usize
}

impl Encoder {
    /// Appends the bytes of `event` to `out`.
    pub fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if !self.started {
            self.started = true;
            out.extend_from_slice(&MAGIC);
        }
        match *event {
            Event::Directory => {
                self.depth += 1;
                out.extend_from_slice(&DIRECTORY);
            }
            Event::Entry(name) => {
                out.extend_from_slice(&ENTRY);
                word(name, out);
                out.extend_from_slice(&NODE);
            }
            Event::DirectoryEnd => {
                self.depth = self.depth.saturating_sub(1);
                self.close_node(out);
            }
            Event::File { executable, size, .. } => {
                self.file_size = size;
                out.extend_from_slice(if executable { EXECUTABLE } else { REGULAR });
                out.extend_from_slice(&CONTENTS);
                out.extend_from_slice(&size.to_le_bytes());
            }
            Event::Contents(bytes) => out.extend_from_slice(bytes),
            Event::FileEnd => {
                out.extend_from_slice(&[0; 8][..padding(self.file_size)]);
                self.close_node(out);
            }
            Event::Symlink { target } => {
                out.extend_from_slice(&SYMLINK);
                word(target, out);
                self.close_node(out);
            }
        }
    }

    /// A node ends with one parenthesis, and its directory entry, if it is in one, with another.
    fn close_node(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&CLOSE);
        if self.depth > 0 {
            out.extend_from_slice(&CLOSE);
        }
    }
}

fn word(bytes: &[u8], out: &mut Vec<u8>) {
    let length = bytes.len() as u64;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(&[0; 8][..padding(length)]);
}

const MAGIC: [u8; 24] = words(&[b"nix-archive-1"]);
const DIRECTORY: [u8; 56] = words(&[b"(", b"type", b"directory"]);
const ENTRY: [u8; 48] = words(&[b"entry", b"(", b"name"]);
const NODE: [u8; 16] = words(&[b"node"]);
const REGULAR: &[u8] = &words::<48>(&[b"(", b"type", b"regular"]);
const EXECUTABLE: &[u8] = &words::<80>(&[b"(", b"type", b"regular", b"executable", b""]);
const CONTENTS: [u8; 16] = words(&[b"contents"]);
const SYMLINK: [u8; 64] = words(&[b"(", b"type", b"symlink", b"target"]);
const CLOSE: [u8; 16] = words(&[b")"]);

/// Encodes short tokens at compile time; a wrong `N` does not compile.
const fn words<const N: usize>(tokens: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    let mut index = 0;
    while index < tokens.len() {
        let token = tokens[index];
        out[at] = token.len().to_le_bytes()[0];
        at += 8;
        let mut byte = 0;
        while byte < token.len() {
            out[at + byte] = token[byte];
            byte += 1;
        }
        at += token.len().next_multiple_of(8);
        index += 1;
    }
    assert!(at == N);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_up_to_eight() {
        let lengths = [0, 1, 7, 8, 9, 255, u64::MAX];
        assert_eq!(lengths.map(padding), [0, 7, 1, 0, 7, 1, 1]);
    }

    #[test]
    fn one_small_file_is_the_bytes_that_nix_writes() {
        let mut out = Vec::new();
        let mut encoder = Encoder::default();
        for event in [
            Event::File { executable: true, size: 3, contents_offset: 0 },
            Event::Contents(b"abc"),
            Event::FileEnd,
        ] {
            encoder.event(&event, &mut out);
        }
        let expected = b"\x0d\0\0\0\0\0\0\0nix-archive-1\0\0\0\x01\0\0\0\0\0\0\0(\0\0\0\0\0\0\0\
            \x04\0\0\0\0\0\0\0type\0\0\0\0\x07\0\0\0\0\0\0\0regular\0\
            \x0a\0\0\0\0\0\0\0executable\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
            \x08\0\0\0\0\0\0\0contents\x03\0\0\0\0\0\0\0abc\0\0\0\0\0\x01\0\0\0\0\0\0\0)\0\0\0\0\0\0\0";
        assert_eq!(out, expected);
    }
}
