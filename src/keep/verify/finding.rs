//! What can be wrong with a path.

/// Something that is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// What is wrong, for people.
    pub what: String,
}

/// What a finding is about; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The narinfo cannot be read, or is not what was stored.
    NarInfo,
    /// The NAR is not there, or is not the one that the narinfo is of.
    Nar,
    /// The listing is not that of the NAR.
    Listing,
    /// The narinfo names a reference that does not stand in the NAR, or lacks the path itself.
    References,
    /// A signature bears the name of a key that is known, and is not by it.
    Signature,
    /// What the path refers to is not here.
    Dangling,
    /// We may not read it: nothing is known of it.
    Denied,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NarInfo,
        Self::Nar,
        Self::Listing,
        Self::References,
        Self::Signature,
        Self::Dangling,
        Self::Denied,
    ];

    /// As metrics, the state database and JSON say it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NarInfo => "narinfo",
            Self::Nar => "nar",
            Self::Listing => "listing",
            Self::References => "references",
            Self::Signature => "signature",
            Self::Dangling => "dangling",
            Self::Denied => "denied",
        }
    }

    /// Whether the path must not be served.
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::NarInfo | Self::Nar)
    }
}
