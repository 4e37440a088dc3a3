//! What the agent says of a session: the whole status, one function per situation.
//!
//! Pure. A session that is already as said comes out unchanged, so it is not written again.

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backend::HostSession;
use super::room::Refusal;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::conditions::condition;
use crate::api::conditions::remove;
use crate::api::conditions::set;
use crate::api::session::SessionServer;
use crate::api::session::SessionState;

/// Longest text of `stateReason` and messages, as the schema has it.
const MAX_TEXT: usize = 4096;

/// What the host runs is READY, and who may reach it where.
pub struct Running<'a> {
    /// The session on the host.
    pub instance: &'a HostSession,
    /// Uid of this server.
    pub server_uid: &'a str,
    /// Where clients reach it.
    pub address: &'a SessionServer,
    /// Generation of the spec that is in force on the host.
    pub generation: Option<i64>,
    /// Why a part of the spec is not in force.
    pub fault: Option<&'a str>,
}

/// The session accepts clients.
pub fn ready(session: &DcvSession, running: &Running<'_>, now: Timestamp) -> DcvSessionStatus {
    let Running { instance, server_uid, address, generation, fault } = running;
    let mut status = begin(session, *generation, now);
    enter(&mut status, SessionState::Ready, now);
    status.state_reason = fault.map(shortened);
    status.server_uid = Some((*server_uid).to_owned());
    status.server = Some((*address).clone());
    status.num_of_connections = Some(instance.num_of_connections);
    if let Some(time) = instance.last_disconnection_time {
        status.last_disconnection_time = Some(Time(seconds(time)));
    }
    let mut say = |type_, reason, message: &str| {
        set(&mut status.conditions, condition(type_, Some(true), reason, message, now, *generation));
    };
    say(SessionCondition::Created, Reason::Created, "");
    say(SessionCondition::Ready, Reason::AcceptingClients, &fault.map(shortened).unwrap_or_default());
    remove(&mut status.conditions, SessionCondition::Reconciling);
    remove(&mut status.conditions, SessionCondition::Stalled);
    status
}

/// The host did not create it, and nothing of it is left there. The controller takes it back.
pub fn not_created(session: &DcvSession, refusal: &Refusal, now: Timestamp) -> DcvSessionStatus {
    let (reason, message) = match refusal {
        Refusal::OfHost(message) => (Reason::Refused, message),
        Refusal::OfSession(message) => (Reason::InvalidSession, message),
        Refusal::Failure(message) => (Reason::Failed, message),
    };
    let message = shortened(message);
    let generation = session.metadata.generation;
    let mut status = begin(session, generation, now);
    status.state_reason = Some(message.clone());
    set(&mut status.conditions, condition(SessionCondition::Created, Some(false), reason, message, now, generation));
    status
}

/// It ran and is over, and is to be placed again. The controller takes it back.
pub fn ended(session: &DcvSession, reason: Reason, message: &str, now: Timestamp) -> DcvSessionStatus {
    let message = shortened(message);
    let generation = session.metadata.generation;
    let mut status = begin(session, generation, now);
    status.state_reason = Some(message.clone());
    status.num_of_connections = Some(0);
    let mut say = |type_, value, text: &str| {
        set(&mut status.conditions, condition(type_, Some(value), reason, text, now, generation));
    };
    say(SessionCondition::Created, false, &message);
    say(SessionCondition::Ready, false, "");
    say(SessionCondition::Reconciling, true, "");
    status
}

/// It is over for good.
pub fn finished(session: &DcvSession, reason: Reason, message: &str, now: Timestamp) -> DcvSessionStatus {
    let message = shortened(message);
    let generation = session.metadata.generation;
    let mut status = begin(session, generation, now);
    enter(&mut status, SessionState::Deleted, now);
    status.state_reason = (!message.is_empty()).then(|| message.clone());
    status.num_of_connections = Some(0);
    status.completion_time = Some(Time(now));
    set(&mut status.conditions, condition(SessionCondition::Finished, Some(true), reason, message, now, generation));
    for type_ in [SessionCondition::Ready, SessionCondition::Reconciling, SessionCondition::Stalled] {
        remove(&mut status.conditions, type_);
    }
    status
}

/// Closing it takes long; `message` is what the host says about that, if anything.
pub fn deleting(session: &DcvSession, message: &str, now: Timestamp) -> DcvSessionStatus {
    let message = shortened(message);
    let generation = session.metadata.generation;
    let mut status = begin(session, generation, now);
    enter(&mut status, SessionState::Deleting, now);
    status.state_reason = (!message.is_empty()).then(|| message.clone());
    let mut say = |type_, value| {
        set(&mut status.conditions, condition(type_, Some(value), Reason::Closing, message.as_str(), now, generation));
    };
    say(SessionCondition::Ready, false);
    say(SessionCondition::Reconciling, true);
    status
}

/// The API server keeps whole seconds; comparing finer ones would find a difference for ever.
pub fn seconds(time: Timestamp) -> Timestamp {
    time - SignedDuration::from_nanos(time.subsec_nanosecond().into())
}

fn begin(session: &DcvSession, generation: Option<i64>, now: Timestamp) -> DcvSessionStatus {
    let mut status = session.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    if status.last_transition_time.is_none() {
        status.last_transition_time = Some(Time(now));
    }
    status
}

fn enter(status: &mut DcvSessionStatus, state: SessionState, now: Timestamp) {
    if status.state != state {
        status.last_transition_time = Some(Time(now));
    }
    status.state = state;
    status.substate = None;
}

fn shortened(text: impl AsRef<str>) -> String {
    text.as_ref().chars().take(MAX_TEXT).collect()
}
