//! What the command line wants next: pure, by the description that clap parses with.

use clap::Arg;
use clap::ArgAction;
use clap::Command;

use super::Candidate;

/// What could come next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    /// One of these.
    Words(Vec<Candidate>),
    /// Names of objects; what stands before the name in the word.
    Names(Kind, String),
    /// A file or folder.
    Files,
}

/// Objects with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Session,
    Server,
    Client,
    Namespace,
    Context,
}

/// What could come in place of the last of `words`.
pub(super) fn wanted(command: &Command, words: &[String]) -> Wanted {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let at = walk(command, before);
    if let Some(flag) = at.open {
        return values(flag, last, "");
    }
    if !at.is_verbatim && last.starts_with('-') {
        if let Some((name, value)) = last.split_once('=') {
            let flag = flags(&at.path).find(|flag| is_called(flag, name));
            return flag.map_or_else(nothing, |flag| values(flag, value, &format!("{name}=")));
        }
        return flag_names(&at.path, last);
    }
    let command = at.command();
    if at.positionals == 0 && command.has_subcommands() {
        return subcommands(command, last);
    }
    let positionals: Vec<_> = command.get_positionals().collect();
    match positionals.get(at.positionals).or_else(|| positionals.last().filter(|last| takes_many(last))) {
        Some(argument) => values(argument, last, ""),
        None => nothing(),
    }
}

/// Where the words so far lead.
struct Place<'c> {
    /// The commands, each inside the one before.
    path: Vec<&'c Command>,
    /// How many positional arguments there are.
    positionals: usize,
    /// A flag that waits for its value.
    open: Option<&'c Arg>,
    /// Whether no more flags can come.
    is_verbatim: bool,
}

impl<'c> Place<'c> {
    fn command(&self) -> &'c Command {
        self.path.last().expect("there is the command itself")
    }
}

fn walk<'c>(command: &'c Command, words: &[String]) -> Place<'c> {
    let mut place = Place { path: vec![command], positionals: 0, open: None, is_verbatim: false };
    for word in words {
        if place.open.take().is_some() {
            continue;
        }
        if !place.is_verbatim && word == "--" {
            place.is_verbatim = true;
        } else if !place.is_verbatim && word.starts_with('-') && word.len() > 1 {
            place.open = opened(&place.path, word);
        } else if let Some(next) = place.command().find_subcommand(word).filter(|_| place.positionals == 0) {
            place.path.push(next);
        } else {
            place.positionals += 1;
        }
    }
    place
}

/// The flag of a word, when its value is the next word.
fn opened<'c>(path: &[&'c Command], word: &str) -> Option<&'c Arg> {
    if word.contains('=') {
        return None;
    }
    let needs_value = |flag: &&Arg| takes_value(flag) && !flag.is_require_equals_set();
    if word.starts_with("--") {
        return flags(path).find(|flag| is_called(flag, word)).filter(needs_value);
    }
    // Several in one: the value of one that takes one is the rest, or when there is no rest the next word.
    let letters: Vec<char> = word.chars().skip(1).collect();
    for (at, letter) in letters.iter().enumerate() {
        let flag = flags(path).find(|flag| flag.get_short() == Some(*letter))?;
        if takes_value(flag) {
            return (at + 1 == letters.len()).then_some(flag).filter(needs_value);
        }
    }
    None
}

/// The flags of the command, and those of its parents that go on in it.
fn flags<'c>(path: &[&'c Command]) -> impl Iterator<Item = &'c Arg> {
    let inner = path.len() - 1;
    let all =
        path.iter().enumerate().rev().flat_map(move |(at, command)| {
            command.get_arguments().filter(move |flag| at == inner || flag.is_global_set())
        });
    all.filter(|flag| !flag.is_positional() && !flag.is_hide_set()).collect::<Vec<_>>().into_iter()
}

fn is_called(flag: &Arg, name: &str) -> bool {
    let long = name.strip_prefix("--");
    let short = name.strip_prefix('-').filter(|rest| rest.chars().count() == 1).and_then(|rest| rest.chars().next());
    long.is_some_and(|long| flag.get_long_and_visible_aliases().is_some_and(|names| names.contains(&long)))
        || (short.is_some() && flag.get_short() == short)
}

fn takes_value(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
}

fn takes_many(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Append)
        || argument.get_num_args().is_some_and(|count| count.max_values() > 1)
}

fn nothing() -> Wanted {
    Wanted::Words(Vec::new())
}

fn flag_names(path: &[&Command], start: &str) -> Wanted {
    let mut found = Vec::new();
    for flag in flags(path) {
        for name in flag.get_long_and_visible_aliases().unwrap_or_default() {
            let word = format!("--{name}");
            let word = if flag.is_require_equals_set() && flag.get_num_args().is_some_and(|it| it.min_values() > 0) {
                word + "="
            } else {
                word
            };
            if word.starts_with(start) && !found.iter().any(|it: &Candidate| it.word == word) {
                found.push(Candidate::new(word, first_line(flag.get_help())));
            }
        }
    }
    Wanted::Words(found)
}

fn subcommands(command: &Command, start: &str) -> Wanted {
    let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
    let found = visible.filter(|it| it.get_name().starts_with(start));
    Wanted::Words(found.map(|it| Candidate::new(it.get_name(), first_line(it.get_about()))).collect())
}

/// The values an argument can have. `before` stands before the value in the word.
fn values(argument: &Arg, start: &str, before: &str) -> Wanted {
    // What is before the last comma of a list is there already.
    let (before, start) = match (argument.get_value_delimiter(), start.rsplit_once(',')) {
        (Some(','), Some((done, rest))) => (format!("{before}{done},"), rest),
        _ => (before.to_owned(), start),
    };
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        let found = possible.iter().filter(|value| !value.is_hide_set() && value.get_name().starts_with(start));
        let found =
            found.map(|value| Candidate::new(format!("{before}{}", value.get_name()), first_line(value.get_help())));
        return Wanted::Words(found.collect());
    }
    let name = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match (argument.get_long(), name) {
        (Some("namespace" | "operator-namespace"), _) => Wanted::Names(Kind::Namespace, before),
        (Some("context"), _) => Wanted::Names(Kind::Context, before),
        (_, "SESSION") => Wanted::Names(Kind::Session, before),
        (_, "SERVER") => Wanted::Names(Kind::Server, before),
        (_, "CLIENT") => Wanted::Names(Kind::Client, before),
        (_, "FILE" | "DIR" | "PROGRAM") => Wanted::Files,
        _ => nothing(),
    }
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::plugin::args::Args;

    fn next(words: &[&str]) -> Wanted {
        let mut command = Args::command();
        command.build();
        wanted(&command, &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    fn words(of: &[&str]) -> Vec<String> {
        match next(of) {
            Wanted::Words(found) => found.into_iter().map(|it| it.word).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_completed_and_those_inside_them() {
        assert_eq!(words(&["sess"]), ["sessions"]);
        let all = words(&[""]);
        assert!(
            all.len() > 20 && all.contains(&"enroll".to_owned()) && all.contains(&"create-session".to_owned()),
            "{all:?}"
        );
        assert_eq!(words(&["clients", "r"]), ["register", "rotate", "resume"]);
        assert_eq!(words(&["-n", "team", "clients", "-A", "u"]), ["unregister"]);
        assert_eq!(words(&["sessions", "desk", ""]), [""; 0]);
    }

    #[test]
    fn flags_are_completed_with_those_that_hold_everywhere() {
        assert_eq!(words(&["drain", "--gr"]), ["--grace-period"]);
        assert_eq!(words(&["sessions", "--name"]), ["--namespace"]);
        assert_eq!(words(&["drain", "x", "--tim"]), ["--timeout"]);
        assert_eq!(next(&["drain", "--", "--tim"]), Wanted::Names(Kind::Server, String::new()));
    }

    #[test]
    fn values_are_completed_after_a_blank_or_an_equals_sign_and_in_lists() {
        assert_eq!(words(&["sessions", "-o", ""]), ["json", "yaml", "name", "wide"]);
        assert_eq!(words(&["sessions", "--output=y"]), ["--output=yaml"]);
        assert_eq!(words(&["sessions", "--state", "READY,UN"]), ["READY,UNKNOWN"]);
        assert_eq!(words(&["sessions", "-Ao", "w"]), ["wide"]);
        assert_eq!(words(&["completion", ""]), ["bash", "zsh", "fish"]);
    }

    #[test]
    fn names_are_asked_for_where_names_stand() {
        let names = |kind| Wanted::Names(kind, String::new());
        for (of, wanted) in [
            (&["sessions", ""][..], names(Kind::Session)),
            (&["connect", "de"], names(Kind::Session)),
            (&["permissions", "-n", "a", ""], names(Kind::Session)),
            (&["close", "a", ""], names(Kind::Server)),
            (&["end", "gpu"], names(Kind::Server)),
            (&["clients", "rotate", ""], names(Kind::Client)),
            (&["sessions", "-n", ""], names(Kind::Namespace)),
            (&["sessions", "--namespace=a"], Wanted::Names(Kind::Namespace, "--namespace=".into())),
            (&["--context", ""], names(Kind::Context)),
            (&["create", "-f", ""], Wanted::Files),
            (&["enroll", "a", "--out", ""], Wanted::Files),
            (&["describe-sessions", "--owner", ""], Wanted::Words(vec![])),
        ] {
            assert_eq!(next(of), wanted, "{of:?}");
        }
    }
}
