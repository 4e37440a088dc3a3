//! Servers by number, and which of them have room: what a decision reads instead of every server.
//!
//! Invariant: `console_room` and `virtual_room` hold exactly the open servers with room for one such session more, and the
//! orders those with room for a virtual one, by their present rank.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
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

/// How many of the best servers are tried one by one. When none of them will do, those that would are few, or lie far
/// down, and are compared with each other. Tests have few servers and go both ways.
const TRIED_IN_ORDER: usize = if cfg!(test) { 2 } else { 64 };

#[derive(Debug, Default)]
pub(super) struct Fleet {
    seats: Vec<Seat>,
    /// Numbers of seats that nobody has.
    free: Vec<usize>,
    numbers: BTreeMap<Arc<str>, usize>,
    /// Of those with room, by number. Apart from the seats, so that comparing many reads little.
    ranks: Vec<Ranks>,
    console_room: Bits,
    virtual_room: Bits,
    spread: BTreeSet<Place>,
    pack: BTreeSet<Place>,
    /// Where a session may fit now that did not before.
    gained: Bits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ranks {
    spread: Rank,
    pack: Rank,
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
        self.named(name)?;
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

    pub fn named(&self, name: &str) -> Option<Occupied<'_>> {
        self.server(*self.numbers.get(name)?)
    }

    pub fn occupancy(&self, name: &str) -> Option<&Occupancy> {
        self.seats.get(*self.numbers.get(name)?).map(|seat| &seat.occupancy)
    }

    /// Every server, by name.
    pub fn servers(&self) -> impl Iterator<Item = Occupied<'_>> {
        self.numbers.values().filter_map(|number| self.server(*number))
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
    /// `accept` lets pass.
    pub fn best(
        &self,
        [a, b]: [&Bits; 2],
        type_: SessionType,
        policy: PlacementPolicy,
        accept: impl Fn(Occupied<'_>) -> bool,
    ) -> Option<Occupied<'_>> {
        let room = self.room(type_);
        // For console sessions there is no order: a server with room for one is empty.
        let tried = if type_ == SessionType::Virtual { TRIED_IN_ORDER } else { 0 };
        let tried = self.order(policy).iter().take(tried).map(|place| place.number);
        let in_both = tried.filter(|it| a.contains(*it) && b.contains(*it));
        if let Some(first) = in_both.filter_map(|number| self.server(number)).find(|server| accept(*server)) {
            return Some(first);
        }
        // Names and occupancies are looked at only where they decide.
        let mut best: Option<(Rank, Occupied<'_>)> = None;
        for number in Bits::common([a, b, room]) {
            let rank = self.rank(number, policy);
            if best.is_some_and(|(least, _)| least < rank) {
                continue;
            }
            let Some(server) = self.server(number) else { continue };
            let is_first =
                |(least, first): (Rank, Occupied<'_>)| rank < least || server.candidate.name < first.candidate.name;
            if best.is_none_or(is_first) && accept(server) {
                best = Some((rank, server));
            }
        }
        best.map(|(_, server)| server)
    }

    fn room(&self, type_: SessionType) -> &Bits {
        match type_ {
            SessionType::Console => &self.console_room,
            SessionType::Virtual => &self.virtual_room,
        }
    }

    fn order(&self, policy: PlacementPolicy) -> &BTreeSet<Place> {
        match policy {
            PlacementPolicy::Spread => &self.spread,
            PlacementPolicy::Pack => &self.pack,
        }
    }

    fn rank(&self, number: usize, policy: PlacementPolicy) -> Rank {
        let Ranks { spread, pack } = self.ranks.get(number).copied().unwrap_or_default();
        match policy {
            PlacementPolicy::Spread => spread,
            PlacementPolicy::Pack => pack,
        }
    }

    /// Changes a seat and keeps everything else right. Its number.
    fn change<R>(&mut self, name: &str, change: impl FnOnce(&mut Seat) -> R) -> (usize, R) {
        let (name, number) = self.number(name);
        let seat = self.seats.get_mut(number).expect("every number has a seat");
        let result = change(seat);
        let is_empty = seat.candidate.is_none() && seat.occupancy == Occupancy::default();
        self.enter(number, &name);
        if is_empty {
            self.numbers.remove(&name);
            self.free.push(number);
        }
        (number, result)
    }

    fn number(&mut self, name: &str) -> (Arc<str>, usize) {
        if let Some((name, number)) = self.numbers.get_key_value(name) {
            return (Arc::clone(name), *number);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            self.ranks.push(Ranks::default());
            self.seats.len() - 1
        });
        let name: Arc<str> = name.into();
        self.numbers.insert(Arc::clone(&name), number);
        (name, number)
    }

    /// Puts the server where it belongs now.
    fn enter(&mut self, number: usize, name: &Arc<str>) {
        let server = self.seats.get(number).and_then(Seat::server);
        let open = server.filter(|server| server.candidate.shut.is_none());
        let has_room = |type_| open.is_some_and(|server| filter::has_room(server, type_));
        let rank = |policy| server.map(|server| Rank::of(server, policy)).unwrap_or_default();
        let new = Ranks { spread: rank(PlacementPolicy::Spread), pack: rank(PlacementPolicy::Pack) };
        let (for_console, for_virtual) = (has_room(SessionType::Console), has_room(SessionType::Virtual));
        let (was_listed, old) =
            (self.virtual_room.contains(number), self.ranks.get(number).copied().unwrap_or_default());
        for (room, has) in [(&mut self.console_room, for_console), (&mut self.virtual_room, for_virtual)] {
            if room.set(number, has) && has {
                self.gained.set(number, true);
            }
        }
        if (was_listed, old) == (for_virtual, new) {
            return;
        }
        let place = |rank| Place { rank, name: Arc::clone(name), number };
        if was_listed {
            self.spread.remove(&place(old.spread));
            self.pack.remove(&place(old.pack));
        }
        if for_virtual {
            self.spread.insert(place(new.spread));
            self.pack.insert(place(new.pack));
        }
        if let Some(ranks) = self.ranks.get_mut(number) {
            *ranks = new;
        }
    }
}
