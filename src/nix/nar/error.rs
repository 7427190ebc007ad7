//! What is wrong with a NAR.

/// Why bytes are not a NAR that we accept. Every `offset` is that of the offending word in the
/// uncompressed NAR, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NarError {
    /// The first word is not `nix-archive-1`.
    #[error("not a NAR: it does not begin with \"nix-archive-1\"")]
    Magic,
    /// A word other than the one the format asks for.
    #[error("NAR offset {offset}: expected {expected}, got {got:?}")]
    Token {
        /// Where the word begins.
        offset: u64,
        /// The words that may stand here.
        expected: &'static str,
        /// The word that stands here, or its length if that alone is wrong.
        got: String,
    },
    /// A name that sorts before its predecessor.
    #[error("NAR offset {offset}: entry {name:?} comes after {previous:?}; names must be sorted")]
    Unsorted {
        /// Where the name begins.
        offset: u64,
        /// The name.
        name: String,
        /// The name before it in the same directory.
        previous: String,
    },
    /// The same name twice in one directory.
    #[error("NAR offset {offset}: entry {name:?} is there twice")]
    Duplicate {
        /// Where the second one begins.
        offset: u64,
        /// The name.
        name: String,
    },
    /// Empty, `.`, `..`, or with a slash or a NUL.
    #[error("NAR offset {offset}: {name:?} is not a legal name")]
    IllegalName {
        /// Where the name begins.
        offset: u64,
        /// The name.
        name: String,
    },
    /// A name longer than [`Limits::max_name`](super::Limits::max_name).
    #[error("NAR offset {offset}: a name of {length} bytes, more than {limit}")]
    NameTooLong {
        /// Where the name begins.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// A symlink to nowhere.
    #[error("NAR offset {offset}: a symlink with an empty target")]
    EmptyTarget {
        /// Where the target begins.
        offset: u64,
    },
    /// A target longer than [`Limits::max_target`](super::Limits::max_target).
    #[error("NAR offset {offset}: a symlink target of {length} bytes, more than {limit}")]
    TargetTooLong {
        /// Where the target begins.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// No file system can hold such a target.
    #[error("NAR offset {offset}: a symlink target with a NUL byte")]
    TargetWithNul {
        /// Where the target begins.
        offset: u64,
    },
    /// The bytes that fill a word up to eight are not zero.
    #[error("NAR offset {offset}: padding that is not zero")]
    Padding {
        /// The first byte that is not zero.
        offset: u64,
    },
    /// A node deeper than [`Limits::max_depth`](super::Limits::max_depth).
    #[error("NAR offset {offset}: directories nested deeper than {limit}")]
    TooDeep {
        /// Where the node begins.
        offset: u64,
        /// The limit.
        limit: usize,
    },
    /// More nodes than [`Limits::max_entries`](super::Limits::max_entries).
    #[error("NAR offset {offset}: more than {limit} files and directories")]
    TooManyEntries {
        /// Where the first node too many begins.
        offset: u64,
        /// The limit.
        limit: u64,
    },
    /// More bytes, or more declared bytes, than [`Limits::max_size`](super::Limits::max_size).
    #[error("NAR offset {offset}: the NAR would be larger than {limit} bytes")]
    TooLarge {
        /// Where the word that is too large begins.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The bytes end before the NAR does.
    #[error("the NAR ends early, after {offset} bytes")]
    Truncated {
        /// How many bytes there were.
        offset: u64,
    },
    /// There are bytes after the end of the NAR.
    #[error("NAR offset {offset}: bytes after the end of the NAR")]
    TrailingBytes {
        /// Where the NAR ends.
        offset: u64,
    },
}

/// Messages quote what came in, never more than a line of it.
pub(super) fn quote(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}
