//! Servers by number, and which of them have room: what a decision reads instead of every server.
//!
//! Invariant: `console_room` and `virtual_room` hold exactly the open servers with room for one such session more, `levels`
//! those with room for a virtual one, by their present rank.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::mem;
use std::ops::Bound;
use std::sync::Arc;

use super::Candidate;
use super::Occupancy;
use super::Occupied;
use super::bits::Bits;
use super::candidate::Difference;
use super::filter;
use super::score::Place;
use super::score::Rank;
use super::texts::Texts;
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;

/// How many servers are compared one by one; more are first parted by their load.
const COMPARED_MAX: usize = if cfg!(test) { 2 } else { 64 };

/// Most numbers of sessions that are looked at one after the other, before all servers at once take less time.
const LEVELS_MAX: usize = if cfg!(test) { 2 } else { 128 };

/// How far the numbers of names are apart, so that new ones fit between. When none fits all are numbered anew, which in
/// tests is soon.
const NAME_STEP: u64 = if cfg!(test) { 2 } else { 1 << 32 };

#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    seats: Vec<Seat>,
    /// Numbers of seats that nobody has.
    free: Vec<usize>,
    numbers: HashMap<Arc<str>, usize>,
    /// The same, in order.
    names: BTreeMap<Arc<str>, usize>,
    /// By number. Apart from the seats, so that comparing many reads little.
    ranks: Vec<Named>,
    console_room: Bits,
    virtual_room: Bits,
    /// By how many sessions are on them; none is empty.
    levels: BTreeMap<i32, Level>,
    texts: Texts,
    /// Where a session may fit now that did not before.
    gained: Bits,
}

/// Servers with the same number of sessions.
#[derive(Clone, Debug, Default)]
struct Level {
    all: Bits,
    /// By about how much load they have; none is empty.
    by_load: BTreeMap<u32, Bits>,
}

impl Level {
    fn set(&mut self, number: usize, rank: Rank, present: bool) {
        self.all.set(number, present);
        let alike = self.by_load.entry(rank.load_class()).or_default();
        alike.set(number, present);
        if alike.is_empty() {
            self.by_load.remove(&rank.load_class());
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Named {
    /// For Spread.
    rank: Rank,
    /// Greater for greater names, so that names need not be compared.
    name: u64,
}

impl Named {
    fn place(self, number: usize, policy: PlacementPolicy) -> Place {
        Place { rank: self.rank.by(policy), name: self.name, number }
    }
}

/// A server, or sessions on one that is gone or not yet seen: they are counted when it comes.
#[derive(Clone, Debug, Default)]
struct Seat {
    candidate: Option<Candidate>,
    occupancy: Occupancy,
}

impl Seat {
    fn server(&self) -> Option<Occupied<'_>> {
        self.candidate.as_ref().map(|candidate| Occupied { candidate, occupancy: &self.occupancy })
    }
}

impl Fleet {
    /// Enters or updates a server. Its number, and what is different.
    pub fn set_server(&mut self, candidate: Candidate) -> (usize, Difference) {
        let name = Arc::clone(&candidate.name);
        let mut texts = mem::take(&mut self.texts);
        let changed = self.change(&name, |seat| {
            let difference = if let Some(known) = &mut seat.candidate {
                known.replace(candidate)
            } else {
                seat.candidate = Some(candidate);
                Difference::Whole
            };
            if let (Difference::Whole, Some(known)) = (difference, &mut seat.candidate) {
                known.share(&mut texts);
            }
            difference
        });
        self.texts = texts;
        changed
    }

    /// Takes a server out. Its number, if it was there.
    pub fn remove_server(&mut self, name: &str) -> Option<usize> {
        self.server_named(name)?;
        Some(self.change(name, |seat| seat.candidate = None).0)
    }

    /// Changes who is on a server, which need not be there. Its number.
    pub fn change_occupancy(&mut self, name: &str, change: impl FnOnce(&mut Occupancy)) -> usize {
        self.change(name, |seat| change(&mut seat.occupancy)).0
    }

    /// Notes that somebody may fit on a server for another reason than that it was full before.
    pub fn note_gain(&mut self, number: usize) {
        self.gained.set(number, true);
    }

    /// The servers that somebody may fit on now and did not before, since the last call.
    pub fn take_gained(&mut self) -> Vec<usize> {
        let gained = self.gained.iter().collect();
        self.gained.clear();
        gained
    }

    pub fn server(&self, number: usize) -> Option<Occupied<'_>> {
        self.seats.get(number)?.server()
    }

    pub fn server_named(&self, name: &str) -> Option<Occupied<'_>> {
        self.server(*self.numbers.get(name)?)
    }

    pub fn occupancy(&self, name: &str) -> Option<&Occupancy> {
        self.seats.get(*self.numbers.get(name)?).map(|seat| &seat.occupancy)
    }

    /// Every server, by name.
    pub fn servers(&self) -> impl Iterator<Item = Occupied<'_>> {
        self.names.values().filter_map(|number| self.server(*number))
    }

    /// Every server with its number.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, Occupied<'_>)> {
        self.seats.iter().enumerate().filter_map(|(number, seat)| Some((number, seat.server()?)))
    }

    /// Whether the server is open and has room for one session more.
    pub fn has_room(&self, number: usize, type_: SessionType) -> bool {
        self.room(type_).contains(number)
    }

    /// The first in the order of `policy` of the servers with room for one session more that are in both sets and that
    /// `accept` lets pass. It is asked of few.
    pub fn best(
        &self,
        [a, b]: [&Bits; 2],
        type_: SessionType,
        policy: PlacementPolicy,
        mut accept: impl FnMut(usize, Occupied<'_>) -> bool,
    ) -> Option<Occupied<'_>> {
        let both = a.and(b);
        let place = |number| self.named(number).place(number, policy);
        let mut is_accepted =
            |place: &Place| self.server(place.number).is_some_and(|server| accept(place.number, server));
        let mut best_of = |places: Vec<Place>| {
            let first = *places.iter().min()?;
            if is_accepted(&first) {
                return Some(first);
            }
            let mut others: BinaryHeap<_> = places.into_iter().filter(|place| *place != first).map(Reverse).collect();
            while let Some(Reverse(place)) = others.pop() {
                if is_accepted(&place) {
                    return Some(place);
                }
            }
            None
        };
        let best = match (type_, policy) {
            (SessionType::Console, _) => best_of(both.common(&self.console_room).map(place).collect()),
            _ if self.levels.len() > LEVELS_MAX => best_of(both.common(&self.virtual_room).map(place).collect()),
            (_, PlacementPolicy::Pack) => {
                let levels = self.levels.values().rev().filter(|level| both.meets(&level.all));
                levels.map(|level| both.common(&level.all).map(place).collect()).find_map(best_of)
            }
            (_, PlacementPolicy::Spread) => {
                self.levels.values().filter(|level| both.meets(&level.all)).find_map(|level| {
                    let some: Vec<_> = both.common(&level.all).map(place).take(COMPARED_MAX + 1).collect();
                    if some.len() <= COMPARED_MAX {
                        return best_of(some);
                    }
                    level.by_load.values().find_map(|alike| best_of(both.common(alike).map(place).collect()))
                })
            }
        };
        self.server(best?.number)
    }

    fn room(&self, type_: SessionType) -> &Bits {
        match type_ {
            SessionType::Console => &self.console_room,
            SessionType::Virtual => &self.virtual_room,
        }
    }

    fn named(&self, number: usize) -> Named {
        self.ranks.get(number).copied().unwrap_or_default()
    }

    /// One more than the greatest number.
    pub fn end(&self) -> usize {
        self.seats.len()
    }

    /// Changes a seat and keeps everything else right. Its number.
    fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut Seat) -> R) -> (usize, R) {
        let number = self.number(name);
        let seat = self.seats.get_mut(number).expect("every number has a seat");
        let result = change(seat);
        let is_empty = seat.candidate.is_none() && seat.occupancy == Occupancy::default();
        self.enter(number);
        if is_empty {
            self.numbers.remove(name);
            self.names.remove(name);
            self.free.push(number);
        }
        (number, result)
    }

    fn number(&mut self, name: &str) -> usize {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            self.ranks.push(Named::default());
            self.seats.len() - 1
        });
        let between = self.between(name);
        let name: Arc<str> = name.into();
        self.numbers.insert(Arc::clone(&name), number);
        self.names.insert(name, number);
        match (between, self.ranks.get_mut(number)) {
            (Some(between), Some(ranks)) => ranks.name = between,
            _ => self.rename(),
        }
        number
    }

    /// A number for a new name, between those of its neighbours, if there is one left.
    fn between(&self, name: &str) -> Option<u64> {
        let rank = |(_, number): (_, &usize)| self.named(*number).name;
        let below = self.names.range::<str, _>((Bound::Unbounded, Bound::Excluded(name))).next_back().map_or(0, rank);
        let above = self
            .names
            .range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
            .next()
            .map_or(below.saturating_add(2 * NAME_STEP), rank);
        let between = below.midpoint(above);
        (between > below && between < above).then_some(between)
    }

    /// Gives every name a new number, far from the next.
    fn rename(&mut self) {
        for (number, name) in self.names.values().zip(1..) {
            if let Some(ranks) = self.ranks.get_mut(*number) {
                ranks.name = name * NAME_STEP;
            }
        }
    }

    /// Puts the server where it belongs now.
    fn enter(&mut self, number: usize) {
        let server = self.seats.get(number).and_then(Seat::server);
        let open = server.filter(|server| server.candidate.shut.is_none());
        let has_room = |type_| open.is_some_and(|server| filter::has_room(server, type_));
        let (for_console, for_virtual) = (has_room(SessionType::Console), has_room(SessionType::Virtual));
        let rank = server.map(|server| Rank::of(server, PlacementPolicy::Spread)).unwrap_or_default();
        let (was_listed, old) = (self.virtual_room.contains(number), self.named(number));
        let new = Named { rank, ..old };
        for (room, has) in [(&mut self.console_room, for_console), (&mut self.virtual_room, for_virtual)] {
            if room.set(number, has) && has {
                self.gained.set(number, true);
            }
        }
        if (was_listed, old) == (for_virtual, new) {
            return;
        }
        if was_listed {
            self.list(number, old, false);
        }
        if for_virtual {
            self.list(number, new, true);
        }
        if let Some(known) = self.ranks.get_mut(number) {
            *known = new;
        }
    }

    /// Enters a server among those with room for a virtual session, or takes it out.
    fn list(&mut self, number: usize, named: Named, present: bool) {
        let level = self.levels.entry(named.rank.sessions()).or_default();
        level.set(number, named.rank, present);
        if level.all.is_empty() {
            self.levels.remove(&named.rank.sessions());
        }
    }
}
