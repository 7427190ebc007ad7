//! Which keys there are, read back from the types in `raw.rs`, and what to say about another.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor, value::Error};
use toml::{Table, Value};

use super::error::{ConfigError, Origin};
use super::raw::{Raw, RawBake, RawCache, RawClient, RawLimits, RawLog, RawStore, RawTls, RawZfs};
use super::setting::Setting;

/// Every key with its dots; the name of a cache, or of a client, is written `*`.
pub(super) fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    for (section, fields) in sections() {
        for field in fields.iter().filter(|field| !is_section(section, field)) {
            keys.push(join(section, field));
        }
    }
    keys
}

/// Refuses the first key that nothing reads, and a value where a table must be.
pub(super) fn check(origin: &Origin, table: &Table) -> Result<(), ConfigError> {
    for (name, fields) in sections() {
        let Some((first, rest)) = name.split_once('.').or(Some((name, ""))) else { continue };
        let Some(section) = find(origin, table, "", first)? else { continue };
        if rest.is_empty() {
            check_section(origin, section, name, name, fields)?;
            continue;
        }
        // `cache.*` and `client.*`: a table for each of them.
        for one in section.keys() {
            if let Some(settings) = find(origin, section, first, one)? {
                check_section(origin, settings, &join(first, one), name, fields)?;
            }
        }
    }
    Ok(())
}

fn check_section(
    origin: &Origin,
    table: &Table,
    shown: &str,
    section: &str,
    fields: &[&str],
) -> Result<(), ConfigError> {
    let Some(unknown) = table.keys().find(|key| !fields.contains(&key.as_str())) else {
        return Ok(());
    };
    let hint = match closest(&join(section, unknown)) {
        Some(known) => format!("did you mean {known}?"),
        None => "`snowbank serve --print-example-config` shows them all".into(),
    };
    Err(ConfigError::UnknownKey { origin: origin.clone(), key: join(shown, unknown), hint })
}

/// The table at `key`; `store` may be a text as well, which is not this module's business.
fn find<'a>(
    origin: &Origin,
    table: &'a Table,
    section: &str,
    key: &str,
) -> Result<Option<&'a Table>, ConfigError> {
    match (key, table.get(key)) {
        ("", _) if section.is_empty() => Ok(Some(table)),
        (_, None) => Ok(None),
        (_, Some(Value::Table(inner))) => Ok(Some(inner)),
        ("store", Some(_)) if section.is_empty() => Ok(None),
        (_, Some(other)) => {
            let key = join(section, key);
            let expected = format!("a table is expected: [{key}] and its settings below it");
            Err(Setting::new(origin, key, other.clone()).refuse(expected))
        }
    }
}

/// The known key that is most like `key`, if one is near enough to be what was meant.
fn closest(key: &str) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    // The right word in the wrong section is one step away.
    let distance = |known: &String| {
        let whole = strsim::damerau_levenshtein(key, known);
        whole.min(strsim::damerau_levenshtein(&last(key), &last(known)) + 1)
    };
    let nearest = known_keys().into_iter().min_by_key(distance)?;
    (distance(&nearest) <= 1 + last(key).len() / 4).then(|| nearest.replace('*', "<name>"))
}

fn sections() -> [(&'static str, &'static [&'static str]); 9] {
    [
        ("", fields_of::<Raw>()),
        ("store", fields_of::<RawStore>()),
        ("cache.*", fields_of::<RawCache>()),
        ("tls", fields_of::<RawTls>()),
        ("client.*", fields_of::<RawClient>()),
        ("zfs", fields_of::<RawZfs>()),
        ("bake", fields_of::<RawBake>()),
        ("limits", fields_of::<RawLimits>()),
        ("log", fields_of::<RawLog>()),
    ]
}

/// Whether `field` of the top level is a table that `sections` lists by itself.
fn is_section(section: &str, field: &str) -> bool {
    section.is_empty()
        && ["cache", "tls", "client", "zfs", "bake", "limits", "log"].contains(&field)
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// The names of the fields of `T` as serde knows them: what `deny_unknown_fields` allows.
pub(crate) fn fields_of<T: Deserialize<'static>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It always fails: `FieldNames` notes the names and stops.
    let _ = T::deserialize(FieldNames(&mut fields));
    fields
}

/// A deserializer that only notes which fields it is asked for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only the names were wanted"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_keys_are_those_of_the_types() {
        let keys = known_keys();
        for key in ["listen", "store", "store.root", "cache.*.priority", "limits.head_timeout"] {
            assert!(keys.iter().any(|known| known == key), "{key} in {keys:?}");
        }
        assert!(!keys.iter().any(|known| known == "limits"), "{keys:?}");
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_key_that_was_meant() {
        for (written, meant) in [
            ("lisen", Some("listen")),
            ("limits.head_timout", Some("limits.head_timeout")),
            ("head_timeout", Some("limits.head_timeout")),
            ("cache.*.priorty", Some("cache.<name>.priority")),
            ("frobnicate", None),
        ] {
            assert_eq!(closest(written).as_deref(), meant, "{written}");
        }
    }
}
