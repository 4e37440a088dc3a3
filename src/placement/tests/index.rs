//! What is kept from one decision to the next says the same as looking at every server.

use std::cmp::Reverse;

use super::*;

/// A server with facts of few kinds, so that many things happen to it.
pub(super) fn any_server() -> impl Strategy<Value = DcvServer> {
    let fact = (0..6_usize, 0..2_u8, 0..3_u8, -1..3_i32, -1..2_i32, 0..3_u8, 0..3_u8, 0..3_u8);
    fact.prop_map(|(name, pool, placement, most, per_owner, load, other, admits)| {
        let load = f64::from(load);
        let other = match other {
            0 => json!([]),
            1 => json!([{"id": "1", "owner": "ann", "type": "VIRTUAL", "origin": "Manual"}]),
            _ => json!([{"id": "1", "owner": "ann", "type": "CONSOLE", "origin": "Manual"}]),
        };
        let admits = match admits {
            0 => json!(null),
            1 => json!({"matchLabels": {"team": "red"}}),
            _ => json!({"matchLabels": {"team": "blue"}}),
        };
        server(
            ["a", "b", "c", "d", "e", "f"][name],
            json!({
                "spec": {
                    "placement": if placement == 0 { "Closed" } else { "Open" },
                    "limits": {"maxVirtualSessions": most, "maxConcurrentSessionsPerUser": per_owner},
                    "allowedNamespaces": admits,
                },
                "status": {
                    "tags": {"pool": pool.to_string()}, "otherSessions": other,
                    "host": {"cpuLoadAverage": {"oneMinute": load, "fiveMinutes": load, "fifteenMinutes": load}},
                },
            }),
        )
    })
}

#[derive(Clone, Debug)]
enum Step {
    Server(Box<DcvServer>),
    Gone(usize),
    /// A session is seen on a server.
    Seen(usize, usize, bool),
    /// A place is taken.
    Reserved(usize, usize),
    GivenBack(usize),
    Forgotten(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any_server().prop_map(|server| Step::Server(Box::new(server))),
        1 => (0..6_usize).prop_map(Step::Gone),
        3 => (0..8_usize, 0..6_usize, any::<bool>()).prop_map(|(uid, server, console)| Step::Seen(uid, server, console)),
        2 => (0..8_usize, 0..6_usize).prop_map(|(uid, server)| Step::Reserved(uid, server)),
        2 => (0..8_usize).prop_map(Step::GivenBack),
        2 => (0..8_usize).prop_map(Step::Forgotten),
    ]
}

pub(super) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Sessions that wait for ever.
fn requests() -> Vec<Request> {
    let avoiding = Request { avoid: vec!["a".into(), "b".into()], ..request(json!({})) };
    let mut all: Vec<Request> = [
        json!({}),
        json!({"owner": "bob", "placementPolicy": "Pack"}),
        json!({"type": "CONSOLE"}),
        json!({"type": "CONSOLE", "placementPolicy": "Pack"}),
        json!({"requirements": "tag:pool = 1"}),
        json!({"requirements": "server:Host.CpuLoadAverage.OneMinute < 1", "placementPolicy": "Pack"}),
        json!({"requirements": "server:VirtualSessionCount = 1 and not tag:pool = 1"}),
        json!({"serverSelector": {"matchLabels": {"pool": "b"}}}),
    ]
    .map(request)
    .into();
    all.push(avoiding);
    all
}

fn apply(ledger: &mut Ledger, step: Step) {
    match step {
        Step::Server(server) => {
            ledger.set_server(Candidate::of(&server, true, false, NewServers::Open));
        }
        Step::Gone(server) => {
            ledger.remove_server(NAMES[server]);
        }
        Step::Seen(uid, server, console) => {
            let type_ = if console { "CONSOLE" } else { "VIRTUAL" };
            ledger.see(&bound(&uid.to_string(), NAMES[server], json!({"spec": {"type": type_}})));
        }
        Step::Reserved(uid, server) => {
            ledger.reserve(&uid.to_string(), 2, NAMES[server], "bob", SessionType::Virtual);
        }
        Step::GivenBack(uid) => {
            ledger.give_back(&uid.to_string(), 2);
        }
        Step::Forgotten(uid) => {
            ledger.forget(&uid.to_string());
        }
    }
}

/// The decision as it is defined.
fn by_looking_at_all(ledger: &Ledger, request: &Request) -> Option<String> {
    let fitting = ledger.servers().filter(|server| {
        filter::admits(server.candidate, &request.namespace_labels) && filter::check(*server, request).is_none()
    });
    let best = fitting.min_by_key(|server| {
        let Candidate { name, .. } = server.candidate;
        let (console, virtual_) = server.sessions();
        let sessions = console + virtual_;
        let is_avoided = request.avoid.iter().any(|avoided| **avoided == **name);
        match request.policy {
            Some(PlacementPolicy::Pack) => (is_avoided, 0, Reverse(sessions), 0, Arc::clone(name)),
            _ => (is_avoided, sessions, Reverse(0), server.candidate.load(), Arc::clone(name)),
        }
    });
    best.map(|server| server.candidate.name.to_string())
}

proptest! {
    #[test]
    fn a_decision_is_the_same_and_no_wake_is_missed(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut ledger = Ledger::default();
        let requests = requests();
        let groups: Vec<GroupId> = requests.iter().map(|request| ledger.group(request)).collect();
        let mut fitted = vec![false; requests.len()];
        for step in steps {
            let text = format!("{step:?}");
            apply(&mut ledger, step);
            let woken = ledger.take_woken();
            for ((request, group), fitted) in requests.iter().zip(&groups).zip(&mut fitted) {
                let expected = by_looking_at_all(&ledger, request);
                prop_assert_eq!(&ledger.choose(request, PlacementPolicy::Spread), &expected, "{:?} after {}", request, text);
                let fits = expected.is_some();
                prop_assert!(*fitted || !fits || woken.contains(group), "{request:?} slept through {text}");
                *fitted = fits;
                let explanation = Explanation::of(&ledger, request);
                let visible = ledger.servers().filter(|it| filter::admits(it.candidate, &request.namespace_labels));
                prop_assert_eq!(explanation.servers(), visible.count());
                prop_assert_eq!(explanation.fitting > 0, fits);
            }
        }
    }
}

#[test]
fn a_change_wakes_only_the_groups_it_can_satisfy() {
    let full = |pool: &str, most: i32| {
        let server =
            server(pool, json!({"spec": {"limits": {"maxVirtualSessions": most}}, "status": {"tags": {"pool": pool}}}));
        Candidate::of(&server, true, false, NewServers::Open)
    };
    let mut ledger = Ledger::default();
    ledger.set_server(full("a", 0));
    ledger.set_server(full("b", 0));
    let of = |ledger: &mut Ledger, over| ledger.group(&request(over));
    let a = of(&mut ledger, json!({"requirements": "tag:pool = 'a'"}));
    let b = of(&mut ledger, json!({"requirements": "tag:pool = 'b'"}));
    let any = of(&mut ledger, json!({}));
    let console = of(&mut ledger, json!({"type": "CONSOLE", "requirements": "tag:pool = 'a'"}));
    assert_eq!(ledger.take_woken(), [console], "they are empty");
    assert_eq!(of(&mut ledger, json!({"owner": "bob"})), any, "whoever asks");
    ledger.set_server(full("a", 1));
    ledger.set_server(full("b", 0));
    assert_eq!(ledger.take_woken(), [a, any, console]);
    ledger.reserve("1", 1, "a", "ann", SessionType::Virtual);
    assert_eq!(ledger.take_woken(), []);
    ledger.give_back("1", 1);
    ledger.reserve("2", 1, "a", "ann", SessionType::Virtual);
    assert_eq!(ledger.take_woken(), [], "taken again");
    ledger.give_back("2", 1);
    ledger.retain_groups(|group| group == b || group == any);
    assert_eq!((ledger.groups(), ledger.take_woken()), (2, vec![any]));
    assert_ne!(of(&mut ledger, json!({"requirements": "tag:pool = 'a'"})), a, "an id is never used again");
}
