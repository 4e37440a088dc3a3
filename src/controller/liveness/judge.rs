//! The rules by which a server is silent.
//!
//! Pure: time, records and answers come in. What was concluded of a server changes only by its Lease.

use std::collections::HashMap;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// How long a Lease may stay unchanged.
    pub lease: Duration,
    /// How much later the server's sessions are unknown.
    pub unknown_after: Duration,
    /// How long conclusions are held back when many servers fall silent at once.
    pub hold: Duration,
}

/// A longer gap in our own renewals, or in our own attention, and the clock begins anew.
const GAP: Duration = Duration::from_secs(5);
/// Servers that fall silent within this time count as one outage.
const WINDOW: Duration = Duration::from_mins(1);
/// So many may fall silent at once without being one.
const FEW: usize = 2;
/// And so many of a hundred.
const PERCENT: usize = 30;

/// A silent server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lapse {
    /// When its Lease was last seen to change or, if never, when we began to look.
    pub since: Timestamp,
    /// Whether conclusions are held back, as many are silent.
    pub held: bool,
    /// Whether its sessions are unknown by now.
    pub judged: bool,
}

/// What is known of one server's Lease.
#[derive(Clone, Debug)]
struct Record {
    /// The version of its Lease, `None` without one.
    version: Option<String>,
    /// When it was seen to change, on our clock.
    changed: Duration,
    /// The same for people.
    changed_at: Timestamp,
    /// Whether a read has confirmed that it is silent.
    confirmed: bool,
    /// Whether it belongs to an outage whose hold is over.
    cleared: bool,
}

/// Watches over Leases.
#[derive(Debug)]
pub struct Judge {
    limits: Limits,
    /// Time during which we could trust ourselves.
    clock: Duration,
    ticked: Option<Instant>,
    in_gap: bool,
    records: HashMap<String, Record>,
    held_since: Option<Duration>,
}

impl Judge {
    /// A judge that knows nothing yet: every Lease gets its full time from now.
    pub fn new(limits: Limits) -> Self {
        Self { limits, clock: Duration::ZERO, ticked: None, in_gap: false, records: HashMap::new(), held_since: None }
    }

    /// Takes in the Leases as the cache has them: name of each server and the version of its Lease. `renewed` is our own
    /// last renewal. Returns the servers whose silence needs confirming by a read.
    pub fn tick<'a>(
        &mut self,
        now: Instant,
        at: Timestamp,
        renewed: Option<Instant>,
        leases: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Vec<String> {
        let elapsed = self.ticked.map_or(Duration::ZERO, |ticked| now.duration_since(ticked));
        self.ticked = Some(now);
        let trusted = renewed.is_some_and(|renewed| now.saturating_duration_since(renewed) <= GAP);
        if !trusted || elapsed > GAP {
            self.in_gap = true;
        } else if self.in_gap {
            self.in_gap = false;
            self.begin_anew(at);
        } else {
            self.clock += elapsed;
        }
        let mut known = std::mem::take(&mut self.records);
        for (name, version) in leases {
            let record = known.remove(name).filter(|record| record.version.as_deref() == version);
            let record = record.unwrap_or_else(|| self.fresh(version, at));
            self.records.insert(name.to_owned(), record);
        }
        self.hold_or_not();
        let silent = |record: &Record| !record.confirmed && self.is_silent(record);
        let mut unconfirmed: Vec<String> =
            self.records.iter().filter(|(_, record)| silent(record)).map(|(name, _)| name.clone()).collect();
        unconfirmed.sort();
        unconfirmed
    }

    /// Takes in what a read has found.
    pub fn confirm(&mut self, name: &str, version: Option<&str>, at: Timestamp) {
        let fresh = self.fresh(version, at);
        if let Some(record) = self.records.get_mut(name) {
            if record.version.as_deref() == version {
                record.confirmed = true;
            } else {
                *record = fresh;
            }
        }
    }

    /// The servers that are silent for sure.
    pub fn lapses(&self) -> HashMap<String, Lapse> {
        let held = self.held_since.is_some();
        let lapse = |record: &Record| {
            let held = held && !record.cleared;
            let judged = !held && self.clock >= record.changed + self.limits.lease + self.limits.unknown_after;
            Lapse { since: record.changed_at, held, judged }
        };
        let confirmed = self.records.iter().filter(|(_, record)| record.confirmed);
        confirmed.map(|(name, record)| (name.clone(), lapse(record))).collect()
    }

    /// Whether conclusions are held back.
    pub fn is_holding(&self) -> bool {
        self.held_since.is_some()
    }

    fn fresh(&self, version: Option<&str>, at: Timestamp) -> Record {
        Record {
            version: version.map(str::to_owned),
            changed: self.clock,
            changed_at: at,
            confirmed: false,
            cleared: false,
        }
    }

    fn is_silent(&self, record: &Record) -> bool {
        self.clock >= record.changed + self.limits.lease
    }

    /// Those that were silent before the gap stay so: the evidence was whole.
    fn begin_anew(&mut self, at: Timestamp) {
        let clock = self.clock;
        for record in self.records.values_mut().filter(|record| !record.confirmed) {
            (record.changed, record.changed_at) = (clock, at);
        }
    }

    fn hold_or_not(&mut self) {
        let limit = FEW.max(self.records.len() * PERCENT / 100);
        let silent: Vec<&Record> = self.records.values().filter(|it| !it.cleared && self.is_silent(it)).collect();
        match self.held_since {
            None => {
                let recent = |it: &&&Record| self.clock < it.changed + self.limits.lease + WINDOW;
                if silent.iter().filter(recent).count() > limit {
                    self.held_since = Some(self.clock);
                }
            }
            Some(_) if silent.len() <= limit => self.held_since = None,
            Some(since) if self.clock >= since + self.limits.hold => {
                self.held_since = None;
                let (clock, lease) = (self.clock, self.limits.lease);
                for record in self.records.values_mut().filter(|it| clock >= it.changed + lease) {
                    record.cleared = true;
                }
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        lease: Duration::from_secs(40),
        unknown_after: Duration::from_secs(20),
        hold: Duration::from_mins(10),
    };

    fn wall() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// Some servers, of which the first `silent` never renew; every read confirms what the cache says.
    struct Fleet {
        judge: Judge,
        now: Instant,
        second: u64,
        servers: usize,
        silent: usize,
        renewing: bool,
    }

    impl Fleet {
        fn new(servers: usize, silent: usize) -> Self {
            Self { judge: Judge::new(LIMITS), now: Instant::now(), second: 0, servers, silent, renewing: true }
        }

        fn run(&mut self, seconds: u64) {
            let mut renewed = self.now;
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.second += 1;
                if self.renewing {
                    renewed = self.now;
                }
                let version = |it| if it < self.silent { "1".to_owned() } else { self.second.to_string() };
                let leases: Vec<_> = (0..self.servers).map(|it| (format!("s{it}"), version(it))).collect();
                let views = leases.iter().map(|(name, version)| (name.as_str(), Some(version.as_str())));
                for name in self.judge.tick(self.now, wall(), Some(renewed), views) {
                    let version = &leases.iter().find(|(it, _)| *it == name).unwrap().1;
                    self.judge.confirm(&name, Some(version), wall());
                }
            }
        }

        fn counts(&self) -> (usize, usize, usize) {
            let lapses = self.judge.lapses();
            let count = |wanted: fn(&Lapse) -> bool| lapses.values().filter(|it| wanted(it)).count();
            (lapses.len(), count(|it| it.held), count(|it| it.judged))
        }
    }

    #[test]
    fn a_silent_server_is_unreachable_after_its_time_and_its_sessions_unknown_later() {
        let mut fleet = Fleet::new(10, 1);
        fleet.run(40);
        assert_eq!(fleet.counts(), (0, 0, 0));
        fleet.run(1);
        assert_eq!(fleet.counts(), (1, 0, 0));
        fleet.run(20);
        assert_eq!(fleet.counts(), (1, 0, 1));
        fleet.silent = 0;
        fleet.run(1);
        assert_eq!(fleet.counts(), (0, 0, 0), "a renewal ends it at once");
    }

    #[test]
    fn the_clock_stands_while_our_own_renewals_fail_and_begins_anew_after_a_gap() {
        let mut fleet = Fleet::new(10, 1);
        fleet.run(30);
        fleet.renewing = false;
        fleet.run(300);
        assert_eq!(fleet.counts(), (0, 0, 0));
        fleet.renewing = true;
        fleet.run(40);
        assert_eq!(fleet.counts(), (0, 0, 0));
        fleet.run(2);
        assert_eq!(fleet.counts(), (1, 0, 0));
        fleet.renewing = false;
        fleet.run(30);
        fleet.renewing = true;
        fleet.run(2);
        assert_eq!(fleet.counts(), (1, 0, 0), "what was known before the gap stays known");
    }

    #[test]
    fn a_read_that_shows_a_renewal_saves_the_server() {
        let mut judge = Judge::new(LIMITS);
        let (start, mut asked) = (Instant::now(), Vec::new());
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            for name in judge.tick(now, wall(), Some(now), [("s", Some("1"))].into_iter()) {
                judge.confirm(&name, Some("2"), wall());
                asked.push(second);
            }
        }
        // The cache, which shows the old one, is taken for another change: nothing is lost but time.
        assert_eq!(asked, [40]);
        assert_eq!(judge.lapses(), HashMap::new());
    }

    #[test]
    fn many_at_once_are_held_back_until_they_return_or_the_time_is_over() {
        for (servers, silent, held) in [(3, 2, false), (3, 3, true), (100, 30, false), (100, 31, true)] {
            let mut fleet = Fleet::new(servers, silent);
            fleet.run(62);
            let expected = if held { (silent, silent, 0) } else { (silent, 0, silent) };
            assert_eq!(fleet.counts(), expected, "{silent} of {servers}");
            if held {
                assert!(fleet.judge.is_holding());
                fleet.run(590);
                assert_eq!(fleet.counts(), (silent, 0, silent), "after the hold");
                fleet.run(100);
                assert_eq!(fleet.counts(), (silent, 0, silent), "and not held again");
            }
        }
        let mut fleet = Fleet::new(10, 4);
        fleet.run(100);
        assert_eq!(fleet.counts(), (4, 4, 0));
        fleet.silent = 1;
        fleet.run(1);
        assert_eq!(fleet.counts(), (1, 0, 1), "the rest of an outage that is over");
    }
}
