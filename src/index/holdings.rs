//! What a node holds, as it tells its peers: so compact that all of them can know it, and ask only where the
//! answer is probably yes.
//!
//! Of each path the first four bytes of its hash are told, as a number. Of a million paths elsewhere that a node
//! does not hold, some 230 look as if it did, for each million that it holds; what it does hold is never missing.
//! A peer asks every second for what came since; what went is told with the whole, which is asked for now and
//! then: asking in vain costs one question.
//!
//! ```text
//! "snowhold"            8 bytes
//! epoch                 8 bytes, little endian: another number after each start
//! next                  8 bytes, little endian: what to ask for next
//! kind                  1 byte: 0 is the whole, 1 what came since
//! the numbers, ascending, each as its difference to the one before (the first to 0), in LEB128
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nix::store_path::StorePathHash;

/// Where it is told, below a cache's own prefix: as a part of [`crate::native`], for whoever may read the cache.
pub const PLACE: &str = "/_snowbank/v1/holdings";
/// What it begins with.
const MAGIC: &[u8; 8] = b"snowhold";
/// Bytes before the numbers.
const HEAD: usize = 25;
/// The most paths that are told, and read.
const MAX_PATHS: usize = 8 << 20;
/// The longest of it, in bytes: a number takes five at most.
pub const MAX_BODY: u64 = (MAX_PATHS * 5 + HEAD) as u64;
/// What came, as far as it is remembered.
const REMEMBERED: usize = 1 << 16;

/// How much of the holdings somebody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of which process.
    pub epoch: u64,
    /// What to ask for next.
    pub next: u64,
}

/// What is told of the holdings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// How much whoever learns this knows then.
    pub known: Known,
    /// Whether it is all of it, or what came since.
    pub is_whole: bool,
    /// The paths, by their first four bytes, ascending, each once.
    prefixes: Vec<u32>,
}

/// It is not what one of us tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what it holds cannot be read: {0}")]
pub struct HoldingsError(&'static str);

/// What came to a cache since this process began, as far back as it is remembered.
pub struct Arrivals {
    epoch: u64,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// The number of the first that is remembered.
    first: u64,
    came: VecDeque<u32>,
}

/// What is known of the holdings of a peer.
#[derive(Clone, Debug, Default)]
pub struct Held {
    known: Option<Known>,
    /// Ascending.
    whole: Vec<u32>,
    came: HashSet<u32>,
}

impl Known {
    /// As a question.
    pub fn query(self) -> String {
        format!("epoch={}&after={}", self.epoch, self.next)
    }

    /// Reads such a question; `None` where it is none, and the whole is the answer.
    pub fn parse(query: &str) -> Option<Self> {
        let value = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
            pair?.strip_prefix('=')?.parse().ok()
        };
        Some(Self { epoch: value("epoch")?, next: value("after")? })
    }
}

impl News {
    fn new(known: Known, is_whole: bool, mut prefixes: Vec<u32>) -> Self {
        prefixes.sort_unstable();
        prefixes.dedup();
        Self { known, is_whole, prefixes }
    }

    /// How many paths are told, where no two look the same.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether none is told.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.prefixes.len() * 3);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.known.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.known.next.to_le_bytes());
        bytes.push(u8::from(!self.is_whole));
        let mut before = 0;
        for prefix in &self.prefixes {
            let mut rest = prefix - before;
            while rest >= 0x80 {
                bytes.push(rest.to_le_bytes()[0] | 0x80);
                rest >>= 7;
            }
            bytes.push(rest.to_le_bytes()[0]);
            before = *prefix;
        }
        bytes
    }

    /// Reads what was sent.
    pub fn read(bytes: &[u8]) -> Result<Self, HoldingsError> {
        let short = HoldingsError("it ends too early");
        let rest = bytes.strip_prefix(MAGIC).ok_or(HoldingsError("it begins otherwise"))?;
        let (epoch, rest) = rest.split_first_chunk().ok_or(short)?;
        let (next, rest) = rest.split_first_chunk().ok_or(short)?;
        let (kind, mut rest) = rest.split_first().ok_or(short)?;
        let is_whole = match kind {
            0 => true,
            1 => false,
            _ => return Err(HoldingsError("it is of no known kind")),
        };
        let mut prefixes: Vec<u32> = Vec::new();
        while !rest.is_empty() {
            if prefixes.len() == MAX_PATHS {
                return Err(HoldingsError("there are too many paths"));
            }
            let (step, after) = number(rest)?;
            let prefix = match prefixes.last() {
                None => Some(step),
                Some(before) if step > 0 => before.checked_add(step),
                Some(_) => None,
            };
            prefixes.push(prefix.ok_or(HoldingsError("the paths do not ascend"))?);
            rest = after;
        }
        let known = Known { epoch: u64::from_le_bytes(*epoch), next: u64::from_le_bytes(*next) };
        Ok(Self { known, is_whole, prefixes })
    }
}

/// A number in LEB128, and what follows it.
fn number(bytes: &[u8]) -> Result<(u32, &[u8]), HoldingsError> {
    let mut number = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        let part = u32::from(byte & 0x7f);
        let shifted = part << (7 * index);
        if shifted >> (7 * index) != part || (index > 0 && *byte == 0) {
            return Err(HoldingsError("a number is not written as it should be"));
        }
        number |= shifted;
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    Err(HoldingsError("a number does not end"))
}

impl Default for Arrivals {
    fn default() -> Self {
        let mut epoch = [0; 8];
        // Without random bytes all of its peers ask for the whole each time, which is right as well.
        let _ = getrandom::fill(&mut epoch);
        Self { epoch: u64::from_le_bytes(epoch), log: Mutex::default() }
    }
}

impl Arrivals {
    /// Notes that a path came.
    pub fn came(&self, hash: StorePathHash) {
        let mut log = self.log();
        log.came.push_back(hash.prefix());
        if log.came.len() > REMEMBERED {
            log.came.pop_front();
            log.first += 1;
        }
    }

    /// What came after what somebody knows; `None` where that cannot be told.
    pub fn since(&self, known: Known) -> Option<News> {
        let log = self.log();
        let skipped = usize::try_from(known.next.checked_sub(log.first)?).ok()?;
        if known.epoch != self.epoch || self.epoch == 0 || skipped > log.came.len() {
            return None;
        }
        let came = log.came.iter().skip(skipped).copied().collect();
        Some(News::new(self.known(&log), false, came))
    }

    /// All of it: what came, and what `scan` finds, which is called after it was noted what came until now.
    pub fn whole(&self, scan: impl FnOnce(&mut dyn FnMut(StorePathHash))) -> News {
        let (known, mut prefixes) = {
            let log = self.log();
            (self.known(&log), log.came.iter().copied().collect::<Vec<_>>())
        };
        scan(&mut |hash| {
            if prefixes.len() < MAX_PATHS {
                prefixes.push(hash.prefix());
            }
        });
        News::new(known, true, prefixes)
    }

    fn known(&self, log: &Log) -> Known {
        Known { epoch: self.epoch, next: log.first + log.came.len() as u64 }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // Every change of it is whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// How much is known; nothing where the whole was never learnt.
    pub const fn known(&self) -> Option<Known> {
        self.known
    }

    /// Learns what a peer tells.
    pub fn learn(&mut self, news: News) {
        self.known = Some(news.known);
        if news.is_whole {
            self.came.clear();
            self.whole = news.prefixes;
            return;
        }
        self.came.extend(news.prefixes);
        if self.came.len() > REMEMBERED {
            self.whole.extend(self.came.drain());
            self.whole.sort_unstable();
            self.whole.dedup();
        }
    }

    /// Whether the peer may hold the path: certainly where nothing is known.
    pub fn may_have(&self, hash: StorePathHash) -> bool {
        let prefix = hash.prefix();
        self.known.is_none()
            || self.came.contains(&prefix)
            || self.whole.binary_search(&prefix).is_ok()
    }

    /// How many paths the peer holds, as far as it is known.
    pub fn len(&self) -> usize {
        self.whole.len() + self.came.len()
    }

    /// Whether it is known of none that the peer holds it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(number: u32) -> StorePathHash {
        StorePathHash::of_prefix(number)
    }

    proptest! {
        #[test]
        fn what_is_told_is_read_as_it_was(
            numbers: Vec<u32>,
            epoch: u64,
            next: u64,
            is_whole: bool,
        ) {
            let news = News::new(Known { epoch, next }, is_whole, numbers);
            prop_assert_eq!(News::read(&news.to_bytes()).unwrap(), news);
        }

        #[test]
        fn nothing_is_read_that_would_be_told_otherwise(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            kind in 0_u8..3,
        ) {
            let bytes = [&MAGIC[..], &[0; 16], &[kind], &bytes].concat();
            if let Ok(news) = News::read(&bytes) {
                prop_assert_eq!(news.to_bytes(), bytes);
            }
        }

        #[test]
        fn what_a_peer_holds_is_never_missing(
            before in proptest::collection::vec(0_u32..1000, 0..50),
            after in proptest::collection::vec(0_u32..1000, 0..50),
        ) {
            let arrivals = Arrivals::default();
            let mut held = Held::default();
            held.learn(arrivals.whole(|each| before.iter().for_each(|number| each(hash(*number)))));
            after.iter().for_each(|number| arrivals.came(hash(*number)));
            let news = arrivals.since(held.known().unwrap()).unwrap();
            held.learn(News::read(&news.to_bytes()).unwrap());
            for number in 0..1000 {
                let has = before.contains(&number) || after.contains(&number);
                prop_assert_eq!(held.may_have(hash(number)), has);
            }
        }
    }

    #[test]
    fn of_an_unknown_peer_everything_is_possible() {
        assert!(Held::default().may_have(hash(1)));
    }

    #[test]
    fn who_knows_too_little_or_of_another_process_is_told_the_whole() {
        let arrivals = Arrivals::default();
        let known = arrivals.whole(|_| ()).known;
        assert_eq!(arrivals.since(known).unwrap().len(), 0);
        assert_eq!(arrivals.since(Known { epoch: known.epoch ^ 1, ..known }), None);
        assert_eq!(arrivals.since(Known { next: 1, ..known }), None, "it has not come yet");
        (0..=70_000).for_each(|number| arrivals.came(hash(number)));
        assert_eq!(arrivals.since(known), None);
        let later = Known { next: 70_000, ..known };
        assert_eq!(arrivals.since(later).unwrap().prefixes, [70_000]);
    }

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let known = Known { epoch: u64::MAX, next: 7 };
        assert_eq!(Known::parse(&known.query()), Some(known));
        for query in ["", "epoch=1", "after=1", "epoch=x&after=1", "epoch=1&after=-1"] {
            assert_eq!(Known::parse(query), None, "{query}");
        }
    }

    #[test]
    fn what_is_cut_or_not_ours_is_refused() {
        let whole = News::new(Known { epoch: 1, next: 2 }, true, vec![1, 300, u32::MAX]).to_bytes();
        for length in 0..HEAD {
            assert!(News::read(&whole[..length]).is_err(), "{length}");
        }
        assert!(News::read(&whole[..whole.len() - 1]).is_err());
        assert!(News::read(b"<html>").is_err());
    }
}
