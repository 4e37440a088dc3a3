//! One comparison: a key, an operator, and a text or number. Here are the rules by which it holds.

use std::fmt;
use std::fmt::Write;
use std::hash::Hash;
use std::hash::Hasher;

use super::Facts;
use super::Property;
use super::Value;

/// `key operator literal`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Comparison {
    pub key: Key,
    pub operator: Operator,
    pub literal: Literal,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Tag(Box<str>),
    Label(Box<str>),
    Property(Property),
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Contains,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What it is compared with.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    /// As written; of a quoted one what stands between the quotes.
    pub text: Box<str>,
    pub quoted: bool,
    /// What `text` is as a number. Follows from it.
    pub number: Option<f64>,
}

impl Comparison {
    pub fn matches<F: Facts + ?Sized>(&self, facts: &F) -> bool {
        match self.key.reported_by(facts) {
            None => false,
            Some(Value::Text(text)) => self.holds_for_text(text),
            Some(Value::Number(number)) => number.is_finite() && self.holds_for_number(number),
            Some(Value::Texts(texts)) => texts.iter().any(|text| self.holds_for_text(text)),
        }
    }

    fn holds_for_text(&self, text: &str) -> bool {
        match self.operator {
            Operator::Equal => self.literal.equals_text(text),
            Operator::NotEqual => !self.literal.equals_text(text),
            Operator::Contains => text.contains(&*self.literal.text),
            ordering => ordering.orders(parse_number(text), self.literal.number),
        }
    }

    fn holds_for_number(&self, number: f64) -> bool {
        match self.operator {
            Operator::Equal => self.literal.equals_number(number),
            Operator::NotEqual => !self.literal.equals_number(number),
            Operator::Contains => number_contains(number, &self.literal.text),
            ordering => ordering.orders(Some(number), self.literal.number),
        }
    }
}

impl Key {
    /// What the host reports for it.
    pub fn reported_by<'a, F: Facts + ?Sized>(&self, facts: &'a F) -> Option<Value<'a>> {
        match self {
            Self::Tag(name) => facts.tag(name).map(Value::Text),
            Self::Label(name) => facts.label(name).map(Value::Text),
            Self::Property(property) => facts.property(*property),
        }
    }
}

impl Operator {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Contains => ":=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    pub fn is_ordering(self) -> bool {
        matches!(self, Self::Greater | Self::GreaterOrEqual | Self::Less | Self::LessOrEqual)
    }

    /// Whether `left` stands in this order to `right`. What is no number stands in none.
    #[expect(clippy::float_cmp, reason = "equal numbers are meant, not close ones")]
    pub fn orders(self, left: Option<f64>, right: Option<f64>) -> bool {
        let (Some(left), Some(right)) = (left, right) else { return false };
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Contains => false,
        }
    }
}

impl Literal {
    pub fn quoted(text: impl Into<Box<str>>) -> Self {
        let text = text.into();
        Self { number: parse_number(&text), text, quoted: true }
    }

    /// `None` when `text` is no number, or too large for one.
    pub fn number(text: &str) -> Option<Self> {
        let number = parse_number(text)?;
        Some(Self { text: text.into(), quoted: false, number: Some(number) })
    }

    /// Two texts are compared letter by letter, so that `'22.1'` is not `'22.10'`; an unquoted number by its value.
    fn equals_text(&self, text: &str) -> bool {
        if self.quoted { *self.text == *text } else { Operator::Equal.orders(parse_number(text), self.number) }
    }

    fn equals_number(&self, number: f64) -> bool {
        Operator::Equal.orders(Some(number), self.number)
    }
}

impl PartialEq for Literal {
    fn eq(&self, other: &Self) -> bool {
        (self.quoted, &self.text) == (other.quoted, &other.text)
    }
}

impl Eq for Literal {}

impl Hash for Literal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.quoted, &self.text).hash(state);
    }
}

/// The number that `text` is, in the form that the language has for numbers. Finite.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    if text.is_empty() || number_length(text) != text.len() {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Bytes of the number that `text` starts with; 0: it starts with none.
///
/// `[+-]? digits [ "." digits ] [ (e|E) [+-]? digits ]`, as much of it as there is.
pub(super) fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let after_sign = |at: usize| at + usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
    let start = after_sign(0);
    let mut end = start + digits(start);
    if end == start {
        return 0;
    }
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = after_sign(end + 1);
        if digits(exponent) > 0 {
            end = exponent + digits(exponent);
        }
    }
    end
}

/// Whether the text form of `number` contains `part`.
pub(super) fn number_contains(number: f64, part: &str) -> bool {
    Digits::of(number).as_str().contains(part)
}

/// The text form of a number: digits without exponent, the fewest that read back as the number, `4` and not `4.0`.
struct Digits {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl Digits {
    /// The longest are those of the smallest numbers: a sign, `0.`, 323 zeros and 17 digits.
    const LONGEST: usize = 352;

    fn of(number: f64) -> Self {
        let mut digits = Self { bytes: [0; Self::LONGEST], length: 0 };
        // Without the addition the negative zero would print its sign.
        write!(digits, "{}", number + 0.0).expect("no f64 prints longer than LONGEST");
        digits
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("only whole strings are written")
    }
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.operator.as_str(), self.literal)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name) => write!(f, "tag:{name}"),
            Self::Label(name) if name.chars().all(is_plain) => write!(f, "label:{name}"),
            Self::Label(name) => write!(f, "label:'{name}'"),
            Self::Property(property) => write!(f, "server:{}", property.name()),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted { write!(f, "'{}'", self.text.replace('\'', "''")) } else { f.write_str(&self.text) }
    }
}

/// Whether `c` may stand in the name of a label without quotes.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}
