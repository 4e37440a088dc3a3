//! Texts that many servers have in common, kept once: a fleet takes less memory, and what is compared is near.

use std::collections::HashSet;
use std::sync::Arc;

/// How many texts more than last time make it worth looking for some that nobody has any more.
const TIDY_AFTER: usize = if cfg!(test) { 2 } else { 4096 };

/// The texts of a fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    known: HashSet<Arc<str>>,
    /// How many there were when those of nobody were last taken out.
    kept: usize,
}

impl Texts {
    /// Makes `text` the one that others have.
    pub fn share(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.known.get(text) {
            *text = Arc::clone(known);
            return;
        }
        if self.known.len() >= self.kept + TIDY_AFTER {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.kept = self.known.len();
        }
        self.known.insert(Arc::clone(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_those_of_nobody_are_forgotten() {
        let mut texts = Texts::default();
        let mut shared = |text: &str| {
            let mut text = Arc::from(text);
            texts.share(&mut text);
            text
        };
        let (one, other) = (shared("linux"), shared("linux"));
        assert!(Arc::ptr_eq(&one, &other));
        for number in 0..10 {
            shared(&number.to_string());
        }
        assert!(texts.known.len() <= 2 + TIDY_AFTER, "{texts:?}");
        assert!(texts.known.contains("linux"));
    }
}
