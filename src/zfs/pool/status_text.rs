//! `zpool status -pP -v`, as OpenZFS 2.1 and 2.2 print it for people: sections with a word and a
//! colon in front, `config:` a table by indentation, `errors:` a list of files.
//!
//! All commands run with `LC_ALL=C` and `TZ=UTC`, so the words are English and times are UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::name::PoolName;
use super::super::text::{number, shorten, size};
use super::status::{Health, MAX_FILES, PoolStatus, Scan, ScanKind, ScanState, Vdev, one_line};

/// How times are printed: that of ctime(3).
const TIME: &str = "%a %b %e %H:%M:%S %Y";
/// Words that head a group of devices in the table.
const GROUPS: [&str; 6] = ["logs", "cache", "spares", "special", "dedup", "mirror"];

/// The sections of a report.
#[derive(Default)]
struct Sections {
    pool: String,
    state: String,
    status: String,
    see: String,
    scan: String,
    config: String,
    errors: String,
    /// Those that say nothing to us, such as what to do about it.
    other: String,
}

impl Sections {
    fn read(text: &str) -> Self {
        let mut sections = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            // Names of files come last, and may look like anything.
            let heading = (current != "errors").then(|| heading(line)).flatten();
            let rest = match heading {
                Some((word, rest)) => {
                    current = word.to_owned();
                    rest
                }
                None => line,
            };
            let section = sections.named(&current);
            section.push_str(rest);
            section.push('\n');
        }
        sections
    }

    fn named(&mut self, word: &str) -> &mut String {
        match word {
            "pool" => &mut self.pool,
            "state" => &mut self.state,
            "status" => &mut self.status,
            "see" => &mut self.see,
            "scan" => &mut self.scan,
            "config" => &mut self.config,
            "errors" => &mut self.errors,
            _ => &mut self.other,
        }
    }
}

/// The word before the colon of a line that begins a section, and the rest.
fn heading(line: &str) -> Option<(&str, &str)> {
    let (word, rest) = line.split_once(':')?;
    let word = word.trim_start_matches(' ');
    (!word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())).then_some((word, rest))
}

/// Reads the status of `name`.
pub(super) fn parse(text: &str, name: &PoolName) -> Result<PoolStatus, String> {
    let sections = Sections::read(text);
    if sections.pool.trim() != name.as_str() {
        return Err(format!("it is about {:?}", shorten(sections.pool.trim())));
    }
    let some = |text: &str| Some(one_line(text)).filter(|text| !text.is_empty());
    let (error_count, damaged_files) = errors(&sections.errors);
    let config = sections.config.lines().filter_map(|line| line.strip_prefix('\t'));
    Ok(PoolStatus {
        pool: name.clone(),
        health: Health::parse(sections.state.trim()),
        message_id: some(sections.see.rsplit('/').next().unwrap_or_default()),
        message: some(&sections.status),
        scan: scan(&sections.scan),
        vdevs: config.filter_map(|line| vdev(line).transpose()).collect::<Result<_, _>>()?,
        error_count,
        damaged_files,
    })
}

/// A line of the table: `  mirror-0  ONLINE  0  0  0  some remark`. None for one that only heads.
fn vdev(line: &str) -> Result<Option<Vdev>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.is_empty() || words.first() == Some(&"NAME") {
        return Ok(None);
    }
    if let [group] = words[..] {
        let known = GROUPS.contains(&group);
        return if known { Ok(None) } else { Err(unknown(line)) };
    }
    let depth = (line.len() - line.trim_start_matches(' ').len()) / 2;
    // A name may have blanks in it: the state is the word before three numbers in a row.
    let counters =
        words.windows(3).skip(2).position(|words| words.iter().all(|word| number(word).is_ok()));
    let (state, counters) = match counters {
        Some(position) => (position + 1, Some(position + 2)),
        // A spare has no counters.
        None => {
            match words.iter().position(|word| matches!(*word, "AVAIL" | "INUSE" | "UNAVAIL")) {
                Some(state) if state > 0 => (state, None),
                _ => return Err(unknown(line)),
            }
        }
    };
    let counter = |offset: usize| {
        let word = counters.and_then(|first| words.get(first + offset));
        word.and_then(|word| number(word).ok()).unwrap_or(0)
    };
    Ok(Some(Vdev {
        name: words.get(..state).unwrap_or_default().join(" "),
        depth,
        health: Health::parse(words.get(state).copied().unwrap_or_default()),
        read_errors: counter(0),
        write_errors: counter(1),
        checksum_errors: counter(2),
    }))
}

fn unknown(line: &str) -> String {
    format!("{:?} is not a line about a device", shorten(line.trim()))
}

/// How many errors there are, where that is told, and the files that are listed.
fn errors(section: &str) -> (Option<u64>, Vec<String>) {
    let (first, rest) = section.split_once('\n').unwrap_or((section, ""));
    let first = first.trim();
    if first == "No known data errors" {
        return (Some(0), Vec::new());
    }
    if first.starts_with("Permanent errors") {
        let files: Vec<&str> =
            rest.lines().filter_map(|line| line.strip_prefix("        ")).collect();
        let listed = files.iter().take(MAX_FILES).map(|file| (*file).to_owned()).collect();
        return (u64::try_from(files.len()).ok(), listed);
    }
    // `12 data errors, use '-v' for a list`
    let count = first.split(' ').next().and_then(|word| number(word).ok());
    (count.filter(|_| first.contains("data errors")), Vec::new())
}

/// The section about the last scan: one line when it is over, three while it runs.
fn scan(section: &str) -> Option<Scan> {
    let first = section.trim_start().lines().next()?.trim();
    let kind = match first.split(' ').next()? {
        "scrub" => ScanKind::Scrub,
        "resilver" | "resilvered" => ScanKind::Resilver,
        "none" => return None,
        _ => ScanKind::Other,
    };
    let (state, when) = [
        (" in progress since ", ScanState::Running),
        (" paused since ", ScanState::Paused),
        (" canceled on ", ScanState::Cancelled),
        (" errors on ", ScanState::Finished),
    ]
    .into_iter()
    .find_map(|(words, state)| Some((state, first.split_once(words)?.1)))?;
    let running = state == ScanState::Running;
    let time = seconds(when);
    let (examined, to_examine) = progress(section);
    let errors =
        first.split_once(" with ").and_then(|(_, rest)| number(rest.split(' ').next()?).ok());
    Some(Scan {
        kind,
        state,
        start: time.filter(|_| running),
        end: time.filter(|_| matches!(state, ScanState::Finished | ScanState::Cancelled)),
        errors: errors.unwrap_or(0),
        examined,
        to_examine,
    })
}

/// Bytes that were read and bytes in all, of a scan that runs. In 2.1
/// `1G scanned at 1M/s, 243M issued at 1M/s, 2.1G total`, in 2.2 `1G / 2G scanned, 243M / 2G issued`.
fn progress(section: &str) -> (Option<u64>, Option<u64>) {
    let words: Vec<&str> =
        section.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
    let at = |word: &str| words.iter().position(|other| *other == word);
    let before =
        |index: Option<usize>, offset: usize| size(words.get(index?.checked_sub(offset)?)?);
    let issued = at("issued");
    let slash = issued.and_then(|index| words.get(index.checked_sub(2)?)) == Some(&"/");
    if slash {
        (before(issued, 3), before(issued, 1))
    } else {
        (before(issued, 1), before(at("total"), 1))
    }
}

/// Seconds since 1970 of a time in UTC.
fn seconds(text: &str) -> Option<u64> {
    let time = DateTime::strptime(TIME, text.trim()).ok()?;
    u64::try_from(TimeZone::UTC.to_timestamp(time).ok()?.as_second()).ok()
}

#[cfg(test)]
mod tests;
