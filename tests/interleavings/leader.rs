//! A controller that leads: the product's decisions, over a view of the API server that may be old.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;

use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use dcv_operator::api::DcvSessionStatus;
use dcv_operator::api::names;
use dcv_operator::api::session::PlacementPolicy;
use dcv_operator::controller::placing;
use dcv_operator::controller::placing::Command;
use dcv_operator::controller::placing::Hitch;
use dcv_operator::controller::placing::Placing;
use dcv_operator::controller::placing::Settled;
use dcv_operator::controller::placing::Step;
use dcv_operator::controller::placing::Written;
use dcv_operator::controller::session::decide;
use dcv_operator::controller::session::draft::Draft;
use dcv_operator::placement::Candidate;
use dcv_operator::placement::NewServers;
use dcv_operator::requirement::Dialect;
use jiff::SignedDuration;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::Api;
use crate::api::Event;
use crate::api::Refusal;
use crate::api::uid;

/// How a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lands, and the answer arrives.
    Lands,
    /// It lands, and the answer takes its time.
    AnswerLate,
    /// It lands, and the answer is lost.
    AnswerLost,
    /// It is taken for lost, and arrives later all the same.
    Late,
    /// It never arrives.
    Lost,
}

/// A write on its way.
#[derive(Clone)]
pub struct Flight {
    uid: Arc<str>,
    /// As it was read, with our finalizer once that is there.
    session: Arc<DcvSession>,
    step: Step,
    /// Its answer was lost or a conflict: only a read can tell.
    asks: bool,
    /// What will be answered.
    answer: Option<Arc<DcvSession>>,
}

pub struct Leader {
    placing: Placing,
    /// The view of its caches, by uid.
    view: BTreeMap<String, Arc<DcvSession>>,
    /// Events of the API server that have reached it.
    position: usize,
    pub flights: Vec<Flight>,
}

impl Leader {
    /// Begins with a list.
    pub fn new(api: &Api, servers: &[DcvServer], now: Timestamp) -> Self {
        let mut leader = Self {
            placing: Placing::new(PlacementPolicy::Spread, Dialect::Extended),
            view: BTreeMap::new(),
            position: 0,
            flights: Vec::new(),
        };
        leader.placing.set_namespace("team", &BTreeMap::new(), now);
        for server in servers {
            leader.see_server(server, now);
        }
        leader.list(api, now);
        leader
    }

    pub fn see_server(&mut self, server: &DcvServer, now: Timestamp) {
        let others = server.status.as_ref().map_or(&[][..], |status| &status.other_sessions);
        self.placing.set_server(Candidate::of(server, true, false, NewServers::Open), others, now);
    }

    /// The watch broke: what it would have said is never said, and everything is listed anew.
    pub fn list(&mut self, api: &Api, now: Timestamp) {
        self.position = api.events.len();
        self.view.clone_from(&api.objects);
        let present: HashSet<&str> = self.view.keys().map(String::as_str).collect();
        self.placing.retain_sessions(|uid| present.contains(uid));
        for session in self.view.values() {
            self.placing.see(Arc::clone(session), now);
        }
    }

    /// Some events of the watch arrive. Returns whether there were any.
    pub fn watch(&mut self, api: &Api, events: usize, now: Timestamp) -> bool {
        let end = api.events.len().min(self.position.saturating_add(events));
        let arrived = &api.events[self.position..end];
        self.position = end;
        for event in arrived {
            match event {
                Event::Applied(session) => {
                    self.view.insert(uid(session), Arc::clone(session));
                    self.placing.see(Arc::clone(session), now);
                }
                Event::Deleted(session) => {
                    self.view.remove(&uid(session));
                    self.placing.forget(&uid(session));
                }
            }
        }
        !arrived.is_empty()
    }

    /// Decides on waiting sessions. Returns whether anything is to be done.
    pub fn place(&mut self, now: Timestamp) -> bool {
        let commands = self.placing.decide(now);
        let any = !commands.is_empty();
        self.flights.extend(commands.into_iter().map(|Command { uid, session, step }| {
            assert!(session.uid().as_deref() == Some(&*uid));
            Flight { uid, session, step, asks: false, answer: None }
        }));
        let busy: HashSet<&Arc<str>> = self.flights.iter().map(|flight| &flight.uid).collect();
        assert_eq!(busy.len(), self.flights.len(), "a session has one write on its way");
        any
    }

    /// A pass over a session that is bound, closing or finished. Returns whether it wrote.
    pub fn reconcile(&self, uid: &str, api: &mut Api, now: Timestamp) -> bool {
        let Some(session) = self.view.get(uid) else { return false };
        let delete_timeout = SignedDuration::from_mins(10);
        let world = decide::World { host: decide::Host::Alive, now, retries: 2, delete_timeout };
        match decide::decide(session, &world).step {
            decide::Step::Nothing => false,
            decide::Step::Status(status) | decide::Step::Unknown(status) => api.write_status(session, &status).is_ok(),
            decide::Step::RemoveFinalizer => api.release(session).is_ok(),
            decide::Step::Delete => unreachable!("no session here has a time to live"),
        }
    }

    pub fn reconcile_all(&self, api: &mut Api, now: Timestamp) -> bool {
        self.view.keys().fold(false, |any, uid| self.reconcile(uid, api, now) | any)
    }

    /// Something happens to a write on its way; one that will arrive later joins `orphans`.
    pub fn fly(&mut self, number: usize, fate: Fate, api: &mut Api, orphans: &mut Vec<Flight>, now: Timestamp) {
        if self.flights.is_empty() {
            return;
        }
        let mut flight = self.flights.swap_remove(number % self.flights.len());
        if fate == Fate::Late && flight.answer.is_none() && !flight.asks {
            orphans.push(flight.clone());
        }
        match flight.fly(fate, api, now) {
            Some(written) => self.placing.settle(&flight.uid, written, now),
            None => self.flights.push(flight),
        }
    }
}

impl Flight {
    /// What has become of it, once that is known.
    pub fn fly(&mut self, fate: Fate, api: &mut Api, now: Timestamp) -> Option<Written> {
        if let Some(session) = self.answer.take() {
            let is_bind = matches!(self.step, Step::Bind { .. });
            return Some(if is_bind { Written::Bound(session) } else { Written::Told(session) });
        }
        match &self.step {
            Step::Bind { server, .. } if self.asks => {
                let stored = api.objects.get(&*self.uid);
                match placing::settled(&self.session, server, stored.map(AsRef::as_ref)) {
                    Settled::Bound => stored.cloned().map(Written::Bound),
                    Settled::Gone => Some(Written::Gone),
                    Settled::Overtaken => Some(self.not_bound(stored.cloned())),
                    Settled::Unmoved => {
                        self.asks = false;
                        None
                    }
                }
            }
            Step::Bind { .. } if !self.session.has_finalizer() => {
                let result = api.write(&self.session, |session| {
                    session.finalizers_mut().push(names::SESSION_FINALIZER.to_owned());
                });
                match result {
                    Ok(session) => {
                        self.session = session;
                        None
                    }
                    Err(Refusal::NotFound) => Some(Written::Gone),
                    Err(Refusal::Conflict) => Some(self.not_bound(None)),
                }
            }
            Step::Bind { server, server_uid, session_id } => {
                let status = Draft::of(&self.session, now).bound(server, server_uid, session_id.clone());
                match sent(&self.session, &status, fate, api) {
                    Ok(Some(session)) => self.answered(session, fate, now, api),
                    Err(Refusal::NotFound) => Some(Written::Gone),
                    Ok(None) | Err(Refusal::Conflict) => {
                        self.asks = true;
                        None
                    }
                }
            }
            Step::Tell(status, _) => match sent(&self.session, status, fate, api) {
                Ok(Some(session)) => self.answered(session, fate, now, api),
                Ok(None) => Some(Written::NotTold(Hitch::Failed)),
                Err(Refusal::NotFound) => Some(Written::Gone),
                Err(Refusal::Conflict) => Some(Written::NotTold(Hitch::Overtaken)),
            },
        }
    }

    fn answered(&mut self, session: Arc<DcvSession>, fate: Fate, now: Timestamp, api: &mut Api) -> Option<Written> {
        self.answer = Some(session);
        if fate == Fate::AnswerLate { None } else { self.fly(fate, api, now) }
    }

    fn not_bound(&self, session: Option<Arc<DcvSession>>) -> Written {
        Written::NotBound(self.session.attempt() + 1, session, Hitch::Overtaken)
    }
}

/// Sends a status; `None`: there is no answer.
fn sent(
    session: &DcvSession,
    status: &DcvSessionStatus,
    fate: Fate,
    api: &mut Api,
) -> Result<Option<Arc<DcvSession>>, Refusal> {
    match fate {
        Fate::Lands | Fate::AnswerLate => api.write_status(session, status).map(Some),
        Fate::AnswerLost => {
            let _ = api.write_status(session, status);
            Ok(None)
        }
        Fate::Late | Fate::Lost => Ok(None),
    }
}
