//! Pictures in terminals: which can, and how they are told.
//!
//! A terminal is known by what it sets in the environment; it is not asked, as its answer could end up in somebody's shell.
//! Sixel is left out: that a terminal has it can only be found out by asking.
//!
//! Sources: "Terminal graphics protocol" of kitty; "Inline Images Protocol" of `iTerm2`.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a terminal is told of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// PNG, in pieces.
    Kitty,
    /// A file of any format, in one piece.
    Iterm,
}

/// What tells which terminal it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    /// `TERM`.
    pub term: String,
    /// `TERM_PROGRAM`.
    pub term_program: String,
    /// `LC_TERMINAL`, which `iTerm2` has SSH pass on.
    pub lc_terminal: String,
    /// `KONSOLE_VERSION`, as 220401 for 22.04.1.
    pub konsole_version: String,
    /// Whether `KITTY_WINDOW_ID` is set.
    pub is_kitty: bool,
    /// Whether tmux or screen is in between.
    pub is_multiplexed: bool,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "the one place where the terminal is looked at")]
    pub(super) fn read() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        let term = text("TERM");
        Self {
            is_multiplexed: !text("TMUX").is_empty()
                || !text("STY").is_empty()
                || term.starts_with("tmux")
                || term.starts_with("screen"),
            term,
            term_program: text("TERM_PROGRAM"),
            lc_terminal: text("LC_TERMINAL"),
            konsole_version: text("KONSOLE_VERSION"),
            is_kitty: !text("KITTY_WINDOW_ID").is_empty(),
        }
    }
}

/// The first version of Konsole with pictures.
const KONSOLE_WITH_PICTURES: u32 = 220_400;

/// How the terminal can show pictures; `None`: not that we know.
pub(super) fn detect(environment: &Environment) -> Option<Protocol> {
    let Environment { term, term_program, lc_terminal, konsole_version, is_kitty, is_multiplexed } = environment;
    if *is_multiplexed {
        return None;
    }
    let is_konsole = konsole_version.parse().is_ok_and(|version: u32| version >= KONSOLE_WITH_PICTURES);
    if *is_kitty || is_konsole || term == "xterm-kitty" || term == "xterm-ghostty" || term_program == "ghostty" {
        return Some(Protocol::Kitty);
    }
    let is_iterm = ["iTerm.app", "WezTerm", "mintty"].contains(&term_program.as_str()) || lc_terminal == "iTerm2";
    is_iterm.then_some(Protocol::Iterm)
}

/// How much of a picture one of kitty's messages may hold.
const CHUNK: usize = 4096;

/// What makes the terminal show the picture, and a line end.
pub(super) fn codes(protocol: Protocol, picture: &[u8]) -> String {
    let data = STANDARD.encode(picture);
    match protocol {
        Protocol::Iterm => {
            format!("\u{1b}]1337;File=inline=1;size={};preserveAspectRatio=1:{data}\u{7}\n", picture.len())
        }
        Protocol::Kitty => {
            let chunks: Vec<_> = data.as_bytes().chunks(CHUNK).collect();
            let mut codes = String::with_capacity(data.len() + chunks.len() * 16);
            for (at, chunk) in chunks.iter().enumerate() {
                let head = if at == 0 { "a=T,f=100,q=2," } else { "" };
                let more = u8::from(at + 1 < chunks.len());
                let chunk = std::str::from_utf8(chunk).unwrap_or_default();
                let _ = write!(codes, "\u{1b}_G{head}m={more};{chunk}\u{1b}\\");
            }
            codes + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_what_they_set() {
        let nothing = Environment { term: "xterm-256color".into(), ..Environment::default() };
        let program = |name: &str| Environment { term_program: name.into(), ..nothing.clone() };
        let konsole = |version: &str| Environment { konsole_version: version.into(), ..nothing.clone() };
        let kitty = Environment { is_kitty: true, ..nothing.clone() };
        for (environment, protocol) in [
            (nothing.clone(), None),
            (kitty.clone(), Some(Protocol::Kitty)),
            (Environment { term: "xterm-ghostty".into(), ..nothing.clone() }, Some(Protocol::Kitty)),
            (konsole("220401"), Some(Protocol::Kitty)),
            (konsole("211203"), None),
            (program("iTerm.app"), Some(Protocol::Iterm)),
            (program("WezTerm"), Some(Protocol::Iterm)),
            (Environment { lc_terminal: "iTerm2".into(), ..nothing.clone() }, Some(Protocol::Iterm)),
            (program("vscode"), None),
            (program("Apple_Terminal"), None),
            (Environment { is_multiplexed: true, ..kitty }, None),
        ] {
            assert_eq!(detect(&environment), protocol, "{environment:?}");
        }
    }

    #[test]
    fn a_picture_comes_whole_out_of_its_pieces() {
        let picture: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let codes = codes(Protocol::Kitty, &picture);
        let pieces: Vec<_> = codes.trim_end().split("\u{1b}\\").filter(|piece| !piece.is_empty()).collect();
        assert_eq!(pieces.len(), 4);
        assert!(
            pieces[0].starts_with("\u{1b}_Ga=T,f=100,q=2,m=1;") && pieces[3].starts_with("\u{1b}_Gm=0;"),
            "{codes}"
        );
        let data: String = pieces.iter().filter_map(|piece| piece.split_once(';')).map(|(_, data)| data).collect();
        assert!(pieces.iter().all(|piece| piece.split_once(';').unwrap().1.len() <= CHUNK));
        assert_eq!(STANDARD.decode(data).unwrap(), picture);

        let codes = super::codes(Protocol::Iterm, b"abc");
        assert_eq!(codes, "\u{1b}]1337;File=inline=1;size=3;preserveAspectRatio=1:YWJj\u{7}\n");
    }
}
