//! The checks a server must pass, each with the reason it gives.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Serialize;

use super::Candidate;
use super::Occupied;
use super::Request;
use super::Wants;
use crate::api::session::SessionType;

/// Why a server does not fit, in the order of the checks.
///
/// The order among those that shut a server as a whole is that of `UnavailabilityReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// Lacks the labels of `serverSelector`.
    Labels,
    /// The host has no sessions of this type.
    Type,
    /// The host cannot give virtual sessions its GPU for OpenGL.
    Gl,
    /// The host cannot run a program in such a session.
    Autorun,
    /// Refuted by the clause of this index, the first that is false.
    Requirement(usize),
    /// No room.
    Full,
    /// The owner has as many sessions there as one may.
    OwnerLimit,
}

type Check = fn(Occupied<'_>, &Wants) -> Option<Rejection>;

/// What does not depend on who asks and who is there, in the order in which a person would look.
const CHECKS: [Check; 5] = [has_labels, has_type, has_gl, can_autorun, meets_requirement];

/// Whether the server admits sessions of a namespace with these labels. For the others it does not exist.
pub(super) fn admits(candidate: &Candidate, namespace_labels: &BTreeMap<String, String>) -> bool {
    candidate.namespaces.as_ref().is_some_and(|admitted| admitted.matches(namespace_labels))
}

/// The first reason why the server, which admits the namespace, does not fit.
pub(super) fn check(server: Occupied<'_>, request: &Request) -> Option<Rejection> {
    server
        .candidate
        .shut
        .or_else(|| suits(server, &request.wants))
        .or_else(|| (!has_room(server, request.wants.type_)).then_some(Rejection::Full))
        .or_else(|| (!is_below_owner_limit(server, request)).then_some(Rejection::OwnerLimit))
}

/// The first reason why the server would not fit if it were open and empty.
pub(super) fn suits(server: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    CHECKS.iter().find_map(|check| check(server, wants))
}

/// Everything that keeps the session off the server, every false clause by itself.
pub(super) fn obstacles(server: Occupied<'_>, request: &Request) -> BTreeSet<Rejection> {
    let Request { wants, .. } = request;
    let clauses = wants.requirement.iter().flat_map(|it| it.clauses()).enumerate();
    let refuting = clauses.filter(|(_, clause)| !clause.matches(&server)).map(|(at, _)| Rejection::Requirement(at));
    let checks = CHECKS.iter().filter_map(|check| check(server, wants));
    let full = (!has_room(server, wants.type_)).then_some(Rejection::Full);
    let limit = (!is_below_owner_limit(server, request)).then_some(Rejection::OwnerLimit);
    server.candidate.shut.into_iter().chain(checks).chain(refuting).chain(full).chain(limit).collect()
}

fn has_labels(server: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    (!wants.selector.matches(&server.candidate.labels)).then_some(Rejection::Labels)
}

fn has_type(Occupied { candidate, .. }: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    let possible = match wants.type_ {
        SessionType::Console => candidate.console,
        SessionType::Virtual => candidate.virtual_,
    };
    (!possible).then_some(Rejection::Type)
}

/// OpenGL on a GPU needs DCV GL and a driver on the host, so its agent must report it. A session that does not ask for it,
/// or asks to go without, can be anywhere. Source: "DCV GL" in the DCV Administrator Guide.
fn has_gl(server: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    (wants.gl && !server.candidate.gl).then_some(Rejection::Gl)
}

/// A program can be run in virtual sessions, and in console sessions on Windows. Source: `AutorunFile` in
/// the page on creating sessions of the DCV Session Manager Developer Guide.
fn can_autorun(server: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    (wants.autorun && wants.type_ == SessionType::Console && server.candidate.linux).then_some(Rejection::Autorun)
}

fn meets_requirement(server: Occupied<'_>, wants: &Wants) -> Option<Rejection> {
    wants.requirement.as_ref()?.refuted_by(&server).map(Rejection::Requirement)
}

/// One console session, or virtual ones up to the limit; never both kinds. Source: "Amazon DCV sessions" in the DCV
/// Administrator Guide.
pub(super) fn has_room(server: Occupied<'_>, type_: SessionType) -> bool {
    let (console, virtual_) = server.sessions();
    match type_ {
        SessionType::Console => console == 0 && virtual_ == 0,
        SessionType::Virtual => console == 0 && is_below(virtual_, server.candidate.max_virtual),
    }
}

/// The limit of an owner concerns virtual sessions: there is one console session anyway.
pub(super) fn is_below_owner_limit(server: Occupied<'_>, request: &Request) -> bool {
    request.wants.type_ == SessionType::Console
        || server.candidate.max_per_owner < 0
        || is_below(server.sessions_of(&request.owner), server.candidate.max_per_owner)
}

/// A negative limit is none.
fn is_below(count: i64, limit: i32) -> bool {
    limit < 0 || count < i64::from(limit)
}
