//! What becomes of a session that waits for a server.
//!
//! Pure: no client, no clock. Who is asked next is the line's business, which server fits the ledger's.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::Attempt;
use crate::api::session::DesiredState;

/// What becomes of a session that no server fits.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It waits.
    Wait,
    /// It has failed for good: the reason for `Stalled`, and the text a REST client would get.
    Fail(Reason, String),
}

/// How long a server where it failed is avoided.
const AVOIDED: SignedDuration = SignedDuration::from_mins(10);
/// Pause before the same server is tried again after a failure; doubles with each.
const RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Pause before a session that ran is run again; doubles with each.
const RESTART_PAUSE: SignedDuration = SignedDuration::from_secs(10);

/// Whether the session waits for a server.
pub fn is_waiting(session: &DcvSession) -> bool {
    session.server_name().is_none()
        && !session.is_finished()
        && session.metadata.deletion_timestamp.is_none()
        && session.spec.desired_state == DesiredState::Running
}

/// Servers that gave it back lately.
pub fn avoided(session: &DcvSession, now: Timestamp) -> Vec<String> {
    recent(session, now).filter(|attempt| is_failure(attempt)).map(|attempt| attempt.server_name.clone()).collect()
}

/// Until when it is left alone because it has run before; `None`: it may be placed.
pub fn restarts_at(session: &DcvSession, now: Timestamp) -> Option<Timestamp> {
    let last = last_attempt(session).filter(|last| !is_failure(last))?;
    Some(last.time.0 + pause(session, RESTART_PAUSE, now)).filter(|end| *end > now)
}

/// Until when it is not tried on `server`, where it failed lately; `None`: it may be.
pub fn retries_at(session: &DcvSession, server: &str, now: Timestamp) -> Option<Timestamp> {
    let last = last_attempt(session)?;
    if !avoided(session, now).iter().any(|it| it == server) {
        return None;
    }
    Some(last.time.0 + pause(session, RETRY_PAUSE, now)).filter(|end| *end > now)
}

/// When it has waited for as long as it may; `None`: it may for ever.
pub fn deadline(session: &DcvSession, now: Timestamp) -> Option<Timestamp> {
    let limit = session.spec.queue_timeout_seconds?;
    Some(waiting_since(session, now) + SignedDuration::from_secs(limit.into()))
}

/// Decides on a session that no server fits, for the reason that `explanation` gives.
pub fn decide(session: &DcvSession, explanation: &str, now: Timestamp) -> Verdict {
    let last = last_attempt(session);
    // Asked for at once or not at all; a session that has run once is to be run again.
    if !session.spec.enqueue_request && last.is_none_or(is_failure) {
        let before = last.map(|last| format!(" (server {} before: {})", last.server_name, last.message));
        let text = format!("No DCV server found for the given criteria: {explanation}{}", before.unwrap_or_default());
        return Verdict::Fail(Reason::NoServerFits, text);
    }
    match (deadline(session, now), session.spec.queue_timeout_seconds) {
        (Some(end), Some(limit)) if end <= now => {
            Verdict::Fail(Reason::QueueTimeout, format!("no server fitted within {limit} seconds: {explanation}"))
        }
        _ => Verdict::Wait,
    }
}

/// Whether the session's status says already that nothing fits, for its current spec: then another text can wait.
pub fn is_told(session: &DcvSession) -> bool {
    let observed = session.status.as_ref().and_then(|status| status.observed_generation);
    conditions::is(session.conditions(), SessionCondition::Scheduled, Some(false), Reason::NoServerFits)
        && observed == session.metadata.generation
}

/// Whether the session's status gives the same reasons as `explanation`. Their counts move all the time, and are no reason
/// to write.
pub fn is_said(session: &DcvSession, explanation: &str) -> bool {
    let said = session.status.as_ref().and_then(|status| status.state_reason.as_deref());
    is_told(session) && said.is_some_and(|said| reasons(said) == reasons(explanation))
}

/// The parts of a text without numbers, in no order: `0 of 7 servers fit: 4 full, 2 lack tag:gpu = 'a10'` and the same with
/// other counts are equal.
fn reasons(text: &str) -> BTreeSet<String> {
    let words: String = text.chars().filter(|character| !character.is_ascii_digit()).collect();
    let singular = |part: &str| part.strip_prefix("lack ").map_or_else(|| part.to_owned(), |it| format!("lacks {it}"));
    words.split([':', ',', ';']).map(|part| singular(part.trim())).collect()
}

/// How long a changed text waits: long enough for a person to read the last one, and so that all waiting sessions
/// together cause a bounded number of writes.
pub fn text_period(waiting: usize) -> SignedDuration {
    const WRITES_A_SECOND: usize = 20;
    SignedDuration::from_secs(i64::try_from(waiting / WRITES_A_SECOND).unwrap_or(i64::MAX).max(10))
}

fn attempts(session: &DcvSession) -> &[Attempt] {
    session.status.as_ref().map_or(&[], |status| &status.attempts)
}

fn last_attempt(session: &DcvSession) -> Option<&Attempt> {
    attempts(session).last()
}

fn recent(session: &DcvSession, now: Timestamp) -> impl Iterator<Item = &Attempt> {
    attempts(session).iter().filter(move |attempt| attempt.time.0 + AVOIDED > now)
}

/// Whether the attempt ended before the desktop was there.
fn is_failure(attempt: &Attempt) -> bool {
    attempt.reason == Reason::Refused.as_str() || attempt.reason == Reason::Failed.as_str()
}

/// `base`, doubled with each attempt lately but the first.
fn pause(session: &DcvSession, base: SignedDuration, now: Timestamp) -> SignedDuration {
    match recent(session, now).count() {
        0 => SignedDuration::ZERO,
        recent => base * 2_i32.saturating_pow(u32::try_from(recent - 1).unwrap_or(0).min(5)),
    }
}

fn waiting_since(session: &DcvSession, now: Timestamp) -> Timestamp {
    let created = session.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    last_attempt(session).map_or(created, |attempt| created.max(attempt.time.0))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn session(spec: &Value, attempts: &[(&str, &str, i64)]) -> DcvSession {
        let attempts: Vec<Value> = attempts
            .iter()
            .map(|(server, reason, second)| {
                json!({"serverName": server, "reason": reason, "time": at(*second), "message": "no licence"})
            })
            .collect();
        let mut all = json!({"owner": "ann", "type": "VIRTUAL"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "spec": all,
            "metadata": {"name": "s", "namespace": "team", "uid": "u", "generation": 1, "creationTimestamp": at(0)},
            "status": {"attempts": attempts},
        }))
        .unwrap()
    }

    #[test]
    fn each_verdict_has_its_case() {
        let words = "0 of 1 servers fit: 1 full";
        let (none, now_or_never, timed) =
            (json!({}), json!({"enqueueRequest": false}), json!({"queueTimeoutSeconds": 60}));
        let refused: &[_] = &[("a", "Refused", 50)];
        let ended: &[_] = &[("a", "Ended", 50)];
        let criteria = format!("No DCV server found for the given criteria: {words}");
        let over = || Verdict::Fail(Reason::QueueTimeout, format!("no server fitted within 60 seconds: {words}"));
        let cases = [
            ("waits", &none, &[][..], 1, Verdict::Wait),
            ("waits for a time", &timed, &[], 59, Verdict::Wait),
            ("its time is over", &timed, &[], 60, over()),
            ("its time begins anew when it is given back", &timed, refused, 109, Verdict::Wait),
            ("and ends", &timed, refused, 110, over()),
            ("now or never", &now_or_never, &[], 0, Verdict::Fail(Reason::NoServerFits, criteria.clone())),
            (
                "now or never, after a failure",
                &now_or_never,
                refused,
                51,
                Verdict::Fail(Reason::NoServerFits, format!("{criteria} (server a before: no licence)")),
            ),
            ("a session that has run waits all the same", &now_or_never, ended, 51, Verdict::Wait),
        ];
        for (case, spec, attempts, now, expected) in cases {
            assert_eq!(decide(&session(spec, attempts), words, at(now)), expected, "{case}");
        }
    }

    #[test]
    fn the_same_server_is_tried_again_after_a_pause_and_another_at_once() {
        let refused: &[_] = &[("a", "Refused", 50)];
        let twice: &[_] = &[("a", "Refused", 40), ("a", "Failed", 50)];
        let cases = [
            ("new", &[][..], "a", 0, None),
            ("another server", refused, "b", 50, None),
            ("the same", refused, "a", 50, Some(at(51))),
            ("the same, later", refused, "a", 51, None),
            ("a longer pause the second time", twice, "a", 51, Some(at(52))),
            ("both were tried", &[("a", "Failed", 40), ("b", "Failed", 50)], "a", 50, Some(at(52))),
        ];
        for (case, attempts, server, now, expected) in cases {
            let session = session(&json!({}), attempts);
            assert_eq!(retries_at(&session, server, at(now)), expected, "{case}");
            assert_eq!(restarts_at(&session, at(now)), None, "{case}");
        }
    }

    #[test]
    fn what_has_run_is_run_again_after_a_pause_wherever() {
        let often: Vec<_> = (0..5).map(|number| ("a", "Ended", 40 + number)).collect();
        let cases = [
            ("once", &[("a", "Ended", 50)][..], 51, Some(at(60))),
            ("its pause is over", &[("a", "ServerLost", 50)], 60, None),
            ("often", &often, 51, Some(at(44 + 160))),
            ("long ago", &[("a", "Ended", 50)], 5000, None),
        ];
        for (case, attempts, now, expected) in cases {
            assert_eq!(restarts_at(&session(&json!({}), attempts), at(now)), expected, "{case}");
        }
    }

    #[test]
    fn a_text_is_said_again_when_its_reasons_change_and_not_when_their_counts_do() {
        let mut session = session(&json!({}), &[]);
        let said = "0 of 17 servers fit: 14 full, 3 lack tag:gpu = 'a10'";
        assert!(!is_said(&session, said));
        let status = session.status.as_mut().unwrap();
        status.state_reason = Some(said.to_owned());
        assert!(!is_told(&session));
        let condition =
            conditions::condition(SessionCondition::Scheduled, Some(false), Reason::NoServerFits, said, at(0), Some(1));
        let status = session.status.as_mut().unwrap();
        status.conditions.push(condition);
        status.observed_generation = Some(1);
        assert!(is_said(&session, said));
        assert!(is_said(&session, "0 of 3 servers fit: 2 full, 1 lacks tag:gpu = 'a10'"));
        assert!(is_said(&session, "0 of 3 servers fit: 2 lack tag:gpu = 'a10', 1 full"));
        assert!(!is_said(&session, "0 of 17 servers fit: 14 full, 3 lack tag:gpu = 'b10'"));
        assert!(!is_said(&session, "0 of 17 servers fit: 14 full, 2 closed, 1 lacks tag:gpu = 'a10'"));
        session.metadata.generation = Some(2);
        assert!(!is_said(&session, said), "the spec has changed");
    }

    #[test]
    fn servers_that_failed_are_avoided_for_a_while() {
        let session = session(&json!({}), &[("old", "Failed", 0), ("a", "Failed", 500), ("b", "Ended", 500)]);
        assert_eq!(avoided(&session, at(700)), ["a"]);
    }

    #[test]
    fn texts_change_slowly_and_slower_when_many_wait() {
        assert_eq!(text_period(1), SignedDuration::from_secs(10));
        assert_eq!(text_period(10_000), SignedDuration::from_secs(500));
    }
}
