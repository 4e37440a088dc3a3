//! The agent's configuration file, with the keys that Session Manager documents for its agent.
//!
//! What it sets is put behind the command line as flags, so that it is checked as those are; a flag that was given, or an
//! environment variable, goes before it. A key that nobody knows is a warning: the file may be of a later version. A value of
//! the wrong type is an error, as leaving it out could take a limit away.
//!
//! Source: "Agent configuration file" in the Amazon DCV Session Manager Administrator Guide.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use clap::ArgMatches;
use clap::Command;
use clap::error::ContextKind;
use clap::error::ContextValue;
use clap::parser::ValueSource;
use toml::de::DeTable;
use toml::de::DeValue;

/// Where the file is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/dcv-session-manager-agent/agent.conf";
/// Commands that read the file.
const ROLES: [&str; 2] = ["agent", "check"];
/// The one whose broken file is something to tell, not a reason to end.
const CHECK: &str = "check";

/// One documented key.
struct Setting {
    section: &'static str,
    key: &'static str,
    kind: Kind,
    /// Flag that it stands for; absent: it has no effect here.
    flag: Option<&'static str>,
}

/// What a value must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Switch,
    Level,
}

const fn setting(section: &'static str, key: &'static str, kind: Kind, flag: Option<&'static str>) -> Setting {
    Setting { section, key, kind, flag }
}

/// Every documented key. `broker_host` and its like tell how a broker is reached: here the API server is, by a kubeconfig.
const SETTINGS: [Setting; 19] = [
    setting("", "version", Kind::Text, None),
    setting("agent", "broker_host", Kind::Text, None),
    setting("agent", "broker_port", Kind::Integer, None),
    setting("agent", "ca_file", Kind::Text, None),
    setting("agent", "tls_strict", Kind::Switch, None),
    setting("agent", "software_statement_path", Kind::Text, None),
    setting("agent", "init_folder", Kind::Text, Some("init-folder")),
    setting("agent", "autorun_folder", Kind::Text, Some("autorun-folder")),
    setting("agent", "tags_folder", Kind::Text, Some("tags-folder")),
    setting("agent", "max_virtual_sessions", Kind::Integer, Some("max-virtual-sessions")),
    setting("agent", "max_concurrent_sessions_per_user", Kind::Integer, Some("max-concurrent-sessions-per-user")),
    setting("agent", "broker_update_interval", Kind::Integer, Some("broker-update-interval")),
    setting("agent", "enable_query_logged_in_users", Kind::Switch, Some("enable-query-logged-in-users")),
    setting("agent", "preferred_network_interface", Kind::Text, Some("preferred-network-interface")),
    setting("log", "level", Kind::Level, Some("log-level")),
    setting("log", "directory", Kind::Text, Some("log-directory")),
    setting("log", "rotation", Kind::Text, Some("log-rotation")),
    setting("log", "max-file-size", Kind::Integer, Some("log-max-file-size")),
    setting("log", "rotate", Kind::Integer, Some("log-rotate")),
];

/// What is to be said of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// What is wrong with it, for the command that goes on all the same.
    pub faults: Vec<String>,
    /// Keys that nobody knows.
    pub warnings: Vec<String>,
    /// Keys that have no effect here.
    pub notes: Vec<String>,
}

impl Notices {
    /// Says it in the log.
    pub fn log(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for note in &self.notes {
            tracing::info!("{note}");
        }
    }
}

/// Why the command line cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The command line itself.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file, with the place of each fault.
    #[error("{0}")]
    File(String),
}

/// What a file sets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Conf {
    entries: Vec<Entry>,
    notices: Notices,
}

/// One setting, as a flag, and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    flag: &'static str,
    value: String,
    place: String,
}

/// Reads the command line `words`, and for the commands that have one their configuration file.
///
/// # Errors
/// When one of them is wrong.
pub fn matches(command: &Command, words: Vec<OsString>) -> Result<(ArgMatches, Notices), Fault> {
    let matches = command.clone().try_get_matches_from(&words)?;
    let Some((role, given)) = matches.subcommand().filter(|(role, _)| ROLES.contains(role)) else {
        return Ok((matches, Notices::default()));
    };
    let told = read(given).and_then(|conf| with_file(command, role, given, words, conf));
    match told {
        Ok(Some(told)) => Ok(told),
        Ok(None) => Ok((matches, Notices::default())),
        Err(Fault::File(fault)) if role == CHECK => {
            let faults = fault.lines().map(str::to_owned).collect();
            Ok((matches, Notices { faults, ..Notices::default() }))
        }
        Err(fault) => Err(fault),
    }
}

/// The file that is to be read, if there is one.
fn read(given: &ArgMatches) -> Result<Option<Conf>, Fault> {
    let named = given.get_raw("config_file").and_then(|mut values| values.next());
    let is_made_up = given.get_raw("backend").and_then(|mut values| values.next()) == Some(OsStr::new("fake"));
    let path = match named {
        Some(path) => Path::new(path),
        // A made-up host has nothing to do with the files of this one.
        None if is_made_up => return Ok(None),
        None => Path::new(DEFAULT_FILE),
    };
    match fs::read_to_string(path) {
        Ok(text) => parse(&path.display().to_string(), &text).map(Some),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::File(format!("{}: {error}", path.display()))),
    }
}

/// The command line with what the file sets behind it.
fn with_file(
    command: &Command,
    role: &str,
    given: &ArgMatches,
    mut words: Vec<OsString>,
    conf: Option<Conf>,
) -> Result<Option<(ArgMatches, Notices)>, Fault> {
    let Some(Conf { entries, notices }) = conf else { return Ok(None) };
    let arguments: Vec<_> = command.find_subcommand(role).into_iter().flat_map(Command::get_arguments).collect();
    let is_open = |entry: &Entry| {
        let argument = arguments.iter().find(|argument| argument.get_long() == Some(entry.flag));
        let source = argument.and_then(|argument| given.value_source(argument.get_id().as_str()));
        argument.is_some() && matches!(source, None | Some(ValueSource::DefaultValue))
    };
    let entries: Vec<_> = entries.into_iter().filter(is_open).collect();
    words.extend(entries.iter().map(|entry| format!("--{}={}", entry.flag, entry.value).into()));
    let matches = command.clone().try_get_matches_from(words).map_err(|error| blame(error, &entries))?;
    Ok(Some((matches, notices)))
}

/// Names the place in the file where a refused value comes from. The command line was already taken without it.
fn blame(error: clap::Error, entries: &[Entry]) -> Fault {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = text(ContextKind::InvalidArg);
    let entry = entries.iter().find(|entry| argument.trim_start_matches("--").split(' ').next() == Some(entry.flag));
    let Some(entry) = entry else { return error.into() };
    let reason = std::error::Error::source(&error).map(|source| format!(": {source}"));
    let allowed = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => Some(format!(": must be one of {}", values.join(", "))),
        _ => None,
    };
    let why = reason.or(allowed).unwrap_or_default();
    Fault::File(format!("{} has the value {}{why}", entry.place, entry.value))
}

/// Reads the text of a file that is called `name`. All faults are told together, one a line.
fn parse(name: &str, text: &str) -> Result<Conf, Fault> {
    let line = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let line = line(error.span().map_or(0, |span| span.start));
        Fault::File(format!("{name}:{line}: {}", error.message()))
    })?;
    let mut conf = Conf::default();
    let mut faults = Vec::new();
    for (key, value) in table.get_ref() {
        let section: &str = key.get_ref();
        match value.get_ref() {
            DeValue::Table(entries) if SETTINGS.iter().any(|setting| setting.section == section) => {
                for (key, value) in entries {
                    let place = format!("{name}:{}: [{section}] {}", line(key.span().start), key.get_ref());
                    conf.take(section, key.get_ref(), value.get_ref(), place, &mut faults);
                }
            }
            DeValue::Table(_) => {
                let line = line(key.span().start);
                conf.notices.warnings.push(format!("{name}:{line}: [{section}] is no section of this file"));
            }
            value => {
                let place = format!("{name}:{}: {section}", line(key.span().start));
                conf.take("", section, value, place, &mut faults);
            }
        }
    }
    if faults.is_empty() { Ok(conf) } else { Err(Fault::File(faults.join("\n"))) }
}

impl Conf {
    fn take(&mut self, section: &str, key: &str, value: &DeValue<'_>, place: String, faults: &mut Vec<String>) {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.section == section && setting.key == key) else {
            let hint = hint(key).map(|hint| format!("; {hint} is one")).unwrap_or_default();
            self.notices.warnings.push(format!("{place} is no setting{hint}"));
            return;
        };
        match (value_of(setting.kind, value), setting.flag) {
            (Err(expected), _) => {
                let is_word = setting.kind == Kind::Level && value.is_str();
                let found = value.as_str().filter(|_| is_word).unwrap_or(value.type_str());
                faults.push(format!("{place} must be {expected}, not {found}"));
            }
            (Ok(value), Some(flag)) => self.entries.push(Entry { flag, value, place }),
            // It has no effect in any case: nobody has to hear of it.
            (Ok(_), None) if section.is_empty() => {}
            (Ok(_), None) => self.notices.notes.push(format!("{place} has no effect here")),
        }
    }
}

/// The setting that was meant: sections and the marks between words are easily taken for one another.
fn hint(key: &str) -> Option<String> {
    let plain = |key: &str| key.replace('_', "-").to_ascii_lowercase();
    let meant = SETTINGS.iter().find(|setting| plain(setting.key) == plain(key))?;
    Some(format!("[{}] {}", meant.section, meant.key))
}

/// The value as a flag has it, or what it must be.
fn value_of(kind: Kind, value: &DeValue<'_>) -> Result<String, &'static str> {
    match (kind, value) {
        (Kind::Text, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::Level, DeValue::String(text)) => match text.as_ref() {
            "warning" => Ok("warn".into()),
            "error" | "info" | "debug" => Ok(text.to_string()),
            _ => Err("error, warning, info or debug"),
        },
        (Kind::Integer, DeValue::Integer(number)) => {
            let digits = number.as_str().replace('_', "");
            let number = i64::from_str_radix(&digits, number.radix());
            number.map(|number| number.to_string()).map_err(|_| "a smaller integer")
        }
        (Kind::Switch, DeValue::Boolean(value)) => Ok(value.to_string()),
        (Kind::Text, _) => Err("a string"),
        (Kind::Level, _) => Err("error, warning, info or debug"),
        (Kind::Integer, _) => Err("an integer"),
        (Kind::Switch, _) => Err("true or false"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.conf");
        fs::write(&path, text).unwrap();
        (folder, path.to_str().unwrap().to_owned())
    }

    fn told(text: &str, flags: &[&str]) -> Result<(ArgMatches, Notices), String> {
        let (_folder, path) = file(text);
        let words = ["dcv-operator", "agent", "--backend", "vnc", "--server-name", "host-1", "--config-file", &path];
        let words = words.iter().chain(flags).map(OsString::from).collect();
        matches(&Cli::command(), words).map_err(|fault| fault.to_string().replace(&path, "agent.conf"))
    }

    #[test]
    fn every_setting_that_has_an_effect_is_a_flag_of_the_agent() {
        let command = Cli::command();
        let agent = command.find_subcommand("agent").unwrap();
        for flag in SETTINGS.iter().filter_map(|setting| setting.flag) {
            let argument = agent.get_arguments().find(|argument| argument.get_long() == Some(flag));
            let variable = argument.unwrap_or_else(|| panic!("no flag --{flag}")).get_env().unwrap().to_str().unwrap();
            assert_eq!(variable, format!("DCV_{}", flag.to_ascii_uppercase().replace('-', "_")));
        }
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let text = "version = '0.1'\n[agent]\nmax_virtual_sessions = 7\nmax_concurrent_sessions_per_user = 3\n\
                    enable_query_logged_in_users = false\n[log]\nlevel = \"warning\"\nrotate = 3\n";
        let (matches, notices) = told(text, &["--max-virtual-sessions=5"]).unwrap();
        let agent = matches.subcommand_matches("agent").unwrap();
        assert_eq!(agent.get_one::<i32>("max_virtual_sessions"), Some(&5));
        assert_eq!(agent.get_one::<i32>("max_concurrent_sessions_per_user"), Some(&3));
        assert_eq!(agent.get_one::<bool>("enable_query_logged_in_users"), Some(&false));
        assert_eq!(agent.get_one::<String>("log_level").unwrap(), "warn");
        assert_eq!(agent.get_one::<u64>("broker_update_interval"), Some(&30), "the default");
        assert_eq!(notices, Notices::default());
    }

    #[test]
    fn what_is_not_known_is_a_warning_and_what_has_no_effect_a_note() {
        let text =
            "[agent]\nbroker_host = \"b\"\nmax-virtual-sessions = 7\ncolour = 1\n[logs]\nx = 1\n[log]\nRotate = 1\n";
        let (_folder, path) = file(text);
        let notices = parse(&path, text).unwrap().notices;
        let of = |texts: &[&str]| texts.iter().map(|text| format!("{path}:{text}")).collect::<Vec<_>>();
        assert_eq!(notices.notes, of(&["2: [agent] broker_host has no effect here"]));
        let mut warnings = notices.warnings;
        warnings.sort();
        assert_eq!(
            warnings,
            of(&[
                "3: [agent] max-virtual-sessions is no setting; [agent] max_virtual_sessions is one",
                "4: [agent] colour is no setting",
                "5: [logs] is no section of this file",
                "8: [log] Rotate is no setting; [log] rotate is one",
            ])
        );
    }

    #[test]
    fn wrong_values_are_told_with_file_line_and_key() {
        for (text, expected) in [
            (
                "[agent]\nmax_virtual_sessions = \"7\"\n",
                "agent.conf:2: [agent] max_virtual_sessions must be an integer, not string",
            ),
            ("[agent]\n\ninit_folder = 1\n", "agent.conf:3: [agent] init_folder must be a string, not integer"),
            (
                "[agent]\nenable_query_logged_in_users = 1\n[log]\nlevel = 'loud'\n",
                "agent.conf:2: [agent] enable_query_logged_in_users must be true or false, not integer\n\
                 agent.conf:4: [log] level must be error, warning, info or debug, not loud",
            ),
            (
                "[agent]\nmax_virtual_sessions = -2\n",
                "agent.conf:2: [agent] max_virtual_sessions has the value -2: -2 is not in -1..=100000",
            ),
            (
                "[log]\nrotation = 'weekly'\n",
                "agent.conf:2: [log] rotation has the value weekly: must be one of daily, hourly",
            ),
        ] {
            assert_eq!(told(text, &[]).unwrap_err(), expected);
        }
        let broken = told("[agent]\nmax_virtual_sessions = \n", &[]).unwrap_err();
        assert!(broken.starts_with("agent.conf:2: "), "{broken}");
        assert!(told("[agent]\nmax_virtual_sessions = 7\n", &["--no-such-flag"]).is_err());
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_a_made_up_host_reads_none() {
        let words = |backend: &str, more: &[&str]| {
            let words = ["dcv-operator", "agent", "--server-name", "host-1", "--fake-host", "s", "--backend", backend];
            words.iter().chain(more).map(OsString::from).collect::<Vec<_>>()
        };
        let named = matches(&Cli::command(), words("vnc", &["--config-file", "/nowhere/agent.conf"]));
        assert!(named.unwrap_err().to_string().starts_with("/nowhere/agent.conf: "));
        assert!(matches(&Cli::command(), words("fake", &[])).is_ok());
    }

    #[test]
    fn a_check_tells_of_a_broken_file_and_goes_on() {
        let (_folder, path) = file("[agent]\ninit_folder = 1\n");
        let words = ["dcv-operator", "check", "--config-file", &path].map(OsString::from).to_vec();
        let (_, notices) = matches(&Cli::command(), words).unwrap();
        assert_eq!(notices.faults, [format!("{path}:2: [agent] init_folder must be a string, not integer")]);
    }
}
