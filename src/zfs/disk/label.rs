//! What a device says of the pool that it is part of: `zdb -l`. There is no other way to ask whose a
//! pool is before it is imported.

use super::super::error::ZfsError;
use super::super::handle::Zfs;
use super::command;

/// The label of a device of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdevLabel {
    /// The pool's name.
    pub pool: String,
    /// The pool's guid.
    pub pool_guid: u64,
    /// How the pool was left.
    pub state: PoolState,
    /// The number of the machine that used it last; 0 if it had none.
    pub host_id: u32,
    /// The name of that machine; empty if it is not known.
    pub host_name: String,
}

/// How a pool was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolState {
    /// In use, or its machine went away without a word.
    Active,
    /// Exported.
    Exported,
    /// Destroyed.
    Destroyed,
    /// Written while the pool was being made, which then was not.
    NeverMade,
    /// A spare, a cache device, or a state that is not known.
    Other,
}

/// What `zdb -l` ends with where there is no label.
const NO_LABEL: i32 = 2;

impl Zfs {
    /// The label of `device`; `None` where there is none that is whole.
    pub fn vdev_label(&self, device: &str) -> Result<Option<VdevLabel>, ZfsError> {
        let command = command("zdb", ["-l", device]);
        match self.read(&command) {
            Ok(text) => Ok(parse(&text)),
            Err(ZfsError::Failed { code: Some(NO_LABEL), .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads the first label that is printed. Its own keys are indented by four spaces, those of the
/// tree of devices by more.
fn parse(text: &str) -> Option<VdevLabel> {
    let get = |name: &str| {
        let value = |line: &str| {
            let rest = line.strip_prefix("    ")?.strip_prefix(name)?.strip_prefix(": ")?;
            Some(rest.trim_matches('\'').to_owned())
        };
        text.lines().find_map(value)
    };
    let number = |name: &str| get(name)?.parse::<u64>().ok();
    // A label that is written while a pool is being made has no transaction group yet.
    let never_made = number("txg")? == 0;
    Some(VdevLabel {
        pool: get("name")?,
        pool_guid: number("pool_guid")?,
        state: match number("state")? {
            0 if never_made => PoolState::NeverMade,
            0 => PoolState::Active,
            1 => PoolState::Exported,
            2 => PoolState::Destroyed,
            _ => PoolState::Other,
        },
        host_id: number("hostid").and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
        host_name: get("hostname").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZDB: &str = include_str!("samples/zdb-label.out");

    #[test]
    fn a_label_names_the_pool_its_state_and_its_machine() {
        let label = VdevLabel {
            pool: "nixcache".into(),
            pool_guid: 13_146_220_798_980_791_108,
            state: PoolState::Active,
            host_id: 753_163_421,
            host_name: "zfsvm".into(),
        };
        assert_eq!(parse(ZDB), Some(label));
        let exported = parse(&ZDB.replace("    state: 0", "    state: 1")).unwrap();
        assert_eq!(exported.state, PoolState::Exported);
        let without = ZDB.replace("    hostid: 753163421\n", "");
        assert_eq!(parse(&without).unwrap().host_id, 0);
    }

    #[test]
    fn a_pool_that_never_came_into_being_is_told_and_no_label_is_none() {
        let begun = parse(&ZDB.replace("    txg: 4", "    txg: 0")).unwrap();
        assert_eq!(begun.state, PoolState::NeverMade);
        assert_eq!(parse("failed to unpack label 0\n"), None);
        assert_eq!(parse(""), None);
    }
}
