//! Places promised to sessions that the caches do not show on a server yet.
//!
//! The controller places; this only keeps the broker from accepting what would fail at once. The same ledger and the same
//! checks, over the broker's own view. Invariant: a promise ends when its session is seen on a server or over, when its
//! request fails, or after a short time.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::ServerCondition;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;
use crate::placement::Candidate;
use crate::placement::Ledger;
use crate::placement::NewServers;
use crate::placement::Request;
use crate::requirement::Dialect;

/// How long a promise holds when nothing is heard of its session: the controller binds within milliseconds.
const LIFETIME: Duration = Duration::from_secs(10);

/// Most groups of requests for which it is kept which servers suit them. One that was forgotten is worked out again.
const GROUPS_MAX: usize = 1000;

/// The attempt by which a session gets its first server.
const FIRST_ATTEMPT: i32 = 1;

/// Who is where, and what this replica has promised.
#[derive(Default)]
pub struct Promises(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    ledger: Ledger,
    /// Kept promises by uid, oldest first.
    kept: VecDeque<(Instant, String)>,
    last: u64,
}

fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // The ledger changes in single calls that leave it whole, so a panic elsewhere does no harm.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A promise while its session is being made; dropping it takes it back.
pub struct Reservation {
    book: Arc<Mutex<Book>>,
    /// Stands for the uid that is not known yet.
    key: String,
    server: String,
    owner: String,
    type_: SessionType,
}

impl Reservation {
    /// Holds the place for the session of this uid until it is seen on a server.
    pub fn keep_for(self, uid: &str, now: Instant) {
        let mut book = locked(&self.book);
        // Seen already: then it is counted where it is.
        if !book.ledger.has_place(uid) {
            book.ledger.reserve(uid, FIRST_ATTEMPT, &self.server, &self.owner, self.type_);
            book.kept.push_back((now, uid.to_owned()));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        locked(&self.book).ledger.give_back(&self.key, FIRST_ATTEMPT);
    }
}

impl Promises {
    /// Takes note of a session as it is known now.
    pub fn see_session(&self, uid: &str, session: Option<&DcvSession>) {
        let ledger = &mut locked(&self.0).ledger;
        match session {
            Some(session) => ledger.see(session),
            None => ledger.forget(uid),
        };
    }

    /// Takes note of all sessions there are.
    pub fn see_sessions<'a>(&self, sessions: impl Iterator<Item = &'a DcvSession>, exists: impl Fn(&str) -> bool) {
        let ledger = &mut locked(&self.0).ledger;
        sessions.for_each(|session| {
            ledger.see(session);
        });
        ledger.retain_sessions(exists);
    }

    /// Takes note of all servers there are.
    pub fn see_servers<'a>(&self, servers: impl Iterator<Item = &'a DcvServer>, exists: impl Fn(&str) -> bool) {
        let ledger = &mut locked(&self.0).ledger;
        servers.for_each(|server| {
            let connected = conditions::find(server.conditions(), ServerCondition::AgentConnected);
            let is_reachable = connected.is_none_or(|condition| condition.status != "False");
            ledger.set_server(Candidate::of(server, is_reachable, false, NewServers::Open));
        });
        ledger.retain_servers(exists);
    }

    /// Reserves a place for `session` of `namespace`, if a server fits now.
    pub fn reserve(
        &self,
        session: &DcvSession,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        now: Instant,
    ) -> Option<Reservation> {
        // Whether it may use the whole language was checked with the call.
        let request = Request::of(&session.spec, namespace, namespace_labels, Dialect::Extended).ok()?;
        let mut book = locked(&self.0);
        while let Some((since, _)) = book.kept.front()
            && now.duration_since(*since) >= LIFETIME
            && let Some((_, uid)) = book.kept.pop_front()
        {
            book.ledger.give_back(&uid, FIRST_ATTEMPT);
        }
        let server = book.ledger.choose(&request, PlacementPolicy::Spread)?;
        if book.ledger.groups() > GROUPS_MAX {
            book.ledger.retain_groups(|_| false);
        }
        book.last += 1;
        let key = format!("reservation {}", book.last);
        let (owner, type_) = (session.spec.owner.clone(), session.spec.type_);
        book.ledger.reserve(&key, FIRST_ATTEMPT, &server, &owner, type_);
        Some(Reservation { book: Arc::clone(&self.0), key, server, owner, type_ })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(status: &serde_json::Value) -> DcvSession {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "x", "uid": "u"},
            "spec": {"owner": "ann", "type": "VIRTUAL"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_promise_counts_until_its_session_is_seen_or_given_up() {
        let promises = Promises::default();
        let server: DcvServer = serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": "s"}, "spec": {},
            "status": {"availability": "AVAILABLE", "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": 1,
                "maxConcurrentSessionsPerUser": -1}},
        }))
        .unwrap();
        promises.see_servers([&server].into_iter(), |_| true);
        let waiting = session(&json!({}));
        let start = Instant::now();
        let try_at = |now: Instant| promises.reserve(&waiting, "red", &BTreeMap::new(), now);
        let first = try_at(start).expect("the server is empty");
        assert!(try_at(start).is_none(), "taken by a request in flight");
        drop(first);
        try_at(start).expect("given back").keep_for("u", start);
        promises.see_session("u", Some(&waiting));
        assert!(try_at(start).is_none(), "taken by a session that is not on a server yet");
        let second = try_at(start + LIFETIME).expect("nothing was heard of it");
        second.keep_for("u", start);
        promises.see_session("u", Some(&session(&json!({"serverName": "other", "attempt": 1}))));
        assert!(try_at(start).is_some(), "it went elsewhere");
        promises.see_session("u", Some(&session(&json!({"serverName": "s", "attempt": 1}))));
        assert!(try_at(start).is_none(), "it is there");
        promises.see_session("u", None);
        assert!(try_at(start).is_some(), "it is gone");
        promises.see_servers(std::iter::empty(), |_| false);
        assert!(try_at(start).is_none());
    }
}
