//! The narinfo: a path's facts and where its NAR is, one `Key: value` a line.

use std::fmt;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::hash::{HashError, Sha256, shorten};
use super::nar_url::NarFileName;
use super::path_info::PathInfo;
use super::signature::{Signature, SignatureError};
use super::store_path::{StoreDir, StorePath, StorePathError};

/// The longest narinfo read: room for [`MAX_REFERENCES`] of usual length.
pub const MAX_TEXT: usize = 512 * 1024;
/// The most references read.
pub const MAX_REFERENCES: usize = 4096;
/// The most signatures read.
pub const MAX_SIGNATURES: usize = 16;

/// A path with the place of its NAR.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NarInfo {
    /// What is known of the path.
    pub info: PathInfo,
    /// Where the NAR lies, relative to the cache.
    pub url: String,
    /// `none`, `xz`, `zstd`, …; an absent or empty line means `bzip2`.
    pub compression: String,
    /// SHA-256 of the file at `url`; clients do not check it.
    pub file_hash: Option<Sha256>,
    /// Bytes of the file at `url`; feeds the progress bar.
    pub file_size: Option<u64>,
}

/// Why a text is not a narinfo. Each names the field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NarInfoError {
    /// Longer than [`MAX_TEXT`].
    #[error("narinfo has {0} bytes; at most {MAX_TEXT} are read")]
    TooLong(usize),
    /// Not text.
    #[error("narinfo is not UTF-8 at byte {0}")]
    NotText(usize),
    /// A line without `: `, or a last line without its end.
    #[error("narinfo line {line} is not `Key: value` with an end of line: {text:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line, shortened.
        text: String,
    },
    /// A field that must stand once stands again.
    #[error("narinfo has the field {0} twice")]
    Twice(&'static str),
    /// A field that must be there is not.
    #[error("narinfo has no {0}")]
    Missing(&'static str),
    /// Not a decimal number, or NarSize 0.
    #[error("narinfo field {field} is {text:?}; a number of bytes was expected{more}")]
    Number {
        /// Which field.
        field: &'static str,
        /// Its value, shortened.
        text: String,
        /// What else must hold.
        more: &'static str,
    },
    /// A hash that is none.
    #[error("narinfo field {0}: {1}")]
    Hash(&'static str, HashError),
    /// A path that is none.
    #[error("narinfo field {0}: {1}")]
    Path(&'static str, StorePathError),
    /// A signature that is none.
    #[error("narinfo field Sig: {0}")]
    Signature(#[from] SignatureError),
    /// More than the limit.
    #[error("narinfo has more than {1} {0}")]
    TooMany(&'static str, usize),
    /// Not the text that was stored.
    #[error("narinfo is not what was stored: it hashes to {computed}, and {stored} stands in it")]
    Sum {
        /// What stands in it.
        stored: String,
        /// What the lines after that hash to.
        computed: Sha256,
    },
}

/// What the first line of a narinfo of ours on disk begins with: its value is the hash of the lines after it, so that
/// every bit of it is held against something. Nix passes over what it does not know. (As the last line it could become
/// a part of the one before it by one wrong bit, and nobody would miss it.)
const SUM: &str = "SnowbankSum: ";

impl NarInfo {
    /// Reads a narinfo as Nix reads it, but with limits and with no field twice.
    pub fn parse(text: &[u8], store_dir: &StoreDir) -> Result<Self, NarInfoError> {
        if text.len() > MAX_TEXT {
            return Err(NarInfoError::TooLong(text.len()));
        }
        let text = std::str::from_utf8(text)
            .map_err(|error| NarInfoError::NotText(error.valid_up_to()))?;
        check_sum(text)?;
        let mut fields = Fields::default();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let bad = || NarInfoError::Line { line: number + 1, text: shorten(line.trim_end()) };
            let line = line.strip_suffix('\n').ok_or_else(bad)?;
            let (key, value) = line
                .split_once(": ")
                .or_else(|| {
                    // `References:` of an empty list is written without the space by some.
                    line.strip_suffix(':').map(|key| (key, ""))
                })
                .ok_or_else(bad)?;
            fields.take(key, value, store_dir)?;
        }
        fields.finish()
    }

    /// The narinfo as JSON, with the names that `nix path-info --json` uses.
    pub fn to_json(&self, store_dir: &StoreDir) -> Value {
        let Self { info, url, compression, file_hash, file_size } = self;
        let full = |path: &StorePath| store_dir.join(path);
        let mut value = json!({
            "path": full(&info.path),
            "narHash": info.nar_hash.to_sri(),
            "narSize": info.nar_size,
            "references": info.references.iter().map(full).collect::<Vec<_>>(),
            "signatures": info.signatures.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "ca": info.ca,
            "deriver": info.deriver.as_ref().map(full),
            "url": url,
            "compression": compression,
        });
        if let Some(hash) = file_hash {
            value["downloadHash"] = hash.to_sri().into();
        }
        if let Some(size) = file_size {
            value["downloadSize"] = (*size).into();
        }
        value
    }

    /// The file in a bank's `nar/` that the URL names; nothing where it is no such name.
    pub fn nar_file(&self) -> Option<NarFileName> {
        self.url.strip_prefix("nar/").and_then(NarFileName::parse)
    }

    /// The text of the narinfo, in the order in which Nix prints it.
    pub fn to_text(&self, store_dir: &StoreDir) -> String {
        let mut text = String::with_capacity(1024);
        // Writing into a String cannot fail.
        let _ = self.write(&mut text, store_dir);
        text
    }

    /// The text as it is stored: with a line that says what the others hash to.
    pub fn to_stored_text(&self, store_dir: &StoreDir) -> String {
        let text = self.to_text(store_dir);
        format!("{SUM}{}\n{text}", Sha256::of(text.as_bytes()))
    }

    fn write(&self, text: &mut String, store_dir: &StoreDir) -> fmt::Result {
        let Self { info, url, compression, file_hash, file_size } = self;
        writeln!(text, "StorePath: {store_dir}/{}", info.path)?;
        writeln!(text, "URL: {url}")?;
        writeln!(text, "Compression: {compression}")?;
        if let Some(hash) = file_hash {
            writeln!(text, "FileHash: {hash}")?;
        }
        if let Some(size) = file_size {
            writeln!(text, "FileSize: {size}")?;
        }
        writeln!(text, "NarHash: {}", info.nar_hash)?;
        writeln!(text, "NarSize: {}", info.nar_size)?;
        text.push_str("References:");
        // An empty list still has the space after the colon: Nix's reader skips two bytes.
        if info.references.is_empty() {
            text.push(' ');
        }
        for reference in &info.references {
            write!(text, " {reference}")?;
        }
        text.push('\n');
        if let Some(deriver) = &info.deriver {
            writeln!(text, "Deriver: {deriver}")?;
        }
        for signature in &info.signatures {
            writeln!(text, "Sig: {signature}")?;
        }
        if let Some(ca) = &info.ca {
            writeln!(text, "CA: {ca}")?;
        }
        Ok(())
    }
}

/// Whether a text says what it hashes to, so that parsing it has held all of it against that.
pub fn has_sum(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| sum_of(text).is_some())
}

/// What the first line says that the others hash to, and these.
fn sum_of(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(SUM)?.split_once('\n')
}

fn check_sum(text: &str) -> Result<(), NarInfoError> {
    if let Some((stored, lines)) = sum_of(text) {
        let computed = Sha256::of(lines.as_bytes());
        return match stored == computed.to_string() {
            true => Ok(()),
            false => Err(NarInfoError::Sum { stored: shorten(stored), computed }),
        };
    }
    // The sum of the others under another name is ours as well: the name has a wrong bit.
    let first = text.split_once('\n');
    let sum = first.and_then(|(first, lines)| Some((first.split_once(": ")?.1, lines)));
    match sum.filter(|(value, _)| value.starts_with("sha256:")) {
        Some((value, lines)) if value == Sha256::of(lines.as_bytes()).to_string() => {
            Err(NarInfoError::Line { line: 1, text: shorten(text) })
        }
        _ => Ok(()),
    }
}

/// The fields as they come.
#[derive(Default)]
struct Fields {
    path: Option<StorePath>,
    url: Option<String>,
    compression: Option<String>,
    file_hash: Option<Sha256>,
    file_size: Option<u64>,
    nar_hash: Option<Sha256>,
    nar_size: Option<u64>,
    references: Option<Vec<StorePath>>,
    deriver: Option<Option<StorePath>>,
    signatures: Vec<Signature>,
    ca: Option<String>,
}

impl Fields {
    fn take(&mut self, key: &str, value: &str, dir: &StoreDir) -> Result<(), NarInfoError> {
        match key {
            "StorePath" => {
                let path = dir
                    .parse_path(value)
                    .map_err(|error| NarInfoError::Path("StorePath", error))?;
                once(&mut self.path, "StorePath", path)
            }
            "URL" => once(&mut self.url, "URL", value.to_owned()),
            "Compression" => once(&mut self.compression, "Compression", value.to_owned()),
            "FileHash" => once(&mut self.file_hash, "FileHash", hash("FileHash", value)?),
            "FileSize" => once(&mut self.file_size, "FileSize", number("FileSize", value)?),
            "NarHash" => once(&mut self.nar_hash, "NarHash", hash("NarHash", value)?),
            "NarSize" => once(&mut self.nar_size, "NarSize", number("NarSize", value)?),
            "References" => once(&mut self.references, "References", references(value)?),
            "Deriver" => once(&mut self.deriver, "Deriver", deriver(value)?),
            "CA" => once(&mut self.ca, "CA", value.to_owned()),
            "Sig" if self.signatures.len() == MAX_SIGNATURES => {
                Err(NarInfoError::TooMany("signatures", MAX_SIGNATURES))
            }
            "Sig" => {
                self.signatures.push(Signature::parse(value)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<NarInfo, NarInfoError> {
        let path = self.path.ok_or(NarInfoError::Missing("StorePath"))?;
        let nar_hash = self.nar_hash.ok_or(NarInfoError::Missing("NarHash"))?;
        let nar_size = self.nar_size.ok_or(NarInfoError::Missing("NarSize"))?;
        if nar_size == 0 {
            return Err(NarInfoError::Number {
                field: "NarSize",
                text: "0".into(),
                more: ", more than 0",
            });
        }
        let url = self.url.filter(|url| !url.is_empty()).ok_or(NarInfoError::Missing("URL"))?;
        let compression =
            self.compression.filter(|name| !name.is_empty()).unwrap_or_else(|| "bzip2".into());
        let info = PathInfo {
            references: self.references.unwrap_or_default(),
            deriver: self.deriver.flatten(),
            signatures: self.signatures,
            ca: self.ca.filter(|ca| !ca.is_empty()),
            ..PathInfo::new(path, nar_hash, nar_size)
        };
        Ok(NarInfo { info, url, compression, file_hash: self.file_hash, file_size: self.file_size })
    }
}

fn once<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), NarInfoError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(NarInfoError::Twice(field)),
    }
}

fn hash(field: &'static str, value: &str) -> Result<Sha256, NarInfoError> {
    Sha256::parse(value).map_err(|error| NarInfoError::Hash(field, error))
}

fn number(field: &'static str, value: &str) -> Result<u64, NarInfoError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| NarInfoError::Number {
        field,
        text: shorten(value),
        more: "",
    })
}

fn references(value: &str) -> Result<Vec<StorePath>, NarInfoError> {
    let mut paths = Vec::new();
    for name in value.split(' ').filter(|name| !name.is_empty()) {
        if paths.len() == MAX_REFERENCES {
            return Err(NarInfoError::TooMany("references", MAX_REFERENCES));
        }
        paths
            .push(StorePath::parse(name).map_err(|error| NarInfoError::Path("References", error))?);
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

fn deriver(value: &str) -> Result<Option<StorePath>, NarInfoError> {
    if value.is_empty() || value == "unknown-deriver" {
        return Ok(None);
    }
    StorePath::parse(value).map(Some).map_err(|error| NarInfoError::Path("Deriver", error))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    use super::super::signature::KeyName;

    fn parse(text: &str) -> Result<NarInfo, NarInfoError> {
        NarInfo::parse(text.as_bytes(), &StoreDir::default())
    }

    const PATH: &str = "StorePath: /nix/store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello\n";
    const NAR: &str =
        "NarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 9\n";

    #[test]
    fn a_narinfo_without_compression_is_bzip2() {
        let narinfo = parse(&format!("{PATH}URL: nar/x.nar\n{NAR}References: \n")).unwrap();
        assert_eq!((narinfo.compression.as_str(), narinfo.info.references.len()), ("bzip2", 0));
    }

    #[test]
    fn an_empty_reference_list_may_lack_its_space_and_unknown_keys_are_passed_over() {
        assert!(parse(&format!("{PATH}URL: x\n{NAR}References:\nNew: thing\n")).is_ok());
    }

    #[test]
    fn each_defect_is_named() {
        use NarInfoError as E;
        let whole = format!("{PATH}URL: x\n{NAR}");
        assert_eq!(parse(""), Err(E::Missing("StorePath")));
        assert_eq!(parse(PATH), Err(E::Missing("NarHash")));
        assert_eq!(parse(&format!("{PATH}{NAR}")), Err(E::Missing("URL")));
        assert_eq!(parse(&format!("{whole}{PATH}")), Err(E::Twice("StorePath")));
        assert!(matches!(parse(&format!("{whole}x")), Err(E::Line { line: 5, .. })));
        assert!(matches!(parse(&whole.replace("9\n", "0\n")), Err(E::Number { .. })));
        assert!(matches!(parse(&whole.replace("9\n", "-1\n")), Err(E::Number { .. })));
        assert!(matches!(parse(&whole.replace("9\n", "+1\n")), Err(E::Number { .. })));
        assert!(matches!(parse(&whole.replace("/nix/", "/gnu/")), Err(E::Path(..))));
        assert!(matches!(parse(&format!("{whole}Sig: x\n")), Err(E::Signature(_))));
        let many = "Sig: k:".to_owned() + &"A".repeat(86) + "==\n";
        assert!(matches!(parse(&format!("{whole}{}", many.repeat(17))), Err(E::TooMany(..))));
        assert!(matches!(parse(&"x".repeat(MAX_TEXT + 1)), Err(E::TooLong(_))));
        let bytes = NarInfo::parse(b"\xff\n", &StoreDir::default());
        assert_eq!(bytes, Err(E::NotText(0)));
    }

    prop_compose! {
        fn any_store_path()(hash: [u8; 20], name in "[a-zA-Z0-9+_?=-][a-zA-Z0-9+._?=-]{0,40}") -> StorePath {
            let hash = super::super::store_path::StorePathHash::from_bytes(hash);
            StorePath::parse(&format!("{hash}-{name}")).unwrap()
        }
    }

    prop_compose! {
        fn any_narinfo()(
            path in any_store_path(),
            nar_hash: [u8; 32],
            nar_size in 1u64..,
            references in prop::collection::btree_set(any_store_path(), 0..8),
            deriver in prop::option::of(any_store_path()),
            signatures in prop::collection::vec(("[!-9;-~]{1,20}", prop::array::uniform32(0u8..)), 0..4),
            ca in prop::option::of("fixed:r:sha256:[0-9a-d]{52}"),
            url in "nar/[0-9a-d]{52}\\.nar(\\.zst)?",
            compression in "none|xz|zstd",
            file_hash in prop::option::of(prop::array::uniform32(0u8..)),
            file_size in prop::option::of(0u64..),
        ) -> NarInfo {
            let signatures = signatures.into_iter().map(|(name, half)| {
                let bytes = [half, half].concat().try_into().unwrap();
                Signature::new(KeyName::parse(&name).unwrap(), bytes)
            }).collect();
            NarInfo {
                info: PathInfo {
                    references: references.into_iter().collect(),
                    deriver, signatures, ca,
                    ..PathInfo::new(path, Sha256(nar_hash), nar_size)
                },
                url, compression, file_hash: file_hash.map(Sha256), file_size,
            }
        }
    }

    proptest! {
        #[test]
        fn a_narinfo_reads_back_what_it_prints(narinfo in any_narinfo()) {
            let dir = StoreDir::default();
            let text = narinfo.to_text(&dir);
            prop_assert_eq!(NarInfo::parse(text.as_bytes(), &dir), Ok(narinfo));
        }

        #[test]
        fn a_stored_narinfo_reads_back_and_every_wrong_bit_of_it_is_noticed(
            narinfo in any_narinfo(),
            bit: prop::sample::Index,
        ) {
            let dir = StoreDir::default();
            let mut text = narinfo.to_stored_text(&dir).into_bytes();
            prop_assert!(has_sum(&text));
            prop_assert_eq!(NarInfo::parse(&text, &dir), Ok(narinfo));
            let bit = bit.index(text.len() * 8);
            text[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(NarInfo::parse(&text, &dir).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = NarInfo::parse(&bytes, &StoreDir::default());
        }

        #[test]
        fn every_truncation_is_refused_or_another_whole_narinfo(narinfo in any_narinfo(), cut: prop::sample::Index) {
            let dir = StoreDir::default();
            let text = narinfo.to_text(&dir);
            let part = &text[..cut.index(text.len())];
            if NarInfo::parse(part.as_bytes(), &dir).is_ok() {
                prop_assert!(part.ends_with('\n'));
            }
        }
    }
}
