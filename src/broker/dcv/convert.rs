//! From the cluster's objects to wire types.

use std::borrow::Cow;

use jiff::SignedDuration;
use jiff::Timestamp;

use super::super::Rules;
use super::super::availability;
use super::super::availability::Load;
use super::super::store::OtherView;
use super::super::store::ServerView;
use super::super::store::SessionView;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::ServerCondition;
use crate::api::conditions::SessionCondition;
use crate::api::server;
use crate::api::server::SessionOrigin;
use crate::api::session::SessionState;
use crate::wire;

/// Absent instead of empty.
fn text(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Absent as it is.
fn optional(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(Cow::from)
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn uid(server: &DcvServer) -> Cow<'_, str> {
    server.metadata.uid.as_deref().unwrap_or_default().into()
}

/// Whether the client is shown the server in lists.
pub fn is_listed(view: &ServerView, rules: &Rules, now: Timestamp) -> bool {
    let shown = SignedDuration::from_secs(rules.seconds_before_deleting_unreachable_dcv_server.into());
    let connected = conditions::find(view.server.conditions(), ServerCondition::AgentConnected);
    let is_lost = connected
        .is_some_and(|condition| condition.status == "False" && condition.last_transition_time.0 + shown < now);
    view.is_visible && !is_lost
}

/// A session as clients see it.
pub fn session<'a>(view: &'a SessionView, rules: &Rules, now: Timestamp) -> wire::Session<'a> {
    wire::Session { server: session_server(view, rules, now), ..own(view) }
}

/// What is shown of a session apart from its server.
pub fn own(view: &SessionView) -> wire::Session<'_> {
    let session = &view.session;
    let status = session.status.as_ref();
    let state = session.shown_state();
    wire::Session {
        id: session.id().into(),
        name: session.spec.display_name.as_deref().or(session.metadata.name.as_deref()).unwrap_or_default().into(),
        owner: session.spec.owner.as_str().into(),
        server: None,
        type_: session.spec.type_.as_str().into(),
        max_concurrent_clients: session.spec.max_concurrent_clients.map(i64::from),
        state: state.as_str().into(),
        substate: status
            .and_then(|status| status.substate)
            .filter(|_| state == SessionState::Creating)
            .map(|substate| substate.as_str().into()),
        state_reason: state_reason(session, view.server.as_ref().is_some_and(|view| view.server.is_silent())),
        creation_time: session.metadata.creation_timestamp.as_ref().map(|time| time.0),
        last_disconnection_time: status.and_then(|status| status.last_disconnection_time.as_ref()).map(|time| time.0),
        num_of_connections: status.and_then(|status| status.num_of_connections).unwrap_or(0).into(),
        storage_root: optional(session.spec.storage_root.as_ref()),
    }
}

/// Why a session is in the state it is shown in: what is written down, else what that state means. A READY one needs no
/// reason. `is_server_silent` is whether the server it is on does not answer.
fn state_reason(session: &DcvSession, is_server_silent: bool) -> Option<Cow<'_, str>> {
    let status = session.status.as_ref();
    let state = session.shown_state();
    // What was written of another state says nothing of this one.
    let is_of_state = status.map(|status| status.state).unwrap_or_default() == state;
    let written = status.and_then(|status| status.state_reason.as_deref()).filter(|_| is_of_state);
    let finished = conditions::find(session.conditions(), SessionCondition::Finished);
    let finished = finished.map_or("", |condition| condition.message.as_str());
    let meaning = match state {
        SessionState::Ready => "",
        SessionState::Creating if session.server_name().is_some() => "The server is creating the desktop",
        SessionState::Creating => "Waiting to be placed on a server",
        SessionState::Deleting if is_server_silent => "Being closed as soon as its server answers again",
        SessionState::Deleting => "Being closed as asked",
        SessionState::Deleted => ended(session),
        SessionState::Unknown if session.is_finished() => "It failed",
        SessionState::Unknown => "Its server does not answer",
    };
    let mut texts = [written.unwrap_or_default(), finished, meaning].into_iter();
    texts.find(|text| !text.is_empty()).map(Cow::Borrowed)
}

/// How a session ended, by the reason of the condition that says so.
fn ended(session: &DcvSession) -> &'static str {
    let was = |reason| conditions::is(session.conditions(), SessionCondition::Finished, Some(true), reason);
    if was(Reason::ForceClosed) {
        "Closed as asked without waiting for its server"
    } else if was(Reason::EndedOnHost) {
        "The desktop ended by itself"
    } else if was(Reason::Expired) {
        "A time limit was reached"
    } else if was(Reason::ServerLost) {
        "Its server is lost"
    } else {
        "Closed as asked"
    }
}

/// A desktop that no object stands for, as clients see it. One started by hand is described as one of ours; one that was
/// ours is not: who has deleted it must never find it READY again.
pub fn other<'a>(view: &'a OtherView, rules: &Rules, now: Timestamp) -> wire::Session<'a> {
    let OtherView { session, server, .. } = view;
    let (state, reason) = match session.origin {
        SessionOrigin::Unclaimed => (
            SessionState::Unknown,
            "The session is gone, but its desktop still runs on the host until somebody ends it there",
        ),
        SessionOrigin::Manual if server.server.is_silent() => (SessionState::Unknown, "Its server does not answer"),
        SessionOrigin::Manual => (SessionState::Ready, ""),
    };
    wire::Session {
        id: session.id.as_str().into(),
        name: session.session_name.as_deref().unwrap_or_default().into(),
        owner: session.owner.as_str().into(),
        server: Some(place(server, rules, now)),
        type_: session.type_.as_str().into(),
        state: state.as_str().into(),
        state_reason: text(reason),
        creation_time: session.creation_time.as_ref().map(|time| time.0),
        num_of_connections: session.num_of_connections.into(),
        max_concurrent_clients: None,
        substate: None,
        last_disconnection_time: None,
        storage_root: None,
    }
}

/// The part of a server that the guide shows with a session, and its id where describeServers knows it.
pub fn place<'a>(view: &'a ServerView, rules: &Rules, now: Timestamp) -> wire::Server<'a> {
    let id = is_listed(view, rules, now).then(|| uid(&view.server));
    wire::Server { id, ..address(&view.server) }
}

/// Where a session is. Absent until it is placed.
pub fn session_server<'a>(view: &'a SessionView, rules: &Rules, now: Timestamp) -> Option<wire::Server<'a>> {
    view.session.server_name()?;
    let mut shown = view.server.as_ref().map(|view| place(view, rules, now)).unwrap_or_default();
    if let Some(reached) = view.session.status.as_ref().and_then(|status| status.server.as_ref()) {
        shown.ip = Some(reached.ip.as_str().into());
        shown.port = Some(reached.port.to_string().into());
        shown.web_url_path = Some(reached.web_url_path.as_str().into());
        shown.endpoints = reached.endpoints.iter().map(endpoint).collect();
    }
    Some(shown)
}

/// How a server is reached, with its tags.
fn address(server: &DcvServer) -> wire::Server<'_> {
    let status = server.status.as_ref();
    let endpoints = status.iter().flat_map(|status| &status.endpoints);
    let tags = status.iter().flat_map(|status| &status.tags);
    wire::Server {
        ip: status.and_then(|status| text(&status.ip)),
        hostname: status.and_then(|status| text(&status.hostname)),
        default_dns_name: status.and_then(|status| text(&status.default_dns_name)),
        port: status.and_then(|status| status.port).map(|port| port.to_string().into()),
        endpoints: endpoints.map(endpoint).collect(),
        web_url_path: status.and_then(|status| text(&status.web_url_path)),
        tags: tags.map(|(key, value)| wire::KeyValuePair { key: key.into(), value: value.into() }).collect(),
        ..wire::Server::default()
    }
}

fn endpoint(endpoint: &server::Endpoint) -> wire::Endpoint<'_> {
    wire::Endpoint {
        ip_address: endpoint.ip_address.as_str().into(),
        port: endpoint.port,
        web_url_path: optional(endpoint.web_url_path.as_ref()),
        protocol: endpoint.protocol.as_str().into(),
    }
}

/// A server as clients see it, with counts and availability as of now.
pub fn server<'a>(server: &'a DcvServer, load: &Load) -> wire::Server<'a> {
    let status = server.status.as_ref();
    let agent = status.and_then(|status| status.agent.as_ref());
    let (word, reason) = availability::availability(server, load);
    wire::Server {
        id: Some(uid(server)),
        version: status.and_then(|status| text(&status.version)),
        session_manager_agent_version: agent.and_then(|agent| text(&agent.version)),
        availability: Some(word.as_str().into()),
        unavailability_reason: reason.map(|reason| reason.as_str().into()),
        console_session_count: Some(count(load.console)),
        virtual_session_count: Some(count(load.virtual_)),
        host: status.and_then(|status| status.host.as_ref()).map(host),
        ..address(server)
    }
}

fn host(host: &server::Host) -> wire::Host<'_> {
    let memory = |memory: server::Memory| (memory.total_bytes, memory.used_bytes);
    wire::Host {
        os: host.os.as_ref().map(|os| wire::Os {
            family: os.family.as_str().into(),
            name: text(&os.name),
            version: text(&os.version),
            kernel_version: optional(os.kernel_version.as_ref()),
            build_number: optional(os.build_number.as_ref()),
        }),
        memory: host.memory.map(memory).map(|(total_bytes, used_bytes)| wire::Memory { total_bytes, used_bytes }),
        swap: host.swap.map(memory).map(|(total_bytes, used_bytes)| wire::Swap { total_bytes, used_bytes }),
        aws: host.aws.as_ref().map(|aws| wire::Aws {
            region: text(&aws.region),
            ec2_instance_type: text(&aws.ec2_instance_type),
            ec2_instance_id: text(&aws.ec2_instance_id),
            ec2_image_id: text(&aws.ec2_image_id),
        }),
        cpu_info: host.cpu_info.as_ref().map(|cpu| wire::CpuInfo {
            vendor: text(&cpu.vendor),
            model_name: text(&cpu.model_name),
            architecture: text(&cpu.architecture),
            number_of_cpus: cpu.number_of_cpus,
            physical_cores_per_cpu: cpu.physical_cores_per_cpu,
        }),
        cpu_load_average: host.cpu_load_average.map(load_average),
        gpus: host
            .gpus
            .iter()
            .map(|gpu| wire::Gpu { vendor: gpu.vendor.as_str().into(), model_name: gpu.model_name.as_str().into() })
            .collect(),
        logged_in_users: host.logged_in_users.iter().map(|user| wire::LoggedInUser { username: user.into() }).collect(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the API file has floats")]
fn load_average(load: server::CpuLoadAverage) -> wire::CpuLoadAverage {
    wire::CpuLoadAverage {
        one_minute: load.one_minute as f32,
        five_minutes: load.five_minutes as f32,
        fifteen_minutes: load.fifteen_minutes as f32,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn session(changes: &Value, status: &Value) -> DcvSession {
        let mut spec = json!({"owner": "ann", "type": "VIRTUAL"});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "a", "uid": "a"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn finished(state: &str, reason: &str, message: &str) -> Value {
        json!({"state": state, "conditions": [{"type": "Finished", "status": "True", "reason": reason,
            "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    #[test]
    fn whatever_is_not_ready_says_why() {
        let (running, closed) = (json!({}), json!({"desiredState": "Closed"}));
        let none = json!([]);
        for (spec, status, expected) in [
            (&running, json!(null), "Waiting to be placed on a server"),
            (&running, json!({"state": "CREATING", "conditions": none}), "Waiting to be placed on a server"),
            (
                &running,
                json!({"state": "CREATING", "stateReason": "0 of 1 servers fit: 1 full"}),
                "0 of 1 servers fit: 1 full",
            ),
            (&running, json!({"state": "CREATING", "stateReason": ""}), "Waiting to be placed on a server"),
            (&running, json!({"state": "CREATING", "serverName": "s"}), "The server is creating the desktop"),
            (&running, json!({"state": "CREATING", "serverName": "s", "stateReason": "no such user"}), "no such user"),
            (&running, json!({"state": "UNKNOWN", "serverName": "s"}), "Its server does not answer"),
            (
                &running,
                json!({"state": "UNKNOWN", "serverName": "s", "stateReason": "silent since noon"}),
                "silent since noon",
            ),
            (&running, finished("UNKNOWN", "Failed", ""), "It failed"),
            (&running, finished("UNKNOWN", "Failed", "no such user"), "no such user"),
            (&closed, json!({"state": "READY", "serverName": "s", "stateReason": "a fault"}), "Being closed as asked"),
            (&closed, json!({"state": "CREATING", "stateReason": "0 of 1 servers fit"}), "Being closed as asked"),
            (&closed, json!({"state": "DELETING", "stateReason": "the host is slow"}), "the host is slow"),
            (&closed, finished("DELETED", "Closed", ""), "Closed as asked"),
            (&closed, finished("DELETED", "Closed", "closed at noon"), "closed at noon"),
            (&closed, finished("DELETED", "ForceClosed", ""), "Closed as asked without waiting for its server"),
            (&running, finished("DELETED", "EndedOnHost", ""), "The desktop ended by itself"),
            (&running, finished("DELETED", "Expired", ""), "A time limit was reached"),
            (&running, finished("DELETED", "ServerLost", ""), "Its server is lost"),
        ] {
            let session = session(spec, &status);
            let reason = state_reason(&session, false);
            assert_eq!(reason.as_deref(), Some(expected), "{spec} {status}");
        }
        let away = session(&closed, &json!({"state": "UNKNOWN", "serverName": "s", "stateReason": "silent"}));
        assert_eq!(state_reason(&away, true).as_deref(), Some("Being closed as soon as its server answers again"));
    }

    #[test]
    fn a_ready_session_gives_a_reason_only_where_one_is_written() {
        let ready = |reason: Value| session(&json!({}), &json!({"state": "READY", "stateReason": reason}));
        assert_eq!(state_reason(&ready(Value::Null), false), None);
        let fault = "the permissions are not in force: line 2";
        assert_eq!(state_reason(&ready(json!(fault)), true).as_deref(), Some(fault));
    }
}
