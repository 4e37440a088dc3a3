//! What the agent says of its own server, and when that is worth a write.
//!
//! Pure, apart from [`register`]. The spec is the administrators', labels are the controller's: only status is written.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::ObjectMeta;
use kube::api::PostParams;

use super::backend::Description;
use super::backend::License;
use super::check::Verdict;
use super::decide::Plan;
use super::room;
use crate::api::DcvServer;
use crate::api::DcvServerSpec;
use crate::api::DcvServerStatus;
use crate::api::conditions::Reason;
use crate::api::conditions::ServerCondition;
use crate::api::conditions::condition;
use crate::api::conditions::remove;
use crate::api::conditions::set;
use crate::api::names;
use crate::api::server::Agent;
use crate::api::server::Availability;
use crate::api::server::Capacity;
use crate::api::server::Endpoint;
use crate::api::server::Host;
use crate::api::server::Memory;
use crate::api::server::OtherSession;
use crate::api::server::Placement;
use crate::api::server::Protocol;
use crate::api::server::UnavailabilityReason;
use crate::api::session::SessionServer;
use crate::api::session::SessionType;

/// Facts that only move are written this often at most.
pub const QUIET_INTERVAL: Duration = Duration::from_secs(30);

/// Most sessions listed in `otherSessions`, as the schema has it.
const MAX_OTHER_SESSIONS: usize = 500;

/// What the agent knows of its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Word for the backend.
    pub backend: &'static str,
    /// What the backend tells.
    pub description: Description,
    /// Facts of the host.
    pub host: Host,
    /// Name of the host.
    pub hostname: String,
    /// Why no session can be created now.
    pub unhealthy: Option<String>,
    /// Capacity after the agent's own settings.
    pub capacity: Capacity,
    /// Address of the host.
    pub ip: String,
    /// How brokers reach the agent.
    pub agent: Agent,
    /// Tags of the tag files and the backend.
    pub tags: BTreeMap<String, String>,
    /// What is wrong with the tag files.
    pub tags_fault: Option<String>,
    /// Whether there are tag files at all; a made-up host has none.
    pub has_tag_files: bool,
    /// What is missing on the host; absent where it is not looked at.
    pub set_up: Option<Verdict>,
    /// Full name of the host, where it is known.
    pub dns_name: Option<String>,
    /// Port of the agent's HTTPS server.
    pub port: i32,
    /// Id of the boot that was fully told.
    pub boot_id: String,
}

impl Facts {
    /// Where clients reach sessions: the desktop server itself where it listens, else the agent.
    pub fn address(&self) -> SessionServer {
        let own = Endpoint {
            ip_address: self.ip.clone(),
            port: self.port,
            web_url_path: Some("/".into()),
            protocol: Protocol::Http,
        };
        let mut endpoints = self.description.endpoints.clone();
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.ip_address.is_empty()) {
            endpoint.ip_address.clone_from(&self.ip);
        }
        let endpoints = if endpoints.is_empty() { vec![own.clone()] } else { endpoints };
        let web = endpoints.iter().find(|endpoint| endpoint.protocol == Protocol::Http).unwrap_or(&own);
        SessionServer {
            ip: web.ip_address.clone(),
            port: web.port,
            web_url_path: web.web_url_path.clone().unwrap_or_else(|| "/".into()),
            endpoints,
        }
    }

    /// Whether somebody uses the machine's own screen, so that a console session would show it to another. Windows only,
    /// as documented.
    pub fn has_user_at_console(&self, consoles: i32) -> bool {
        let family = self.host.os.as_ref().map_or("", |os| os.family.as_str());
        family == "windows" && consoles == 0 && !self.host.logged_in_users.is_empty()
    }
}

/// Makes the object, with an empty spec. One that is there already is taken as it is.
///
/// # Errors
/// When the API server does not answer or refuses.
pub async fn register(api: &Api<DcvServer>, name: &str) -> kube::Result<DcvServer> {
    if let Some(server) = api.get_opt(name).await? {
        return Ok(server);
    }
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let server = DcvServer { metadata, spec: DcvServerSpec::default(), status: None };
    let parameters = PostParams { field_manager: Some(names::AGENT.to_owned()), ..PostParams::default() };
    match api.create(&parameters, &server).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => api.get(name).await,
        other => other,
    }
}

/// The whole status of the server.
pub fn status(server: &DcvServer, facts: &Facts, plan: &Plan, now: Timestamp) -> DcvServerStatus {
    let (virtuals, consoles) = plan.counts;
    let address = facts.address();
    let limits = room::limits(server, &facts.capacity);
    let capacity = Capacity {
        max_virtual_sessions: limits.max_virtual_sessions.unwrap_or(-1),
        max_concurrent_sessions_per_user: limits.max_concurrent_sessions_per_user.unwrap_or(-1),
        ..facts.capacity.clone()
    };
    let reason = unavailability(server, facts, &capacity, plan.counts);
    DcvServerStatus {
        availability: if reason.is_none() { Availability::Available } else { Availability::Unavailable },
        unavailability_reason: reason,
        conditions: conditions(server, facts, now),
        observed_generation: server.metadata.generation,
        backend: facts.backend.to_owned(),
        version: facts.description.version.clone(),
        hostname: facts.hostname.clone(),
        ip: facts.ip.clone(),
        default_dns_name: facts.dns_name.clone().unwrap_or_else(|| facts.hostname.clone()),
        port: Some(address.port),
        web_url_path: address.web_url_path,
        endpoints: address.endpoints,
        host: Some(facts.host.clone()),
        tags: all_tags(facts, &capacity),
        console_session_count: Some(consoles),
        virtual_session_count: Some(virtuals),
        other_sessions: plan.other_sessions.iter().take(MAX_OTHER_SESSIONS).cloned().collect(),
        agent: Some(facts.agent.clone()),
        boot_id: facts.boot_id.clone(),
        capacity: Some(capacity),
    }
}

/// The tags and the documented built-in ones.
fn all_tags(facts: &Facts, capacity: &Capacity) -> BTreeMap<String, String> {
    let mut tags = facts.tags.clone();
    tags.extend(facts.description.tags.clone());
    if let Some(os) = &facts.host.os {
        tags.insert("dcv:os-family".into(), os.family.clone());
    }
    tags.insert("dcv:max-virtual-sessions".into(), capacity.max_virtual_sessions.to_string());
    let per_user = capacity.max_concurrent_sessions_per_user.to_string();
    tags.insert("dcv:max-concurrent-sessions-per-user".into(), per_user);
    tags
}

fn unavailability(
    server: &DcvServer,
    facts: &Facts,
    capacity: &Capacity,
    (virtuals, consoles): (i32, i32),
) -> Option<UnavailabilityReason> {
    let is_full = |type_: &SessionType| match type_ {
        SessionType::Console => consoles > 0,
        SessionType::Virtual => capacity.max_virtual_sessions >= 0 && virtuals >= capacity.max_virtual_sessions,
    };
    if !server.is_open() || server.is_cordoned() {
        Some(UnavailabilityReason::ServerClosed)
    } else if facts.unhealthy.is_some() {
        Some(UnavailabilityReason::UnhealthyDcvServer)
    } else if facts.has_user_at_console(consoles) {
        Some(UnavailabilityReason::ExistingLoggedInUser)
    } else if capacity.session_types.iter().all(is_full) {
        Some(UnavailabilityReason::ServerFull)
    } else {
        None
    }
}

fn conditions(
    server: &DcvServer,
    facts: &Facts,
    now: Timestamp,
) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let generation = server.metadata.generation;
    let mut list = server.conditions().to_vec();
    set(&mut list, license(&facts.description.license, now, generation));
    let mut say = |type_: ServerCondition, value, reason, message: &str| {
        set(&mut list, condition(type_, Some(value), reason, message, now, generation));
    };
    let drains = server.spec.placement == Some(Placement::Draining);
    say(ServerCondition::AgentConnected, true, Reason::LeaseRenewed, "");
    say(ServerCondition::Draining, drains, if drains { Reason::DrainRequested } else { Reason::Running }, "");
    match facts.tags_fault.as_deref() {
        _ if !facts.has_tag_files => {}
        None => say(ServerCondition::TagsValid, true, Reason::TagsRead, ""),
        Some(fault) => say(ServerCondition::TagsValid, false, Reason::InvalidTags, fault),
    }
    match &facts.set_up {
        None => {}
        Some(Verdict { is_complete: true, message }) => {
            say(ServerCondition::HostConfigured, true, Reason::SetUpComplete, message);
        }
        Some(Verdict { is_complete: false, message }) => {
            say(ServerCondition::HostConfigured, false, Reason::SetUpIncomplete, message);
        }
    }
    match facts.unhealthy.as_deref() {
        None => {
            say(ServerCondition::BackendHealthy, true, Reason::Healthy, "");
            say(ServerCondition::Ready, true, Reason::Running, "");
            remove(&mut list, ServerCondition::Reconciling);
            remove(&mut list, ServerCondition::Stalled);
        }
        Some(message) => {
            say(ServerCondition::BackendHealthy, false, Reason::Unhealthy, message);
            say(ServerCondition::Ready, false, Reason::Unhealthy, message);
            say(ServerCondition::Reconciling, true, Reason::Unhealthy, "");
        }
    }
    list
}

fn license(
    license: &License,
    now: Timestamp,
    generation: Option<i64>,
) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
    let (value, reason, message) = match license {
        License::NotRequired => (Some(true), Reason::NotRequired, ""),
        License::Unknown => (None, Reason::Pending, "no session has told yet"),
        License::Valid => (Some(true), Reason::Licensed, ""),
        License::Faulty(message) => (Some(false), Reason::LicenseFault, message.as_str()),
    };
    condition(ServerCondition::LicenseValid, value, reason, message, now, generation)
}

/// Whether the difference is worth a write now. Availability, conditions and everything that seldom changes are written
/// at once; counts, load, memory and fullness, which move with the sessions, when the last write is a while ago.
pub fn is_due(old: &DcvServerStatus, new: &DcvServerStatus, since_last_write: Option<Duration>) -> bool {
    let is_quiet = since_last_write.is_some_and(|since| since < QUIET_INTERVAL);
    let mut steady = new.clone();
    level(&mut steady, old);
    if steady == *old {
        return has_moved(old, new) && !is_quiet;
    }
    true
}

/// Makes what moves with the sessions equal to the old, so that what is left differs for another reason.
fn level(new: &mut DcvServerStatus, old: &DcvServerStatus) {
    new.console_session_count = old.console_session_count;
    new.virtual_session_count = old.virtual_session_count;
    let is_of_sessions = |status: &DcvServerStatus| {
        matches!(
            status.unavailability_reason,
            None | Some(UnavailabilityReason::ServerFull | UnavailabilityReason::ExistingLoggedInUser)
        )
    };
    let both_by_sessions = is_of_sessions(new) && is_of_sessions(old);
    if both_by_sessions && (old.availability == Availability::Available || old.unavailability_reason.is_some()) {
        new.availability = old.availability;
        new.unavailability_reason = old.unavailability_reason;
    }
    if let (Some(new), Some(old)) = (&mut new.host, &old.host) {
        new.cpu_load_average = old.cpu_load_average;
        new.logged_in_users.clone_from(&old.logged_in_users);
        level_memory(&mut new.memory, old.memory);
        level_memory(&mut new.swap, old.swap);
    }
    if let (Some(new), Some(old)) = (&mut new.agent, &old.agent) {
        new.clock_skew_seconds = old.clock_skew_seconds;
    }
    let ids = |list: &[OtherSession]| list.iter().map(|other| other.id.clone()).collect::<Vec<_>>();
    if ids(&new.other_sessions) == ids(&old.other_sessions) {
        new.other_sessions.clone_from(&old.other_sessions);
    }
}

fn level_memory(new: &mut Option<Memory>, old: Option<Memory>) {
    if let (Some(new), Some(old)) = (new, old) {
        new.used_bytes = old.used_bytes;
    }
}

/// Whether what moves has moved enough for anyone to care.
fn has_moved(old: &DcvServerStatus, new: &DcvServerStatus) -> bool {
    let memory = |pick: fn(&Host) -> Option<Memory>| {
        let pair = old.host.as_ref().and_then(pick).zip(new.host.as_ref().and_then(pick));
        pair.is_some_and(|(old, new)| (old.used_bytes - new.used_bytes).abs() > new.total_bytes / 20)
    };
    let load = |status: &DcvServerStatus| {
        status.host.as_ref().and_then(|host| host.cpu_load_average).map_or(0.0, |load| load.one_minute)
    };
    let users = |status: &DcvServerStatus| status.host.as_ref().map(|host| host.logged_in_users.clone());
    let skew = |status: &DcvServerStatus| status.agent.as_ref().and_then(|agent| agent.clock_skew_seconds);
    let has_clock_moved = match (skew(old), skew(new)) {
        (Some(old), Some(new)) => old.abs_diff(new) > 1,
        (old, new) => old != new,
    };
    let (old_load, new_load) = (load(old), load(new));
    old.console_session_count != new.console_session_count
        || old.virtual_session_count != new.virtual_session_count
        || old.availability != new.availability
        || old.unavailability_reason != new.unavailability_reason
        || old.other_sessions != new.other_sessions
        || users(old) != users(new)
        || has_clock_moved
        || (old_load - new_load).abs() > (old_load.max(new_load) / 5.0).max(0.5)
        || memory(|host| host.memory)
        || memory(|host| host.swap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::mock;
    use crate::api::conditions::find;
    use crate::api::conditions::is;
    use crate::api::server::CpuLoadAverage;

    type Change = fn(&mut Host);

    fn facts() -> Facts {
        Facts {
            backend: "fake",
            capacity: Capacity {
                session_types: vec![SessionType::Virtual],
                max_virtual_sessions: 2,
                max_concurrent_sessions_per_user: 1,
                gl: false,
            },
            ip: "10.0.0.1".into(),
            port: 8444,
            boot_id: "b1".into(),
            ..Facts::default()
        }
    }

    fn plan(virtuals: i32) -> Plan {
        Plan { counts: (virtuals, 0), ..Plan::default() }
    }

    fn written(server: &DcvServer, facts: &Facts, virtuals: i32) -> DcvServer {
        let status = status(server, facts, &plan(virtuals), mock::clock());
        DcvServer { status: Some(status), ..server.clone() }
    }

    #[test]
    fn the_first_reason_in_the_documented_order_is_told() {
        let mut server = DcvServer::default();
        let mut facts = facts();
        let reason = |server: &DcvServer, facts: &Facts, virtuals| {
            status(server, facts, &plan(virtuals), mock::clock()).unavailability_reason
        };
        assert_eq!(reason(&server, &facts, 1), None);
        assert_eq!(reason(&server, &facts, 2), Some(UnavailabilityReason::ServerFull));
        facts.host.os = Some(crate::api::server::Os { family: "windows".into(), ..Default::default() });
        facts.host.logged_in_users = vec!["eve".into()];
        assert_eq!(reason(&server, &facts, 2), Some(UnavailabilityReason::ExistingLoggedInUser));
        facts.unhealthy = Some("no answer".into());
        assert_eq!(reason(&server, &facts, 2), Some(UnavailabilityReason::UnhealthyDcvServer));
        server.spec.placement = Some(Placement::Closed);
        assert_eq!(reason(&server, &facts, 2), Some(UnavailabilityReason::ServerClosed));
        server.spec.placement = None;
        server.metadata.labels = Some([(names::CORDONED.to_owned(), String::new())].into());
        assert_eq!(reason(&server, &facts, 2), Some(UnavailabilityReason::ServerClosed));
    }

    #[test]
    fn an_unhealthy_backend_shows_in_the_conditions_and_goes_again() {
        let mut facts = facts();
        facts.unhealthy = Some("no answer".into());
        let server = written(&DcvServer::default(), &facts, 0);
        assert!(is(server.conditions(), ServerCondition::BackendHealthy, Some(false), Reason::Unhealthy));
        assert!(is(server.conditions(), ServerCondition::Reconciling, Some(true), Reason::Unhealthy));
        facts.unhealthy = None;
        let server = written(&server, &facts, 0);
        assert!(is(server.conditions(), ServerCondition::Ready, Some(true), Reason::Running));
        assert_eq!(find(server.conditions(), ServerCondition::Reconciling), None);
    }

    #[test]
    fn broken_tags_and_a_host_that_is_not_set_up_are_told_and_close_nothing() {
        let mut facts = facts();
        let server = written(&DcvServer::default(), &facts, 0);
        assert_eq!(find(server.conditions(), ServerCondition::TagsValid), None, "a made-up host has no files");
        assert_eq!(find(server.conditions(), ServerCondition::HostConfigured), None);
        facts.has_tag_files = true;
        facts.tags_fault = Some("failed to parse tags in /t/a.toml, line 2: no value".into());
        facts.set_up = Some(Verdict { is_complete: false, message: "no Xdcv".into() });
        let server = written(&server, &facts, 0);
        let told = find(server.conditions(), ServerCondition::TagsValid).unwrap();
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "InvalidTags"));
        assert_eq!(told.message, "failed to parse tags in /t/a.toml, line 2: no value");
        assert!(is(server.conditions(), ServerCondition::HostConfigured, Some(false), Reason::SetUpIncomplete));
        assert_eq!(server.status.as_ref().unwrap().availability, Availability::Available);
        facts.tags_fault = None;
        facts.set_up = Some(Verdict { is_complete: true, message: String::new() });
        let server = written(&server, &facts, 0);
        assert!(is(server.conditions(), ServerCondition::TagsValid, Some(true), Reason::TagsRead));
        assert!(is(server.conditions(), ServerCondition::HostConfigured, Some(true), Reason::SetUpComplete));
    }

    #[test]
    fn the_full_name_is_told_where_it_is_known() {
        let mut facts = Facts { hostname: "node7".into(), ..facts() };
        let name = |facts: &Facts| status(&DcvServer::default(), facts, &plan(0), mock::clock()).default_dns_name;
        assert_eq!(name(&facts), "node7");
        facts.dns_name = Some("node7.example".into());
        assert_eq!(name(&facts), "node7.example");
    }

    #[test]
    fn a_licence_is_told_of_as_far_as_it_is_known() {
        let mut facts = facts();
        for (license, value, reason) in [
            (License::NotRequired, Some(true), Reason::NotRequired),
            (License::Unknown, None, Reason::Pending),
            (License::Valid, Some(true), Reason::Licensed),
            (License::Faulty("no licenses".into()), Some(false), Reason::LicenseFault),
        ] {
            facts.description.license = license;
            let server = written(&DcvServer::default(), &facts, 0);
            assert!(is(server.conditions(), ServerCondition::LicenseValid, value, reason), "{reason:?}");
        }
    }

    #[test]
    fn an_endpoint_without_an_address_has_the_hosts() {
        let mut facts = facts();
        let endpoint =
            |ip: &str, protocol| Endpoint { ip_address: ip.into(), port: 9000, web_url_path: None, protocol };
        facts.description.endpoints = vec![endpoint("", Protocol::Http), endpoint("192.0.2.1", Protocol::Quic)];
        let address = facts.address();
        assert_eq!((address.ip.as_str(), address.port), ("10.0.0.1", 9000));
        assert_eq!(address.endpoints, [endpoint("10.0.0.1", Protocol::Http), endpoint("192.0.2.1", Protocol::Quic)]);
    }

    #[test]
    fn nothing_new_is_not_written() {
        let server = written(&DcvServer::default(), &facts(), 1);
        let old = server.status.clone().unwrap();
        let new = status(&server, &facts(), &plan(1), mock::clock());
        assert!(!is_due(&old, &new, None));
    }

    #[test]
    fn counts_and_fullness_wait_and_closing_does_not() {
        let mut server = written(&DcvServer::default(), &facts(), 0);
        let old = server.status.clone().unwrap();
        let full = status(&server, &facts(), &plan(2), mock::clock());
        assert!(!is_due(&old, &full, Some(Duration::from_secs(29))));
        assert!(is_due(&old, &full, Some(Duration::from_secs(30))));
        server.spec.placement = Some(Placement::Closed);
        let closed = status(&server, &facts(), &plan(0), mock::clock());
        assert!(is_due(&old, &closed, Some(Duration::ZERO)));
    }

    #[test]
    fn small_moves_of_load_and_memory_are_never_written() {
        let mut facts = facts();
        facts.host.memory = Some(Memory { total_bytes: 1000, used_bytes: 100 });
        let server = written(&DcvServer::default(), &facts, 0);
        let old = server.status.clone().unwrap();
        facts.host.memory = Some(Memory { total_bytes: 1000, used_bytes: 140 });
        assert!(!is_due(&old, &status(&server, &facts, &plan(0), mock::clock()), None));
        facts.host.memory = Some(Memory { total_bytes: 1000, used_bytes: 200 });
        assert!(is_due(&old, &status(&server, &facts, &plan(0), mock::clock()), None));
    }

    #[test]
    fn what_moves_is_written_when_it_moved_enough_and_what_seldom_changes_at_once() {
        let load = |one_minute| Some(CpuLoadAverage { one_minute, five_minutes: one_minute, fifteen_minutes: 0.0 });
        let memory = |used_bytes| Some(Memory { total_bytes: 1000, used_bytes });
        let host = || Host { memory: memory(100), swap: memory(0), cpu_load_average: load(4.0), ..Host::default() };
        let host = |change: fn(&mut Host)| {
            let mut host = host();
            change(&mut host);
            host
        };
        let due = |new: Host, since: u64| {
            let old = written(&DcvServer::default(), &Facts { host: host(|_| ()), ..facts() }, 0);
            let new = status(&old, &Facts { host: new, ..facts() }, &plan(0), mock::clock());
            is_due(old.status.as_ref().unwrap(), &new, Some(Duration::from_secs(since)))
        };
        let moves: [(&str, Change, bool); 10] = [
            ("nothing", |_| (), false),
            ("load by a fifth", |host| host.cpu_load_average.as_mut().unwrap().one_minute = 5.0, false),
            ("load by more", |host| host.cpu_load_average.as_mut().unwrap().one_minute = 5.1, true),
            ("load down", |host| host.cpu_load_average.as_mut().unwrap().one_minute = 3.0, true),
            ("older load", |host| host.cpu_load_average.as_mut().unwrap().fifteen_minutes = 9.0, false),
            ("memory by a twentieth", |host| host.memory.as_mut().unwrap().used_bytes = 150, false),
            ("memory by more", |host| host.memory.as_mut().unwrap().used_bytes = 151, true),
            ("memory down", |host| host.memory.as_mut().unwrap().used_bytes = 49, true),
            ("swap", |host| host.swap.as_mut().unwrap().used_bytes = 51, true),
            ("people", |host| host.logged_in_users.push("ann".into()), true),
        ];
        for (what, change, is_enough) in moves {
            assert_eq!(due(host(change), 30), is_enough, "{what}, after a while");
            assert!(!due(host(change), 29), "{what}, soon after the last");
        }
        let changes: [(&str, Change); 4] = [
            ("memory added", |host| host.memory.as_mut().unwrap().total_bytes = 2000),
            ("EC2 facts", |host| host.aws = Some(crate::api::server::Aws::default())),
            ("a card", |host| host.gpus.push(crate::api::server::Gpu::default())),
            ("the system", |host| host.os = Some(crate::api::server::Os::default())),
        ];
        for (what, change) in changes {
            assert!(due(host(change), 0), "{what}");
        }
    }

    #[test]
    fn a_clock_that_gains_or_loses_more_than_a_second_is_told_after_a_while() {
        let with = |clock_skew_seconds| Facts { agent: Agent { clock_skew_seconds, ..Agent::default() }, ..facts() };
        for (before, after, is_enough) in [
            (None, Some(0), true),
            (Some(0), Some(0), false),
            (Some(0), Some(-1), false),
            (Some(0), Some(2), true),
            (Some(31), Some(0), true),
        ] {
            let old = written(&DcvServer::default(), &with(before), 0);
            let new = status(&old, &with(after), &plan(0), mock::clock());
            let due = |since| is_due(old.status.as_ref().unwrap(), &new, Some(Duration::from_secs(since)));
            assert_eq!((due(30), due(29)), (is_enough, false), "{before:?} to {after:?}");
        }
    }

    #[test]
    fn an_unreachable_server_is_told_reachable_at_once() {
        let mut server = written(&DcvServer::default(), &facts(), 0);
        let stale = server.status.as_mut().unwrap();
        stale.availability = Availability::Unavailable;
        stale.unavailability_reason = Some(UnavailabilityReason::UnreachableAgent);
        let old = stale.clone();
        assert!(is_due(&old, &status(&server, &facts(), &plan(0), mock::clock()), Some(Duration::ZERO)));
    }

    #[test]
    fn sessions_are_reached_where_the_desktop_server_listens_else_at_the_agent() {
        let mut facts = facts();
        assert_eq!((facts.address().ip.as_str(), facts.address().port), ("10.0.0.1", 8444));
        let endpoint = |port, protocol, path: Option<&str>| Endpoint {
            ip_address: "10.0.0.9".into(),
            port,
            web_url_path: path.map(str::to_owned),
            protocol,
        };
        facts.description.endpoints =
            vec![endpoint(8443, Protocol::Quic, None), endpoint(8443, Protocol::Http, Some("/dcv"))];
        let address = facts.address();
        assert_eq!((address.ip.as_str(), address.port, address.web_url_path.as_str()), ("10.0.0.9", 8443, "/dcv"));
        assert_eq!(address.endpoints.len(), 2);
    }

    #[tokio::test]
    async fn a_server_is_created_with_an_empty_spec() {
        let (client, calls) = mock::client(|method, _, body| match method {
            "GET" => (404, mock::failure(404)),
            _ => (201, body.clone()),
        });
        register(&Api::all(client), "host-1").await.unwrap();
        let created = calls.take().pop().unwrap();
        assert_eq!(created.body["metadata"], serde_json::json!({"name": "host-1"}));
        assert_eq!(created.body["spec"], serde_json::json!({}));
        assert_eq!(created.body.get("status"), None);
    }
}
