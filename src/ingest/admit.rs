//! What surrounds every part of a push: it is taken only while the bank is there, and where there is no
//! room for it the answer has the numbers.

use super::Class;
use super::publish::Ingest;
use super::refusal::PushError;
use crate::bank::Room;

impl Ingest {
    /// Runs a part of a push. Blocks.
    pub(super) fn admitted<T>(
        &self,
        take: impl FnOnce() -> Result<T, PushError>,
    ) -> Result<T, PushError> {
        self.check_there()?;
        take().map_err(|error| self.with_numbers(error))
    }

    /// Refuses while the bank cannot be written: it is not mounted, or its disks do not answer.
    pub(super) fn check_there(&self) -> Result<(), PushError> {
        self.source.look().map_err(|error| self.cache.unavailable(error))?;
        Ok(self.quota.count_once(&self.bank)?)
    }

    /// Where there was no room, says how much there is, and counts again: others may have made some, for
    /// the next attempt.
    pub(super) fn with_numbers(&self, error: PushError) -> PushError {
        if error.class() != Class::NoSpace {
            return error;
        }
        self.no_room.note();
        if let Err(error) = self.quota.count(&self.bank) {
            tracing::warn!("the bytes of the bank could not be counted: {error}");
        }
        match self.bank.room() {
            Ok(Room { available, total }) => PushError::NoSpace(format!(
                "{error}; {available} of {total} bytes are free where this cache lies"
            )),
            Err(_) => error,
        }
    }
}
