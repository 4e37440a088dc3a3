//! From text to [`Expression`]. The only place that knows the grammar.
//!
//! A parser that cannot go on leaves a [`Fault`] at the place; `hint` makes it a message.

use winnow::Parser;
use winnow::ascii::Caseless;
use winnow::ascii::multispace0;
use winnow::combinator::alt;
use winnow::combinator::cut_err;
use winnow::combinator::delimited;
use winnow::combinator::eof;
use winnow::combinator::fail;
use winnow::combinator::opt;
use winnow::combinator::preceded;
use winnow::combinator::repeat;
use winnow::combinator::terminated;
use winnow::error::ContextError;
use winnow::error::ErrMode;
use winnow::error::ModalResult;
use winnow::stream::Stateful;
use winnow::stream::Stream;
use winnow::token::one_of;
use winnow::token::take;
use winnow::token::take_till;
use winnow::token::take_while;

use super::Dialect;
use super::MAX_CHARACTERS;
use super::MAX_DEPTH;
use super::MAX_TERMS;
use super::ParseError;
use super::Property;
use super::comparison::Comparison;
use super::comparison::Key;
use super::comparison::Literal;
use super::comparison::Operator;
use super::comparison::is_plain;
use super::comparison::number_length;
use super::expression::Expression;
use super::hint;

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No key where a comparison must start.
    Key,
    TagName,
    /// No property has the name that stands here.
    Property,
    LabelName,
    /// The dialect does not have what stands here.
    Strict,
    Operator,
    Value,
    /// `:=` with a number.
    ContainsNumber,
    /// A number that is too large.
    Range,
    /// The string that starts here does not end.
    Quote,
    /// Neither `and` nor `or` nor the end.
    Connective,
    /// Neither `and` nor `or` nor `)`.
    Parenthesis,
    Length,
    Depth,
    Terms,
}

/// What stands around the place, for what the grammar allows there.
#[derive(Clone, Copy, Debug)]
struct Budget {
    dialect: Dialect,
    depth: usize,
    terms: usize,
}

type Input<'a> = Stateful<&'a str, Budget>;
type Parsed<T> = ModalResult<T, ContextError<Fault>>;

/// The expression that `text` is; `None` when it is blank.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Option<Expression>, ParseError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let error = |offset, fault| hint::explain(text, offset, fault, dialect);
    if text.len() > MAX_CHARACTERS
        && let Some((offset, _)) = text.char_indices().nth(MAX_CHARACTERS)
    {
        return Err(error(offset, Fault::Length));
    }
    delimited(multispace0, any_of, eof.context(Fault::Connective))
        .parse(Stateful { input: text, state: Budget { dialect, depth: 0, terms: 0 } })
        .map(Some)
        .map_err(|stopped| {
            let fault = stopped.inner().context().next().copied();
            error(stopped.offset(), fault.expect("whatever fails names its fault"))
        })
}

fn any_of(input: &mut Input<'_>) -> Parsed<Expression> {
    joined(input, all_of, "or", Expression::any)
}

fn all_of(input: &mut Input<'_>) -> Parsed<Expression> {
    joined(input, operand, "and", Expression::all)
}

/// `part { word part }`.
fn joined(
    input: &mut Input<'_>,
    part: fn(&mut Input<'_>) -> Parsed<Expression>,
    word: &'static str,
    join: fn(Vec<Expression>) -> Expression,
) -> Parsed<Expression> {
    let first = part(input)?;
    if opt(keyword(word)).parse_next(input)?.is_none() {
        return Ok(first);
    }
    let mut parts = vec![first, cut_err(part).parse_next(input)?];
    while opt(keyword(word)).parse_next(input)?.is_some() {
        parts.push(cut_err(part).parse_next(input)?);
    }
    Ok(join(parts))
}

fn operand(input: &mut Input<'_>) -> Parsed<Expression> {
    if opt(keyword("not")).parse_next(input)?.is_some() {
        return cut_err(positive).map(|inner| Expression::Not(Box::new(inner))).parse_next(input);
    }
    positive(input)
}

/// What may stand after `not`: not another `not`.
fn positive(input: &mut Input<'_>) -> Parsed<Expression> {
    if input.starts_with('(') { group(input) } else { comparison.map(Expression::Compare).parse_next(input) }
}

fn group(input: &mut Input<'_>) -> Parsed<Expression> {
    if input.state.depth == MAX_DEPTH {
        return reject(Fault::Depth);
    }
    input.state.depth += 1;
    let inner = delimited(token('('), any_of, token(')').context(Fault::Parenthesis));
    let inner = cut_err(inner).parse_next(input)?;
    input.state.depth -= 1;
    Ok(inner)
}

fn comparison(input: &mut Input<'_>) -> Parsed<Comparison> {
    let start = input.checkpoint();
    let key = token(key).parse_next(input)?;
    if input.state.terms == MAX_TERMS {
        input.reset(&start);
        return reject(Fault::Terms);
    }
    input.state.terms += 1;
    let operator = cut_err(token(operator)).parse_next(input)?;
    let value_start = input.checkpoint();
    let literal = cut_err(token(literal)).parse_next(input)?;
    if operator == Operator::Contains && !literal.quoted {
        input.reset(&value_start);
        return reject(Fault::ContainsNumber);
    }
    Ok(Comparison { key, operator, literal })
}

fn key(input: &mut Input<'_>) -> Parsed<Key> {
    alt((
        preceded("tag:", cut_err(tag_name)).map(|name| Key::Tag(name.into())),
        preceded("server:", cut_err(property)).map(Key::Property),
        preceded("label:", cut_err(label_name)).map(|name| Key::Label(name.into())),
        fail.context(Fault::Key),
    ))
    .parse_next(input)
}

/// A word, or `dcv:` and a word that may hold hyphens.
fn tag_name<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    let built_in = ("dcv:", take_while(1.., is_plain)).take();
    let word = (one_of(|c: char| c.is_ascii_alphabetic() || c == '_'), take_while(0.., is_word)).take();
    alt((built_in, word)).context(Fault::TagName).parse_next(input)
}

fn property(input: &mut Input<'_>) -> Parsed<Property> {
    let start = input.checkpoint();
    let property =
        take_while(1.., is_property).verify_map(Property::from_name).context(Fault::Property).parse_next(input)?;
    if input.state.dialect == Dialect::Documented && !property.is_documented() {
        input.reset(&start);
        return reject(Fault::Strict);
    }
    Ok(property)
}

/// Letters, digits, `_` and `-`, or any name in quotes.
fn label_name<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    if input.state.dialect == Dialect::Documented {
        return reject(Fault::Strict);
    }
    let in_quotes = delimited('\'', take_till(0.., '\''), '\'');
    alt((in_quotes, take_while(1.., is_plain))).verify(is_label).context(Fault::LabelName).parse_next(input)
}

fn operator(input: &mut Input<'_>) -> Parsed<Operator> {
    alt((
        ":=".value(Operator::Contains),
        "!=".value(Operator::NotEqual),
        ">=".value(Operator::GreaterOrEqual),
        "<=".value(Operator::LessOrEqual),
        '='.value(Operator::Equal),
        '>'.value(Operator::Greater),
        '<'.value(Operator::Less),
    ))
    .context(Fault::Operator)
    .parse_next(input)
}

fn literal(input: &mut Input<'_>) -> Parsed<Literal> {
    if input.starts_with('\'') { quoted(input) } else { number(input) }
}

/// `'…'`, in which two quotes stand for one.
fn quoted(input: &mut Input<'_>) -> Parsed<Literal> {
    let inside = repeat::<_, _, (), _, _>(0.., alt((take_till(1.., '\''), "''"))).take();
    let start = input.checkpoint();
    if let Some(text) = opt(delimited('\'', inside, '\'')).parse_next(input)? {
        return Ok(Literal::quoted(text.replace("''", "'")));
    }
    input.reset(&start);
    reject(Fault::Quote)
}

fn number(input: &mut Input<'_>) -> Parsed<Literal> {
    match number_length(input) {
        0 => fail.context(Fault::Value).parse_next(input),
        length => take(length).verify_map(Literal::number).context(Fault::Range).parse_next(input),
    }
}

/// A word of the language, in any letter case.
fn keyword<'a>(word: &'static str) -> impl Parser<Input<'a>, &'a str, ErrMode<ContextError<Fault>>> {
    token(Caseless(word))
}

/// `part` and the blanks after it.
fn token<'a, T>(
    part: impl Parser<Input<'a>, T, ErrMode<ContextError<Fault>>>,
) -> impl Parser<Input<'a>, T, ErrMode<ContextError<Fault>>> {
    terminated(part, multispace0)
}

fn reject<T>(fault: Fault) -> Parsed<T> {
    let mut error = ContextError::new();
    error.push(fault);
    Err(ErrMode::Cut(error))
}

pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

pub(super) fn is_property(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.'
}

/// Whether Kubernetes allows a label of this name: `[prefix/]name`.
pub(super) fn is_label(name: &str) -> bool {
    let (prefix, name) = name.split_once('/').map_or((None, name), |(prefix, name)| (Some(prefix), name));
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = |part: &str, longest: usize| {
        part.len() <= longest
            && part.chars().all(is_inner)
            && is_end(part.chars().next())
            && is_end(part.chars().last())
    };
    fits(name, 63) && prefix.is_none_or(|prefix| fits(prefix, 253))
}
