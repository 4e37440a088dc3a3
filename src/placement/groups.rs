//! Which servers suit which wishes, kept from one decision to the next.
//!
//! Sessions that ask the same of a server are one group. Invariant: what a group knows of a server is what
//! [`filter::suits`] says, and a namespace's set holds exactly the servers that admit it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use super::Candidate;
use super::Request;
use super::Wants;
use super::bits::Bits;
use super::candidate;
use super::candidate::Difference;
use super::filter;
use super::fleet::Fleet;

/// Sessions that ask the same of a server. Never used again for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    ids: HashMap<Arc<Wants>, GroupId>,
    kept: BTreeMap<GroupId, Group>,
    /// Those that ask for what is different in each report.
    reported: BTreeSet<GroupId>,
    /// Those that ask for numbers of sessions.
    counted: BTreeSet<GroupId>,
    last: u64,
}

/// What is known of one group. Whether a server suits it is found out when that matters, and kept until the server changes.
#[derive(Clone, Debug)]
pub(super) struct Group {
    wants: Arc<Wants>,
    /// Servers that suit, and those of which it is not known.
    possible: Bits,
    known: Bits,
    /// Servers that did not suit when last heard of, and are different since.
    stirred: Bits,
}

impl Group {
    /// The servers that may suit.
    pub fn possible(&self) -> &Bits {
        &self.possible
    }

    /// Whether a server suits, if that is known.
    pub fn suits(&self, number: usize) -> Option<bool> {
        self.known.contains(number).then(|| self.possible.contains(number))
    }

    /// What is known of a server holds no more.
    fn forget(&mut self, number: usize, is_there: bool) {
        if self.suits(number) != Some(true) {
            self.stirred.set(number, is_there);
        }
        self.known.set(number, false);
        self.possible.set(number, is_there);
    }

    fn learn(&mut self, number: usize, suits: bool) {
        self.known.set(number, true);
        self.possible.set(number, suits);
    }

    /// Whether a server suits.
    fn find_out(&mut self, number: usize, fleet: &Fleet) -> bool {
        let Some(server) = fleet.server(number) else { return false };
        if let Some(suits) = self.suits(number) {
            return suits;
        }
        let suits = filter::suits(server, &self.wants).is_none();
        self.learn(number, suits);
        suits
    }
}

impl Groups {
    /// The group of these wishes.
    pub fn of(&mut self, wants: &Arc<Wants>, fleet: &Fleet) -> GroupId {
        if let Some(id) = self.ids.get(wants) {
            return *id;
        }
        self.last += 1;
        let id = GroupId(self.last);
        let group = Group {
            wants: Arc::clone(wants),
            possible: Bits::below(fleet.end()),
            known: Bits::default(),
            stirred: Bits::default(),
        };
        if wants.asks_for_any(&candidate::REPORTED) {
            self.reported.insert(id);
        }
        if wants.asks_for_any(&candidate::COUNTED) {
            self.counted.insert(id);
        }
        self.ids.insert(Arc::clone(wants), id);
        self.kept.insert(id, group);
        id
    }

    /// What is known of a group.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.kept.get(&id)
    }

    /// Keeps which servers suit a group, and which do not.
    pub fn learn(&mut self, id: GroupId, learned: Vec<(usize, bool)>) {
        let Some(group) = self.kept.get_mut(&id) else { return };
        for (number, suits) in learned {
            group.learn(number, suits);
        }
    }

    /// Forgets of a server that is different whether it suits, for the groups to which that matters.
    pub fn forget(&mut self, number: usize, is_there: bool, difference: Difference) {
        let ids = match difference {
            Difference::Nothing => return,
            Difference::Sessions => &self.counted,
            Difference::Report => &self.reported,
            Difference::Whole => {
                self.kept.values_mut().for_each(|group| group.forget(number, is_there));
                return;
            }
        };
        for id in ids {
            if let Some(group) = self.kept.get_mut(id) {
                group.forget(number, is_there);
            }
        }
    }

    /// The groups that one of these servers suits and has room for, or one that is different for them.
    pub fn woken(&mut self, gained: &[usize], fleet: &Fleet) -> Vec<GroupId> {
        let mut woken = Vec::new();
        for (id, group) in &mut self.kept {
            let type_ = group.wants.type_;
            let stirred = mem::take(&mut group.stirred);
            let mut numbers = gained.iter().copied().chain(stirred.iter());
            if numbers.any(|number| fleet.has_room(number, type_) && group.find_out(number, fleet)) {
                woken.push(*id);
            }
        }
        woken
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Forgets every group that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(GroupId) -> bool) {
        self.ids.retain(|_, id| keep(*id));
        self.kept.retain(|id, _| keep(*id));
        self.reported.retain(|id| keep(*id));
        self.counted.retain(|id| keep(*id));
    }
}

/// Most namespaces remembered; one that is forgotten is worked out again.
const NAMESPACES_MAX: usize = 1024;

/// Which servers admit which namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Admissions(HashMap<String, Admission>);

#[derive(Clone, Debug)]
struct Admission {
    labels: BTreeMap<String, String>,
    servers: Bits,
}

impl Admission {
    fn update(&mut self, number: usize, server: Option<&Candidate>) {
        let admits = server.is_some_and(|server| filter::admits(server, &self.labels));
        self.servers.set(number, admits);
    }
}

impl Admissions {
    /// The servers that admit the request's namespace with the labels that it has there.
    pub fn of(&mut self, request: &Request, fleet: &Fleet) -> &Bits {
        let Request { namespace, namespace_labels, .. } = request;
        if self.0.get(namespace).is_none_or(|known| known.labels != *namespace_labels) {
            if self.0.len() >= NAMESPACES_MAX {
                self.0.clear();
            }
            let mut admission = Admission { labels: namespace_labels.clone(), servers: Bits::default() };
            for (number, server) in fleet.numbered() {
                admission.update(number, Some(server.candidate));
            }
            self.0.insert(namespace.clone(), admission);
        }
        self.0.get(namespace).map(|admission| &admission.servers).expect("it is there or was just made")
    }

    /// Looks again at a server that is different; `None`: it is gone.
    pub fn update(&mut self, number: usize, server: Option<&Candidate>) {
        self.0.values_mut().for_each(|admission| admission.update(number, server));
    }
}
