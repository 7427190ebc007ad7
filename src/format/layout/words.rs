//! The words of a layout, checked before they come near a command line.

use std::fmt;

/// What a layout calls a disk, a partition or a volume: 1 to 23 of `a-z 0-9 -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// The name of a partition in its GPT, at most 32 characters: four of the 36 that a GPT has room for
/// are for [`PartLabel::begun`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartLabel(Box<str>);

/// A user, and a group if it is not the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name or number.
    pub user: Box<str>,
    /// Name or number.
    pub group: Option<Box<str>>,
}

/// What stands before the name in the label of a partition that we make.
const OURS: &str = "snowbank-";
/// What stands behind the label until the file system is whole.
const BEGUN: &str = ".new";
/// The most characters of a name: `snowbank-`, the name and `.new` together fill the 36 of a GPT.
const MAX_NAME: usize = 23;
const MAX_LABEL: usize = 32;
/// The longest name of a user that `useradd` takes.
const MAX_USER: usize = 32;

impl Name {
    /// Checks a text.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        (allowed && (1..=MAX_NAME).contains(&text.len()) && !text.starts_with('-'))
            .then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartLabel {
    /// The label of a partition that the layout gives no other one: `snowbank-<name>`.
    pub fn of(name: &Name) -> Self {
        Self(format!("{OURS}{name}").into())
    }

    /// Checks a label that was made by another tool: ASCII that needs no quoting anywhere, and not
    /// one that says that a partition is unfinished.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:- ".contains(&byte);
        let fits = (1..=MAX_LABEL).contains(&text.len()) && text.trim() == text;
        (fits && text.bytes().all(allowed) && !text.ends_with(BEGUN) && !text.starts_with('-'))
            .then(|| Self(text.into()))
    }

    /// What the partition is called until its file system is whole. Whatever is found in a partition
    /// of this name may be made anew: nobody was given it yet.
    pub fn begun(&self) -> String {
        format!("{}{BEGUN}", self.0)
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What udev calls the link to the partition in `/dev/disk/by-partlabel`.
    pub fn as_link(&self) -> String {
        self.0.replace(' ', "\\x20")
    }
}

impl Owner {
    /// Reads `user` or `user:group`, each a name or a number.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let is_name = |name: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            (1..=MAX_USER).contains(&name.len())
                && name.bytes().all(allowed)
                && !name.starts_with(['-', '.'])
        };
        (is_name(user) && group.is_none_or(is_name))
            .then(|| Self { user: user.into(), group: group.map(Into::into) })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for PartLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(formatter, "{}:{group}", self.user),
            None => formatter.write_str(&self.user),
        }
    }
}
