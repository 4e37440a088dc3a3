//! What would become of sessions if they were asked for now: a copy of what is known, in which places are taken and given
//! to nobody.
//!
//! The same ledger and the same checks as for a promise, and the words of `kubectl dcv explain`. Whatever is tried, nothing
//! outside changes: no other call finds a place taken by it, not even for a moment.

use std::collections::BTreeMap;

use super::promise::Shortage;
use crate::api::DcvSession;
use crate::api::session::PlacementPolicy;
use crate::placement;
use crate::placement::Ledger;
use crate::placement::Report;
use crate::placement::Request;
use crate::placement::Unplaceable;
use crate::requirement::Dialect;

/// An attempt, where it does not matter which.
const ATTEMPT: i32 = 1;

/// A copy of what is known, for one tenant.
pub struct Trial {
    ledger: Ledger,
    queued: usize,
    namespace: String,
    namespace_labels: BTreeMap<String, String>,
    taken: usize,
}

/// What would become of a session.
pub struct Outlook {
    /// Whether it would be accepted.
    pub verdict: Result<Accepted, Shortage>,
    /// Why.
    pub report: Report,
}

/// What a session would be accepted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A place on the server of this name.
    Place(String),
    /// A place in the queue.
    Queue,
}

impl Trial {
    /// A trial over this ledger, with so many in the queue.
    pub fn new(ledger: Ledger, queued: usize, namespace: String, namespace_labels: BTreeMap<String, String>) -> Self {
        Self { ledger, queued, namespace, namespace_labels, taken: 0 }
    }

    /// What would become of `session`, after those tried before. Looks at every server.
    ///
    /// # Errors
    /// When it can be placed nowhere, whatever the servers are like.
    pub fn attempt(&mut self, session: &DcvSession, queue_size: usize) -> Result<Outlook, Unplaceable> {
        // Whether it may use the whole language was checked with the call.
        let request = Request::of(&session.spec, &self.namespace, &self.namespace_labels, Dialect::Extended)?;
        let report = placement::explain(&self.ledger, &request, PlacementPolicy::Spread);
        let verdict = match &report.server_name {
            Some(server) => {
                self.taken += 1;
                let (owner, type_) = (&session.spec.owner, session.spec.type_);
                self.ledger.reserve(&format!("trial {}", self.taken), ATTEMPT, server, owner, type_);
                Ok(Accepted::Place(server.clone()))
            }
            None if !session.spec.enqueue_request => Err(Shortage::NoServer),
            None if self.queued >= queue_size => Err(Shortage::QueueFull),
            None => {
                self.queued += 1;
                Ok(Accepted::Queue)
            }
        };
        Ok(Outlook { verdict, report })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::promise::Promises;
    use super::*;
    use crate::api::DcvServer;

    fn server(name: &str, room: i32) -> DcvServer {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": name}, "spec": {},
            "status": {"availability": "AVAILABLE", "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room,
                "maxConcurrentSessionsPerUser": -1}},
        }))
        .unwrap()
    }

    fn session(enqueue_request: bool) -> DcvSession {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "x", "uid": "u"},
            "spec": {"owner": "ann", "type": "VIRTUAL", "enqueueRequest": enqueue_request},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_tried_counts_for_the_next_and_for_nobody_else() {
        let promises = Promises::default();
        promises.see_servers([&server("s", 2)].into_iter(), |_| true);
        let now = std::time::Instant::now();
        let held = promises.reserve(&session(false), "red", &BTreeMap::new(), 0, now).ok();
        assert!(held.is_some());
        let mut trial = promises.trial("red", BTreeMap::new(), now);
        let mut verdict = |enqueue_request| trial.attempt(&session(enqueue_request), 1).unwrap().verdict;
        assert_eq!(verdict(false), Ok(Accepted::Place("s".into())), "the other place is promised to a call in flight");
        assert_eq!(verdict(false), Err(Shortage::NoServer));
        assert_eq!(verdict(true), Ok(Accepted::Queue));
        assert_eq!(verdict(true), Err(Shortage::QueueFull));
        assert!(promises.reserve(&session(false), "red", &BTreeMap::new(), 0, now).is_ok(), "nothing is taken");
    }

    #[test]
    fn a_failure_is_explained_with_what_would_help() {
        let promises = Promises::default();
        promises.see_servers([&server("s", 0)].into_iter(), |_| true);
        let mut trial = promises.trial("red", BTreeMap::new(), std::time::Instant::now());
        let report = trial.attempt(&session(false), 1).unwrap().report.to_string();
        assert!(report.starts_with("0 of 1 servers fit: 1 full\nTo get the one server: wait until"), "{report}");
    }
}
