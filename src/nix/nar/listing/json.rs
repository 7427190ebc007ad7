//! A listing as Nix writes it: compact JSON with sorted keys.
//!
//! Names and targets in a NAR are bytes, and JSON is text. Nix refuses to list a NAR with a name
//! that is not UTF-8. We must not fail to publish such a path, so each byte that is not part of
//! UTF-8 is written as U+FFFD and the byte's two hexadecimal digits (`caf\xe9` is `caf�E9`), which
//! is valid JSON, unique, and readable; reading turns it back. So that this is reversible, a real
//! U+FFFD that happens to stand before two such digits is written byte by byte too. Any other text
//! is written exactly as Nix writes it.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{Entries, Listing, Node};

impl Listing {
    /// Writes the JSON of a `.ls` file, byte for byte as Nix does (without a newline).
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = b"{\"root\":".to_vec();
        write_node(&self.root, &mut out);
        out.extend_from_slice(b",\"version\":1}");
        out
    }
}

/// Recursion here is bounded: neither builder nor reader makes a tree deeper than
/// [`Limits::max_depth`](super::super::Limits::max_depth).
fn write_node(node: &Node, out: &mut Vec<u8>) {
    match node {
        Node::Directory(entries) => write_entries(entries, out),
        Node::Regular { size, executable, nar_offset } => {
            let executable: &[u8] = if *executable { b"true" } else { b"false" };
            out.extend_from_slice(b"{\"executable\":");
            out.extend_from_slice(executable);
            if *nar_offset != 0 {
                out.extend_from_slice(b",\"narOffset\":");
                write_number(*nar_offset, out);
            }
            out.extend_from_slice(b",\"size\":");
            write_number(*size, out);
            out.extend_from_slice(b",\"type\":\"regular\"}");
        }
        Node::Symlink { target } => {
            out.extend_from_slice(b"{\"target\":");
            write_text(target, out);
            out.extend_from_slice(b",\"type\":\"symlink\"}");
        }
    }
}

fn write_entries(entries: &Entries, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"entries\":{");
    for (index, (name, node)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name, out);
        out.push(b':');
        write_node(node, out);
    }
    out.extend_from_slice(b"},\"type\":\"directory\"}");
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

/// The same escapes as nlohmann::json, which Nix uses: only what JSON requires.
fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in to_text(bytes).bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

const REPLACEMENT: &str = "\u{fffd}";

/// Shows bytes as text, reversibly.
pub(super) fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(REPLACEMENT)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            rest = &rest[character.len_utf8()..];
            if character == '\u{fffd}' && escaped_byte(rest).is_some() {
                escape(REPLACEMENT.as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape(chunk.invalid(), &mut text);
        rest = &rest[chunk.invalid().len()..];
    }
    Cow::Owned(text)
}

/// The bytes that [`to_text`] shows as `text`.
pub(super) fn from_text(text: &str) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = rest.strip_prefix(REPLACEMENT.as_bytes()).and_then(escaped_byte);
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[REPLACEMENT.len() + 2..] } else { tail };
    }
    bytes.into()
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{REPLACEMENT}{byte:02X}");
    }
}

/// The byte that two digits after a U+FFFD stand for. Bytes below 0x80 are always UTF-8, so they
/// never stand escaped.
fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let [high, low, ..] = *digits else { return None };
    let byte = digit(high)? * 16 + digit(low)?;
    (byte >= 0x80).then_some(byte)
}
