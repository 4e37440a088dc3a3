//! The rules: what each party may do. Whatever no rule allows must be refused.

mod list;

use std::fmt::Write as _;

use self::list::REST;
use self::list::RULES;
use self::list::UNWATCHED;
use super::Installation;
use super::actor::Actor;
use super::case::Case;
use super::case::Change;
use super::case::Object;
use super::case::Place;
use super::case::Resource;
use super::case::Verb;

/// Something that is allowed. An empty list stands for everything.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Short name, for reports.
    pub name: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// Who may.
    pub who: &'static [Actor],
    /// Do what.
    pub verbs: &'static [Verb],
    /// To which kinds.
    pub resources: &'static [Resource],
    /// Whether only to the actor's own: of its server, or in its namespace.
    pub own: bool,
    /// Where.
    pub places: &'static [Place],
    /// To which objects.
    pub objects: &'static [Object],
    /// With which changes.
    pub changes: &'static [Change],
}

/// The rule that allows a case; none: it must be refused.
pub fn allowing(case: Case, installation: &Installation) -> Option<&'static Rule> {
    let is_shut_off = !installation.watches_everything && UNWATCHED.iter().any(|rule| rule.fits(case));
    RULES.iter().find(|rule| rule.fits(case) && !is_shut_off)
}

impl Rule {
    fn fits(&self, case: Case) -> bool {
        is_among(self.who, &case.actor)
            && is_among(self.verbs, &case.verb)
            && is_among(self.resources, &case.target.resource)
            && is_among(self.places, &case.target.place)
            && is_among(self.objects, &case.target.object)
            && is_among(self.changes, &case.change)
            && (!self.own || case.is_own())
    }
}

fn is_among<T: PartialEq>(list: &[T], item: &T) -> bool {
    list.is_empty() || list.contains(item)
}

/// The rules for people.
pub fn text() -> String {
    let mut text = String::new();
    for rule in RULES.iter().chain(UNWATCHED) {
        // Writing to text cannot fail.
        let _ = writeln!(text, "{:<26}{}", rule.name, rule.sentence);
    }
    let _ = writeln!(text, "{:<26}{REST}", "");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::generate;
    use super::*;

    #[test]
    fn each_rule_has_a_name_of_its_own_and_a_sentence() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(RULES.iter().all(|rule| rule.sentence.ends_with('.') && !rule.who.is_empty()));
    }

    #[test]
    fn each_rule_allows_some_case() {
        let cases = generate::cases(&Installation::default());
        let idle = RULES.iter().chain(UNWATCHED).filter(|rule| !cases.iter().any(|case| rule.fits(*case)));
        assert_eq!(idle.map(|rule| rule.name).collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn the_rules_are_in_the_documentation_word_for_word() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
        let missing: Vec<_> = RULES
            .iter()
            .chain(UNWATCHED)
            .map(|rule| rule.sentence)
            .chain([REST])
            .filter(|text| !page.contains(text))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
