//! Requirements that no host can meet, whatever it reports.
//!
//! Sound, not complete: what is reported here can never be true, but not everything that can never be true is found. It
//! compares the parts two by two, so its work is bounded by the square of the number of comparisons.

use std::fmt;

use super::Clause;
use super::Requirement;
use super::comparison::Comparison;
use super::comparison::Key;
use super::comparison::Literal;
use super::comparison::Operator;
use super::comparison::number_contains;
use super::expression::Expression;

/// Clauses that can never be true together.
///
/// Its `Display` says so in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction<'a> {
    /// The first clause.
    pub first: &'a Clause,
    /// The clause that contradicts it; `None`: the first can never be true by itself.
    pub second: Option<&'a Clause>,
}

impl Requirement {
    /// Clauses that no host can meet together, as `tag:a = '1' and tag:a = '2'`; `None`: none were found.
    pub fn contradiction(&self) -> Option<Contradiction<'_>> {
        let alone = self.clauses.iter().find(|clause| is_never_true(&clause.0));
        if let Some(first) = alone {
            return Some(Contradiction { first, second: None });
        }
        let (first, second) = find_pair(&self.clauses, |first, second| exclude(&first.0, &second.0))?;
        Some(Contradiction { first, second: Some(second) })
    }
}

impl fmt::Display for Contradiction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.second {
            None => write!(f, "no host can ever meet `{}`", self.first),
            Some(second) => write!(f, "no host can ever meet both `{}` and `{second}`", self.first),
        }
    }
}

/// The first two of `parts` for which `holds`.
fn find_pair<T>(parts: &[T], holds: fn(&T, &T) -> bool) -> Option<(&T, &T)> {
    parts.iter().enumerate().find_map(|(index, first)| {
        let second = parts[index + 1..].iter().find(|second| holds(first, second))?;
        Some((first, second))
    })
}

fn is_never_true(expression: &Expression) -> bool {
    match expression {
        Expression::All(parts) => parts.iter().any(is_never_true) || find_pair(parts, exclude).is_some(),
        Expression::Any(parts) => parts.iter().all(is_never_true),
        Expression::Not(_) => false,
        Expression::Compare(Comparison { operator, literal, .. }) => operator.is_ordering() && literal.number.is_none(),
    }
}

/// Whether one is false wherever the other is true.
fn exclude(left: &Expression, right: &Expression) -> bool {
    negates(left, right)
        || negates(right, left)
        || match (left, right) {
            (Expression::Any(parts), other) | (other, Expression::Any(parts)) => {
                parts.iter().all(|part| exclude(part, other))
            }
            (Expression::All(parts), other) | (other, Expression::All(parts)) => {
                parts.iter().any(|part| exclude(part, other))
            }
            (Expression::Not(_), _) | (_, Expression::Not(_)) => false,
            (Expression::Compare(left), Expression::Compare(right)) => {
                left.key == right.key && left.key.has_one_value() && (left.excludes(right) || right.excludes(left))
            }
        }
}

fn negates(left: &Expression, right: &Expression) -> bool {
    matches!(left, Expression::Not(inner) if **inner == *right)
}

impl Key {
    fn has_one_value(&self) -> bool {
        !matches!(self, Self::Property(property) if property.is_multiple())
    }
}

impl Comparison {
    /// Whether no value of the key both have satisfies both.
    fn excludes(&self, other: &Self) -> bool {
        let (mine, others) = (&self.literal, &other.literal);
        match (self.operator, other.operator) {
            (Operator::Equal, Operator::Equal) => mine != others && !same_number(mine, others),
            (Operator::Equal, Operator::NotEqual) => mine == others || (!others.quoted && same_number(mine, others)),
            (Operator::Equal, Operator::Contains) => {
                mine.quoted
                    && !mine.text.contains(&*others.text)
                    && mine.number.is_none_or(|number| !number_contains(number, &others.text))
            }
            (Operator::Equal, order) if order.is_ordering() => !order.orders(mine.number, others.number),
            (Operator::Greater | Operator::GreaterOrEqual, Operator::Less | Operator::LessOrEqual) => {
                let both_inclusive =
                    (self.operator, other.operator) == (Operator::GreaterOrEqual, Operator::LessOrEqual);
                let order = if both_inclusive { Operator::LessOrEqual } else { Operator::Less };
                !order.orders(mine.number, others.number)
            }
            _ => false,
        }
    }
}

fn same_number(left: &Literal, right: &Literal) -> bool {
    Operator::Equal.orders(left.number, right.number)
}
