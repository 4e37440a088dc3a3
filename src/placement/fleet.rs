//! Servers by number, and which of them have room: what a decision reads instead of every server.
//!
//! Invariant: `room` and the orders hold exactly the open servers with room for one session more, by their present rank.

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
const TRIED_IN_ORDER: usize = if cfg!(test) { 2 } else { 256 };

#[derive(Debug, Default)]
pub(super) struct Fleet {
    seats: Vec<Seat>,
    /// Numbers of seats that nobody has.
    free: Vec<usize>,
    numbers: BTreeMap<Arc<str>, usize>,
    /// By number, for Spread and for Pack; `None`: no room. Apart from the seats, so that comparing many reads little.
    ranks: Vec<Option<(Rank, Rank)>>,
    console_room: Bits,
    virtual_room: Bits,
    spread: BTreeSet<Place>,
    pack: BTreeSet<Place>,
    /// Where a session may fit now that did not before.
    gained: Bits,
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
        let tried = self.order(policy).iter().take(TRIED_IN_ORDER).map(|place| place.number);
        let in_all = tried.filter(|it| a.contains(*it) && b.contains(*it) && room.contains(*it));
        if let Some(first) = in_all.filter_map(|number| self.server(number)).find(|server| accept(*server)) {
            return Some(first);
        }
        // Names and occupancies are looked at only where they decide.
        let mut best: Option<(Rank, Occupied<'_>)> = None;
        for number in Bits::common([a, b, room]) {
            let Some((rank, server)) = self.rank(number, policy).zip(self.server(number)) else { continue };
            let is_better = best.is_none_or(|(least, first)| {
                rank < least || rank == least && server.candidate.name < first.candidate.name
            });
            if is_better && accept(server) {
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

    fn rank(&self, number: usize, policy: PlacementPolicy) -> Option<Rank> {
        let (spread, pack) = (*self.ranks.get(number)?)?;
        Some(match policy {
            PlacementPolicy::Spread => spread,
            PlacementPolicy::Pack => pack,
        })
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
            self.ranks.push(None);
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
        let rooms = [has_room(SessionType::Console), has_room(SessionType::Virtual)];
        let rank = |policy| server.filter(|_| rooms.contains(&true)).map(|server| Rank::of(server, policy));
        let ranks = rank(PlacementPolicy::Spread).zip(rank(PlacementPolicy::Pack));
        for (room, has) in [&mut self.console_room, &mut self.virtual_room].into_iter().zip(rooms) {
            if room.set(number, has) && has {
                self.gained.set(number, true);
            }
        }
        let known = self.ranks.get_mut(number).expect("every number has a rank, or none");
        if *known == ranks {
            return;
        }
        let place = |rank| Place { rank, name: Arc::clone(name), number };
        if let Some((spread, pack)) = known.take() {
            self.spread.remove(&place(spread));
            self.pack.remove(&place(pack));
        }
        if let Some((spread, pack)) = ranks {
            self.spread.insert(place(spread));
            self.pack.insert(place(pack));
        }
        *known = ranks;
    }
}
