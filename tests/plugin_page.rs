//! `docs/kubectl-dcv.md` tells of every command, and names only what there is; and each command's help has what a reader needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Command;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubectl-dcv.md")).unwrap()
}

fn plugin() -> Command {
    let mut command = dcv_operator::plugin::command();
    command.build();
    command
}

/// The words in backticks of a text.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every command that does something, by its words, such as `clients rotate`.
fn commands(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        let path = format!("{path} {}", inner.get_name());
        if inner.has_subcommands() {
            commands(inner, &path, found);
        } else {
            found.push((path.trim().to_owned(), inner.clone()));
        }
    }
}

fn all() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    commands(&plugin(), "", &mut found);
    found
}

/// Commands of Session Manager's own client.
fn is_documented_elsewhere(path: &str) -> bool {
    path.ends_with("-session") && path != "close-session"
        || ["-sessions", "-servers", "-screenshots", "-data"].iter().any(|end| path.ends_with(end))
        || path == "update-session-permissions"
}

#[test]
fn every_command_is_told_of_and_every_one_that_is_told_of_is_there() {
    let page = page();
    let told: BTreeSet<_> = code(&page).filter_map(|text| text.strip_prefix("kubectl dcv ")).collect();
    let all = all();
    assert!(all.len() > 25, "{}", all.len());
    let is_of = |words: &str, path: &str| words == path || words.starts_with(&format!("{path} "));
    let untold: Vec<_> = all.iter().filter(|(path, _)| !told.iter().any(|words| is_of(words, path))).collect();
    assert!(untold.is_empty(), "{:?}", untold.iter().map(|(path, _)| path).collect::<Vec<_>>());
    let absent: Vec<_> = told.iter().filter(|words| !all.iter().any(|(path, _)| is_of(words, path))).collect();
    assert!(absent.is_empty(), "{absent:?}");
    assert_eq!(all.iter().filter(|(path, _)| is_documented_elsewhere(path)).count(), 9);
}

#[test]
fn flags_are_named_where_they_are() {
    let page = page();
    let plugin = plugin();
    let is_flag = |command: &Command, flag: &str| {
        command.get_arguments().any(|argument| match flag.strip_prefix("--") {
            Some(long) => argument.get_long() == Some(long),
            None => argument.get_short() == flag.chars().nth(1),
        })
    };
    let all = all();
    let mut count = 0;
    for line in page.lines() {
        // In a row of a command, its flags; elsewhere those of any.
        let words = line.strip_prefix("| `kubectl dcv ").unwrap_or_default();
        let of = all.iter().filter(|(path, _)| {
            words == *path || words.starts_with(&format!("{path} ")) || words.starts_with(&format!("{path}`"))
        });
        let of = of.max_by_key(|(path, _)| path.len());
        for flag in code(line).flat_map(str::split_whitespace).filter(|word| word.starts_with('-')) {
            let flag = flag.split('=').next().unwrap();
            count += 1;
            let is_there = match of {
                Some((_, command)) => is_flag(command, flag),
                None => is_flag(&plugin, flag) || all.iter().any(|(_, command)| is_flag(command, flag)),
            };
            assert!(is_there, "{flag} in: {line}");
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn aliases_are_told_of() {
    let page = page();
    for (path, command) in all() {
        for alias in command.get_visible_aliases() {
            let is_plural = path.strip_suffix('s') == Some(alias) || alias == "ls";
            assert!(is_plural || code(&page).any(|text| text == alias), "{alias}");
        }
    }
}

#[test]
fn every_help_has_examples_and_exit_codes_that_the_page_explains() {
    let page = page();
    let (_, codes) = page.split_once("| Exit code |").unwrap();
    let codes = codes.split("\n\n").next().unwrap();
    for (path, command) in all() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        if path == "completion" {
            continue;
        }
        let (_, said) = help.split_once("Exit code: ").unwrap_or_else(|| panic!("{path} has no exit code"));
        let said = said.split("\n\n").next().unwrap();
        let numbers = said.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        for number in numbers {
            assert!(codes.contains(number), "{path}: {number}");
        }
        if !is_documented_elsewhere(&path) && path != "keys renew" {
            assert!(help.contains("Example") && help.contains(&format!("kubectl dcv {path}")), "{path}: {help}");
        }
        assert!(command.get_about().is_some(), "{path}");
    }
}

/// Each example of a help is a command line that is understood.
#[test]
fn every_example_is_understood() {
    let mut count = 0;
    for (path, command) in all() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.trim().strip_prefix("kubectl dcv ")) {
            // Up to what the shell does with it.
            let line = line.split(" > ").next().unwrap().split(" | ").next().unwrap().split(" && ").next().unwrap();
            let words = words(line);
            let parsed = plugin().try_get_matches_from(std::iter::once("kubectl-dcv".to_owned()).chain(words));
            count += 1;
            assert!(parsed.is_ok(), "{path}: {line}: {}", parsed.unwrap_err());
        }
    }
    assert!(count > 40, "{count}");
}

/// The words of a line, as a shell reads them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => words.push(std::mem::take(&mut word)),
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
