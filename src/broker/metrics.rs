//! How long requests take, by route, method and status.
//!
//! A broker answers thousands of requests a second: its routes are known beforehand, so that measuring one finds its
//! histogram by names that live as long as the program, and allocates nothing. No label holds what a client sent.

use std::sync::LazyLock;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::LabelSetEncoder;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::telemetry::metrics;

/// The routes of every port, as they are declared.
const ROUTES: [&str; 14] = [
    "/health",
    "/oauth2/token",
    "/dcv-session-manager-api.yaml",
    "/closeServers",
    "/createSessions",
    "/deleteSessions",
    "/describeSessions",
    "/describeServers",
    "/openServers",
    "/getSessionScreenshots",
    "/sessionConnectionData/{session_id}/{user}",
    "/sessionPermissions",
    "/resolveSession",
    crate::token::verifier::PATH,
];
/// Requests of no route.
const NO_ROUTE: &str = "none";

/// Bounds in seconds: most answers come from memory, those that write take what the API server takes.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answered {
    route: &'static str,
    method: &'static str,
    code: u16,
}

impl EncodeLabelSet for Answered {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        // As a text, as the other labels are.
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        [("route", self.route), ("method", self.method), ("code", code.as_str())].encode(encoder)
    }
}

static REQUESTS: LazyLock<Family<Answered, Histogram>> =
    LazyLock::new(|| Family::new_with_constructor(|| Histogram::new(SECONDS)));

/// The registry of a broker.
pub fn registry() -> Registry {
    let mut registry = metrics::registry();
    registry.register("http_request_duration_seconds", "Time until an answer begins", REQUESTS.clone());
    registry
}

/// Counts a request. `route` is the declared one, not the path.
pub fn answered(route: Option<&str>, method: &Method, code: StatusCode, took: Duration) {
    let known = route.and_then(|route| ROUTES.into_iter().find(|known| *known == route));
    let labels =
        Answered { route: known.unwrap_or(NO_ROUTE), method: metrics::method_label(method), code: code.as_u16() };
    REQUESTS.get_or_create(&labels).observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_request_is_counted_by_its_route_and_nothing_that_a_client_sent_is_a_label() {
        let took = Duration::from_millis(2);
        answered(Some("/sessionConnectionData/{session_id}/{user}"), &Method::GET, StatusCode::IM_A_TEAPOT, took);
        answered(None, &Method::from_bytes(b"BREW").unwrap(), StatusCode::IM_A_TEAPOT, took);
        let text = metrics::text(&registry()).unwrap();
        for line in [
            "http_request_duration_seconds_bucket{le=\"0.0025\",route=\"/sessionConnectionData/{session_id}/{user}\",\
             method=\"GET\",code=\"418\"} 1",
            "http_request_duration_seconds_count{route=\"none\",method=\"other\",code=\"418\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_page_lists_what_a_broker_serves() {
        answered(None, &Method::GET, StatusCode::OK, Duration::ZERO);
        crate::telemetry::page::check("broker", &registry());
    }

    #[test]
    fn every_route_that_is_declared_has_its_own_label() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/broker");
        let mut declared = Vec::new();
        for file in ["mod.rs", "dcv/mod.rs", "gateway/mod.rs", "verifier.rs"] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            declared.extend(text.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
        assert!(declared.len() > 10);
        for route in declared {
            assert!(ROUTES.contains(&route.as_str()), "{route} is missing");
        }
    }
}
