//! The statuses the controller writes: one function for each situation, which computes all of it.
//!
//! Pure. Whatever is written, conditions, `observedGeneration` and times ride in the same write.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::Attempt;
use crate::api::session::SessionState;
use crate::api::session::SessionSubstate;

/// Attempts kept in a status, as its schema bounds them.
const ATTEMPTS_KEPT: usize = 5;
/// Longest reason a status takes, in characters.
const TEXT_LIMIT: usize = 4096;

/// A status in the making.
pub struct Draft<'a> {
    session: &'a DcvSession,
    status: DcvSessionStatus,
    now: Timestamp,
}

impl<'a> Draft<'a> {
    /// Begins with the status as it is.
    pub fn of(session: &'a DcvSession, now: Timestamp) -> Self {
        Self { session, status: session.status.clone().unwrap_or_default(), now }
    }

    /// Waits because nothing fits.
    pub fn waiting(mut self, text: &str) -> DcvSessionStatus {
        self.set(SessionCondition::Scheduled, Some(false), Reason::NoServerFits, text);
        self.set(SessionCondition::Ready, Some(false), Reason::WaitingForServer, text);
        self.set(SessionCondition::Reconciling, Some(true), Reason::WaitingForServer, text);
        self.state(SessionState::Creating, Some(SessionSubstate::SessionPlacing), Some(text))
    }

    /// Has a server, whose agent is to create the desktop, or to take over the one with `session_id`.
    pub fn bound(mut self, server_name: &str, server_uid: &str, session_id: Option<String>) -> DcvSessionStatus {
        let text = format!("bound to server {server_name}");
        // What an earlier attempt came to says nothing of this one, and an agent would take it for a refusal.
        conditions::remove(&mut self.status.conditions, SessionCondition::Created);
        self.set(SessionCondition::Scheduled, Some(true), Reason::Bound, &text);
        self.set(SessionCondition::Ready, Some(false), Reason::Preparing, &text);
        self.set(SessionCondition::Reconciling, Some(true), Reason::Preparing, &text);
        self.status.server_name = Some(server_name.to_owned());
        self.status.server_uid = Some(server_uid.to_owned());
        self.status.session_id = session_id.or_else(|| self.session.uid());
        self.status.server = None;
        self.status.attempt = Some(self.session.attempt().saturating_add(1));
        self.state(SessionState::Creating, Some(SessionSubstate::PendingPreparation), None)
    }

    /// Given back by its server: it waits again. `words` are the host's, `counted` is whether this
    /// is a retry; one that has run may be retried as often as a new one.
    pub fn given_back(mut self, reason: Reason, words: &str, counted: bool, text: &str) -> DcvSessionStatus {
        self.unbind(reason, words);
        conditions::remove(&mut self.status.conditions, SessionCondition::Created);
        self.status.retries = counted.then(|| self.status.retries.unwrap_or(0).saturating_add(1));
        self.set(SessionCondition::Scheduled, Some(false), Reason::Retrying, text);
        self.set(SessionCondition::Ready, Some(false), Reason::WaitingForServer, text);
        self.set(SessionCondition::Reconciling, Some(true), Reason::Retrying, text);
        self.state(SessionState::Creating, Some(SessionSubstate::SessionPlacing), Some(text))
    }

    /// Failed for good after its last attempt.
    pub fn exhausted(mut self, reason: Reason, words: &str, text: &str) -> DcvSessionStatus {
        self.unbind(reason, words);
        self.failed(Reason::RetriesExhausted, text)
    }

    /// Failed for good on the first host, as no other would take it.
    pub fn hopeless(mut self, reason: Reason, words: &str) -> DcvSessionStatus {
        self.unbind(reason, words);
        self.failed(reason, words)
    }

    /// Failed for good. `text` is what a REST client would be told.
    pub fn failed(mut self, stalled: Reason, text: &str) -> DcvSessionStatus {
        conditions::remove(&mut self.status.conditions, SessionCondition::Ready);
        conditions::remove(&mut self.status.conditions, SessionCondition::Reconciling);
        if stalled == Reason::NoServerFits {
            self.set(SessionCondition::Scheduled, Some(false), Reason::NoServerFits, text);
        }
        self.set(SessionCondition::Finished, Some(true), Reason::Failed, text);
        self.set(SessionCondition::Stalled, Some(true), stalled, text);
        self.status.completion_time = Some(Time(self.now));
        self.state(SessionState::Unknown, None, Some(text))
    }

    /// Over, and not a failure.
    pub fn finished(mut self, reason: Reason, text: &str) -> DcvSessionStatus {
        for gone in [SessionCondition::Ready, SessionCondition::Reconciling, SessionCondition::Stalled] {
            conditions::remove(&mut self.status.conditions, gone);
        }
        self.set(SessionCondition::Finished, Some(true), reason, text);
        self.status.completion_time = Some(Time(self.now));
        self.state(SessionState::Deleted, None, Some(text).filter(|text| !text.is_empty()))
    }

    /// Nobody knows: its server does not answer.
    pub fn unknown(mut self, text: &str) -> DcvSessionStatus {
        self.set(SessionCondition::Ready, None, Reason::ServerUnreachable, text);
        self.set(SessionCondition::Reconciling, Some(true), Reason::ServerUnreachable, text);
        self.state(SessionState::Unknown, None, Some(text))
    }

    /// The same, for the current generation. How it ended is true of that too: who waits for a condition asks the condition
    /// which generation it is of.
    pub fn observed(mut self) -> DcvSessionStatus {
        let generation = self.session.metadata.generation;
        for type_ in [SessionCondition::Finished, SessionCondition::Stalled] {
            if let Some(condition) = conditions::find_mut(&mut self.status.conditions, type_) {
                condition.observed_generation = generation;
            }
        }
        self.status.observed_generation = generation;
        self.status
    }

    fn set(&mut self, type_: impl Into<&'static str>, status: Option<bool>, reason: Reason, text: &str) {
        let generation = self.session.metadata.generation;
        let new = conditions::condition(type_, status, reason, text, self.now, generation);
        let type_ = new.type_.clone();
        conditions::set(&mut self.status.conditions, new);
        // The schema's default has no better time than the epoch.
        for condition in &mut self.status.conditions {
            if condition.type_ == type_ && condition.last_transition_time.0 == Timestamp::UNIX_EPOCH {
                condition.last_transition_time = Time(self.now);
            }
        }
    }

    fn unbind(&mut self, reason: Reason, words: &str) {
        self.status.attempts.push(Attempt {
            server_name: self.status.server_name.take().unwrap_or_default(),
            time: Time(self.now),
            reason: reason.as_str().to_owned(),
            message: clipped(words),
        });
        let surplus = self.status.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.status.attempts.drain(..surplus);
        self.status.server_uid = None;
        self.status.session_id = None;
        self.status.server = None;
        self.status.num_of_connections = None;
    }

    fn state(
        mut self,
        state: SessionState,
        substate: Option<SessionSubstate>,
        reason: Option<&str>,
    ) -> DcvSessionStatus {
        let unset = self.status.last_transition_time.as_ref().is_none_or(|it| it.0 == Timestamp::UNIX_EPOCH);
        if unset || self.status.state != state {
            self.status.last_transition_time = Some(Time(self.now));
        }
        self.status.state = state;
        self.status.substate = substate;
        self.status.state_reason = reason.map(clipped);
        self.observed()
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(TEXT_LIMIT).collect()
}
