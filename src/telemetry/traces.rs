//! Traces: which steps a session took on its way from the REST call to READY, and how long each was.
//!
//! Steps are told one by one, and apart from logs: neither the level nor a record of a log has anything to do with them. A
//! trace is handed on as `traceparent`, the one line of the W3C's Trace Context: in a request's header, and as an
//! annotation of the session. Without the feature `otel`, or without an endpoint in the environment, all of this does
//! nothing. Invariant: a step holds names and numbers, never a token, a password or the text of permissions.

#[cfg(not(feature = "otel"))]
mod nothing;
#[cfg(feature = "otel")]
mod otlp;

#[cfg(not(feature = "otel"))]
use self::nothing as exporter;
#[cfg(feature = "otel")]
use self::otlp as exporter;

pub use self::exporter::Exporter;

/// Sends steps to the endpoint that the environment names, as those of `service`, until it is dropped; then what is left.
///
/// # Errors
/// When the environment's settings cannot be used.
pub fn export(service: &'static str) -> Result<Exporter, Error> {
    Exporter::start(service)
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported as the OTEL_ variables say")]
pub struct Error(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A step under way. It is over when it is dropped.
#[must_use = "a step that is dropped is over"]
#[derive(Debug)]
pub struct Step(exporter::Span);

impl Step {
    /// The serving of a request: of the trace that its header names, else the first step of a new one.
    pub fn request(name: impl FnOnce() -> String, traceparent: Option<&str>) -> Self {
        Self(exporter::Span::server(name, traceparent))
    }

    /// A step of the trace `traceparent`; without one it is none.
    pub fn of(traceparent: Option<&str>, name: &'static str) -> Self {
        Self(exporter::Span::inner(name, traceparent))
    }

    /// By which others continue the trace. `None` when nothing is exported.
    pub fn traceparent(&self) -> Option<String> {
        self.0.traceparent()
    }

    /// Adds something that is known of the step.
    pub fn note(mut self, key: &'static str, value: &str) -> Self {
        self.0.note(key, value);
        self
    }

    /// Adds a number that is known of the step.
    pub fn count(mut self, key: &'static str, value: i64) -> Self {
        self.0.count(key, value);
        self
    }

    /// Notes that it failed, in constant words.
    pub fn fail(&mut self, why: &'static str) {
        self.0.fail(why);
    }
}
