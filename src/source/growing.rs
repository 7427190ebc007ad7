//! A file that is sent while it is being written: a NAR that is baked, or that is fetched from elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use tokio::sync::watch;

/// A file that grows. Whoever reads it reads only what was said to be written.
pub struct GrowingFile {
    file: File,
    progress: watch::Sender<Progress>,
}

/// How far the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// That many bytes of the file are written.
    Growing(u64),
    /// The file is whole, of that many bytes, and its NAR was right.
    Done(u64),
    /// There will be no whole file; why.
    Failed(Arc<str>),
}

impl GrowingFile {
    /// An empty file, of which `file` is a handle.
    pub fn new(file: File) -> Self {
        Self { file, progress: watch::Sender::new(Progress::Growing(0)) }
    }

    /// The file; only bytes that [`Self::watch`] calls written may be read.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Follows the progress.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Says that this many more bytes are written. After the end it says nothing.
    pub fn grew(&self, bytes: u64) {
        self.progress.send_if_modified(|progress| match progress {
            Progress::Growing(written) => {
                *written += bytes;
                true
            }
            Progress::Done(_) | Progress::Failed(_) => false,
        });
    }

    /// Says how it ended, once: what was said first stands.
    pub fn end(&self, end: Progress) {
        self.progress.send_if_modified(|progress| {
            let is_open = matches!(progress, Progress::Growing(_));
            if is_open {
                *progress = end;
            }
            is_open
        });
    }
}

impl Write for &GrowingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (&self.file).write(bytes)?;
        self.grew(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_told_and_the_first_end_stands() {
        let growing = GrowingFile::new(tempfile::tempfile().unwrap());
        let watch = growing.watch();
        (&growing).write_all(b"abc").unwrap();
        assert_eq!(*watch.borrow(), Progress::Growing(3));
        growing.end(Progress::Failed("gone".into()));
        growing.end(Progress::Done(3));
        growing.grew(1);
        assert_eq!(*watch.borrow(), Progress::Failed("gone".into()));
    }
}
