//! How sessions end: closed as asked, by themselves, or by a limit of time.

use super::*;
use crate::agent::ledger::Closing;
use crate::api::conditions::ServerCondition;

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
    let told = super::told(&Setting::new(vec![ready("a", &json!({}))], vec![]).decide());
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
