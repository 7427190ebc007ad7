//! Whether what lies below a source can be read at all, as somebody knows who watches it.
//!
//! A source finds out by itself that one file cannot be read. That none can, because a pool is suspended or
//! gone, it finds out too late: each read of such a pool may take a thread that never comes back. Whoever
//! watches the pool says so here, and from then on the source answers without touching the disk.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::SourceError;

/// Whether a source may be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may.
    Well,
    /// Nothing below it can be read now, for this reason.
    Away(Arc<str>),
}

/// What is asked about a file that could not be read: what the pool says of it, for the log. It is asked once
/// a file, on a thread that may block, and before it is decided what the error means: it may
/// [`set`](Vital::set) how the source stands.
pub type Report = Box<dyn Fn(&Path) -> String + Send + Sync>;

/// How a source stands, and whom to ask about its files. Well, until somebody says otherwise.
#[derive(Default)]
pub struct Vital {
    is_away: AtomicBool,
    why: RwLock<Option<Arc<str>>>,
    report: OnceLock<Report>,
}

impl Vital {
    /// Says how the source stands from now on.
    pub fn set(&self, standing: Standing) {
        let away = match standing {
            Standing::Well => None,
            Standing::Away(why) => Some(why),
        };
        let mut why = self.why.write().unwrap_or_else(PoisonError::into_inner);
        self.is_away.store(away.is_some(), Ordering::Release);
        *why = away;
    }

    /// How the source stands.
    pub fn standing(&self) -> Standing {
        if !self.is_away.load(Ordering::Acquire) {
            return Standing::Well;
        }
        let why = self.why.read().unwrap_or_else(PoisonError::into_inner);
        why.clone().map_or(Standing::Well, Standing::Away)
    }

    /// Whether the source may be asked.
    pub fn is_well(&self) -> bool {
        self.standing() == Standing::Well
    }

    /// Has `report` asked about each file that cannot be read; the first who says so stays.
    pub fn report_with(&self, report: Report) {
        if self.report.set(report).is_err() {
            tracing::debug!("a source is watched already");
        }
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.report.get().is_some()
    }

    /// What the pool says of a file.
    pub(super) fn ask(&self, file: &Path) -> Option<String> {
        self.report.get().map(|report| report(file))
    }

    /// Refuses while nothing can be read.
    pub fn check(&self) -> Result<(), SourceError> {
        match self.standing() {
            Standing::Well => Ok(()),
            Standing::Away(why) => Err(SourceError::Unavailable(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_be_asked_until_it_is_said_that_it_may_not_and_then_again() {
        let vital = Vital::default();
        assert!(vital.check().is_ok());
        vital.set(Standing::Away("the pool tank is suspended".into()));
        assert!(vital.check().unwrap_err().to_string().contains("tank is suspended"));
        assert_eq!(vital.standing(), Standing::Away("the pool tank is suspended".into()));
        vital.set(Standing::Well);
        assert!(vital.check().is_ok() && vital.standing() == Standing::Well);
    }

    #[test]
    fn the_report_may_say_that_all_is_away() {
        let vital = Arc::new(Vital::default());
        let told = Arc::downgrade(&vital);
        vital.report_with(Box::new(move |file| {
            if let Some(vital) = told.upgrade() {
                vital.set(Standing::Away("it is gone".into()));
            }
            format!("of {}", file.display())
        }));
        assert_eq!(vital.ask(Path::new("/a")).as_deref(), Some("of /a"));
        assert!(vital.is_watched() && vital.check().is_err());
    }
}
