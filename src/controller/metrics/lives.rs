//! How long sessions take until they accept clients, and how they end: what is seen of them while we lead.
//!
//! Plain data: a change of the cache goes in, what it shows for the first time comes out. Sessions that were ready or over
//! when the term began were told of by the leader of that time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::api::session::SessionType;

/// Why sessions end: reasons of the condition Finished, and a delete without it.
pub const REASONS: [&str; 7] = ["Closed", "ForceClosed", "EndedOnHost", "Expired", "ServerLost", "Failed", DELETED];
const DELETED: &str = "Deleted";
/// What no version of ours writes.
const OTHER: &str = "Other";

/// Something that is seen of a session once.
#[derive(Debug, PartialEq)]
pub enum Sight {
    /// It accepts clients for the first time, so long after it was made.
    Ready(SessionType, Duration),
    /// It is over, for this reason.
    Over(&'static str),
}

/// What is known of the sessions.
#[derive(Default)]
pub struct Lives {
    seen: HashMap<String, Seen>,
    has_list: bool,
}

struct Seen {
    /// When it was first seen, if that was right after it was made.
    begun: Option<Instant>,
    was_ready: bool,
    is_over: bool,
}

impl Lives {
    /// An object is new or changed.
    pub fn applied(&mut self, session: &DcvSession, now: Instant, wall: Timestamp) -> Vec<Sight> {
        let is_ready = conditions::is_true(session.conditions(), SessionCondition::Ready);
        // A session that does not answer now has been created all the same.
        let was_ready = is_ready || conditions::is_true(session.conditions(), SessionCondition::Created);
        let is_over = session.is_finished();
        let first = !self.seen.contains_key(&session.uid().unwrap_or_default());
        let is_new = self.has_list && first;
        let seen = self.seen.entry(session.uid().unwrap_or_default()).or_insert_with(|| Seen {
            begun: is_new.then_some(now),
            // Of what was so when the term began nothing is told.
            was_ready: was_ready && !is_new,
            is_over: is_over && !is_new,
        });
        let mut sights = Vec::new();
        if is_ready && !seen.was_ready {
            let begun = seen.begun.filter(|_| !first).map(|begun| now.duration_since(begun));
            let took = begun.unwrap_or_else(|| age(session, wall));
            sights.push(Sight::Ready(session.spec.type_, took));
        }
        if is_over && !seen.is_over {
            sights.push(Sight::Over(reason(session)));
        }
        seen.was_ready |= was_ready;
        seen.is_over |= is_over;
        sights
    }

    /// An object is gone.
    pub fn deleted(&mut self, uid: &str) -> Vec<Sight> {
        match self.seen.remove(uid) {
            Some(seen) if !seen.is_over => vec![Sight::Over(DELETED)],
            _ => Vec::new(),
        }
    }

    /// All objects were listed anew.
    pub fn listed(&mut self, sessions: &[Arc<DcvSession>], now: Instant, wall: Timestamp) -> Vec<Sight> {
        let mut sights: Vec<_> = sessions.iter().flat_map(|session| self.applied(session, now, wall)).collect();
        let present: std::collections::HashSet<_> = sessions.iter().filter_map(|session| session.uid()).collect();
        let gone: Vec<_> = self.seen.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
        sights.extend(gone.iter().flat_map(|uid| self.deleted(uid)));
        self.has_list = true;
        sights
    }
}

/// By the API server's clock and ours, in whole seconds.
fn age(session: &DcvSession, wall: Timestamp) -> Duration {
    let created = session.creation_timestamp().map_or(wall, |time| time.0);
    Duration::try_from(wall.duration_since(created)).unwrap_or_default()
}

fn reason(session: &DcvSession) -> &'static str {
    let finished = conditions::find(session.conditions(), SessionCondition::Finished);
    let known = |finished: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        REASONS.into_iter().find(|reason| *reason == finished.reason)
    };
    finished.and_then(known).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(uid: &str, conditions: &[(&str, &str)]) -> DcvSession {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, reason)| {
                json!({"type": type_, "status": "True", "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": uid, "namespace": "ns", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
            "status": {"state": "CREATING", "conditions": conditions},
        }))
        .unwrap()
    }

    const READY: (&str, &str) = ("Ready", "AcceptingClients");
    const CREATED: (&str, &str) = ("Created", "Created");

    fn wall(seconds: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_ready_once_and_over_once() {
        let mut lives = Lives::default();
        let now = Instant::now();
        let later = now + Duration::from_millis(40);
        assert_eq!(lives.listed(&[], now, wall(0)), []);
        assert_eq!(lives.applied(&session("a", &[]), now, wall(0)), []);
        let ready = Sight::Ready(SessionType::Virtual, Duration::from_millis(40));
        assert_eq!(lives.applied(&session("a", &[CREATED, READY]), later, wall(1)), [ready]);
        assert_eq!(lives.applied(&session("a", &[CREATED]), later, wall(2)), [], "its server does not answer");
        assert_eq!(lives.applied(&session("a", &[CREATED, READY]), later, wall(3)), []);
        let over = session("a", &[CREATED, ("Finished", "Expired")]);
        assert_eq!(lives.applied(&over, later, wall(4)), [Sight::Over("Expired")]);
        assert_eq!(lives.applied(&over, later, wall(5)), []);
        assert_eq!(lives.deleted("a"), []);
    }

    #[test]
    fn what_was_so_before_the_term_is_not_told_again() {
        let mut lives = Lives::default();
        let now = Instant::now();
        let before = [
            session("ready", &[CREATED, READY]),
            session("unknown", &[CREATED]),
            session("over", &[("Finished", "Closed")]),
            session("young", &[]),
        ];
        assert_eq!(lives.listed(&before.map(Arc::new), now, wall(60)), []);
        assert_eq!(lives.applied(&session("unknown", &[CREATED, READY]), now, wall(61)), []);
        let by_clock = Sight::Ready(SessionType::Virtual, Duration::from_secs(61));
        assert_eq!(lives.applied(&session("young", &[CREATED, READY]), now, wall(61)), [by_clock]);
        let missed = lives.listed(&[Arc::new(session("over", &[("Finished", "Closed")]))], now, wall(62));
        assert_eq!(missed, [Sight::Over(DELETED), Sight::Over(DELETED), Sight::Over(DELETED)]);
    }

    #[test]
    fn a_session_that_was_made_and_ready_unseen_is_told_by_the_clock() {
        let mut lives = Lives::default();
        let now = Instant::now();
        lives.listed(&[], now, wall(0));
        let sights = lives.applied(&session("a", &[CREATED, READY]), now, wall(2));
        assert_eq!(sights, [Sight::Ready(SessionType::Virtual, Duration::from_secs(2))]);
        assert_eq!(lives.deleted("a"), [Sight::Over(DELETED)]);
        assert_eq!(lives.applied(&session("b", &[("Finished", "New")]), now, wall(2)), [Sight::Over(OTHER)]);
    }
}
