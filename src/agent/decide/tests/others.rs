//! What becomes of sessions on the host that no bound object stands for, and of those that one takes over.

use super::*;
use crate::api::server::SessionOrigin;

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
fn a_desktop_whose_object_is_gone_is_closed_only_by_a_setting_and_when_it_was_idle_for_long() {
    let minute = OrphanPolicy::CloseWhenIdle(Duration::from_mins(1));
    let orphan = |policy, instance: HostSession, since: Option<i64>| {
        let mut setting = Setting {
            host: vec![instance],
            strangers: [("a".into(), Stranger::Gone)].into(),
            orphan_policy: policy,
            ..Setting::default()
        };
        setting.ledger.unclaimed = since.map(|since| ("a".to_owned(), at(since))).into_iter().collect();
        let plan = setting.decide();
        assert_eq!(others(&plan).len(), 1, "it is listed until it is gone");
        (told(&plan), plan.look_again)
    };
    let close = (vec!["close a".to_owned()], None);
    let keep = |until: Option<i64>| (vec![], until.map(at));
    assert_eq!(orphan(OrphanPolicy::Keep, on_host("a"), Some(-10_000)), keep(None));
    assert_eq!(orphan(minute, on_host("a"), None), keep(Some(60)), "it was found just now");
    assert_eq!(orphan(minute, on_host("a"), Some(-59)), keep(Some(1)));
    assert_eq!(orphan(minute, on_host("a"), Some(-60)), close);
    let left = HostSession { last_disconnection_time: Some(at(-20)), ..on_host("a") };
    assert_eq!(orphan(minute, left, Some(-60)), keep(Some(40)));
    let used = HostSession { num_of_connections: 1, ..on_host("a") };
    assert_eq!(orphan(minute, used, Some(-60)), keep(None));
    let mut of_another_cluster = on_host("a");
    of_another_cluster.marker.as_mut().unwrap().cluster_uid = "another".into();
    assert_eq!(orphan(minute, of_another_cluster, Some(-60)), keep(None));
}

#[test]
fn what_may_still_be_claimed_or_was_started_by_hand_is_not_closed_by_the_setting() {
    let by_hand = HostSession { marker: None, ..on_host("hand") };
    let mut setting = Setting {
        host: vec![by_hand, on_host("a")],
        strangers: [("a".into(), Stranger::Waiting)].into(),
        orphan_policy: OrphanPolicy::CloseWhenIdle(Duration::ZERO),
        ..Setting::default()
    };
    setting.ledger.unclaimed = ["hand", "a"].map(|id| (id.to_owned(), at(-100))).into();
    assert_eq!(told(&setting.decide()), [""; 0]);
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
