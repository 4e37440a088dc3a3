//! The order in which waiting sessions get the places there are.
//!
//! The highest priority first; then fair share: whoever has the fewest sessions; then first come. With skipping: a session
//! that nothing fits blocks nobody. And one place in ten goes to whoever came first of all, whatever its priority, and on
//! top of its share, so that everybody moves.
//!
//! Sessions of one group ask the same of a server. Once nothing fits one of them, its group sleeps and is not asked again
//! until it is woken, so a long line costs nothing while nothing changes. Knows no servers and no clock. Invariant: a step
//! costs the logarithm of what waits, times the groups that the owner at hand has sessions in.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use jiff::Timestamp;

/// Whose sessions count together for the fair share: an owner within a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The owner.
    pub owner: Arc<str>,
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<G> {
    /// What it asks; equal for all that the same servers fit, limits of an owner apart.
    pub group: G,
    /// Whose it is.
    pub share: Share,
    /// Higher is first.
    pub priority: i32,
    /// When it came.
    pub created: Timestamp,
    /// Breaks ties.
    pub name: Arc<str>,
}

/// When somebody came, and who. Ordered: the first is the oldest.
type Seat = (Timestamp, Arc<str>, Arc<str>);
/// Where somebody stands: priority, sessions of the share, seat. Ordered: the first is next.
type Rank = (Reverse<i32>, u32, Seat);

/// The two who could be next out of a crowd, a group or the whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Best {
    ranked: Rank,
    oldest: Seat,
}

/// The best of several.
#[derive(Debug, Default)]
struct Heads {
    ranked: BTreeSet<Rank>,
    oldest: BTreeSet<Seat>,
}

impl Heads {
    fn replace(&mut self, old: Option<Best>, new: Option<Best>) {
        if let Some(Best { ranked, oldest }) = old {
            self.ranked.remove(&ranked);
            self.oldest.remove(&oldest);
        }
        if let Some(Best { ranked, oldest }) = new {
            self.ranked.insert(ranked);
            self.oldest.insert(oldest);
        }
    }

    fn best(&self) -> Option<Best> {
        Some(Best { ranked: self.ranked.first()?.clone(), oldest: self.oldest.first()?.clone() })
    }
}

/// Sessions of one share in one group.
#[derive(Debug, Default)]
struct Crowd {
    by_priority: BTreeSet<(Reverse<i32>, Seat)>,
    by_age: BTreeSet<Seat>,
    is_asleep: bool,
    /// What stands for it among the heads of its group.
    entered: Option<Best>,
}

impl Crowd {
    fn best(&self, sessions: u32) -> Option<Best> {
        let (priority, seat) = self.by_priority.first().filter(|_| !self.is_asleep)?.clone();
        Some(Best { ranked: (priority, sessions, seat), oldest: self.by_age.first()?.clone() })
    }
}

#[derive(Debug, Default)]
struct Group {
    crowds: HashMap<Share, Crowd>,
    /// Of the crowds that are awake.
    heads: Heads,
    is_asleep: bool,
}

impl Group {
    fn best(&self) -> Option<Best> {
        self.heads.best().filter(|_| !self.is_asleep)
    }
}

/// Who waits, and who has how much already.
#[derive(Debug)]
pub struct Line<G> {
    /// By uid.
    waiters: HashMap<Arc<str>, Waiter<G>>,
    groups: HashMap<G, Group>,
    /// Of the groups that are awake.
    heads: Heads,
    /// The groups in which somebody of a share waits.
    groups_of: HashMap<Share, HashSet<G>>,
    /// Sessions that have a place, by uid, and the share they count for.
    placed: HashMap<Arc<str>, Option<Share>>,
    /// How many count for each share.
    sessions: HashMap<Share, u32>,
    /// Places given so far.
    turns: u64,
}

impl<G> Default for Line<G> {
    fn default() -> Self {
        Self {
            waiters: HashMap::new(),
            groups: HashMap::new(),
            heads: Heads::default(),
            groups_of: HashMap::new(),
            placed: HashMap::new(),
            sessions: HashMap::new(),
            turns: 0,
        }
    }
}

impl<G: Clone + Eq + Hash> Line<G> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Who waits under this uid.
    pub fn waiter(&self, uid: &str) -> Option<&Waiter<G>> {
        self.waiters.get(uid)
    }

    /// Enters somebody, or changes who it is. Wakes nobody.
    pub fn insert(&mut self, uid: &str, waiter: Waiter<G>) {
        if self.waiters.get(uid) == Some(&waiter) {
            return;
        }
        self.remove(uid);
        let uid: Arc<str> = uid.into();
        let seat = seat(&uid, &waiter);
        self.groups_of.entry(waiter.share.clone()).or_default().insert(waiter.group.clone());
        self.edit(&waiter.group, &waiter.share, |crowd| {
            crowd.by_priority.insert((Reverse(waiter.priority), seat.clone()));
            crowd.by_age.insert(seat);
        });
        self.waiters.insert(uid, waiter);
    }

    /// Takes somebody out.
    pub fn remove(&mut self, uid: &str) {
        let Some((uid, waiter)) = self.waiters.remove_entry(uid) else { return };
        let seat = seat(&uid, &waiter);
        self.edit(&waiter.group, &waiter.share, |crowd| {
            crowd.by_age.remove(&seat);
            crowd.by_priority.remove(&(Reverse(waiter.priority), seat));
        });
        self.forget_if_empty(&waiter.group, &waiter.share);
    }

    /// The next to be asked. The same one until something is done about it: [`give`](Self::give),
    /// [`remove`](Self::remove), [`sleep_share`](Self::sleep_share) or [`sleep_group`](Self::sleep_group).
    pub fn next(&self) -> Option<Arc<str>> {
        let (_, _, uid) = if is_turn_of_the_oldest(self.turns) {
            self.heads.oldest.first()?
        } else {
            let (_, _, seat) = self.heads.ranked.first()?;
            seat
        };
        Some(Arc::clone(uid))
    }

    /// Gives somebody a place: it is out of the line, and counts for its share from now on. Not so the place that goes to
    /// whoever came first: it would be taken from the same share at the next turn.
    pub fn give(&mut self, uid: &str) {
        let Some(share) = self.waiters.get(uid).map(|waiter| waiter.share.clone()) else { return };
        self.remove(uid);
        if is_turn_of_the_oldest(self.turns) {
            self.placed.entry(uid.into()).or_insert(None);
        } else {
            self.count(uid, share);
        }
        self.turns += 1;
    }

    /// Nothing fits this one for a reason that is its owner's own: those of the same share and group sleep until the group
    /// is woken.
    pub fn sleep_share(&mut self, uid: &str) {
        let Some(waiter) = self.waiters.get(uid) else { return };
        let (group, share) = (waiter.group.clone(), waiter.share.clone());
        self.edit(&group, &share, |crowd| crowd.is_asleep = true);
    }

    /// Nothing fits this one, whoever it belongs to: its group sleeps until it is woken.
    pub fn sleep_group(&mut self, uid: &str) {
        let Some(waiter) = self.waiters.get(uid) else { return };
        let group = self.groups.get_mut(&waiter.group).expect("it waits in it");
        self.heads.replace(group.best(), None);
        group.is_asleep = true;
    }

    /// The groups that somebody waits in.
    pub fn groups(&self) -> impl Iterator<Item = &G> {
        self.groups.keys()
    }

    /// Something may fit now in the groups that `may_fit` names.
    pub fn wake(&mut self, may_fit: impl Fn(&G) -> bool) {
        let groups: Vec<G> = self.groups.keys().filter(|group| may_fit(group)).cloned().collect();
        for group in groups {
            self.wake_group(&group);
        }
    }

    fn wake_group(&mut self, group: &G) {
        let Some(asleep) = self.groups.get_mut(group) else { return };
        let crowds: Vec<Share> =
            asleep.crowds.iter().filter(|(_, crowd)| crowd.is_asleep).map(|(share, _)| share.clone()).collect();
        if std::mem::take(&mut asleep.is_asleep) {
            self.heads.replace(None, asleep.best());
        }
        for share in crowds {
            self.edit(group, &share, |crowd| crowd.is_asleep = false);
        }
    }

    /// A session has a place, which counts for its share unless it is known already.
    pub fn count(&mut self, uid: &str, share: Share) {
        if !self.placed.contains_key(uid) {
            *self.sessions.entry(share.clone()).or_default() += 1;
            self.rank_anew(&share);
            self.placed.insert(uid.into(), Some(share));
        }
    }

    /// A session has no place any more.
    pub fn uncount(&mut self, uid: &str) {
        let Some(share) = self.placed.remove(uid).flatten() else { return };
        let sessions = self.sessions.get_mut(&share).expect("the session was counted");
        *sessions -= 1;
        if *sessions == 0 {
            self.sessions.remove(&share);
        }
        self.rank_anew(&share);
    }

    /// The sessions that have a place.
    pub fn counted(&self) -> impl Iterator<Item = &Arc<str>> {
        self.placed.keys()
    }

    fn rank_anew(&mut self, share: &Share) {
        let groups: Vec<G> = self.groups_of.get(share).into_iter().flatten().cloned().collect();
        for group in groups {
            self.edit(&group, share, |_| {});
        }
    }

    /// Changes a crowd and keeps those who stand for it right, in its group and in the line.
    fn edit(&mut self, group: &G, share: &Share, change: impl FnOnce(&mut Crowd)) {
        let sessions = self.sessions.get(share).copied().unwrap_or(0);
        let group = self.groups.entry(group.clone()).or_default();
        let before = group.best();
        let crowd = group.crowds.entry(share.clone()).or_default();
        change(crowd);
        let best = crowd.best(sessions);
        if crowd.entered == best {
            return;
        }
        let old = std::mem::replace(&mut crowd.entered, best.clone());
        group.heads.replace(old, best);
        let after = group.best();
        if before != after {
            self.heads.replace(before, after);
        }
    }

    fn forget_if_empty(&mut self, key: &G, share: &Share) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if group.crowds.get(share).is_some_and(|crowd| !crowd.by_age.is_empty()) {
            return;
        }
        group.crowds.remove(share);
        if group.crowds.is_empty() {
            self.groups.remove(key);
        }
        if let Some(groups) = self.groups_of.get_mut(share) {
            groups.remove(key);
            if groups.is_empty() {
                self.groups_of.remove(share);
            }
        }
    }
}

fn seat<G>(uid: &Arc<str>, waiter: &Waiter<G>) -> Seat {
    (waiter.created, Arc::clone(&waiter.name), Arc::clone(uid))
}

/// Whether the place of this number is for whoever came first. One of each ten is, and not always the same one: places that
/// come free regularly would keep step with it, and somebody miss every turn.
fn is_turn_of_the_oldest(turn: u64) -> bool {
    const TEN: u64 = 10;
    turn % TEN == scattered(turn / TEN) % TEN
}

/// A number that follows no pattern but is the same each time. Source: the finalizer of `SplitMix64`.
fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
