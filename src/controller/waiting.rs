//! What becomes of a session that waits for a server.
//!
//! Pure: no client, no clock. The placer asks in the order of [`Rank`] and carries the verdicts out.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use kube::ResourceExt;

use super::adoption::Adoption;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::Attempt;
use crate::api::session::DesiredState;

/// Where a session stands in the line: priority, then first come, then by name.
pub type Rank = (Reverse<i32>, Option<Timestamp>, Option<String>, String);

/// What becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It gets this server.
    Bind(String),
    /// It takes this desktop over.
    Adopt(Adoption),
    /// It has failed for good: the reason for `Stalled`, and the text a REST client would get.
    Fail(Reason, String),
    /// It waits, for this reason, and must be looked at again at that time.
    Wait(String, Option<Timestamp>),
    /// It waits for this time only: a server is there, but not before then.
    Pause(Timestamp),
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

/// Where it stands in the line.
pub fn rank(session: &DcvSession) -> Rank {
    let created = session.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (Reverse(session.spec.priority), created, session.namespace(), session.name_any())
}

/// Servers that gave it back lately.
pub fn avoided(session: &DcvSession, now: Timestamp) -> Vec<String> {
    recent(session, now).filter(|attempt| is_failure(attempt)).map(|attempt| attempt.server_name.clone()).collect()
}

/// Decides, given the server it would get or why there is none.
pub fn decide(session: &DcvSession, placed: Result<String, String>, now: Timestamp) -> Verdict {
    let last = attempts(session).last();
    let restarted = last.is_some_and(|attempt| !is_failure(attempt));
    let pause = last.map(|last| last.time.0 + pause(session, restarted, now)).filter(|end| *end > now);
    let explanation = match placed {
        Ok(server) => {
            let again = restarted || avoided(session, now).contains(&server);
            return match pause.filter(|_| again) {
                Some(end) => Verdict::Pause(end),
                None => Verdict::Bind(server),
            };
        }
        Err(explanation) => explanation,
    };
    // Asked for at once or not at all; a session that has run once is to be run again.
    if !session.spec.enqueue_request && !restarted {
        let before = last.map(|last| format!(" (server {} before: {})", last.server_name, last.message));
        let text = format!("No DCV server found for the given criteria: {explanation}{}", before.unwrap_or_default());
        return Verdict::Fail(Reason::NoServerFits, text);
    }
    let Some(limit) = session.spec.queue_timeout_seconds else { return Verdict::Wait(explanation, None) };
    let end = waiting_since(session, now) + SignedDuration::from_secs(limit.into());
    if end <= now {
        return Verdict::Fail(Reason::QueueTimeout, format!("no server fitted within {limit} seconds: {explanation}"));
    }
    Verdict::Wait(explanation, Some(end))
}

/// Whether the session's status says already that nothing fits, for its current spec: then another text can wait.
pub fn is_told(session: &DcvSession) -> bool {
    let observed = session.status.as_ref().and_then(|status| status.observed_generation);
    conditions::is(session.conditions(), SessionCondition::Scheduled, Some(false), Reason::NoServerFits)
        && observed == session.metadata.generation
}

/// Whether the session's status says exactly this.
pub fn is_said(session: &DcvSession, text: &str) -> bool {
    is_told(session) && session.status.as_ref().and_then(|status| status.state_reason.as_deref()) == Some(text)
}

/// How long a changed text waits: long enough for a person to read the last one, and so that all waiting sessions
/// together cause a bounded number of writes.
pub fn text_period(waiting: usize) -> Duration {
    const WRITES_A_SECOND: u64 = 20;
    Duration::from_secs((waiting as u64 / WRITES_A_SECOND).max(10))
}

fn attempts(session: &DcvSession) -> &[Attempt] {
    session.status.as_ref().map_or(&[], |status| &status.attempts)
}

fn recent(session: &DcvSession, now: Timestamp) -> impl Iterator<Item = &Attempt> {
    attempts(session).iter().filter(move |attempt| attempt.time.0 + AVOIDED > now)
}

/// Whether the attempt ended before the desktop was there.
fn is_failure(attempt: &Attempt) -> bool {
    attempt.reason == Reason::Refused.as_string() || attempt.reason == Reason::Failed.as_string()
}

fn pause(session: &DcvSession, restarted: bool, now: Timestamp) -> SignedDuration {
    let recent = recent(session, now).count();
    let doublings = u32::try_from(recent.saturating_sub(1)).unwrap_or(0);
    let base = if restarted { RESTART_PAUSE } else { RETRY_PAUSE };
    if recent == 0 { SignedDuration::ZERO } else { base * 2_i32.saturating_pow(doublings.min(5)) }
}

fn waiting_since(session: &DcvSession, now: Timestamp) -> Timestamp {
    let created = session.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    attempts(session).last().map_or(created, |attempt| created.max(attempt.time.0))
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
        let fits = |server: &str| Ok(server.to_owned());
        let full = || Err("0 of 1 servers fit: 1 full".to_owned());
        let words = "0 of 1 servers fit: 1 full".to_owned();
        let (none, now_or_never, timed) =
            (json!({}), json!({"enqueueRequest": false}), json!({"queueTimeoutSeconds": 60}));
        let refused: &[_] = &[("a", "Refused", 50)];
        let twice: &[_] = &[("a", "Refused", 40), ("a", "Failed", 50)];
        let ended: &[_] = &[("a", "Ended", 50)];
        let criteria = format!("No DCV server found for the given criteria: {words}");
        let cases = [
            ("fits", &none, &[][..], 1, fits("a"), Verdict::Bind("a".into())),
            ("fits, though its time is over", &timed, &[], 99, fits("a"), Verdict::Bind("a".into())),
            ("waits", &none, &[], 1, full(), Verdict::Wait(words.clone(), None)),
            ("waits for a time", &timed, &[], 1, full(), Verdict::Wait(words.clone(), Some(at(60)))),
            (
                "its time is over",
                &timed,
                &[],
                60,
                full(),
                Verdict::Fail(Reason::QueueTimeout, format!("no server fitted within 60 seconds: {words}")),
            ),
            (
                "its time begins anew when it is given back",
                &timed,
                refused,
                60,
                full(),
                Verdict::Wait(words.clone(), Some(at(110))),
            ),
            ("now or never", &now_or_never, &[], 0, full(), Verdict::Fail(Reason::NoServerFits, criteria.clone())),
            (
                "now or never, after a failure",
                &now_or_never,
                refused,
                51,
                full(),
                Verdict::Fail(Reason::NoServerFits, format!("{criteria} (server a before: no licence)")),
            ),
            ("a session that has run waits all the same", &now_or_never, ended, 51, full(), Verdict::Wait(words, None)),
            ("another server at once", &none, refused, 50, fits("b"), Verdict::Bind("b".into())),
            ("the same server after a pause", &none, refused, 50, fits("a"), Verdict::Pause(at(51))),
            ("and then", &none, refused, 51, fits("a"), Verdict::Bind("a".into())),
            ("a longer pause the second time", &none, twice, 51, fits("a"), Verdict::Pause(at(52))),
            ("run again after a pause, wherever", &none, ended, 51, fits("b"), Verdict::Pause(at(60))),
        ];
        for (case, spec, attempts, now, placed, expected) in cases {
            assert_eq!(decide(&session(spec, attempts), placed, at(now)), expected, "{case}");
        }
    }

    #[test]
    fn servers_that_failed_are_avoided_for_a_while() {
        let session = session(&json!({}), &[("old", "Failed", 0), ("a", "Failed", 500), ("b", "Ended", 500)]);
        assert_eq!(avoided(&session, at(700)), ["a"]);
    }

    #[test]
    fn the_line_goes_by_priority_then_age_then_name() {
        let make = |name: &str, priority: i32, second: i64| {
            let mut session = session(&json!({"priority": priority}), &[]);
            session.metadata.name = Some(name.into());
            session.metadata.creation_timestamp.as_mut().unwrap().0 = at(second);
            session
        };
        let mut line = [make("c", 0, 1), make("b", 0, 2), make("a", 0, 2), make("d", 5, 9)];
        line.sort_by_key(rank);
        assert_eq!(line.map(|it| it.name_any()), ["d", "c", "a", "b"]);
    }

    #[test]
    fn texts_change_slowly_and_slower_when_many_wait() {
        assert_eq!(text_period(1), Duration::from_secs(10));
        assert_eq!(text_period(10_000), Duration::from_secs(500));
    }
}
