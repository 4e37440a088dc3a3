//! Why a text is no requirement, and where.

use std::fmt;
use std::ops::Range;

/// Most characters of the text that are shown around the fault.
const SHOWN: usize = 100;

/// Why a text is no requirement.
///
/// `{}` is one line; `{:#}` adds the line of the text with the place marked below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    offset: usize,
    /// The place as people count: characters, from 1.
    character: usize,
    message: String,
    /// The line of the text around the place, cut when it is long.
    line: String,
    /// What is marked in it, in characters.
    marked: Range<usize>,
}

impl ParseError {
    /// `message` about the bytes `place` of `text`.
    pub(super) fn new(text: &str, place: Range<usize>, message: String) -> Self {
        let start = text[..place.start].rfind('\n').map_or(0, |end| end + 1);
        let end = text[place.start..].find('\n').map_or(text.len(), |length| place.start + length);
        let before = text[start..place.start].chars().count();
        let long = text[place.start..place.end.min(end)].chars().count().max(1);
        let skipped = before.saturating_sub(SHOWN / 2);
        let mut line: String = text[start..end].chars().skip(skipped).take(SHOWN).map(printable).collect();
        let mut marked = before - skipped..(before - skipped + long).min(SHOWN);
        if text[start..end].chars().count() > skipped + SHOWN {
            line.push('…');
        }
        if skipped > 0 {
            line.insert(0, '…');
            marked = marked.start + 1..marked.end + 1;
        }
        Self { offset: place.start, character: text[..place.start].chars().count() + 1, message, line, marked }
    }

    /// Where the fault is, in bytes from the start of the text.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong and what was expected, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Blanks and controls in one column each.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requirements: at character {}: {}", self.character, self.message)?;
        if f.alternate() {
            let (before, long) = (self.marked.start, self.marked.len());
            let line = format!("  {}", self.line);
            write!(f, "\n{}\n  {:before$}{:^<long$}", line.trim_end(), "", "")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}
