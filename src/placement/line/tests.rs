use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn share(owner: &str) -> Share {
    Share { namespace: "team".into(), owner: owner.into() }
}

fn waiter(group: u8, owner: &str, priority: i32, created: i64) -> Waiter<u8> {
    Waiter { group, share: share(owner), priority, created: at(created), name: "x".into() }
}

/// An empty line in which none of the next nine places is one for the oldest.
fn line() -> Line<u8> {
    let block = (0..1000).find(|block| scattered(*block) % 10 == 9).unwrap();
    Line { turns: block * 10, ..Line::default() }
}

/// Everybody who can be asked now, in order, as if each got a place.
fn order(line: &mut Line<u8>) -> Vec<String> {
    std::iter::from_fn(|| {
        let uid = line.next()?;
        line.give(&uid);
        Some(uid.to_string())
    })
    .collect()
}

#[test]
fn priority_counts_first_then_the_share_then_who_came_first() {
    let mut line = line();
    line.insert("old", waiter(0, "ann", 0, 1));
    line.insert("older", waiter(0, "ann", 0, 0));
    line.insert("newer", waiter(1, "bob", 0, 5));
    line.insert("newest", waiter(1, "bob", 0, 6));
    line.insert("urgent", waiter(2, "ann", 7, 9));
    // Ann's urgent session counts for her share at once, so it is Bob's turn; then both have one.
    assert_eq!(order(&mut line), ["urgent", "newer", "older", "newest", "old"]);
    line.insert("again", waiter(0, "ann", 0, 10));
    line.insert("cid", waiter(0, "cid", 0, 11));
    assert_eq!(line.next().as_deref(), Some("cid"), "who has nothing comes first");
    for uid in ["urgent", "older", "old"] {
        line.uncount(uid);
    }
    assert_eq!(line.next().as_deref(), Some("again"), "sessions that are over do not count");
    let mut elsewhere = waiter(0, "ann", 0, 2);
    elsewhere.share.namespace = "other".into();
    line.count("there", share("ann"));
    line.insert("other", elsewhere);
    assert_eq!(line.next().as_deref(), Some("other"), "the same name in another namespace is somebody else");
}

#[test]
fn what_nothing_fits_sleeps_until_it_is_woken_and_blocks_nobody() {
    let mut line = line();
    line.insert("a1", waiter(0, "ann", 9, 0));
    line.insert("a2", waiter(0, "ann", 9, 1));
    line.insert("b", waiter(0, "bob", 5, 2));
    line.insert("other", waiter(1, "ann", 0, 3));
    line.sleep_share("a1");
    assert_eq!(line.next().as_deref(), Some("b"), "the limit of one owner is no limit of another");
    assert!(!line.is_awake("a2") && line.is_awake("b"));
    line.sleep_group("b");
    assert_eq!(line.next().as_deref(), Some("other"));
    line.insert("late", waiter(0, "cid", 99, 4));
    line.insert("a3", waiter(0, "ann", 99, 4));
    assert_eq!(line.next().as_deref(), Some("other"), "a new one like it sleeps as well");
    line.wake(|group| *group == 1);
    assert!(!line.is_awake("late"));
    line.wake(|group| *group == 0);
    assert_eq!(order(&mut line), ["a3", "late", "a1", "a2", "b", "other"]);
    line.insert("c", waiter(0, "cid", 0, 5));
    line.sleep_group("c");
    line.remove("c");
    line.insert("c", waiter(0, "cid", 0, 5));
    assert!(line.is_awake("c"), "nothing is remembered of a group that nobody waits in");
    line.sleep_group("c");
    line.wake(|_| true);
    assert!(line.is_awake("c"));
}

#[test]
fn a_changed_priority_changes_the_place_in_the_line() {
    let mut line = line();
    line.insert("a", waiter(0, "ann", 0, 0));
    line.insert("b", waiter(0, "bob", 1, 0));
    line.insert("a", waiter(0, "ann", 2, 0));
    assert_eq!(line.len(), 2);
    assert_eq!(order(&mut line), ["a", "b"]);
    assert!(line.is_empty());
}

/// Places come free one at a time, as `places` says of which group; whoever waits in that group is woken.
fn served(line: &mut Line<u8>, places: impl Iterator<Item = u8>) -> Vec<String> {
    let mut served = Vec::new();
    for group in places {
        line.wake(|it| *it == group);
        let Some(uid) = line.next() else { continue };
        line.give(&uid);
        line.uncount(&uid);
        served.push(uid.to_string());
        while let Some(uid) = line.next() {
            line.sleep_group(&uid);
        }
    }
    served
}

#[test]
fn one_place_in_ten_goes_to_the_oldest_so_a_low_priority_moves() {
    let mut line = Line::default();
    for number in 0..1000 {
        line.insert(&format!("urgent-{number}"), waiter(0, "ann", 5, 100 + number));
    }
    for number in 0..10 {
        line.insert(&format!("low-{number}"), waiter(0, "bob", 0, number));
    }
    let served = served(&mut line, std::iter::repeat_n(0, 200));
    let low: Vec<usize> = (0..200).filter(|place| served[*place].starts_with("low")).collect();
    assert_eq!(low.len(), 10);
    assert!(low[9] < 110, "ten turns take about a hundred places: {low:?}");
    let gaps = low.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max() < Some(20), "and are spread evenly: {low:?}");
}

#[test]
fn a_low_priority_moves_however_regularly_its_places_come() {
    for period in [2, 3, 5, 10, 18, 20, 100_u64] {
        let mut line = Line::default();
        line.insert("low", waiter(0, "bob", 0, 0));
        for number in 0..8000_i64 {
            line.insert(&format!("urgent-{number}"), waiter(0, "ann", 5, 100 + number));
            // Older than the one that waits, so a turn that comes up while they are asked is theirs.
            line.insert(&format!("busy-{number}"), waiter(1, "cid", 9, -1 - number));
        }
        let places = (0..8000).map(|turn| u8::from(turn % period != 0));
        let at = served(&mut line, places).iter().position(|uid| uid == "low");
        let bound = 50 * usize::try_from(period).unwrap();
        assert!(at.is_some_and(|at| at < bound), "period {period}: {at:?}");
    }
}

/// Who asks for how much in a simulated fleet.
#[derive(Clone, Copy)]
struct Demand {
    owner: &'static str,
    /// Sessions that come in each thousand ticks; all of a run at once when it floods.
    per_thousand: u64,
    floods: bool,
    /// Ticks that its sessions run.
    length: u64,
}

const TICKS: u64 = 6000;

fn steady(owner: &'static str, per_thousand: u64) -> Demand {
    Demand { owner, per_thousand, floods: false, length: 100 }
}

/// The longest wait of each owner, of those who are still waiting as well, on a fleet with room for `room` sessions.
fn longest_waits(room: usize, demands: &[Demand]) -> BTreeMap<&'static str, u64> {
    let mut line = Line::default();
    let mut ends: BTreeSet<(u64, Arc<str>)> = BTreeSet::new();
    let mut waits: BTreeMap<&str, u64> = BTreeMap::new();
    let mut came: HashMap<Arc<str>, (u64, &Demand)> = HashMap::new();
    let mut number = 0_u64;
    for tick in 0..TICKS {
        while ends.first().is_some_and(|(end, _)| *end <= tick) {
            let (_, uid) = ends.pop_first().unwrap();
            line.uncount(&uid);
            line.wake(|group| *group == 0);
        }
        for demand in demands {
            let due = |tick: u64| tick * demand.per_thousand / 1000;
            let all = if tick == 0 { due(TICKS) } else { 0 };
            let coming = if demand.floods { all } else { due(tick + 1) - due(tick) };
            for _ in 0..coming {
                number += 1;
                let uid: Arc<str> = format!("{number}").into();
                line.insert(&uid, waiter(0, demand.owner, 0, i64::try_from(tick).unwrap()));
                came.insert(uid, (tick, demand));
            }
        }
        while let Some(uid) = line.next() {
            if ends.len() == room {
                line.sleep_group(&uid);
                continue;
            }
            line.give(&uid);
            let (since, demand) = came.remove(&uid).unwrap();
            // Between three quarters and five quarters of the usual, without any order.
            let length = demand.length * (75 + (number * 7919 + tick * 104_729) % 51) / 100;
            ends.insert((tick + length, uid));
            let longest = waits.entry(demand.owner).or_default();
            *longest = (*longest).max(tick - since);
        }
    }
    for (since, demand) in came.values() {
        let longest = waits.entry(demand.owner).or_default();
        *longest = (*longest).max(TICKS - since);
    }
    waits
}

fn median(waits: &BTreeMap<&str, u64>) -> u64 {
    let mut waits: Vec<u64> = waits.values().copied().collect();
    waits.sort_unstable();
    waits[waits.len() / 2]
}

/// Room for 40 sessions of 100 ticks is 400 in a thousand; ten owners, so the fair share of each is 40.
const ROOM: usize = 40;

/// Who asks three times its share and comes at a steady rate has waited two thirds of the time so far when its turn comes;
/// who sent everything at the start has waited all of it, which is 1.5 times that. What the oldest get on top keeps it below.
#[test]
fn in_threefold_overload_nobody_waits_much_longer_than_the_median() {
    let even = |owner| steady(owner, 120);
    let trickling = ["b", "c", "d", "e", "f", "g", "h", "i"].map(even);
    let others = |first: Demand, last: Demand| [first].into_iter().chain(trickling).chain([last]).collect::<Vec<_>>();
    let cases = [
        ("all ask alike", others(even("a"), even("j"))),
        ("one floods", others(Demand { floods: true, ..even("a") }, even("j"))),
        ("two flood", others(Demand { floods: true, ..even("a") }, Demand { floods: true, ..even("j") })),
        ("one has long sessions", others(Demand { length: 400, ..steady("a", 30) }, even("j"))),
        ("one has short sessions", others(Demand { length: 20, ..steady("a", 600) }, even("j"))),
    ];
    for (case, demands) in cases {
        let asked: u64 = demands.iter().map(|demand| demand.per_thousand * demand.length / 100).sum();
        assert_eq!(asked, 3 * 400, "{case}");
        let waits = longest_waits(ROOM, &demands);
        let longest = waits.values().max().unwrap();
        assert!(2 * longest <= 3 * median(&waits), "{case}: {waits:?}");
    }
}

#[test]
fn who_asks_for_less_than_a_share_hardly_waits_while_another_floods() {
    let mut demands = ["b", "c", "d", "e", "f", "g", "h", "i", "j"].map(|owner| steady(owner, 20)).to_vec();
    demands.push(Demand { floods: true, ..steady("a", 1020) });
    let waits = longest_waits(ROOM, &demands);
    let longest = waits.iter().filter(|(owner, _)| **owner != "a").map(|(_, wait)| wait).max();
    assert!(longest <= Some(&125), "no longer than a session runs: {waits:?}");
}

#[test]
fn who_has_much_already_is_not_starved_by_those_who_have_less() {
    // Its sessions run for ever; the others are never short of something that waits.
    let mut demands = vec![Demand { floods: true, length: 100 * TICKS, ..steady("a", 5) }];
    demands.extend(["b", "c", "d"].map(|owner| steady(owner, 400)));
    let waits = longest_waits(ROOM, &demands);
    assert!(waits["a"] < TICKS / 2, "{waits:?}");
}

/// What a line does, in as few words as possible.
#[derive(Default)]
struct Naive {
    waiters: BTreeMap<u8, Waiter<u8>>,
    placed: BTreeMap<u8, Option<Share>>,
    groups_asleep: BTreeSet<u8>,
    crowds_asleep: BTreeSet<(u8, Share)>,
    turns: u64,
}

impl Naive {
    fn next(&self) -> Option<u8> {
        let sessions = |share: &Share| self.placed.values().flatten().filter(|it| *it == share).count();
        let is_awake = |it: &Waiter<u8>| {
            !self.groups_asleep.contains(&it.group) && !self.crowds_asleep.contains(&(it.group, it.share.clone()))
        };
        let oldest = is_turn_of_the_oldest(self.turns);
        let rank = |(uid, it): &(&u8, &Waiter<u8>)| {
            let (priority, sessions) = if oldest { (0, 0) } else { (it.priority, sessions(&it.share)) };
            (Reverse(priority), sessions, it.created, it.name.clone(), uid.to_string())
        };
        self.waiters.iter().filter(|(_, it)| is_awake(it)).min_by_key(rank).map(|(uid, _)| *uid)
    }

    /// Nothing is remembered of a group, or of a share in it, in which nobody waits.
    fn forget(&mut self) {
        let waiters = &self.waiters;
        self.groups_asleep.retain(|group| waiters.values().any(|it| it.group == *group));
        self.crowds_asleep.retain(|(group, share)| waiters.values().any(|it| it.group == *group && it.share == *share));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u8, u8, u8, i32, i64),
    Remove(u8),
    Give,
    SleepShare,
    SleepGroup,
    Wake(u8),
    WakeAll,
    Count(u8, u8),
    Uncount(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_u8, 0..3_u8, 0..3_u8, 0..3_i32, 0..4_i64).prop_map(|(uid, group, owner, priority, created)| {
            Step::Insert(uid, group, owner, priority, created)
        }),
        1 => (0..12_u8).prop_map(Step::Remove),
        4 => Just(Step::Give),
        2 => Just(Step::SleepShare),
        2 => Just(Step::SleepGroup),
        2 => (0..3_u8).prop_map(Step::Wake),
        1 => Just(Step::WakeAll),
        2 => (0..12_u8, 0..3_u8).prop_map(|(uid, owner)| Step::Count(uid, owner)),
        2 => (0..12_u8).prop_map(Step::Uncount),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_line_does_what_its_description_says(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut line, mut naive) = (Line::default(), Naive::default());
        let owner = |number: u8| ["ann", "bob", "cid"][usize::from(number)];
        for step in steps {
            let next = naive.next();
            match step {
                Step::Insert(uid, group, number, priority, created) => {
                    let waiter = waiter(group, owner(number), priority, created);
                    if naive.waiters.get(&uid) != Some(&waiter) {
                        naive.waiters.remove(&uid);
                        naive.forget();
                        naive.waiters.insert(uid, waiter.clone());
                    }
                    line.insert(&uid.to_string(), waiter);
                }
                Step::Remove(uid) => {
                    naive.waiters.remove(&uid);
                    line.remove(&uid.to_string());
                }
                Step::Give => if let Some(uid) = next {
                    let waiter = naive.waiters.remove(&uid).unwrap();
                    let counts = !is_turn_of_the_oldest(naive.turns);
                    naive.placed.entry(uid).or_insert(counts.then_some(waiter.share));
                    naive.turns += 1;
                    line.give(&uid.to_string());
                },
                Step::SleepShare => if let Some(uid) = next {
                    let it = &naive.waiters[&uid];
                    naive.crowds_asleep.insert((it.group, it.share.clone()));
                    line.sleep_share(&uid.to_string());
                },
                Step::SleepGroup => if let Some(uid) = next {
                    naive.groups_asleep.insert(naive.waiters[&uid].group);
                    line.sleep_group(&uid.to_string());
                },
                Step::Wake(group) => {
                    naive.groups_asleep.remove(&group);
                    naive.crowds_asleep.retain(|(it, _)| *it != group);
                    line.wake(|it| *it == group);
                }
                Step::WakeAll => {
                    naive.groups_asleep.clear();
                    naive.crowds_asleep.clear();
                    line.wake(|_| true);
                }
                Step::Count(uid, number) => {
                    naive.placed.entry(uid).or_insert(Some(share(owner(number))));
                    line.count(&uid.to_string(), share(owner(number)));
                }
                Step::Uncount(uid) => {
                    naive.placed.remove(&uid);
                    line.uncount(&uid.to_string());
                }
            }
            naive.forget();
            prop_assert_eq!(line.next().map(|uid| uid.to_string()), naive.next().map(|uid| uid.to_string()));
            prop_assert_eq!(line.len(), naive.waiters.len());
        }
    }
}

impl<G: Clone + Eq + Hash> Line<G> {
    /// Whether this one could be next: it waits, and neither it nor its group sleeps.
    fn is_awake(&self, uid: &str) -> bool {
        let Some(waiter) = self.waiters.get(uid) else { return false };
        let Some(group) = self.groups.get(&waiter.group) else { return false };
        !group.is_asleep && group.crowds.get(&waiter.share).is_some_and(|crowd| !crowd.is_asleep)
    }
}
