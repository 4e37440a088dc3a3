//! From the cluster's objects to wire types.

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
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn uid(server: &DcvServer) -> String {
    server.metadata.uid.clone().unwrap_or_default()
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
pub fn session(view: &SessionView, rules: &Rules, now: Timestamp) -> wire::Session {
    let session = &view.session;
    let status = session.status.as_ref();
    let state = session.shown_state();
    wire::Session {
        id: session.id(),
        name: session.display_name(),
        owner: session.spec.owner.clone(),
        server: session_server(view, rules, now),
        type_: session.spec.type_.as_str().to_owned(),
        max_concurrent_clients: session.spec.max_concurrent_clients.map(i64::from),
        state: state.as_str().to_owned(),
        substate: status
            .and_then(|status| status.substate)
            .filter(|_| state == SessionState::Creating)
            .map(|substate| substate.as_str().to_owned()),
        state_reason: state_reason(session, view.server.as_ref().is_some_and(|view| view.server.is_silent())),
        creation_time: session.metadata.creation_timestamp.as_ref().map(|time| time.0),
        last_disconnection_time: status.and_then(|status| status.last_disconnection_time.as_ref()).map(|time| time.0),
        num_of_connections: status.and_then(|status| status.num_of_connections).unwrap_or(0).into(),
        storage_root: session.spec.storage_root.clone(),
    }
}

/// Why a session is in the state it is shown in: what is written down, else what that state means. A READY one needs no
/// reason. `is_server_silent` is whether the server it is on does not answer.
fn state_reason(session: &DcvSession, is_server_silent: bool) -> Option<String> {
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
    texts.find(|text| !text.is_empty()).map(str::to_owned)
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
pub fn other(view: &OtherView, rules: &Rules, now: Timestamp) -> wire::Session {
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
        id: session.id.clone(),
        name: session.session_name.clone().unwrap_or_default(),
        owner: session.owner.clone(),
        server: Some(place(server, rules, now)),
        type_: session.type_.as_str().to_owned(),
        state: state.as_str().to_owned(),
        state_reason: text(reason),
        creation_time: session.creation_time.as_ref().map(|time| time.0),
        num_of_connections: session.num_of_connections.into(),
        ..wire::Session::default()
    }
}

/// The part of a server that the guide shows with a session, and its id where describeServers knows it.
pub fn place(view: &ServerView, rules: &Rules, now: Timestamp) -> wire::Server {
    let id = is_listed(view, rules, now).then(|| uid(&view.server));
    wire::Server { id, ..address(&view.server) }
}

/// Where a session is. Absent until it is placed.
fn session_server(view: &SessionView, rules: &Rules, now: Timestamp) -> Option<wire::Server> {
    view.session.server_name()?;
    let mut shown = view.server.as_ref().map(|view| place(view, rules, now)).unwrap_or_default();
    if let Some(reached) = view.session.status.as_ref().and_then(|status| status.server.as_ref()) {
        shown.ip = Some(reached.ip.clone());
        shown.port = Some(reached.port.to_string());
        shown.web_url_path = Some(reached.web_url_path.clone());
        shown.endpoints = reached.endpoints.iter().map(endpoint).collect();
    }
    Some(shown)
}

/// How a server is reached, with its tags.
fn address(server: &DcvServer) -> wire::Server {
    let status = server.status.as_ref();
    let endpoints = status.iter().flat_map(|status| &status.endpoints);
    let tags = status.iter().flat_map(|status| &status.tags);
    wire::Server {
        ip: status.and_then(|status| text(&status.ip)),
        hostname: status.and_then(|status| text(&status.hostname)),
        default_dns_name: status.and_then(|status| text(&status.default_dns_name)),
        port: status.and_then(|status| status.port).map(|port| port.to_string()),
        endpoints: endpoints.map(endpoint).collect(),
        web_url_path: status.and_then(|status| text(&status.web_url_path)),
        tags: tags.map(|(key, value)| wire::KeyValuePair { key: key.clone(), value: value.clone() }).collect(),
        ..wire::Server::default()
    }
}

fn endpoint(endpoint: &server::Endpoint) -> wire::Endpoint {
    wire::Endpoint {
        ip_address: endpoint.ip_address.clone(),
        port: endpoint.port,
        web_url_path: endpoint.web_url_path.clone(),
        protocol: endpoint.protocol.as_str().to_owned(),
    }
}

/// A server as clients see it, with counts and availability as of now.
pub fn server(server: &DcvServer, load: &Load) -> wire::Server {
    let status = server.status.clone().unwrap_or_default();
    let (word, reason) = availability::availability(server, load);
    wire::Server {
        id: Some(uid(server)),
        version: text(&status.version),
        session_manager_agent_version: status.agent.as_ref().and_then(|agent| text(&agent.version)),
        availability: Some(word.as_str().to_owned()),
        unavailability_reason: reason.map(|reason| reason.as_str().to_owned()),
        console_session_count: Some(count(load.console)),
        virtual_session_count: Some(count(load.virtual_)),
        host: status.host.as_ref().map(host),
        ..address(server)
    }
}

fn host(host: &server::Host) -> wire::Host {
    let memory = |memory: server::Memory| (memory.total_bytes, memory.used_bytes);
    wire::Host {
        os: host.os.as_ref().map(|os| wire::Os {
            family: os.family.clone(),
            name: text(&os.name),
            version: text(&os.version),
            kernel_version: os.kernel_version.clone(),
            build_number: os.build_number.clone(),
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
            .map(|gpu| wire::Gpu { vendor: gpu.vendor.clone(), model_name: gpu.model_name.clone() })
            .collect(),
        logged_in_users: host
            .logged_in_users
            .iter()
            .map(|user| wire::LoggedInUser { username: user.clone() })
            .collect(),
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
            let reason = state_reason(&session(spec, &status), false);
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
