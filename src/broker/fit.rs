//! Whether a server could take a session now, and what a server can still take.
//!
//! Pure: from a server, the sessions on it and what this replica has promised. The controller places; this only keeps
//! the broker from accepting what would fail at once.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::Selector;
use kube::core::SelectorExt;

use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::ServerCondition;
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
    /// Virtual sessions of the owner that was asked about.
    of_owner: usize,
}

impl Load {
    /// What is on `server`: the bound sessions and those without an object.
    pub fn of<'a>(server: &DcvServer, bound: impl Iterator<Item = &'a DcvSession>, owner: Option<&str>) -> Self {
        let mut load = Self::default();
        let others = server.status.iter().flat_map(|status| &status.other_sessions);
        bound.for_each(|session| load.add(session.spec.type_, owner == Some(&session.spec.owner)));
        others.for_each(|other| load.add(other.type_, owner == Some(&other.owner)));
        load
    }

    /// Counts one more session.
    fn add(&mut self, type_: SessionType, is_of_owner: bool) {
        match type_ {
            SessionType::Console => self.console += 1,
            SessionType::Virtual => {
                self.virtual_ += 1;
                self.of_owner += usize::from(is_of_owner);
            }
        }
    }

    fn total(&self) -> usize {
        self.console + self.virtual_
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
    let is_disconnected =
        conditions::find(server.conditions(), ServerCondition::AgentConnected).is_some_and(|c| c.status == "False");
    let reported = match status.map(|status| (status.availability, status.unavailability_reason)) {
        Some((Availability::Available, _) | (_, Some(ServerFull | ServerClosed))) => None,
        Some((Availability::Unavailable, reason)) => Some(reason.unwrap_or(Unknown)),
        None => Some(Unknown),
    };
    let is_full = status.is_some_and(|status| status.capacity.is_some())
        && ![SessionType::Console, SessionType::Virtual].iter().any(|type_| load.leaves_room(server, *type_));
    let reason = [
        reported,
        is_disconnected.then_some(UnreachableAgent),
        (!server.is_open()).then_some(ServerClosed),
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

/// Whether `server` could take `session` now.
fn fits(server: &DcvServer, load: &Load, session: &DcvSession, namespace_labels: &BTreeMap<String, String>) -> bool {
    let spec = &session.spec;
    let os = server.status.as_ref().and_then(|status| status.host.as_ref()).and_then(|host| host.os.as_ref());
    let is_linux = os.is_none_or(|os| os.family == "linux");
    // Virtual sessions exist on Linux only; there console sessions run no program. Source: the page on creating
    // sessions of the Session Manager Developer Guide.
    let can_run = match spec.type_ {
        SessionType::Virtual => is_linux,
        SessionType::Console => !is_linux || spec.autorun_file.is_none(),
    };
    let limit = server.limits().max_concurrent_sessions_per_user;
    availability(server, load).1.is_none()
        && admits(server, namespace_labels)
        && spec.server_selector.as_ref().is_none_or(|selector| selects(selector, server.labels()))
        && load.leaves_room(server, spec.type_)
        && (spec.type_ == SessionType::Console || Load::is_below(load.of_owner, limit))
        && can_run
}

/// A place promised to a session that the caches do not show on its server yet.
struct Promise {
    server: String,
    type_: SessionType,
    owner: String,
    /// Uid of the session, once it is made.
    uid: Option<String>,
    since: Instant,
}

/// How long a promise holds when nothing is heard of its session: the controller binds within milliseconds.
const PROMISE_LIFETIME: Duration = Duration::from_secs(10);

/// What this replica has promised.
#[derive(Default)]
pub struct Promises {
    open: HashMap<u64, Promise>,
    last: u64,
}

/// A promise while its session is being made; dropping it takes it back.
pub struct Reservation {
    promises: Arc<Mutex<Promises>>,
    number: u64,
    is_kept: bool,
}

fn locked(promises: &Mutex<Promises>) -> MutexGuard<'_, Promises> {
    // Each change of the map is one call, so a panic elsewhere leaves it whole.
    promises.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reservation {
    /// Holds the place for the session of this uid until it is seen on a server.
    pub fn keep_for(mut self, uid: &str) {
        if let Some(promise) = locked(&self.promises).open.get_mut(&self.number) {
            promise.uid = Some(uid.to_owned());
        }
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            locked(&self.promises).open.remove(&self.number);
        }
    }
}

/// Reserves a place for `session` on the emptiest of `servers` that fit, if any does.
///
/// `servers` come with their loads as seen for the session's owner. `is_settled` says of a session's uid whether the caches already count it, or it needs no place any more.
pub fn reserve<'a>(
    promises: &Arc<Mutex<Promises>>,
    now: Instant,
    servers: impl Iterator<Item = (&'a DcvServer, Load)>,
    session: &DcvSession,
    namespace_labels: &BTreeMap<String, String>,
    is_settled: impl Fn(&str) -> bool,
) -> Option<Reservation> {
    let mut guard = locked(promises);
    guard.open.retain(|_, promise| {
        now.duration_since(promise.since) < PROMISE_LIFETIME && !promise.uid.as_deref().is_some_and(&is_settled)
    });
    let mut by_server: HashMap<&str, Vec<&Promise>> = HashMap::new();
    guard.open.values().for_each(|promise| by_server.entry(&promise.server).or_default().push(promise));
    let server = servers
        .filter_map(|(server, mut load)| {
            let name = server.metadata.name.as_deref()?;
            let here = by_server.get(name).into_iter().flatten();
            here.for_each(|promise| load.add(promise.type_, promise.owner == session.spec.owner));
            fits(server, &load, session, namespace_labels).then(|| (load.total(), name.to_owned()))
        })
        .min()?
        .1;
    guard.last += 1;
    let number = guard.last;
    let promise =
        Promise { server, type_: session.spec.type_, owner: session.spec.owner.clone(), uid: None, since: now };
    guard.open.insert(number, promise);
    Some(Reservation { promises: Arc::clone(promises), number, is_kept: false })
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

    fn session(spec: Value) -> DcvSession {
        let mut whole = json!({"owner": "ann", "type": "VIRTUAL"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "x"}, "spec": whole,
        }))
        .unwrap()
    }

    fn load(console: usize, owners: &[&str]) -> Load {
        let mut load = Load { console, ..Load::default() };
        for owner in owners {
            load.add(SessionType::Virtual, *owner == "ann");
        }
        load
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
        let full = load(0, &["ann", "bob"]);
        for (spec, status, load, expected) in [
            (json!({}), json!({}), Load::default(), None),
            (json!({}), json!({}), full, Some(ServerFull)),
            (json!({}), json!({}), load(1, &[]), Some(ServerFull)),
            (json!({"limits": {"maxVirtualSessions": 3}}), json!({}), full, None),
            (json!({"limits": {"maxVirtualSessions": -1}}), json!({}), full, None),
            (json!({"limits": {"maxVirtualSessions": 0}}), json!({}), Load::default(), Some(ServerFull)),
            (json!({}), json!({"capacity": console()}), Load::default(), None),
            (json!({}), json!({"capacity": console()}), load(1, &[]), Some(ServerFull)),
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

    #[test]
    fn a_server_fits_only_what_it_can_run() {
        let linux = || server(json!({}), json!({}));
        let console_on =
            |family: &str| server(json!({}), json!({"capacity": console(), "host": {"os": {"family": family}}}));
        let team = json!({"allowedNamespaces": {"matchLabels": {"team": "red"}}});
        let none = Load::default();
        let expectations = vec![
            (linux(), none, json!({}), true),
            (linux(), load(0, &["ann"]), json!({}), false),
            (linux(), load(0, &["bob"]), json!({}), true),
            (
                server(json!({"limits": {"maxConcurrentSessionsPerUser": 2}}), json!({})),
                load(0, &["ann"]),
                json!({}),
                true,
            ),
            (linux(), none, json!({"type": "CONSOLE"}), false),
            (linux(), none, json!({"autorunFile": "a"}), true),
            (console_on("linux"), none, json!({"type": "CONSOLE"}), true),
            (console_on("linux"), none, json!({"type": "CONSOLE", "autorunFile": "a"}), false),
            (console_on("windows"), none, json!({"type": "CONSOLE", "autorunFile": "a"}), true),
            (console_on("windows"), none, json!({}), false),
            (server(json!({}), json!({"host": {"os": {"family": "windows"}}})), none, json!({}), false),
            (linux(), none, json!({"serverSelector": {"matchLabels": {"zone": "a"}}}), true),
            (linux(), none, json!({"serverSelector": {"matchLabels": {"zone": "b"}}}), false),
            (server(team.clone(), json!({})), none, json!({}), false),
        ];
        for (server, load, spec, expected) in expectations {
            assert_eq!(fits(&server, &load, &session(spec.clone()), &BTreeMap::new()), expected, "{spec} {server:?}");
        }
        let red = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
        assert!(fits(&server(team, json!({})), &none, &session(json!({})), &red));
    }

    #[test]
    fn a_promise_counts_until_its_session_is_seen_or_given_up() {
        let promises = Arc::default();
        let one = server(json!({"limits": {"maxVirtualSessions": 1}}), json!({}));
        let start = Instant::now();
        let try_at = |now: Instant, settled: bool| {
            let servers = [(&one, Load::default())].into_iter();
            reserve(&promises, now, servers, &session(json!({})), &BTreeMap::new(), |_| settled)
        };
        let try_one = |settled: bool| try_at(start, settled);
        let first = try_one(false).unwrap();
        assert!(try_one(false).is_none(), "taken by a request in flight");
        drop(first);
        try_one(false).unwrap().keep_for("u");
        assert!(try_one(false).is_none(), "taken by a session that is not seen yet");
        try_one(true).expect("the session is counted by the caches").keep_for("u");
        assert!(try_at(start + PROMISE_LIFETIME, false).is_some(), "nothing was heard of it");
    }
}
