//! Which server a session gets, and why not the others.
//!
//! Plain data and pure functions: no client, no clock. Equal input gives equal answers.

mod filter;
mod ledger;
pub mod line;
mod request;
mod score;

use std::collections::BTreeMap;
use std::fmt;

pub use filter::Candidate;
pub use filter::NewServers;
pub use filter::Rejection;
pub use ledger::Ledger;
pub use ledger::Occupancy;
pub use request::Request;
pub use request::Unplaceable;

use crate::api::session::PlacementPolicy;

/// Why no server fits: how many were turned down for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Servers looked at.
    pub servers: usize,
    /// Servers per reason.
    pub rejections: BTreeMap<Rejection, usize>,
}

/// `0 of 7 servers fit: 4 full, 2 closed, 1 other namespace`: the commonest reason first, then in the order of the checks.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0 of {} servers fit", self.servers)?;
        let mut reasons: Vec<_> = self.rejections.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (at, (rejection, count)) in reasons.into_iter().enumerate() {
            write!(f, "{} {count} {rejection}", if at == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// A server for `request`: filter, then score, ties by name. A server of `request.avoid` only when no other fits.
///
/// # Errors
/// Why none fits.
pub fn place(ledger: &Ledger, request: &Request, default: PlacementPolicy) -> Result<String, Explanation> {
    let policy = request.policy.unwrap_or(default);
    let mut best: Option<score::Score<'_>> = None;
    let mut explanation = Explanation::default();
    for (candidate, occupancy) in ledger.servers() {
        explanation.servers += 1;
        if let Some(rejection) = filter::check(candidate, occupancy, request) {
            *explanation.rejections.entry(rejection).or_default() += 1;
            continue;
        }
        let score = score::Score::of(candidate, occupancy, request, policy);
        if best.as_ref().is_none_or(|best| score < *best) {
            best = Some(score);
        }
    }
    best.map(|score| score.name.to_owned()).ok_or(explanation)
}

#[cfg(test)]
mod tests;
