//! Properties of datasets, snapshots and pools: read, set, inherited.

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::DatasetName;
use super::text::columns;

/// One property of one dataset or snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The full name of what has it: a dataset, snapshot, bookmark or pool.
    pub of: String,
    /// Such as `recordsize`, or `snowbank:role` where users define it.
    pub name: String,
    /// Sizes as bytes, times as seconds since 1970, none as `-` or `none`, as `-p` prints them.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

/// Where the value of a property comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It was set here.
    Local,
    /// Nobody set it.
    Default,
    /// It was set above, on this dataset.
    Inherited(String),
    /// It came with a stream.
    Received,
    /// A mount option, until it is mounted again.
    Temporary,
    /// It cannot be set: it is what ZFS counts or knows.
    Fixed,
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "local" => Self::Local,
            "default" => Self::Default,
            "received" => Self::Received,
            "temporary" => Self::Temporary,
            "-" => Self::Fixed,
            _ => match text.strip_prefix("inherited from ") {
                Some(dataset) => Self::Inherited(dataset.into()),
                None => return Err(format!("{text:?} is not the source of a property")),
            },
        })
    }
}

impl Property {
    /// Reads a line of `name,property,source,value`.
    fn parse(line: &str) -> Result<Self, String> {
        let [of, name, source, value] = columns(line)?;
        let source = Source::parse(source)?;
        Ok(Self { of: of.into(), name: name.into(), value: value.into(), source })
    }
}

impl Zfs {
    /// Properties of datasets, snapshots or bookmarks, by their full names. `properties` are names,
    /// or `all`. A property that users define and nobody did has the value `-`.
    pub fn get<N: ToString>(
        &self,
        names: &[N],
        properties: &[&str],
    ) -> Result<Vec<Property>, ZfsError> {
        // Without names `zfs get` means everything there is.
        if names.is_empty() || properties.is_empty() {
            return Ok(Vec::new());
        }
        let command = Command::zfs(["get", "-Hp", "-o", "name,property,source,value"])
            .arg(properties.join(","))
            .args(names.iter().map(ToString::to_string));
        self.parse(&command, |text| text.lines().map(Property::parse).collect())
    }
}

/// Sets properties of a dataset, all or none; their names are not from outside.
pub fn set(dataset: &DatasetName, properties: &[(&str, &str)]) -> Command {
    let assignments = properties.iter().map(|(name, value)| format!("{name}={value}"));
    Command::zfs(["set"]).args(assignments).arg(dataset.as_str()).change()
}

/// Takes a property back that was set here, so that the value from above counts again.
pub fn inherit(dataset: &DatasetName, property: &str) -> Command {
    Command::zfs(["inherit", property, dataset.as_str()]).change()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Fake;
    use super::*;

    #[test]
    fn each_source_is_told_apart() {
        let fake = Fake::that_prints(
            "tank/a\tquota\tlocal\t1572864000\n\
             tank/a\tatime\tinherited from tank\toff\n\
             tank/a\trecordsize\treceived\t1048576\n\
             tank/a\treadonly\ttemporary\ton\n\
             tank/a\tused\t-\t18446744073709551615\n\
             tank/a\tsnowbank:note\tlocal\ta\ttab\n",
        );
        let name = DatasetName::parse("tank/a").unwrap();
        let properties = fake.zfs.get(&[name], &["all"]).unwrap();
        let sources: Vec<_> = properties.iter().map(|property| property.source.clone()).collect();
        assert_eq!(sources[..2], [Source::Local, Source::Inherited("tank".into())]);
        assert_eq!(sources[2..5], [Source::Received, Source::Temporary, Source::Fixed]);
        assert_eq!(properties[5].value, "a\ttab");
        assert_eq!(
            (properties[4].of.as_str(), properties[4].value.as_str()),
            ("tank/a", "18446744073709551615")
        );
    }

    #[test]
    fn a_line_that_is_none_is_an_error() {
        let name = DatasetName::parse("tank").unwrap();
        for answer in ["tank\n", "tank\ta\tnowhere\tb\n", "\n", "tank\ta\tlocal\tb\nc\n"] {
            let error = Fake::that_prints(answer).zfs.get(&[&name], &["a"]).unwrap_err();
            assert!(matches!(error, ZfsError::Unreadable { .. }), "{answer:?}: {error:?}");
        }
    }

    #[test]
    fn nothing_asked_is_nothing_run() {
        let fake = Fake::new("exit 1");
        assert_eq!(fake.zfs.get::<DatasetName>(&[], &["all"]).unwrap(), []);
    }

    #[test]
    fn changes_are_commands() {
        let name = DatasetName::parse("tank/a").unwrap();
        let command = set(&name, &[("quota", "1G"), ("snowbank:cache", "main")]);
        assert_eq!(command.to_string(), "zfs set quota=1G snowbank:cache=main tank/a");
        assert_eq!(inherit(&name, "atime").to_string(), "zfs inherit atime tank/a");
    }

    proptest! {
        #[test]
        fn no_output_makes_a_panic(line in "[a-z\t -]{0,60}") {
            let _ = Property::parse(&line);
        }
    }
}
