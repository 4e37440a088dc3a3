//! Which server a session gets, and why not the others.
//!
//! Plain data and pure functions: no client, no clock. Equal input gives equal answers.

mod bits;
mod candidate;
mod explain;
mod filter;
mod fleet;
mod groups;
mod ledger;
pub mod line;
mod report;
mod request;
mod score;
mod texts;

pub use candidate::Candidate;
pub use candidate::NewServers;
pub use candidate::Occupied;
pub use explain::Explanation;
pub use filter::Rejection;
pub use groups::GroupId;
pub use ledger::Ledger;
pub use ledger::Occupancy;
pub use report::Change;
pub use report::Proposal;
pub use report::Reason;
pub use report::Report;
pub use report::explain;
pub use request::Labels;
pub use request::Request;
pub use request::Unplaceable;
pub use request::Wants;

use crate::api::session::PlacementPolicy;

/// The server that [`Ledger::choose`] gives.
///
/// # Errors
/// Why none fits. Finding that out takes longer than choosing; where many sessions wait for the same, ask once.
pub fn place(ledger: &mut Ledger, request: &Request, default: PlacementPolicy) -> Result<String, Explanation> {
    ledger.choose(request, default).ok_or_else(|| Explanation::of(ledger, request))
}

#[cfg(test)]
mod tests;
