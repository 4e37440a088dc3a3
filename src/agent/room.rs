//! Whether the host has room for one session more, and whether it may run it at all.
//!
//! Counts what the host really runs, of every origin, and what is being created: so a stale cache, two leaders or
//! sessions started by hand can over-bind a server but never over-run it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::Selector;
use kube::core::SelectorExt;

use super::backend::HostSession;
use super::backend::Phase;
use super::decide::World;
use super::ledger::Ledger;
use super::spec;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::server::Capacity;
use crate::api::server::Limits;
use crate::api::session::SessionType;

/// Why a session is not created here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This host will not, now or ever: another may.
    OfHost(String),
    /// No host will: the session itself is wrong.
    OfSession(String),
    /// The host tried, and failed: another may do better.
    Failure(String),
}

/// What occupies the host.
#[derive(Debug, Default, PartialEq)]
pub struct Room {
    consoles: i32,
    virtuals: i32,
    virtuals_by_owner: BTreeMap<String, i32>,
}

impl Room {
    /// Counts what runs and what is being created.
    pub fn new(host: &[HostSession], ledger: &Ledger) -> Self {
        let mut room = Self::default();
        for session in host.iter().filter(|session| is_alive(session)) {
            room.take(&session.owner, session.type_);
        }
        for (id, creating) in &ledger.creating {
            if !host.iter().any(|session| session.id == *id) {
                room.take(
                    &creating.owner,
                    if creating.is_virtual { SessionType::Virtual } else { SessionType::Console },
                );
            }
        }
        room
    }

    /// Virtual and console sessions on the host.
    pub fn counts(host: &[HostSession]) -> (i32, i32) {
        let room = Self::new(host, &Ledger::default());
        (room.virtuals, room.consoles)
    }

    /// One more.
    pub fn take(&mut self, owner: &str, type_: SessionType) {
        match type_ {
            SessionType::Console => self.consoles += 1,
            SessionType::Virtual => {
                self.virtuals += 1;
                *self.virtuals_by_owner.entry(owner.to_owned()).or_default() += 1;
            }
        }
    }

    /// Why this session is not created here, if it is not. Cluster administrators may have changed the server since the
    /// bind, so what the controller checked is checked again.
    pub fn refusal(&self, world: &World<'_>, session: &DcvSession) -> Option<Refusal> {
        // What no host takes comes first: it need not be carried from one to the next.
        spec::fault(&session.spec)
            .map(Refusal::OfSession)
            .or_else(|| self.refusal_of_host(world, session).map(Refusal::OfHost))
    }

    fn refusal_of_host(&self, world: &World<'_>, session: &DcvSession) -> Option<String> {
        let spec = &session.spec;
        if let Some(unhealthy) = world.unhealthy {
            return Some(unhealthy.to_owned());
        }
        if !world.server.is_open() {
            return Some("the server is closed".to_owned());
        }
        if world.server.is_cordoned() {
            return Some("the server's Node is cordoned".to_owned());
        }
        if let Some(selector) = &world.server.spec.allowed_namespaces {
            let namespace = session.namespace().unwrap_or_default();
            if !admits(selector, world.namespaces.get(&namespace)) {
                return Some(format!("the server is not for namespace {namespace}"));
            }
        }
        if !world.capacity.session_types.contains(&spec.type_) {
            return Some(format!("the server runs no {} sessions", spec.type_.as_str()));
        }
        if world.owner_pattern.is_some_and(|pattern| !pattern.is_match(&spec.owner)) {
            return Some(format!("the server is not for owner {}", spec.owner));
        }
        self.limit_reached(&limits(world.server, world.capacity), session)
    }

    fn limit_reached(&self, limits: &Limits, session: &DcvSession) -> Option<String> {
        let is_reached = |count: i32, limit: Option<i32>| limit.filter(|limit| *limit >= 0 && count >= *limit);
        if session.spec.type_ == SessionType::Console {
            return (self.consoles > 0).then(|| "the host already has a console session".to_owned());
        }
        if let Some(limit) = is_reached(self.virtuals, limits.max_virtual_sessions) {
            return Some(format!("the host already has {limit} virtual sessions, which is its limit"));
        }
        let owner = &session.spec.owner;
        let of_owner = self.virtuals_by_owner.get(owner).copied().unwrap_or(0);
        is_reached(of_owner, limits.max_concurrent_sessions_per_user)
            .map(|limit| format!("{owner} already has {limit} sessions on the host, which is the limit of an owner"))
    }
}

/// The limits in force: the administrator's where given, else the host's own.
pub fn limits(server: &DcvServer, capacity: &Capacity) -> Limits {
    let over = server.spec.limits.unwrap_or_default();
    Limits {
        max_virtual_sessions: over.max_virtual_sessions.or(Some(capacity.max_virtual_sessions)),
        max_concurrent_sessions_per_user: over
            .max_concurrent_sessions_per_user
            .or(Some(capacity.max_concurrent_sessions_per_user)),
    }
}

/// The smaller of two limits, of which a negative one is none.
pub fn tighter(one: i32, other: i32) -> i32 {
    if one < 0 || other < 0 { one.max(other).max(-1) } else { one.min(other) }
}

fn is_alive(session: &HostSession) -> bool {
    !matches!(session.phase, Phase::Ended(_))
}

/// A selector that cannot be read admits none.
fn admits(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let selector = Selector::try_from(selector.clone());
    labels.zip(selector.ok()).is_some_and(|(labels, selector)| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_of_two_limits_counts_and_a_negative_one_is_none() {
        for (one, other, expected) in
            [(-1, -1, -1), (-1, 3, 3), (3, -1, 3), (2, 3, 2), (0, 3, 0), (0, -1, 0), (-7, -1, -1)]
        {
            assert_eq!(tighter(one, other), expected, "{one} and {other}");
        }
    }
}
