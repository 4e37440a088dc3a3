//! The order among servers that fit.

use std::sync::Arc;

use super::Occupied;
use crate::api::session::PlacementPolicy;

/// What counts before the name. Less is better. The order of the fields is the order of what counts.
///
/// Small, because thousands are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    sessions: i32,
    load: u32,
}

impl Rank {
    /// Spread: the fewest sessions, then the lowest load. Pack: the most sessions, and the load does not matter.
    pub fn of(server: Occupied<'_>, policy: PlacementPolicy) -> Self {
        let (console, virtual_) = server.sessions();
        let sessions = i32::try_from(console + virtual_).unwrap_or(i32::MAX);
        match policy {
            PlacementPolicy::Spread => Self { sessions, load: server.candidate.load() },
            PlacementPolicy::Pack => Self { sessions: -sessions, load: 0 },
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
