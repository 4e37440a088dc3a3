//! An API server as far as sessions are concerned: versions, finalizers, and a record of every change for those who watch.

use std::collections::BTreeMap;
use std::sync::Arc;

use dcv_operator::api::DcvSession;
use dcv_operator::api::DcvSessionStatus;
use dcv_operator::api::names;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// What a watch says.
#[derive(Clone)]
pub enum Event {
    Applied(Arc<DcvSession>),
    Deleted(Arc<DcvSession>),
}

/// Why a write was not carried out.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    NotFound,
    Conflict,
}

#[derive(Default)]
pub struct Api {
    /// By uid.
    pub objects: BTreeMap<String, Arc<DcvSession>>,
    /// Everything that happened.
    pub events: Vec<Event>,
    version: u64,
}

impl Api {
    /// Stores a change, unless the object is not as it was when the change was thought of.
    pub fn write(
        &mut self,
        seen: &DcvSession,
        change: impl FnOnce(&mut DcvSession),
    ) -> Result<Arc<DcvSession>, Refusal> {
        let stored = self.objects.get(&uid(seen)).ok_or(Refusal::NotFound)?;
        if stored.resource_version() != seen.resource_version() {
            return Err(Refusal::Conflict);
        }
        let mut new = stored.as_ref().clone();
        change(&mut new);
        if new == **stored {
            return Ok(Arc::clone(stored));
        }
        Ok(self.put(new))
    }

    pub fn write_status(&mut self, seen: &DcvSession, status: &DcvSessionStatus) -> Result<Arc<DcvSession>, Refusal> {
        self.write(seen, |session| {
            assert!(status.attempt >= session.status.as_ref().and_then(|it| it.attempt), "an attempt never decreases");
            session.status = Some(status.clone());
        })
    }

    /// Takes our finalizer off, as the agent and the controller may.
    pub fn release(&mut self, seen: &DcvSession) -> Result<(), Refusal> {
        self.write(seen, |session| session.finalizers_mut().retain(|it| it != names::SESSION_FINALIZER)).map(drop)
    }

    /// What a user does, whose calls hit whatever there is.
    pub fn change(&mut self, uid: &str, change: impl FnOnce(&mut DcvSession)) {
        if let Some(stored) = self.objects.get(uid) {
            let mut new = stored.as_ref().clone();
            change(&mut new);
            new.metadata.generation = Some(new.metadata.generation.unwrap_or(0) + 1);
            self.put(new);
        }
    }

    pub fn delete(&mut self, uid: &str, now: Timestamp) {
        self.change(uid, |session| {
            session.metadata.deletion_timestamp.get_or_insert(Time(now));
        });
    }

    pub fn put(&mut self, mut session: DcvSession) -> Arc<DcvSession> {
        self.version += 1;
        session.metadata.resource_version = Some(self.version.to_string());
        let session = Arc::new(session);
        if session.metadata.deletion_timestamp.is_some() && session.finalizers().is_empty() {
            self.objects.remove(&uid(&session));
            self.events.push(Event::Deleted(Arc::clone(&session)));
        } else {
            self.objects.insert(uid(&session), Arc::clone(&session));
            self.events.push(Event::Applied(Arc::clone(&session)));
        }
        session
    }
}

pub fn uid(session: &DcvSession) -> String {
    session.uid().unwrap_or_default()
}
