//! A line of JSON for each event, its fields beside its time and level: what the formatter of `tracing_subscriber` says,
//! with less work, because each request may be a line (`bench/overhead`).

use std::error::Error;
use std::fmt::{self, Debug, Display, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What the crates say that know `log` alone arrives with fields of this beginning.
const OF_LOG: &str = "log.";

/// `{"timestamp":…,"level":…,` the fields, `"target":…}`. We have no spans, so nothing is said of them.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        let metadata = event.metadata();
        write!(writer, "\",\"level\":\"{}\"", metadata.level().as_str())?;
        let mut fields = Fields { writer, target: None, written: Ok(()) };
        event.record(&mut fields);
        let Fields { mut writer, target, written } = fields;
        written?;
        writer.write_str(",\"target\":")?;
        quote(&mut writer, target.as_deref().unwrap_or_else(|| metadata.target()))?;
        writer.write_str("}\n")
    }
}

/// Writes fields as they come.
struct Fields<'a> {
    writer: Writer<'a>,
    /// Of a crate that knows `log` alone.
    target: Option<String>,
    /// The first thing that went wrong; a visitor has no other way to say it.
    written: fmt::Result,
}

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.written.is_ok() && !field.name().starts_with(OF_LOG) {
            self.written = self.name(field.name()).and_then(|()| value(&mut self.writer));
        }
    }

    /// Names are words of the source, and nothing in them must change.
    fn name(&mut self, name: &'static str) -> fmt::Result {
        self.writer.write_str(",\"")?;
        self.writer.write_str(name)?;
        self.writer.write_str("\":")
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Some(value.to_owned());
        }
        self.add(field, |writer| quote(writer, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |writer| writer.write_str(if value { "true" } else { "false" }));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |writer| write!(writer, "{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no words for what is no number.
        self.add(field, |writer| match value.is_finite() {
            true => write!(writer, "{value:?}"),
            false => quote_shown(writer, &value),
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, |writer| quote_shown(writer, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, |writer| quote_shown(writer, &format_args!("{value:?}")));
    }
}

/// The same in quotes.
fn quote(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    writer.write_char('"')?;
    write_inside(writer, text)?;
    writer.write_char('"')
}

/// What it shows of itself, in quotes.
fn quote_shown(writer: &mut Writer<'_>, value: &(impl Display + ?Sized)) -> fmt::Result {
    struct Inside<'a, 'b>(&'a mut Writer<'b>);
    impl Write for Inside<'_, '_> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            write_inside(self.0, text)
        }
    }
    writer.write_char('"')?;
    write!(Inside(writer), "{value}")?;
    writer.write_char('"')
}

/// As it stands between quotes (RFC 8259, section 7).
fn write_inside(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    let must_change = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    let mut rest = text;
    // What must change is one byte, so both sides of it are whole characters.
    while let Some(at) = rest.bytes().position(must_change) {
        writer.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            b'"' => writer.write_str("\\\"")?,
            b'\\' => writer.write_str("\\\\")?,
            b'\n' => writer.write_str("\\n")?,
            b'\r' => writer.write_str("\\r")?,
            b'\t' => writer.write_str("\\t")?,
            other => write!(writer, "\\u{other:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    writer.write_str(rest)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Where a subscriber of a test writes.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What our formatter and that of `tracing_subscriber` write of what is said.
    fn both(say: impl Fn()) -> (Value, Value) {
        let read = |kept: &Kept| {
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true), "{text:?}");
            let mut line: Value = serde_json::from_str(&text).unwrap();
            let time = line["timestamp"].take();
            let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
            assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60);
            line
        };
        let (ours, theirs) = (Kept::default(), Kept::default());
        let lines = || tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        let kept = ours.clone();
        let subscriber = lines().event_format(Json).with_writer(move || kept.clone()).finish();
        tracing::subscriber::with_default(subscriber, &say);
        let kept = theirs.clone();
        let subscriber =
            lines().json().flatten_event(true).with_writer(move || kept.clone()).finish();
        tracing::subscriber::with_default(subscriber, &say);
        (read(&ours), read(&theirs))
    }

    #[test]
    fn each_kind_of_field_is_as_the_formatter_that_it_replaces_has_it() {
        let error = io::Error::other("a \"bad\" one\n");
        let (ours, theirs) = both(|| {
            tracing::warn!(
                text = "a\\b",
                yes = true,
                count = 7_u64,
                below = -7_i64,
                ratio = 0.5_f64,
                nothing = Option::<u64>::None,
                some = Some("x"),
                shown = %"\u{1}\t\r",
                debug = ?["a", "b"],
                error = &error as &(dyn Error + 'static),
                "said {}",
                "\"so\""
            );
        });
        assert_eq!(ours, theirs);
        assert_eq!(ours["level"], "WARN");
        assert_eq!(ours["message"], "said \"so\"");
    }

    #[test]
    fn what_is_no_number_is_a_word() {
        let (ours, _) = both(|| tracing::info!(ratio = f64::NAN));
        assert_eq!(ours["ratio"], "NaN");
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(text in any::<String>()) {
            let (ours, theirs) = both(|| tracing::info!(text = text.as_str(), shown = %text));
            prop_assert_eq!(&ours["text"], &Value::from(text.clone()));
            prop_assert_eq!(ours, theirs);
        }
    }
}
