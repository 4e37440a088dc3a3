//! The state of all hosts of one `fake-host`: what is true.
//!
//! Plain data under one lock; knows nothing of HTTP and waits for nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

use super::api::Call;
use super::api::Fault;
use super::api::History;
use super::api::Host;
use super::api::Latency;
use super::api::Manual;
use super::api::Session;
use super::api::State;
use super::fleet::Fleet;
use crate::agent::backend::Order;

/// All hosts.
pub struct World {
    fleet: Fleet,
    hosts: BTreeMap<String, Machine>,
    history: BTreeMap<String, History>,
    /// Number of the next instance, so that a late timer knows whether its instance is still there.
    next: u64,
}

/// One host.
pub struct Machine {
    /// What it is.
    pub is: Host,
    /// How long calls take.
    pub latency: Latency,
    sessions: BTreeMap<String, Instance>,
    faults: Vec<Fault>,
    /// Counts the changes that happened by themselves.
    pub version: watch::Sender<u64>,
    /// Changes with every change.
    pub any: watch::Sender<u64>,
}

struct Instance {
    number: u64,
    session: Session,
}

/// Why a create does not begin.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    Refused(String),
    Failed(String),
}

impl World {
    pub fn new(fleet: Fleet) -> Self {
        Self { fleet, hosts: BTreeMap::new(), history: BTreeMap::new(), next: 1 }
    }

    /// The host of a server. Any name is one's: a host is there from the first time it is spoken of.
    pub fn host(&mut self, server: &str) -> &mut Machine {
        if !self.hosts.contains_key(server) {
            let blueprint = self.fleet.blueprint(server);
            let is = Host {
                capacity: blueprint.capacity,
                host: blueprint.host,
                tags: blueprint.tags,
                boot_id: new_boot_id(),
                unhealthy: None,
            };
            let machine = Machine {
                is,
                latency: blueprint.latency,
                sessions: BTreeMap::new(),
                faults: Vec::new(),
                version: watch::Sender::new(0),
                any: watch::Sender::new(0),
            };
            self.hosts.insert(server.to_owned(), machine);
        }
        self.hosts.get_mut(server).expect("it was made above")
    }

    /// Every session of every host.
    pub fn all(&self) -> BTreeMap<String, Vec<Session>> {
        self.hosts.iter().map(|(server, host)| (server.clone(), host.list())).collect()
    }

    /// What happened to each id.
    pub fn history(&self) -> &BTreeMap<String, History> {
        &self.history
    }

    /// Begins a session. Returns the number of the instance; of the one that is there already, if there is one.
    pub fn begin(&mut self, server: &str, order: &Order, now: Timestamp) -> Result<u64, Denied> {
        let number = self.next;
        let host = self.host(server);
        if let Some(instance) = host.sessions.get(&order.id) {
            return match instance.session.phase {
                State::Preparing | State::Running => Ok(instance.number),
                State::Ended => Err(Denied::Failed("a session of this id has ended here".into())),
            };
        }
        if order.owner == "root" {
            return Err(Denied::Refused("Sessions of root are not allowed".into()));
        }
        if order.owner.starts_with("nobody-") {
            return Err(Denied::Refused("Specified user is not a local user".into()));
        }
        if !host.is.capacity.session_types.contains(&order.type_) {
            return Err(Denied::Refused(format!("{} sessions are not supported", order.type_.as_str())));
        }
        let autorun = order.autorun_file.iter().chain(&order.autorun_file_arguments).cloned().collect();
        let session = Session {
            id: order.id.clone(),
            owner: order.owner.clone(),
            type_: order.type_,
            marker: Some(order.marker.clone()),
            phase: State::Preparing,
            announced: false,
            reason: String::new(),
            num_of_connections: 0,
            last_disconnection_time: None,
            creation_time: now,
            permissions: order.permissions.clone(),
            autorun,
        };
        host.put(number, session);
        self.next += 1;
        let history = self.history.entry(order.id.clone()).or_default();
        history.creates += 1;
        history.now += 1;
        history.most = history.most.max(history.now);
        Ok(number)
    }

    /// The instance accepts clients from now on, if it is still there.
    pub fn run(&mut self, server: &str, id: &str, number: u64) {
        let host = self.host(server);
        if let Some(instance) = host.sessions.get_mut(id).filter(|instance| instance.number == number) {
            instance.session.phase = State::Running;
            host.any.send_modify(|count| *count += 1);
        }
    }

    /// Takes a session away. Nothing is there: nothing happens.
    pub fn close(&mut self, server: &str, id: &str) {
        let Some(instance) = self.host(server).take(id) else { return };
        if instance.session.phase != State::Ended {
            let history = self.history.entry(id.to_owned()).or_default();
            history.closes += 1;
            history.now = history.now.saturating_sub(1);
        }
    }

    /// A session ends by itself. Whether there was one.
    pub fn end(&mut self, server: &str, id: &str, reason: &str, forget: bool) -> bool {
        let host = self.host(server);
        let Some(instance) = host.sessions.get_mut(id) else { return false };
        let was_alive = instance.session.phase != State::Ended;
        instance.session.phase = State::Ended;
        reason.clone_into(&mut instance.session.reason);
        instance.session.num_of_connections = 0;
        if forget {
            host.take(id);
        }
        host.changed();
        if was_alive {
            self.ended(id);
        }
        true
    }

    /// The host restarts.
    pub fn restart(&mut self, server: &str) {
        let host = self.host(server);
        let lost = std::mem::take(&mut host.sessions);
        host.is.boot_id = new_boot_id();
        host.changed();
        for (id, _) in lost.into_iter().filter(|(_, instance)| instance.session.phase != State::Ended) {
            self.ended(&id);
        }
    }

    /// Somebody starts a session by hand.
    pub fn start_by_hand(&mut self, server: &str, id: &str, manual: Manual, now: Timestamp) {
        let number = self.next;
        self.next += 1;
        let session = Session {
            id: id.to_owned(),
            owner: manual.owner,
            type_: manual.type_,
            marker: None,
            phase: State::Running,
            announced: true,
            reason: String::new(),
            num_of_connections: 0,
            last_disconnection_time: None,
            creation_time: now,
            permissions: None,
            autorun: Vec::new(),
        };
        let host = self.host(server);
        host.put(number, session);
        host.changed();
    }

    fn ended(&mut self, id: &str) {
        let history = self.history.entry(id.to_owned()).or_default();
        history.ends += 1;
        history.now = history.now.saturating_sub(1);
    }
}

impl Machine {
    pub fn list(&self) -> Vec<Session> {
        self.sessions.values().map(|instance| instance.session.clone()).collect()
    }

    pub fn session(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.get_mut(id).map(|instance| &mut instance.session)
    }

    /// Phase of the instance of this number; `None`: it is gone.
    pub fn phase(&self, id: &str, number: u64) -> Option<State> {
        self.sessions.get(id).filter(|instance| instance.number == number).map(|instance| instance.session.phase)
    }

    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The fault that the next call of this kind suffers, which is then used up by one.
    pub fn next_fault(&mut self, call: Call) -> Option<Fault> {
        self.faults.retain(|fault| fault.times > 0);
        let fault = self.faults.iter_mut().find(|fault| fault.on == call)?;
        fault.times -= 1;
        Some(fault.clone())
    }

    pub fn connect(&mut self, id: &str, number: i32, now: Timestamp) -> bool {
        let Some(session) = self.session(id) else { return false };
        if number < session.num_of_connections {
            session.last_disconnection_time = Some(now);
        }
        session.num_of_connections = number;
        self.changed();
        true
    }

    /// Something changed that nobody asked for.
    pub fn changed(&mut self) {
        self.version.send_modify(|count| *count += 1);
        self.any.send_modify(|count| *count += 1);
    }

    fn put(&mut self, number: u64, session: Session) {
        self.sessions.insert(session.id.clone(), Instance { number, session });
        self.any.send_modify(|count| *count += 1);
    }

    fn take(&mut self, id: &str) -> Option<Instance> {
        let instance = self.sessions.remove(id);
        self.any.send_modify(|count| *count += 1);
        instance
    }
}

fn new_boot_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
