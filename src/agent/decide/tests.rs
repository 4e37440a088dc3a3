//! Each rule of the agent, as one pass over a small world.

mod ending;
mod others;

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::agent::ledger::Creating;
use crate::agent::ledger::Permissions;
use crate::agent::ledger::Refusal;
use crate::agent::mock;
use crate::api::names;
use crate::api::server::Limits;
use crate::api::server::Placement;
use crate::api::session::SessionType;

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

fn rfc(second: i64) -> String {
    at(second).to_string()
}

/// A session bound to us at attempt 1, with changes to spec, metadata and status merged in.
fn session(name: &str, changes: &Value) -> Arc<DcvSession> {
    let mut object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": "7", "generation": 1,
            "finalizers": ["dcv-operator.io/session-cleanup"], "creationTimestamp": rfc(-1000)},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
        "status": {"serverName": "host-1", "serverUid": "server", "sessionId": name, "attempt": 1, "state": "CREATING",
            "substate": "PENDING_PREPARATION", "observedGeneration": 1, "lastTransitionTime": rfc(-900),
            "conditions": [
                {"type": "Scheduled", "status": "True", "reason": "Bound", "message": "", "lastTransitionTime": rfc(-900)},
                {"type": "Ready", "status": "False", "reason": "Preparing", "message": "", "lastTransitionTime": rfc(-900)},
                {"type": "Reconciling", "status": "True", "reason": "Preparing", "message": "", "lastTransitionTime": rfc(-900)},
            ]},
    });
    merge(&mut object, changes);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn merge(into: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().into_iter().flatten() {
        if value.is_object() && into[key].is_object() {
            merge(&mut into[key], value);
        } else {
            into[key] = value.clone();
        }
    }
}

/// As [`session`], but its agent has said that it is ready.
fn ready(name: &str, changes: &Value) -> Arc<DcvSession> {
    let bound = session(name, changes);
    let setting = Setting { host: vec![on_host(name)], ..Setting::default() };
    let running = Running {
        instance: &setting.host[0],
        server_uid: "server",
        address: &setting.address,
        generation: bound.metadata.generation,
        fault: None,
    };
    let status = report::ready(&bound, &running, at(-800));
    Arc::new(DcvSession { status: Some(status), ..(*bound).clone() })
}

fn on_host(id: &str) -> HostSession {
    HostSession {
        id: id.into(),
        owner: "ann".into(),
        type_: SessionType::Virtual,
        marker: Some(marker(id)),
        phase: Phase::Running,
        announced: true,
        num_of_connections: 0,
        last_disconnection_time: None,
        creation_time: Some(at(-850)),
    }
}

fn marker(uid: &str) -> Marker {
    Marker {
        cluster_uid: "cluster".into(),
        namespace: "team".into(),
        name: uid.into(),
        uid: uid.into(),
        attempt: 1,
        owner: "ann".into(),
        boot_id: "boot".into(),
    }
}

/// A world with one server that runs virtual sessions and has room.
struct Setting {
    now: Timestamp,
    server: DcvServer,
    capacity: Capacity,
    unhealthy: Option<&'static str>,
    owner_pattern: Option<Regex>,
    orphan_policy: OrphanPolicy,
    address: SessionServer,
    boot_id: &'static str,
    sessions: Vec<Arc<DcvSession>>,
    host: Vec<HostSession>,
    strangers: BTreeMap<String, Stranger>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    ledger: Ledger,
}

impl Default for Setting {
    fn default() -> Self {
        let status = crate::api::DcvServerStatus { boot_id: "boot".into(), ..Default::default() };
        Self {
            now: mock::clock(),
            server: DcvServer { status: Some(status), ..DcvServer::default() },
            capacity: Capacity {
                session_types: vec![SessionType::Virtual],
                max_virtual_sessions: -1,
                max_concurrent_sessions_per_user: -1,
                gl: false,
            },
            unhealthy: None,
            owner_pattern: None,
            orphan_policy: OrphanPolicy::Keep,
            address: SessionServer { ip: "10.0.0.1".into(), port: 8444, web_url_path: "/".into(), endpoints: vec![] },
            boot_id: "boot",
            sessions: Vec::new(),
            host: Vec::new(),
            strangers: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            ledger: Ledger::default(),
        }
    }
}

impl Setting {
    /// The objects, and the host's sessions, whose permissions are in force.
    fn new(sessions: Vec<Arc<DcvSession>>, host: Vec<HostSession>) -> Self {
        let in_force = |id: &str| sessions.iter().find(|s| s.id() == id).and_then(|s| s.spec.permissions.clone());
        let permissions =
            host.iter().map(|session| (session.id.clone(), Permissions { text: in_force(&session.id), fault: None }));
        let ledger = Ledger { permissions: permissions.collect(), ..Ledger::default() };
        Self { sessions, host, ledger, ..Self::default() }
    }

    fn decide(&self) -> Plan {
        let me = Me {
            server_name: "host-1".into(),
            server_uid: "server".into(),
            cluster_uid: "cluster".into(),
            boot_id: self.boot_id.into(),
        };
        let world = World {
            now: self.now,
            me: &me,
            server: &self.server,
            capacity: &self.capacity,
            unhealthy: self.unhealthy,
            address: &self.address,
            owner_pattern: self.owner_pattern.as_ref(),
            orphan_policy: self.orphan_policy,
            sessions: &self.sessions,
            host: &self.host,
            strangers: &self.strangers,
            namespaces: &self.namespaces,
            ledger: &self.ledger,
        };
        let plan = decide(&world);
        assert_eq!(plan, decide(&world), "deciding twice gives the same plan");
        plan
    }
}

/// What a plan does, in words; statuses as state, conditions and reason.
fn told(plan: &Plan) -> Vec<String> {
    let host = plan.host.iter().map(|action| match action {
        HostAction::Create(order) => format!("create {}", order.id),
        HostAction::Announce(id) => format!("announce {id}"),
        HostAction::Close(id) => format!("close {id}"),
        HostAction::SetPermissions { id, text } => format!("permit {id} {text:?}"),
    });
    let writes = plan.writes.iter().map(|write| {
        let conditions: Vec<_> =
            write.status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect();
        let reason = write.status.state_reason.as_deref().unwrap_or("-");
        format!("{} {} {}: {reason}", write.session.name_any(), write.status.state.as_str(), conditions.join(" "))
    });
    let releases = plan.releases.iter().map(|session| format!("release {}", session.name_any()));
    host.chain(writes).chain(releases).collect()
}

const READY: &str = "READY Scheduled=True/Bound Ready=True/AcceptingClients Created=True/Created: -";
const REFUSED: &str =
    "CREATING Scheduled=True/Bound Ready=False/Preparing Reconciling=True/Preparing Created=False/Refused:";

fn deleted() -> Value {
    json!({"metadata": {"deletionTimestamp": rfc(-1), "generation": 2}})
}

// --- creating ---

#[test]
fn a_bound_session_is_created_with_everything_the_spec_says() {
    let spec = json!({"metadata": {"annotations": {"dcv-operator.io/traceparent": "00-a-b-01"}},
        "spec": {"displayName": "Work", "initFile": "a.sh", "autorunFile": "b.sh",
        "autorunFileArguments": ["x"], "maxConcurrentClients": 2, "permissions": "# p", "storageRoot": "%home%"}});
    let plan = Setting::new(vec![session("a", &spec)], vec![]).decide();
    let order = Order {
        id: "a".into(),
        marker: marker("a"),
        type_: SessionType::Virtual,
        display_name: "Work".into(),
        owner: "ann".into(),
        init_file: Some("a.sh".into()),
        autorun_file: Some("b.sh".into()),
        autorun_file_arguments: vec!["x".into()],
        max_concurrent_clients: Some(2),
        dcv_gl_enabled: None,
        permissions: Some("# p".into()),
        storage_root: Some("%home%".into()),
        traceparent: Some("00-a-b-01".into()),
    };
    assert_eq!(plan, Plan { host: vec![HostAction::Create(Box::new(order))], ..Plan::default() });
}

#[test]
fn nothing_is_begun_twice() {
    let mut setting = Setting::new(vec![session("a", &json!({}))], vec![]);
    setting.ledger.creating.insert("a".into(), creating("a"));
    assert_eq!(told(&setting.decide()), [""; 0]);
}

fn creating(uid: &str) -> Creating {
    Creating { uid: uid.into(), attempt: 1, owner: "ann".into(), is_virtual: true, cancelled: false }
}

#[test]
fn a_session_that_accepts_clients_is_ready_in_one_whole_status() {
    let bound = session("a", &json!({}));
    let setting = Setting::new(vec![bound.clone()], vec![on_host("a")]);
    let mut expected = bound.status.clone().unwrap();
    expected.state = SessionState::Ready;
    expected.substate = None;
    expected.server = Some(setting.address.clone());
    expected.num_of_connections = Some(0);
    expected.last_transition_time = Some(Time(at(0)));
    expected.conditions.retain(|condition| condition.type_ == "Scheduled");
    let say = |type_, reason| conditions::condition(type_, Some(true), reason, "", at(0), Some(1));
    expected.conditions.push(say(SessionCondition::Ready, Reason::AcceptingClients));
    expected.conditions.push(say(SessionCondition::Created, Reason::Created));
    let write = Write { session: bound, status: expected };
    assert_eq!(setting.decide(), Plan { writes: vec![write], counts: (1, 0), ..Plan::default() });
}

#[test]
fn a_ready_session_is_not_written_again() {
    let setting = Setting::new(vec![ready("a", &json!({}))], vec![on_host("a")]);
    assert_eq!(setting.decide(), Plan { counts: (1, 0), ..Plan::default() });
}

#[test]
fn what_an_earlier_agent_began_is_carried_on() {
    let preparing = HostSession { phase: Phase::Preparing, ..on_host("a") };
    let setting = Setting::new(vec![session("a", &json!({}))], vec![preparing]);
    assert_eq!(told(&setting.decide()), ["create a"]);
}

#[test]
fn what_already_runs_is_reported_and_not_created_whatever_attempt_it_was_made_for() {
    for attempt in [1, 3] {
        let bound = session("a", &json!({"status": {"attempt": attempt}}));
        assert_eq!(told(&Setting::new(vec![bound], vec![on_host("a")]).decide()), [format!("a {READY}")]);
    }
}

#[test]
fn the_hosts_words_of_a_refusal_are_told_once_nothing_is_left() {
    let mut setting = Setting::new(vec![session("a", &json!({}))], vec![]);
    let error = CreateError::Refused("Specified user is not a local user".into());
    setting.ledger.refusals.insert("a".into(), Refusal { attempt: 1, error });
    assert_eq!(told(&setting.decide()), [format!("a {REFUSED} Specified user is not a local user")]);
    setting.host = vec![HostSession { phase: Phase::Preparing, ..on_host("a") }];
    assert_eq!(told(&setting.decide()), ["close a"], "something is left");
}

#[test]
fn an_earlier_attempts_refusal_does_not_stop_this_one() {
    let mut setting = Setting::new(vec![session("a", &json!({"status": {"attempt": 2}}))], vec![]);
    setting.ledger.refusals.insert("a".into(), Refusal { attempt: 1, error: CreateError::Failed("x".into()) });
    assert_eq!(told(&setting.decide()), ["create a"]);
}

#[test]
fn an_attempt_that_was_given_up_never_runs_again() {
    let given_up = json!({"status": {"conditions": [
        {"type": "Created", "status": "False", "reason": "Failed", "message": "", "lastTransitionTime": rfc(-5)}]}});
    let session = session("a", &given_up);
    assert_eq!(told(&Setting::new(vec![session.clone()], vec![]).decide()), [""; 0]);
    assert_eq!(told(&Setting::new(vec![session], vec![on_host("a")]).decide()), ["close a"]);
}

#[test]
fn the_id_of_somebody_elses_session_is_refused_and_the_session_untouched() {
    let foreign = HostSession { marker: None, ..on_host("a") };
    let plan = Setting::new(vec![session("a", &json!({}))], vec![foreign]).decide();
    assert_eq!(told(&plan), [format!("a {REFUSED} the host already runs another session a")]);
    assert_eq!(plan.other_sessions.len(), 1);
}

// --- room ---

fn refusal(setting: &Setting) -> String {
    let told = told(&setting.decide());
    told[0].strip_prefix(&format!("a {REFUSED} ")).unwrap_or(&told[0]).to_owned()
}

#[test]
fn limits_count_what_the_host_really_runs() {
    let mut setting = Setting::new(vec![session("a", &json!({}))], vec![]);
    let by_hand = |owner: &str| HostSession { id: "x".into(), owner: owner.into(), marker: None, ..on_host("x") };
    setting.host = vec![by_hand("bob")];
    setting.capacity.max_virtual_sessions = 1;
    assert_eq!(refusal(&setting), "the host already has 1 virtual sessions, which is its limit");
    setting.host = vec![HostSession { phase: Phase::Ended("x".into()), ..by_hand("bob") }];
    assert_eq!(refusal(&setting), "create a");
    setting.capacity.max_virtual_sessions = -1;
    setting.capacity.max_concurrent_sessions_per_user = 1;
    setting.host = vec![by_hand("bob")];
    assert_eq!(refusal(&setting), "create a");
    setting.host = vec![by_hand("ann")];
    assert_eq!(refusal(&setting), "ann already has 1 sessions on the host, which is the limit of an owner");
    setting.server.spec.limits = Some(Limits { max_concurrent_sessions_per_user: Some(2), ..Limits::default() });
    assert_eq!(refusal(&setting), "create a");
    setting.ledger.creating.insert("y".into(), creating("y"));
    assert_eq!(refusal(&setting), "ann already has 2 sessions on the host, which is the limit of an owner");
}

#[test]
fn sessions_are_admitted_one_by_one_the_oldest_first() {
    let younger = session("a", &json!({"metadata": {"creationTimestamp": rfc(-10)}}));
    let mut setting = Setting::new(vec![younger, session("b", &json!({}))], vec![]);
    setting.capacity.max_virtual_sessions = 1;
    let refused = format!("a {REFUSED} the host already has 1 virtual sessions, which is its limit");
    assert_eq!(told(&setting.decide()), ["create b".to_owned(), refused]);
}

#[test]
fn a_host_has_one_console_session() {
    let console = session("a", &json!({"spec": {"type": "CONSOLE"}}));
    let mut setting = Setting::new(vec![console], vec![]);
    assert_eq!(refusal(&setting), "the server runs no CONSOLE sessions");
    setting.capacity.session_types.push(SessionType::Console);
    assert_eq!(refusal(&setting), "create a");
    setting.host = vec![HostSession { type_: SessionType::Console, marker: None, ..on_host("x") }];
    assert_eq!(refusal(&setting), "the host already has a console session");
}

#[test]
fn what_administrators_changed_since_the_bind_counts() {
    let mut setting = Setting::new(vec![session("a", &json!({}))], vec![]);
    setting.unhealthy = Some("the X server is not installed");
    assert_eq!(refusal(&setting), "the X server is not installed");
    setting.unhealthy = None;
    for placement in [Placement::Closed, Placement::Draining] {
        setting.server.spec.placement = Some(placement);
        assert_eq!(refusal(&setting), "the server is closed");
    }
    setting.server.spec.placement = Some(Placement::Open);
    setting.server.metadata.labels = Some([(names::CORDONED.to_owned(), String::new())].into());
    assert_eq!(refusal(&setting), "the server's Node is cordoned");
    setting.server.metadata.labels = None;
    setting.server.spec.allowed_namespaces =
        Some(serde_json::from_value(json!({"matchLabels": {"team": "render"}})).unwrap());
    let plan = setting.decide();
    assert_eq!((told(&plan).len(), plan.look_again), (0, Some(at(1))), "not known is not a refusal");
    setting.namespaces.insert("team".into(), BTreeMap::new());
    assert_eq!(refusal(&setting), "the server is not for namespace team");
    setting.namespaces.insert("team".into(), [("team".to_owned(), "render".to_owned())].into());
    assert_eq!(refusal(&setting), "create a");
}

#[test]
fn what_no_host_can_run_is_told_apart_from_what_this_one_will_not() {
    let wrong = session("a", &json!({"spec": {"permissions": "[permissions]\nbob allow flying"}}));
    let invalid = "a CREATING Scheduled=True/Bound Ready=False/Preparing Reconciling=True/Preparing Created=False/InvalidSession:";
    let mut setting = Setting::new(vec![wrong], vec![]);
    let reason = "permissions: line 2: unknown feature or alias \"flying\"";
    assert_eq!(told(&setting.decide()), [format!("{invalid} {reason}")]);
    setting.server.spec.placement = Some(Placement::Closed);
    assert_eq!(told(&setting.decide()), [format!("{invalid} {reason}")], "it need not be asked elsewhere");
}

#[test]
fn owners_have_to_match_the_pattern() {
    let mut setting = Setting::new(vec![session("a", &json!({}))], vec![]);
    setting.owner_pattern = Some(Regex::new("^b.*$").unwrap());
    assert_eq!(refusal(&setting), "the server is not for owner ann");
}

// --- running ---

#[test]
fn connections_are_told_when_they_change() {
    let connected = HostSession { num_of_connections: 2, ..on_host("a") };
    let plan = Setting::new(vec![ready("a", &json!({}))], vec![connected]).decide();
    assert_eq!(plan.writes[0].status.num_of_connections, Some(2));
    let fraction = at(-5) + SignedDuration::from_millis(300);
    let left = HostSession { last_disconnection_time: Some(fraction), ..on_host("a") };
    let plan = Setting::new(vec![ready("a", &json!({}))], vec![left]).decide();
    assert_eq!(plan.writes[0].status.last_disconnection_time, Some(Time(at(-5))), "in whole seconds");
}

#[test]
fn a_session_of_an_agent_that_is_back_is_ready_again() {
    let mut unknown = (*ready("a", &json!({}))).clone();
    unknown.status.as_mut().unwrap().state = SessionState::Unknown;
    conditions::set(
        &mut unknown.status.as_mut().unwrap().conditions,
        conditions::condition(SessionCondition::Ready, None, Reason::ServerUnreachable, "", at(-5), Some(1)),
    );
    let told = told(&Setting::new(vec![Arc::new(unknown)], vec![on_host("a")]).decide());
    assert_eq!(told, [format!("a {READY}")]);
}

#[test]
fn the_uid_of_a_server_that_was_made_anew_is_rewritten() {
    let plan =
        Setting::new(vec![ready("a", &json!({"status": {"serverUid": "earlier"}}))], vec![on_host("a")]).decide();
    assert_eq!(plan.writes, [], "being ready already said it");
    let mut stale = (*ready("a", &json!({}))).clone();
    stale.status.as_mut().unwrap().server_uid = Some("earlier".into());
    let plan = Setting::new(vec![Arc::new(stale)], vec![on_host("a")]).decide();
    assert_eq!(plan.writes[0].status.server_uid.as_deref(), Some("server"));
}

#[test]
fn changed_permissions_are_set_and_then_observed() {
    let mut changed = (*ready("a", &json!({}))).clone();
    changed.spec.permissions = Some("new".into());
    changed.metadata.generation = Some(2);
    let changed = Arc::new(changed);
    let mut setting = Setting::new(vec![changed.clone()], vec![on_host("a")]);
    setting.ledger.permissions.insert("a".into(), Permissions { text: None, fault: None });
    assert_eq!(told(&setting.decide()), ["permit a Some(\"new\")"], "nothing is written before they are in force");
    setting.ledger.permitting.insert("a".into());
    assert_eq!(told(&setting.decide()), [""; 0]);
    setting.ledger.permitting.clear();
    setting.ledger.permissions.insert("a".into(), Permissions { text: Some("new".into()), fault: None });
    assert_eq!(setting.decide().writes[0].status.observed_generation, Some(2));
    let fault = Some(("line 1: unknown feature".into(), at(30)));
    setting.ledger.permissions.insert("a".into(), Permissions { text: Some("new".into()), fault });
    let plan = setting.decide();
    let reason = plan.writes[0].status.state_reason.as_deref();
    assert_eq!(reason, Some("the permissions are not in force: line 1: unknown feature"));
    assert_eq!(plan.look_again, Some(at(30)));
}

#[test]
fn an_agent_that_was_restarted_sets_the_permissions_once() {
    let mut setting = Setting::new(vec![ready("a", &json!({}))], vec![on_host("a")]);
    setting.ledger.permissions.clear();
    assert_eq!(told(&setting.decide()), ["permit a None"]);
}
