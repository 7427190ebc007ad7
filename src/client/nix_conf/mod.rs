//! `nix.conf`, read as Nix reads it: for those who look at what a Nix on this machine would do.
//!
//! Files are applied in order, and each line over those before it; `extra-` adds to what is there,
//! `include` takes another file in, `!include` only if it is there (`config.cc`). A line that Nix would
//! refuse, or an include that is missing, is remembered as a complaint, and the rest is read.

pub mod daemon;
pub mod view;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No configuration is longer than this, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// How deep files may include each other: more is a circle.
const MAX_DEPTH: usize = 16;

/// Older names of settings, which Nix still takes.
const ALIASES: [(&str, &str); 3] = [
    ("binary-caches", "substituters"),
    ("binary-cache-public-keys", "trusted-public-keys"),
    ("trusted-binary-caches", "trusted-substituters"),
];

/// What `nix.conf`, and what stands beside it, says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NixConf {
    values: BTreeMap<String, String>,
    complaints: Vec<String>,
}

impl NixConf {
    /// Nix's own values of the settings that are asked for here, where they are not empty.
    pub fn with_defaults() -> Self {
        let mut conf = Self::default();
        for (name, value) in [
            ("substituters", "https://cache.nixos.org/"),
            (
                "trusted-public-keys",
                "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
            ),
            ("require-sigs", "true"),
        ] {
            conf.values.insert(name.into(), value.into());
        }
        conf
    }

    /// Applies a file. One that is not there is no complaint.
    pub fn apply_file(&mut self, path: &Path) {
        self.take_in(path, 0, false);
    }

    /// Applies a text, such as that of `NIX_CONFIG`, which `origin` names in complaints.
    pub fn apply_text(&mut self, text: &str, origin: &str) {
        self.apply(text, origin, Path::new("/"), 0);
    }

    /// The value of a setting, where it has one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The values of a setting that is a list.
    pub fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).unwrap_or_default().split_whitespace()
    }

    /// Whether a setting that is yes or no is no; Nix takes nothing but `true` and `false`.
    pub fn is_false(&self, name: &str) -> bool {
        self.get(name) == Some("false")
    }

    /// What could not be read, one line each.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn take_in(&mut self, path: &Path, depth: usize, must_be_there: bool) {
        match read(path) {
            Ok(text) => {
                let directory = path.parent().unwrap_or_else(|| Path::new("/"));
                self.apply(&text, &path.display().to_string(), directory, depth);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_be_there => {}
            Err(error) => self.complaints.push(format!("{}: {error}", path.display())),
        }
    }

    fn apply(&mut self, text: &str, origin: &str, directory: &Path, depth: usize) {
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [how @ ("include" | "!include"), file] if depth < MAX_DEPTH => {
                    self.take_in(&directory.join(file), depth + 1, *how == "include");
                }
                [name, "=", values @ ..] => self.set(name, &values.join(" ")),
                // The line itself is not shown: it may hold a token.
                _ => self.complaints.push(format!(
                    "{origin}, line {}: neither `name = value` nor an include of a file",
                    number + 1
                )),
            }
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let (name, adds) = match name.strip_prefix("extra-") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let name = ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        let held = self.values.entry(name.to_owned()).or_default();
        if adds && !held.is_empty() {
            held.push(' ');
            held.push_str(value);
        } else {
            value.clone_into(held);
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_line_wins_and_extra_adds() {
        let mut conf = NixConf::with_defaults();
        conf.apply_text(
            "# a comment\nsubstituters = https://a  https://b # and why\nextra-substituters = c\n\
             extra-trusted-public-keys = k:1\nbinary-caches = https://d\nextra-binary-caches = e\n\
             netrc-file =\n",
            "x",
        );
        assert_eq!(conf.list("substituters").collect::<Vec<_>>(), ["https://d", "e"]);
        assert_eq!(conf.list("trusted-public-keys").count(), 2, "the default one stays");
        assert_eq!(conf.get("netrc-file"), None);
        assert!(!conf.is_false("require-sigs"));
        assert!(conf.complaints().is_empty());
    }

    #[test]
    fn what_a_file_includes_stands_where_the_include_stands() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let main = file("nix.conf", "a = 1\ninclude other.conf\n!include none\nb = 1\n");
        file("other.conf", "a = 2\nb = 2\n");
        let mut conf = NixConf::default();
        conf.apply_file(&main);
        assert_eq!((conf.get("a"), conf.get("b")), (Some("2"), Some("1")));
        assert!(conf.complaints().is_empty(), "{conf:?}");
        conf.apply_file(&directory.path().join("none"));
        assert!(conf.complaints().is_empty(), "{conf:?}");
        conf.apply_file(&file("gone.conf", "include none\na = 3\n"));
        assert_eq!(conf.get("a"), Some("3"));
        assert!(conf.complaints()[0].contains("none: No such file"), "{conf:?}");
    }

    #[test]
    fn a_circle_of_includes_ends_and_a_wrong_line_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let circle = directory.path().join("circle");
        std::fs::write(&circle, "include circle\naccess-tokens: secret\n").unwrap();
        let mut conf = NixConf::default();
        conf.apply_file(&circle);
        assert!(conf.complaints().iter().any(|line| line.contains("line 2")), "{conf:?}");
        assert!(!conf.complaints().concat().contains("secret"));
    }
}
