use std::io::BufReader;

use super::*;
use crate::codec::testing::{
    DECODED, encode, encode_lz4, peak_memory, text, xz_with_a_dictionary, zstd_bomb,
};

fn decode_with(
    compression: Compression,
    reader: impl BufRead,
    limits: Limits,
) -> Result<Vec<u8>, CodecError> {
    let mut decoder = Decoder::new(compression, reader, limits)?;
    let mut content = Vec::new();
    let result = decoder.read_to_end(&mut content).map(|_| ());
    assert!(content.len() as u64 <= limits.max_output, "more came out than allowed");
    result.map(|()| content).map_err(|error| CodecError::of(&error).unwrap().clone())
}

fn decode(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    decode_with(compression, bytes, Limits::output(1 << 30))
}

#[test]
fn every_compression_round_trips() {
    for size in [0, 1, 100, 70_000, 1_000_000] {
        let content = text(size);
        for compression in DECODED {
            let bytes = encode(compression, &content);
            assert_eq!(decode(compression, &bytes), Ok(content.clone()), "{compression} {size}");
        }
        let bytes = encode_lz4(&content, lz4_flex::frame::BlockMode::Independent);
        assert_eq!(decode(Compression::Lz4, &bytes), Ok(content), "independent blocks, {size}");
    }
}

#[test]
fn it_does_not_matter_how_input_and_output_are_cut() {
    let content = text(20_000);
    for compression in DECODED {
        let bytes = [encode(compression, &content), encode(compression, &content)].concat();
        let reader = BufReader::with_capacity(1, &*bytes);
        let mut decoder = Decoder::new(compression, reader, Limits::output(1 << 20)).unwrap();
        let mut decoded = Vec::new();
        let mut byte = [0];
        while decoder.read(&mut byte).unwrap() == 1 {
            decoded.push(byte[0]);
        }
        assert_eq!(decoder.input_bytes(), bytes.len() as u64, "{compression}");
        assert_eq!(decoded, content.repeat(2), "{compression}");
    }
}

#[test]
fn input_that_ends_early_is_an_error_wherever_it_ends() {
    let content = text(3_000);
    for compression in &DECODED[1..] {
        let bytes = encode(*compression, &content);
        let truncated =
            |offset| CodecError::Truncated { compression: *compression, offset: offset as u64 };
        for end in 0..bytes.len() {
            assert_eq!(decode(*compression, &bytes[..end]), Err(truncated(end)));
            // And as the second of two streams; at 0 there is only one.
            let second = [&*bytes, &bytes[..end]].concat();
            let expected = match end {
                0 => Ok(content.clone()),
                _ => Err(truncated(second.len())),
            };
            assert_eq!(decode(*compression, &second), expected, "{compression} {end}");
        }
    }
}

#[test]
fn what_follows_a_stream_is_an_error() {
    for compression in &DECODED[1..] {
        let bytes = encode(*compression, b"content");
        for garbage in [&b"garbage that is longer than a header"[..], b"<html>"] {
            let error = decode(*compression, &[&*bytes, garbage].concat()).unwrap_err();
            let is_named = matches!(error, CodecError::TrailingBytes { offset, .. }
                if (bytes.len() as u64..).contains(&offset));
            assert!(is_named, "{compression}: {error}");
        }
        assert!(decode(*compression, &[&*bytes, b"\n"].concat()).is_err(), "{compression}");
        assert!(decode(*compression, &[&*bytes, b"\0"].concat()).is_err(), "{compression}");
        let error = decode(*compression, b"<html>not at all what it says</html>").unwrap_err();
        assert!(matches!(error, CodecError::Corrupt { .. }), "{compression}: {error}");
    }
}

#[test]
fn xz_streams_may_be_padded_in_fours() {
    let bytes = encode(Compression::Xz, b"content");
    let twice = [&*bytes, &[0; 8], &bytes, &[0; 4]].concat();
    assert_eq!(decode(Compression::Xz, &twice), Ok(b"contentcontent".to_vec()));
    for padding in [1, 2, 3, 5] {
        let odd = [&*bytes, &vec![0; padding], &bytes].concat();
        assert!(matches!(decode(Compression::Xz, &odd), Err(CodecError::Corrupt { .. })));
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_changes_nothing() {
    let content = text(2_000);
    for compression in &DECODED[1..] {
        let mut bytes = encode(*compression, &content);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = decode(*compression, &bytes) {
                assert!(decoded == content, "{compression}, bit {bit}");
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn the_output_limit_is_exact() {
    let content = text(100_000);
    for compression in DECODED {
        let bytes = encode(compression, &content);
        let limited = |max_output| decode_with(compression, &*bytes, Limits::output(max_output));
        assert_eq!(limited(100_000).unwrap(), content);
        assert_eq!(limited(99_999), Err(CodecError::OutputTooLarge { max: 99_999 }));
        assert_eq!(limited(0), Err(CodecError::OutputTooLarge { max: 0 }));
    }
}

#[test]
fn an_error_stays() {
    let bytes = encode(Compression::Zstd, &text(1000));
    let mut decoder = Decoder::new(Compression::Zstd, &bytes[..500], Limits::output(2000)).unwrap();
    let first = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
    assert_eq!(first.kind(), io::ErrorKind::UnexpectedEof);
    let second = decoder.read(&mut [0; 10]).unwrap_err();
    assert_eq!(CodecError::of(&second), CodecError::of(&first));
}

#[test]
fn brotli_is_refused_by_name() {
    let error = Decoder::new(Compression::Brotli, &b""[..], Limits::output(1)).err();
    assert_eq!(error, Some(CodecError::Unsupported("brotli")));
}

#[test]
fn bombs_are_refused_with_bounded_memory() {
    let before = peak_memory();
    let discard = |compression, bytes: &[u8], limits| {
        let mut decoder = Decoder::new(compression, bytes, limits).unwrap();
        let error = io::copy(&mut decoder, &mut io::sink()).unwrap_err();
        (CodecError::of(&error).unwrap().clone(), decoder.output_bytes())
    };
    let declared = 1 << 20;
    let bomb = zstd_bomb();
    assert!(bomb.len() < 33 << 10);
    let (error, output) = discard(Compression::Zstd, &bomb, Limits::output(declared));
    assert_eq!((error, output), (CodecError::OutputTooLarge { max: declared }, declared + 1));

    // The same, from one who declares what really comes out.
    let limits = Limits::output(1 << 40);
    let xz_bomb = encode(Compression::Xz, &vec![0; 65 << 20]);
    for (compression, bomb) in [(Compression::Zstd, bomb), (Compression::Xz, xz_bomb)] {
        let (error, output) = discard(compression, &bomb, limits);
        assert!(matches!(error, CodecError::RatioExceeded { .. }), "{compression}: {error}");
        assert!(output < RATIO_FREE + (1 << 20), "{compression}: {output}");
    }

    let window_of_2_gib = [0x28, 0xb5, 0x2f, 0xfd, 0, (31 - 10) << 3, 1, 0, 0];
    let (error, _) = discard(Compression::Zstd, &window_of_2_gib, limits);
    assert_eq!(error, CodecError::WindowTooLarge { max_log: 27 });
    let (error, _) = discard(Compression::Xz, &xz_with_a_dictionary(37), limits);
    assert_eq!(error, CodecError::MemoryLimit { max: 128 << 20 });

    // Other tests run beside this one, so this sees only what is far too much.
    let grown = peak_memory() - before;
    assert!(grown < 300 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn the_memory_that_a_decoder_may_take_can_be_chosen() {
    let window_of = |log: u8| vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0];
    let limits = Limits { max_memory: 32 << 20, ..Limits::output(1 << 30) };
    assert_eq!(decode_with(Compression::Zstd, &*window_of(25), limits), Ok(vec![]));
    let error = decode_with(Compression::Zstd, &*window_of(26), limits).unwrap_err();
    assert_eq!(error, CodecError::WindowTooLarge { max_log: 25 });

    let (dictionary_of_16_mib, dictionary_of_32_mib) = (24, 26);
    let xz = |code| decode_with(Compression::Xz, &*xz_with_a_dictionary(code), limits);
    assert_eq!(xz(dictionary_of_16_mib), Ok(b"content".to_vec()));
    assert_eq!(xz(dictionary_of_32_mib), Err(CodecError::MemoryLimit { max: 32 << 20 }));
}

#[test]
fn where_frames_end_is_remembered_up_to_a_number_of_them() {
    let (first, second) = (encode(Compression::Zstd, b"one"), encode(Compression::Zstd, b"three"));
    let ends = [(first.len() as u64, 3), ((first.len() + second.len()) as u64, 8)];
    let bytes = [first, second].concat();
    for most in 0..4 {
        let reader = BufReader::with_capacity(1, &*bytes);
        let decoder = Decoder::new(Compression::Zstd, reader, Limits::output(100)).unwrap();
        let mut decoder = decoder.record_frames(most);
        io::copy(&mut decoder, &mut io::sink()).unwrap();
        assert_eq!(decoder.frame_ends(), &ends[..most.min(2)]);
    }
}

#[test]
fn ten_thousand_empty_frames_are_refused() {
    for compression in &DECODED[1..] {
        let empty = encode(*compression, b"");
        let error = decode(*compression, &empty.repeat(10_000)).unwrap_err();
        assert!(matches!(error, CodecError::EmptyFrames { count: 1025 }), "{compression}: {error}");
    }
}

#[test]
fn skippable_frames_without_end_are_refused() {
    struct Forever(&'static [u8]);
    impl Read for Forever {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = buffer.len() / self.0.len() * self.0.len();
            buffer[..size].chunks_exact_mut(self.0.len()).for_each(|c| c.copy_from_slice(self.0));
            Ok(size)
        }
    }
    let one_byte = &[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
    for compression in [Compression::Zstd, Compression::Lz4] {
        let reader = BufReader::with_capacity(9 << 10, Forever(one_byte));
        let error = decode_with(compression, reader, Limits::output(1 << 30)).unwrap_err();
        assert!(matches!(error, CodecError::EmptyFrames { .. }), "{compression}: {error}");

        let four_gib = [0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff];
        let reader = BufReader::new(four_gib.chain(io::repeat(0)));
        let error = decode_with(compression, reader, Limits::output(1 << 30)).unwrap_err();
        assert!(matches!(error, CodecError::IdleInput { .. }), "{compression}: {error}");
    }
    // A gzip file name without end, and xz padding without end.
    let name = [0x1f, 0x8b, 8, 1 << 3, 0, 0, 0, 0, 0, 0];
    let reader = BufReader::new(name.chain(io::repeat(b'a')));
    let error = decode_with(Compression::Gzip, reader, Limits::output(1 << 30)).unwrap_err();
    assert!(matches!(error, CodecError::IdleInput { .. }), "{error}");
    let padded = encode(Compression::Xz, b"content");
    let reader = BufReader::new(padded.chain(io::repeat(0)));
    let error = decode_with(Compression::Xz, reader, Limits::output(1 << 30)).unwrap_err();
    assert!(matches!(error, CodecError::IdleInput { .. }), "{error}");
}

#[test]
fn skippable_frames_between_others_are_skipped() {
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for compression in [Compression::Zstd, Compression::Lz4] {
        let frame = [&skippable[..], &encode(compression, b"content"), &skippable].concat();
        assert_eq!(decode(compression, &frame), Ok(b"content".to_vec()));
        let before_each = frame[..frame.len() - skippable.len()].repeat(5000);
        assert_eq!(decode(compression, &before_each).map(|content| content.len()), Ok(35_000));
    }
}

#[test]
fn a_gzip_header_checksum_is_verified() {
    let plain = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
    let plain = plain.finish().unwrap();
    let mut header = plain[..10].to_vec();
    header[3] |= 1 << 1;
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    let checksum = crc.sum().to_le_bytes();
    let good = [&header[..], &checksum[..2], &plain[10..]].concat();
    assert_eq!(decode(Compression::Gzip, &good), Ok(vec![]));
    let bad = [&header[..], &[checksum[0] ^ 1, checksum[1]], &plain[10..]].concat();
    assert!(matches!(decode(Compression::Gzip, &bad), Err(CodecError::Corrupt { .. })));
}
