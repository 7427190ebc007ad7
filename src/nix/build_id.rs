//! Build IDs: by which a debugger asks for debug information.

use std::fmt;

/// A GNU build ID in hexadecimal, at least two bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuildId(String);

impl BuildId {
    /// Reads 4 to 128 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        ((4..=128).contains(&text.len()) && text.bytes().all(digit)).then(|| Self(text.into()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a store path that has it holds its debug information, as nixpkgs'
    /// `separateDebugInfo` puts it there.
    pub fn member(&self) -> String {
        let (first, rest) = self.0.split_at(2);
        format!("{}/{first}/{rest}{DEBUG}", DIRECTORY.join("/"))
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The directory of all debug information in a store path.
pub(super) const DIRECTORY: [&str; 3] = ["lib", "debug", ".build-id"];
/// How the names of its files end.
pub(super) const DEBUG: &str = ".debug";
