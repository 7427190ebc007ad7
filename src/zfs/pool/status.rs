//! What `zpool status` says, whichever way it was asked.

use super::super::name::PoolName;
use super::{status_json, status_text};

/// The most files with errors that are listed; [`PoolStatus::error_count`] has all.
pub(super) const MAX_FILES: usize = 1000;

/// How a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub pool: PoolName,
    /// Its state. `Online` says nothing about errors.
    pub health: Health,
    /// The number of what is wrong, such as `ZFS-8000-8A`; none when nothing is, and where 2.1 and
    /// 2.2 have no page about it.
    pub message_id: Option<String>,
    /// What is wrong, in ZFS's own words on one line.
    pub message: Option<String>,
    /// The last scrub or resilver, running or done; none when there was none since the pool was made.
    pub scan: Option<Scan>,
    /// Every device, and what devices are put together to, from the top.
    pub vdevs: Vec<Vdev>,
    /// How many blocks are lost for good; none where that may not be seen.
    pub error_count: Option<u64>,
    /// The first thousand files that have lost blocks, by their paths; of a file that is gone or a
    /// dataset that is not mounted, numbers such as `tank/store:<0x80>`.
    pub damaged_files: Vec<String>,
}

/// The state of a pool or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It works.
    Online,
    /// It works with less than it should have.
    Degraded,
    /// It does not work.
    Faulted,
    /// Somebody switched it off.
    Offline,
    /// It was taken out.
    Removed,
    /// It cannot be opened.
    Unavailable,
    /// All reads and writes wait until its devices are back.
    Suspended,
    /// A spare that is ready.
    Spare,
    /// A spare that stands in.
    SpareInUse,
    /// A word that is new to us.
    Unknown,
}

impl Health {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "ONLINE" => Self::Online,
            "DEGRADED" => Self::Degraded,
            "FAULTED" => Self::Faulted,
            "OFFLINE" => Self::Offline,
            "REMOVED" => Self::Removed,
            // CANT_OPEN is the same of a device, in JSON.
            "UNAVAIL" | "CANT_OPEN" | "UNAVAILABLE" => Self::Unavailable,
            "SUSPENDED" => Self::Suspended,
            "AVAIL" => Self::Spare,
            "INUSE" => Self::SpareInUse,
            _ => Self::Unknown,
        }
    }

    /// Whether what lies on it can be read and written; whoever tries otherwise waits, perhaps for ever.
    pub const fn answers(self) -> bool {
        !matches!(self, Self::Suspended | Self::Faulted | Self::Unavailable)
    }

    /// The word that ZFS prints, for a metric or a table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "ONLINE",
            Self::Degraded => "DEGRADED",
            Self::Faulted => "FAULTED",
            Self::Offline => "OFFLINE",
            Self::Removed => "REMOVED",
            Self::Unavailable => "UNAVAIL",
            Self::Suspended => "SUSPENDED",
            Self::Spare => "AVAIL",
            Self::SpareInUse => "INUSE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A scrub or a resilver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Which of them.
    pub kind: ScanKind,
    /// How far it came.
    pub state: ScanState,
    /// When it began, in seconds since 1970. The text of 2.1 and 2.2 tells it only while it runs.
    pub start: Option<u64>,
    /// When it ended, in seconds since 1970.
    pub end: Option<u64>,
    /// How many errors it could not repair.
    pub errors: u64,
    /// How many bytes it has read and checked. From the text of 2.1 and 2.2, and there only while it
    /// runs, in three digits.
    pub examined: Option<u64>,
    /// How many bytes there are for it in all.
    pub to_examine: Option<u64>,
}

/// What a scan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// Reads everything and compares it with its checksums.
    Scrub,
    /// Fills a new device.
    Resilver,
    /// Another kind, such as the scrub of known errors only.
    Other,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanState {
    /// It runs.
    Running,
    /// It waits for somebody to let it go on.
    Paused,
    /// It came to its end.
    Finished,
    /// Somebody stopped it.
    Cancelled,
}

/// A device, or devices put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdev {
    /// A path such as `/dev/sda1`, or a name such as `mirror-0`.
    pub name: String,
    /// How deep it lies: 0 is the pool itself.
    pub depth: usize,
    /// Its state.
    pub health: Health,
    /// Reads that failed.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Blocks that were not what was written.
    pub checksum_errors: u64,
}

impl PoolStatus {
    /// Reads what OpenZFS 2.3 and later print of `pool` by `zpool status -j -pP --json-int -v`; the
    /// error says what is wrong with it.
    pub fn parse_json(text: &str, pool: &PoolName) -> Result<Self, String> {
        status_json::parse(text, pool)
    }

    /// Reads what all versions print of `pool` by `zpool status -pP -v` with `LC_ALL=C` and
    /// `TZ=UTC`; the error says what is wrong with it.
    pub fn parse_text(text: &str, pool: &PoolName) -> Result<Self, String> {
        status_text::parse(text, pool)
    }

    /// The errors of all devices together: read, write, checksum. What devices are put together to
    /// has counters of its own, for blocks that no device of it could give; they count too.
    pub fn errors(&self) -> (u64, u64, u64) {
        self.vdevs.iter().fold((0, 0, 0), |(read, write, checksum), vdev| {
            (
                read.saturating_add(vdev.read_errors),
                write.saturating_add(vdev.write_errors),
                checksum.saturating_add(vdev.checksum_errors),
            )
        })
    }
}

/// Lines and runs of blanks as one blank.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
