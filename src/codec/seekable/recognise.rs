//! Whether a file by another hand is of the form that we store.

use zstd::zstd_safe;

use super::table::{Frame, SeekTable, TableError};
use super::{MAX_FRAMES, MIN_FRAME_SIZE};
use crate::codec::read_at::ReadAt;

/// Says whether a zstd file that was decoded as a stream is one that an [`super::Encoder`] could have
/// written, and gives its table then: frames of one size but the last, each with its content size and
/// its checksum, and a seek table that tells the truth about all of them.
///
/// `frame_ends` are the ends of the frames as the decoder found them, up to one more than
/// [`MAX_FRAMES`] (see [`crate::codec::Decoder::record_frames`]); without them a table is only a claim.
/// Fails only when the file cannot be read.
pub fn recognise(
    source: &(impl ReadAt + ?Sized),
    file_size: u64,
    frame_ends: &[(u64, u64)],
) -> std::io::Result<Option<SeekTable>> {
    let table = match SeekTable::read(source, file_size) {
        Ok(table) => table,
        Err(TableError::Io(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    // The seek table is the last frame, and gives nothing.
    let Some(((end, _), frame_ends)) = frame_ends.split_last() else { return Ok(None) };
    if *end != file_size
        || frame_ends.len() != table.frames()
        || table.frames() > MAX_FRAMES as usize
    {
        return Ok(None);
    }
    let mut frame_size = None;
    for (index, found) in frame_ends.iter().enumerate() {
        let Some(frame) = table.frame(index) else { return Ok(None) };
        let size = frame.uncompressed.end - frame.uncompressed.start;
        let is_last = index + 1 == table.frames();
        let right_size = match frame_size {
            None => is_last || size >= u64::from(MIN_FRAME_SIZE),
            Some(first) => size == first || (is_last && size < first),
        };
        frame_size = frame_size.or(Some(size));
        let right_place = (frame.compressed.end, frame.uncompressed.end) == *found;
        if !right_size || !right_place || !has_size_and_checksum(source, &frame)? {
            return Ok(None);
        }
    }
    Ok(Some(table))
}

/// Bytes of the longest header of a frame.
const MAX_HEADER: u64 = 18;
/// The bit of a frame's descriptor, its fifth byte, that promises a checksum.
const HAS_CHECKSUM: u8 = 1 << 2;

fn has_size_and_checksum(source: &(impl ReadAt + ?Sized), frame: &Frame) -> std::io::Result<bool> {
    let length = MAX_HEADER.min(frame.compressed.end - frame.compressed.start);
    let mut header = vec![0; usize::try_from(length).unwrap_or_default()];
    source.read_exact_at(&mut header, frame.compressed.start)?;
    let size = zstd_safe::get_frame_content_size(&header).ok().flatten();
    let checksum = header.get(4).is_some_and(|descriptor| descriptor & HAS_CHECKSUM != 0);
    Ok(checksum && size == Some(frame.uncompressed.end - frame.uncompressed.start))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{Encoder, FRAME_SIZE, LEVEL, Settings};
    use super::*;
    use crate::codec::{Compression, Decoder, Limits};

    fn is_ours(file: &[u8]) -> bool {
        let decoder = Decoder::new(Compression::Zstd, file, Limits::output(1 << 30)).unwrap();
        let mut decoder = decoder.record_frames(MAX_FRAMES as usize + 1);
        std::io::copy(&mut decoder, &mut std::io::sink()).unwrap();
        recognise(file, file.len() as u64, decoder.frame_ends()).unwrap().is_some()
    }

    fn frame(content: &[u8], checksum: bool, size: bool) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(checksum).unwrap();
        encoder.include_contentsize(size).unwrap();
        if size {
            encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Frames and a table that says `sizes` of them.
    fn file(frames: &[Vec<u8>], sizes: &[(usize, usize)]) -> Vec<u8> {
        let mut table = super::super::table::Builder::default();
        for &(compressed, content) in sizes {
            table.push(u32::try_from(compressed).unwrap(), u32::try_from(content).unwrap());
        }
        [frames.concat(), table.finish().unwrap().0].concat()
    }

    #[test]
    fn what_the_encoder_writes_is_recognised() {
        for size in [0, 1, 1024, 1025, 5000] {
            let mut encoder =
                Encoder::new(Vec::new(), Settings::new(LEVEL, MIN_FRAME_SIZE).unwrap()).unwrap();
            encoder.write_all(&vec![7; size]).unwrap();
            assert!(is_ours(&encoder.finish().unwrap().1), "{size}");
        }
        let mut encoder = Encoder::new(Vec::new(), Settings::default()).unwrap();
        encoder.write_all(&vec![7; FRAME_SIZE as usize + 1]).unwrap();
        assert!(is_ours(&encoder.finish().unwrap().1));
    }

    #[test]
    fn what_others_write_is_not() {
        let (one, two) = (frame(&[1; 2000], true, true), frame(&[2; 2000], true, true));
        let (first, second) = ((one.len(), 2000), (two.len(), 2000));
        let both = [one.clone(), two.clone()];
        assert!(is_ours(&file(&both, &[first, second])), "it is the likeness that counts");
        assert!(!is_ours(&both.concat()), "no table");

        let joined = (first.0 + second.0, 4000);
        assert!(!is_ours(&file(&both, &[joined])), "two frames that the table calls one");
        assert!(!is_ours(&file(&both, &[first, (second.0, 1999)])), "another content size");
        assert!(!is_ours(&file(&both, &[(first.0 + 1, 2000), (second.0 - 1, 2000)])), "elsewhere");
        let lying = file(&both, &[(first.0, 2001), (second.0, 1999)]);
        assert!(!is_ours(&lying), "the sum is right and the parts are not");

        let long = frame(&[2; 2001], true, true);
        let ends = [first, (long.len(), 2001)];
        assert!(!is_ours(&file(&[one.clone(), long], &ends)), "the last is longer");
        let short = frame(&[2; 100], true, true);
        let ends = [(short.len(), 100), (short.len(), 100)];
        assert!(!is_ours(&file(&[short.clone(), short], &ends)), "frames that are too small");
        for (checksum, size) in [(false, true), (true, false)] {
            let bare = frame(&[1; 2000], checksum, size);
            assert!(!is_ours(&file(std::slice::from_ref(&bare), &[(bare.len(), 2000)])));
        }
    }
}
