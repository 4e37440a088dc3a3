//! From the cluster's objects to wire types.

use jiff::SignedDuration;
use jiff::Timestamp;

use super::super::availability;
use super::super::store::ServerView;
use super::super::store::SessionView;
use crate::api::DcvServer;
use crate::api::conditions;
use crate::api::conditions::ServerCondition;
use crate::api::server;
use crate::api::session::SessionState;
use crate::wire;

/// Time after which a server that cannot be reached is listed no more. The documented default of
/// `seconds-before-deleting-unreachable-dcv-server`.
const UNREACHABLE_SHOWN: SignedDuration = SignedDuration::from_secs(1800);

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
pub fn is_listed(view: &ServerView, now: Timestamp) -> bool {
    let connected = conditions::find(view.server.conditions(), ServerCondition::AgentConnected);
    let is_lost = connected.is_some_and(|condition| {
        condition.status == "False" && condition.last_transition_time.0 + UNREACHABLE_SHOWN < now
    });
    view.is_visible && !is_lost
}

/// A session as clients see it.
pub fn session(view: &SessionView, now: Timestamp) -> wire::Session {
    let session = &view.session;
    let status = session.status.clone().unwrap_or_default();
    let state = session.shown_state();
    wire::Session {
        id: session.id(),
        name: session.display_name(),
        owner: session.spec.owner.clone(),
        server: session_server(view, now),
        type_: session.spec.type_.as_str().to_owned(),
        max_concurrent_clients: session.spec.max_concurrent_clients.map(i64::from),
        state: state.as_str().to_owned(),
        substate: status
            .substate
            .filter(|_| state == SessionState::Creating)
            .map(|substate| substate.as_str().to_owned()),
        state_reason: status.state_reason.as_deref().and_then(text),
        creation_time: session.metadata.creation_timestamp.as_ref().map(|time| time.0),
        last_disconnection_time: status.last_disconnection_time.map(|time| time.0),
        num_of_connections: status.num_of_connections.unwrap_or(0).into(),
        storage_root: session.spec.storage_root.clone(),
    }
}

/// Where a session is: the part of a server that the guide shows there, and its id. Absent until it is placed.
fn session_server(view: &SessionView, now: Timestamp) -> Option<wire::Server> {
    view.session.server_name()?;
    let known = view.server.as_ref();
    let mut shown = known.map(|view| address(&view.server)).unwrap_or_default();
    if let Some(reached) = view.session.status.as_ref().and_then(|status| status.server.as_ref()) {
        shown.ip = Some(reached.ip.clone());
        shown.port = Some(reached.port.to_string());
        shown.web_url_path = Some(reached.web_url_path.clone());
        shown.endpoints = reached.endpoints.iter().map(endpoint).collect();
    }
    if let Some(view) = known.filter(|view| is_listed(view, now)) {
        shown.id = Some(uid(&view.server));
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
pub fn server(view: &ServerView) -> wire::Server {
    let status = view.server.status.clone().unwrap_or_default();
    let (word, reason) = availability::availability(&view.server, &view.load);
    wire::Server {
        id: Some(uid(&view.server)),
        version: text(&status.version),
        session_manager_agent_version: status.agent.as_ref().and_then(|agent| text(&agent.version)),
        availability: Some(word.as_str().to_owned()),
        unavailability_reason: reason.map(|reason| reason.as_str().to_owned()),
        console_session_count: Some(count(view.load.console)),
        virtual_session_count: Some(count(view.load.virtual_)),
        host: status.host.as_ref().map(host),
        ..address(&view.server)
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
