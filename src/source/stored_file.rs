//! A file of stored bytes on its way out, which says where it came from when it cannot be read.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::chunks::{read_if_cached, read_part};
use crate::bank::is_read_error;
use crate::codec::read_at::ReadAt;
use crate::fault;

/// Is told which part of a file could not be read, and why. It may block, and is called where the read was.
pub type OnReadError = Arc<dyn Fn(Range<u64>, &io::Error) + Send + Sync>;

/// A file that is read at any position, by many at once.
pub struct StoredFile {
    file: File,
    /// Where the next byte of [`Read`] is; each clone has its own.
    position: u64,
    on_error: Option<OnReadError>,
}

impl StoredFile {
    /// A file of which nobody needs to know that it cannot be read.
    pub const fn new(file: File) -> Self {
        Self { file, position: 0, on_error: None }
    }

    /// A file whose errors are told.
    pub fn watched(file: File, on_error: OnReadError) -> Self {
        Self { file, position: 0, on_error: Some(on_error) }
    }

    /// The same file, to be read from its beginning.
    pub fn try_clone(&self) -> io::Result<Self> {
        let on_error = self.on_error.clone();
        Ok(Self { file: self.file.try_clone()?, position: 0, on_error })
    }

    /// Reads the first byte: on ZFS that checks the whole of the first record, which of most NARs is
    /// all there is.
    pub fn probe(&self) -> io::Result<()> {
        self.telling(0..1, || self.file.read_at(&mut [0], 0).map(drop))
    }

    /// Reads exactly `size` bytes at `offset`, at most [`super::chunks::CHUNK`].
    pub fn read_part(&self, offset: u64, size: usize) -> io::Result<Bytes> {
        let part = offset..offset.saturating_add(size as u64);
        self.telling(part, || read_part(&self.file, offset, size))
    }

    /// The same if that needs no disk; `None` where it would, or where it goes wrong.
    pub fn read_if_cached(&self, offset: u64, size: usize) -> Option<Bytes> {
        fault::reading(&self.file, offset..offset.saturating_add(size as u64)).ok()?;
        read_if_cached(&self.file, offset, size)
    }

    fn telling<T>(&self, part: Range<u64>, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let result = fault::reading(&self.file, part.clone()).and_then(|()| read());
        if let (Err(error), Some(tell)) = (&result, &self.on_error)
            && is_read_error(error)
        {
            tell(part, error);
        }
        result
    }
}

impl Read for StoredFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.position;
        let part = position..position.saturating_add(buffer.len() as u64);
        let count = self.telling(part, || self.file.read_at(buffer, position))?;
        self.position += count as u64;
        Ok(count)
    }
}

impl ReadAt for StoredFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = offset..offset.saturating_add(buffer.len() as u64);
        self.telling(part, || FileExt::read_exact_at(&self.file, buffer, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_way_of_reading_tells_of_a_disk_that_fails_and_of_nothing_else() {
        let told: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
        let noted = Arc::clone(&told);
        let tell: OnReadError = Arc::new(move |part, error| {
            assert!(is_read_error(error));
            noted.lock().unwrap().push(part);
        });
        // The first page of a process is mapped to nothing: reading it is a true EIO.
        let open = || File::open("/proc/self/mem").unwrap();
        let mut failing = StoredFile::watched(open(), Arc::clone(&tell));
        assert!(failing.probe().is_err());
        assert!(failing.read_part(8, 10).is_err());
        assert!(failing.read(&mut [0; 4]).is_err());
        assert!(failing.try_clone().unwrap().read_exact_at(&mut [0; 4], 16).is_err());
        assert!(failing.read_if_cached(0, 1).is_none());
        assert_eq!(*told.lock().unwrap(), [0..1, 8..18, 0..4, 16..20]);

        let mut short = StoredFile::watched(tempfile::tempfile().unwrap(), tell);
        assert!(short.probe().is_ok() && short.read(&mut [0]).unwrap() == 0);
        assert!(short.read_part(0, 1).is_err() && short.read_exact_at(&mut [0], 0).is_err());
        assert_eq!(told.lock().unwrap().len(), 4);
        assert!(StoredFile::new(open()).probe().is_err());
    }

    #[test]
    fn a_clone_reads_from_the_beginning() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        let mut first = StoredFile::new(file);
        let mut text = [0; 2];
        first.read_exact(&mut text).unwrap();
        let mut second = first.try_clone().unwrap();
        let mut whole = String::new();
        second.read_to_string(&mut whole).unwrap();
        assert_eq!((&text, whole.as_str()), (b"ab", "abc"));
    }
}
