//! The least change of a clause that would make a host meet it.

use super::Clause;
use super::Facts;
use super::Value;
use super::comparison::Comparison;
use super::comparison::Literal;
use super::comparison::Operator;
use super::comparison::parse_number;
use super::expression::Expression;

/// A clause with another value.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// What the host meets.
    pub clause: Clause,
    /// How far its value is from the one asked for; 0 for texts.
    pub distance: f64,
}

impl Clause {
    /// This clause with the value that the host reports instead of the one asked for, so that the host meets it.
    ///
    /// `None` where that says nothing: the host reports no such value, or the clause is not one comparison by `=` or an
    /// order.
    pub fn nearest<F: Facts + ?Sized>(&self, facts: &F) -> Option<Nearest> {
        let Expression::Compare(Comparison { key, operator, literal: asked }) = &self.0 else { return None };
        let literal = match key.reported_by(facts)? {
            Value::Number(number) => Literal::number(&number.to_string())?,
            Value::Text(text) => Literal::quoted(text),
            Value::Texts(texts) => Literal::quoted(texts.first()?.as_str()),
        };
        let operator = match operator {
            Operator::Equal => Operator::Equal,
            Operator::Greater | Operator::GreaterOrEqual => Operator::GreaterOrEqual,
            Operator::Less | Operator::LessOrEqual => Operator::LessOrEqual,
            Operator::NotEqual | Operator::Contains => return None,
        };
        let number = parse_number(&literal.text);
        if operator != Operator::Equal && number.is_none() {
            return None;
        }
        let distance = asked.number.zip(number).map_or(0.0, |(asked, number)| (asked - number).abs());
        let comparison = Comparison { key: key.clone(), operator, literal };
        Some(Nearest { clause: Self(Expression::Compare(comparison)), distance })
    }
}
