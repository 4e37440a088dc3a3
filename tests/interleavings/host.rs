//! A host and its agent: the product's decisions, over a view of the API server that may be old.

use std::collections::BTreeMap;
use std::sync::Arc;

use dcv_operator::agent::backend::CreateError;
use dcv_operator::agent::backend::HostSession;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::decide;
use dcv_operator::agent::decide::HostAction;
use dcv_operator::agent::decide::Me;
use dcv_operator::agent::decide::World;
use dcv_operator::agent::ledger::Creating;
use dcv_operator::agent::ledger::Ledger;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use dcv_operator::api::session::SessionServer;
use dcv_operator::api::session::SessionType;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::Api;
use crate::api::Event;
use crate::api::uid;

pub struct Host {
    pub server: DcvServer,
    /// What really runs there.
    pub sessions: Vec<HostSession>,
    /// What is being created.
    orders: BTreeMap<String, Order>,
    me: Me,
    ledger: Ledger,
    /// The agent's view of the objects, by uid.
    view: BTreeMap<String, Arc<DcvSession>>,
    position: usize,
}

impl Host {
    pub fn new(server: DcvServer) -> Self {
        let me = Me {
            server_name: server.name_any(),
            server_uid: server.uid().unwrap_or_default(),
            cluster_uid: "cluster".into(),
            boot_id: "boot".into(),
        };
        Self {
            server,
            sessions: Vec::new(),
            orders: BTreeMap::new(),
            me,
            ledger: Ledger::default(),
            view: BTreeMap::new(),
            position: 0,
        }
    }

    /// The owners of all that runs, or is about to.
    pub fn owners(&self) -> Vec<&str> {
        let running = self.sessions.iter().filter(|session| !matches!(session.phase, Phase::Ended(_)));
        let begun = self.orders.values().filter(|order| !self.sessions.iter().any(|session| session.id == order.id));
        running.map(|session| session.owner.as_str()).chain(begun.map(|order| order.owner.as_str())).collect()
    }

    /// Whether the desktop of an object runs, or is about to.
    pub fn runs(&self, uid: &str) -> bool {
        self.sessions.iter().any(|session| session.id == uid && session.phase == Phase::Running)
            || self.orders.contains_key(uid)
    }

    /// Some events of the watch arrive. Returns whether there were any.
    pub fn watch(&mut self, api: &Api, events: usize) -> bool {
        let end = api.events.len().min(self.position.saturating_add(events));
        let arrived = &api.events[self.position..end];
        self.position = end;
        for event in arrived {
            match event {
                Event::Applied(session) => self.know(Arc::clone(session)),
                Event::Deleted(session) => drop(self.view.remove(&uid(session))),
            }
        }
        !arrived.is_empty()
    }

    fn know(&mut self, session: Arc<DcvSession>) {
        let version = |session: &DcvSession| session.resource_version().unwrap().parse::<u64>().unwrap();
        let known = self.view.get(&uid(&session)).map_or(0, |known| version(known));
        if version(&session) >= known {
            self.view.insert(uid(&session), session);
        }
    }

    /// The agent is started anew: what it had begun ends without it, and it lists before it acts.
    pub fn restart(&mut self, api: &Api, now: Timestamp) {
        for order in std::mem::take(&mut self.orders).into_values() {
            self.run(&order, now);
        }
        self.ledger = Ledger::default();
        self.position = api.events.len();
        self.view.clone_from(&api.objects);
    }

    /// One pass. Returns whether anything was done.
    pub fn pass(&mut self, api: &mut Api, now: Timestamp) -> bool {
        let bound: Vec<_> =
            self.view.values().filter(|it| it.server_name() == Some(&self.me.server_name)).cloned().collect();
        let strangers = decide::unbound_markers(&self.sessions, &bound)
            .into_iter()
            .map(|marker| {
                let object = api.objects.get(&marker.uid).map(AsRef::as_ref);
                (marker.uid.clone(), decide::stranger(object, &marker.uid, &self.me.server_name))
            })
            .collect();
        let is_untold = |uid: &str, attempt| {
            bound.iter().any(|session| session.uid().as_deref() == Some(uid) && session.attempt() == attempt)
        };
        let sessions = &self.sessions;
        self.ledger.retain(is_untold, |id| sessions.iter().any(|session| session.id == id));
        let plan = decide::decide(&World {
            now,
            me: &self.me,
            server: &self.server,
            capacity: self.server.status.as_ref().unwrap().capacity.as_ref().unwrap(),
            unhealthy: None,
            address: &SessionServer::default(),
            orphan_policy: decide::OrphanPolicy::Keep,
            owner_pattern: None,
            sessions: &bound,
            host: &self.sessions,
            strangers: &strangers,
            namespaces: &BTreeMap::new(),
            ledger: &self.ledger,
        });
        let mut any = !plan.host.is_empty();
        for action in plan.host {
            self.begin(action, now);
        }
        for write in plan.writes {
            if let Ok(session) = api.write_status(&write.session, &write.status) {
                self.know(session);
                any = true;
            }
        }
        for session in plan.releases {
            any |= api.release(&session).is_ok();
        }
        self.server.status.as_mut().unwrap().other_sessions = plan.other_sessions;
        any
    }

    fn begin(&mut self, action: HostAction, now: Timestamp) {
        match action {
            HostAction::Create(order) => {
                let marker = &order.marker;
                let creating = Creating {
                    uid: marker.uid.clone(),
                    attempt: marker.attempt,
                    owner: order.owner.clone(),
                    is_virtual: order.type_ == SessionType::Virtual,
                    cancelled: false,
                };
                self.ledger.creating.insert(order.id.clone(), creating);
                self.orders.insert(order.id.clone(), *order);
            }
            HostAction::Announce(id) => {
                self.sessions
                    .iter_mut()
                    .filter(|session| session.id == id)
                    .for_each(|session| session.announced = true);
            }
            HostAction::Close(id) => {
                if self.orders.remove(&id).is_some() {
                    self.ledger.create_ended(&id, None, None, now);
                } else {
                    self.ledger.close_began(&id, now);
                }
            }
            HostAction::SetPermissions { id, text } => self.ledger.permissions_ended(&id, text, Ok(()), now),
        }
    }

    fn run(&mut self, order: &Order, now: Timestamp) {
        self.sessions.retain(|session| session.id != order.id);
        self.sessions.push(HostSession {
            id: order.id.clone(),
            owner: order.owner.clone(),
            type_: order.type_,
            marker: Some(order.marker.clone()),
            phase: Phase::Running,
            announced: false,
            num_of_connections: 0,
            last_disconnection_time: None,
            creation_time: Some(now),
        });
    }

    /// The host gets on with what it was told. Returns whether there was anything.
    pub fn work(&mut self, fails: bool, now: Timestamp) -> bool {
        if let Some((id, order)) = self.orders.pop_first() {
            let result = if fails {
                Err(CreateError::Failed("the licence server is away".into()))
            } else {
                self.run(&order, now);
                Ok(())
            };
            self.ledger.create_ended(&id, order.permissions, Some(result), now);
            return true;
        }
        let closing = self.ledger.closing.iter().find(|(_, closing)| closing.running).map(|(id, _)| id.clone());
        let Some(id) = closing else { return false };
        if fails {
            self.ledger.close_ended(&id, Err("busy".into()), now);
        } else {
            self.sessions.retain(|session| session.id != id);
            self.ledger.close_ended(&id, Ok(()), now);
        }
        true
    }

    /// A desktop ends by itself: its user logs out.
    pub fn log_out(&mut self, number: usize) {
        let count = self.sessions.len();
        if let Some(session) = self.sessions.get_mut(number % count.max(1)) {
            session.phase = Phase::Ended("the user logged out".into());
        }
    }
}
