use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::codec::read_at::ReadAt;

const SMALL: u32 = MIN_FRAME_SIZE;

static POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(NonZeroUsize::new(3).unwrap()).unwrap());

fn settings() -> Settings {
    Settings::new(LEVEL, SMALL).unwrap()
}

fn encode(content: &[u8]) -> (Summary, Vec<u8>) {
    let mut encoder = Encoder::new(Vec::new(), settings()).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn read_all(file: &[u8]) -> Result<Vec<u8>, ReadError> {
    let reader = Reader::open(file, file.len() as u64)?;
    let size = reader.size();
    Ok(reader.into_chunks(0..size)?.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Up to five frames and a bit, that compress and do not, by turns.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let around_frames = (0..=5u32, -2..=2i32)
        .prop_map(|(frames, more)| (frames * SMALL).saturating_add_signed(more) as usize);
    let size = prop_oneof![0..(5 * SMALL as usize + 99), around_frames];
    (size, any::<u8>(), any::<u64>()).prop_map(|(size, period, mut seed)| {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        };
        let repeat = |at: usize| at.to_le_bytes()[0] % period.max(1);
        (0..size).map(|at| if at & 256 == 0 { repeat(at) } else { next() }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_zstd_decoder_reads_the_content_back(content in content()) {
        let (summary, file) = encode(&content);
        prop_assert_eq!(&zstd::stream::decode_all(&*file).unwrap(), &content);
        prop_assert_eq!(&read_all(&file).unwrap(), &content);
        prop_assert_eq!(summary.compressed_size, file.len() as u64);
        prop_assert_eq!(summary.uncompressed_size, content.len() as u64);
        prop_assert_eq!(summary.table.frames(), content.len().div_ceil(SMALL as usize).max(1));
        prop_assert_eq!(summary.table, SeekTable::read(&file, file.len() as u64).unwrap());
    }

    #[test]
    fn every_range_is_the_same_slice_of_the_content(
        content in content(),
        ranges in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 8),
    ) {
        let (_, file) = encode(&content);
        let mut reader = Reader::open(&file, file.len() as u64).unwrap();
        for (one, other) in ranges {
            let (one, other) = (one.index(content.len() + 1), other.index(content.len() + 1));
            let (start, end) = (one.min(other), one.max(other));
            let mut buffer = vec![0; end - start];
            prop_assert_eq!(reader.read_at(start as u64, &mut buffer).unwrap(), end - start);
            prop_assert_eq!(&buffer, &content[start..end]);

            let mut chunks = reader.into_chunks(start as u64..end as u64).unwrap();
            prop_assert_eq!(chunks.remaining(), (end - start) as u64);
            let pieces: Vec<_> = chunks.by_ref().map(Result::unwrap).collect();
            prop_assert!(pieces.iter().all(|piece| (1..=SMALL as usize).contains(&piece.len())));
            prop_assert_eq!(&pieces.concat(), &content[start..end]);
            reader = chunks.into_reader();
        }
    }

    #[test]
    fn the_same_content_gives_the_same_file_however_it_comes(
        content in content(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        threads in 1..5usize,
    ) {
        let expected = encode(&content);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
        cuts.extend([0, content.len()]);
        cuts.sort_unstable();
        let pool = Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let mut here = Encoder::new(Vec::new(), settings()).unwrap();
        let mut there = Encoder::with_pool(Vec::new(), settings(), pool);
        for piece in cuts.windows(2) {
            here.write_all(&content[piece[0]..piece[1]]).unwrap();
            there.write_all(&content[piece[0]..piece[1]]).unwrap();
            here.flush().unwrap();
        }
        prop_assert_eq!(&here.finish().unwrap(), &expected);
        prop_assert_eq!(&there.finish().unwrap(), &expected);
    }

    #[test]
    fn a_file_that_was_cut_short_is_never_read(content in content(), end in any::<prop::sample::Index>()) {
        let (_, file) = encode(&content);
        prop_assert!(read_all(&file[..end.index(file.len())]).is_err());
    }

    #[test]
    fn damage_is_an_error_or_changes_nothing(
        content in content(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
        in_table: bool,
    ) {
        let (_, mut file) = encode(&content);
        let table_size = 17 + 8 * content.len().div_ceil(SMALL as usize).max(1);
        let start = if in_table { file.len() - table_size } else { 0 };
        for (at, bit) in flips {
            let at = start + at.index(file.len() - start);
            file[at] ^= 1 << bit;
        }
        if let Ok(read) = read_all(&file) {
            prop_assert!(read == content);
        }
    }

    #[test]
    fn any_bytes_at_all_never_panic(mut bytes: Vec<u8>, frames in 0..9u32, has_footer: bool) {
        if has_footer {
            bytes.extend(frames.to_le_bytes());
            bytes.extend([0, 0xb1, 0xea, 0x92, 0x8f]);
        }
        let _ = read_all(&bytes);
    }
}

#[test]
fn every_bit_of_a_small_file_matters_or_is_harmless() {
    let content = b"some content, some content".repeat(60);
    let (_, mut file) = encode(&content);
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = read_all(&file) {
            assert!(read == content, "bit {bit}");
        }
        file[bit / 8] ^= 1 << (bit % 8);
    }
    for end in 0..file.len() {
        assert!(read_all(&file[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_range_decodes_only_the_frames_it_touches() {
    /// Fails when anything before `from` is read.
    struct Guarded(Vec<u8>, u64);
    impl ReadAt for Guarded {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            assert!(offset >= self.1, "byte {offset} was read");
            self.0.read_exact_at(buffer, offset)
        }
    }
    let content = vec![7; 40 * SMALL as usize];
    let (summary, file) = encode(&content);
    let last = summary.table.frame(39).unwrap();
    let table = Arc::new(summary.table);
    let mut reader = Reader::new(Guarded(file, last.compressed.start), table).unwrap();
    assert_eq!(reader.read_at(last.uncompressed.start, &mut [0; 10]).unwrap(), 10);
    assert_eq!(reader.read_at(content.len() as u64, &mut [0; 10]).unwrap(), 0);
    assert_eq!(reader.read_at(u64::MAX, &mut [0; 10]).unwrap(), 0);
}

#[test]
fn ranges_beyond_the_content_are_refused() {
    let (_, file) = encode(b"content");
    for (start, end) in [(0, 8), (8, 8), (5, 3), (0, u64::MAX)] {
        let reader = Reader::open(&file, file.len() as u64).unwrap();
        assert!(matches!(reader.into_chunks(start..end), Err(ReadError::OutOfRange { .. })));
    }
}

#[test]
fn other_zstd_files_have_no_seek_table() {
    let plain = zstd::stream::encode_all(&b"content"[..], 3).unwrap();
    for file in [&plain[..], b"", b"\xb1\xea\x92\x8f"] {
        let error = SeekTable::read(file, file.len() as u64).unwrap_err();
        assert!(matches!(error, TableError::NoSeekTable), "{error}");
    }
}

/// A file of no frames, and a table that says what it is told.
fn table(frames: u32, descriptor: u8, entries: &[[u32; 2]]) -> Vec<u8> {
    let content_size = u32::try_from(entries.len() * 8 + 9).unwrap();
    let mut bytes = [0x184D_2A5Eu32.to_le_bytes(), content_size.to_le_bytes()].concat();
    bytes.extend(entries.iter().flatten().flat_map(|size| size.to_le_bytes()));
    bytes.extend(frames.to_le_bytes());
    bytes.push(descriptor);
    bytes.extend(0x8F92_EAB1u32.to_le_bytes());
    bytes
}

#[test]
fn a_table_that_lies_is_refused_by_name() {
    let read = |bytes: Vec<u8>| SeekTable::read(&bytes, bytes.len() as u64).unwrap_err();
    assert!(matches!(read(table(0, 0, &[])), TableError::FrameCount(0)));
    assert!(matches!(read(table(u32::MAX, 0, &[])), TableError::FrameCount(u32::MAX)));
    assert!(matches!(read(table(MAX_FRAMES, 0, &[])), TableError::TooLong { .. }));
    assert!(matches!(read(table(1, 0x80, &[[1, 1]])), TableError::Unsupported(0x80)));
    assert!(matches!(read(table(1, 0, &[[1, 1], [1, 1]])), TableError::Header));
    assert!(matches!(read(table(1, 0, &[[9, 1]])), TableError::FileSize { declared: 34, .. }));
    assert!(matches!(read(table(1, 0, &[[0, 1]])), TableError::FrameSize { index: 0, .. }));
    let too_large = table(1, 0, &[[9, MAX_FRAME_SIZE + 1]]);
    assert!(matches!(read(too_large), TableError::FrameSize { .. }));
    let empty = table(2, 0, &[[9, 1], [9, 0]]);
    assert!(matches!(read(empty), TableError::FrameSize { index: 1, .. }));
}

#[test]
fn after_a_failed_write_there_is_no_file() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let content = vec![0; 10 * SMALL as usize];
    let here = Encoder::new(Full, settings()).unwrap();
    let there = Encoder::with_pool(Full, settings(), POOL.clone());
    for mut encoder in [here, there] {
        let error = encoder.write_all(&content).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(encoder.write_all(b"more").is_err());
        assert!(encoder.finish().is_err());
    }
    let mut short = Encoder::new(Full, settings()).unwrap();
    short.write_all(b"less than a frame").unwrap();
    assert!(short.finish().is_err());
}

#[test]
fn many_encoders_share_a_pool() {
    let contents: Vec<Vec<u8>> = (0..8u8).map(|n| vec![n; 20 * SMALL as usize]).collect();
    std::thread::scope(|scope| {
        for content in &contents {
            scope.spawn(move || {
                let mut encoder = Encoder::with_pool(Vec::new(), settings(), POOL.clone());
                encoder.write_all(content).unwrap();
                assert_eq!(encoder.finish().unwrap(), encode(content));
            });
        }
    });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for level in [0, 20, 22, -8, i32::MIN] {
        assert_eq!(Settings::with_level(level), Err(SettingsError::Level(level)));
    }
    for size in [0, MIN_FRAME_SIZE - 1, MAX_FRAME_SIZE + 1, u32::MAX] {
        assert_eq!(Settings::new(LEVEL, size), Err(SettingsError::FrameSize(size)));
    }
}
