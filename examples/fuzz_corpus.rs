//! Writes the seeds of the fuzz targets into `fuzz/corpus`: `cargo run --example fuzz_corpus`.
//!
//! The same code writes the same seeds, so a seed changes only with the format that it is of.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use snowbank::codec::Compression;
use snowbank::codec::seekable::{Encoder, Settings};

type Seed = (String, Vec<u8>);
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    for (target, seeds) in [("seekable", seekable()?), ("decode", decode()?)] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        fs::create_dir_all(&directory)?;
        for (name, bytes) in seeds {
            fs::write(directory.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Stored files of none, one and several frames.
fn seekable() -> Result<Vec<Seed>> {
    [0, 10, 1024, 5000]
        .into_iter()
        .map(|size| {
            let mut encoder = Encoder::new(Vec::new(), Settings::new(3, 1024)?)?;
            encoder.write_all(&text(size))?;
            Ok((format!("{size}"), encoder.finish()?.1))
        })
        .collect()
}

/// Each compression, once and twice in a row, behind the two bytes that the target wants first.
fn decode() -> Result<Vec<Seed>> {
    let mut seeds = Vec::new();
    for (number, compression) in (0u8..).zip(Compression::ALL) {
        for size in [0, 2000] {
            let stream = encode(compression, &text(size))?;
            let once = [&[number, 16], &stream[..]].concat();
            let twice = [&once, &stream[..]].concat();
            seeds.push((format!("{compression}-{size}"), once));
            seeds.push((format!("{compression}-{size}-twice"), twice));
        }
    }
    Ok(seeds)
}

fn encode(compression: Compression, content: &[u8]) -> Result<Vec<u8>> {
    let out = Vec::new();
    Ok(match compression {
        // Brotli is refused by name, whatever follows.
        Compression::None | Compression::Brotli => content.to_vec(),
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(out, 1);
            encoder.write_all(content)?;
            encoder.finish()?
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, 3)?;
            encoder.include_checksum(true)?;
            encoder.write_all(content)?;
            encoder.finish()?
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(out, bzip2::Compression::fast());
            encoder.write_all(content)?;
            encoder.finish()?
        }
        Compression::Gzip => {
            let builder = flate2::GzBuilder::new().filename("name").comment("note").extra("extra");
            let mut encoder = builder.write(out, flate2::Compression::fast());
            encoder.write_all(content)?;
            encoder.finish()?
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .block_checksums(true)
                .content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(content)?;
            encoder.finish()?
        }
    })
}

/// Something that compresses, but not to nothing.
fn text(size: usize) -> Vec<u8> {
    (0u32..).flat_map(|number| format!("{:x} ", number * number).into_bytes()).take(size).collect()
}
