//! The encoders of every compression, for the seeds and for the targets that compress themselves.

use std::error::Error;
use std::io::Write;

use snowbank::codec::Compression;

/// Compresses `content`; what is refused by name, whatever follows, stays as it is.
pub(crate) fn encode(compression: Compression, content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let out = Vec::new();
    Ok(match compression {
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
