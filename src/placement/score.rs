//! The order among servers that fit.

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
        Self { sessions, load: server.candidate.load() }.by(policy)
    }

    /// Of a rank for Spread the one for `policy`.
    pub fn by(self, policy: PlacementPolicy) -> Self {
        match policy {
            PlacementPolicy::Spread => self,
            PlacementPolicy::Pack => Self { sessions: -self.sessions, load: 0 },
        }
    }

    /// Of a rank for Spread the load, coarsely: greater for no lesser load, and different for loads a quarter apart.
    pub fn load_class(self) -> u32 {
        let load = u64::from(self.load) + 1;
        let octave = load.ilog2();
        // The two bits below the highest.
        let quarter = (load << 2 >> octave) & 3;
        octave * 4 + u32::try_from(quarter).unwrap_or(0)
    }

    /// Of a rank for Spread the sessions.
    pub fn sessions(self) -> i32 {
        self.sessions
    }
}

/// A server in the order of a policy: by rank, then by name, for which a number stands that is greater for greater names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub rank: Rank,
    pub name: u64,
    pub number: usize,
}
