//! Who is on which server: sessions as seen, and places taken that are not visible yet.
//!
//! A session counts once: at its reservation while there is one, else where it was seen bound. Invariant: the occupancy
//! of a server is always the sum of the sessions counted there, so nothing is lost or counted twice whatever the order
//! in which answers and watch events arrive.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use kube::ResourceExt;

use super::Candidate;
use super::GroupId;
use super::Occupied;
use super::Request;
use super::candidate::Difference;
use super::filter;
use super::fleet::Fleet;
use super::groups::Admissions;
use super::groups::Groups;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;

/// Sessions on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Console sessions.
    pub console: u32,
    /// Virtual sessions.
    pub virtual_: u32,
    /// Virtual sessions per owner.
    owners: BTreeMap<Arc<str>, u32>,
}

impl Occupancy {
    /// All sessions.
    pub fn sessions(&self) -> u32 {
        self.console + self.virtual_
    }

    /// Virtual sessions of `owner`.
    pub fn of_owner(&self, owner: &str) -> u32 {
        self.owners.get(owner).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, owner: &Arc<str>, type_: SessionType) {
        match type_ {
            SessionType::Console => self.console += 1,
            SessionType::Virtual => {
                self.virtual_ += 1;
                *self.owners.entry(Arc::clone(owner)).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, owner: &str, type_: SessionType) {
        match type_ {
            SessionType::Console => self.console -= 1,
            SessionType::Virtual => {
                self.virtual_ -= 1;
                if let Some(count) = self.owners.get_mut(owner) {
                    *count -= 1;
                    if *count == 0 {
                        self.owners.remove(owner);
                    }
                }
            }
        }
    }
}

/// A session on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    server: Arc<str>,
    owner: Arc<str>,
    type_: SessionType,
}

/// What is known of one session.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Where it was last seen bound, and in which attempt.
    seen: Option<(i32, Claim)>,
    /// The place taken for the attempt of this number, until that attempt is seen.
    reserved: Option<(i32, Claim)>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.seen.is_none() && self.reserved.is_none()
    }

    fn counted(&self) -> Option<&Claim> {
        self.reserved.as_ref().or(self.seen.as_ref()).map(|(_, claim)| claim)
    }
}

/// Servers, and who is on them.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    fleet: Fleet,
    groups: Groups,
    admissions: Admissions,
    /// By uid.
    sessions: HashMap<String, Entry>,
    nobody: Occupancy,
}

impl Ledger {
    /// Enters or updates a server. Whether anything changed but what is different in every report, such as the load.
    pub fn set_server(&mut self, candidate: Candidate) -> bool {
        let (number, difference) = self.fleet.set_server(candidate);
        self.look_again(number, difference)
    }

    /// Takes a server out. Its sessions stay known.
    pub fn remove_server(&mut self, name: &str) -> bool {
        let Some(number) = self.fleet.remove_server(name) else { return false };
        self.look_again(number, Difference::Whole)
    }

    /// Takes every server out that `keep` does not want.
    pub fn retain_servers(&mut self, keep: impl Fn(&str) -> bool) {
        let names = self.servers().map(|server| Arc::clone(&server.candidate.name));
        let gone: Vec<_> = names.filter(|name| !keep(name)).collect();
        for name in gone {
            self.remove_server(&name);
        }
    }

    /// The facts of a server.
    pub fn server(&self, name: &str) -> Option<&Candidate> {
        self.fleet.server_named(name).map(|server| server.candidate)
    }

    /// Who is on a server, sessions without an object apart.
    pub fn occupancy(&self, name: &str) -> &Occupancy {
        self.fleet.occupancy(name).unwrap_or(&self.nobody)
    }

    /// Every server with who is on it, by name.
    pub fn servers(&self) -> impl Iterator<Item = Occupied<'_>> {
        self.fleet.servers()
    }

    /// The servers that admit the namespace of `request`, by name.
    pub(super) fn visible_to(&self, request: &Request) -> impl Iterator<Item = Occupied<'_>> {
        self.servers().filter(|server| filter::admits(server.candidate, &request.namespace_labels))
    }

    /// Takes note of a session as it was read from the API server. Whether room was taken or freed.
    ///
    /// A reservation stays until its attempt is seen, and a bind that was seen until the session is seen in that attempt
    /// or a later one: our own answers are ahead of the watch, and an old view must not free what they took.
    pub fn see(&mut self, session: &DcvSession) -> bool {
        let claim = session.server_name().filter(|_| occupies(session)).map(|server| Claim {
            server: server.into(),
            owner: session.spec.owner.as_str().into(),
            type_: session.spec.type_,
        });
        let Some(uid) = session.uid() else { return false };
        let attempt = session.attempt();
        let over = session.is_finished();
        self.change(&uid, |entry| {
            if entry.reserved.as_ref().is_some_and(|(reserved, _)| over || attempt >= *reserved) {
                entry.reserved = None;
            }
            if entry.seen.as_ref().is_none_or(|(seen, _)| over || attempt >= *seen) {
                entry.seen = claim.map(|claim| (attempt, claim));
            }
        })
    }

    /// Forgets a session whose object is gone. Whether room was freed.
    pub fn forget(&mut self, uid: &str) -> bool {
        self.change(uid, |entry| *entry = Entry::default())
    }

    /// Forgets every session that `keep` does not want, reservations apart.
    pub fn retain_sessions(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self.sessions.keys().filter(|uid| !keep(uid)).cloned().collect();
        for uid in gone {
            self.change(&uid, |entry| entry.seen = None);
        }
    }

    /// Takes a place on `server` for the attempt of this number, before anybody can see it.
    pub fn reserve(&mut self, uid: &str, attempt: i32, server: &str, owner: &str, type_: SessionType) {
        let claim = Claim { server: server.into(), owner: owner.into(), type_ };
        self.change(uid, |entry| entry.reserved = Some((attempt, claim)));
    }

    /// Gives the place of an attempt back that is known to have come to nothing. Whether there was one.
    pub fn give_back(&mut self, uid: &str, attempt: i32) -> bool {
        self.change(uid, |entry| {
            if entry.reserved.as_ref().is_some_and(|(reserved, _)| *reserved == attempt) {
                entry.reserved = None;
            }
        })
    }

    /// Whether the session has a place already, visible or not. One that has must not be placed, however old the view of
    /// it that says it waits.
    pub fn has_place(&self, uid: &str) -> bool {
        self.sessions.contains_key(uid)
    }

    /// The server for `request`: of those that fit the first in the order of its policy, else of the policy `default`. One
    /// of `request.avoid` only when no other fits.
    pub fn choose(&mut self, request: &Request, default: PlacementPolicy) -> Option<String> {
        let policy = request.policy.unwrap_or(default);
        let type_ = request.wants.type_;
        let id = self.groups.of(&request.wants, &self.fleet);
        let group = self.groups.group(id)?;
        let sets = [group.possible(), self.admissions.of(request, &self.fleet)];
        let mut learned = Vec::new();
        let mut fits = |number, server: Occupied<'_>| {
            let suits = group.suits(number).unwrap_or_else(|| {
                let suits = filter::suits(server, &request.wants).is_none();
                learned.push((number, suits));
                suits
            });
            suits && filter::is_below_owner_limit(server, request)
        };
        let is_avoided = |server: Occupied<'_>| request.avoid.iter().any(|name| **name == *server.candidate.name);
        let mut best =
            self.fleet.best(sets, type_, policy, |number, server| !is_avoided(server) && fits(number, server));
        if best.is_none() && !request.avoid.is_empty() {
            best = self.fleet.best(sets, type_, policy, fits);
        }
        let chosen = best.map(|server| server.candidate.name.to_string());
        self.groups.learn(id, learned);
        chosen
    }

    /// The group of sessions that ask the same as `request`. It stays until [`Self::retain_groups`].
    pub fn group(&mut self, request: &Request) -> GroupId {
        self.groups.of(&request.wants, &self.fleet)
    }

    /// How many groups are kept.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Forgets every group that `keep` does not want: each takes memory, and time when a server changes. An id that was
    /// forgotten is never woken.
    pub fn retain_groups(&mut self, keep: impl Fn(GroupId) -> bool) {
        self.groups.retain(keep);
    }

    /// The groups to which something happened since the last call by which a session of theirs may fit that did not: on a
    /// server that suits them a place was freed, it opened, came, admits others, or suits them only now.
    ///
    /// Says nothing of what time alone changes, such as servers avoided, or of namespaces that got other labels.
    pub fn take_woken(&mut self) -> Vec<GroupId> {
        let gained = self.fleet.take_gained();
        self.groups.woken(&gained, &self.fleet)
    }

    /// Changes what is known of a session and keeps the sums right.
    fn change(&mut self, uid: &str, change: impl FnOnce(&mut Entry)) -> bool {
        let (before, after) = self.recount(uid, change);
        if before == after {
            return false;
        }
        if let Some(Claim { server, owner, type_ }) = before {
            let number = self.fleet.change_occupancy(&server, |occupancy| occupancy.remove(&owner, type_));
            // It may have kept its owner out of a server with room.
            if self.fleet.server(number).is_some_and(|server| server.candidate.max_per_owner >= 0) {
                self.fleet.note_gain(number);
            }
            self.look_again(number, Difference::Sessions);
        }
        if let Some(Claim { server, owner, type_ }) = after {
            let number = self.fleet.change_occupancy(&server, |occupancy| occupancy.add(&owner, type_));
            self.look_again(number, Difference::Sessions);
        }
        true
    }

    /// Changes what is known of a session. What was counted of it before, and what is now.
    fn recount(&mut self, uid: &str, change: impl FnOnce(&mut Entry)) -> (Option<Claim>, Option<Claim>) {
        let Some(entry) = self.sessions.get_mut(uid) else {
            let mut entry = Entry::default();
            change(&mut entry);
            let after = entry.counted().cloned();
            if !entry.is_empty() {
                self.sessions.insert(uid.to_owned(), entry);
            }
            return (None, after);
        };
        let before = entry.counted().cloned();
        change(entry);
        let after = entry.counted().cloned();
        if entry.is_empty() {
            self.sessions.remove(uid);
        }
        (before, after)
    }

    /// Brings up to date what is kept of the server with this number. Whether everything about it may be different.
    fn look_again(&mut self, number: usize, difference: Difference) -> bool {
        let server = self.fleet.server(number);
        self.groups.forget(number, server.is_some(), difference);
        let is_whole = difference == Difference::Whole;
        if is_whole {
            self.admissions.update(number, server.map(|server| server.candidate));
            self.fleet.note_gain(number);
        }
        is_whole
    }
}

/// Whether a desktop of the session may be on its server: while it is not finished, and after a forced close until its
/// agent has seen to it.
fn occupies(session: &DcvSession) -> bool {
    let forced = conditions::is(session.conditions(), SessionCondition::Finished, Some(true), Reason::ForceClosed);
    !session.is_finished() || (forced && session.has_finalizer())
}
