//! The names of compressions, as a narinfo and a file name have them.

use std::fmt;
use std::str::FromStr;

/// How a NAR is compressed.
///
/// Source of names and extensions: Nix, `src/libstore/binary-cache-store.cc` and
/// `src/libutil/compression.cc`, where libarchive's names are allowed as well; those that no cache
/// is known to use (`lzip`, `lzma`, `compress`, …) are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// xz, the default of `nix copy`.
    Xz,
    /// Zstandard, RFC 8878.
    Zstd,
    /// bzip2, which a narinfo means when it names none.
    Bzip2,
    /// gzip, RFC 1952.
    Gzip,
    /// The frame format of LZ4.
    Lz4,
    /// Brotli, RFC 7932. It is known by name only: [`super::Decoder`] refuses it.
    Brotli,
}

/// A compression that is not in [`Compression`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("compression {0:?} is not one of none, xz, zstd, bzip2, gzip, lz4, br")]
pub struct UnknownCompression(String);

impl Compression {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Xz, Self::Zstd, Self::Bzip2, Self::Gzip, Self::Lz4, Self::Brotli];

    /// The name in a narinfo's `Compression:` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Brotli => "br",
        }
    }

    /// What follows `.nar` in a file name: the dot and the extension, or nothing.
    ///
    /// Nix itself writes none for gzip, so a gzip NAR from it is named as a plain one is; where
    /// there is a narinfo, it decides and not the name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
            Self::Brotli => ".br",
        }
    }

    /// The compression that an extension stands for; the reverse of [`Self::extension`].
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.extension() == extension)
    }

    /// The compression that the first bytes of a file show: 6 are enough. Nix stores logs and
    /// listings compressed without saying so in their names. What has no magic is taken as it is.
    pub fn from_magic(start: &[u8]) -> Self {
        const MAGICS: [(&[u8], Compression); 5] = [
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"BZh", Compression::Bzip2),
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\x04\x22\x4d\x18", Compression::Lz4),
        ];
        let found = MAGICS.iter().find(|(magic, _)| start.starts_with(magic));
        found.map_or(Self::None, |(_, compression)| *compression)
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL
            .into_iter()
            .find(|compression| compression.name() == name)
            .ok_or_else(|| UnknownCompression(name.chars().take(100).collect()))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_extension_reads_as_what_wrote_it() {
        for compression in Compression::ALL {
            assert_eq!(compression.name().parse(), Ok(compression));
            assert_eq!(Compression::from_extension(compression.extension()), Some(compression));
        }
    }

    #[test]
    fn other_names_are_refused_and_quoted_in_short() {
        assert!("XZ".parse::<Compression>().is_err());
        assert!("".parse::<Compression>().is_err());
        let error = "x".repeat(5000).parse::<Compression>().unwrap_err();
        assert!(error.to_string().len() < 300);
        assert_eq!(Compression::from_extension(".lzip"), None);
    }
}
