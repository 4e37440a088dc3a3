//! The order among servers that fit.

use std::sync::Arc;

use super::Occupied;
use crate::api::session::PlacementPolicy;

/// What counts before the name. Less is better. The order of the fields is the order of what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    sessions: i64,
    load: i64,
}

impl Rank {
    /// Spread: the fewest sessions, then the lowest load. Pack: the most sessions, and the load does not matter.
    pub fn of(server: Occupied<'_>, policy: PlacementPolicy) -> Self {
        let (console, virtual_) = server.sessions();
        match policy {
            PlacementPolicy::Spread => Self { sessions: console + virtual_, load: server.candidate.load() },
            PlacementPolicy::Pack => Self { sessions: -console - virtual_, load: 0 },
        }
    }
}

/// A server in the order of a policy: by rank, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub rank: Rank,
    pub name: Arc<str>,
    pub number: usize,
}
