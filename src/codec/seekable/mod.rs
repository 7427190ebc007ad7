//! The stored form of a NAR, `.nar.zst`: zstd that can be read from the middle.
//!
//! A file is a row of independent zstd frames, each of the same uncompressed size but the last,
//! and then a skippable frame that holds the seek table. Any zstd decoder reads it as one stream.
//! The layout is that of `zstd_seekable_compression_format.md` 0.1.0 in facebook/zstd:
//!
//! ```text
//! frame 0 | frame 1 | … | skippable frame: 0x184D2A5E, size,
//!                         one (compressed size, uncompressed size) for each frame,
//!                         number of frames, descriptor (1 byte), 0x8F92EAB1
//! ```
//!
//! All numbers are 32 bits, little endian. Our choices inside that layout:
//! - Each frame carries its content size (a decoder allocates no more than it needs, and we
//!   compare it with the table) and zstd's own checksum of its content (4 bytes in some MiB; a
//!   range is served without hashing the whole file, so the frame must prove itself). The table
//!   therefore carries no checksums.
//! - Empty input is one empty frame, so that the file begins with zstd's magic all the same.
//! - The same input and [`Settings`] give the same bytes, however it was cut into writes and on
//!   however many threads: a frame is compressed in one call, by itself. Another release of
//!   libzstd may give other bytes.

mod encode;
mod pool;
mod read;
mod recognise;
mod table;

pub use encode::{Encoder, Settings, SettingsError, Summary};
pub use pool::Pool;
pub use read::{Chunks, ReadError, Reader};
pub use recognise::recognise;
pub use table::{Frame, SeekTable, TableError};

/// Uncompressed bytes in each frame but the last.
///
/// Measured on 256 MiB of shared objects at level 3, against one frame for all (ratio 0.2865):
/// frames of 256 KiB make the file 6.3 % larger, of 1 MiB 2.3 %, of 2 MiB 0.8 %, of 4 MiB 0.1 %.
/// A range costs the decoding of at least one frame, about 3 ms at this size, and a reader or a
/// thread of the pool holds two; 4 MiB would double both to win less than a hundredth.
/// `bench/codec.rs` prints these figures.
pub const FRAME_SIZE: u32 = 2 << 20;

/// The compression level.
///
/// On the same data: level 1 gives a ratio of 0.329, level 3 0.289, level 5 0.275; level 1 is about
/// twice as fast as 3, and 3 about twice as fast as 5. A NAR is compressed once and sent often, so
/// an eighth less is worth twice the time, and the next twentieth is not.
pub const LEVEL: i32 = 3;

/// The smallest frame that [`Settings`] allow; below it the frames cost more than they give.
pub const MIN_FRAME_SIZE: u32 = 1 << 10;

/// The largest frame that is written or read, in uncompressed bytes: it bounds a reader's memory.
pub const MAX_FRAME_SIZE: u32 = 8 << 20;

/// The most frames that a file may have: 2 TiB in frames of [`FRAME_SIZE`], a table of 8 MiB.
/// (The format itself allows 2^27.)
pub const MAX_FRAMES: u32 = 1 << 20;

/// The most frames of one encoder that are in flight on a pool, however many threads it has: with
/// frames of [`FRAME_SIZE`] they take 20 MiB.
pub const MAX_IN_FLIGHT: usize = 5;

#[cfg(test)]
mod tests;
