//! A strict reader that is pushed the bytes of a NAR and calls back with what it finds.

use super::encode::padding;
use super::error::quote;
use super::{Limits, NarError};

/// One thing in a NAR, in the order in which it is there.
///
/// A node is `Directory … DirectoryEnd`, `File Contents* FileEnd` or `Symlink`; in a directory each
/// node comes after its `Entry`. The root has no `Entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A directory opens.
    Directory,
    /// The name of the node that comes next. Bytes, which need not be UTF-8.
    Entry(&'a [u8]),
    /// The directory that was opened last is complete.
    DirectoryEnd,
    /// A regular file begins.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// The length of its contents in bytes.
        size: u64,
        /// Where its contents begin in the uncompressed NAR, in bytes.
        contents_offset: u64,
    },
    /// The next bytes of the file's contents, never empty; cut as they were pushed.
    Contents(&'a [u8]),
    /// The file is complete.
    FileEnd,
    /// A symlink.
    Symlink {
        /// What it points to. Bytes, which need not be UTF-8.
        target: &'a [u8],
    },
}

/// Reads a NAR in pieces of any size, with constant memory.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    expect: Expect,
    /// Where the current word begins, or the current position in a file's contents.
    offset: u64,
    /// What has come of the current word, if it was cut by the end of a piece.
    word: Vec<u8>,
    /// Whether the file whose contents come next is executable.
    executable: bool,
    /// What is left of the current file's contents, and then of its padding.
    contents_left: u64,
    padding_left: usize,
    /// Open directories.
    depth: usize,
    /// For each open directory the name that came last; kept for reuse beyond `depth`.
    last_names: Vec<Vec<u8>>,
    entries: u64,
    failed: Option<NarError>,
}

/// The words of the format, each by what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Magic,
    NodeOpen,
    TypeTag,
    Type,
    EntryOrEnd,
    EntryOpen,
    NameTag,
    Name,
    NodeTag,
    EntryClose,
    ExecutableOrContents,
    ExecutableValue,
    ContentsTag,
    ContentsLength,
    Contents,
    ContentsPadding,
    FileClose,
    TargetTag,
    Target,
    SymlinkClose,
    End,
}

/// Words other than names and targets are at most ten bytes long; Nix allows 32 before it gives up.
const MAX_TAG: u64 = 32;

impl Parser {
    /// A reader at the beginning of a NAR.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            expect: Expect::Magic,
            offset: 0,
            word: Vec::new(),
            executable: false,
            contents_left: 0,
            padding_left: 0,
            depth: 0,
            last_names: Vec::new(),
            entries: 0,
            failed: None,
        }
    }

    /// Reads the next `bytes`, calling `sink` for each event that they complete.
    ///
    /// After an error nothing more is read, and every later call returns the same error.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), NarError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.read(bytes, sink);
        self.failed = result.as_ref().err().cloned();
        result
    }

    /// Says that there are no more bytes; gives the size of the NAR in bytes if it is complete.
    pub fn finish(self) -> Result<u64, NarError> {
        match (self.failed, self.expect) {
            (Some(error), _) => Err(error),
            (None, Expect::End) => Ok(self.offset),
            (None, _) => Err(NarError::Truncated { offset: self.offset + self.word.len() as u64 }),
        }
    }

    /// How many nodes have begun so far.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    fn read(&mut self, mut input: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), NarError> {
        while !input.is_empty() {
            input = match self.expect {
                Expect::Contents => self.read_contents(input, sink),
                Expect::ContentsPadding => self.read_padding(input)?,
                Expect::End => return Err(NarError::TrailingBytes { offset: self.offset }),
                _ => self.read_word(input, sink)?,
            };
        }
        Ok(())
    }

    fn read_contents<'a>(&mut self, input: &'a [u8], sink: &mut impl FnMut(Event<'_>)) -> &'a [u8] {
        let length = usize::try_from(self.contents_left).unwrap_or(usize::MAX).min(input.len());
        let (contents, rest) = input.split_at(length);
        sink(Event::Contents(contents));
        self.offset += length as u64;
        self.contents_left -= length as u64;
        if self.contents_left == 0 {
            self.expect_after_contents();
        }
        rest
    }

    fn expect_after_contents(&mut self) {
        self.expect =
            if self.padding_left > 0 { Expect::ContentsPadding } else { Expect::FileClose };
    }

    fn read_padding<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], NarError> {
        let (zeros, rest) = input.split_at(self.padding_left.min(input.len()));
        check_zeros(zeros, self.offset)?;
        self.offset += zeros.len() as u64;
        self.padding_left -= zeros.len();
        if self.padding_left == 0 {
            self.expect = Expect::FileClose;
        }
        Ok(rest)
    }

    /// Reads one word, without a copy if all of it is in `input`.
    fn read_word<'a>(
        &mut self,
        input: &'a [u8],
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<&'a [u8], NarError> {
        if self.word.is_empty()
            && let Some((length, _)) = input.split_first_chunk()
        {
            let needed = self.check_length(u64::from_le_bytes(*length))?;
            if let Some((word, rest)) = input.split_at_checked(needed) {
                self.accept(word, sink)?;
                return Ok(rest);
            }
        }
        let mut rest = self.collect(input, 8);
        if let Some((length, _)) = self.word.split_first_chunk() {
            let needed = self.check_length(u64::from_le_bytes(*length))?;
            rest = self.collect(rest, needed);
            if self.word.len() == needed {
                let word = std::mem::take(&mut self.word);
                self.accept(&word, sink)?;
                self.word = word;
                self.word.clear();
            }
        }
        Ok(rest)
    }

    /// Takes from `input` until the current word has `needed` bytes.
    fn collect<'a>(&mut self, input: &'a [u8], needed: usize) -> &'a [u8] {
        let missing = needed.saturating_sub(self.word.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.word.extend_from_slice(taken);
        rest
    }

    /// Judges the length of the current word before any of it is kept, and says how many bytes the
    /// word takes with its length and padding.
    fn check_length(&self, length: u64) -> Result<usize, NarError> {
        let offset = self.offset;
        match self.expect {
            Expect::Name if length > self.limits.max_name as u64 => {
                return Err(NarError::NameTooLong { offset, length, limit: self.limits.max_name });
            }
            Expect::Target if length > self.limits.max_target as u64 => {
                let limit = self.limits.max_target;
                return Err(NarError::TargetTooLong { offset, length, limit });
            }
            Expect::Name | Expect::Target | Expect::ContentsLength => {}
            Expect::Magic if length != 13 => return Err(NarError::Magic),
            _ if length > MAX_TAG => {
                return Err(self.unexpected(format!("a word of {length} bytes").as_bytes()));
            }
            _ => {}
        }
        let end = length
            .checked_add(padding(length) as u64 + 8)
            .and_then(|word| word.checked_add(offset))
            .filter(|end| *end <= self.limits.max_size);
        match end {
            None => Err(NarError::TooLarge { offset, limit: self.limits.max_size }),
            Some(_) if self.expect == Expect::ContentsLength => Ok(8),
            // Short by the checks above, so it fits.
            Some(end) => Ok(usize::try_from(end - offset).unwrap_or(usize::MAX)),
        }
    }

    /// Acts upon one whole word: length, bytes and padding.
    fn accept(&mut self, word: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), NarError> {
        let (length, padded) = match word.split_first_chunk() {
            Some((length, padded)) => (u64::from_le_bytes(*length), padded),
            None => (0, word),
        };
        if self.expect == Expect::ContentsLength {
            self.begin_contents(length, sink);
            return Ok(());
        }
        let split = padded.len() - padding(length);
        let (bytes, zeros) = padded.split_at(split);
        check_zeros(zeros, self.offset + 8 + split as u64)?;
        self.expect = self.next(bytes, sink)?;
        self.offset += word.len() as u64;
        Ok(())
    }

    fn begin_contents(&mut self, size: u64, sink: &mut impl FnMut(Event<'_>)) {
        self.offset += 8;
        self.contents_left = size;
        self.padding_left = padding(size);
        let executable = std::mem::take(&mut self.executable);
        sink(Event::File { executable, size, contents_offset: self.offset });
        if size > 0 {
            self.expect = Expect::Contents;
        } else {
            self.expect_after_contents();
        }
    }

    /// What comes after the word `bytes`.
    fn next(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<Expect, NarError> {
        Ok(match (self.expect, bytes) {
            (Expect::Magic, b"nix-archive-1") => Expect::NodeOpen,
            (Expect::Magic, _) => return Err(NarError::Magic),
            (Expect::NodeOpen, b"(") => self.begin_node()?,
            (Expect::TypeTag, b"type") => Expect::Type,
            (Expect::Type, b"directory") => {
                self.begin_directory();
                sink(Event::Directory);
                Expect::EntryOrEnd
            }
            (Expect::Type, b"regular") => Expect::ExecutableOrContents,
            (Expect::Type, b"symlink") => Expect::TargetTag,
            (Expect::EntryOrEnd, b"entry") => Expect::EntryOpen,
            (Expect::EntryOrEnd, b")") => {
                self.depth -= 1;
                sink(Event::DirectoryEnd);
                self.after_node()
            }
            (Expect::EntryOpen, b"(") => Expect::NameTag,
            (Expect::NameTag, b"name") => Expect::Name,
            (Expect::Name, name) => {
                self.check_name(name)?;
                sink(Event::Entry(name));
                Expect::NodeTag
            }
            (Expect::NodeTag, b"node") => Expect::NodeOpen,
            (Expect::EntryClose, b")") => Expect::EntryOrEnd,
            (Expect::ExecutableOrContents, b"executable") => Expect::ExecutableValue,
            (Expect::ExecutableValue, b"") => {
                self.executable = true;
                Expect::ContentsTag
            }
            (Expect::ExecutableOrContents | Expect::ContentsTag, b"contents") => {
                Expect::ContentsLength
            }
            (Expect::FileClose, b")") => {
                sink(Event::FileEnd);
                self.after_node()
            }
            (Expect::TargetTag, b"target") => Expect::Target,
            (Expect::Target, target) => {
                self.check_target(target)?;
                sink(Event::Symlink { target });
                Expect::SymlinkClose
            }
            (Expect::SymlinkClose, b")") => self.after_node(),
            _ => return Err(self.unexpected(bytes)),
        })
    }

    fn begin_node(&mut self) -> Result<Expect, NarError> {
        let offset = self.offset;
        if self.depth >= self.limits.max_depth {
            return Err(NarError::TooDeep { offset, limit: self.limits.max_depth });
        }
        if self.entries >= self.limits.max_entries {
            return Err(NarError::TooManyEntries { offset, limit: self.limits.max_entries });
        }
        self.entries += 1;
        Ok(Expect::TypeTag)
    }

    fn begin_directory(&mut self) {
        match self.last_names.get_mut(self.depth) {
            Some(last) => last.clear(),
            None => self.last_names.push(Vec::new()),
        }
        self.depth += 1;
    }

    const fn after_node(&self) -> Expect {
        if self.depth > 0 { Expect::EntryClose } else { Expect::End }
    }

    fn check_name(&mut self, name: &[u8]) -> Result<(), NarError> {
        let offset = self.offset;
        let illegal = matches!(name, b"" | b"." | b"..")
            || name.iter().any(|byte| matches!(byte, b'/' | b'\0'));
        if illegal {
            return Err(NarError::IllegalName { offset, name: quote(name) });
        }
        let Some(last) = self.last_names.get_mut(self.depth.saturating_sub(1)) else {
            return Ok(());
        };
        match name.cmp(last.as_slice()) {
            std::cmp::Ordering::Less => {
                Err(NarError::Unsorted { offset, name: quote(name), previous: quote(last) })
            }
            std::cmp::Ordering::Equal => Err(NarError::Duplicate { offset, name: quote(name) }),
            std::cmp::Ordering::Greater => {
                last.clear();
                last.extend_from_slice(name);
                Ok(())
            }
        }
    }

    fn check_target(&self, target: &[u8]) -> Result<(), NarError> {
        let offset = self.offset;
        if target.is_empty() {
            return Err(NarError::EmptyTarget { offset });
        }
        if target.contains(&0) {
            return Err(NarError::TargetWithNul { offset });
        }
        Ok(())
    }

    fn unexpected(&self, got: &[u8]) -> NarError {
        let expected = match self.expect {
            Expect::Magic => "\"nix-archive-1\"",
            Expect::NodeOpen | Expect::EntryOpen => "\"(\"",
            Expect::TypeTag => "\"type\"",
            Expect::Type => "\"directory\", \"regular\" or \"symlink\"",
            Expect::EntryOrEnd => "\"entry\" or \")\"",
            Expect::NameTag => "\"name\"",
            Expect::NodeTag => "\"node\"",
            Expect::ExecutableOrContents => "\"executable\" or \"contents\"",
            Expect::ExecutableValue => "an empty word",
            Expect::ContentsTag => "\"contents\"",
            Expect::TargetTag => "\"target\"",
            Expect::EntryClose | Expect::FileClose | Expect::SymlinkClose => "\")\"",
            Expect::Name => "a name",
            Expect::Target => "a target",
            Expect::ContentsLength | Expect::Contents | Expect::ContentsPadding => "contents",
            Expect::End => "the end",
        };
        NarError::Token { offset: self.offset, expected, got: quote(got) }
    }
}

fn check_zeros(zeros: &[u8], offset: u64) -> Result<(), NarError> {
    match zeros.iter().position(|byte| *byte != 0) {
        Some(index) => Err(NarError::Padding { offset: offset + index as u64 }),
        None => Ok(()),
    }
}
