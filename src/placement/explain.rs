//! Why no server fits a request, in a line.

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
use crate::api::session::SessionType;
use crate::requirement::Dialect;
use crate::requirement::Requirement;

/// How many servers fit, and how many were turned down for which reason.
///
/// Only servers that admit the asker's namespace are counted. The asker may not know of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Servers that fit.
    pub fitting: usize,
    /// Servers per first reason. With those that fit they add up to the servers that admit the namespace.
    pub rejections: BTreeMap<Rejection, usize>,
    /// Why waiting will not help, as far as that can be known.
    pub dead_end: Option<String>,
    namespace: String,
    wants: Arc<Wants>,
}

impl Explanation {
    /// Why each of the servers that do not fit does not. Looks at all of them.
    pub fn of(ledger: &Ledger, request: &Request) -> Self {
        let wants = &request.wants;
        let mut fitting = 0;
        let mut rejections = BTreeMap::<_, usize>::new();
        let mut is_suited = false;
        for server in ledger.visible_to(request) {
            let rejection = filter::check(server, request);
            match rejection {
                None => fitting += 1,
                Some(rejection) => *rejections.entry(rejection).or_default() += 1,
            }
            is_suited = is_suited || filter::suits(server, wants).is_none();
        }
        Self {
            fitting,
            dead_end: if is_suited { None } else { dead_end(wants, rejections.is_empty()) },
            rejections,
            namespace: request.namespace.clone(),
            wants: Arc::clone(wants),
        }
    }

    /// Servers that admit the namespace.
    pub fn servers(&self) -> usize {
        self.fitting + self.rejections.values().sum::<usize>()
    }
}

impl Wants {
    /// Whether it depends on what changes all the time, such as the load.
    fn is_moving(&self) -> bool {
        self.asks_for_any(&candidate::REPORTED) || self.asks_for_any(&candidate::COUNTED)
    }
}

/// Why nothing that happens on the servers there are, none of which suits, lets one fit.
fn dead_end(wants: &Wants, fleet_is_empty: bool) -> Option<String> {
    if let Some(contradiction) = wants.requirement.as_ref().and_then(|it| it.contradiction()) {
        return Some(contradiction.to_string());
    }
    let by_type = match wants {
        Wants { type_: SessionType::Virtual, .. } => {
            contradicted_by(wants, "server:Host.Os.Family = 'linux'", "VIRTUAL sessions exist on Linux only")
        }
        Wants { autorun: true, .. } => contradicted_by(
            wants,
            "not server:Host.Os.Family = 'linux'",
            "autorunFile does not exist in CONSOLE sessions on Linux",
        ),
        _ => None,
    };
    let by_fleet = || {
        let is_certain = !fleet_is_empty && !wants.is_moving();
        is_certain.then(|| "none of them would fit even if it were open and empty".to_owned())
    };
    by_type.or_else(by_fleet)
}

/// The clause that no host can meet together with one that follows from something else.
fn contradicted_by(wants: &Wants, clause: &str, why: &str) -> Option<String> {
    let text = format!("{clause} and ({})", wants.requirement.as_ref()?);
    let both = Requirement::parse(&text, Dialect::Extended).ok()??;
    let contradiction = both.contradiction()?;
    Some(format!("{why}, so no host can ever meet `{}`", contradiction.second.unwrap_or(contradiction.first)))
}

/// `0 of 7 servers fit: 4 full, 2 closed, 1 lacks tag:gpu = 'a10'`: the commonest reason first, then in the order of the
/// checks.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} servers fit", self.fitting, self.servers())?;
        if self.servers() == 0 {
            write!(f, ": there are none for namespace {}", self.namespace)?;
        }
        let mut reasons: Vec<_> = self.rejections.iter().collect();
        reasons.sort_by_key(|(_, count)| Reverse(**count));
        for (at, (rejection, count)) in reasons.into_iter().enumerate() {
            let before = if at == 0 { ":" } else { "," };
            write!(f, "{before} {count} {}", rejection.words(*count, &self.wants))?;
        }
        self.dead_end.iter().try_for_each(|dead_end| write!(f, "; {dead_end}"))
    }
}

impl Rejection {
    /// What stands after the number of servers.
    pub(super) fn words(self, count: usize, wants: &Wants) -> String {
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
                return format!("{} {}", if count == 1 { "lacks" } else { "lack" }, wants.clause(index));
            }
            Self::Full => "full",
            Self::OwnerLimit => "at the limit of sessions per owner",
        };
        text.to_owned()
    }
}
