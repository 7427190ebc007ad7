//! Cuts the NAR of a tree into segments before any contents are read.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::walk::Walker;
use super::{StoreTree, TreeError};
use crate::nix::nar::{Encoder, Event};

/// Large files are read in ranges of this many bytes, at multiples of it: two records of a dataset
/// with the default recordsize, so that no record is read for two segments.
pub(super) const STRIDE: u64 = 256 << 10;
/// The most bytes in a segment: a stride of a file, and the largest framing of one node before it
/// and one after it.
pub(super) const SEGMENT: usize = (256 + 16) << 10;
/// The most bytes of paths in a segment. Long paths to tiny files would else need more memory than
/// the segment itself.
const MAX_PATHS: usize = 64 << 10;
/// A range deep in a tree makes the planner pass over many nodes; after this many it lets other
/// streams have the thread.
const STEPS_AT_ONCE: usize = 1024;

/// A stretch of the NAR, as yet without the contents of files.
pub(super) struct Segment {
    /// What paths are relative to.
    pub(super) anchor: Arc<OwnedFd>,
    pub(super) pieces: Vec<Piece>,
    /// The bytes of all `Piece::Framing`, one after another.
    pub(super) framing: Vec<u8>,
    /// The paths of all `Piece::File`, one after another.
    pub(super) paths: Vec<u8>,
    /// How many bytes of the NAR it is.
    pub(super) length: usize,
}

/// What a segment consists of.
pub(super) enum Piece {
    /// The next so many bytes of the segment's framing.
    Framing(usize),
    /// A file that lies in this segment only; its path is the next so many bytes of `paths`.
    File { path_length: usize, size: u64, range: Range<u64> },
    /// A range of a file that lies in several segments.
    Part { file: Arc<LargeFile>, range: Range<u64> },
}

/// A file that several segments read, and the first opens.
pub(super) struct LargeFile {
    pub(super) path: Box<[u8]>,
    pub(super) size: u64,
    pub(super) opened: Mutex<Option<Arc<OwnedFd>>>,
}

/// What one call of [`Planner::next`] came to.
pub(super) enum Planned {
    Segment(Segment),
    /// Nothing yet; there is more to walk.
    Nothing,
    /// The plan is complete, with this as the last segment.
    End(Option<Segment>),
}

/// Turns a walk into segments, for a range of the NAR.
pub(super) struct Planner {
    walker: Walker,
    walked: bool,
    encoder: Encoder,
    /// What is asked for.
    range: Range<u64>,
    /// The size that the whole NAR must have, if it is asked for and known.
    expected_size: Option<u64>,
    max_size: u64,
    /// The position in the NAR.
    offset: u64,
    segment: Segment,
    step: Step,
}

/// What the last step of the walk adds to the NAR, as far as it is not yet in a segment.
#[derive(Default)]
struct Step {
    before: Vec<u8>,
    path: Vec<u8>,
    size: u64,
    /// How much of the file's contents is planned.
    planned: u64,
    large: Option<Arc<LargeFile>>,
    after: Vec<u8>,
}

impl Planner {
    /// A plan for `range` of the NAR of `tree`.
    pub(super) fn new(tree: StoreTree, range: Range<u64>, expected_size: Option<u64>) -> Self {
        let max_size = tree.limits.max_size;
        let walker = Walker::new(tree);
        Self {
            segment: Segment::new(walker.anchor().clone()),
            walker,
            walked: false,
            encoder: Encoder::default(),
            range,
            expected_size,
            max_size,
            offset: 0,
            step: Step::default(),
        }
    }

    /// Walks on until a segment is full.
    pub(super) fn next(&mut self) -> Result<Planned, TreeError> {
        for _ in 0..STEPS_AT_ONCE {
            if let Some(segment) = self.place_step() {
                return Ok(Planned::Segment(segment));
            }
            self.check_size()?;
            if self.walked || self.offset >= self.range.end {
                return self.end();
            }
            self.walk()?;
        }
        Ok(Planned::Nothing)
    }

    fn walk(&mut self) -> Result<(), TreeError> {
        let (step, encoder) = (&mut self.step, &mut self.encoder);
        step.before.clear();
        step.after.clear();
        (step.size, step.planned, step.large) = (0, 0, None);
        let more = self.walker.step(&mut |event, path| match event {
            Event::FileEnd => encoder.event(&event, &mut step.after),
            Event::File { size, .. } => {
                encoder.event(&event, &mut step.before);
                step.size = size;
                step.path.clear();
                step.path.extend_from_slice(path);
            }
            _ => encoder.event(&event, &mut step.before),
        })?;
        self.walked = !more;
        Ok(())
    }

    /// Puts what the last step added into the segment; gives the segment back when it is full.
    fn place_step(&mut self) -> Option<Segment> {
        if !self.step.before.is_empty() {
            if !self.fits(self.step.before.len() as u64, 0) {
                return Some(self.take_segment());
            }
            let before = std::mem::take(&mut self.step.before);
            self.place_framing(&before);
            self.step.before = before;
            self.step.before.clear();
        }
        while self.step.planned < self.step.size {
            let start = self.step.planned;
            let end = (start / STRIDE + 1).saturating_mul(STRIDE).min(self.step.size);
            if !self.fits(end - start, self.step.path.len()) {
                return Some(self.take_segment());
            }
            self.place_contents(start..end);
            self.step.planned = end;
        }
        if !self.step.after.is_empty() {
            if !self.fits(self.step.after.len() as u64, 0) {
                return Some(self.take_segment());
            }
            let after = std::mem::take(&mut self.step.after);
            self.place_framing(&after);
            self.step.after = after;
            self.step.after.clear();
        }
        None
    }

    /// Whether the next `length` bytes of the NAR, as far as they are asked for, go into the
    /// current segment. An empty segment takes whatever comes.
    fn fits(&self, length: u64, path_length: usize) -> bool {
        let wanted = self.clip(length).map_or(0, |clipped| clipped.end - clipped.start);
        let room = (SEGMENT - self.segment.length) as u64;
        self.segment.length == 0
            || (wanted <= room && self.segment.paths.len() + path_length <= MAX_PATHS)
    }

    /// Which of the next `length` bytes of the NAR are asked for.
    fn clip(&self, length: u64) -> Option<Range<u64>> {
        let start = self.range.start.saturating_sub(self.offset).min(length);
        let end = self.range.end.saturating_sub(self.offset).min(length);
        (start < end).then_some(start..end)
    }

    fn place_framing(&mut self, bytes: &[u8]) {
        if let Some(clipped) = self.clip(bytes.len() as u64) {
            // The range is one of `bytes`, so it fits.
            let index = |position| usize::try_from(position).unwrap_or(bytes.len());
            let bytes = &bytes[index(clipped.start)..index(clipped.end)];
            self.segment.framing.extend_from_slice(bytes);
            self.segment.length += bytes.len();
            match self.segment.pieces.last_mut() {
                Some(Piece::Framing(length)) => *length += bytes.len(),
                _ => self.segment.pieces.push(Piece::Framing(bytes.len())),
            }
        }
        self.offset += bytes.len() as u64;
    }

    fn place_contents(&mut self, range: Range<u64>) {
        let length = range.end - range.start;
        if let Some(clipped) = self.clip(length) {
            let wanted = range.start + clipped.start..range.start + clipped.end;
            // At most a stride.
            self.segment.length += usize::try_from(wanted.end - wanted.start).unwrap_or(SEGMENT);
            let (size, path) = (self.step.size, &self.step.path);
            self.segment.pieces.push(if size <= STRIDE {
                self.segment.paths.extend_from_slice(path);
                Piece::File { path_length: path.len(), size, range: wanted }
            } else {
                let file = self.step.large.get_or_insert_with(|| {
                    Arc::new(LargeFile {
                        path: path.as_slice().into(),
                        size,
                        opened: Mutex::new(None),
                    })
                });
                Piece::Part { file: file.clone(), range: wanted }
            });
        }
        self.offset += length;
    }

    fn take_segment(&mut self) -> Segment {
        let empty = Segment::new(self.walker.anchor().clone());
        let mut segment = std::mem::replace(&mut self.segment, empty);
        segment.anchor = self.walker.anchor().clone();
        segment
    }

    fn check_size(&self) -> Result<(), TreeError> {
        match self.expected_size {
            Some(expected) if self.offset > expected => {
                Err(TreeError::SizeMismatch { expected, got: self.offset })
            }
            _ if self.offset > self.max_size => Err(self.walker.beyond("too many bytes")),
            _ => Ok(()),
        }
    }

    fn end(&mut self) -> Result<Planned, TreeError> {
        // The whole must be exactly as long as expected, a range must not reach beyond the NAR.
        let least = self.expected_size.unwrap_or(match self.range.end {
            u64::MAX => 0,
            end => end,
        });
        if self.offset < least {
            return Err(TreeError::SizeMismatch { expected: least, got: self.offset });
        }
        let last = self.take_segment();
        Ok(Planned::End((last.length > 0).then_some(last)))
    }
}

impl Segment {
    fn new(anchor: Arc<OwnedFd>) -> Self {
        Self { anchor, pieces: Vec::new(), framing: Vec::new(), paths: Vec::new(), length: 0 }
    }
}
