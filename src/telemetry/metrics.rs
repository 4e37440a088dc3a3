//! What every role measures, and the registry it begins with.
//!
//! Kept for the process, not for a client or a task: one process has one scrape. Names are those of client-go and of the
//! Prometheus client libraries, so that stock dashboards and alerts work. `docs/metrics.md` lists them all.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::parse_x509_certificate;

use super::process;
use super::watches;

/// Bounds in seconds of what usually takes milliseconds: those of the Prometheus client libraries.
pub const FAST_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A set of labels whose values are known when the program is written.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Histograms with the bounds [`FAST_SECONDS`].
pub fn fast<L: Clone + std::hash::Hash + Eq>() -> Family<L, Histogram> {
    Family::new_with_constructor(|| Histogram::new(FAST_SECONDS))
}

/// A registry with what every role measures.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(process::Process));
    registry.register_collector(Box::new(watches::Silence));
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("dcv_build", "Version of the program", version);
    let Shared { requests, durations, certificates } = &*SHARED;
    registry.register(
        "rest_client_requests",
        "Calls of the API server by status code, method and host",
        requests.clone(),
    );
    registry.register(
        "rest_client_request_duration_seconds",
        "Time until the API server's answer begins",
        durations.clone(),
    );
    registry.register(
        "dcv_certificate_expiry_timestamp_seconds",
        "When the certificate that is served ends, Unix time",
        certificates.clone(),
    );
    registry
}

/// The text that is scraped, in the `OpenMetrics` format.
///
/// # Errors
/// When a metric cannot be written as text, which is a fault of ours.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

struct Shared {
    requests: Family<Call, Counter>,
    durations: Family<Target, Histogram>,
    certificates: Family<Labels<1>, Gauge>,
}

static SHARED: LazyLock<Shared> =
    LazyLock::new(|| Shared { requests: Family::default(), durations: fast(), certificates: Family::default() });

/// Labels of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    code: Cow<'static, str>,
    method: &'static str,
    host: Arc<str>,
}

/// Labels of the time a call took.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    verb: &'static str,
    host: Arc<str>,
}

impl prometheus_client::encoding::EncodeLabelSet for Call {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> Result<(), std::fmt::Error> {
        [("code", self.code.as_ref()), ("method", self.method), ("host", &self.host)].encode(encoder)
    }
}

impl prometheus_client::encoding::EncodeLabelSet for Target {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> Result<(), std::fmt::Error> {
        [("verb", self.verb), ("host", self.host.as_ref())].encode(encoder)
    }
}

/// The name of a method as a label: one of a closed set, whatever a client sends.
pub fn method_label(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        http::Method::HEAD => "HEAD",
        http::Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Counts a call of the API server. `code` is absent when there was no answer.
pub fn called(method: &'static str, host: &Arc<str>, code: Option<u16>, took: Duration) {
    let mut text = String::new();
    let code = match code {
        // client-go's word for it.
        None => Cow::Borrowed("<error>"),
        Some(200) => Cow::Borrowed("200"),
        Some(code) => {
            let _ = write!(text, "{code}");
            Cow::Owned(text)
        }
    };
    let host = Arc::clone(host);
    SHARED.durations.get_or_create(&Target { verb: method, host: Arc::clone(&host) }).observe(took.as_secs_f64());
    SHARED.requests.get_or_create(&Call { code, method, host }).inc();
}

/// Notes when the first certificate of a PEM text ends. `use_` says what it is for. One that cannot be read is left out:
/// whoever serves with it says so.
pub fn note_certificate(purpose: &'static str, pem: &[u8]) {
    if let Some(seconds) = ends(pem) {
        SHARED.certificates.get_or_create(&[("purpose", purpose)]).set(seconds);
    }
}

fn ends(pem: &[u8]) -> Option<i64> {
    let der = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, certificate) = parse_x509_certificate(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Writes one gauge without labels, for collectors.
pub(super) fn write_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), std::fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_became_of_them() {
        let host: Arc<str> = "counted.example:6443".into();
        called("GET", &host, Some(200), Duration::from_millis(3));
        called("GET", &host, Some(409), Duration::from_millis(3));
        called("GET", &host, None, Duration::from_millis(3));
        let text = text(&registry()).unwrap();
        for code in ["200", "409", "<error>"] {
            let line = format!("rest_client_requests_total{{code=\"{code}\",method=\"GET\",host=\"{host}\"}} 1");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        let line = format!("rest_client_request_duration_seconds_count{{verb=\"GET\",host=\"{host}\"}} 3");
        assert!(text.contains(&line), "{text}");
    }

    #[test]
    fn a_certificate_says_when_it_ends() {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert_eq!(ends(pem.as_bytes()), Some(1_893_542_400));
        assert_eq!(ends(b"no certificate"), None);
    }
}
