//! Facts of a server, and the checks it must pass.

use std::collections::BTreeMap;
use std::fmt;

use kube::ResourceExt;
use kube::core::Selector;
use kube::core::SelectorExt;

use super::Occupancy;
use super::Request;
use crate::api::DcvServer;
use crate::api::server::Availability;
use crate::api::server::Limits;
use crate::api::server::Placement;
use crate::api::server::UnavailabilityReason;
use crate::api::session::SessionType;

/// Which namespaces a server without `allowedNamespaces` takes sessions of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewServers {
    /// All.
    #[default]
    Open,
    /// None, until an administrator says which.
    Closed,
}

/// What placing looks at in a server, apart from who is on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name of the `DcvServer`.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Why it takes nobody, if so.
    pub shut: Option<Rejection>,
    /// Namespaces it admits; `None`: none.
    pub namespaces: Option<SelectorText>,
    /// Kinds of session its host can run.
    pub types: Vec<SessionType>,
    /// Most virtual sessions; negative: no limit.
    pub max_virtual: i32,
    /// Most virtual sessions of one owner; negative: no limit.
    pub max_per_owner: i32,
    /// Whether the host runs Linux.
    pub linux: bool,
    /// Sessions on the host that no object here stands for.
    pub others: Occupancy,
    /// Load of the host over one minute, in thousandths of a processor.
    pub load: i64,
}

/// A selector that can be compared.
#[derive(Clone, Debug)]
pub struct SelectorText(Selector);

impl PartialEq for SelectorText {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

/// Why a server does not fit, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rejection {
    /// Its agent does not answer.
    Unreachable,
    /// Closed by an administrator.
    Closed,
    /// Being drained.
    Draining,
    /// Its Node is cordoned.
    Cordoned,
    /// Its desktop server does not answer.
    Unhealthy,
    /// Somebody uses the machine.
    LoggedIn,
    /// Its agent has not reported it available.
    NotReady,
    /// Not for this namespace.
    Namespace,
    /// Lacks the labels of `serverSelector`.
    Labels,
    /// The host has no sessions of this type.
    Type,
    /// The host cannot run a program in such a session.
    Autorun,
    /// No room.
    Full,
    /// The owner has as many sessions there as one may.
    OwnerLimit,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "unreachable",
            Self::Unhealthy => "unhealthy",
            Self::LoggedIn => "in use by a logged-in user",
            Self::NotReady => "not ready",
            Self::Closed => "closed",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Namespace => "other namespace",
            Self::Labels => "other labels",
            Self::Type => "other session type",
            Self::Autorun => "without autorun for this type",
            Self::Full => "full",
            Self::OwnerLimit => "at the owner's limit",
        })
    }
}

impl Candidate {
    /// The facts of `server`.
    ///
    /// `reachable` is false when the caller knows better than the status that the agent is silent, `cordoned` is what the
    /// Node of that name says.
    pub fn of(server: &DcvServer, reachable: bool, cordoned: bool, new_servers: NewServers) -> Self {
        let status = server.status.clone().unwrap_or_default();
        let Limits { max_virtual_sessions, max_concurrent_sessions_per_user } = server.limits();
        let host = status.host.as_ref();
        let mut others = Occupancy::default();
        for other in &status.other_sessions {
            others.add(&other.owner, other.type_);
        }
        Self {
            name: server.name_any(),
            uid: server.uid().unwrap_or_default(),
            labels: server.labels().clone(),
            shut: shut(server, reachable, cordoned),
            namespaces: admitted(server, new_servers).map(SelectorText),
            types: status.capacity.map(|capacity| capacity.session_types).unwrap_or_default(),
            max_virtual: max_virtual_sessions.unwrap_or(0),
            max_per_owner: max_concurrent_sessions_per_user.unwrap_or(-1),
            linux: host.and_then(|host| host.os.as_ref()).is_none_or(|os| os.family.eq_ignore_ascii_case("linux")),
            others,
            load: thousandths(host.and_then(|host| host.cpu_load_average).map_or(0.0, |load| load.one_minute)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a load is small, and `as` saturates")]
fn thousandths(load: f64) -> i64 {
    (load * 1000.0) as i64
}

/// What shuts the server as a whole. Whether it is full, or closed, is not taken from the status, which lags: the counts
/// and the spec say it exactly.
fn shut(server: &DcvServer, reachable: bool, cordoned: bool) -> Option<Rejection> {
    let status = server.status.as_ref();
    let reported = match (status.map(|it| it.availability), status.and_then(|it| it.unavailability_reason)) {
        (Some(Availability::Available), _)
        | (_, Some(UnavailabilityReason::ServerFull | UnavailabilityReason::ServerClosed)) => None,
        (_, Some(UnavailabilityReason::UnreachableAgent)) => Some(Rejection::Unreachable),
        (_, Some(UnavailabilityReason::UnhealthyDcvServer)) => Some(Rejection::Unhealthy),
        (_, Some(UnavailabilityReason::ExistingLoggedInUser)) => Some(Rejection::LoggedIn),
        (_, Some(UnavailabilityReason::Unknown) | None) => Some(Rejection::NotReady),
    };
    let closed = match server.spec.placement {
        None | Some(Placement::Open) => cordoned.then_some(Rejection::Cordoned),
        Some(Placement::Closed) => Some(Rejection::Closed),
        Some(Placement::Draining) => Some(Rejection::Draining),
    };
    // `Rejection` is ordered by what counts more.
    reported.into_iter().chain(closed).chain((!reachable).then_some(Rejection::Unreachable)).min()
}

/// The namespaces the server admits. A selector that makes no sense admits none.
fn admitted(server: &DcvServer, new_servers: NewServers) -> Option<Selector> {
    match &server.spec.allowed_namespaces {
        Some(selector) => selector.clone().try_into().ok(),
        None => (new_servers == NewServers::Open).then(Selector::default),
    }
}

type Check = fn(&Candidate, &Occupancy, &Request) -> Option<Rejection>;

/// In the order in which a person would look.
const CHECKS: [Check; 6] = [is_open, admits_namespace, has_labels, has_type, can_autorun, has_room];

/// The first reason why the server does not fit.
pub(super) fn check(candidate: &Candidate, occupancy: &Occupancy, request: &Request) -> Option<Rejection> {
    CHECKS.iter().find_map(|check| check(candidate, occupancy, request))
}

fn is_open(candidate: &Candidate, _: &Occupancy, _: &Request) -> Option<Rejection> {
    candidate.shut
}

fn admits_namespace(candidate: &Candidate, _: &Occupancy, request: &Request) -> Option<Rejection> {
    let admitted = candidate.namespaces.as_ref().is_some_and(|SelectorText(it)| it.matches(&request.namespace_labels));
    (!admitted).then_some(Rejection::Namespace)
}

fn has_labels(candidate: &Candidate, _: &Occupancy, request: &Request) -> Option<Rejection> {
    (!request.selector.matches(&candidate.labels)).then_some(Rejection::Labels)
}

/// Virtual sessions exist on Linux only. Source: "Amazon DCV sessions" in the DCV Administrator Guide.
fn has_type(candidate: &Candidate, _: &Occupancy, request: &Request) -> Option<Rejection> {
    let possible =
        candidate.types.contains(&request.type_) && (request.type_ == SessionType::Console || candidate.linux);
    (!possible).then_some(Rejection::Type)
}

/// A program can be run in virtual sessions, and in console sessions on Windows. Source: `AutorunFile` in
/// the page on creating sessions of the DCV Session Manager Developer Guide.
fn can_autorun(candidate: &Candidate, _: &Occupancy, request: &Request) -> Option<Rejection> {
    (request.autorun && request.type_ == SessionType::Console && candidate.linux).then_some(Rejection::Autorun)
}

/// One console session, or virtual ones up to the limits; never both kinds. Source: "Amazon DCV sessions" in the DCV
/// Administrator Guide.
fn has_room(candidate: &Candidate, occupancy: &Occupancy, request: &Request) -> Option<Rejection> {
    let (console, virtual_) = (
        occupancy.console + candidate.others.console,
        i64::from(occupancy.virtual_) + i64::from(candidate.others.virtual_),
    );
    match request.type_ {
        SessionType::Console => (console > 0 || virtual_ > 0).then_some(Rejection::Full),
        SessionType::Virtual => {
            let over = |count: i64, limit: i32| limit >= 0 && count >= i64::from(limit);
            let owned =
                i64::from(occupancy.of_owner(&request.owner)) + i64::from(candidate.others.of_owner(&request.owner));
            if console > 0 || over(virtual_, candidate.max_virtual) {
                Some(Rejection::Full)
            } else {
                over(owned, candidate.max_per_owner).then_some(Rejection::OwnerLimit)
            }
        }
    }
}
