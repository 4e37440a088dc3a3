//! Servers by number, and which of them have room: what a decision reads instead of every server.
//!
//! Invariant: `console_room` and `virtual_room` hold exactly the open servers with room for one such session more, `levels`
//! and `spread` those with room for a virtual one, by their present rank.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::BinaryHeap;
use std::collections::HashMap;
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
use crate::api::session::PlacementPolicy;
use crate::api::session::SessionType;

/// How many of the emptiest servers are tried one by one. Where many would do one of these will.
const TRIED_IN_ORDER: usize = if cfg!(test) { 2 } else { 64 };

/// Most numbers of sessions that are looked at one after the other, before all servers at once take less time.
const LEVELS_MAX: usize = if cfg!(test) { 2 } else { 128 };

/// How far the numbers of names are apart, so that new ones fit between. When none fits all are numbered anew, which in
/// tests is soon.
const NAME_STEP: u64 = if cfg!(test) { 2 } else { 1 << 32 };

#[derive(Debug, Default)]
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
    levels: BTreeMap<i32, Bits>,
    spread: BTreeSet<Place>,
    /// Where a session may fit now that did not before.
    gained: Bits,
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
#[derive(Debug, Default)]
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
        self.change(&name, |seat| {
            if let Some(known) = &mut seat.candidate {
                return known.replace(candidate);
            }
            seat.candidate = Some(candidate);
            Difference::Whole
        })
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
        let mut is_accepted = |number| self.server(number).is_some_and(|server| accept(number, server));
        if (type_, policy) == (SessionType::Virtual, PlacementPolicy::Spread) {
            let tried = self.spread.iter().take(TRIED_IN_ORDER).map(|place| place.number);
            let mut in_both = tried.filter(|it| a.contains(*it) && b.contains(*it));
            if let Some(first) = in_both.find(|number| is_accepted(*number)) {
                return self.server(first);
            }
        }
        let both = a.and(b);
        let mut best_of = |room: &Bits| {
            if !both.meets(room) {
                return None;
            }
            let places = || both.common(room).map(|number| self.named(number).place(number, policy));
            let first = places().min()?;
            if is_accepted(first.number) {
                return Some(first);
            }
            let mut others: BinaryHeap<_> = places().filter(|place| *place != first).map(Reverse).collect();
            while let Some(Reverse(place)) = others.pop() {
                if is_accepted(place.number) {
                    return Some(place);
                }
            }
            None
        };
        let best = match (type_, policy) {
            (SessionType::Console, _) => best_of(&self.console_room),
            _ if self.levels.len() > LEVELS_MAX => best_of(&self.virtual_room),
            (_, PlacementPolicy::Spread) => self.levels.values().find_map(best_of),
            (_, PlacementPolicy::Pack) => self.levels.values().rev().find_map(best_of),
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
        let place = |number| self.named(number).place(number, PlacementPolicy::Spread);
        self.spread = self.virtual_room.iter().map(place).collect();
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
        let place = named.place(number, PlacementPolicy::Spread);
        if present {
            self.spread.insert(place)
        } else {
            self.spread.remove(&place)
        };
        let level = self.levels.entry(named.rank.sessions()).or_default();
        level.set(number, present);
        if level.is_empty() {
            self.levels.remove(&named.rank.sessions());
        }
    }
}
