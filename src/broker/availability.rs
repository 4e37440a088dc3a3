//! What is on a server, and whether it takes sessions, as clients are told.
//!
//! Exact where the server's own status may lag, as it is computed from the sessions the broker knows. Places nothing.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use kube::core::SelectorExt;

use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::server::Availability;
use crate::api::server::UnavailabilityReason;
use crate::api::session::SessionType;

/// Sessions on a server, of every origin and tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Console sessions.
    pub console: usize,
    /// Virtual sessions.
    pub virtual_: usize,
}

impl Load {
    /// What is on `server`: the bound sessions and those without an object.
    pub fn of<'a>(server: &'a DcvServer, bound: impl Iterator<Item = &'a DcvSession>) -> Self {
        let others = server.status.iter().flat_map(|status| &status.other_sessions).map(|other| other.type_);
        bound.map(|session| session.spec.type_).chain(others).fold(Self::default(), |load, type_| match type_ {
            SessionType::Console => Self { console: load.console + 1, ..load },
            SessionType::Virtual => Self { virtual_: load.virtual_ + 1, ..load },
        })
    }

    fn is_below(count: usize, limit: Option<i32>) -> bool {
        limit.and_then(|limit| usize::try_from(limit).ok()).is_none_or(|limit| count < limit)
    }

    /// Whether one more session of this kind has room on `server`. A console session takes the whole server.
    fn leaves_room(&self, server: &DcvServer, type_: SessionType) -> bool {
        let is_possible = server
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref())
            .is_some_and(|capacity| capacity.session_types.contains(&type_));
        is_possible
            && self.console == 0
            && match type_ {
                SessionType::Console => self.virtual_ == 0,
                SessionType::Virtual => Self::is_below(self.virtual_, server.limits().max_virtual_sessions),
            }
    }
}

/// Whether `server` takes sessions, and if not the first reason in the documented order. Exact where the status may lag:
/// fullness and openness are computed.
pub fn availability(server: &DcvServer, load: &Load) -> (Availability, Option<UnavailabilityReason>) {
    use UnavailabilityReason::ServerClosed;
    use UnavailabilityReason::ServerFull;
    use UnavailabilityReason::Unknown;
    use UnavailabilityReason::UnreachableAgent;

    let status = server.status.as_ref();
    let reported = match status.map(|status| (status.availability, status.unavailability_reason)) {
        Some((Availability::Available, _) | (_, Some(ServerFull | ServerClosed))) => None,
        Some((Availability::Unavailable, reason)) => Some(reason.unwrap_or(Unknown)),
        None => Some(Unknown),
    };
    let is_full = status.is_some_and(|status| status.capacity.is_some())
        && ![SessionType::Console, SessionType::Virtual].iter().any(|type_| load.leaves_room(server, *type_));
    let reason = [
        reported,
        server.is_silent().then_some(UnreachableAgent),
        (!server.is_open() || server.is_cordoned()).then_some(ServerClosed),
        is_full.then_some(ServerFull),
    ]
    .into_iter()
    .flatten()
    .min();
    (if reason.is_none() { Availability::Available } else { Availability::Unavailable }, reason)
}

/// Whether `server` admits sessions of a namespace with these labels.
pub fn admits(server: &DcvServer, namespace_labels: &BTreeMap<String, String>) -> bool {
    server.spec.allowed_namespaces.as_ref().is_none_or(|selector| selects(selector, namespace_labels))
}

/// A selector that cannot be read selects nothing.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON written at the call reads best without a reference")]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn server(spec: Value, status: Value) -> DcvServer {
        let mut whole = json!({
            "availability": "AVAILABLE",
            "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": 2, "maxConcurrentSessionsPerUser": 1},
            "host": {"os": {"family": "linux"}},
        });
        whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "s", "labels": {"zone": "a"}}, "spec": spec, "status": whole,
        }))
        .unwrap()
    }

    fn load(console: usize, virtual_: usize) -> Load {
        Load { console, virtual_ }
    }

    fn console() -> Value {
        json!({"sessionTypes": ["CONSOLE"], "maxVirtualSessions": 0, "maxConcurrentSessionsPerUser": 1})
    }

    #[test]
    fn the_first_reason_in_the_documented_order_is_given() {
        use UnavailabilityReason::ExistingLoggedInUser;
        use UnavailabilityReason::ServerClosed;
        use UnavailabilityReason::ServerFull;
        use UnavailabilityReason::UnhealthyDcvServer;
        use UnavailabilityReason::Unknown;
        use UnavailabilityReason::UnreachableAgent;
        let lapsed = json!([{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let unavailable = |reason: &str| json!({"availability": "UNAVAILABLE", "unavailabilityReason": reason});
        let full = load(0, 2);
        for (spec, status, load, expected) in [
            (json!({}), json!({}), Load::default(), None),
            (json!({}), json!({}), full, Some(ServerFull)),
            (json!({}), json!({}), load(1, 0), Some(ServerFull)),
            (json!({"limits": {"maxVirtualSessions": 3}}), json!({}), full, None),
            (json!({"limits": {"maxVirtualSessions": -1}}), json!({}), full, None),
            (json!({"limits": {"maxVirtualSessions": 0}}), json!({}), Load::default(), Some(ServerFull)),
            (json!({}), json!({"capacity": console()}), Load::default(), None),
            (json!({}), json!({"capacity": console()}), load(1, 0), Some(ServerFull)),
            (json!({}), unavailable("SERVER_FULL"), Load::default(), None),
            (json!({"placement": "Closed"}), json!({}), full, Some(ServerClosed)),
            (json!({"placement": "Draining"}), json!({}), Load::default(), Some(ServerClosed)),
            (json!({"placement": "Open"}), unavailable("SERVER_CLOSED"), Load::default(), None),
            (json!({"placement": "Closed"}), unavailable("UNHEALTHY_DCV_SERVER"), full, Some(ServerClosed)),
            (json!({}), unavailable("UNHEALTHY_DCV_SERVER"), full, Some(UnhealthyDcvServer)),
            (json!({}), unavailable("EXISTING_LOGGED_IN_USER"), full, Some(ExistingLoggedInUser)),
            (json!({}), unavailable("UNKNOWN"), Load::default(), Some(Unknown)),
            (json!({"placement": "Closed"}), json!({"conditions": lapsed}), full, Some(UnreachableAgent)),
        ] {
            let server = server(spec, status);
            assert_eq!(availability(&server, &load).1, expected, "{server:?}");
        }
    }
}
