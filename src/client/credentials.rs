//! The token that a push shows, and where it comes from.
//!
//! The first of these that is there: the file of `--token-file` or `SNOWBANK_TOKEN_FILE`, the text of
//! `SNOWBANK_TOKEN`, the password that a netrc has for the host (`NETRC`, `~/.netrc`,
//! `/etc/nix/netrc`). Never an argument, which everybody on the machine can read, and never a log line.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::netrc;

/// A token file is one line, a netrc some; more than this is something else.
const MAX_FILE: u64 = 1 << 20;

/// A secret that is shown to the server and to nobody else.
///
/// One from a file is read anew each time, so that an agent goes on with the one that replaces it.
#[derive(Clone)]
pub struct Token {
    text: Zeroizing<String>,
    file: Option<PathBuf>,
}

/// Why there is no token though one was named.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("token file {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something that cannot be sent.
    #[error("{0} does not hold a token: one line of printable ASCII is expected")]
    Format(String),
}

impl Token {
    fn parse(text: &str, place: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() || !text.chars().all(|character| character.is_ascii_graphic()) {
            return Err(TokenError::Format(place.to_owned()));
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), file: None })
    }

    fn from_file(path: &Path) -> Result<Self, TokenError> {
        let text =
            read(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Finds the token for `host`, which is a name without a port. `file` is the flag's.
    pub fn find(
        file: Option<&Path>,
        host: &str,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, TokenError> {
        let variable = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let named = variable("SNOWBANK_TOKEN_FILE").map(PathBuf::from);
        if let Some(path) = file.map(Path::to_owned).or(named) {
            let token = Self::from_file(&path)?;
            return Ok(Some(Self { file: Some(path), ..token }));
        }
        if let Some(text) = variable("SNOWBANK_TOKEN") {
            let text = Zeroizing::new(text.to_string_lossy().into_owned());
            return Self::parse(&text, "SNOWBANK_TOKEN").map(Some);
        }
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".netrc"));
        let named = variable("NETRC").map(PathBuf::from);
        for path in [named, home, Some("/etc/nix/netrc".into())].into_iter().flatten() {
            // One that is not there, or not ours to read, is the same as one without the host.
            let Ok(text) = read(&path) else { continue };
            if let Some(login) = netrc::login_for(host, &text) {
                return Self::parse(login.password, &path.display().to_string()).map(Some);
            }
        }
        Ok(None)
    }

    /// What goes into `Authorization`.
    pub(super) fn bearer(&self) -> Zeroizing<String> {
        // A file that is being replaced may be empty: then the last one serves.
        let now = self.file.as_deref().and_then(|path| Self::from_file(path).ok());
        let text = now.map_or_else(|| self.text.clone(), |token| token.text);
        Zeroizing::new(format!("Bearer {}", text.as_str()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Reads a file that holds something secret: of a longer one only so much as any of them has.
pub fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETRC: &str = "machine one.example login a password first\n";

    fn find(
        file: Option<&Path>,
        variables: &[(&str, &Path)],
    ) -> Result<Option<String>, TokenError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_os_str().to_owned())
        };
        let token = Token::find(file, "one.example", &lookup)?;
        Ok(token.map(|token| token.bearer().to_string()))
    }

    #[test]
    fn the_flag_wins_over_the_variables_and_these_over_a_netrc() {
        let directory = tempfile::tempdir().unwrap();
        let [flag, named, netrc] =
            ["flag", "named", "netrc"].map(|name| directory.path().join(name));
        std::fs::write(&flag, "from-flag\n").unwrap();
        std::fs::write(&named, "from-file\n").unwrap();
        std::fs::write(&netrc, NETRC).unwrap();
        let text: &Path = Path::new("from-text");
        let all: [(&str, &Path); 3] =
            [("SNOWBANK_TOKEN_FILE", &named), ("SNOWBANK_TOKEN", text), ("NETRC", &netrc)];
        assert_eq!(find(Some(&flag), &all).unwrap().unwrap(), "Bearer from-flag");
        assert_eq!(find(None, &all).unwrap().unwrap(), "Bearer from-file");
        assert_eq!(find(None, &all[1..]).unwrap().unwrap(), "Bearer from-text");
        assert_eq!(find(None, &all[2..]).unwrap().unwrap(), "Bearer first");
    }

    #[test]
    fn a_file_that_was_named_and_cannot_be_used_is_an_error_that_does_not_show_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(find(Some(&path), &[]), Err(TokenError::File { .. })));
        for bad in ["", "\n", "two words", "ütf"] {
            std::fs::write(&path, bad).unwrap();
            let error = find(Some(&path), &[]).unwrap_err();
            assert!(matches!(error, TokenError::Format(_)), "{bad:?}");
            assert!(!error.to_string().contains("words"));
        }
    }

    #[test]
    fn a_token_file_that_was_replaced_counts_at_once_and_one_that_is_gone_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let token = Token::find(Some(&path), "one.example", &|_| None).unwrap().unwrap();
        std::fs::write(&path, "second\n").unwrap();
        assert_eq!(token.bearer().as_str(), "Bearer second");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(token.bearer().as_str(), "Bearer first");
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::parse("secret", "x").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }
}
