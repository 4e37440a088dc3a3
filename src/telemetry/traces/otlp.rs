//! What a build with the feature `otel` has: spans, sent by OTLP over HTTP from a thread of their own.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::global;
use opentelemetry::global::BoxedSpan;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::Span as _;
use opentelemetry::trace::SpanBuilder;
use opentelemetry::trace::SpanKind;
use opentelemetry::trace::Status;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::trace::Tracer;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::Error;

/// Entry of the Trace Context; the header has the same name.
const TRACEPARENT: &str = "traceparent";

/// Who makes the spans, as collectors show it.
const SCOPE: &str = "dcv-operator";

/// Where spans go, in the environment: for all signals, and for traces alone. What is empty is not set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";

/// Whether anything is exported. The library hands a caller's trace on even then, and whoever looks for the steps in
/// between would find none.
static EXPORTS: AtomicBool = AtomicBool::new(false);

/// Sends what is left when it is dropped.
#[derive(Debug)]
pub struct Exporter(Option<SdkTracerProvider>);

impl Exporter {
    pub(super) fn start(service: &'static str) -> Result<Self, Error> {
        if !ENDPOINTS.into_iter().any(is_set) {
            return Ok(Self(None));
        }
        // The exporter's client is made at once, and takes the process's provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let exporter = SpanExporter::builder().with_http().build().map_err(|error| Error(Box::new(error)))?;
        let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let resource = if is_set(SERVICE_NAME) { resource } else { resource.with_service_name(service) };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        global::set_tracer_provider(provider.clone());
        EXPORTS.store(true, Ordering::Relaxed);
        Ok(Self(Some(provider)))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Nobody can be told when a collector does not answer at the end.
        let _ = self.0.as_ref().map(SdkTracerProvider::shutdown);
    }
}

#[expect(clippy::disallowed_methods, reason = "these names are OpenTelemetry's, whose library reads the others itself")]
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty())
}

#[derive(Debug)]
pub(super) struct Span(Option<BoxedSpan>);

impl Span {
    pub(super) fn server(name: impl FnOnce() -> String, traceparent: Option<&str>) -> Self {
        if !EXPORTS.load(Ordering::Relaxed) {
            return Self(None);
        }
        let parent = traceparent.and_then(remote).unwrap_or_default();
        let tracer = global::tracer(SCOPE);
        let span = SpanBuilder::from_name(name()).with_kind(SpanKind::Server);
        Self(Some(tracer.build_with_context(span, &parent)))
    }

    pub(super) fn inner(name: &'static str, traceparent: Option<&str>) -> Self {
        let traceparent = traceparent.filter(|_| EXPORTS.load(Ordering::Relaxed));
        let Some(parent) = traceparent.and_then(remote) else { return Self(None) };
        Self(Some(global::tracer(SCOPE).build_with_context(SpanBuilder::from_name(name), &parent)))
    }

    pub(super) fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context().clone();
        let mut carrier = HashMap::new();
        // Writes nothing of a context that is not valid, as where nothing is exported.
        TraceContextPropagator::new().inject_context(&Context::new().with_remote_span_context(context), &mut carrier);
        carrier.remove(TRACEPARENT)
    }

    pub(super) fn note(&mut self, key: &'static str, value: &str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value.to_owned()));
        }
    }

    pub(super) fn count(&mut self, key: &'static str, value: i64) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    pub(super) fn fail(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why));
        }
    }
}

/// The context that a line of somebody else names, if it names one.
fn remote(traceparent: &str) -> Option<Context> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}
