//! Why no server fits a request.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Ledger;
use super::Rejection;
use super::Request;
use super::Wants;
use super::candidate;
use super::filter;

/// Why no server fits: how many were turned down for which reason.
///
/// Only servers that admit the asker's namespace are counted. The asker may not know of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Servers that admit the namespace: the sum of the rejections.
    pub servers: usize,
    /// Servers per first reason.
    pub rejections: BTreeMap<Rejection, usize>,
    namespace: String,
    wants: Arc<Wants>,
    dead_end: bool,
}

impl Explanation {
    /// Why each of the servers that do not fit does not. Looks at all of them.
    pub fn of(ledger: &Ledger, request: &Request) -> Self {
        let mut rejections = BTreeMap::<_, usize>::new();
        let mut dead_end = !request.wants.is_moving();
        for server in ledger.servers().filter(|server| filter::admits(server.candidate, &request.namespace_labels)) {
            let Some(rejection) = filter::check(server, request) else { continue };
            *rejections.entry(rejection).or_default() += 1;
            dead_end = dead_end && filter::suits(server, &request.wants).is_some();
        }
        Self {
            servers: rejections.values().sum(),
            rejections,
            namespace: request.namespace.clone(),
            wants: Arc::clone(&request.wants),
            dead_end,
        }
    }

    /// The reasons without their counts, in the order of the checks: what is worth telling again when it changes.
    pub fn class(&self) -> String {
        let reasons: Vec<_> = self.rejections.keys().map(|rejection| rejection.words(1, &self.wants)).collect();
        reasons.join(", ")
    }
}

impl Wants {
    /// Whether it depends on what is different in every report, such as the load.
    pub(super) fn is_moving(&self) -> bool {
        self.requirement.iter().any(|it| candidate::MOVING.iter().any(|property| it.asks_for(*property)))
    }
}

/// `0 of 7 servers fit: 4 full, 2 closed, 1 lacks tag:gpu = 'a10'`: the commonest reason first, then in the order of the
/// checks.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.servers == 0 {
            return write!(f, "0 of 0 servers fit: there are none for namespace {}", self.namespace);
        }
        write!(f, "0 of {} servers fit", self.servers)?;
        let mut reasons: Vec<_> = self.rejections.iter().collect();
        reasons.sort_by_key(|(_, count)| Reverse(**count));
        for (at, (rejection, count)) in reasons.into_iter().enumerate() {
            let before = if at == 0 { ":" } else { "," };
            write!(f, "{before} {count} {}", rejection.words(*count, &self.wants))?;
        }
        if self.dead_end {
            f.write_str("; none of them would fit even if it were open and empty")?;
        }
        Ok(())
    }
}

impl Rejection {
    /// What stands after the number of servers.
    fn words(self, count: usize, wants: &Wants) -> String {
        let text = match self {
            Self::Unreachable => "unreachable",
            Self::Unhealthy => "unhealthy",
            Self::LoggedIn => "in use by a logged-in user",
            Self::NotReady => "not ready",
            Self::Closed => "closed",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Labels => "without the labels of serverSelector",
            Self::Type => return format!("without {} sessions", wants.type_.as_str()),
            Self::Gl => "without OpenGL on a GPU",
            Self::Autorun => return format!("without autorun in {} sessions", wants.type_.as_str()),
            Self::Requirement(index) => {
                let verb = if count == 1 { "lacks" } else { "lack" };
                let clause = wants.requirement.as_ref().and_then(|it| it.clauses().get(index));
                return clause.map_or_else(|| verb.to_owned(), |clause| format!("{verb} {clause}"));
            }
            Self::Full => "full",
            Self::OwnerLimit => "at the limit of sessions per owner",
        };
        text.to_owned()
    }
}
