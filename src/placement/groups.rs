//! Which servers suit which wishes, kept from one decision to the next.
//!
//! Sessions that ask the same of a server are one group. Invariant: a group's set holds exactly the servers that
//! [`filter::suits`] it, and a namespace's exactly those that admit it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use super::Candidate;
use super::Occupied;
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

#[derive(Debug, Default)]
pub(super) struct Groups {
    ids: HashMap<Arc<Wants>, GroupId>,
    kept: BTreeMap<GroupId, Group>,
    /// Those that ask for what is different in each report.
    reported: BTreeSet<GroupId>,
    /// Those that ask for numbers of sessions.
    counted: BTreeSet<GroupId>,
    last: u64,
}

#[derive(Debug)]
struct Group {
    wants: Arc<Wants>,
    servers: Bits,
}

impl Group {
    /// Looks at a server again, `None` when it is gone. Whether it suits now and did not before.
    fn update(&mut self, number: usize, server: Option<Occupied<'_>>) -> bool {
        let suits = server.is_some_and(|server| filter::suits(server, &self.wants).is_none());
        self.servers.set(number, suits) && suits
    }
}

impl Groups {
    /// The group of these wishes; the first time every server is looked at.
    pub fn of(&mut self, wants: &Arc<Wants>, fleet: &Fleet) -> GroupId {
        if let Some(id) = self.ids.get(wants) {
            return *id;
        }
        self.last += 1;
        let id = GroupId(self.last);
        let mut group = Group { wants: Arc::clone(wants), servers: Bits::default() };
        for (number, server) in fleet.numbered() {
            group.update(number, Some(server));
        }
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

    /// The servers that suit a group.
    pub fn servers(&self, id: GroupId) -> Option<&Bits> {
        self.kept.get(&id).map(|group| &group.servers)
    }

    /// Looks again at a server that is different, for the groups to which that matters; `None`: it is gone. Whether it
    /// suits some group now and did not before.
    pub fn update(&mut self, number: usize, server: Option<Occupied<'_>>, difference: Difference) -> bool {
        let mut gained = false;
        let ids = match difference {
            Difference::Nothing => return false,
            Difference::Sessions => &self.counted,
            Difference::Report => &self.reported,
            Difference::Whole => {
                self.kept.values_mut().for_each(|group| gained |= group.update(number, server));
                return gained;
            }
        };
        for id in ids {
            gained |= self.kept.get_mut(id).is_some_and(|group| group.update(number, server));
        }
        gained
    }

    /// The groups that one of these servers suits and has room for.
    pub fn woken(&self, gained: &[usize], fleet: &Fleet) -> Vec<GroupId> {
        let fits = |group: &Group, number| group.servers.contains(number) && fleet.has_room(number, group.wants.type_);
        let woken = self.kept.iter().filter(|(_, group)| gained.iter().any(|number| fits(group, *number)));
        woken.map(|(id, _)| *id).collect()
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
#[derive(Debug, Default)]
pub(super) struct Admissions(HashMap<String, Admission>);

#[derive(Debug)]
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
