//! What this agent has begun and not yet finished telling.
//!
//! Plain data in memory. Losing it with the process loses nothing: the API server and the host hold the truth, and what
//! was begun is found again there.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use jiff::SignedDuration;
use jiff::Timestamp;

use super::backend::CreateError;

/// Work under way and results not yet reported. Keys are ids on the host unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// What is being created, and for whom.
    pub creating: BTreeMap<String, Creating>,
    /// What has to be closed and is not yet known to be gone.
    pub closing: BTreeMap<String, Closing>,
    /// Sessions whose permissions are being changed.
    pub permitting: BTreeSet<String>,
    /// Permissions the host has in force, as far as this process knows.
    pub permissions: BTreeMap<String, Permissions>,
    /// What the host said to a create, until it is in the object; by uid of the object.
    pub refusals: BTreeMap<String, Refusal>,
    /// Announcements of sessions that the host is to note: under way, or to be tried again then.
    pub announcing: BTreeMap<String, Option<Timestamp>>,
    /// Since when desktops are known to be unclaimed.
    pub unclaimed: BTreeMap<String, Timestamp>,
    /// Sessions whose objects were seen to vanish with our finalizer on them and without a deletion being marked.
    pub torn_off: BTreeSet<String>,
}

/// A session that is being created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creating {
    /// Uid of the object.
    pub uid: String,
    /// The object's attempt.
    pub attempt: i32,
    /// Owner, for the limits.
    pub owner: String,
    /// Whether it is a virtual session, for the limits.
    pub is_virtual: bool,
    /// Whether it was told to stop.
    pub cancelled: bool,
}

/// A session that is being closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Since when.
    pub since: Timestamp,
    /// Whether a close runs now.
    pub running: bool,
    /// Closes that failed.
    pub failures: u32,
    /// What the host said last.
    pub message: String,
    /// When to try again.
    pub not_before: Timestamp,
}

/// Permissions of a session on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Text that was asked for last.
    pub text: Option<String>,
    /// Why it is not in force, and when to try again.
    pub fault: Option<(String, Timestamp)>,
}

/// The host's answer to one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The object's attempt.
    pub attempt: i32,
    /// What the host said.
    pub error: CreateError,
}

/// Longest wait between two closes of one session.
const MAX_CLOSE_BACKOFF_SECONDS: i64 = 30;
/// Wait before an announcement that the host did not note is tried again.
const ANNOUNCEMENT_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// Wait before permissions that the host refused are tried again.
const PERMISSIONS_RETRY: SignedDuration = SignedDuration::from_secs(30);

impl Ledger {
    /// Whether something of this id may be on the host although `list` does not show it.
    pub fn is_busy(&self, id: &str) -> bool {
        self.creating.contains_key(id) || self.closing.contains_key(id)
    }

    /// A close begins.
    pub fn close_began(&mut self, id: &str, now: Timestamp) {
        let closing = self.closing.entry(id.to_owned()).or_insert_with(|| Closing {
            since: now,
            running: false,
            failures: 0,
            message: String::new(),
            not_before: now,
        });
        closing.running = true;
    }

    /// A close ended. After a failure it is due again, later each time.
    pub fn close_ended(&mut self, id: &str, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => {
                self.closing.remove(id);
                self.permissions.remove(id);
            }
            Err(message) => {
                if let Some(closing) = self.closing.get_mut(id) {
                    let seconds = (1 << closing.failures.min(5)).min(MAX_CLOSE_BACKOFF_SECONDS);
                    closing.running = false;
                    closing.failures += 1;
                    closing.message = message;
                    closing.not_before = now + SignedDuration::from_secs(seconds);
                }
            }
        }
    }

    /// A create ended. One that was cut short may have left something, so it has to be closed.
    pub fn create_ended(
        &mut self,
        id: &str,
        permissions: Option<String>,
        result: Option<Result<(), CreateError>>,
        now: Timestamp,
    ) {
        let Some(creating) = self.creating.remove(id) else { return };
        match result {
            Some(Ok(())) => {
                self.permissions.insert(id.to_owned(), Permissions { text: permissions, fault: None });
            }
            Some(Err(error)) => {
                self.refusals.insert(creating.uid, Refusal { attempt: creating.attempt, error });
            }
            None => {
                self.close_began(id, now);
                if let Some(closing) = self.closing.get_mut(id) {
                    closing.running = false;
                }
            }
        }
    }

    /// The host has noted an announcement, or not.
    pub fn announcement_ended(&mut self, id: &str, is_noted: bool, now: Timestamp) {
        if is_noted {
            self.announcing.remove(id);
        } else {
            self.announcing.insert(id.to_owned(), Some(now + ANNOUNCEMENT_RETRY));
        }
    }

    /// A change of permissions ended.
    pub fn permissions_ended(&mut self, id: &str, text: Option<String>, result: Result<(), String>, now: Timestamp) {
        self.permitting.remove(id);
        let fault = result.err().map(|message| (message, now + PERMISSIONS_RETRY));
        self.permissions.insert(id.to_owned(), Permissions { text, fault });
    }

    /// Exactly these desktops are unclaimed now.
    pub fn unclaimed_are<'a>(&mut self, ids: impl Iterator<Item = &'a str>, now: Timestamp) {
        let before = std::mem::take(&mut self.unclaimed);
        let since = |id: &str| before.get(id).copied().unwrap_or(now);
        self.unclaimed = ids.map(|id| (id.to_owned(), since(id))).collect();
    }

    /// Forgets refusals that were told or whose objects are gone, and what is noted of sessions that are gone.
    pub fn retain(&mut self, is_untold: impl Fn(&str, i32) -> bool, is_on_host: impl Fn(&str) -> bool) {
        self.refusals.retain(|uid, refusal| is_untold(uid, refusal.attempt));
        self.permissions.retain(|id, _| is_on_host(id));
        self.announcing.retain(|id, _| is_on_host(id));
        self.torn_off.retain(|id| is_on_host(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_failed_close_is_due_again_later_each_time() {
        let mut ledger = Ledger::default();
        ledger.close_began("a", at(0));
        let mut waits = Vec::new();
        for _ in 0..7 {
            ledger.close_ended("a", Err("busy".into()), at(100));
            waits.push(ledger.closing["a"].not_before.as_second() - 100);
            ledger.close_began("a", at(100));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(ledger.closing["a"].since, at(0));
        ledger.close_ended("a", Ok(()), at(200));
        assert!(ledger.closing.is_empty());
    }

    #[test]
    fn a_desktop_is_unclaimed_since_it_was_first_seen_so() {
        let mut ledger = Ledger::default();
        ledger.unclaimed_are(["a", "b"].into_iter(), at(1));
        ledger.unclaimed_are(["b", "c"].into_iter(), at(2));
        let known = [("b", 1), ("c", 2)].map(|(id, second)| (id.to_owned(), at(second)));
        assert_eq!(ledger.unclaimed, known.into());
    }

    #[test]
    fn a_create_that_was_cut_short_has_to_be_closed() {
        let mut ledger = Ledger::default();
        let creating = Creating { uid: "u".into(), attempt: 1, owner: "ann".into(), is_virtual: true, cancelled: true };
        ledger.creating.insert("a".into(), creating);
        ledger.create_ended("a", None, None, at(5));
        assert!(ledger.is_busy("a") && !ledger.closing["a"].running);
        assert_eq!(ledger.refusals, BTreeMap::new());
    }
}
