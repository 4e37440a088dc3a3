//! The order among servers that fit.

use super::Candidate;
use super::Occupancy;
use super::Request;
use crate::api::session::PlacementPolicy;

/// Less is better. The order of the fields is the order of what counts.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score<'a> {
    avoided: bool,
    sessions: i64,
    load: i64,
    pub name: &'a str,
}

impl<'a> Score<'a> {
    /// Spread: the fewest sessions, then the lowest load. Pack: the most sessions, and the load does not matter.
    pub fn of(candidate: &'a Candidate, occupancy: &Occupancy, request: &Request, policy: PlacementPolicy) -> Self {
        let sessions = i64::from(occupancy.sessions()) + i64::from(candidate.others.sessions());
        let (sessions, load) = match policy {
            PlacementPolicy::Spread => (sessions, candidate.load),
            PlacementPolicy::Pack => (-sessions, 0),
        };
        Self { avoided: request.avoid.contains(&candidate.name), sessions, load, name: &candidate.name }
    }
}
