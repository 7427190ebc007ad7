//! A whole NAR of a source as a reader, for whoever keeps it instead of sending it.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::local::tree::{NarStream, ReadPool};
use super::{Nar, NarBody, TransferError};

impl Nar {
    /// The bytes from the first to the last, `None` where it is not known how many these are. Blocks, and
    /// so does reading.
    pub fn into_reader(
        self,
        pool: &Arc<ReadPool>,
    ) -> Result<Option<Box<dyn Read + Send>>, TransferError> {
        let Some(size) = self.size else { return Ok(None) };
        Ok(match self.body {
            NarBody::Stored(stored) => {
                Some(Box::new(Chunks::new(stored.into_chunks(0..size, size)?)))
            }
            NarBody::Tree(tree) => {
                let mut stream = NarStream::start(pool, tree.tree, None, None);
                Some(Box::new(Chunks::new(std::iter::from_fn(move || stream.next_blocking()))))
            }
            NarBody::Growing(_) => None,
        })
    }
}

struct Chunks<I> {
    chunks: I,
    current: Bytes,
}

impl<I> Chunks<I> {
    const fn new(chunks: I) -> Self {
        Self { chunks, current: Bytes::new() }
    }
}

impl<I, E> Read for Chunks<I>
where
    I: Iterator<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_in_any_portions_and_an_error_is_not_an_end() {
        let chunks = |last: Result<&'static str, &'static str>| {
            let given = [Ok("ab"), Ok(""), Ok("cde"), last];
            Chunks::new(given.into_iter().map(|chunk| chunk.map(Bytes::from)))
        };
        for size in 1..7 {
            let mut reader = chunks(Ok("f"));
            let (mut text, mut buffer) = (Vec::new(), vec![0; size]);
            loop {
                let count = reader.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    break;
                }
            }
            assert_eq!(text, b"abcdef");
        }
        let mut text = Vec::new();
        assert_eq!(
            chunks(Err("the disk")).read_to_end(&mut text).unwrap_err().to_string(),
            "the disk"
        );
        assert_eq!(text, b"abcde");
    }
}
