//! Each rule of the agent, as one pass over a small world.

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::agent::ledger::Closing;
use crate::agent::ledger::Creating;
use crate::agent::ledger::Permissions;
use crate::agent::ledger::Refusal;
use crate::agent::mock;
use crate::api::server::Limits;
use crate::api::server::SessionOrigin;
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
    let spec = json!({"spec": {"displayName": "Work", "initFile": "a.sh", "autorunFile": "b.sh",
        "autorunFileArguments": ["x"], "maxConcurrentClients": 2, "permissions": "p", "storageRoot": "%home%"}});
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
        permissions: Some("p".into()),
        storage_root: Some("%home%".into()),
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
fn owners_have_to_be_names_and_match_the_pattern() {
    let mut setting = Setting::new(vec![session("a", &json!({"spec": {"owner": "-x"}}))], vec![]);
    assert_eq!(refusal(&setting), "the owner is not the name of an account");
    setting.sessions = vec![session("a", &json!({}))];
    setting.owner_pattern = Some(Regex::new("^b.*$").unwrap());
    assert_eq!(refusal(&setting), "the server is not for owner ann");
}

// --- closing ---

#[test]
fn a_deleted_session_is_closed_and_then_let_go() {
    let doomed = ready("a", &deleted());
    assert_eq!(told(&Setting::new(vec![doomed.clone()], vec![on_host("a")]).decide()), ["close a"]);
    assert_eq!(told(&Setting::new(vec![doomed], vec![]).decide()), ["release a"]);
    let mut freed = deleted();
    merge(&mut freed, &json!({"metadata": {"finalizers": ["other"]}}));
    assert_eq!(told(&Setting::new(vec![ready("a", &freed)], vec![]).decide()), [""; 0]);
}

#[test]
fn a_session_to_be_closed_is_closed_and_then_finished() {
    for desired in ["Closed", "ForceClosed"] {
        let closing = ready("a", &json!({"spec": {"desiredState": desired}}));
        assert_eq!(told(&Setting::new(vec![closing.clone()], vec![on_host("a")]).decide()), ["close a"]);
        let plan = Setting::new(vec![closing], vec![]).decide();
        assert_eq!(told(&plan), ["a DELETED Scheduled=True/Bound Created=True/Created Finished=True/Closed: -"]);
        assert_eq!(plan.writes[0].status.completion_time, Some(Time(at(0))));
    }
}

#[test]
fn a_create_is_cut_short_when_its_session_is_deleted() {
    let mut setting = Setting::new(vec![session("a", &deleted())], vec![]);
    setting.ledger.creating.insert("a".into(), creating("a"));
    assert_eq!(told(&setting.decide()), ["close a"]);
    setting.ledger.creating.insert("a".into(), Creating { cancelled: true, ..creating("a") });
    assert_eq!(told(&setting.decide()), [""; 0], "once");
}

fn closing(running: bool, since: i64, not_before: i64) -> Closing {
    Closing { since: at(since), running, failures: 1, message: "busy".into(), not_before: at(not_before) }
}

#[test]
fn deleting_is_told_only_when_it_takes_over_two_seconds() {
    let mut setting = Setting::new(vec![ready("a", &deleted())], vec![on_host("a")]);
    assert_eq!(setting.decide().look_again, Some(at(3)), "as soon as it begins");
    setting.ledger.closing.insert("a".into(), closing(true, -1, 0));
    let plan = setting.decide();
    assert_eq!((told(&plan).len(), plan.look_again), (0, Some(at(2))));
    setting.ledger.closing.insert("a".into(), closing(true, -3, 0));
    let deleting =
        "a DELETING Scheduled=True/Bound Ready=False/Closing Created=True/Created Reconciling=True/Closing: busy";
    assert_eq!(told(&setting.decide()), [deleting]);
}

#[test]
fn a_close_that_failed_is_tried_again_and_nothing_is_let_go_before() {
    let mut setting = Setting::new(vec![ready("a", &deleted())], vec![]);
    setting.ledger.closing.insert("a".into(), closing(false, -1, 1));
    let plan = setting.decide();
    assert_eq!((told(&plan).len(), plan.look_again), (0, Some(at(1))));
    setting.ledger.closing.insert("a".into(), closing(false, -1, 0));
    assert_eq!(told(&setting.decide()), ["close a"]);
}

#[test]
fn a_close_is_carried_through_although_its_object_is_gone() {
    let mut setting = Setting::default();
    setting.ledger.closing.insert("a".into(), closing(false, -1, 0));
    assert_eq!(told(&setting.decide()), ["close a"]);
}

#[test]
fn a_session_finished_while_we_were_away_loses_its_desktop_and_then_its_finalizer() {
    let finished = json!({"metadata": {"deletionTimestamp": rfc(-1)}, "status": {"state": "DELETED", "conditions": [
        {"type": "Finished", "status": "True", "reason": "ForceClosed", "message": "", "lastTransitionTime": rfc(-5)}]}});
    let finished = session("a", &finished);
    assert_eq!(told(&Setting::new(vec![finished.clone()], vec![on_host("a")]).decide()), ["close a"]);
    assert_eq!(told(&Setting::new(vec![finished], vec![]).decide()), ["release a"]);
}

// --- ending by itself ---

fn ended(reason: &str) -> HostSession {
    HostSession { phase: Phase::Ended(reason.into()), ..on_host("a") }
}

#[test]
fn a_session_that_ended_by_itself_is_finished_with_the_hosts_words() {
    let told = told(&Setting::new(vec![ready("a", &json!({}))], vec![ended("the init script ended")]).decide());
    let finished = "a DELETED Scheduled=True/Bound Created=True/Created Finished=True/EndedOnHost:";
    assert_eq!(told, [format!("{finished} the init script ended")]);
    let told = super::tests::told(&Setting::new(vec![ready("a", &json!({}))], vec![]).decide());
    assert_eq!(told, [format!("{finished} the session is no longer on the host")]);
}

#[test]
fn a_session_that_is_always_restarted_is_given_back() {
    let always = ready("a", &json!({"spec": {"restartPolicy": "Always"}}));
    assert_eq!(
        told(&Setting::new(vec![always], vec![ended("crashed")]).decide()),
        ["a READY Scheduled=True/Bound Ready=False/Ended Created=False/Ended Reconciling=True/Ended: crashed"]
    );
}

#[test]
fn what_ended_of_an_earlier_attempt_makes_way_for_this_one() {
    let second = session("a", &json!({"status": {"attempt": 2}}));
    assert_eq!(told(&Setting::new(vec![second], vec![ended("crashed")]).decide()), ["close a"]);
}

#[test]
fn a_restart_of_the_host_is_proof_that_its_sessions_are_lost() {
    let restarted = |policy: &str| {
        let session = ready("a", &json!({"spec": {"restartPolicy": policy}}));
        let plan = Setting { boot_id: "another", ..Setting::new(vec![session], vec![]) }.decide();
        assert!(plan.is_unsettled, "the earlier boot id is kept until it is told");
        told(&plan).remove(0)
    };
    let reason = "the host was restarted";
    let finished = "a DELETED Scheduled=True/Bound Created=True/Created Finished=True/ServerLost";
    assert_eq!(restarted("Never"), format!("{finished}: {reason}"));
    let given_back =
        "a READY Scheduled=True/Bound Ready=False/ServerLost Created=False/ServerLost Reconciling=True/ServerLost";
    for policy in ["OnServerLoss", "OnUnreachable", "Always"] {
        assert_eq!(restarted(policy), format!("{given_back}: {reason}"));
    }
    let waiting = Setting { boot_id: "another", ..Setting::new(vec![session("a", &json!({}))], vec![]) };
    assert_eq!(told(&waiting.decide()), ["create a"], "what had not begun begins");
}

// --- limits of time ---

#[test]
fn a_session_ends_at_its_longest_duration() {
    // Ready since 800 seconds.
    let session = |seconds: i32| ready("a", &json!({"spec": {"maxDurationSeconds": seconds}}));
    let plan = Setting::new(vec![session(900)], vec![on_host("a")]).decide();
    assert_eq!((told(&plan).len(), plan.look_again), (0, Some(at(100))));
    assert_eq!(told(&Setting::new(vec![session(800)], vec![on_host("a")]).decide()), ["close a"]);
    assert_eq!(
        told(&Setting::new(vec![session(800)], vec![]).decide()),
        ["a DELETED Scheduled=True/Bound Created=True/Created Finished=True/Expired: \
          the session was closed: it reached its longest duration"]
    );
}

#[test]
fn a_session_ends_when_nobody_was_connected_for_its_longest_time() {
    let session = || {
        ready("a", &json!({"spec": {"disconnectTimeoutSeconds": 60}, "status": {"lastDisconnectionTime": rfc(-60)}}))
    };
    let left = |second, connections| HostSession {
        last_disconnection_time: Some(at(second)),
        num_of_connections: connections,
        ..on_host("a")
    };
    assert_eq!(told(&Setting::new(vec![session()], vec![left(-60, 0)]).decide()), ["close a"]);
    let plan = Setting::new(vec![session()], vec![left(-59, 0)]).decide();
    assert_eq!(plan.look_again, Some(at(1)));
    let plan = Setting::new(vec![session()], vec![left(-60, 1)]).decide();
    assert_eq!(plan.host, [], "somebody is connected");
    let never = ready("a", &json!({"spec": {"disconnectTimeoutSeconds": 60}}));
    let plan = Setting::new(vec![never], vec![on_host("a")]).decide();
    assert_eq!((told(&plan).len(), plan.look_again), (0, None), "nobody ever was");
}

#[test]
fn a_draining_server_ends_its_sessions_after_the_grace() {
    let mut setting = Setting::new(vec![ready("a", &json!({}))], vec![on_host("a")]);
    setting.server.spec.placement = Some(Placement::Draining);
    assert_eq!(told(&setting.decide()), [""; 0], "without a grace never");
    setting.server.spec.drain_grace_seconds = Some(60);
    assert_eq!(setting.decide().look_again, Some(at(60)), "from now, as nobody has noted the start");
    let since = |second| {
        conditions::condition(ServerCondition::Draining, Some(true), Reason::DrainRequested, "", at(second), None)
    };
    setting.server.status.as_mut().unwrap().conditions = vec![since(-60)];
    assert_eq!(told(&setting.decide()), ["close a"]);
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

// --- other sessions ---

fn others(plan: &Plan) -> Vec<(String, SessionOrigin)> {
    plan.other_sessions.iter().map(|other| (other.id.clone(), other.origin)).collect()
}

#[test]
fn sessions_without_an_object_are_listed_counted_and_kept() {
    let host = vec![HostSession { marker: None, ..on_host("hand") }, on_host("gone"), on_host("waiting")];
    let strangers = [("gone".into(), Stranger::Gone), ("waiting".into(), Stranger::Waiting)].into();
    let setting = Setting { host, strangers, ..Setting::default() };
    let plan = setting.decide();
    assert_eq!(told(&plan), [""; 0]);
    assert_eq!(plan.counts, (3, 0));
    assert_eq!(
        others(&plan),
        [
            ("hand".to_owned(), SessionOrigin::Manual),
            ("gone".to_owned(), SessionOrigin::Unclaimed),
            ("waiting".to_owned(), SessionOrigin::Unclaimed)
        ]
    );
    assert_eq!(plan.other_sessions[1].session_name.as_deref(), Some("gone"));
}

#[test]
fn what_is_not_known_is_neither_listed_nor_closed() {
    let setting = Setting { host: vec![on_host("a")], ..Setting::default() };
    assert_eq!(setting.decide(), Plan { counts: (1, 0), ..Plan::default() });
}

#[test]
fn an_instance_whose_object_went_elsewhere_is_closed() {
    let strangers = [("a".into(), Stranger::Elsewhere)].into();
    let setting = Setting { host: vec![on_host("a")], strangers, ..Setting::default() };
    assert_eq!(told(&setting.decide()), ["close a"]);
}

/// An object can be gone although it was bound: a delete that was begun before the finalizer was there.
#[test]
fn a_desktop_goes_with_an_object_that_its_finalizer_came_too_late_for() {
    let unannounced = || HostSession { announced: false, ..on_host("a") };
    let alone = |instance, stranger| Setting {
        host: vec![instance],
        strangers: [("a".into(), stranger)].into(),
        ..Setting::default()
    };
    assert_eq!(told(&alone(unannounced(), Stranger::Gone).decide()), ["close a"]);
    let preparing = HostSession { phase: Phase::Preparing, ..unannounced() };
    assert_eq!(told(&alone(preparing, Stranger::Gone).decide()), ["close a"]);
    let mut seen = alone(on_host("a"), Stranger::Gone);
    seen.ledger.torn_off.insert("a".into());
    assert_eq!(told(&seen.decide()), ["close a"], "it was seen to vanish so");

    for stranger in [Stranger::Waiting, Stranger::Ours] {
        assert_eq!(told(&alone(unannounced(), stranger).decide()), [""; 0], "{stranger:?}");
    }
    let mut elsewhere = alone(unannounced(), Stranger::Gone);
    elsewhere.host[0].marker.as_mut().unwrap().cluster_uid = "another".into();
    let used = HostSession { num_of_connections: 1, ..unannounced() };
    let was_used = HostSession { last_disconnection_time: Some(at(-1)), ..unannounced() };
    for kept in [elsewhere, alone(used, Stranger::Gone), alone(was_used, Stranger::Gone)] {
        let plan = kept.decide();
        assert_eq!((told(&plan), others(&plan)), (vec![], vec![("a".to_owned(), SessionOrigin::Unclaimed)]));
    }
}

#[test]
fn only_an_object_with_our_finalizer_that_nobody_marked_for_deletion_was_torn_off() {
    assert!(was_torn_off(&session("a", &json!({}))));
    assert!(!was_torn_off(&session("a", &json!({"metadata": {"finalizers": []}}))));
    assert!(!was_torn_off(&session("a", &deleted())));
}

#[test]
fn once_people_know_of_a_desktop_the_host_notes_that() {
    let decide = |announced, object, ledger| {
        let setting = Setting::new(vec![object], vec![HostSession { announced, ..on_host("a") }]);
        told(
            &Setting { ledger: Ledger { permissions: setting.ledger.permissions.clone(), ..ledger }, ..setting }
                .decide(),
        )
    };
    let announcing = |state| Ledger { announcing: [("a".to_owned(), state)].into(), ..Ledger::default() };
    assert_eq!(decide(false, session("a", &json!({})), Ledger::default()).len(), 1, "it is only written");
    let known = || ready("a", &json!({}));
    assert_eq!(decide(false, known(), Ledger::default()), ["announce a"]);
    assert_eq!(decide(true, known(), Ledger::default()), [""; 0]);
    assert_eq!(decide(false, known(), announcing(None)), [""; 0], "it is under way");
    assert_eq!(decide(false, known(), announcing(Some(at(1)))), [""; 0], "not before its time");
    assert_eq!(decide(false, known(), announcing(Some(at(0)))), ["announce a"]);
}

#[test]
fn administrators_end_other_sessions_and_no_bound_ones() {
    let mut setting = Setting::new(vec![ready("a", &json!({}))], vec![on_host("a")]);
    setting.host.push(HostSession { marker: None, ..on_host("hand") });
    setting.server.spec.end_sessions = vec!["hand".into(), "a".into(), "nowhere".into()];
    assert_eq!(told(&setting.decide()), ["close hand"]);
}

#[test]
fn an_object_that_is_looked_up_says_what_becomes_of_its_instance() {
    let bound = |server: Value| session("a", &json!({"status": {"serverName": server}}));
    let ask = |object: Option<&DcvSession>, uid| stranger(object, uid, "host-1");
    assert_eq!(ask(None, "a"), Stranger::Gone);
    assert_eq!(ask(Some(&bound(json!("host-2"))), "another-uid"), Stranger::Gone);
    assert_eq!(ask(Some(&bound(json!("host-2"))), "a"), Stranger::Elsewhere);
    assert_eq!(ask(Some(&bound(json!("host-1"))), "a"), Stranger::Ours);
    assert_eq!(ask(Some(&bound(Value::Null)), "a"), Stranger::Waiting);
    let mut unwanted = deleted();
    merge(&mut unwanted, &json!({"status": {"serverName": null}}));
    assert_eq!(ask(Some(&session("a", &unwanted)), "a"), Stranger::Elsewhere);
}

// --- taking over ---

fn adopting(changes: &Value) -> Arc<DcvSession> {
    let mut adopt =
        json!({"spec": {"adopt": {"serverName": "host-1", "sessionId": "hand"}}, "status": {"sessionId": "hand"}});
    merge(&mut adopt, changes);
    session("a", &adopt)
}

#[test]
fn a_session_started_by_hand_is_taken_over_as_it_is() {
    let by_hand = HostSession { marker: None, ..on_host("hand") };
    let mut setting = Setting::new(vec![adopting(&json!({}))], vec![by_hand]);
    setting.ledger.permissions.clear();
    let plan = setting.decide();
    assert_eq!(told(&plan), [format!("a {READY}")]);
    assert_eq!(plan.other_sessions, []);
}

#[test]
fn only_a_running_session_of_the_same_owner_kind_and_namespace_is_taken_over() {
    let by_hand = || HostSession { marker: None, ..on_host("hand") };
    let elsewhere = Marker { namespace: "other".into(), ..marker("other") };
    let cases = [
        (vec![], "session hand is not on the host"),
        (vec![HostSession { owner: "bob".into(), ..by_hand() }], "session hand belongs to another owner"),
        (vec![HostSession { type_: SessionType::Console, ..by_hand() }], "session hand is a CONSOLE session"),
        (vec![HostSession { phase: Phase::Ended("x".into()), ..by_hand() }], "session hand does not accept clients"),
        (vec![HostSession { marker: Some(elsewhere), ..by_hand() }], "session hand was made for namespace other"),
    ];
    for (host, reason) in cases {
        let mut setting = Setting::new(vec![adopting(&json!({}))], host);
        setting.strangers.insert("other".into(), Stranger::Gone);
        assert_eq!(told(&setting.decide()), [format!("a {REFUSED} {reason}")]);
    }
}

#[test]
fn a_session_is_not_closed_for_an_object_that_never_took_it_over() {
    let by_hand = HostSession { marker: None, ..on_host("hand") };
    let setting = Setting::new(vec![adopting(&deleted())], vec![by_hand]);
    assert_eq!(told(&setting.decide()), ["release a"]);
}
