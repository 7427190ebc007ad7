//! Who may read and who may push.

/// Who may push to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushPolicy {
    /// Nobody.
    None,
    /// Whoever shows a token with the scope push.
    Token,
    /// Everybody.
    Open,
}

/// Who may read a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Everybody.
    Public,
    /// Whoever shows a token with the scope pull.
    Token,
}
