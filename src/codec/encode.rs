//! Compressing while it is sent, for clients that remember a NAR in a form that is not stored.

use std::io::{self, Write};

use bytes::Bytes;

use super::{CodecError, Compression};

/// Effort is not spent: what comes out is read once, on a network that has carried it before.
enum Encoder {
    None(Vec<u8>),
    Xz(liblzma::write::XzEncoder<Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Chunks of bytes, compressed. After an error nothing follows, so that what was cut is never whole.
pub struct Compressed<I> {
    chunks: I,
    encoder: Option<Encoder>,
}

impl Encoder {
    fn new(compression: Compression) -> Result<Self, CodecError> {
        let out = Vec::new();
        Ok(match compression {
            Compression::None => Self::None(out),
            Compression::Xz => Self::Xz(liblzma::write::XzEncoder::new(out, 0)),
            Compression::Gzip => {
                Self::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::none()))
            }
            Compression::Bzip2 => {
                Self::Bzip2(bzip2::write::BzEncoder::new(out, bzip2::Compression::fast()))
            }
            Compression::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Compression::Zstd => Self::Zstd(
                zstd::stream::write::Encoder::new(out, 1)
                    .map_err(|_| CodecError::Unsupported("zstd, for want of memory"))?,
            ),
            Compression::Brotli => return Err(CodecError::Unsupported("brotli")),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(out) => out.write_all(bytes),
            Self::Xz(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Bzip2(encoder) => encoder.write_all(bytes),
            Self::Lz4(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// What has come out so far.
    fn take(&mut self) -> Bytes {
        let out = match self {
            Self::None(out) => out,
            Self::Xz(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Bzip2(encoder) => encoder.get_mut(),
            Self::Lz4(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }

    fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::None(out) => out,
            Self::Xz(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Bzip2(encoder) => encoder.finish()?,
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            Self::Zstd(encoder) => encoder.finish()?,
        }
        .into())
    }
}

impl<I> Compressed<I> {
    /// Compresses what `chunks` gives, with the least effort. Fails for what is not written here.
    pub fn new(chunks: I, compression: Compression) -> Result<Self, CodecError> {
        Ok(Self { chunks, encoder: Some(Encoder::new(compression)?) })
    }
}

impl<E: From<io::Error>, I: Iterator<Item = Result<Bytes, E>>> Iterator for Compressed<I> {
    type Item = Result<Bytes, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let out = match self.chunks.next() {
                Some(Ok(chunk)) => encoder.write(&chunk).map(|()| encoder.take()),
                Some(Err(error)) => {
                    self.encoder = None;
                    return Some(Err(error));
                }
                None => self.encoder.take()?.finish(),
            };
            match out {
                // An encoder that has gathered nothing yet.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) => {
                    self.encoder = None;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::codec::{Decoder, Limits};

    #[test]
    fn each_form_decodes_to_what_went_in() {
        let content: Vec<u8> =
            (0..700_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for compression in Compression::ALL {
            let chunks = content.chunks(100_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let compressed = Compressed::new(chunks, compression);
            let Ok(compressed) = compressed else {
                assert_eq!(compression, Compression::Brotli);
                continue;
            };
            let bytes: Result<Vec<Bytes>, io::Error> = compressed.collect();
            let bytes = bytes.unwrap().concat();
            let limits = Limits::output(content.len() as u64);
            let mut decoded = Vec::new();
            Decoder::new(compression, &*bytes, limits).unwrap().read_to_end(&mut decoded).unwrap();
            assert!(decoded == content, "{compression}");
        }
    }

    #[test]
    fn nothing_follows_an_error_not_even_an_end() {
        let chunks = [Ok(Bytes::from_static(b"abc")), Err(io::Error::other("broken"))];
        let compressed = Compressed::new(chunks.into_iter(), Compression::Gzip).unwrap();
        let results: Vec<_> = compressed.collect();
        assert!(results.last().unwrap().is_err());
        let bytes: Vec<u8> =
            results.iter().flatten().flat_map(|bytes| bytes.iter().copied()).collect();
        let mut decoded = Vec::new();
        let read = Decoder::new(Compression::Gzip, &*bytes, Limits::output(9))
            .unwrap()
            .read_to_end(&mut decoded);
        assert!(read.is_err(), "what was cut must not read as whole");
    }
}
