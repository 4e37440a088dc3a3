//! Log lines on standard error or in files: JSON, one record a line, or text for people.

use std::fmt;
use std::io;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use serde_json::Value;
use tracing::Event;
use tracing::Level;
use tracing::Metadata;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing::span::Attributes;
use tracing::span::Id;
use tracing::span::Record;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_files::LogFiles;
use super::log_files::Writer;

/// Field with the text of an event.
const MESSAGE: &str = "message";

/// Room for a record: more than most take.
const LINE_BYTES: usize = 512;

/// What a pipe takes in one piece, whoever else writes to it: `PIPE_BUF` of Linux.
const PIECE_BYTES: usize = 4096;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `{"ts": .., "level": .., "msg": .., "logger": .., ..}` a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Starts logging, to standard error or to `files`. `level` is a level, or a filter such as `info,kube=debug`.
///
/// # Errors
/// When the filter does not parse, the files cannot be made, or logging was started before.
pub fn init(level: &str, format: Format, files: Option<&LogFiles>) -> Result<(), InitError> {
    let (filter, control) = reloadable(level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let file = files.map(|files| Writer::open(files.clone(), now)).transpose().map_err(InitError::Files)?;
    let text = tracing_subscriber::fmt::layer().with_ansi(false);
    match (format, file.map(Mutex::new)) {
        (Format::Json, None) => registry.with(Json { out: Out::Stderr }).try_init(),
        (Format::Json, Some(file)) => registry.with(Json { out: Out::File(file) }).try_init(),
        (Format::Text, None) => registry.with(text.with_writer(std::io::stderr)).try_init(),
        (Format::Text, Some(file)) => registry.with(text.with_writer(file)).try_init(),
    }
    .map_err(InitError::Twice)?;
    let _ = CONTROL.set(control);
    Ok(())
}

/// What is logged now. `None` before [`init`].
pub fn level() -> Option<String> {
    let control = CONTROL.get()?;
    Some(control.level.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Logs by another level or filter from now on, until the process ends.
///
/// # Errors
/// When it does not parse, or logging was not started; then nothing changes.
pub fn set_level(level: &str) -> Result<(), LevelError> {
    CONTROL.get().ok_or(LevelError::NotStarted)?.set(level)
}

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The filter does not parse.
    #[error("{0:?} is not a level or filter")]
    Level(String, #[source] tracing_subscriber::filter::ParseError),
    /// There is no log.
    #[error("logging was not started")]
    NotStarted,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// What the filter of the log is changed by.
struct Control {
    handle: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
}

impl Control {
    fn set(&self, level: &str) -> Result<(), LevelError> {
        let filter = filter(level).map_err(|source| LevelError::Level(level.to_owned(), source))?;
        self.handle.reload(filter).map_err(|_| LevelError::NotStarted)?;
        level.clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// A filter that can be changed, and what changes it.
fn reloadable(level: &str) -> Result<(reload::Layer<EnvFilter, Registry>, Control), InitError> {
    let (layer, handle) = reload::Layer::new(filter(level).map_err(InitError::Level)?);
    Ok((layer, Control { handle, level: Mutex::new(level.to_owned()) }))
}

fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // Both log what they return as errors as well, and whoever gets an error logs it.
    EnvFilter::try_new(format!("kube_client=off,kube_runtime=off,{level}"))
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter does not parse.
    #[error("the log level is not a level or filter")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// The log files cannot be made.
    #[error("the log files cannot be made")]
    Files(#[source] std::io::Error),
    /// Logging was started before.
    #[error("logging was started before")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Writes records as JSON. Fields of the spans around an event are part of its record.
struct Json {
    out: Out,
}

/// Where records go.
enum Out {
    Stderr,
    File(Mutex<Writer>),
    #[cfg(test)]
    Kept(std::sync::Arc<std::sync::Mutex<Vec<String>>>),
}

/// The fields of one span or event. Few, so that looking for one by name costs less than a map does.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Json {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
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
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take(MESSAGE);
        // From the inside out: of two values of one name the inner counts.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.0.iter().for_each(|(name, value)| fields.add(name, value));
            }
        }
        let text = line(event.metadata(), &timestamp(), &message, &fields);
        match &self.out {
            Out::Stderr => to_stderr(&text),
            Out::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                drop(file.write_all(&text));
            }
            #[cfg(test)]
            Out::Kept(lines) => lines.lock().unwrap().push(String::from_utf8(text).unwrap()),
        }
    }
}

/// Writes a record in one piece, so that records of several threads do not mix. Nobody can be told when it fails.
fn to_stderr(text: &[u8]) {
    // No lock where none is needed: a thread that has it may be waiting for a disk.
    let written = if text.len() <= PIECE_BYTES { nix::unistd::write(io::stderr(), text).unwrap_or(0) } else { 0 };
    if let Some(rest @ [_, ..]) = text.get(written..) {
        drop(io::stderr().lock().write_all(rest));
    }
}

/// One record. What a person looks for first, first.
fn line(metadata: &Metadata<'_>, time: &str, message: &Value, fields: &Fields) -> Vec<u8> {
    let level = match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut text = Vec::with_capacity(LINE_BYTES);
    // Names need no escaping, and writing to memory cannot fail.
    let _ = write!(text, r#"{{"ts":"{time}","level":"{level}","msg":"#);
    let _ = serde_json::to_writer(&mut text, message);
    let _ = write!(text, r#","logger":"{}""#, metadata.target());
    for (name, value) in &fields.0 {
        let _ = write!(text, ",\"{name}\":");
        let _ = serde_json::to_writer(&mut text, value);
    }
    text.extend_from_slice(b"}\n");
    text
}

#[expect(clippy::disallowed_methods, reason = "a log line carries the real time, whatever clock its component runs on")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn timestamp() -> String {
    now().to_string()
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.set(if name == "error" { "err" } else { name }, value);
    }

    /// Of two values of one name the later counts.
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Adds a value, unless there is one of this name.
    fn add(&mut self, name: &'static str, value: &Value) {
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, value.clone()));
        }
    }

    fn take(&mut self, name: &str) -> Value {
        let place = self.0.iter().position(|(known, _)| *known == name);
        place.map(|place| self.0.remove(place).1).unwrap_or_default()
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
    use serde_json::Map;

    use super::*;

    #[test]
    fn a_record_is_one_line_of_json_with_its_spans_and_causes() {
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let layer = Json { out: Out::Kept(std::sync::Arc::clone(&lines)) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("pass", session = "team/a").entered();
            let error = InitError::Level(EnvFilter::try_new("no=such=level").unwrap_err());
            tracing::warn!(count = 2, error = &error as &dyn std::error::Error, "Two \"words\"");
        });
        let line = lines.lock().unwrap().remove(0);
        assert!(line.starts_with(r#"{"ts":""#) && line.ends_with("}\n"), "{line}");
        let mut record: Map<String, Value> = serde_json::from_str(&line).unwrap();
        record.remove("ts");
        let cause = record.remove("err").unwrap();
        assert!(cause.as_str().unwrap().starts_with("the log level is not a level or filter: "), "{cause}");
        let expected = serde_json::json!({
            "level": "warn", "msg": "Two \"words\"", "logger": module_path!(), "session": "team/a", "count": 2,
        });
        assert_eq!(Value::Object(record), expected);
    }

    #[test]
    fn what_is_logged_can_be_changed_while_it_runs() {
        let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let layer = Json { out: Out::Kept(std::sync::Arc::clone(&lines)) };
        let (filter, control) = reloadable("warn").unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(layer), || {
            let logged = |level: &str| {
                control.set(level).unwrap();
                tracing::debug!("Something small");
                !std::mem::take(&mut *lines.lock().unwrap()).is_empty()
            };
            assert!(!logged("warn"));
            assert!(logged("debug"));
            assert!(!logged("info"));
            assert!(logged("info,dcv_operator=debug"));
            assert!(matches!(control.set("no=such=level"), Err(LevelError::Level(..))));
        });
        assert_eq!(*control.level.lock().unwrap(), "info,dcv_operator=debug");
    }

    #[test]
    fn a_bad_level_is_refused() {
        assert!(matches!(init("no=such=level", Format::Json, None), Err(InitError::Level(_))));
    }
}
