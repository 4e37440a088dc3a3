//! What to say about a fault: what was expected, what stands there, and for a near miss the right spelling.
//!
//! Runs only when a text does not parse, so it looks at the text again instead of burdening the parser.
//! The texts "Server property server:X not found", "Expected one of tag or server property" and "Unexpected CONTAINS
//! operator" are those of `RequirementsParserMatcher.jj` in aws/dcv-access-console; clients know them.

use std::ops::Range;

use super::Dialect;
use super::MAX_CHARACTERS;
use super::MAX_DEPTH;
use super::MAX_TERMS;
use super::ParseError;
use super::Property;
use super::comparison::Literal;
use super::comparison::number_length;
use super::parse::Fault;
use super::parse::is_label;
use super::parse::is_word;

/// Most characters of a found word that a message repeats.
const LONGEST_WORD: usize = 40;

/// The error for `fault` at the byte `offset` of `text`.
pub(super) fn explain(text: &str, offset: usize, fault: Fault, dialect: Dialect) -> ParseError {
    let place = Place { text, offset, dialect };
    let Message { about, text: message } = match fault {
        Fault::Key => place.key(),
        Fault::TagName => place.tag_name(),
        Fault::Property => place.property(),
        Fault::LabelName => place.label_name(),
        Fault::Strict => place.strict(),
        Fault::Operator => place.operator(),
        Fault::Value => place.value(),
        Fault::ContainsNumber => place.contains_number(),
        Fault::Range => place.here("this number is too large".into()),
        Fault::Quote => Message {
            about: offset..offset + 1,
            text: "this string has no closing `'`; a quote inside a string is doubled: `'it''s'`".into(),
        },
        Fault::Connective => place.connective("`and`, `or` or the end"),
        Fault::Parenthesis => place.parenthesis(),
        Fault::Length => place.here(format!("longer than {MAX_CHARACTERS} characters")),
        Fault::Depth => place.here(format!("more than {MAX_DEPTH} nested parentheses")),
        Fault::Terms => place.here(format!("more than {MAX_TERMS} comparisons")),
    };
    ParseError::new(text, about, message)
}

/// What to say, about which bytes of the text.
struct Message {
    about: Range<usize>,
    text: String,
}

/// Where the parser stopped.
#[derive(Clone, Copy)]
struct Place<'a> {
    text: &'a str,
    offset: usize,
    dialect: Dialect,
}

impl<'a> Place<'a> {
    fn before(self) -> &'a str {
        &self.text[..self.offset]
    }

    fn rest(self) -> &'a str {
        &self.text[self.offset..]
    }

    /// The word, string or sign that stands here; empty at the end.
    fn found(self) -> &'a str {
        first_token(self.rest())
    }

    /// The same place, back at the start of what is glued to it on the left.
    fn at_start_of(self, glued: fn(char) -> bool) -> Self {
        Self { offset: self.before().trim_end_matches(glued).len(), ..self }
    }

    /// `text`, about what stands here.
    fn here(self, text: String) -> Message {
        Message { about: self.offset..self.offset + self.found().len(), text }
    }

    /// That `expected` does not stand here, with `hint` when there is one.
    fn expected(self, expected: &str, hint: Option<String>) -> Message {
        self.here(with_hint(format!("expected {expected}, found {}", shown(self.found())), hint))
    }

    fn key(self) -> Message {
        // `android` is read as `and` and a key `roid`.
        let place = if self.rest().starts_with(is_word) { self.at_start_of(is_word) } else { self };
        let hint = place.key_hint();
        place.here(with_hint(format!("Expected one of tag or server property, found {}", shown(place.found())), hint))
    }

    fn key_hint(self) -> Option<String> {
        let found = self.found();
        let after = &self.rest()[found.len()..];
        if found.eq_ignore_ascii_case("not") {
            return Some("a second `not` needs parentheses: `not (not …)`".into());
        }
        if is_connective(found) {
            return Some("a comparison is missing before it".into());
        }
        if found.starts_with(['\'', '"']) && found.contains(':') {
            return Some("the requirement itself stands in no quotes".into());
        }
        if let Some((prefix, name)) = found.split_once(':') {
            return self.prefix_named(prefix).map(|right| did_you_mean(&format!("{right}:{name}")));
        }
        if let Some(prefix) = self.prefix_named(found)
            && after.trim_start().starts_with(':')
        {
            return Some(format!("no blank may stand before the colon of `{prefix}:`"));
        }
        match found.chars().next()? {
            '!' => Some("write `not` for `!`".into()),
            '\'' | '"' | '0'..='9' | '+' | '-' => {
                Some("each comparison has its key first: `tag:pool = 'a' or tag:pool = 'b'`".into())
            }
            c if is_word(c) => Some(did_you_mean(&self.prefixed(found)?)),
            _ => None,
        }
    }

    /// The prefix of keys that `word` was meant to be.
    fn prefix_named(self, word: &str) -> Option<&'static str> {
        let word = word.to_ascii_lowercase();
        let prefixes: &[_] =
            if self.dialect == Dialect::Extended { &["tag", "server", "label"] } else { &["tag", "server"] };
        prefixes.iter().copied().find(|prefix| distance(&word, prefix) <= 1)
    }

    /// `name` with the prefix that it lacks.
    fn prefixed(self, name: &str) -> Option<String> {
        if let Some(property) = nearest_property(name, self.dialect) {
            return Some(format!("server:{}", property.name()));
        }
        if name.chars().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(format!("tag:{name}"));
        }
        (self.dialect == Dialect::Extended && is_label(name)).then(|| format!("label:'{name}'"))
    }

    fn tag_name(self) -> Message {
        let hint = self
            .blank_hint("tag")
            .or_else(|| self.rest().starts_with(['\'', '"']).then(|| "names of tags are not quoted".into()));
        self.expected("the name of a tag, which starts with a letter or `_`", hint)
    }

    fn property(self) -> Message {
        let rest = self.rest();
        let name = &rest[..rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            return self.expected("the name of a property", self.blank_hint("server"));
        }
        let hint = nearest_property(name, self.dialect).map(|near| did_you_mean(&format!("server:{}", near.name())));
        let text = format!("Server property server:{} not found", cut(name));
        Message { about: self.offset..self.offset + name.len(), text: with_hint(text, hint) }
    }

    fn label_name(self) -> Message {
        self.expected(
            "the name of a Kubernetes label, as in `label:zone` or `label:'example.com/zone'`",
            self.blank_hint("label"),
        )
    }

    /// For a blank between the prefix and the name.
    fn blank_hint(self, prefix: &str) -> Option<String> {
        let name = self.rest().trim_start();
        let is_apart = name.len() < self.rest().len() && name.starts_with(is_word);
        is_apart.then(|| format!("no blank may stand after the colon: write `{prefix}:{}`", cut(first_token(name))))
    }

    fn strict(self) -> Message {
        let reason = "it is not part of Session Manager, and the setting `strict-requirements` forbids what is not";
        let text = if self.before().ends_with("label:") {
            format!("Expected one of tag or server property, found a label: {reason}")
        } else {
            format!("Server property server:{} not found: {reason}", self.found())
        };
        self.here(text)
    }

    fn operator(self) -> Message {
        let key = self.at_start_of(is_name);
        if self.rest().starts_with(is_name) && !self.before().ends_with(is_blank) && !self.rest().starts_with(":=") {
            if key.rest().starts_with("tag:") {
                let rule = "names of tags have letters, digits and `_` only; after `dcv:` also `-`";
                return key.here(format!("{} cannot be a tag: {rule}", shown(key.found())));
            }
            if let Some(name) = key.found().strip_prefix("label:") {
                return key.here(format!("this name needs quotes: write `label:'{}'`", cut(name)));
            }
        }
        self.expected("one of `=` `!=` `:=` `>` `>=` `<` `<=`", self.operator_hint())
    }

    fn operator_hint(self) -> Option<String> {
        let right = match &*self.found().to_ascii_lowercase() {
            ":" | "is" | "eq" | "equals" => "=",
            "~" | "~=" | "like" | "contains" | "matches" => ":=",
            "!" | "ne" | "isnt" => "!=",
            "gt" => ">",
            "ge" => ">=",
            "lt" => "<",
            "le" => "<=",
            "in" => return Some("compare with each value, and join the comparisons by `or`".into()),
            "" | ")" | "and" | "or" => {
                return Some("to ask whether it is there at all, write `:= ''`".into());
            }
            _ => return None,
        };
        Some(format!("write `{right}`"))
    }

    fn value(self) -> Message {
        let expected =
            if self.before().trim_end().ends_with(":=") { "a quoted string" } else { "a quoted string or a number" };
        if self.before().ends_with(is_sign) && self.rest().starts_with(is_sign) {
            let sign = self.at_start_of(is_sign);
            return sign.expected("one of `=` `!=` `:=` `>` `>=` `<` `<=`", sign_hint(sign.found()));
        }
        self.expected(expected, self.value_hint())
    }

    fn value_hint(self) -> Option<String> {
        let found = self.found();
        if let Some(inside) = unquoted(found) {
            return Some(format!("strings stand in single quotes: write {}", shown(&quoted(inside))));
        }
        let digits = found.trim_start_matches(['+', '-']);
        if digits.starts_with('.') && number_length(&digits[1..]) > 0 {
            return Some(format!("write `{}0{}`", &found[..found.len() - digits.len()], cut(digits)));
        }
        if ["tag:", "server:", "label:"].iter().any(|prefix| found.starts_with(prefix)) {
            return Some("a key cannot be compared with another key".into());
        }
        if found == "(" {
            return Some("compare with each value, and join the comparisons by `or`".into());
        }
        (found.starts_with(is_name) && !is_connective(found)).then(|| did_you_mean(&quoted(found)))
    }

    fn contains_number(self) -> Message {
        self.here(format!(
            "Unexpected CONTAINS operator with a number: write `:= '{}'`",
            cut(&self.rest()[..number_length(self.rest())])
        ))
    }

    fn parenthesis(self) -> Message {
        let expected = "`and`, `or` or `)`";
        if !self.rest().is_empty() {
            return self.connective(expected);
        }
        let hint = open_parenthesis(self.text)
            .map(|offset| format!("the `(` at character {} is not closed", self.text[..offset].chars().count() + 1));
        self.expected(expected, hint)
    }

    fn connective(self, expected: &str) -> Message {
        let number = self.at_start_of(|c| is_name(c) || c == '+');
        let literal = &number.rest()[..self.offset - number.offset];
        if self.rest().starts_with(is_name) && Literal::number(literal).is_some() {
            return number.after_number();
        }
        let found = self.found();
        let hint = match found {
            ")" => Some("it closes no `(`".into()),
            "&" | "&&" | "," | ";" => Some("write `and`".into()),
            "|" | "||" => Some("write `or`".into()),
            _ if self.before().ends_with('\'') && found.starts_with(char::is_alphanumeric) => {
                Some("a quote inside a string is doubled: `'it''s'`".into())
            }
            _ if found.contains(':') || found.eq_ignore_ascii_case("not") => {
                Some("comparisons are joined by `and` or `or`".into())
            }
            _ => None,
        };
        self.expected(expected, hint)
    }

    /// A number with something glued to it.
    fn after_number(self) -> Message {
        let found = self.found();
        let hint = match found.strip_suffix('.') {
            Some(number) if Literal::number(number).is_some() => format!("write `{}.0`", cut(number)),
            _ => did_you_mean(&quoted(found)),
        };
        self.here(with_hint(format!("{} is no number", shown(found)), Some(hint)))
    }
}

fn sign_hint(sign: &str) -> Option<String> {
    let right = match sign {
        "==" | "===" => "=",
        "=>" => ">=",
        "=<" => "<=",
        "<>" | "=!" | "!==" => "!=",
        "=~" | "::=" => ":=",
        _ => return None,
    };
    Some(format!("write `{right}`"))
}

/// The word, string or sign that `text` starts with, without blanks before it; empty only when `text` is.
fn first_token(text: &str) -> &str {
    let Some(first) = text.chars().next() else { return "" };
    let run = |is_part: fn(char) -> bool| text.find(|c| !is_part(c)).unwrap_or(text.len());
    let length = match first {
        c if closing_quote(c).is_some() => string_length(text),
        c if is_name(c) || c == '+' => run(|c| is_name(c) || c == '+'),
        c if is_sign(c) => run(is_sign),
        c => c.len_utf8(),
    };
    &text[..length]
}

/// Bytes of the string in any kind of quotes that `text` starts with; one that does not end in its line ends at a blank.
fn string_length(text: &str) -> usize {
    let mut chars = text.char_indices();
    let end = chars.next().and_then(|(_, open)| closing_quote(open)).unwrap_or(' ');
    let line = text.find(['\n', '\r']).unwrap_or(text.len());
    let closed = chars.find(|(_, c)| *c == end).map(|(at, c)| at + c.len_utf8()).filter(|length| *length <= line);
    closed.unwrap_or_else(|| text.find(is_blank).unwrap_or(text.len()))
}

/// What ends a string that starts with `open`, among the quotes that people type.
fn closing_quote(open: char) -> Option<char> {
    match open {
        '\'' | '"' | '`' => Some(open),
        '“' | '”' | '„' => Some('”'),
        '‘' | '’' | '‚' => Some('’'),
        _ => None,
    }
}

/// What stands between quotes other than `'`.
fn unquoted(found: &str) -> Option<&str> {
    let mut chars = found.chars();
    let end = chars.next().filter(|open| *open != '\'').and_then(closing_quote)?;
    Some(chars.as_str().trim_end_matches(end))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A token that people write without quotes: part of a word, a name, a path, a number.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@' | '%')
}

fn is_sign(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '&' | '|' | '~' | ':')
}

fn is_blank(c: char) -> bool {
    c.is_whitespace()
}

fn is_connective(word: &str) -> bool {
    word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or")
}

/// Offset of the last `(` outside strings that is not closed.
fn open_parenthesis(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut in_string = false;
    for (offset, c) in text.char_indices() {
        match c {
            '\'' => in_string = !in_string,
            '(' if !in_string => open.push(offset),
            ')' if !in_string => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

/// The property that `name` was meant to be: by its whole name or the end of it, in any letter case, up to one wrong letter
/// in three.
fn nearest_property(name: &str, dialect: Dialect) -> Option<Property> {
    let name = name.to_ascii_lowercase();
    let segments = name.split('.').count();
    Property::ALL
        .iter()
        .filter(|property| dialect == Dialect::Extended || property.is_documented())
        .map(|property| {
            let whole = property.name().to_ascii_lowercase();
            let end = last_segments(&whole, segments);
            (distance(&name, &whole).min(distance(&name, end)), *property)
        })
        .filter(|(distance, _)| *distance <= name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, property)| property)
}

fn last_segments(name: &str, count: usize) -> &str {
    name.rmatch_indices('.').nth(count - 1).map_or(name, |(at, _)| &name[at + 1..])
}

/// How many letters must be put in, left out or changed to make `left` of `right`.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(LONGEST_WORD).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().take(LONGEST_WORD).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in right.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

fn with_hint(text: String, hint: Option<String>) -> String {
    match hint {
        Some(hint) => text + "; " + &hint,
        None => text,
    }
}

fn did_you_mean(right: &str) -> String {
    format!("did you mean `{}`?", cut(right))
}

/// `found` as a message repeats it.
fn shown(found: &str) -> String {
    match found {
        "" => "the end".into(),
        blank if blank.trim().is_empty() => "a blank".into(),
        word => format!("`{}`", cut(word)),
    }
}

/// `word` in one line and not too long.
fn cut(word: &str) -> String {
    let mut chars = word.chars();
    let mut cut: String = chars.by_ref().take(LONGEST_WORD).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.next().is_some() {
        cut.push('…');
    }
    cut
}
