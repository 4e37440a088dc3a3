//! Whether a session would get a server now, and if not what would help.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::Explanation;
use super::Ledger;
use super::Occupied;
use super::Rejection;
use super::Request;
use super::Wants;
use super::filter;
use super::score::Rank;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;
use crate::requirement::Clause;
use crate::requirement::Dialect;
use crate::requirement::Nearest;
use crate::requirement::Requirement;

/// Most proposals of a report.
const PROPOSALS_MAX: usize = 5;

/// What would become of a session now.
///
/// Its `Display` is a few lines, without a line break at the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The server it would get; absent: none fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Servers that fit.
    pub fitting: usize,
    /// Servers that admit the namespace. The others are unknown to the asker.
    pub servers: usize,
    /// Why the rest does not fit; each server counts once, for the first reason.
    pub reasons: Vec<Reason>,
    /// Why waiting will not help, as far as that can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_end: Option<String>,
    /// What would help when none fits, the least change first.
    pub proposals: Vec<Proposal>,
    /// All of the counts in a line.
    pub summary: String,
}

/// A reason that turns servers down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The reason.
    pub reason: Rejection,
    /// The same in words.
    pub text: String,
    /// How many servers.
    pub servers: usize,
}

/// Changes that together let servers fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// The changes, none of which can be left out.
    pub changes: Vec<Change>,
    /// Servers that would fit then.
    pub servers: usize,
    /// The whole requirement after the change; absent when it stays. Empty: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
}

/// One change. Less is less of a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", tag = "change", content = "of")]
pub enum Change {
    /// Wait until a session ends on a full server.
    WaitForRoom,
    /// End a session of the owner on such a server, or let an administrator raise the limit per owner.
    EndOwnSession,
    /// Put a value that some server has into this clause of the requirement.
    ReplaceClause {
        /// The clause.
        clause: String,
        /// The clause with that value.
        by: String,
    },
    /// Leave this clause of the requirement out.
    DropClause(String),
    /// Leave `serverSelector` out.
    DropSelector,
    /// Leave `dcvGlEnabled` out.
    DropGl,
    /// Leave `autorunFile` out.
    DropAutorun,
    /// Ask for this type of session.
    OtherType(SessionType),
    /// An administrator opens the server: it is closed, draining or cordoned.
    Open,
    /// The server becomes available: it does not answer, is not ready, or somebody uses it.
    Recover,
}

impl Change {
    /// How much of a change it is, in the order of the variants.
    fn size(&self) -> u8 {
        match self {
            Self::WaitForRoom => 0,
            Self::EndOwnSession => 1,
            Self::ReplaceClause { .. } => 2,
            Self::DropClause(_) => 3,
            Self::DropSelector => 4,
            Self::DropGl => 5,
            Self::DropAutorun => 6,
            Self::OtherType(_) => 7,
            Self::Open => 8,
            Self::Recover => 9,
        }
    }
}

/// What would become of a session that asks `request`. Looks at every server.
pub fn explain(ledger: &Ledger, request: &Request, default: PlacementPolicy) -> Report {
    let explanation = Explanation::of(ledger, request);
    let reason = |(reason, servers): (&Rejection, &usize)| Reason {
        reason: *reason,
        text: reason.words(*servers, &request.wants),
        servers: *servers,
    };
    Report {
        server_name: best(ledger, request, request.policy.unwrap_or(default)),
        fitting: explanation.fitting,
        servers: explanation.servers(),
        reasons: explanation.rejections.iter().map(reason).collect(),
        proposals: if explanation.fitting == 0 { proposals(ledger, request) } else { Vec::new() },
        summary: explanation.to_string(),
        dead_end: explanation.dead_end,
    }
}

fn best(ledger: &Ledger, request: &Request, policy: PlacementPolicy) -> Option<String> {
    let is_avoided = |name: &str| request.avoid.iter().any(|avoided| avoided == name);
    let fitting = ledger.visible_to(request).filter(|server| filter::check(*server, request).is_none());
    let order = |server: &Occupied<'_>| {
        let name = Arc::clone(&server.candidate.name);
        (is_avoided(&name), Rank::of(*server, policy), name)
    };
    fitting.min_by_key(order).map(|server| server.candidate.name.to_string())
}

/// The least changes that let some server fit, by how little they change.
fn proposals(ledger: &Ledger, request: &Request) -> Vec<Proposal> {
    let mut needed = BTreeMap::<BTreeSet<Change>, usize>::new();
    for server in ledger.visible_to(request) {
        let obstacles = filter::obstacles(server, request);
        // Another type changes what else is in the way, so it is a question of its own.
        if !obstacles.contains(&Rejection::Type) {
            let changes = obstacles.into_iter().map(|obstacle| change(obstacle, &request.wants));
            *needed.entry(changes.collect()).or_default() += 1;
        }
    }
    let is_least = |set: &BTreeSet<Change>| !needed.keys().any(|it| it != set && it.is_subset(set));
    let least = needed.keys().filter(|set| is_least(set)).map(|set| Proposal {
        changes: set.iter().cloned().collect(),
        servers: needed.iter().filter(|(it, _)| it.is_subset(set)).map(|(_, servers)| servers).sum(),
        requirements: requirements_after(set, &request.wants),
    });
    let mut proposals: Vec<_> = least.chain(replacements(ledger, request)).chain(other_type(ledger, request)).collect();
    // The last change of each is its greatest.
    proposals.sort_by_key(|it| (it.changes.len(), it.changes.last().map(Change::size), Reverse(it.servers)));
    proposals.truncate(PROPOSALS_MAX);
    proposals
}

/// What takes an obstacle away.
fn change(obstacle: Rejection, wants: &Wants) -> Change {
    match obstacle {
        Rejection::Closed | Rejection::Draining | Rejection::Cordoned => Change::Open,
        Rejection::Unreachable | Rejection::Unhealthy | Rejection::LoggedIn | Rejection::NotReady => Change::Recover,
        Rejection::Labels => Change::DropSelector,
        Rejection::Gl => Change::DropGl,
        Rejection::Autorun => Change::DropAutorun,
        Rejection::Requirement(index) => Change::DropClause(wants.clause(index)),
        Rejection::Type => Change::OtherType(other(wants.type_)),
        Rejection::Full => Change::WaitForRoom,
        Rejection::OwnerLimit => Change::EndOwnSession,
    }
}

/// The requirement without the clauses that are left out; `None`: none is.
fn requirements_after(changes: &BTreeSet<Change>, wants: &Wants) -> Option<String> {
    let clauses = wants.requirement.as_ref()?.clauses().iter().map(ToString::to_string);
    let (dropped, kept): (Vec<_>, Vec<_>) = clauses.partition(|it| changes.contains(&Change::DropClause(it.clone())));
    (!dropped.is_empty()).then(|| joined(&kept))
}

/// The clauses as one requirement.
fn joined(clauses: &[String]) -> String {
    let text = clauses.iter().map(|clause| format!("({clause})")).collect::<Vec<_>>().join(" and ");
    // Without needless parentheses, unless they make it too long to be read.
    let parsed = Requirement::parse(&text, Dialect::Extended).ok().flatten();
    parsed.map_or(text, |it| it.to_string())
}

/// For each clause that alone keeps some server out: the value nearest to the one asked for that lets one fit. Among those
/// as near the one that most servers have.
fn replacements(ledger: &Ledger, request: &Request) -> Vec<Proposal> {
    let mut kept_out = BTreeMap::<usize, Vec<Occupied<'_>>>::new();
    for server in ledger.visible_to(request) {
        let obstacles: Vec<_> = filter::obstacles(server, request).into_iter().collect();
        if let [Rejection::Requirement(index)] = *obstacles {
            kept_out.entry(index).or_default().push(server);
        }
    }
    kept_out.into_iter().filter_map(|(index, servers)| replacement(&request.wants, index, &servers)).collect()
}

fn replacement(wants: &Wants, index: usize, servers: &[Occupied<'_>]) -> Option<Proposal> {
    let clauses = wants.requirement.as_ref()?.clauses();
    let clause = clauses.get(index)?;
    let found: Vec<Nearest> = servers.iter().filter_map(|server| clause.nearest(server)).collect();
    let least = found.iter().map(|it| it.distance).min_by(f64::total_cmp)?;
    let mut alike = BTreeMap::<String, (usize, Clause)>::new();
    for Nearest { clause, .. } in found.into_iter().filter(|it| it.distance <= least) {
        alike.entry(clause.to_string()).or_insert((0, clause)).0 += 1;
    }
    let (by, (_, best)) = alike.into_iter().rev().max_by_key(|(_, (servers, _))| *servers)?;
    let texts = clauses.iter().enumerate().map(|(at, it)| if at == index { by.clone() } else { it.to_string() });
    Some(Proposal {
        requirements: Some(joined(&texts.collect::<Vec<_>>())),
        servers: servers.iter().filter(|server| best.matches(*server)).count(),
        changes: vec![Change::ReplaceClause { clause: clause.to_string(), by }],
    })
}

fn other_type(ledger: &Ledger, request: &Request) -> Option<Proposal> {
    let type_ = other(request.wants.type_);
    if request.virtual_only && type_ == SessionType::Console {
        return None;
    }
    let wants = Arc::new(Wants { type_, ..Wants::clone(&request.wants) });
    let request = Request { wants, ..request.clone() };
    let servers = ledger.visible_to(&request).filter(|server| filter::check(*server, &request).is_none()).count();
    (servers > 0).then(|| Proposal { changes: vec![Change::OtherType(type_)], servers, requirements: None })
}

fn other(type_: SessionType) -> SessionType {
    match type_ {
        SessionType::Console => SessionType::Virtual,
        SessionType::Virtual => SessionType::Console,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        if let Some(server) = &self.server_name {
            write!(f, "\nIt would get server {server} now.")?;
        }
        self.proposals.iter().try_for_each(|proposal| write!(f, "\n{proposal}"))
    }
}

/// `To get one of 3 servers: leave out tag:gpu = 'a10'; wait for a session to end`.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.servers {
            1 => f.write_str("To get the one server: ")?,
            servers => write!(f, "To get one of {servers} servers: ")?,
        }
        for (at, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitForRoom => f.write_str("wait until a session on it ends"),
            Self::EndOwnSession => {
                f.write_str("end a session of the same owner on it, or have its limit per owner raised")
            }
            Self::ReplaceClause { clause, by } => write!(f, "require {by} instead of {clause}"),
            Self::DropClause(clause) => write!(f, "leave out the requirement {clause}"),
            Self::DropSelector => f.write_str("leave out serverSelector"),
            Self::DropGl => f.write_str("leave out dcvGlEnabled"),
            Self::DropAutorun => f.write_str("leave out autorunFile"),
            Self::OtherType(type_) => write!(f, "ask for type {}", type_.as_str()),
            Self::Open => f.write_str("have it opened by an administrator"),
            Self::Recover => f.write_str("wait until it is available again"),
        }
    }
}
