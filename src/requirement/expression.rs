//! The expression: comparisons joined by `and`, `or` and `not`.

use std::fmt;

use super::Clause;
use super::Facts;
use super::Property;
use super::comparison::Comparison;
use super::comparison::Key;

/// An expression. An `All` has at least two parts and none that is an `All`; the same for `Any`.
///
/// It is as deep as the parser lets it be, so recursion over it is safe, and so is dropping it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Expression {
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    Compare(Comparison),
}

impl Expression {
    /// `parts` joined by `and`; at least one.
    pub fn all(parts: Vec<Self>) -> Self {
        Self::join(parts, Self::All, |part| match part {
            Self::All(inner) => Ok(inner),
            other => Err(other),
        })
    }

    /// `parts` joined by `or`; at least one.
    pub fn any(parts: Vec<Self>) -> Self {
        Self::join(parts, Self::Any, |part| match part {
            Self::Any(inner) => Ok(inner),
            other => Err(other),
        })
    }

    /// Dissolves parts that are joined in the same way: `a and (b and c)` is `a and b and c`.
    fn join(parts: Vec<Self>, join: fn(Box<[Self]>) -> Self, open: fn(Self) -> Result<Box<[Self]>, Self>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match open(part) {
                Ok(inner) => flat.extend(inner),
                Err(other) => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { join(flat.into()) }
    }

    pub fn into_clauses(self) -> Box<[Clause]> {
        match self {
            Self::All(parts) => parts.into_iter().map(Clause).collect(),
            other => Box::new([Clause(other)]),
        }
    }

    pub fn matches<F: Facts + ?Sized>(&self, facts: &F) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(facts)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(facts)),
            Self::Not(inner) => !inner.matches(facts),
            Self::Compare(comparison) => comparison.matches(facts),
        }
    }

    pub fn asks_for(&self, property: Property) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.asks_for(property)),
            Self::Not(inner) => inner.asks_for(property),
            Self::Compare(comparison) => comparison.key == Key::Property(property),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => write_all(f, parts),
            Self::Any(parts) => write_joined(f, " or ", parts, |_| false),
            Self::Not(inner) => {
                f.write_str("not ")?;
                write_part(f, inner, !matches!(**inner, Self::Compare(_)))
            }
            Self::Compare(comparison) => comparison.fmt(f),
        }
    }
}

/// Writes `parts` joined by `and`.
pub(super) fn write_all<'a>(
    f: &mut fmt::Formatter<'_>,
    parts: impl IntoIterator<Item = &'a Expression>,
) -> fmt::Result {
    write_joined(f, " and ", parts, |part| matches!(part, Expression::Any(_)))
}

fn write_joined<'a>(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    parts: impl IntoIterator<Item = &'a Expression>,
    in_parentheses: fn(&Expression) -> bool,
) -> fmt::Result {
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        write_part(f, part, in_parentheses(part))?;
    }
    Ok(())
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &Expression, in_parentheses: bool) -> fmt::Result {
    if in_parentheses { write!(f, "({part})") } else { write!(f, "{part}") }
}
