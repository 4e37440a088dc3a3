//! The requirement language: what a session asks of the host it runs on.
//!
//! Text to expression, and an expression's answer for one host. It knows neither Kubernetes nor how hosts are stored: an
//! expression asks a host through [`Facts`]. No text panics, a parsed expression is bounded in length, depth and terms, and
//! an evaluation asks for each term at most once and allocates nothing.
//!
//! Grammar: `RequirementsParserMatcher.jj` in aws/dcv-access-console and "`CreateSessions`" in the Session Manager Developer
//! Guide. Neither says how terms are evaluated; `docs/requirements.md` has the rules we chose.

mod comparison;
mod contradiction;
mod error;
mod expression;
mod hint;
mod nearest;
mod parse;
mod property;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;

pub use contradiction::Contradiction;
pub use error::ParseError;
pub use nearest::Nearest;
pub use property::Property;

use expression::Expression;

/// Longest text, in characters. The `DcvSession` definition has the same bound.
pub const MAX_CHARACTERS: usize = 4096;
/// Deepest nesting of parentheses.
pub const MAX_DEPTH: usize = 64;
/// Most comparisons. With it evaluation is bounded: each comparison is made at most once.
pub const MAX_TERMS: usize = 256;

/// How much of the language is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Only what Session Manager documents: tags and [its 25 properties](Property::is_documented).
    Documented,
    /// Our own properties and `label:` keys as well.
    #[default]
    Extended,
}

/// A parsed requirement.
///
/// Its `Display` is the canonical text: as written, with one blank around each operator, lower-case words and no needless
/// parentheses. It reads back as an equal requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// At least one.
    clauses: Box<[Clause]>,
    /// Of the clauses: requirements are looked up often.
    hash: u64,
}

/// One of the parts of a requirement that must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clause(Expression);

/// A host, as far as requirements can ask about it.
pub trait Facts {
    /// Value of the host's tag `key`, such as `pool` or `dcv:os`.
    fn tag(&self, key: &str) -> Option<&str>;
    /// Value of the Kubernetes label `key`, such as `nvidia.com/gpu.product`.
    fn label(&self, key: &str) -> Option<&str>;
    /// What the host reports for `property`; `None`: it does not report it.
    fn property(&self, property: Property) -> Option<Value<'_>>;
}

/// What a host reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text, such as the name of an operating system.
    Text(&'a str),
    /// A number; whole ones are exact up to 2^53. One that is not finite counts as not reported.
    Number(f64),
    /// Several texts, such as the models of several graphics cards: a comparison holds when it holds for any of them.
    Texts(&'a [String]),
}

impl Requirement {
    /// Reads `text`; `None` when it is empty or blank, which requires nothing.
    ///
    /// # Errors
    /// The first place that cannot be understood, with what was expected there.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Option<Self>, ParseError> {
        let whole = |expression: Expression| {
            let clauses = expression.into_clauses();
            let mut hasher = DefaultHasher::new();
            clauses.hash(&mut hasher);
            Self { clauses, hash: hasher.finish() }
        };
        Ok(parse::parse(text, dialect)?.map(whole))
    }

    /// Whether a host with these facts will do.
    pub fn matches<F: Facts + ?Sized>(&self, facts: &F) -> bool {
        self.clauses.iter().all(|clause| clause.matches(facts))
    }

    /// The parts that must all hold, in the order written: those of the outermost `and`, or one when there is none.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }

    /// Whether it compares this property, so that its answer may change when the property does.
    pub fn asks_for(&self, property: Property) -> bool {
        self.clauses.iter().any(|clause| clause.0.asks_for(property))
    }

    /// Index of the first clause that is false for these facts; `None` when the requirement is met.
    pub fn refuted_by<F: Facts + ?Sized>(&self, facts: &F) -> Option<usize> {
        self.clauses.iter().position(|clause| !clause.matches(facts))
    }
}

impl Hash for Requirement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Clause {
    /// Whether this part holds for these facts.
    pub fn matches<F: Facts + ?Sized>(&self, facts: &F) -> bool {
        self.0.matches(facts)
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.clauses {
            [only] => only.fmt(f),
            clauses => expression::write_all(f, clauses.iter().map(|clause| &clause.0)),
        }
    }
}
