//! Places promised to sessions that the caches do not show on a server yet, and places in the queue.
//!
//! The controller places; this only keeps the broker from accepting what would fail at once. The same ledger and the same
//! checks, over the broker's own view. Invariant: a promise ends when its session is seen on a server or over, when its
//! request fails, or after a short time.
//!
//! Each tenant has a queue of its own, so that none learns of another or is held up by it. In it are the sessions of the
//! namespace made by any broker that may wait and have no server, those of calls in flight included, but not those that a
//! server is promised to. What other replicas have in flight is seen once it is made, so several replicas can go over the
//! limit by that much.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use kube::ResourceExt;

use super::trial::Trial;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::names;
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

/// Who is where, and what this replica has promised. A clone is the same book.
#[derive(Clone, Default)]
pub struct Promises(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    ledger: Ledger,
    /// Kept promises by uid, oldest first.
    kept: VecDeque<(Instant, String)>,
    queues: Queues,
    last: u64,
}

/// Who waits, as far as it is known.
#[derive(Default)]
struct Queues {
    /// Namespaces of sessions that were seen to wait, by uid.
    waiting: HashMap<String, String>,
    /// How many wait, by namespace: those that were seen, and those of calls in flight.
    lengths: HashMap<String, usize>,
}

impl Queues {
    fn lengthen(&mut self, namespace: &str) {
        *self.lengths.entry(namespace.to_owned()).or_default() += 1;
    }

    fn shorten(&mut self, namespace: &str) {
        if let Some(length) = self.lengths.get_mut(namespace) {
            *length -= 1;
            if *length == 0 {
                self.lengths.remove(namespace);
            }
        }
    }

    /// Takes note of where the session of this uid waits; `None`: it does not.
    fn see(&mut self, uid: &str, namespace: Option<String>) {
        if let Some(before) = self.waiting.remove(uid) {
            self.shorten(&before);
        }
        if let Some(namespace) = namespace {
            self.lengthen(&namespace);
            self.waiting.insert(uid.to_owned(), namespace);
        }
    }

    fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.waiting.keys().filter(|uid| !exists(uid)).cloned().collect();
        for uid in gone {
            self.see(&uid, None);
        }
    }
}

impl Book {
    /// Lets go of promises of whose sessions nothing was heard.
    fn expire(&mut self, now: Instant) {
        while let Some((since, _)) = self.kept.front()
            && now.duration_since(*since) >= LIFETIME
            && let Some((_, uid)) = self.kept.pop_front()
        {
            self.ledger.give_back(&uid, FIRST_ATTEMPT);
        }
    }

    /// How many are in the queue of a namespace.
    fn queued(&self, namespace: &str) -> usize {
        let waits_here = |uid: &str| self.queues.waiting.get(uid).is_some_and(|here| here == namespace);
        let promised = self.kept.iter().filter(|(_, uid)| waits_here(uid)).count();
        self.queues.lengths.get(namespace).copied().unwrap_or(0) - promised
    }

    fn see_session(&mut self, uid: &str, session: Option<&DcvSession>) {
        match session {
            Some(session) => self.ledger.see(session),
            None => self.ledger.forget(uid),
        };
        let waiting = session.filter(|session| is_waiting(session));
        self.queues.see(uid, waiting.map(|session| session.namespace().unwrap_or_default()));
    }
}

/// Whether a broker made the session and it waits for a server.
fn is_waiting(session: &DcvSession) -> bool {
    session.spec.enqueue_request
        && session.server_name().is_none()
        && !session.is_finished()
        && !session.is_closing()
        && session.labels().contains_key(names::CLIENT_LABEL)
}

fn locked(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    // The book changes in single calls that leave it whole, so a panic elsewhere does no harm.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why nothing is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// No server fits now, and the session is not to wait.
    NoServer,
    /// No server fits now, and as many wait as may.
    QueueFull,
}

/// A promise while its session is being made; dropping it takes it back.
pub struct Reservation {
    book: Arc<Mutex<Book>>,
    place: Place,
}

enum Place {
    /// In the queue of a namespace.
    Queue(String),
    Server(Seat),
}

/// A place on a server.
struct Seat {
    /// Stands for the uid that is not known yet.
    key: String,
    server: String,
    owner: String,
    type_: SessionType,
}

impl Reservation {
    /// Holds a place on a server for the session of this uid until it is seen there. In the queue the session itself
    /// stands from now on.
    pub fn keep_for(self, uid: &str, now: Instant) {
        let Place::Server(place) = &self.place else { return };
        let mut book = locked(&self.book);
        // Seen already: then it is counted where it is.
        if !book.ledger.has_place(uid) {
            book.ledger.reserve(uid, FIRST_ATTEMPT, &place.server, &place.owner, place.type_);
            book.kept.push_back((now, uid.to_owned()));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut book = locked(&self.book);
        match &self.place {
            Place::Server(place) => {
                book.ledger.give_back(&place.key, FIRST_ATTEMPT);
            }
            Place::Queue(namespace) => book.queues.shorten(namespace),
        }
    }
}

impl Promises {
    /// Takes note of a session as it is known now.
    pub fn see_session(&self, uid: &str, session: Option<&DcvSession>) {
        locked(&self.0).see_session(uid, session);
    }

    /// Takes note of all sessions there are.
    pub fn see_sessions<'a>(&self, sessions: impl Iterator<Item = &'a DcvSession>, exists: impl Fn(&str) -> bool) {
        let mut book = locked(&self.0);
        for session in sessions {
            book.see_session(&session.uid().unwrap_or_default(), Some(session));
        }
        book.queues.retain(&exists);
        book.ledger.retain_sessions(exists);
    }

    /// Takes note of all servers there are.
    pub fn see_servers<'a>(&self, servers: impl Iterator<Item = &'a DcvServer>, exists: impl Fn(&str) -> bool) {
        let ledger = &mut locked(&self.0).ledger;
        servers.for_each(|server| {
            ledger.set_server(Candidate::of(server, !server.is_silent(), server.is_cordoned(), NewServers::Open));
        });
        ledger.retain_servers(exists);
    }

    /// How many sessions are on a server or promised to it.
    pub fn sessions_on(&self, server: &str, now: Instant) -> u32 {
        let mut book = locked(&self.0);
        book.expire(now);
        let others = book.ledger.server(server).map_or(0, |candidate| candidate.others.sessions());
        book.ledger.occupancy(server).sessions() + others
    }

    /// All of this as it is now, to try sessions of a namespace in.
    pub fn trial(&self, namespace: &str, namespace_labels: BTreeMap<String, String>, now: Instant) -> Trial {
        let mut book = locked(&self.0);
        book.expire(now);
        Trial::new(book.ledger.clone(), book.queued(namespace), namespace.to_owned(), namespace_labels)
    }

    /// Reserves a place for `session` of `namespace`: on a server if one fits now, else in the namespace's queue if it may
    /// wait and fewer than `queue_size` do.
    ///
    /// # Errors
    /// What there is too little of.
    pub fn reserve(
        &self,
        session: &DcvSession,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        queue_size: usize,
        now: Instant,
    ) -> Result<Reservation, Shortage> {
        // Whether it may use the whole language was checked with the call.
        let request = Request::of(&session.spec, namespace, namespace_labels, Dialect::Extended);
        let request = request.map_err(|_| Shortage::NoServer)?;
        let mut book = locked(&self.0);
        book.expire(now);
        let server = book.ledger.choose(&request, PlacementPolicy::Spread);
        if book.ledger.groups() > GROUPS_MAX {
            book.ledger.retain_groups(|_| false);
        }
        let place = match server {
            Some(server) => {
                book.last += 1;
                let key = format!("reservation {}", book.last);
                let (owner, type_) = (session.spec.owner.clone(), session.spec.type_);
                book.ledger.reserve(&key, FIRST_ATTEMPT, &server, &owner, type_);
                Place::Server(Seat { key, server, owner, type_ })
            }
            None if !session.spec.enqueue_request => return Err(Shortage::NoServer),
            None if book.queued(namespace) >= queue_size => return Err(Shortage::QueueFull),
            None => {
                book.queues.lengthen(namespace);
                Place::Queue(namespace.to_owned())
            }
        };
        Ok(Reservation { book: Arc::clone(&self.0), place })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(status: &serde_json::Value) -> DcvSession {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "x", "uid": "u"},
            "spec": {"owner": "ann", "type": "VIRTUAL", "enqueueRequest": false}, "status": status,
        }))
        .unwrap()
    }

    fn server(room: i32) -> DcvServer {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": "s"}, "spec": {},
            "status": {"availability": "AVAILABLE", "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": room,
                "maxConcurrentSessionsPerUser": -1}},
        }))
        .unwrap()
    }

    #[test]
    fn a_promise_counts_until_its_session_is_seen_or_given_up() {
        let promises = Promises::default();
        promises.see_servers([&server(1)].into_iter(), |_| true);
        let waiting = session(&json!({}));
        let start = Instant::now();
        let try_at = |now: Instant| promises.reserve(&waiting, "red", &BTreeMap::new(), 0, now).ok();
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

    #[test]
    fn who_is_promised_a_server_is_not_in_the_queue_and_calls_in_flight_are() {
        let promises = Promises::default();
        let start = Instant::now();
        let queued = |uid: &str, over: &[(&str, serde_json::Value)]| {
            let mut session = session(&json!({}));
            session.metadata.uid = Some(uid.into());
            session.metadata.namespace = Some("red".into());
            session.metadata.labels = Some(BTreeMap::from([(names::CLIENT_LABEL.to_owned(), "c".to_owned())]));
            session.spec.enqueue_request = true;
            let mut value = serde_json::to_value(&session).unwrap();
            for (pointer, new) in over {
                *value.pointer_mut(pointer).unwrap() = new.clone();
            }
            serde_json::from_value::<DcvSession>(value).unwrap()
        };
        let ask = |now| promises.reserve(&queued("new", &[]), "red", &BTreeMap::new(), 2, now);
        let first = ask(start).expect("the queue is empty");
        let second = ask(start).expect("one place is left");
        assert_eq!(ask(start).err(), Some(Shortage::QueueFull));
        let other = promises.reserve(&queued("new", &[]), "blue", &BTreeMap::new(), 2, start);
        assert!(other.is_ok(), "another tenant's queue is another");
        promises.see_session("a", Some(&queued("a", &[])));
        first.keep_for("a", start);
        assert_eq!(ask(start).err(), Some(Shortage::QueueFull), "it counts once, made or being made");
        drop(second);
        assert!(ask(start).is_ok(), "a call that failed leaves the queue");
        // Made by nobody's broker, or not to wait, or over: not in the queue.
        for over in [
            ("/metadata/labels", json!({})),
            ("/spec/enqueueRequest", json!(false)),
            ("/spec/desiredState", json!("Closed")),
        ] {
            promises.see_session("b", Some(&queued("b", &[over])));
            assert!(ask(start).is_ok());
        }
        promises.see_session("b", Some(&queued("b", &[])));
        assert_eq!(ask(start).err(), Some(Shortage::QueueFull));

        promises.see_servers([&server(1)].into_iter(), |_| true);
        let place = ask(start).expect("it does not have to wait");
        promises.see_session("c", Some(&queued("c", &[])));
        place.keep_for("c", start);
        promises.see_session("a", Some(&queued("a", &[("/status", json!({"serverName": "other", "attempt": 1}))])));
        assert!(ask(start).is_ok(), "b waits, and c has its promise");
        assert!(ask(start + LIFETIME).is_ok(), "c is overdue, so its place on the server is free again");
        promises.see_servers([&server(0)].into_iter(), |_| true);
        assert_eq!(ask(start + LIFETIME).err(), Some(Shortage::QueueFull), "and c is in the queue");
        promises.see_sessions(std::iter::empty(), |_| false);
        assert!(ask(start).is_ok());
    }
}
