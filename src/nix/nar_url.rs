//! The names under `nar/` that clients ask for: ours, and those of other servers, because a client
//! remembers a URL for 30 days.

use super::hash::Sha256;
use super::store_path::StorePathHash;

/// The endings of a NAR's file that Nix writes, after `.nar`.
const EXTENSIONS: [&str; 8] = ["", ".xz", ".zst", ".bz2", ".gz", ".lz4", ".br", ".lzip"];

/// The name of a NAR's file: a hash, `.nar`, and how it is compressed.
///
/// The hash is the NarHash for what Snowbank stores, the FileHash for what Nix wrote itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NarFileName {
    /// The 52 digits.
    pub hash: Sha256,
    /// The ending, with its dot; empty for a bare NAR.
    extension: &'static str,
}

/// What is asked for under `nar/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NarRequest {
    /// `<hash>.nar[.<ext>]`: a file by its name; Harmonia adds `?hash=<store path hash>`.
    File {
        /// The file.
        name: NarFileName,
        /// The store path, where the URL says it.
        path: Option<StorePathHash>,
    },
    /// A path's bare NAR: nix-serve's `<store path hash>-<NarHash>.nar` and attic's
    /// `<store path hash>.nar`.
    OfPath {
        /// The path.
        path: StorePathHash,
        /// The NarHash that it must have still.
        nar_hash: Option<Sha256>,
    },
}

impl NarFileName {
    /// The bare NAR of that NarHash.
    pub const fn bare(hash: Sha256) -> Self {
        Self { hash, extension: "" }
    }

    /// The zstd file of that NarHash.
    pub const fn zstd(hash: Sha256) -> Self {
        Self { hash, extension: ".zst" }
    }

    /// Reads `<52 digits>.nar[.<ext>]`.
    pub fn parse(name: &str) -> Option<Self> {
        let hash = Sha256::from_nix32(name.get(..52)?)?;
        let ending = name.get(52..)?.strip_prefix(".nar")?;
        let extension = EXTENSIONS.iter().find(|known| **known == ending)?;
        Some(Self { hash, extension })
    }

    /// What follows `.nar`: nothing, or a dot and the name of a compression.
    pub const fn extension(self) -> &'static str {
        self.extension
    }

    /// Whether it is a NAR as it is.
    pub const fn is_bare(self) -> bool {
        self.extension.is_empty()
    }

    /// Whether it is a zstd file.
    pub fn is_zstd(self) -> bool {
        self.extension == ".zst"
    }

    /// The name, and nothing that could leave a directory.
    pub fn file_name(self) -> String {
        format!("{}.nar{}", self.hash.to_nix32(), self.extension)
    }

    /// The URL in a narinfo.
    pub fn url(self) -> String {
        format!("nar/{}", self.file_name())
    }
}

impl NarRequest {
    /// Reads what follows `nar/`, and the query.
    pub fn parse(name: &str, query: Option<&str>) -> Option<Self> {
        if let Some(name) = NarFileName::parse(name) {
            return Some(Self::File { name, path: path_in_query(query)? });
        }
        let stem = name.strip_suffix(".nar")?;
        match stem.split_once('-') {
            None => Some(Self::OfPath { path: StorePathHash::parse(stem)?, nar_hash: None }),
            Some((path, nar_hash)) => Some(Self::OfPath {
                path: StorePathHash::parse(path)?,
                nar_hash: Some(Sha256::from_nix32(nar_hash)?),
            }),
        }
    }
}

/// `hash=<store path hash>` in a query; `None` where it is there and no hash.
fn path_in_query(query: Option<&str>) -> Option<Option<StorePathHash>> {
    let value = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("hash="));
    match value {
        None => Some(None),
        Some(digits) => StorePathHash::parse(digits).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAR: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
    const PATH: &str = "7rjj86a50146dq4pd5h2fyvnnwxk9m0a";

    #[test]
    fn the_four_forms_in_use_are_read() {
        let hash = Sha256::from_nix32(NAR).unwrap();
        let path = StorePathHash::parse(PATH).unwrap();
        let parse = |name: &str, query| NarRequest::parse(name, query);
        let name = NarFileName::zstd(hash);
        assert_eq!(
            parse(&format!("{NAR}.nar.zst"), None),
            Some(NarRequest::File { name, path: None })
        );
        let name = NarFileName::bare(hash);
        let query = format!("hash={PATH}");
        let harmonia = parse(&format!("{NAR}.nar"), Some(&query));
        assert_eq!(harmonia, Some(NarRequest::File { name, path: Some(path) }));
        let nix_serve = parse(&format!("{PATH}-{NAR}.nar"), None);
        assert_eq!(nix_serve, Some(NarRequest::OfPath { path, nar_hash: Some(hash) }));
        let attic = parse(&format!("{PATH}.nar"), None);
        assert_eq!(attic, Some(NarRequest::OfPath { path, nar_hash: None }));
    }

    #[test]
    fn what_is_read_prints_as_it_was() {
        for extension in EXTENSIONS {
            let text = format!("{NAR}.nar{extension}");
            assert_eq!(NarFileName::parse(&text).unwrap().file_name(), text);
        }
    }

    #[test]
    fn nothing_else_is_a_nar() {
        for bad in [
            "",
            ".nar",
            "../x.nar",
            "é",
            &format!("{NAR}.nar.exe"),
            &format!("{NAR}.narx"),
            NAR,
            &format!("{PATH}-{PATH}.nar"),
            &format!("{PATH}.nar.zst"),
            &format!("{NAR}.nar/../x"),
            &NAR.to_uppercase(),
        ] {
            assert_eq!(NarRequest::parse(bad, None), None, "{bad:?}");
        }
        assert_eq!(NarRequest::parse(&format!("{NAR}.nar"), Some("hash=../x")), None);
    }
}
