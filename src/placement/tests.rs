#![expect(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "tables of literals read best as they are"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::session::SessionType;
use crate::requirement::Dialect;

mod explanation;
mod index;

fn merged(mut base: Value, over: &Value) -> Value {
    match (&mut base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                let old = base.remove(key).unwrap_or_default();
                base.insert(key.clone(), merged(old, value));
            }
        }
        _ => base = over.clone(),
    }
    base
}

/// A Linux server with room for two virtual sessions, changed by `over`.
fn server(name: &str, over: Value) -> DcvServer {
    let base = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"pool": "a"}},
        "spec": {},
        "status": {
            "availability": "AVAILABLE",
            "capacity": {"sessionTypes": ["VIRTUAL", "CONSOLE"], "maxVirtualSessions": 2, "maxConcurrentSessionsPerUser": -1},
            "host": {"os": {"family": "linux"}},
        },
    });
    serde_json::from_value(merged(base, &over)).unwrap()
}

fn session(uid: &str, over: Value) -> DcvSession {
    let base = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": uid, "namespace": "team", "uid": uid},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
    });
    serde_json::from_value(merged(base, &over)).unwrap()
}

fn request(over: Value) -> Request {
    let labels = BTreeMap::from([("team".to_owned(), "red".to_owned())]);
    Request::of(&session("r", json!({"spec": over})).spec, "team", &labels, Dialect::Extended).unwrap()
}

fn ledger(servers: &[DcvServer], sessions: &[DcvSession]) -> Ledger {
    let mut ledger = Ledger::default();
    for server in servers {
        ledger.set_server(Candidate::of(server, true, false, NewServers::Open));
    }
    for session in sessions {
        ledger.see(session);
    }
    ledger
}

fn bound(uid: &str, server: &str, over: Value) -> DcvSession {
    session(uid, merged(json!({"status": {"serverName": server, "attempt": 1}}), &over))
}

#[test]
fn each_reason_turns_a_server_down() {
    let unavailable = |reason: &str| json!({"status": {"availability": "UNAVAILABLE", "unavailabilityReason": reason}});
    let windows = json!({"status": {"host": {"os": {"family": "windows"}}}});
    let other = |type_: &str| json!({"status": {"otherSessions": [{"id": "1", "owner": "ann", "type": type_, "origin": "Manual"}]}});
    let any = json!({});
    let console = json!({"type": "CONSOLE"});
    let full = [bound("a", "s", any.clone()), bound("b", "s", json!({"spec": {"owner": "bob"}}))];
    let cases: Vec<(&str, Value, Value, &[DcvSession], Option<&[Rejection]>)> = vec![
        ("an open server fits", any.clone(), any.clone(), &[], None),
        ("reported full but has room", unavailable("SERVER_FULL"), any.clone(), &[], None),
        ("reported closed but opened again", unavailable("SERVER_CLOSED"), any.clone(), &[], None),
        ("unreachable", unavailable("UNREACHABLE_AGENT"), any.clone(), &[], Some(&[Rejection::Unreachable])),
        ("unhealthy", unavailable("UNHEALTHY_DCV_SERVER"), any.clone(), &[], Some(&[Rejection::Unhealthy])),
        ("logged in", unavailable("EXISTING_LOGGED_IN_USER"), any.clone(), &[], Some(&[Rejection::LoggedIn])),
        ("not reported", unavailable("UNKNOWN"), any.clone(), &[], Some(&[Rejection::NotReady])),
        ("closed", json!({"spec": {"placement": "Closed"}}), any.clone(), &[], Some(&[Rejection::Closed])),
        ("draining", json!({"spec": {"placement": "Draining"}}), any.clone(), &[], Some(&[Rejection::Draining])),
        (
            "closed counts before unhealthy",
            merged(json!({"spec": {"placement": "Closed"}}), &unavailable("UNHEALTHY_DCV_SERVER")),
            any.clone(),
            &[],
            Some(&[Rejection::Closed]),
        ),
        (
            "our namespace",
            json!({"spec": {"allowedNamespaces": {"matchLabels": {"team": "red"}}}}),
            any.clone(),
            &[],
            None,
        ),
        (
            "other namespace",
            json!({"spec": {"allowedNamespaces": {"matchLabels": {"team": "blue"}}}}),
            any.clone(),
            &[],
            Some(&[]),
        ),
        (
            "a selector that makes no sense admits nobody",
            json!({"spec": {"allowedNamespaces": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}}),
            any.clone(),
            &[],
            Some(&[]),
        ),
        ("its labels", any.clone(), json!({"serverSelector": {"matchLabels": {"pool": "a"}}}), &[], None),
        (
            "other labels",
            any.clone(),
            json!({"serverSelector": {"matchLabels": {"pool": "b"}}}),
            &[],
            Some(&[Rejection::Labels]),
        ),
        (
            "no capacity reported",
            json!({"status": {"capacity": {"sessionTypes": []}}}),
            any.clone(),
            &[],
            Some(&[Rejection::Type]),
        ),
        ("virtual on Windows", windows.clone(), any.clone(), &[], Some(&[Rejection::Type])),
        ("console on Windows", windows.clone(), console.clone(), &[], None),
        ("autorun, console, Windows", windows, json!({"type": "CONSOLE", "autorunFile": "a"}), &[], None),
        (
            "autorun, console, Linux",
            any.clone(),
            json!({"type": "CONSOLE", "autorunFile": "a"}),
            &[],
            Some(&[Rejection::Autorun]),
        ),
        ("autorun, virtual, Linux", any.clone(), json!({"autorunFile": "a"}), &[], None),
        ("OpenGL", json!({"status": {"capacity": {"gl": true}}}), json!({"dcvGlEnabled": true}), &[], None),
        ("no OpenGL", any.clone(), json!({"dcvGlEnabled": true}), &[], Some(&[Rejection::Gl])),
        ("no OpenGL and none asked for", any.clone(), json!({"dcvGlEnabled": false}), &[], None),
        ("a requirement", any.clone(), json!({"requirements": "server:Host.Os.Family = 'linux'"}), &[], None),
        (
            "the first clause that is false counts",
            any.clone(),
            json!({"requirements": "server:Id = 'uid-s' and tag:a = 1 and tag:b = 2"}),
            &[],
            Some(&[Rejection::Requirement(1)]),
        ),
        (
            "labels count before requirements, those before room",
            any.clone(),
            json!({"requirements": "label:pool = 'b'"}),
            &full,
            Some(&[Rejection::Requirement(0)]),
        ),
        ("room for one more", any.clone(), any.clone(), &full[..1], None),
        ("full", any.clone(), any.clone(), &full, Some(&[Rejection::Full])),
        ("no limit", json!({"status": {"capacity": {"maxVirtualSessions": -1}}}), any.clone(), &full, None),
        ("the administrator's limit", json!({"spec": {"limits": {"maxVirtualSessions": 3}}}), any.clone(), &full, None),
        (
            "the administrator's limit of none",
            json!({"spec": {"limits": {"maxVirtualSessions": 0}}}),
            any.clone(),
            &[],
            Some(&[Rejection::Full]),
        ),
        ("console beside virtual", any.clone(), console.clone(), &full[..1], Some(&[Rejection::Full])),
        ("virtual beside a console of others", other("CONSOLE"), any.clone(), &[], Some(&[Rejection::Full])),
        ("console beside a virtual of others", other("VIRTUAL"), console.clone(), &[], Some(&[Rejection::Full])),
        ("others take room", other("VIRTUAL"), any.clone(), &full[..1], Some(&[Rejection::Full])),
        (
            "a limit of one per owner",
            json!({"spec": {"limits": {"maxConcurrentSessionsPerUser": 1}}}),
            any.clone(),
            &full[1..],
            None,
        ),
        (
            "the owner's limit",
            json!({"spec": {"limits": {"maxConcurrentSessionsPerUser": 1}}}),
            any.clone(),
            &full[..1],
            Some(&[Rejection::OwnerLimit]),
        ),
        (
            "the owner's limit counts others too",
            merged(json!({"spec": {"limits": {"maxConcurrentSessionsPerUser": 1}}}), &other("VIRTUAL")),
            any,
            &[],
            Some(&[Rejection::OwnerLimit]),
        ),
    ];
    for (case, facts, wants, sessions, expected) in cases {
        let mut ledger = ledger(&[server("s", facts)], sessions);
        let found = place(&mut ledger, &request(wants), PlacementPolicy::Spread).map_err(|it| it.rejections);
        let expected = expected.map_or_else(|| Ok("s".to_owned()), |it| Err(it.iter().map(|it| (*it, 1)).collect()));
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn what_the_caller_knows_better_shuts_a_server() {
    let of = |reachable, cordoned, new| Candidate::of(&server("s", json!({})), reachable, cordoned, new);
    assert_eq!(of(false, true, NewServers::Open).shut, Some(Rejection::Unreachable));
    assert_eq!(of(true, true, NewServers::Open).shut, Some(Rejection::Cordoned));
    assert_eq!(of(true, false, NewServers::Closed).namespaces, None);
}

#[test]
fn spread_takes_the_emptiest_pack_the_fullest_and_ties_go_by_name() {
    let load = |name, load: f64| {
        let load = json!({"oneMinute": load, "fiveMinutes": 0.0, "fifteenMinutes": 0.0});
        server(name, json!({"status": {"host": {"cpuLoadAverage": load}}}))
    };
    let servers = [load("b", 0.5), load("a", 0.5), load("c", 0.1), load("d", 9.0)];
    let sessions = [bound("1", "c", json!({})), bound("2", "b", json!({}))];
    let mut ledger = ledger(&servers, &sessions);
    let request = request(json!({}));
    assert_eq!(place(&mut ledger, &request, PlacementPolicy::Spread).unwrap(), "a");
    assert_eq!(place(&mut ledger, &request, PlacementPolicy::Pack).unwrap(), "b");
    let own = Request { policy: Some(PlacementPolicy::Pack), ..request.clone() };
    assert_eq!(place(&mut ledger, &own, PlacementPolicy::Spread).unwrap(), "b");
    let again = Request { avoid: vec!["a".into(), "d".into()], ..request.clone() };
    assert_eq!(place(&mut ledger, &again, PlacementPolicy::Spread).unwrap(), "c");
    let all = Request { avoid: ["a", "b", "c", "d"].map(str::to_owned).into(), ..request };
    assert_eq!(place(&mut ledger, &all, PlacementPolicy::Spread).unwrap(), "a", "the avoided when no other fits");
}

#[test]
fn what_no_server_can_ever_be_is_never_placed() {
    let of = |over, dialect| {
        let error = Request::of(&session("a", json!({"spec": over})).spec, "team", &BTreeMap::new(), dialect);
        error.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(of(json!({"requirements": "  "}), Dialect::Documented), Ok(()));
    let requirement = |text: &str| json!({"requirements": text});
    let error = of(requirement("server:Memory > 1"), Dialect::Extended).unwrap_err();
    assert!(error.starts_with("requirements: at character 8: "), "{error}");
    assert_eq!(of(requirement("label:pool = 'a'"), Dialect::Extended), Ok(()));
    assert!(of(requirement("label:pool = 'a'"), Dialect::Documented).is_err(), "remembered for the other dialect only");
    let selector = json!({"serverSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
    assert!(of(selector, Dialect::Extended).unwrap_err().starts_with("serverSelector is invalid: "));
    for (field, value) in
        [("initFile", json!("a")), ("dcvGlEnabled", json!(false)), ("autorunFileArguments", json!(["a"]))]
    {
        let error = of(json!({"type": "CONSOLE", field: value}), Dialect::Extended).unwrap_err();
        assert_eq!(error, format!("{field} may not be set when type is CONSOLE"));
    }
}

#[test]
fn equal_requirements_are_parsed_once() {
    let parsed = |text: &str| request(json!({"requirements": text})).wants.requirement.clone().unwrap();
    assert!(Arc::ptr_eq(&parsed("tag:a = 1"), &parsed("tag:a = 1")));
}

#[test]
fn a_forced_close_keeps_its_place_until_its_agent_has_seen_to_it() {
    let finished = |reason: &str, finalizers: Value| {
        let finished = json!([{"type": "Finished", "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        bound("a", "s", json!({"metadata": {"finalizers": finalizers}, "status": {"conditions": finished}}))
    };
    let held = json!(["dcv-operator.io/session-cleanup"]);
    let count = |session| ledger(&[], &[session]).occupancy("s").sessions();
    assert_eq!(count(finished("ForceClosed", held.clone())), 1);
    assert_eq!(count(finished("ForceClosed", json!([]))), 0);
    assert_eq!(count(finished("Closed", held)), 0);
}

/// What the API server holds of one session, what the placer has of it, and what is on the way between them.
#[derive(Clone, Debug, Default)]
struct World {
    /// Every state the object had: attempt and server. The last one is the truth.
    history: Vec<(i32, Option<String>)>,
    /// How far the watch has come.
    watched: usize,
    /// The bind that has no answer yet, and whether it has landed.
    in_flight: Option<(i32, String, bool)>,
    /// The placer's copy.
    copy: (i32, Option<String>),
}

impl World {
    fn truth(&self) -> (i32, Option<String>) {
        self.history.last().cloned().unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The placer binds the session if it may.
    Bind,
    /// The call lands; its answer is lost, or not there yet.
    Land,
    /// The answer arrives, or a GET settles the call once the object has moved on.
    Answer,
    /// The call is refused and will never land.
    Refuse,
    /// The session is given back after a failure on the host.
    Unbind,
    /// The next watch event arrives.
    Watch,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = proptest::sample::select(vec![
        Step::Bind,
        Step::Bind,
        Step::Land,
        Step::Answer,
        Step::Refuse,
        Step::Unbind,
        Step::Watch,
    ]);
    proptest::collection::vec((0..5_usize, step), 1..200)
}

fn view(uid: usize, (attempt, server): &(i32, Option<String>)) -> DcvSession {
    session(&uid.to_string(), json!({"status": {"serverName": server, "attempt": attempt}}))
}

proptest! {
    /// However answers, refusals, lost answers and late watch events interleave, no server is ever bound beyond its
    /// limit, no session twice, and once everything is seen the ledger holds exactly what is bound.
    #[test]
    fn nothing_is_ever_over_reserved(steps in steps()) {
        let servers = [server("s", json!({})), server("t", json!({"spec": {"limits": {"maxVirtualSessions": 1}}}))];
        let mut ledger = ledger(&servers, &[]);
        let mut worlds = vec![World::default(); 5];
        for (it, step) in steps {
            let uid = it.to_string();
            let world = &mut worlds[it];
            match step {
                Step::Bind => {
                    let (attempt, server) = world.copy.clone();
                    if server.is_some() || world.in_flight.is_some() || ledger.has_place(&uid) {
                        continue;
                    }
                    if let Some(name) = ledger.choose(&request(json!({})), PlacementPolicy::Spread) {
                        ledger.reserve(&uid, attempt + 1, &name, "ann", SessionType::Virtual);
                        world.in_flight = Some((attempt + 1, name, false));
                    }
                }
                Step::Land => {
                    let truth = world.truth();
                    // The precondition: nobody wrote since the placer looked.
                    if let Some((attempt, name, landed @ false)) = &mut world.in_flight
                        && truth.1.is_none() && truth.0 == *attempt - 1
                    {
                        *landed = true;
                        world.history.push((*attempt, Some(name.clone())));
                    }
                }
                Step::Answer => {
                    let truth = world.truth();
                    if world.in_flight.as_ref().is_some_and(|(attempt, ..)| truth.0 >= *attempt) {
                        world.in_flight = None;
                        ledger.see(&view(it, &truth));
                        world.copy = truth;
                    }
                }
                Step::Refuse => {
                    if let Some((attempt, _, false)) = world.in_flight {
                        ledger.give_back(&uid, attempt);
                        world.in_flight = None;
                    }
                }
                Step::Unbind => {
                    if let (attempt, Some(_)) = world.truth() {
                        world.history.push((attempt, None));
                    }
                }
                Step::Watch => {
                    if let Some(seen) = world.history.get(world.watched).cloned() {
                        world.watched += 1;
                        ledger.see(&view(it, &seen));
                        world.copy = seen;
                    }
                }
            }
            // The ledger may count an old bind for a moment, which errs on the safe side; the servers decide.
            for (name, limit) in [("s", 2), ("t", 1)] {
                let really = worlds.iter().filter(|world| world.truth().1.as_deref() == Some(name)).count();
                prop_assert!(really <= limit, "{really} on {name}");
            }
        }
        for (it, world) in worlds.iter().enumerate() {
            if let Some((attempt, _, false)) = world.in_flight {
                ledger.give_back(&it.to_string(), attempt);
            }
            for seen in &world.history[world.watched..] {
                ledger.see(&view(it, seen));
            }
        }
        for name in ["s", "t"] {
            let really = worlds.iter().filter(|world| world.truth().1.as_deref() == Some(name)).count();
            prop_assert_eq!(ledger.occupancy(name).sessions() as usize, really);
        }
    }
}
