//! What is told of a run.

use std::fmt::Write as _;

use serde::Serialize;

use super::actor::Actor;
use super::judge::Outcome;
use super::judge::Verdict;

/// What came of the cases.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cases: usize,
    wrong: usize,
    /// Cases that could not be judged, as their object is not there.
    left_out: usize,
    actors: Vec<Count>,
    failures: Vec<Verdict>,
}

/// The cases of one actor.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Count {
    actor: &'static str,
    allowed: usize,
    refused: usize,
    left_out: usize,
    wrong: usize,
}

impl Report {
    /// Counts, and keeps what differs.
    pub fn of(verdicts: &[Verdict]) -> Self {
        let is_absent = |verdict: &&Verdict| verdict.outcome == Outcome::Absent;
        let actors = Actor::ALL.into_iter().filter_map(|actor| {
            let mine: Vec<_> = verdicts.iter().filter(|verdict| verdict.case.actor == actor).collect();
            let count = |is: &dyn Fn(&Verdict) -> bool| mine.iter().filter(|verdict| is(verdict)).count();
            (!mine.is_empty()).then(|| Count {
                actor: actor.name(),
                allowed: count(&|verdict| verdict.outcome == Outcome::Allowed),
                refused: count(&|verdict| matches!(verdict.outcome, Outcome::Refused { .. })),
                left_out: count(&|verdict| verdict.outcome == Outcome::Absent),
                wrong: count(&Verdict::differs),
            })
        });
        let failures: Vec<_> = verdicts.iter().filter(|verdict| verdict.differs()).cloned().collect();
        Self {
            cases: verdicts.len(),
            wrong: failures.len(),
            left_out: verdicts.iter().filter(is_absent).count(),
            actors: actors.collect(),
            failures,
        }
    }

    /// Whether the API server answered every case as the rules say.
    pub fn is_good(&self) -> bool {
        self.wrong == 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for failure in &self.failures {
            let expected = failure.rule.map_or("must be refused".to_owned(), |rule| format!("is allowed by {rule}"));
            let outcome = match &failure.outcome {
                Outcome::Allowed => "was allowed".to_owned(),
                Outcome::Refused { said, .. } => format!("was refused: {said}"),
                Outcome::Absent => "is not there".to_owned(),
                Outcome::Broken { said } => format!("could not be judged: {said}"),
            };
            // Writing to text cannot fail.
            let _ = writeln!(text, "WRONG  {}\n       {expected}, and {outcome}", failure.case);
        }
        let _ = writeln!(text, "{:<48}{:>8}{:>8}{:>9}{:>7}", "ACTOR", "ALLOWED", "REFUSED", "LEFT-OUT", "WRONG");
        for Count { actor, allowed, refused, left_out, wrong } in &self.actors {
            let _ = writeln!(text, "{actor:<48}{allowed:>8}{refused:>8}{left_out:>9}{wrong:>7}");
        }
        let _ = write!(text, "\n{} cases, {} wrong", self.cases, self.wrong);
        if self.left_out > 0 {
            let _ = write!(text, ", {} left out: their object is made by a controller that runs", self.left_out);
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::Case;
    use super::super::case::Change;
    use super::super::case::Object;
    use super::super::case::Place;
    use super::super::case::Resource;
    use super::super::case::Target;
    use super::super::case::Verb;
    use super::*;

    fn verdict(rule: Option<&'static str>, outcome: Outcome) -> Verdict {
        let target = Target { resource: Resource::Servers, place: Place::Cluster, object: Object::OfHost };
        let case = Case { actor: Actor::PodAgent, verb: Verb::Delete, target, change: Change::Nothing };
        Verdict { case, rule, outcome }
    }

    #[test]
    fn people_read_what_differs_and_how_much_was_tried() {
        let verdicts =
            [verdict(None, Outcome::Allowed), verdict(None, Outcome::Absent), verdict(Some("a"), Outcome::Allowed)];
        let report = Report::of(&verdicts);
        assert!(!report.is_good());
        assert_eq!(
            report.text(),
            "WRONG  agent in a pod: delete dcvservers, the host's\n       must be refused, and was allowed\n\
            ACTOR                                            ALLOWED REFUSED LEFT-OUT  WRONG\n\
            agent in a pod                                         2       0        1      1\n\n\
            3 cases, 1 wrong, 1 left out: their object is made by a controller that runs\n"
        );
    }

    #[test]
    fn programs_read_the_same() {
        let json = serde_json::to_value(Report::of(&[verdict(None, Outcome::Allowed)])).unwrap();
        assert_eq!((&json["cases"], &json["wrong"], &json["leftOut"]), (&1.into(), &1.into(), &0.into()));
        let failure = &json["failures"][0];
        assert_eq!((&failure["actor"], &failure["verb"]), (&"podAgent".into(), &"delete".into()));
        assert_eq!((&failure["resource"], &failure["object"]), (&"dcvservers".into(), &"ofHost".into()));
        assert_eq!((&failure["outcome"], &failure["rule"]), (&"allowed".into(), &serde_json::Value::Null));
    }
}
