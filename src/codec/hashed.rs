//! A writer that hashes what passes.

use std::io::{self, Write};

use crate::nix::hash::{Hasher, Sha256};

/// Hashes the bytes that the writer below it took.
#[derive(Default)]
pub struct Hashed<W> {
    writer: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    /// Hashes what goes into `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer, hasher: Hasher::default() }
    }

    /// The hash of all that was written, and the writer.
    pub fn finish(self) -> (Sha256, W) {
        (self.hasher.finish().0, self.writer)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.writer.write(bytes)?;
        self.hasher.update(bytes.get(..taken).unwrap_or(bytes));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes three bytes at once.
    struct Narrow(Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(3);
            self.0.write(&bytes[..taken])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_taken_is_hashed_and_nothing_else() {
        let mut hashed = Hashed::new(Narrow(Vec::new()));
        hashed.write_all(b"0123456789").unwrap();
        let (hash, writer) = hashed.finish();
        assert_eq!((hash, &*writer.0), (Sha256::of(b"0123456789"), &b"0123456789"[..]));
    }
}
