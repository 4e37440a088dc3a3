//! Sessions, two controllers, agents and an API server in every order that chance can think of: users come and go, hosts
//! refuse and fail, answers are lost, watches are late or break, a controller is started anew or a second one leads as well.
//!
//! All decisions are the product's own. Between them is a model of the API server and of hosts, and nothing else.

mod api;
mod host;
mod leader;

use std::collections::BTreeMap;

use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use dcv_operator::api::conditions;
use dcv_operator::api::conditions::Reason;
use dcv_operator::api::conditions::SessionCondition;
use dcv_operator::api::names;
use dcv_operator::api::schema;
use dcv_operator::api::server::Placement;
use dcv_operator::api::session::DesiredState;
use jiff::SignedDuration;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use api::Api;
use host::Host;
use leader::Fate;
use leader::Flight;
use leader::Leader;

/// Room on each host, and how much of it one owner may have.
const ROOM: [(i32, i32); 3] = [(1, -1), (2, 1), (3, 2)];
const OWNERS: [&str; 3] = ["ann", "bob", "cid"];

#[derive(Clone, Copy, Debug)]
enum Act {
    Create {
        owner: usize,
        priority: i32,
        held: bool,
        enqueued: bool,
        retried: bool,
        restarted: bool,
    },
    Delete(usize),
    Close(usize),
    LogOut(usize, usize),
    /// An administrator closes or opens a server.
    Shut(usize, bool),
    /// Events reach a leader.
    Watch(usize, usize),
    /// A leader's watch breaks.
    List(usize),
    Place(usize),
    /// A leader does all it can: everything reaches it, and it decides on everything.
    Lead(usize),
    Reconcile(usize, usize),
    Fly(usize, usize, Fate),
    /// A controller is started anew.
    Restart(usize),
    /// A second one leads as well, or does so no longer.
    Second(bool),
    AgentWatch(usize, usize),
    AgentPass(usize),
    /// An agent does all it can, and its host as well.
    Serve(usize),
    HostWorks(usize, bool),
    AgentRestart(usize),
    /// A write that nobody waits for any more arrives, or is lost.
    Orphan(usize, bool),
    Wait(i64),
}

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![
        4 => Just(Fate::Lands),
        3 => Just(Fate::AnswerLate),
        1 => Just(Fate::AnswerLost),
        2 => Just(Fate::Late),
        1 => Just(Fate::Lost),
    ];
    let often = |times: u32| proptest::bool::weighted(1.0 / f64::from(times));
    let create = (0..3_usize, 0..2_i32, any::<bool>(), often(5), often(5), often(4));
    prop_oneof![
        6 => create.prop_map(|(owner, priority, held, at_once, final_, restarted)| Act::Create {
            owner, priority, held, enqueued: !at_once, retried: !final_, restarted,
        }),
        2 => (0..20_usize).prop_map(Act::Delete),
        1 => (0..20_usize).prop_map(Act::Close),
        2 => (0..3_usize, 0..3_usize).prop_map(|(host, number)| Act::LogOut(host, number)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(host, shut)| Act::Shut(host, shut)),
        6 => (0..2_usize, 1..6_usize).prop_map(|(leader, events)| Act::Watch(leader, events)),
        1 => (0..2_usize).prop_map(Act::List),
        6 => (0..2_usize).prop_map(Act::Place),
        4 => (0..2_usize).prop_map(Act::Lead),
        6 => (0..2_usize, 0..20_usize).prop_map(|(leader, number)| Act::Reconcile(leader, number)),
        12 => (0..2_usize, 0..9_usize, fate).prop_map(|(leader, number, fate)| Act::Fly(leader, number, fate)),
        1 => (0..2_usize).prop_map(Act::Restart),
        1 => any::<bool>().prop_map(Act::Second),
        6 => (0..3_usize, 1..9_usize).prop_map(|(host, events)| Act::AgentWatch(host, events)),
        6 => (0..3_usize).prop_map(Act::AgentPass),
        6 => (0..3_usize).prop_map(Act::Serve),
        6 => (0..3_usize, often(4)).prop_map(|(host, fails)| Act::HostWorks(host, fails)),
        1 => (0..3_usize).prop_map(Act::AgentRestart),
        2 => (0..9_usize, any::<bool>()).prop_map(|(number, lands)| Act::Orphan(number, lands)),
        3 => prop_oneof![Just(1_i64), Just(30), Just(700)].prop_map(Act::Wait),
    ]
}

struct World {
    now: Timestamp,
    api: Api,
    hosts: Vec<Host>,
    leaders: Vec<Leader>,
    /// Writes that nobody waits for any more: of controllers that are gone, or taken for lost.
    orphans: Vec<Flight>,
    created: usize,
    /// Nothing has happened by which a controller could bind too many: no second one, no write of an earlier one.
    is_sole: bool,
}

fn server(number: usize, (room, of_owner): (i32, i32)) -> DcvServer {
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "spec": {},
        "metadata": {"name": format!("s{number}"), "uid": format!("uid-s{number}")},
        "status": {"availability": "AVAILABLE", "host": {"os": {"family": "linux"}}, "capacity": {
            "sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room, "maxConcurrentSessionsPerUser": of_owner}},
    }))
    .unwrap()
}

fn is_free(room: (i32, i32), owners: &[&str], owner: &str) -> bool {
    let below = |count: usize, limit: i32| limit < 0 || i32::try_from(count).unwrap() < limit;
    below(owners.len(), room.0) && below(owners.iter().filter(|it| **it == owner).count(), room.1)
}

fn is_within(room: (i32, i32), owners: &[&str]) -> bool {
    owners.iter().enumerate().all(|(number, owner)| is_free(room, &owners[..number], owner))
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let api = Api::default();
        let servers: Vec<_> = ROOM.iter().enumerate().map(|(number, room)| server(number, *room)).collect();
        let leaders = vec![Leader::new(&api, &servers, now)];
        let hosts = servers.into_iter().map(Host::new).collect();
        Self { now, api, hosts, leaders, orphans: Vec::new(), created: 0, is_sole: true }
    }

    fn servers(&self) -> Vec<DcvServer> {
        self.hosts.iter().map(|host| host.server.clone()).collect()
    }

    fn carry_out(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::Create { owner, priority, held, enqueued, retried, restarted } => {
                let number = self.created;
                self.created += 1;
                let finalizers = if held { json!([names::SESSION_FINALIZER]) } else { json!([]) };
                let session: DcvSession = serde_json::from_value(json!({
                    "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
                    "metadata": {"name": format!("{number:03}"), "namespace": "team", "uid": format!("uid-{number:03}"),
                        "generation": 1, "finalizers": finalizers, "creationTimestamp": now},
                    "spec": {"owner": OWNERS[owner], "type": "VIRTUAL", "priority": priority, "enqueueRequest": enqueued,
                        "disableRetryOnFailure": !retried, "restartPolicy": if restarted { "Always" } else { "Never" }},
                    "status": schema::session_status_default(),
                }))
                .unwrap();
                self.api.put(session);
            }
            Act::Delete(number) => self.api.delete(&format!("uid-{number:03}"), now),
            Act::Close(number) => self.api.change(&format!("uid-{number:03}"), |session| {
                if !session.is_finished() {
                    session.spec.desired_state = DesiredState::Closed;
                }
            }),
            Act::LogOut(host, number) => self.hosts[host].log_out(number),
            Act::Shut(host, shut) => {
                self.hosts[host].server.spec.placement = shut.then_some(Placement::Closed);
                self.tell_leaders();
            }
            Act::Watch(leader, events) => {
                if let Some(leader) = self.leaders.get_mut(leader) {
                    leader.watch(&self.api, events, now);
                }
            }
            Act::List(leader) => {
                if let Some(leader) = self.leaders.get_mut(leader) {
                    leader.list(&self.api, now);
                }
            }
            Act::Lead(leader) => {
                if let Some(leader) = self.leaders.get_mut(leader) {
                    leader.watch(&self.api, usize::MAX, now);
                    leader.place(now);
                    leader.reconcile_all(&mut self.api, now);
                }
            }
            Act::Place(leader) => {
                if let Some(leader) = self.leaders.get_mut(leader) {
                    leader.place(now);
                }
            }
            Act::Reconcile(leader, number) => {
                if let Some(leader) = self.leaders.get(leader) {
                    leader.reconcile(&format!("uid-{number:03}"), &mut self.api, now);
                }
            }
            Act::Fly(leader, number, fate) => {
                if let Some(leader) = self.leaders.get_mut(leader) {
                    leader.fly(number, fate, &mut self.api, &mut self.orphans, now);
                }
            }
            Act::Restart(leader) => {
                if leader < self.leaders.len() {
                    let new = Leader::new(&self.api, &self.servers(), now);
                    let old = std::mem::replace(&mut self.leaders[leader], new);
                    self.orphan(old);
                }
            }
            Act::Second(leads) => {
                if leads && self.leaders.len() == 1 {
                    self.leaders.push(Leader::new(&self.api, &self.servers(), now));
                    self.is_sole = false;
                } else if !leads && self.leaders.len() == 2 {
                    let old = self.leaders.remove(0);
                    self.orphan(old);
                }
            }
            Act::AgentWatch(host, events) => drop(self.hosts[host].watch(&self.api, events)),
            Act::AgentPass(host) => {
                self.hosts[host].pass(&mut self.api, now);
                self.tell_leaders();
            }
            Act::Serve(host) => {
                self.serve(host);
                self.tell_leaders();
            }
            Act::HostWorks(host, fails) => drop(self.hosts[host].work(fails, now)),
            Act::AgentRestart(host) => self.hosts[host].restart(&self.api, now),
            Act::Orphan(number, lands) => {
                if !self.orphans.is_empty() {
                    let mut flight = self.orphans.swap_remove(number % self.orphans.len());
                    flight.fly(if lands { Fate::Lands } else { Fate::Lost }, &mut self.api, now);
                }
            }
            Act::Wait(seconds) => self.now = now + SignedDuration::from_secs(seconds),
        }
    }

    fn orphan(&mut self, old: Leader) {
        self.is_sole &= old.flights.is_empty();
        self.orphans.extend(old.flights);
    }

    fn tell_leaders(&mut self) {
        let servers = self.servers();
        for leader in &mut self.leaders {
            for server in &servers {
                leader.see_server(server, self.now);
            }
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let mut instances: BTreeMap<&str, usize> = BTreeMap::new();
        for (host, room) in self.hosts.iter().zip(ROOM) {
            assert!(is_within(room, &host.owners()), "{} runs {:?}", host.server_name(), host.owners());
            for uid in self.api.objects.keys().filter(|uid| host.runs(uid)) {
                *instances.entry(uid).or_default() += 1;
            }
            let bound = self.bound_to(host);
            assert!(!self.is_sole || is_within(room, &bound), "{} has {bound:?} bound to it", host.server_name());
        }
        assert!(instances.values().all(|count| *count == 1), "a session runs twice: {instances:?}");
    }

    fn bound_to(&self, host: &Host) -> Vec<&str> {
        let is_there =
            |session: &&DcvSession| session.server_name() == Some(host.server_name()) && !session.is_finished();
        let sessions = self.api.objects.values().map(AsRef::as_ref).filter(is_there);
        sessions.map(|session| session.spec.owner.as_str()).collect()
    }

    /// Everything that is on its way arrives, hosts do what they are told, and time passes, until nothing happens any more.
    fn settle(&mut self) {
        while self.leaders.len() > 1 {
            self.carry_out(Act::Second(false));
        }
        for host in 0..self.hosts.len() {
            self.carry_out(Act::Shut(host, false));
        }
        while !self.orphans.is_empty() {
            self.carry_out(Act::Orphan(0, true));
        }
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 12 {
            quiet += 1;
            rounds += 1;
            assert!(rounds < 1000, "it never comes to rest");
            self.now += SignedDuration::from_secs(40);
            while self.round() {
                quiet = 0;
                rounds += 1;
                assert!(rounds < 1000, "it never comes to rest");
                self.check();
            }
        }
    }

    fn round(&mut self) -> bool {
        let now = self.now;
        self.tell_leaders();
        let [leader] = &mut self.leaders[..] else { unreachable!("one is left") };
        let mut any = leader.watch(&self.api, usize::MAX, now);
        any |= leader.place(now);
        while !leader.flights.is_empty() {
            leader.fly(0, Fate::Lands, &mut self.api, &mut self.orphans, now);
        }
        any |= leader.reconcile_all(&mut self.api, now);
        for host in 0..self.hosts.len() {
            any |= self.serve(host);
        }
        any
    }

    fn serve(&mut self, host: usize) -> bool {
        let host = &mut self.hosts[host];
        let mut any = host.watch(&self.api, usize::MAX);
        any |= host.pass(&mut self.api, self.now);
        while host.work(false, self.now) {
            any = true;
        }
        any
    }

    /// What holds at the end.
    fn check_end(&self) {
        for session in self.api.objects.values() {
            let name = api::uid(session);
            let status = session.status.as_ref().unwrap();
            let reason = status.state_reason.as_deref().unwrap_or_default();
            let is = |type_, reason| conditions::is(&status.conditions, type_, Some(true), reason);
            assert_eq!(session.metadata.deletion_timestamp, None, "{name} was deleted and is still there");
            let runs = self.hosts.iter().filter(|host| host.runs(&name)).count();
            if session.is_finished() {
                let said = is(SessionCondition::Finished, Reason::Closed) || !reason.is_empty();
                assert!(said && runs == 0, "{name} is over: {status:?}");
            } else if session.server_name().is_some() {
                let ready = is(SessionCondition::Ready, Reason::AcceptingClients);
                assert!(ready && runs == 1, "{name} is bound: {status:?}");
            } else {
                assert!(session.spec.enqueue_request || !status.attempts.is_empty(), "{name} was to wait for nothing");
                assert!(reason.starts_with("0 of 3 servers fit: "), "{name} waits: {status:?}");
                for (host, room) in self.hosts.iter().zip(ROOM) {
                    let free = is_free(room, &host.owners(), &session.spec.owner);
                    assert!(!free, "{name} waits, and {} is free: {reason}", host.server_name());
                }
            }
        }
    }
}

impl Host {
    fn server_name(&self) -> &str {
        self.server.metadata.name.as_deref().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn no_host_runs_too_much_and_every_session_ends_somewhere(
        acts in proptest::collection::vec(act(), 1..250),
        is_calm in any::<bool>(),
    ) {
        let mut world = World::new();
        // In half of the runs one controller lives through it all: then it may not even bind too many.
        for act in acts.into_iter().filter(|act| !is_calm || !matches!(act, Act::Second(_) | Act::Restart(_))) {
            world.carry_out(act);
            world.check();
        }
        world.settle();
        world.check_end();
    }
}
