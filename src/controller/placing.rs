//! What is known of servers and waiting sessions, and what is done next: who is bound where, who is told what.
//!
//! Plain data that takes in what happens and gives out commands: no client, no clock, no task. Invariants: a session has at
//! most one write on its way; a place is taken before the bind is given out and given back only when it is known to have
//! come to nothing.

mod command;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::Timestamp;
use kube::ResourceExt;

pub use self::command::Command;
pub use self::command::Hitch;
pub use self::command::Settled;
pub use self::command::Step;
pub use self::command::Written;
pub use self::command::settled;
use super::adoption;
use super::adoption::Adoption;
use super::adoption::Others;
use super::session::draft::Draft;
use super::waiting;
use super::waiting::Verdict;
use crate::api::DcvSession;
use crate::api::conditions::Reason;
use crate::api::server::OtherSession;
use crate::api::session::PlacementPolicy;
use crate::placement::Candidate;
use crate::placement::Explanation;
use crate::placement::GroupId;
use crate::placement::Ledger;
use crate::placement::Rejection;
use crate::placement::Request;
use crate::placement::line::Line;
use crate::placement::line::Share;
use crate::placement::line::Waiter;
use crate::requirement::Dialect;

/// Pause after a write that was overtaken, and after one that failed.
const PAUSES: [SignedDuration; 2] = [SignedDuration::from_millis(500), SignedDuration::from_secs(5)];
/// How long an explanation serves all that it is true of: making one means looking at every server.
const EXPLAINED: SignedDuration = SignedDuration::from_secs(1);
/// Most groups of sessions for which it is kept which servers suit them, when fewer wait. One that was forgotten is
/// worked out again.
const GROUPS_MAX: usize = 1000;

/// A session without a server.
struct Waiting {
    session: Arc<DcvSession>,
    /// When it was looked at last, or first seen.
    looked: Timestamp,
    /// No write before then.
    not_before: Option<Timestamp>,
    /// When it is looked at again.
    look: Option<Timestamp>,
}

/// A write on its way.
#[derive(Default)]
struct Flight {
    /// Version of the newest view of the session since.
    seen: Option<u64>,
    /// The object is gone meanwhile.
    gone: bool,
}

/// Where a waiting session stands.
enum Standing {
    /// It is left alone until then.
    Pauses(Timestamp),
    /// Nothing can be said until its namespace is known.
    Unknown,
    /// It takes a desktop over.
    Adopts(Adoption),
    /// It waits, or fails in its time, for a reason of its own.
    Stuck(String),
    /// No server could ever fit.
    Unplaceable(String),
    /// In the line, to ask this.
    InLine(Request),
}

/// Sessions that the same servers fit, limits of an owner apart: the same wishes in the same namespace.
type Group = (GroupId, Arc<str>);

/// Servers and sessions, and what is done next.
pub struct Placing {
    policy: PlacementPolicy,
    dialect: Dialect,
    ledger: Ledger,
    line: Line<Group>,
    others: Others,
    /// Labels by namespace.
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// By uid.
    waiting: HashMap<Arc<str>, Waiting>,
    /// Those that are to take a desktop over.
    adopting: BTreeSet<Arc<str>>,
    flights: HashMap<Arc<str>, Flight>,
    /// When whom is looked at.
    looks: BTreeSet<(Timestamp, Arc<str>)>,
    /// Why nothing fits, for a group, and for an owner in it where that is a reason.
    explained: HashMap<(Group, Option<String>), String>,
    explained_since: Timestamp,
}

impl Placing {
    /// Knows nothing yet. `policy` is for sessions that name none.
    pub fn new(policy: PlacementPolicy, dialect: Dialect) -> Self {
        Self {
            policy,
            dialect,
            ledger: Ledger::default(),
            line: Line::default(),
            others: Others::default(),
            namespaces: HashMap::new(),
            waiting: HashMap::new(),
            adopting: BTreeSet::new(),
            flights: HashMap::new(),
            looks: BTreeSet::new(),
            explained: HashMap::new(),
            explained_since: Timestamp::MIN,
        }
    }

    /// How many sessions have no server.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When to decide although nothing happens.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.looks.first().map(|(time, _)| *time)
    }

    /// Takes note of a namespace.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>, now: Timestamp) {
        let old = self.namespaces.insert(name.to_owned(), labels.clone());
        if old.as_ref() == Some(labels) {
            return;
        }
        self.explained.clear();
        self.line.wake(|(_, namespace)| **namespace == *name);
        let is_there = |waiting: &Waiting| waiting.session.metadata.namespace.as_deref() == Some(name);
        let there: Vec<_> =
            self.waiting.iter().filter(|(_, it)| is_there(it)).map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in there {
            self.stand(&uid, now);
        }
    }

    /// Forgets the namespaces that `keep` does not want.
    pub fn retain_namespaces(&mut self, keep: impl Fn(&str) -> bool) {
        self.namespaces.retain(|name, _| keep(name));
    }

    /// Takes note of a server, and of the sessions without an object that it reports.
    pub fn set_server(&mut self, candidate: Candidate, others: &[OtherSession], now: Timestamp) {
        let name = Arc::clone(&candidate.name);
        if self.ledger.set_server(candidate) {
            self.explained.clear();
            self.stand_adopting(&name, now);
        }
        self.set_others(&name, others, now);
    }

    /// Takes a server out. Sessions on it stay known.
    pub fn remove_server(&mut self, name: &str, now: Timestamp) {
        if self.ledger.remove_server(name) {
            self.explained.clear();
        }
        self.set_others(name, &[], now);
    }

    /// Takes the servers out that `keep` does not want.
    pub fn retain_servers(&mut self, keep: impl Fn(&str) -> bool, now: Timestamp) {
        let names: Vec<_> = self.ledger.servers().map(|server| Arc::clone(&server.candidate.name)).collect();
        for name in names.iter().filter(|name| !keep(name)) {
            self.remove_server(name, now);
        }
    }

    fn set_others(&mut self, server: &str, others: &[OtherSession], now: Timestamp) {
        let Some(unclaimed) = self.others.set(server, others) else { return };
        self.stand_adopting(server, now);
        for uid in unclaimed {
            self.stand(&uid, now);
        }
    }

    /// What a server reports decides on those that are to take something over there.
    fn stand_adopting(&mut self, server: &str, now: Timestamp) {
        let may_be_there = |uid: &&Arc<str>| {
            let adopt = self.waiting.get(*uid).and_then(|waiting| waiting.session.spec.adopt.as_ref());
            adopt.is_none_or(|adopt| adopt.server_name == server)
        };
        let there: Vec<_> = self.adopting.iter().filter(may_be_there).cloned().collect();
        for uid in there {
            self.stand(&uid, now);
        }
    }

    /// Takes note of a session as it was read. An older view than the last is passed over.
    pub fn see(&mut self, session: Arc<DcvSession>, now: Timestamp) {
        let uid: Arc<str> = session.uid().unwrap_or_default().into();
        if let Some(flight) = self.flights.get_mut(&uid) {
            flight.seen = flight.seen.max(version(&session));
        }
        if self.waiting.get(&uid).is_some_and(|known| is_older(version(&session), version(&known.session))) {
            return;
        }
        self.ledger.see(&session);
        self.count(&uid, &session);
        if !waiting::is_waiting(&session) {
            self.drop_waiting(&uid);
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(&uid) {
            waiting.session = session;
        } else {
            let waiting = Waiting { session, looked: now, not_before: None, look: None };
            self.waiting.insert(Arc::clone(&uid), waiting);
        }
        self.stand(&uid, now);
    }

    /// Takes note that a session's object is gone.
    pub fn forget(&mut self, uid: &str) {
        if let Some(flight) = self.flights.get_mut(uid) {
            flight.gone = true;
        }
        self.ledger.forget(uid);
        self.line.uncount(uid);
        self.drop_waiting(uid);
    }

    /// Forgets the sessions that `keep` does not want. A bind on its way keeps its place until it is known what became
    /// of it.
    pub fn retain_sessions(&mut self, keep: impl Fn(&str) -> bool) {
        self.ledger.retain_sessions(&keep);
        let gone: Vec<_> = self.line.counted().filter(|uid| !self.ledger.has_place(uid)).cloned().collect();
        for uid in gone {
            self.line.uncount(&uid);
        }
        let gone: Vec<_> = self.waiting.keys().filter(|uid| !keep(uid)).cloned().collect();
        for uid in gone {
            self.drop_waiting(&uid);
        }
        self.flights.iter_mut().filter(|(uid, _)| !keep(uid)).for_each(|(_, flight)| flight.gone = true);
    }

    /// Takes note of what became of a write.
    pub fn settle(&mut self, uid: &str, written: Written, now: Timestamp) {
        let flight = self.flights.remove(uid).unwrap_or_default();
        if let Written::NotBound(attempt, ..) = &written {
            self.ledger.give_back(uid, *attempt);
        }
        if flight.gone || matches!(written, Written::Gone) {
            self.forget(uid);
            return;
        }
        if !self.ledger.has_place(uid) {
            self.line.uncount(uid);
        }
        let (session, hitch) = match written {
            Written::Bound(session) | Written::Told(session) => (Some(session), None),
            Written::NotBound(_, session, hitch) => (session, Some(hitch)),
            Written::NotTold(hitch) => (None, Some(hitch)),
            Written::Gone => (None, None),
        };
        if let (Some(hitch), Some(waiting)) = (hitch, self.waiting.get_mut(uid)) {
            waiting.not_before = Some(now + PAUSES[usize::from(hitch == Hitch::Failed)]);
        }
        match session.filter(|session| !is_older(version(session), flight.seen)) {
            Some(session) => self.see(session, now),
            None => self.stand(uid, now),
        }
    }

    /// Decides on all that may have changed, in the order of the line.
    pub fn decide(&mut self, now: Timestamp) -> Vec<Command> {
        let woken: HashSet<GroupId> = self.ledger.take_woken().into_iter().collect();
        if !woken.is_empty() {
            self.line.wake(|(group, _)| woken.contains(group));
        }
        let mut commands = Vec::new();
        loop {
            self.place(now, &mut commands);
            let Some((time, uid)) = self.looks.pop_first() else { break };
            if time > now {
                self.looks.insert((time, uid));
                break;
            }
            if let Some(waiting) = self.waiting.get_mut(&uid) {
                waiting.look = None;
            }
            commands.extend(self.look(&uid, now));
        }
        if self.ledger.groups() > GROUPS_MAX.max(2 * self.line.groups().count()) {
            let kept: HashSet<GroupId> = self.line.groups().map(|(group, _)| *group).collect();
            self.ledger.retain_groups(|group| kept.contains(&group));
        }
        commands
    }

    /// Asks one after the other until nothing fits anybody any more.
    fn place(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        while let Some(uid) = self.line.next() {
            let Some(waiting) = self.waiting.get(&uid) else { break };
            let session = Arc::clone(&waiting.session);
            let Standing::InLine(request) = self.standing(&uid, &session, now) else {
                self.stand(&uid, now);
                continue;
            };
            match self.ledger.choose(&request, self.policy) {
                Some(server) => match waiting::retries_at(&session, &server, now) {
                    Some(end) => self.leave_until(&uid, end),
                    None => commands.push(self.bind(&uid, session, &server, None)),
                },
                None => self.put_to_sleep(&uid, request),
            }
        }
    }

    fn put_to_sleep(&mut self, uid: &str, request: Request) {
        // Nobody has this name: what lets it in and not the other are the limits of the owner.
        let anybody = Request { owner: String::new(), ..request };
        if self.ledger.choose(&anybody, self.policy).is_some() {
            self.line.sleep_share(uid);
        } else {
            self.line.sleep_group(uid);
        }
    }

    /// Looks at one session, which nothing fits as far as is known.
    fn look(&mut self, uid: &Arc<str>, now: Timestamp) -> Option<Command> {
        let waiting = self.waiting.get_mut(uid)?;
        waiting.looked = now;
        let session = Arc::clone(&waiting.session);
        let explanation = match self.standing(uid, &session, now) {
            Standing::Pauses(end) => {
                self.leave_until(uid, end);
                return None;
            }
            Standing::Unknown => return None,
            Standing::Adopts(Adoption { server, session_id }) => {
                return Some(self.bind(uid, session, &server, Some(session_id)));
            }
            Standing::Unplaceable(text) => {
                return Some(self.fail(uid, session, Reason::InvalidRequirements, text, now));
            }
            Standing::Stuck(explanation) => explanation,
            Standing::InLine(request) => {
                // Its pause is over, or something fits that nobody knew of: then it is asked in its turn.
                let is_missed = self.ledger.choose(&request, self.policy).is_some();
                if is_missed || self.line.waiter(uid).is_none() {
                    let group = self.enter(uid, &session, &request);
                    self.line.wake(|it| *it == group);
                    self.look_at(uid, Some(now));
                    return None;
                }
                self.explanation(&request, now)
            }
        };
        match waiting::decide(&session, &explanation, now) {
            Verdict::Fail(reason, text) => Some(self.fail(uid, session, reason, text, now)),
            Verdict::Wait if waiting::is_said(&session, &explanation) => {
                self.look_later(uid, now);
                None
            }
            Verdict::Wait => {
                let status = Draft::of(&session, now).waiting(&explanation);
                Some(self.depart(uid, session, Step::Tell(Box::new(status), None)))
            }
        }
    }

    /// Puts a session where it stands now, and sees to it that it is looked at in time.
    fn stand(&mut self, uid: &str, now: Timestamp) {
        let Some((uid, waiting)) = self.waiting.get_key_value(uid) else { return };
        let (uid, session) = (Arc::clone(uid), Arc::clone(&waiting.session));
        self.line_up(&uid, &session, now);
    }

    fn line_up(&mut self, uid: &Arc<str>, session: &Arc<DcvSession>, now: Timestamp) {
        self.adopting.remove(uid);
        // One that has a place already waits only in an old view of it.
        if self.flights.contains_key(uid) || self.ledger.has_place(uid) {
            self.line.remove(uid);
            self.look_at(uid, None);
            return;
        }
        let mut is_told = waiting::is_told(session);
        match self.standing(uid, session, now) {
            Standing::InLine(request) => {
                self.enter(uid, session, &request);
            }
            Standing::Pauses(end) => return self.leave_until(uid, end),
            Standing::Unknown => {
                self.line.remove(uid);
                return self.look_at(uid, None);
            }
            standing => {
                self.line.remove(uid);
                self.adopting.insert(Arc::clone(uid));
                is_told &= matches!(standing, Standing::Stuck(_));
            }
        }
        if is_told { self.look_later(uid, now) } else { self.look_at(uid, Some(now)) }
    }

    fn standing(&self, uid: &str, session: &DcvSession, now: Timestamp) -> Standing {
        let not_before = self.waiting.get(uid).and_then(|waiting| waiting.not_before).filter(|time| *time > now);
        if let Some(end) = not_before.max(waiting::restarts_at(session, now)) {
            return Standing::Pauses(end);
        }
        let namespace = session.namespace().unwrap_or_default();
        let Some(labels) = self.namespaces.get(&namespace) else { return Standing::Unknown };
        let mut request = match Request::of(&session.spec, &namespace, labels, self.dialect) {
            Ok(request) => request,
            Err(reason) => return Standing::Unplaceable(reason.to_string()),
        };
        match adoption::of(session, &self.others) {
            Ok(None) => {}
            Ok(Some(adoption)) if self.answers(&adoption.server) => return Standing::Adopts(adoption),
            Ok(Some(Adoption { server, .. })) => {
                let text = format!("server {server}, whose desktop is to be taken over, does not answer");
                return Standing::Stuck(text);
            }
            Err(text) => return Standing::Stuck(text),
        }
        request.avoid = waiting::avoided(session, now);
        Standing::InLine(request)
    }

    /// Whether a server's agent can be given a session; that the server is full or closed does not matter to one that is
    /// there already.
    fn answers(&self, server: &str) -> bool {
        self.ledger.server(server).is_some_and(|candidate| candidate.shut != Some(Rejection::Unreachable))
    }

    fn group(&mut self, request: &Request) -> Group {
        (self.ledger.group(request), request.namespace.as_str().into())
    }

    /// Lets a session stand in the line.
    fn enter(&mut self, uid: &str, session: &DcvSession, request: &Request) -> Group {
        let group = self.group(request);
        let waiter = Waiter {
            group: group.clone(),
            share: share(session),
            priority: session.spec.priority,
            created: session.metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            name: format!("{}/{}", request.namespace, session.name_any()).into(),
        };
        self.line.insert(uid, waiter);
        group
    }

    /// Takes a session out of the line until then.
    fn leave_until(&mut self, uid: &Arc<str>, end: Timestamp) {
        self.line.remove(uid);
        self.look_at(uid, Some(end));
    }

    fn look_at(&mut self, uid: &Arc<str>, time: Option<Timestamp>) {
        let Some(waiting) = self.waiting.get_mut(uid) else { return };
        if let Some(old) = std::mem::replace(&mut waiting.look, time) {
            self.looks.remove(&(old, Arc::clone(uid)));
        }
        self.looks.extend(time.map(|time| (time, Arc::clone(uid))));
    }

    /// Looks again when its time is over, or when another reason may be worth telling.
    fn look_later(&mut self, uid: &Arc<str>, now: Timestamp) {
        let Some(waiting) = self.waiting.get(uid) else { return };
        let period = waiting.looked + waiting::text_period(self.waiting.len());
        let deadline = waiting::deadline(&waiting.session, now);
        self.look_at(uid, Some(deadline.map_or(period, |end| end.min(period))));
    }

    fn count(&mut self, uid: &str, session: &DcvSession) {
        if self.ledger.has_place(uid) {
            self.line.count(uid, share(session));
        } else {
            self.line.uncount(uid);
        }
    }

    fn drop_waiting(&mut self, uid: &str) {
        let Some((uid, waiting)) = self.waiting.remove_entry(uid) else { return };
        self.line.remove(&uid);
        self.adopting.remove(&uid);
        if let Some(look) = waiting.look {
            self.looks.remove(&(look, uid));
        }
    }

    /// Why nothing fits, as it was a moment ago.
    fn explanation(&mut self, request: &Request, now: Timestamp) -> String {
        if self.explained_since + EXPLAINED <= now {
            self.explained.clear();
            self.explained_since = now;
        }
        let group = self.group(request);
        let keys = [(group.clone(), None), (group, Some(request.owner.clone()))];
        if let Some(known) = keys.iter().find_map(|key| self.explained.get(key)) {
            return known.clone();
        }
        let explanation = Explanation::of(&self.ledger, request);
        let [everybody, owner] = keys;
        // Where no limit of the owner counts, it is as true of everybody else.
        let is_personal = explanation.rejections.contains_key(&Rejection::OwnerLimit);
        let text = explanation.to_string();
        self.explained.insert(if is_personal { owner } else { everybody }, text.clone());
        text
    }

    /// Takes the place, then gives the bind out.
    fn bind(&mut self, uid: &Arc<str>, session: Arc<DcvSession>, server: &str, session_id: Option<String>) -> Command {
        let candidate = self.ledger.server(server).expect("a server that is bound to is in the ledger");
        let (server, server_uid) = (candidate.name.to_string(), candidate.uid.clone());
        let attempt = session.attempt().saturating_add(1);
        self.ledger.reserve(uid, attempt, &server, &session.spec.owner, session.spec.type_);
        self.line.give(uid);
        self.count(uid, &session);
        self.depart(uid, session, Step::Bind { server, server_uid, session_id })
    }

    fn fail(
        &mut self,
        uid: &Arc<str>,
        session: Arc<DcvSession>,
        reason: Reason,
        text: String,
        now: Timestamp,
    ) -> Command {
        let status = Draft::of(&session, now).failed(reason, &text);
        self.depart(uid, session, Step::Tell(Box::new(status), Some((reason, text))))
    }

    /// A write is on its way: until it is settled, nothing else happens to the session.
    fn depart(&mut self, uid: &Arc<str>, session: Arc<DcvSession>, step: Step) -> Command {
        self.flights.insert(Arc::clone(uid), Flight::default());
        self.line.remove(uid);
        self.look_at(uid, None);
        Command { uid: Arc::clone(uid), session, step }
    }
}

fn share(session: &DcvSession) -> Share {
    let namespace = session.metadata.namespace.as_deref().unwrap_or_default();
    Share { namespace: namespace.into(), owner: session.spec.owner.as_str().into() }
}

/// The resource version as a number. They are comparable since Kubernetes 1.35, and were before in fact.
fn version(session: &DcvSession) -> Option<u64> {
    session.metadata.resource_version.as_deref()?.parse().ok()
}

fn is_older(version: Option<u64>, than: Option<u64>) -> bool {
    version.zip(than).is_some_and(|(version, than)| version < than)
}

#[cfg(test)]
mod tests;
