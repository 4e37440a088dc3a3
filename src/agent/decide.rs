//! Decides what an agent does next.
//!
//! Three lists are compared: the objects bound to this server, what the host runs, and what is already under way (the
//! [`Ledger`]). The answer is data, `act` carries it out. `decide` performs no I/O and reads no clock; deciding twice on
//! the same world gives the same plan, so a pass may be repeated or cut off anywhere.

mod others;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use regex::Regex;

use super::backend::CreateError;
use super::backend::HostSession;
use super::backend::Marker;
use super::backend::Order;
use super::backend::Phase;
use super::ledger::Ledger;
use super::report;
use super::report::Running;
use super::room::Refusal;
use super::room::Room;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::server::Capacity;
use crate::api::server::OtherSession;
use crate::api::session::RestartPolicy;
use crate::api::session::SessionServer;
use crate::api::session::SessionState;

pub use others::Stranger;
pub use others::stranger;
pub use others::unbound_markers;
pub use others::was_torn_off;

/// Everything `decide` may look at, read once at the start of the pass.
pub struct World<'a> {
    /// The time, in whole seconds.
    pub now: Timestamp,
    /// Who we are.
    pub me: &'a Me,
    /// Our own object; its status is what we wrote last.
    pub server: &'a DcvServer,
    /// What the host can hold by itself.
    pub capacity: &'a Capacity,
    /// Why no session can be created now.
    pub unhealthy: Option<&'a str>,
    /// Where clients reach sessions.
    pub address: &'a SessionServer,
    /// What names of owners must match.
    pub owner_pattern: Option<&'a Regex>,
    /// What becomes of desktops whose objects are gone.
    pub orphan_policy: OrphanPolicy,
    /// The objects bound to this server.
    pub sessions: &'a [Arc<DcvSession>],
    /// What the host runs.
    pub host: &'a [HostSession],
    /// What became of objects that sessions on the host were made for but that are not bound here, by uid.
    pub strangers: &'a BTreeMap<String, Stranger>,
    /// Labels of namespaces, of those that have sessions to create while the server admits only some.
    pub namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    /// What is under way.
    pub ledger: &'a Ledger,
}

/// What becomes of a desktop of ours whose object is gone without its end having been asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrphanPolicy {
    /// It is kept until an administrator ends it or somebody takes it over.
    #[default]
    Keep,
    /// It is closed once nobody was connected to it for so long, and it was there for the taking as long.
    CloseWhenIdle(Duration),
}

/// Who an agent is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Me {
    /// Name of its `DcvServer`.
    pub server_name: String,
    /// Uid of its `DcvServer`.
    pub server_uid: String,
    /// Uid of the cluster.
    pub cluster_uid: String,
    /// Id of the host's boot.
    pub boot_id: String,
}

/// What a pass leaves behind.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do on the host.
    pub host: Vec<HostAction>,
    /// Statuses to write, each for the object it was computed from.
    pub writes: Vec<Write>,
    /// Objects to take our finalizer off: nothing of them is on the host.
    pub releases: Vec<Arc<DcvSession>>,
    /// Sessions on the host that no object here stands for.
    pub other_sessions: Vec<OtherSession>,
    /// Virtual and console sessions on the host, of every origin.
    pub counts: (i32, i32),
    /// Whether sessions that a restart of the host took are still to be told. Until they are, our object keeps the
    /// earlier boot id, or a restarted agent could not know.
    pub is_unsettled: bool,
    /// When time alone changes the plan.
    pub look_again: Option<Timestamp>,
}

/// One thing to do on the host.
#[derive(Clone, Debug, PartialEq)]
pub enum HostAction {
    /// Create a session.
    Create(Box<Order>),
    /// Note that people know of a session.
    Announce(String),
    /// Close a session, whatever is under way for it.
    Close(String),
    /// Replace the permissions of a session.
    SetPermissions {
        /// Its id.
        id: String,
        /// The text.
        text: Option<String>,
    },
}

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The object as it was looked at.
    pub session: Arc<DcvSession>,
    /// What its status becomes.
    pub status: DcvSessionStatus,
}

/// What there is on the host for an object.
enum Found<'a> {
    Nothing,
    /// Made for it, or taken over by it.
    Ours(&'a HostSession),
    /// To be taken over, as the spec asks.
    ToAdopt(&'a HostSession),
    /// Of this id, but somebody else's.
    Foreign,
}

/// Seconds that closing may take before people are told.
const QUIET_CLOSE_SECONDS: i64 = 2;

/// Decides for every object and every session on the host.
pub fn decide(world: &World<'_>) -> Plan {
    let mut pass = Pass {
        world,
        instances: world.host.iter().map(|instance| (instance.id.as_str(), instance)).collect(),
        bound_uids: world.sessions.iter().filter_map(|session| session.metadata.uid.as_deref()).collect(),
        claimed: BTreeSet::new(),
        closes: BTreeSet::new(),
        room: Room::new(world.host, world.ledger),
        plan: Plan { counts: Room::counts(world.host), ..Plan::default() },
    };
    // The oldest first, so that one too many is the youngest.
    let mut sessions: Vec<_> = world.sessions.iter().collect();
    sessions.sort_by_key(|session| (session.creation_timestamp().map(|Time(time)| time), session.uid()));
    for session in sessions {
        pass.decide_session(session);
    }
    for instance in world.host {
        pass.decide_other(instance);
    }
    // A close that was begun is carried through, whatever became of its reason: half a desktop is nobody's.
    for id in world.ledger.closing.keys() {
        pass.close(id);
    }
    pass.plan
}

struct Pass<'a> {
    world: &'a World<'a>,
    instances: BTreeMap<&'a str, &'a HostSession>,
    bound_uids: BTreeSet<&'a str>,
    /// Ids on the host that a bound object stands for.
    claimed: BTreeSet<&'a str>,
    /// Ids that the plan closes.
    closes: BTreeSet<String>,
    room: Room,
    plan: Plan,
}

impl<'a> Pass<'a> {
    fn decide_session(&mut self, session: &Arc<DcvSession>) {
        let found = self.find(session);
        if let Found::Ours(instance) | Found::ToAdopt(instance) = &found {
            self.claimed.insert(&instance.id);
        }
        if session.is_finished() {
            // The controller may have finished it while we were away; its desktop goes all the same.
            if !self.end_on_host(session, &found) {
                self.release(session);
            }
        } else if session.is_closing() {
            self.close_as_asked(session, &found);
        } else if is_given_up(session) {
            // This attempt is given up, the controller takes it back: it never runs again.
            self.end_on_host(session, &found);
        } else {
            match found {
                Found::Ours(instance) => self.keep(session, instance),
                Found::ToAdopt(instance) => self.adopt(session, instance),
                Found::Nothing | Found::Foreign => self.begin(session, &found),
            }
        }
    }

    /// Somebody wants it gone.
    fn close_as_asked(&mut self, session: &Arc<DcvSession>, found: &Found<'_>) {
        if self.end_on_host(session, found) {
            self.tell_slow_close(session);
        } else if session.metadata.deletion_timestamp.is_some() {
            self.release(session);
        } else {
            self.write(session, report::finished(session, Reason::Closed, "", self.world.now));
        }
    }

    /// It runs, is being made, or has ended by itself.
    fn keep(&mut self, session: &Arc<DcvSession>, instance: &HostSession) {
        let id = &instance.id;
        let was_created = conditions::is_true(session.conditions(), SessionCondition::Created);
        let refused = self.world.ledger.refusals.contains_key(&uid(session));
        if self.world.ledger.closing.contains_key(id) || refused {
            // Closing for a reason that still holds: nobody hands out a desktop that is half closed.
            self.close(id);
            // Only what people saw READY is shown DELETING.
            if was_created {
                self.tell_slow_close(session);
            }
            return;
        }
        match &instance.phase {
            Phase::Preparing if self.world.ledger.creating.contains_key(id) => {}
            Phase::Preparing => self.create(session), // an earlier agent began it
            Phase::Ended(_) if !was_created && !is_of_this_attempt(session, instance) => self.close(id),
            Phase::Ended(reason) => self.over(session, reason, false),
            Phase::Running => match self.expiry(session, Some(instance)) {
                Some(_) => {
                    self.close(id);
                    self.tell_slow_close(session);
                }
                None => self.report_ready(session, instance),
            },
        }
    }

    /// It is asked to take over a session that is there already.
    fn adopt(&mut self, session: &Arc<DcvSession>, instance: &HostSession) {
        let refusal = if instance.owner != session.spec.owner {
            Some("belongs to another owner".to_owned())
        } else if instance.type_ != session.spec.type_ {
            Some(format!("is a {} session", instance.type_.as_str()))
        } else if instance.phase != Phase::Running {
            Some("does not accept clients".to_owned())
        } else {
            let marker = instance.marker.as_ref().filter(|marker| marker.cluster_uid == self.world.me.cluster_uid);
            marker
                .filter(|marker| session.namespace().is_none_or(|namespace| namespace != marker.namespace))
                .map(|marker| format!("was made for namespace {}", marker.namespace))
        };
        match refusal {
            Some(why) => self.refuse(session, &Refusal::OfHost(format!("session {} {why}", instance.id))),
            None => self.report_ready(session, instance),
        }
    }

    /// Nothing of it is on the host.
    fn begin(&mut self, session: &Arc<DcvSession>, found: &Found<'_>) {
        let id = session.id();
        if self.world.ledger.closing.contains_key(id) {
            return self.close(id); // gone from the list, but the close has not said so yet
        }
        if self.world.ledger.creating.contains_key(id) {
            return;
        }
        if conditions::is_true(session.conditions(), SessionCondition::Created) {
            return self.over(session, "the session is no longer on the host", true);
        }
        let told = self.world.ledger.refusals.get(&uid(session));
        if let Some(told) = told.filter(|told| told.attempt == session.attempt()) {
            let refusal = match &told.error {
                CreateError::Refused(message) => Refusal::OfHost(message.clone()),
                CreateError::Failed(message) => Refusal::Failure(message.clone()),
            };
            self.refuse(session, &refusal);
        } else if matches!(found, Found::Foreign) {
            self.refuse(session, &Refusal::OfHost(format!("the host already runs another session {id}")));
        } else if let Some(adopt) = &session.spec.adopt {
            self.refuse(session, &Refusal::OfHost(format!("session {} is not on the host", adopt.session_id)));
        } else if self.is_namespace_unknown(session) {
            self.look_again(self.world.now + SignedDuration::from_secs(1));
        } else if let Some(refusal) = self.room.refusal(self.world, session) {
            self.refuse(session, &refusal);
        } else {
            self.room.take(&session.spec.owner, session.spec.type_);
            self.create(session);
        }
    }

    /// Whether the server admits only some namespaces and it could not be found out whether this is one.
    fn is_namespace_unknown(&self, session: &DcvSession) -> bool {
        let namespace = session.namespace().unwrap_or_default();
        self.world.server.spec.allowed_namespaces.is_some() && !self.world.namespaces.contains_key(&namespace)
    }

    /// It ran and is over, without anybody having asked for that.
    fn over(&mut self, session: &Arc<DcvSession>, message: &str, has_vanished: bool) {
        let rebooted = has_vanished && self.world.rebooted();
        if rebooted {
            self.plan.is_unsettled = true;
        }
        // Closing for a time limit leaves no trace but this: the limit has passed.
        if let Some(limit) = self.expiry(session, None).filter(|_| has_vanished && !rebooted) {
            return self.write(session, report::finished(session, Reason::Expired, &limit, self.world.now));
        }
        let is_placed_again = match session.spec.restart_policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnServerLoss | RestartPolicy::OnUnreachable => rebooted,
            RestartPolicy::Always => true,
        };
        let message = if rebooted { "the host was restarted" } else { message };
        let status = match (is_placed_again, rebooted) {
            (true, true) => report::ended(session, Reason::ServerLost, message, self.world.now),
            (true, false) => report::ended(session, Reason::Ended, message, self.world.now),
            (false, true) => report::finished(session, Reason::ServerLost, message, self.world.now),
            (false, false) => report::finished(session, Reason::EndedOnHost, message, self.world.now),
        };
        self.write(session, status);
    }

    fn report_ready(&mut self, session: &Arc<DcvSession>, instance: &HostSession) {
        let (generation, fault) = self.permissions(session, &instance.id);
        let running = Running {
            instance,
            server_uid: &self.world.me.server_uid,
            address: self.world.address,
            generation,
            fault: fault.as_deref(),
        };
        let status = report::ready(session, &running, self.world.now);
        self.write(session, status);
        if !instance.announced && conditions::is_true(session.conditions(), SessionCondition::Created) {
            self.announce(&instance.id);
        }
    }

    /// Has the host note that people know of a session. What was told but not noted yet is taken for untold only while
    /// nobody was ever connected.
    fn announce(&mut self, id: &str) {
        match self.world.ledger.announcing.get(id) {
            None => self.plan.host.push(HostAction::Announce(id.to_owned())),
            Some(None) => {}
            Some(Some(retry)) if *retry <= self.world.now => self.plan.host.push(HostAction::Announce(id.to_owned())),
            Some(Some(retry)) => self.look_again(*retry),
        }
    }

    /// Sees to the permissions. Returns the generation of the spec that is in force, and what stands against it.
    fn permissions(&mut self, session: &DcvSession, id: &str) -> (Option<i64>, Option<String>) {
        let wanted = &session.spec.permissions;
        let generation = session.metadata.generation;
        let known = self.world.ledger.permissions.get(id).filter(|known| known.text == *wanted);
        match known.map(|known| &known.fault) {
            Some(None) => (generation, None),
            Some(Some((message, retry))) => {
                if *retry <= self.world.now {
                    self.set_permissions(id, wanted.as_deref());
                }
                self.look_again(*retry);
                (generation, Some(format!("the permissions are not in force: {message}")))
            }
            // Taken over from somebody who set what he wanted.
            None if session.spec.adopt.is_some() && wanted.is_none() => (generation, None),
            None => {
                self.set_permissions(id, wanted.as_deref());
                let status = session.status.as_ref();
                let told = status.filter(|status| status.state == SessionState::Ready);
                let earlier = status.and_then(|status| status.observed_generation);
                (earlier.or(generation), told.and_then(|status| status.state_reason.clone()))
            }
        }
    }

    fn set_permissions(&mut self, id: &str, text: Option<&str>) {
        if !self.world.ledger.permitting.contains(id) {
            let text = text.map(str::to_owned);
            self.plan.host.push(HostAction::SetPermissions { id: id.to_owned(), text });
        }
    }

    /// The time limit that has passed, if one has; else notes when the next one will.
    fn expiry(&mut self, session: &DcvSession, instance: Option<&HostSession>) -> Option<String> {
        session.created_time()?;
        let status = session.status.as_ref();
        let connections = instance
            .map_or_else(|| status.and_then(|status| status.num_of_connections), |i| Some(i.num_of_connections));
        let left = instance
            .and_then(|instance| instance.last_disconnection_time)
            .or_else(|| status.and_then(|status| status.last_disconnection_time.as_ref().map(|time| time.0)));
        let drained = self.world.server.drain_end(self.world.now).map(|time| (time, "its server is drained"));
        let limits = session.time_limits(connections.unwrap_or(0), left);
        let (time, text) = limits.into_iter().chain(drained).min()?;
        if time <= self.world.now {
            return Some(format!("the session was closed: {text}"));
        }
        self.look_again(time);
        None
    }

    /// Closes what of this object is on the host. Returns whether anything is, or may be.
    fn end_on_host(&mut self, session: &DcvSession, found: &Found<'_>) -> bool {
        let id = session.id();
        let is_there = matches!(found, Found::Ours(_))
            || (!matches!(found, Found::Foreign | Found::ToAdopt(_)) && self.world.ledger.is_busy(id));
        if is_there {
            self.close(id);
        }
        is_there
    }

    fn close(&mut self, id: &str) {
        match self.world.ledger.closing.get(id) {
            Some(closing) if closing.running => {}
            Some(closing) if closing.not_before > self.world.now => self.look_again(closing.not_before),
            _ if self.world.ledger.creating.get(id).is_some_and(|creating| creating.cancelled) => {}
            _ if self.closes.insert(id.to_owned()) => self.plan.host.push(HostAction::Close(id.to_owned())),
            _ => {}
        }
    }

    fn create(&mut self, session: &DcvSession) {
        let order = self.world.order(session);
        self.plan.host.push(HostAction::Create(Box::new(order)));
    }

    fn refuse(&mut self, session: &Arc<DcvSession>, refusal: &Refusal) {
        self.write(session, report::not_created(session, refusal, self.world.now));
    }

    fn release(&mut self, session: &Arc<DcvSession>) {
        if session.metadata.deletion_timestamp.is_some() && session.has_finalizer() {
            self.plan.releases.push(session.clone());
        }
    }

    fn tell_slow_close(&mut self, session: &Arc<DcvSession>) {
        let closing = self.world.ledger.closing.get(session.id());
        let since = closing.map_or(self.world.now, |closing| closing.since);
        let due = since + SignedDuration::from_secs(QUIET_CLOSE_SECONDS + 1);
        if due <= self.world.now {
            let message = closing.map_or("", |closing| closing.message.as_str());
            self.write(session, report::deleting(session, message, self.world.now));
        } else {
            self.look_again(due);
        }
    }

    fn write(&mut self, session: &Arc<DcvSession>, status: DcvSessionStatus) {
        if session.status.as_ref() != Some(&status) {
            self.plan.writes.push(Write { session: session.clone(), status });
        }
    }

    fn look_again(&mut self, time: Timestamp) {
        if time > self.world.now {
            self.plan.look_again = Some(self.plan.look_again.map_or(time, |earlier| earlier.min(time)));
        }
    }

    fn find(&self, session: &DcvSession) -> Found<'a> {
        let id = session.id();
        let Some(instance) = self.instances.get(id) else { return Found::Nothing };
        // Whatever attempt it was made for: bound here again, it is the same desktop, and nobody's work is thrown away.
        if instance.marker.as_ref().is_some_and(|marker| Some(&marker.uid) == session.metadata.uid.as_ref()) {
            return Found::Ours(instance);
        }
        let adopt = session.spec.adopt.as_ref();
        if !adopt.is_some_and(|adopt| adopt.server_name == self.world.me.server_name && adopt.session_id == id) {
            return Found::Foreign;
        }
        if conditions::is_true(session.conditions(), SessionCondition::Created) {
            Found::Ours(instance)
        } else {
            Found::ToAdopt(instance)
        }
    }
}

fn uid(session: &DcvSession) -> String {
    session.uid().unwrap_or_default()
}

/// Whether this attempt is over: it was refused, failed or ended, and the controller takes the session back.
fn is_given_up(session: &DcvSession) -> bool {
    conditions::find(session.conditions(), SessionCondition::Created).is_some_and(|created| created.status == "False")
}

fn is_of_this_attempt(session: &DcvSession, instance: &HostSession) -> bool {
    instance.marker.as_ref().is_some_and(|marker| marker.attempt == session.attempt())
}

impl World<'_> {
    fn rebooted(&self) -> bool {
        let told = self.server.status.as_ref().map_or("", |status| status.boot_id.as_str());
        !told.is_empty() && told != self.me.boot_id
    }

    fn order(&self, session: &DcvSession) -> Order {
        let spec = &session.spec;
        Order {
            id: session.id().to_owned(),
            marker: Marker {
                cluster_uid: self.me.cluster_uid.clone(),
                namespace: session.namespace().unwrap_or_default(),
                name: session.name_any(),
                uid: session.uid().unwrap_or_default(),
                attempt: session.attempt(),
                owner: spec.owner.clone(),
                boot_id: self.me.boot_id.clone(),
            },
            type_: spec.type_,
            display_name: session.display_name(),
            owner: spec.owner.clone(),
            init_file: spec.init_file.clone(),
            autorun_file: spec.autorun_file.clone(),
            autorun_file_arguments: spec.autorun_file_arguments.clone(),
            max_concurrent_clients: spec.max_concurrent_clients,
            dcv_gl_enabled: spec.dcv_gl_enabled,
            permissions: spec.permissions.clone(),
            storage_root: spec.storage_root.clone(),
            traceparent: session.traceparent().map(str::to_owned),
        }
    }
}

/// Namespaces of the sessions that are yet to be created here: whether the server admits them has to be looked up.
pub fn waiting_namespaces(sessions: &[Arc<DcvSession>]) -> BTreeSet<String> {
    let is_waiting = |session: &&Arc<DcvSession>| {
        conditions::find(session.conditions(), SessionCondition::Created).is_none() && !session.is_finished()
    };
    sessions.iter().filter(is_waiting).filter_map(|session| session.namespace()).collect()
}

#[cfg(test)]
mod tests;
