//! The documented commands and options. Everything else is refused.

use std::collections::BTreeMap;

/// Each command: options with a value, options without one, and whether it takes a session id.
const COMMANDS: [(&str, &[&str], &[&str], bool); 8] = [
    (
        "create-session",
        &["type", "name", "user", "owner", "permissions-file", "storage-root", "gl", "max-concurrent-clients", "init"],
        &["disable-login-monitor"],
        true,
    ),
    ("close-session", &[], &["logout-user"], true),
    ("list-sessions", &[], &["json"], false),
    ("describe-session", &[], &["json"], true),
    ("list-connections", &[], &["json"], true),
    ("get-screenshot", &["max-width", "max-height", "format"], &["primary", "json"], true),
    ("set-permissions", &["session", "file"], &["none", "reset-builtin"], false),
    ("version", &[], &["json"], false),
];

/// A command that is as documented.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub name: String,
    /// Options; those without a value have an empty one.
    pub options: BTreeMap<String, String>,
    /// The session id; empty where none is taken.
    pub id: String,
}

impl Command {
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }
}

/// Reads the words after `dcv`.
pub fn parse(words: &[String]) -> Result<Command, String> {
    let mut words = words.iter();
    let name = words.next().ok_or("No command given")?;
    let known = COMMANDS.iter().find(|(command, ..)| command == name);
    let (_, valued, flags, takes_id) = known.ok_or_else(|| format!("Unknown command {name}"))?;
    let mut command = Command { name: name.clone(), options: BTreeMap::new(), id: String::new() };
    while let Some(word) = words.next() {
        let word = if word == "-j" { "--json" } else { word };
        let Some(option) = word.strip_prefix("--") else {
            if word.starts_with('-') || !takes_id || !command.id.is_empty() {
                return Err(format!("Unexpected argument {word}"));
            }
            word.clone_into(&mut command.id);
            continue;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) if valued.contains(&option) => (option, value.to_owned()),
            None if valued.contains(&option) => {
                (option, words.next().ok_or_else(|| format!("Missing argument for --{option}"))?.clone())
            }
            None if flags.contains(&option) => (option, String::new()),
            _ => return Err(format!("Unknown option --{option}")),
        };
        if command.options.insert(option.to_owned(), value).is_some() {
            return Err(format!("--{option} is given twice"));
        }
    }
    if *takes_id && command.id.is_empty() {
        return Err("Missing session id".to_owned());
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn documented_lines_are_understood_wherever_the_id_stands() {
        let forms = ["create-session --type=virtual --owner ann a", "create-session a --owner=ann --type virtual"];
        let [one, two] = forms.map(|form| read(form).unwrap());
        assert_eq!(one, two);
        assert_eq!((one.id.as_str(), one.option("owner"), one.option("type")), ("a", Some("ann"), Some("virtual")));
        assert!(read("list-sessions -j").unwrap().has("json"));
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        for line in [
            "create-session --colour=red a",
            "create-session --json a",
            "create-session a b",
            "create-session",
            "create-session --name",
            "create-session --owner=a --owner=b x",
            "close-session -f a",
            "close-connection a",
            "list-sessions a",
            "list-sessions --json=yes",
            "",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
