//! Log lines on standard error: JSON, one record a line, or text for people.

use std::fmt;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;
use tracing::Event;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing::span::Record;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `{"ts": .., "level": .., "msg": .., "logger": .., ..}` a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Starts logging. `level` is a level, or a filter such as `info,kube=debug`.
///
/// # Errors
/// When the filter does not parse, or logging was started before.
pub fn init(level: &str, format: Format) -> Result<(), InitError> {
    let filter = EnvFilter::try_new(level).map_err(InitError::Level)?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Json => registry.with(Json).try_init(),
        Format::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init()
        }
    }
    .map_err(InitError::Twice)
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter does not parse.
    #[error("the log level is not a level or filter")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Logging was started before.
    #[error("logging was started before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Writes records as JSON. Fields of the spans around an event are part of its record.
struct Json;

/// The fields of one span.
struct Fields(Map<String, Value>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Json {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields(Map::new());
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Fields(Map::new());
        event.record(&mut own);
        let mut line = Map::new();
        line.insert("ts".to_owned(), timestamp().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().to_ascii_lowercase().into());
        line.insert("msg".to_owned(), own.0.remove("message").unwrap_or_default());
        line.insert("logger".to_owned(), event.metadata().target().into());
        for span in context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.extend(fields.0.clone());
            }
        }
        line.extend(own.0);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // A record in one write, so that records of several threads do not mix. Nobody can be told when it fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line carries the real time, whatever clock its component runs on")]
fn timestamp() -> String {
    jiff::Timestamp::now().to_string()
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.insert(if name == "error" { "err" } else { name }.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.put(field, text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_refused() {
        assert!(matches!(init("no=such=level", Format::Json), Err(InitError::Level(_))));
    }
}
