//! Encoders of everything that is decoded, and bombs, for the tests of whatever decodes.

use std::io::Write;

use super::Compression;

/// Every compression that is decoded.
pub(crate) const DECODED: [Compression; 6] = [
    Compression::None,
    Compression::Xz,
    Compression::Zstd,
    Compression::Bzip2,
    Compression::Gzip,
    Compression::Lz4,
];

pub(crate) fn encode(compression: Compression, content: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => content.to_vec(),
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = ::zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Bzip2 => {
            let level = ::bzip2::Compression::fast();
            let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), level);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Gzip => {
            let builder = flate2::GzBuilder::new().filename("name").comment("note").extra("extra");
            let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lz4 => encode_lz4(content, lz4_flex::frame::BlockMode::Linked),
        Compression::Brotli => unreachable!("not decoded"),
    }
}

pub(crate) fn encode_lz4(content: &[u8], mode: lz4_flex::frame::BlockMode) -> Vec<u8> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_mode(mode)
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_checksums(true)
        .content_checksum(true)
        .content_size(Some(content.len() as u64));
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Something that compresses, but not to nothing.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let mut seed = 1u32;
    let words = std::iter::from_fn(move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(format!("{:x} ", seed >> 20))
    });
    words.flat_map(String::into_bytes).take(size).collect()
}

/// A zstd frame of 1 GiB of zeros in 33 KB: 8192 blocks of 128 KiB, each one byte repeated.
pub(crate) fn zstd_bomb() -> Vec<u8> {
    const BLOCKS: u32 = 8192;
    let window_of_128_kib = (17 - 10) << 3;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window_of_128_kib];
    for number in 1..=BLOCKS {
        let repeated = 1;
        let header = u32::from(number == BLOCKS) | (repeated << 1) | ((128 << 10) << 3);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// An xz stream that says that its dictionary has the size that this code stands for:
/// 24 is 16 MiB, 26 is 32 MiB, 37 is 1.5 GiB.
pub(crate) fn xz_with_a_dictionary(code: u8) -> Vec<u8> {
    let mut bytes = encode(Compression::Xz, b"content");
    let header_size = (usize::from(bytes[12]) + 1) * 4;
    let header = &mut bytes[12..12 + header_size];
    let lzma2 = 0x21;
    assert_eq!(header[2..4], [lzma2, 1], "the filter and the size of its properties");
    header[4] = code;
    let (content, checksum) = header.split_at_mut(header_size - 4);
    let mut crc = flate2::Crc::new();
    crc.update(content);
    checksum.copy_from_slice(&crc.sum().to_le_bytes());
    bytes
}

/// The most memory that this process ever held, in bytes.
pub(crate) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
