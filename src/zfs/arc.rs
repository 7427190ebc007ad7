//! The ARC, ZFS's cache in memory, from the kernel's counters.

use std::io;

use super::text::number;

/// Readable by anyone.
const FILE: &str = "/proc/spl/kstat/zfs/arcstats";

/// Some of the ARC's counters. Sizes are bytes; hits and misses only grow, from the loading of the
/// module on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArcStats {
    /// How large it is.
    pub size: u64,
    /// How large it wants to be now.
    pub target: u64,
    /// How large it may become.
    pub max: u64,
    /// How small it may be made.
    pub min: u64,
    /// Blocks that were in it.
    pub hits: u64,
    /// Blocks that were not.
    pub misses: u64,
    /// Reads of files that it answered.
    pub demand_data_hits: u64,
    /// Reads of files that went to disk.
    pub demand_data_misses: u64,
    /// What its blocks take, compressed as they are on disk.
    pub compressed: u64,
    /// What they would take if they were not.
    pub uncompressed: u64,
}

impl ArcStats {
    /// Reads the counters of this machine; none where the module is not loaded.
    pub fn read() -> io::Result<Option<Self>> {
        match std::fs::read_to_string(FILE) {
            Ok(text) => {
                let stats = Self::parse(&text);
                stats.map(Some).map_err(|what| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {what}"))
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads lines of name, type and number. A counter that is missing is an error: a metric that
    /// stays 0 would say something that is not so.
    pub fn parse(text: &str) -> Result<Self, String> {
        let counter = |name: &str| {
            let mut lines = text.lines().map(str::split_ascii_whitespace);
            let value =
                lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.nth(1)));
            let value = value.flatten().ok_or_else(|| format!("there is no {name} in it"));
            value.and_then(number)
        };
        Ok(Self {
            size: counter("size")?,
            target: counter("c")?,
            max: counter("c_max")?,
            min: counter("c_min")?,
            hits: counter("hits")?,
            misses: counter("misses")?,
            demand_data_hits: counter("demand_data_hits")?,
            demand_data_misses: counter("demand_data_misses")?,
            compressed: counter("compressed_size")?,
            uncompressed: counter("uncompressed_size")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_counters_of_both_versions_are_read() {
        let new = ArcStats::parse(include_str!("samples/2.3.9/arcstats.out")).unwrap();
        assert_eq!((new.hits, new.misses), (155_698, 24));
        assert_eq!((new.demand_data_hits, new.demand_data_misses), (4380, 0));
        let old = ArcStats::parse(include_str!("samples/2.1.11/arcstats.out")).unwrap();
        for stats in [old, new] {
            assert!(stats.min <= stats.max && stats.size <= stats.max && stats.target <= stats.max);
            assert!(stats.compressed <= stats.uncompressed);
        }
    }

    #[test]
    fn a_counter_that_is_missing_or_no_number_is_an_error() {
        let text = include_str!("samples/2.3.9/arcstats.out");
        let error = ArcStats::parse(&text.replace("\nc_max ", "\nd_max ")).unwrap_err();
        assert_eq!(error, "there is no c_max in it");
        assert!(ArcStats::parse(&text.replace("155698", "many")).is_err());
        assert!(ArcStats::parse("").is_err());
    }

    #[test]
    fn a_machine_without_the_module_has_none() {
        let loaded = std::path::Path::new(FILE).exists();
        assert_eq!(ArcStats::read().unwrap().is_some(), loaded);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_panic(text in "([a-z_]{1,5} {1,3}[0-9]{0,3}\n?){0,9}") {
            let _ = ArcStats::parse(&text);
        }
    }
}
