#![expect(clippy::too_many_lines, clippy::type_complexity, reason = "tables read best as they are")]

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use serde_json::json;

use super::decide::Host;
use super::decide::Plan;
use super::decide::Step;
use super::decide::World;
use super::decide::decide;
use super::draft::Draft;
use super::*;
use crate::api::DcvSessionStatus;
use crate::api::conditions::Reason;
use crate::api::names::SESSION_FINALIZER;
use crate::api::session::SessionState;
use crate::api::session::SessionSubstate;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn world(host: Host) -> World {
    World { host, now: at(1000), retries: 2, delete_timeout: SignedDuration::from_mins(10) }
}

fn silent(since: i64, judged: bool) -> Host {
    Host::Unreachable { since: at(since), judged }
}

/// A session as the API server makes it, changed by `spec` and `metadata`.
fn new(spec: &Value, metadata: &Value) -> DcvSession {
    let mut all = json!({"owner": "ann", "type": "VIRTUAL"});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut meta = json!({
        "name": "s", "namespace": "team", "uid": "u", "generation": 1, "creationTimestamp": at(0),
        "finalizers": [SESSION_FINALIZER],
    });
    meta.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": meta, "spec": all,
        "status": crate::api::schema::session_status_default(),
    }))
    .unwrap()
}

fn with(mut session: DcvSession, status: DcvSessionStatus) -> DcvSession {
    session.status = Some(status);
    session
}

/// Bound to `host-1` by us.
fn bound(spec: &Value, metadata: &Value) -> DcvSession {
    let session = new(spec, metadata);
    let status = Draft::of(&session, at(10)).bound("host-1", "uid-1", None);
    with(session, status)
}

fn set(session: &mut DcvSession, type_: &str, status: &str, reason: &str, message: &str) {
    let conditions = &mut session.status.as_mut().unwrap().conditions;
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: Time(at(20)),
        observed_generation: Some(1),
    });
}

/// As its agent left it.
fn ready(spec: &Value, metadata: &Value) -> DcvSession {
    let mut session = bound(spec, metadata);
    set(&mut session, "Created", "True", "Created", "");
    set(&mut session, "Ready", "True", "AcceptingClients", "");
    let status = session.status.as_mut().unwrap();
    status.conditions.retain(|condition| condition.type_ != "Reconciling");
    status.state = SessionState::Ready;
    status.substate = None;
    session
}

/// As its agent gave it up.
fn gave_up(reason: &str, spec: &Value, metadata: &Value) -> DcvSession {
    let mut session = bound(spec, metadata);
    set(&mut session, "Created", "False", reason, "Specified user is not a local user");
    session
}

/// What kstatus makes of an object: the rules of `sigs.k8s.io/cli-utils/pkg/kstatus`.
fn kstatus(session: &DcvSession) -> &'static str {
    if session.metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    let status = session.status.as_ref().unwrap();
    if status.observed_generation.is_some() && status.observed_generation != session.metadata.generation {
        return "InProgress";
    }
    let is = |type_: &str, value: &str| status.conditions.iter().any(|it| it.type_ == type_ && it.status == value);
    match () {
        () if is("Reconciling", "True") => "InProgress",
        () if is("Stalled", "True") => "Failed",
        () if is("Ready", "False") || is("Ready", "Unknown") => "InProgress",
        () => "Current",
    }
}

/// State, substate, conditions as `Type=Status/Reason` in the order of their types, and kstatus.
fn shape(session: &DcvSession) -> (SessionState, Option<SessionSubstate>, Vec<String>, &'static str) {
    let status = session.status.as_ref().unwrap();
    let mut conditions: Vec<String> =
        status.conditions.iter().map(|it| format!("{}={}/{}", it.type_, it.status, it.reason)).collect();
    conditions.sort();
    (status.state, status.substate, conditions, kstatus(session))
}

fn after(session: &DcvSession, world: &World) -> DcvSession {
    match decide(session, world).step {
        Step::Status(status) | Step::Unknown(status) => with(session.clone(), *status),
        step => panic!("a status was expected, not {step:?}"),
    }
}

#[test]
fn each_situation_has_its_state_its_conditions_and_its_kstatus() {
    let none = json!({});
    let placing = Some(SessionSubstate::SessionPlacing);
    let preparing = Some(SessionSubstate::PendingPreparation);
    let (creating, deleted, unknown) = (SessionState::Creating, SessionState::Deleted, SessionState::Unknown);
    let alive = world(Host::Alive);
    let dead = world(Host::Dead("its Node was deleted"));
    let gone = world(silent(900, true));
    let waiting = |session: DcvSession| {
        let status = Draft::of(&session, at(10)).waiting("0 of 1 servers fit: 1 full");
        with(session, status)
    };
    let failed = |reason, session: DcvSession| {
        let status = Draft::of(&session, at(10)).failed(reason, "text");
        with(session, status)
    };
    let restart = json!({"restartPolicy": "Always"});
    let closed = json!({"desiredState": "Closed"});
    let forced = json!({"desiredState": "ForceClosed"});
    let given_back = ["Ready=False/WaitingForServer", "Reconciling=True/Retrying", "Scheduled=False/Retrying"];
    let exhausted = gave_up("Failed", &json!({"disableRetryOnFailure": true}), &none);
    let cases: Vec<(&str, DcvSession, SessionState, Option<SessionSubstate>, &[&str], &str)> = vec![
        (
            "new",
            new(&none, &none),
            creating,
            placing,
            &["Ready=Unknown/Pending", "Reconciling=True/Pending"],
            "InProgress",
        ),
        (
            "waiting",
            waiting(new(&none, &none)),
            creating,
            placing,
            &["Ready=False/WaitingForServer", "Reconciling=True/WaitingForServer", "Scheduled=False/NoServerFits"],
            "InProgress",
        ),
        (
            "bound",
            bound(&none, &none),
            creating,
            preparing,
            &["Ready=False/Preparing", "Reconciling=True/Preparing", "Scheduled=True/Bound"],
            "InProgress",
        ),
        (
            "ready",
            ready(&none, &none),
            SessionState::Ready,
            None,
            &["Created=True/Created", "Ready=True/AcceptingClients", "Scheduled=True/Bound"],
            "Current",
        ),
        ("refused", after(&gave_up("Refused", &none, &none), &alive), creating, placing, &given_back, "InProgress"),
        (
            "failed on the host",
            after(&gave_up("Failed", &none, &none), &alive),
            creating,
            placing,
            &given_back,
            "InProgress",
        ),
        (
            "ended, run again",
            after(&gave_up("Ended", &restart, &none), &alive),
            creating,
            placing,
            &given_back,
            "InProgress",
        ),
        (
            "lost by a reboot, run again",
            after(&gave_up("ServerLost", &restart, &none), &alive),
            creating,
            placing,
            &given_back,
            "InProgress",
        ),
        ("server dead, run again", after(&ready(&restart, &none), &dead), creating, placing, &given_back, "InProgress"),
        (
            "server silent, two instances accepted",
            after(&ready(&json!({"restartPolicy": "OnUnreachable"}), &none), &gone),
            creating,
            placing,
            &given_back,
            "InProgress",
        ),
        (
            "retries used up",
            after(&exhausted, &alive),
            unknown,
            None,
            &["Created=False/Failed", "Finished=True/Failed", "Scheduled=True/Bound", "Stalled=True/RetriesExhausted"],
            "Failed",
        ),
        (
            "wrong on every host",
            after(&gave_up("InvalidSession", &none, &none), &alive),
            unknown,
            None,
            &[
                "Created=False/InvalidSession",
                "Finished=True/Failed",
                "Scheduled=True/Bound",
                "Stalled=True/InvalidSession",
            ],
            "Failed",
        ),
        (
            "queue time over",
            failed(Reason::QueueTimeout, waiting(new(&none, &none))),
            unknown,
            None,
            &["Finished=True/Failed", "Scheduled=False/NoServerFits", "Stalled=True/QueueTimeout"],
            "Failed",
        ),
        (
            "nothing fits and not enqueued",
            failed(Reason::NoServerFits, new(&none, &none)),
            unknown,
            None,
            &["Finished=True/Failed", "Scheduled=False/NoServerFits", "Stalled=True/NoServerFits"],
            "Failed",
        ),
        (
            "requirement not understood",
            failed(Reason::InvalidRequirements, new(&none, &none)),
            unknown,
            None,
            &["Finished=True/Failed", "Stalled=True/InvalidRequirements"],
            "Failed",
        ),
        (
            "server unreachable",
            after(&ready(&none, &none), &gone),
            unknown,
            None,
            &[
                "Created=True/Created",
                "Ready=Unknown/ServerUnreachable",
                "Reconciling=True/ServerUnreachable",
                "Scheduled=True/Bound",
            ],
            "InProgress",
        ),
        (
            "server dead",
            after(&ready(&none, &none), &dead),
            deleted,
            None,
            &["Created=True/Created", "Finished=True/ServerLost", "Scheduled=True/Bound"],
            "Current",
        ),
        (
            "lost by a reboot",
            after(&gave_up("ServerLost", &none, &none), &alive),
            deleted,
            None,
            &["Created=False/ServerLost", "Finished=True/ServerLost", "Scheduled=True/Bound"],
            "Current",
        ),
        (
            "ended on the host",
            after(&gave_up("Ended", &none, &none), &alive),
            deleted,
            None,
            &["Created=False/Ended", "Finished=True/EndedOnHost", "Scheduled=True/Bound"],
            "Current",
        ),
        (
            "closed before it had a server",
            after(&new(&closed, &none), &alive),
            deleted,
            None,
            &["Finished=True/Closed"],
            "Current",
        ),
        (
            "closed while it was given up",
            after(&gave_up("Failed", &closed, &none), &alive),
            deleted,
            None,
            &["Created=False/Failed", "Finished=True/Closed", "Scheduled=True/Bound"],
            "Current",
        ),
        (
            "closed by force on a silent server",
            after(&ready(&forced, &none), &world(silent(950, false))),
            deleted,
            None,
            &["Created=True/Created", "Finished=True/ForceClosed", "Scheduled=True/Bound"],
            "Current",
        ),
        (
            "closing on a silent server",
            after(&ready(&closed, &none), &gone),
            unknown,
            None,
            &[
                "Created=True/Created",
                "Ready=Unknown/ServerUnreachable",
                "Reconciling=True/ServerUnreachable",
                "Scheduled=True/Bound",
            ],
            "InProgress",
        ),
    ];
    for (case, session, state, substate, conditions, kstatus) in cases {
        let expected = (state, substate, conditions.iter().map(|it| (*it).to_owned()).collect(), kstatus);
        assert_eq!(shape(&session), expected, "{case}");
        let status = session.status.as_ref().unwrap();
        assert!(status.conditions.iter().all(|it| it.status == "True" || !it.type_.starts_with("Rec")), "{case}");
        if case != "new" {
            assert_eq!(status.observed_generation, Some(1), "{case}");
            assert_ne!(status.last_transition_time, Some(Time(Timestamp::UNIX_EPOCH)), "{case}");
        }
        assert_eq!(status.completion_time.is_some(), session.is_finished(), "{case}");
    }
}

#[test]
fn the_whole_status_of_a_bind() {
    let mut expected = DcvSessionStatus {
        state: SessionState::Creating,
        substate: Some(SessionSubstate::PendingPreparation),
        observed_generation: Some(1),
        last_transition_time: Some(Time(at(10))),
        server_name: Some("host-1".into()),
        server_uid: Some("uid-1".into()),
        session_id: Some("u".into()),
        attempt: Some(1),
        ..DcvSessionStatus::default()
    };
    for (type_, status, reason) in
        [("Ready", "False", "Preparing"), ("Reconciling", "True", "Preparing"), ("Scheduled", "True", "Bound")]
    {
        expected.conditions.push(Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: "bound to server host-1".into(),
            last_transition_time: Time(at(10)),
            observed_generation: Some(1),
        });
    }
    assert_eq!(bound(&json!({}), &json!({})).status, Some(expected));
}

#[test]
fn what_is_given_back_keeps_who_failed_and_loses_everything_of_the_bind() {
    let session = after(&gave_up("Refused", &json!({}), &json!({})), &world(Host::Alive));
    let status = session.status.clone().unwrap();
    assert_eq!((status.attempt, status.retries), (Some(1), Some(1)));
    assert_eq!((status.server_name, status.server_uid, status.session_id, status.server), (None, None, None, None));
    let [attempt] = &status.attempts[..] else { panic!("one attempt") };
    assert_eq!(
        (attempt.server_name.as_str(), attempt.reason.as_str(), attempt.time.0),
        ("host-1", "Refused", at(1000))
    );
    let text = "server host-1 refused the session: Specified user is not a local user; trying again (1 of 2)";
    assert_eq!(status.state_reason.as_deref(), Some(text));

    let lost = after(&gave_up("Ended", &json!({"restartPolicy": "Always"}), &json!({})), &world(Host::Alive));
    assert_eq!(lost.status.unwrap().retries, None, "running again is not a retry");
    let status = Draft::of(&session, at(2000)).given_back(Reason::Ended, "w", false, "t");
    assert_eq!(status.retries, None, "and once it has run, it may be retried as often as a new one");
}

#[test]
fn retries_end_with_the_hosts_words_and_the_last_five_attempts() {
    let mut session = new(&json!({}), &json!({}));
    for round in 0..3 {
        let status = Draft::of(&session, at(round)).bound(&format!("host-{round}"), "uid", None);
        session = with(session, status);
        set(&mut session, "Created", "False", "Failed", "Specified user is not a local user");
        session = after(&session, &world(Host::Alive));
    }
    let status = session.status.clone().unwrap();
    assert!(session.is_finished());
    assert_eq!(status.state_reason.as_deref(), Some("Specified user is not a local user (after 2 retries)"));
    assert_eq!(status.attempts.len(), 3);
    assert_eq!((status.attempt, status.server_name), (Some(3), None));
    for round in 0..9 {
        let status = Draft::of(&session, at(round)).given_back(Reason::Ended, "w", false, "t");
        session = with(session, status);
    }
    assert_eq!(session.status.unwrap().attempts.len(), 5);
}

#[test]
fn deciding_twice_changes_nothing() {
    let none = json!({});
    for session in [
        after(&ready(&none, &none), &world(silent(900, true))),
        after(&gave_up("Refused", &none, &none), &world(Host::Alive)),
        after(&ready(&none, &none), &world(Host::Dead("proof"))),
        after(&new(&json!({"desiredState": "Closed"}), &none), &world(Host::Alive)),
        ready(&none, &none),
        bound(&none, &none),
        new(&none, &none),
    ] {
        let host = if session.status.as_ref().unwrap().state == SessionState::Unknown {
            silent(900, true)
        } else {
            Host::Alive
        };
        assert_eq!(decide(&session, &world(host)).step, Step::Nothing, "{:?}", shape(&session));
    }
    assert_eq!(decide(&ready(&none, &none), &world(silent(950, false))).step, Step::Nothing, "not before its time");
}

#[test]
fn only_what_went_wrong_is_told() {
    let none = json!({});
    let restart = json!({"restartPolicy": "OnServerLoss"});
    let dead = || Host::Dead("its Node was deleted");
    let cases = [
        ("refused", gave_up("Refused", &none, &none), Host::Alive, Some(("CreateSession", Reason::Refused))),
        ("failed", gave_up("Failed", &none, &none), Host::Alive, Some(("CreateSession", Reason::Failed))),
        (
            "for good",
            gave_up("Failed", &json!({"disableRetryOnFailure": true}), &none),
            Host::Alive,
            Some(("CreateSession", Reason::RetriesExhausted)),
        ),
        (
            "wrong on every host",
            gave_up("InvalidSession", &none, &none),
            Host::Alive,
            Some(("CreateSession", Reason::InvalidSession)),
        ),
        ("lost", ready(&none, &none), dead(), Some(("RunSession", Reason::ServerLost))),
        ("lost and placed again", ready(&restart, &none), dead(), Some(("RunSession", Reason::ServerLost))),
        ("ended", gave_up("Ended", &none, &none), Host::Alive, None),
        ("unreachable", ready(&none, &none), silent(900, true), None),
        ("closed", new(&json!({"desiredState": "Closed"}), &none), Host::Alive, None),
    ];
    for (case, session, host, expected) in cases {
        let notice = decide(&session, &world(host)).notice;
        assert_eq!(notice.map(|it| (it.action, it.reason)), expected, "{case}");
    }
}

#[test]
fn a_deleted_session_is_let_go_by_us_only_where_no_host_can_hold_it() {
    let none = json!({});
    let deleting = json!({"deletionTimestamp": at(900)});
    let finished = |mut session: DcvSession, reason: &str| {
        set(&mut session, "Finished", "True", reason, "");
        session
    };
    let later = |seconds: u64| Plan {
        step: Step::Nothing,
        notice: None,
        requeue_after: Some(std::time::Duration::from_secs(seconds)),
    };
    let nothing = Plan { step: Step::Nothing, notice: None, requeue_after: None };
    let release = || Plan { step: Step::RemoveFinalizer, notice: None, requeue_after: None };
    let dead = || Host::Dead("proof");
    let cases = [
        ("unbound", new(&none, &deleting), Host::Alive, release()),
        (
            "without our finalizer",
            new(&none, &json!({"deletionTimestamp": at(900), "finalizers": []})),
            Host::Alive,
            nothing,
        ),
        (
            "bound",
            ready(&none, &deleting),
            Host::Alive,
            Plan { step: Step::Nothing, notice: None, requeue_after: None },
        ),
        ("finished", finished(ready(&none, &deleting), "Closed"), Host::Alive, release()),
        ("host dead", ready(&none, &deleting), dead(), release()),
        ("given up by an agent that is now silent", gave_up("Failed", &none, &deleting), silent(900, true), release()),
        ("silent", ready(&none, &deleting), silent(800, true), later(500)),
        ("silent since the delete", ready(&none, &deleting), silent(950, true), later(550)),
        ("forced, and silent", finished(ready(&none, &deleting), "ForceClosed"), silent(800, true), later(500)),
        (
            "forced, agent back",
            finished(ready(&none, &deleting), "ForceClosed"),
            Host::Alive,
            Plan { step: Step::Nothing, notice: None, requeue_after: None },
        ),
    ];
    for (case, session, host, expected) in cases {
        assert_eq!(decide(&session, &world(host)), expected, "{case}");
    }
    let over = World { now: at(1500), ..world(silent(800, true)) };
    let plan = decide(&ready(&none, &deleting), &over);
    assert_eq!(plan.step, Step::RemoveFinalizer);
    assert_eq!(plan.notice.map(|it| it.reason), Some(Reason::ServerUnreachable));
}

#[test]
fn a_finished_session_lives_as_long_as_it_is_told() {
    let end = |spec: &Value, reason: &str, host: Host, now: i64| {
        let session = ready(spec, &json!({}));
        let status = Draft::of(&session, at(1000)).finished(Reason::Closed, "");
        let mut session = with(session, status);
        set(&mut session, "Finished", "True", reason, "");
        decide(&session, &World { now: at(now), ..world(host) })
    };
    let ttl = |seconds| json!({"ttlSecondsAfterFinished": seconds});
    assert_eq!(end(&json!({}), "Closed", Host::Alive, 9999).step, Step::Nothing, "for ever");
    assert_eq!(end(&ttl(0), "Closed", Host::Alive, 1000).step, Step::Delete);
    assert_eq!(end(&ttl(60), "Closed", Host::Alive, 1060).step, Step::Delete);
    let plan = end(&ttl(60), "Closed", Host::Alive, 1010);
    assert_eq!((plan.step, plan.requeue_after), (Step::Nothing, Some(std::time::Duration::from_secs(50))));
    assert_eq!(end(&ttl(60), "ForceClosed", silent(0, true), 5000).step, Step::Nothing, "until its agent is back");
    assert_eq!(end(&ttl(60), "ForceClosed", Host::Dead("purged"), 5000).step, Step::RemoveFinalizer);
}

#[test]
fn a_new_time_to_live_is_observed() {
    let session = ready(&json!({}), &json!({}));
    for status in [
        Draft::of(&session, at(1000)).finished(Reason::Closed, ""),
        Draft::of(&session, at(1000)).failed(Reason::QueueTimeout, "no server fitted"),
    ] {
        let mut session = with(session.clone(), status);
        session.metadata.generation = Some(2);
        let Step::Status(status) = decide(&session, &world(Host::Alive)).step else { panic!("a status") };
        let mut expected = DcvSessionStatus { observed_generation: Some(2), ..session.status.clone().unwrap() };
        for condition in &mut expected.conditions {
            if ["Finished", "Stalled"].contains(&condition.type_.as_str()) {
                condition.observed_generation = Some(2);
            }
        }
        assert_eq!(*status, expected, "and nothing else changes");
        session.status = Some(*status);
        assert_eq!(decide(&session, &world(Host::Alive)).step, Step::Nothing);
    }
}

#[test]
fn people_are_told_of_an_end_by_the_agent_while_it_is_news() {
    let told = |reason: Reason, host: Host, now: i64| {
        let session = ready(&json!({}), &json!({}));
        let status = Draft::of(&session, at(1000)).finished(reason, "maxDurationSeconds is over");
        decide(&with(session, status), &World { now: at(now), ..world(host) }).notice.map(|it| (it.reason, it.note))
    };
    let note = || "maxDurationSeconds is over".to_owned();
    assert_eq!(told(Reason::Expired, Host::Alive, 1001), Some((Reason::Expired, note())));
    assert_eq!(told(Reason::ServerLost, Host::Alive, 1001), Some((Reason::ServerLost, note())));
    assert_eq!(told(Reason::ServerLost, Host::Dead("proof"), 1001), None, "told with our own write");
    assert_eq!(told(Reason::Expired, Host::Alive, 1060), None, "no news any more");
    assert_eq!(told(Reason::Closed, Host::Alive, 1001), None);
}
