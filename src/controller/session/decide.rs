//! What becomes of a session that is bound, closing or finished. Waiting ones are the placer's.
//!
//! Pure: no client, no clock. A session is placed again only after its agent said that nothing is left of it, on proof
//! that the host is dead, or where its policy accepts two instances.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use kube::ResourceExt;

use super::draft::Draft;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::DesiredState;
use crate::api::session::RestartPolicy;
use crate::controller::events::EVENTS;

/// How long after an end it is still news.
const FRESH: SignedDuration = SignedDuration::from_mins(1);

/// Everything the decision may look at, read once at the start of the pass.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The session's server.
    pub host: Host,
    /// The time.
    pub now: Timestamp,
    /// How often a session that failed on a host is tried again.
    pub retries: u32,
    /// How long a delete waits for an unreachable agent.
    pub delete_timeout: SignedDuration,
}

/// What is known of the host a session is bound to.
#[derive(Clone, Debug, PartialEq)]
pub enum Host {
    /// Its agent lives, as far as one can tell.
    Alive,
    /// Its agent is silent.
    Unreachable {
        /// Since when, for people.
        since: Timestamp,
        /// Whether it has been so for long enough to say so of its sessions.
        judged: bool,
    },
    /// It is proved dead, by this.
    Dead(&'static str),
}

/// What a pass leaves behind.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The write, at most one.
    pub step: Step,
    /// What people are told with it.
    pub notice: Option<Notice>,
    /// When to look again without a change.
    pub requeue_after: Option<Duration>,
}

/// A write.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// None.
    Nothing,
    /// This status.
    Status(Box<DcvSessionStatus>),
    /// This status, one of many that may come at once and are therefore spread out.
    Unknown(Box<DcvSessionStatus>),
    /// Let the object go.
    RemoveFinalizer,
    /// Delete the object.
    Delete,
}

/// An event.
#[derive(Debug, PartialEq)]
pub struct Notice {
    /// What was done.
    pub action: &'static str,
    /// Why it ended so.
    pub reason: Reason,
    /// In words.
    pub note: String,
}

impl Plan {
    fn nothing() -> Self {
        Self { step: Step::Nothing, notice: None, requeue_after: None }
    }
    fn step(step: Step) -> Self {
        Self { step, ..Self::nothing() }
    }
    fn status(status: DcvSessionStatus) -> Self {
        Self::step(Step::Status(Box::new(status)))
    }
    fn at(time: Timestamp, now: Timestamp) -> Self {
        let wait = Duration::try_from(time.duration_since(now)).unwrap_or_default();
        // Never at once: clocks differ, and a pass that comes too early must not spin.
        Self { requeue_after: Some(wait.max(Duration::from_millis(100))), ..Self::nothing() }
    }
    fn noting(self, action: &'static str, reason: Reason, note: impl Into<String>) -> Self {
        debug_assert!(EVENTS.contains(&(action, reason)), "{action} {reason:?} is not among the events");
        Self { notice: Some(Notice { action, reason, note: note.into() }), ..self }
    }
}

/// Decides on `session`.
pub fn decide(session: &DcvSession, world: &World) -> Plan {
    if session.metadata.deletion_timestamp.is_some() {
        return deleted(session, world);
    }
    if session.is_finished() {
        return Plan { notice: ended_badly(session, world), ..finished(session, world) };
    }
    if session.spec.desired_state != DesiredState::Running {
        return closing(session, world);
    }
    match session.server_name() {
        None => Plan::nothing(),
        Some(server) => bound(session, server, world),
    }
}

/// Somebody deleted the object. Its agent lets it go; we do where no host can hold the desktop, or after a bounded wait.
fn deleted(session: &DcvSession, world: &World) -> Plan {
    let forced = is_force_closed(session);
    let Some(server) = session.server_name().filter(|_| !session.is_finished() || forced) else {
        return release(session);
    };
    match &world.host {
        Host::Dead(_) => release(session),
        Host::Alive => Plan::nothing(),
        // The agent has said that nothing is left of it.
        Host::Unreachable { .. } if given_up(session).is_some() && !forced => release(session),
        Host::Unreachable { since, .. } => {
            let deletion = session.metadata.deletion_timestamp.as_ref().map_or(world.now, |time| time.0);
            let end = deletion.max(*since) + world.delete_timeout;
            if end > world.now {
                return Plan::at(end, world.now);
            }
            let note =
                format!("server {server} has not answered since {since:.0}: its desktop, if it lives, is left there");
            release(session).noting("CloseSession", Reason::ServerUnreachable, note)
        }
    }
}

fn release(session: &DcvSession) -> Plan {
    if session.has_finalizer() { Plan::step(Step::RemoveFinalizer) } else { Plan::nothing() }
}

/// A finished session changes no more; it is deleted when its time is over.
fn finished(session: &DcvSession, world: &World) -> Plan {
    let held = is_force_closed(session) && session.has_finalizer() && session.server_name().is_some();
    if held {
        return match world.host {
            Host::Dead(_) => release(session),
            // Until its agent has been back, whatever its time to live.
            Host::Alive | Host::Unreachable { .. } => observed(session, world).unwrap_or_else(Plan::nothing),
        };
    }
    if let Some(plan) = observed(session, world) {
        return plan;
    }
    let completed = session.status.as_ref().and_then(|status| status.completion_time.as_ref());
    match (session.spec.ttl_seconds_after_finished, completed) {
        (Some(ttl), Some(completed)) => {
            let end = completed.0 + SignedDuration::from_secs(ttl.into());
            if end <= world.now { Plan::step(Step::Delete) } else { Plan::at(end, world.now) }
        }
        _ => Plan::nothing(),
    }
}

/// What its agent has ended by itself and people should know; agents tell nobody. Said for a short time only, as it is
/// decided anew in each pass, and not where the host is silent: then the end is ours, and was told with it.
fn ended_badly(session: &DcvSession, world: &World) -> Option<Notice> {
    let finished = conditions::find(session.conditions(), SessionCondition::Finished)?;
    let reason = [Reason::Expired, Reason::ServerLost].into_iter().find(|it| finished.reason == it.as_str())?;
    let completed = session.status.as_ref()?.completion_time.as_ref()?.0;
    let fresh = completed + FRESH > world.now && world.host == Host::Alive;
    fresh.then(|| Notice { action: "RunSession", reason, note: finished.message.clone() })
}

fn observed(session: &DcvSession, world: &World) -> Option<Plan> {
    let seen = session.status.as_ref().and_then(|status| status.observed_generation);
    (seen != session.metadata.generation).then(|| Plan::status(Draft::of(session, world.now).observed()))
}

/// Somebody asked for its end and keeps the object.
fn closing(session: &DcvSession, world: &World) -> Plan {
    let draft = Draft::of(session, world.now);
    let Some(server) = session.server_name() else {
        return Plan::status(draft.finished(Reason::Closed, ""));
    };
    if given_up(session).is_some() {
        return Plan::status(draft.finished(Reason::Closed, ""));
    }
    match &world.host {
        Host::Alive => Plan::nothing(),
        Host::Dead(proof) => lost(draft, server, proof),
        Host::Unreachable { since, .. } if session.spec.desired_state == DesiredState::ForceClosed => {
            let text = format!(
                "closed without waiting for server {server}, silent since {since:.0}; its desktop is closed when it is back"
            );
            Plan::status(draft.finished(Reason::ForceClosed, &text))
        }
        Host::Unreachable { since, judged } => unreachable(session, draft, server, *since, *judged),
    }
}

/// It should run.
fn bound(session: &DcvSession, server: &str, world: &World) -> Plan {
    let draft = Draft::of(session, world.now);
    let policy = session.spec.restart_policy;
    if let Host::Dead(proof) = world.host {
        if policy == RestartPolicy::Never {
            return lost(draft, server, proof);
        }
        let text = format!("server {server} is lost ({proof}); the session is placed again");
        let status = draft.given_back(Reason::ServerLost, proof, false, &text);
        return Plan::status(status).noting("RunSession", Reason::ServerLost, text);
    }
    if let Some((reason, words)) = given_up(session) {
        return gave_up(session, draft, server, reason, words, world);
    }
    match &world.host {
        Host::Unreachable { since, judged: true } if policy == RestartPolicy::OnUnreachable => {
            let text = format!("server {server} has not answered since {since:.0}; the session is placed again");
            let status = draft.given_back(Reason::ServerLost, &format!("no answer since {since:.0}"), false, &text);
            Plan::status(status).noting("RunSession", Reason::ServerLost, text)
        }
        Host::Unreachable { since, judged } => unreachable(session, draft, server, *since, *judged),
        Host::Alive | Host::Dead(_) => Plan::nothing(),
    }
}

/// The agent said that nothing is left of this attempt, and why.
fn gave_up(session: &DcvSession, draft: Draft<'_>, server: &str, reason: Reason, words: &str, world: &World) -> Plan {
    let policy = session.spec.restart_policy;
    match reason {
        // No other host would take it either.
        Reason::InvalidSession => {
            let status = draft.hopeless(reason, words);
            Plan::status(status).noting("CreateSession", Reason::InvalidSession, words)
        }
        Reason::Refused | Reason::Failed => {
            let verb = if reason == Reason::Refused { "refused the session" } else { "failed to create the session" };
            let tried = session.status.as_ref().and_then(|status| status.retries).unwrap_or(0);
            let limit = if session.spec.disable_retry_on_failure { 0 } else { world.retries };
            if i64::from(tried) < i64::from(limit) {
                let text = format!("server {server} {verb}: {words}; trying again ({} of {limit})", tried + 1);
                let status = draft.given_back(reason, words, true, &text);
                return Plan::status(status).noting("CreateSession", reason, text);
            }
            let text = if tried > 0 { format!("{words} (after {tried} retries)") } else { words.to_owned() };
            let status = draft.exhausted(reason, words, &text);
            let note = format!("server {server} {verb}: {words}");
            Plan::status(status).noting("CreateSession", Reason::RetriesExhausted, note)
        }
        Reason::Ended if policy == RestartPolicy::Always => {
            let text = format!("the session ended on server {server}: {words}; it is placed again");
            Plan::status(draft.given_back(reason, words, false, &text))
        }
        Reason::Ended => Plan::status(draft.finished(Reason::EndedOnHost, words)),
        _ if policy == RestartPolicy::Never => lost(draft, server, words),
        _ => {
            let text = format!("server {server} lost the session: {words}; it is placed again");
            let status = draft.given_back(Reason::ServerLost, words, false, &text);
            Plan::status(status).noting("RunSession", Reason::ServerLost, text)
        }
    }
}

fn lost(draft: Draft<'_>, server: &str, proof: &str) -> Plan {
    let text = format!("server {server} is lost: {proof}");
    Plan::status(draft.finished(Reason::ServerLost, &text)).noting("RunSession", Reason::ServerLost, text)
}

/// Says that nobody knows, once. Its agent says better when it is back.
fn unreachable(session: &DcvSession, draft: Draft<'_>, server: &str, since: Timestamp, judged: bool) -> Plan {
    let said = conditions::is(session.conditions(), SessionCondition::Ready, None, Reason::ServerUnreachable);
    if said || !judged {
        return Plan::nothing();
    }
    let text =
        format!("server {server} has not answered since {since:.0}; the session's state is known when it is back");
    Plan::step(Step::Unknown(Box::new(draft.unknown(&text))))
}

/// Why the agent gave this attempt up, if it did, and its words.
fn given_up(session: &DcvSession) -> Option<(Reason, &str)> {
    let created = conditions::find(session.conditions(), SessionCondition::Created)?;
    let reason = [Reason::Refused, Reason::Failed, Reason::InvalidSession, Reason::Ended, Reason::ServerLost]
        .into_iter()
        .find(|reason| created.status == "False" && created.reason == reason.as_str())?;
    Some((reason, &created.message))
}

fn is_force_closed(session: &DcvSession) -> bool {
    conditions::is(session.conditions(), SessionCondition::Finished, Some(true), Reason::ForceClosed)
}

/// `namespace/name`, for logs.
pub fn describe(session: &DcvSession) -> String {
    format!("{}/{}", session.namespace().unwrap_or_default(), session.name_any())
}
