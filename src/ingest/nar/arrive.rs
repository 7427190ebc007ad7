//! The bytes of an upload, hashed as they come.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;

use super::super::error::StorageFailure;
use super::{FileFacts, Output};
use crate::fault;
use crate::nix::hash::Hasher;

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Reads from somebody, and hashes and copies what comes as far as that is asked for.
pub(super) struct Arriving<'a, R> {
    input: R,
    hasher: Option<Hasher>,
    copy: Option<Output<'a>>,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not yet taken.
    start: usize,
    end: usize,
}

impl<'a, R: Read> Arriving<'a, R> {
    /// Only reads.
    pub(super) fn plain(input: R) -> Self {
        let buffer = vec![0; BUFFER].into();
        Self { input, hasher: None, copy: None, buffer, start: 0, end: 0 }
    }

    /// Reads and hashes.
    pub(super) fn hashed(input: R) -> Self {
        Self { hasher: Some(Hasher::default()), ..Self::plain(input) }
    }

    /// Reads, hashes and writes into `output`.
    pub(super) fn copied(input: R, output: Output<'a>) -> Self {
        Self { copy: Some(output), ..Self::hashed(input) }
    }

    /// The hash and size of what was read, if it was hashed.
    pub(super) fn facts(self) -> Option<FileFacts> {
        let (hash, size) = self.hasher?.finish();
        Some(FileFacts { hash, size })
    }

    fn refill(&mut self) -> io::Result<()> {
        self.start = 0;
        self.end = 0;
        self.end = loop {
            fault::point("ingest.read")?;
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        let bytes = self.buffer.get(..self.end).unwrap_or_default();
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if let Some(copy) = &mut self.copy {
            copy.write_all(bytes).map_err(|error| io::Error::other(StorageFailure(error)))?;
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Arriving<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.start = (self.start + amount).min(self.end);
    }
}

impl<R: Read> Read for Arriving<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

/// A file of ours from its beginning, whose errors are ours.
pub(super) struct StoredBytes<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> StoredBytes<'a> {
    pub(super) const fn new(file: &'a File) -> Self {
        Self { file, offset: 0 }
    }
}

impl Read for StoredBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.offset..self.offset.saturating_add(buffer.len() as u64);
        let mut read = || self.file.read_at(buffer, self.offset);
        match fault::reading(self.file, part).and_then(|()| read()) {
            Ok(length) => {
                self.offset += length as u64;
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(StorageFailure(error))),
        }
    }
}
