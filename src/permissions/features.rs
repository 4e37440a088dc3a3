//! The features a person can have in a session, as a set.

use std::fmt;

/// Every feature: its word in a permissions file and its bit. In alphabetical order, as the guide lists them.
const TABLE: [(&str, Features); 23] = [
    ("audio-in", Features(1 << 0)),
    ("audio-out", Features(1 << 1)),
    ("clipboard-copy", Features::CLIPBOARD_COPY),
    ("clipboard-paste", Features::CLIPBOARD_PASTE),
    ("display", Features::DISPLAY),
    ("extensions-client", Features(1 << 5)),
    ("extensions-server", Features(1 << 6)),
    ("file-download", Features(1 << 7)),
    ("file-upload", Features(1 << 8)),
    ("gamepad", Features(1 << 9)),
    ("keyboard", Features::KEYBOARD),
    ("keyboard-sas", Features::KEYBOARD_SAS),
    ("mouse", Features::MOUSE),
    ("pointer", Features(1 << 13)),
    ("printer", Features(1 << 14)),
    ("screenshot", Features(1 << 15)),
    ("smartcard", Features(1 << 16)),
    ("stylus", Features::STYLUS),
    ("touch", Features::TOUCH),
    ("unsupervised-access", Features(1 << 19)),
    ("usb", Features(1 << 20)),
    ("webcam", Features(1 << 21)),
    ("webauthn-redirection", Features(1 << 22)),
];

/// A set of features. Empty by default.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u32);

impl Features {
    /// No feature: the person may not connect.
    pub const NONE: Self = Self(0);
    /// Taking text out of the session.
    pub const CLIPBOARD_COPY: Self = Self(1 << 2);
    /// Bringing text into the session.
    pub const CLIPBOARD_PASTE: Self = Self(1 << 3);
    /// Seeing the screen; nobody connects without it.
    pub const DISPLAY: Self = Self(1 << 4);
    /// Typing.
    pub const KEYBOARD: Self = Self(1 << 10);
    /// The secure attention sequence; nothing without [`Features::KEYBOARD`].
    pub const KEYBOARD_SAS: Self = Self(1 << 11);
    /// Moving and clicking.
    pub const MOUSE: Self = Self(1 << 12);
    /// Drawing with a stylus.
    pub const STYLUS: Self = Self(1 << 17);
    /// Touching.
    pub const TOUCH: Self = Self(1 << 18);
    /// What the word `builtin` stands for: all of them.
    pub const BUILTIN: Self = Self((1 << 23) - 1);

    /// The feature of this word, or `builtin`.
    pub fn from_word(word: &str) -> Option<Self> {
        if word == "builtin" {
            return Some(Self::BUILTIN);
        }
        TABLE.iter().find(|(name, _)| *name == word).map(|(_, feature)| *feature)
    }

    /// Whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The set with those of `other` too.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The words of the set, in alphabetical order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        TABLE.iter().filter(move |(_, feature)| self.contains(*feature)).map(|(name, _)| *name)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.words()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_a_word_and_a_bit_of_its_own() {
        let mut all = Features::NONE;
        for (word, feature) in TABLE {
            assert!(!all.intersects(feature), "{word}");
            assert_eq!(Features::from_word(word), Some(feature));
            all = all.with(feature);
        }
        assert_eq!(all, Features::BUILTIN);
        assert_eq!(Features::BUILTIN.words().count(), TABLE.len());
        assert_eq!(Features::from_word("Display"), None);
    }
}
