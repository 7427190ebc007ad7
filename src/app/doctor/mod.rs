//! What an administrator would look at, in one go: the host of a server, its caches, and ZFS below them;
//! or, on the machine of a client, what stands between it and a cache ([`remote`]).
//!
//! Everything is looked at and nothing is changed, so it can be run at any time, beside the server, as
//! root or as the service user; as the service user it finds what that one may not.

mod host;
mod pools;
pub mod remote;

use std::fmt;

use crate::config::Config;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    Skipped,
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// What it is, in one line.
    pub what: String,
    /// What to do about it; nothing where it is as it should be.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, what: what.into(), remedy: None }
    }

    fn skipped(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, what: what.into(), remedy: Some(why.into()) }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, what: what.into(), remedy: Some(remedy.into()) }
    }
}

impl Verdict {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:7} {}", self.verdict.word(), self.what)?;
        match &self.remedy {
            Some(remedy) => write!(formatter, ": {remedy}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything. `now` is in seconds since 1970.
pub fn examine(config: &Config, now: i64) -> Vec<Finding> {
    let mut findings = host::examine(config);
    findings.extend(pools::examine(config, now));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        assert_eq!(Finding::ok("data directory /x").to_string(), "ok      data directory /x");
        let warning = Finding::warning("pool tank was never scrubbed", "`zpool scrub tank`");
        assert_eq!(warning.to_string(), "warning pool tank was never scrubbed: `zpool scrub tank`");
        let skipped = Finding::skipped("a path", "none was given");
        assert_eq!(skipped.to_string(), "skipped a path: none was given");
        assert!(Verdict::Problem > Verdict::Warning && Verdict::Warning > Verdict::Ok);
    }
}
