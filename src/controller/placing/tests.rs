use serde_json::Value;
use serde_json::json;

use super::*;
use crate::api::DcvServer;
use crate::api::DcvSessionStatus;
use crate::api::schema;
use crate::placement::NewServers;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, over) => *into = over.clone(),
    }
}

/// A session that came at second 0 and was never bound, changed by `over`.
fn session(name: &str, over: &Value) -> Arc<DcvSession> {
    let mut value = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": name, "namespace": "team", "uid": name, "generation": 1, "resourceVersion": "1",
            "creationTimestamp": at(0)},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
        "status": schema::session_status_default(),
    });
    merge(&mut value, over);
    Arc::new(serde_json::from_value(value).unwrap())
}

/// As it is after a write.
fn with(session: &DcvSession, status: DcvSessionStatus) -> Arc<DcvSession> {
    let mut session = session.clone();
    session.status = Some(status);
    session.metadata.resource_version = Some((version(&session).unwrap() + 1).to_string());
    Arc::new(session)
}

fn server(name: &str, room: i32, over: &Value) -> DcvServer {
    let mut value = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "spec": {},
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "status": {"availability": "AVAILABLE", "capacity": {
            "sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room, "maxConcurrentSessionsPerUser": -1}},
    });
    merge(&mut value, over);
    serde_json::from_value(value).unwrap()
}

/// A controller and its API server, at a time that moves as it is told.
struct Scene {
    placing: Placing,
    now: Timestamp,
    /// Writes that are not settled.
    commands: Vec<Command>,
}

impl Scene {
    fn new(servers: &[DcvServer]) -> Self {
        let placing = Placing::new(PlacementPolicy::Spread, Dialect::Extended);
        let mut scene = Self { placing, now: at(0), commands: Vec::new() };
        scene.placing.set_namespace("team", &BTreeMap::new(), scene.now);
        for server in servers {
            scene.set_server(server);
        }
        scene
    }

    fn set_server(&mut self, server: &DcvServer) {
        let others = &server.status.as_ref().unwrap().other_sessions;
        self.placing.set_server(Candidate::of(server, true, false, NewServers::Open), others, self.now);
    }

    fn see(&mut self, session: &Arc<DcvSession>) {
        self.placing.see(Arc::clone(session), self.now);
    }

    /// What is decided: `name > server` is a bind, `name ...` a text, `name !` a failure. The writes stay on their way.
    fn decide(&mut self, second: i64) -> Vec<String> {
        self.now = at(second);
        let commands = self.placing.decide(self.now);
        let words = commands.iter().map(|command| {
            let name = &command.uid;
            match &command.step {
                Step::Bind { server, session_id: None, .. } => format!("{name} > {server}"),
                Step::Bind { server, session_id: Some(id), .. } => format!("{name} > {server} {id}"),
                Step::Tell(status, None) => format!("{name} ... {}", status.state_reason.as_deref().unwrap()),
                Step::Tell(_, Some((reason, text))) => format!("{name} ! {reason:?}: {text}"),
            }
        });
        let words = words.collect();
        self.commands.extend(commands);
        words
    }

    /// Carries all writes out; how the sessions are then.
    fn settle(&mut self) -> Vec<Arc<DcvSession>> {
        let commands = std::mem::take(&mut self.commands);
        let settle = |Command { uid, session, step }: Command| {
            let (written, session) = match step {
                Step::Bind { server, server_uid, session_id } => {
                    let status = Draft::of(&session, self.now).bound(&server, &server_uid, session_id);
                    let session = with(&session, status);
                    (Written::Bound(Arc::clone(&session)), session)
                }
                Step::Tell(status, _) => {
                    let session = with(&session, *status);
                    (Written::Told(Arc::clone(&session)), session)
                }
            };
            self.placing.settle(&uid, written, self.now);
            session
        };
        commands.into_iter().map(settle).collect()
    }

    /// When it wants to decide next, in seconds.
    fn next(&self) -> Option<i64> {
        self.placing.next_look().map(|time| time.as_second() - at(0).as_second())
    }
}

fn given_back(session: &DcvSession, reason: Reason, second: i64) -> Arc<DcvSession> {
    with(session, Draft::of(session, at(second)).given_back(reason, "no licence", true, "again"))
}

const NONE: [&str; 0] = [];

#[test]
fn a_place_that_comes_free_is_given_at_once_and_nobody_is_told_anew() {
    let mut scene = Scene::new(&[server("s", 1, &json!({}))]);
    for name in ["a", "b", "c"] {
        scene.see(&session(name, &json!({})));
    }
    let full = |name: &str| format!("{name} ... 0 of 1 servers fit: 1 full");
    assert_eq!(scene.decide(0), ["a > s".to_owned(), full("b"), full("c")]);
    let settled = scene.settle();
    assert_eq!(scene.decide(1), NONE, "nothing has changed");
    scene.see(&with(&settled[0], Draft::of(&settled[0], at(2)).finished(Reason::EndedOnHost, "")));
    assert_eq!(scene.decide(2), ["b > s"]);
    scene.settle();
    scene.set_server(&server("s", 2, &json!({})));
    assert_eq!(scene.decide(3), ["c > s"]);
    assert_eq!(scene.next(), None);
}

#[test]
fn a_text_is_written_again_when_the_reasons_change_but_not_at_once() {
    let closed = |name| server(name, 1, &json!({"spec": {"placement": "Closed"}}));
    let mut scene = Scene::new(&[server("s", 0, &json!({})), server("t", 0, &json!({}))]);
    scene.see(&session("a", &json!({})));
    assert_eq!(scene.decide(0), ["a ... 0 of 2 servers fit: 2 full"]);
    scene.settle();
    scene.set_server(&server("u", 0, &json!({})));
    assert_eq!(scene.next(), Some(10));
    assert_eq!(scene.decide(10), NONE, "only a count has changed");
    scene.set_server(&closed("t"));
    assert_eq!((scene.decide(12), scene.next()), (Vec::new(), Some(20)));
    assert_eq!(scene.decide(20), ["a ... 0 of 3 servers fit: 2 full, 1 closed"]);
    scene.settle();
    assert_eq!(scene.decide(30), NONE);
    // A changed spec is told at once.
    let edited = json!({"metadata": {"generation": 2, "resourceVersion": "9"}, "spec": {"priority": 1}});
    scene.see(&session("a", &edited));
    assert_eq!(scene.decide(31), ["a ... 0 of 3 servers fit: 2 full, 1 closed"]);
}

#[test]
fn who_may_not_wait_fails_at_once_and_others_when_their_time_is_over() {
    let mut scene = Scene::new(&[server("s", 0, &json!({}))]);
    scene.see(&session("a", &json!({"spec": {"queueTimeoutSeconds": 7}})));
    scene.see(&session("b", &json!({"spec": {"enqueueRequest": false}})));
    scene.see(&session("c", &json!({"spec": {"requirements": "tag:pool"}})));
    let words = scene.decide(0);
    assert_eq!(words[0], "a ... 0 of 1 servers fit: 1 full");
    let text = "No DCV server found for the given criteria: 0 of 1 servers fit: 1 full";
    assert_eq!(words[1], format!("b ! NoServerFits: {text}"));
    assert!(words[2].starts_with("c ! InvalidRequirements: "), "{}", words[2]);
    scene.settle();
    assert_eq!((scene.next(), scene.placing.waiting()), (Some(7), 1));
    let text = "no server fitted within 7 seconds: 0 of 1 servers fit: 1 full";
    assert_eq!(scene.decide(7), [format!("a ! QueueTimeout: {text}")]);
    scene.settle();
    assert_eq!((scene.next(), scene.placing.waiting()), (None, 0));
    // A place that is there in the last moment counts.
    scene.see(&session("d", &json!({"spec": {"queueTimeoutSeconds": 9}})));
    scene.decide(8);
    scene.settle();
    scene.set_server(&server("s", 1, &json!({})));
    assert_eq!(scene.decide(9), ["d > s"]);
}

#[test]
fn another_host_is_tried_at_once_and_the_same_one_after_a_pause() {
    let mut scene = Scene::new(&[server("s", 1, &json!({})), server("t", 1, &json!({}))]);
    scene.see(&session("a", &json!({})));
    assert_eq!(scene.decide(0), ["a > s"]);
    let refused = given_back(&scene.settle()[0], Reason::Refused, 5);
    scene.see(&refused);
    assert_eq!(scene.decide(5), ["a > t"]);
    let failed = given_back(&scene.settle()[0], Reason::Failed, 6);
    scene.see(&failed);
    assert_eq!((scene.decide(6), scene.next()), (Vec::new(), Some(8)), "both have failed");
    assert_eq!(scene.decide(8), ["a > s"]);
}

#[test]
fn what_has_run_is_run_again_after_a_pause_whoever_comes_first() {
    let mut scene = Scene::new(&[server("s", 1, &json!({}))]);
    scene.see(&session("a", &json!({})));
    scene.decide(0);
    let ended = given_back(&scene.settle()[0], Reason::Ended, 100);
    scene.see(&ended);
    assert_eq!((scene.decide(100), scene.next()), (Vec::new(), Some(110)));
    scene.see(&session("b", &json!({})));
    assert_eq!(scene.decide(101), ["b > s"], "nobody waits for one that pauses");
    scene.settle();
    assert_eq!(scene.decide(110), ["a ... 0 of 1 servers fit: 1 full"]);
}

#[test]
fn the_limit_of_one_owner_keeps_nobody_else_out() {
    let mut scene =
        Scene::new(&[server("s", 9, &json!({"status": {"capacity": {"maxConcurrentSessionsPerUser": 1}}}))]);
    for (name, owner) in [("a", "ann"), ("b", "ann"), ("c", "bob"), ("d", "bob")] {
        scene.see(&session(name, &json!({"spec": {"owner": owner}})));
    }
    let limited = |name: &str| format!("{name} ... 0 of 1 servers fit: 1 at the limit of sessions per owner");
    assert_eq!(scene.decide(0), ["a > s".to_owned(), "c > s".to_owned(), limited("b"), limited("d")]);
    let settled = scene.settle();
    scene.see(&with(&settled[1], Draft::of(&settled[1], at(1)).finished(Reason::Closed, "")));
    assert_eq!(scene.decide(1), ["d > s"]);
}

#[test]
fn nothing_is_decided_before_the_namespace_is_known() {
    let only_red = json!({"spec": {"allowedNamespaces": {"matchLabels": {"team": "red"}}}});
    let mut scene = Scene::new(&[server("s", 9, &only_red)]);
    scene.see(&session("a", &json!({"metadata": {"namespace": "new"}})));
    assert_eq!((scene.decide(0), scene.next()), (Vec::new(), None));
    scene.placing.set_namespace("new", &BTreeMap::new(), at(1));
    assert_eq!(scene.decide(1), ["a ... 0 of 0 servers fit: there are none for namespace new"]);
    scene.settle();
    scene.placing.set_namespace("new", &BTreeMap::from([("team".to_owned(), "red".to_owned())]), at(2));
    assert_eq!(scene.decide(2), ["a > s"]);
}

#[test]
fn a_desktop_is_taken_over_as_soon_as_its_server_reports_it_and_answers() {
    let reporting = |others: Value| server("s", 0, &json!({"status": {"otherSessions": others}}));
    let mut scene = Scene::new(&[server("s", 0, &json!({}))]);
    scene.see(&session("a", &json!({"spec": {"adopt": {"serverName": "s", "sessionId": "hand"}}})));
    scene.see(&session("b", &json!({})));
    let texts = ["a ... server s reports no session hand without an object", "b ... 0 of 1 servers fit: 1 full"];
    assert_eq!(scene.decide(0), texts);
    scene.settle();
    let mut there = reporting(json!([
        {"id": "hand", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"},
        {"id": "b", "owner": "ann", "type": "VIRTUAL", "origin": "Unclaimed", "namespace": "team"},
    ]));
    let others = there.status.as_ref().unwrap().other_sessions.clone();
    let silent = Candidate::of(&there, false, false, NewServers::Open);
    scene.placing.set_server(silent, &others, at(1));
    assert_eq!(scene.decide(1), NONE, "it does not answer");
    there.metadata.resource_version = Some("2".into());
    scene.set_server(&there);
    assert_eq!(scene.decide(2), ["a > s hand", "b > s b"]);
}

#[test]
fn a_session_that_is_gone_while_its_bind_is_on_its_way_takes_no_place() {
    let mut scene = Scene::new(&[server("s", 1, &json!({}))]);
    scene.see(&session("a", &json!({})));
    assert_eq!(scene.decide(0), ["a > s"]);
    scene.placing.forget("a");
    scene.settle();
    scene.see(&session("b", &json!({})));
    assert_eq!(scene.decide(1), ["b > s"]);
}

#[test]
fn an_answer_that_is_older_than_what_was_seen_is_passed_over() {
    let mut scene = Scene::new(&[server("s", 1, &json!({})), server("t", 1, &json!({}))]);
    let first = session("a", &json!({}));
    scene.see(&first);
    assert_eq!(scene.decide(0), ["a > s"]);
    let bound = with(&first, Draft::of(&first, at(0)).bound("s", "uid-s", None));
    scene.see(&bound);
    scene.see(&given_back(&bound, Reason::Failed, 1));
    assert_eq!(scene.decide(1), NONE, "its write is still on its way");
    scene.settle();
    assert_eq!(scene.decide(1), ["a > t"]);
}

#[test]
fn a_write_that_failed_is_made_again_after_a_pause() {
    let mut scene = Scene::new(&[server("s", 1, &json!({}))]);
    for (name, hitch, pause) in [("a", Hitch::Overtaken, 1), ("b", Hitch::Failed, 5)] {
        scene.see(&session(name, &json!({})));
        let bind = [format!("{name} > s")];
        assert_eq!(scene.decide(0), bind);
        scene.commands.clear();
        scene.placing.settle(name, Written::NotBound(1, None, hitch), at(0));
        assert_eq!(scene.decide(0), NONE);
        assert_eq!(scene.decide(pause), bind);
        scene.commands.clear();
        scene.placing.settle(name, Written::Gone, at(0));
    }
}

#[test]
fn those_who_wait_cost_nothing_while_nothing_changes() {
    let mut scene = Scene::new(&[server("s", 0, &json!({}))]);
    for number in 0..500 {
        let owner = format!("owner-{}", number % 50);
        scene.see(&session(&format!("a{number}"), &json!({"spec": {"owner": owner}})));
    }
    assert_eq!(scene.decide(0).len(), 500);
    scene.settle();
    assert_eq!(scene.decide(0), NONE);
    assert!(scene.placing.line.next().is_none(), "all of them sleep");
    scene.set_server(&server("s", 1, &json!({})));
    assert_eq!(scene.decide(1).len(), 1);
    assert!(scene.placing.line.next().is_none());
    assert_eq!(scene.next(), Some(25), "five hundred texts, twenty a second");
}

#[test]
fn what_became_of_a_bind_is_told_by_the_session_as_it_is() {
    let sent = session("a", &json!({}));
    let bound = |server: &str| with(&sent, Draft::of(&sent, at(0)).bound(server, "uid", None));
    let edited = session("a", &json!({"metadata": {"resourceVersion": "2"}}));
    let another = session("a", &json!({"metadata": {"uid": "other"}}));
    let gone_back = given_back(&bound("s"), Reason::Failed, 1);
    for (case, now, expected) in [
        ("it is there", Some(bound("s")), Settled::Bound),
        ("another controller bound it elsewhere", Some(bound("t")), Settled::Overtaken),
        ("it was there and has been given back", Some(gone_back), Settled::Overtaken),
        ("nothing has happened", Some(Arc::clone(&sent)), Settled::Unmoved),
        ("somebody has edited it", Some(edited), Settled::Overtaken),
        ("it is gone", None, Settled::Gone),
        ("another one of its name", Some(another), Settled::Gone),
    ] {
        assert_eq!(settled(&sent, "s", now.as_deref()), expected, "{case}");
    }
}
