//! The words of the `dcv` command for what is asked of it. Pure.
//!
//! Texts of people are given as `--option=text`, so that none can be taken for an option.
//!
//! Source: "Managing Amazon DCV sessions" in the Amazon DCV Administrator Guide.

use crate::agent::backend::ImageFormat;
use crate::api::session::SessionType;

/// Longest name of a session; the command fails with a longer one.
const NAME_CHARS_MAX: usize = 256;

/// A session to create. Paths are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewSession<'a> {
    pub id: &'a str,
    pub type_: SessionType,
    pub name: &'a str,
    pub owner: &'a str,
    /// Account a virtual session runs as; absent: the agent's own.
    pub user: Option<&'a str>,
    pub permissions_file: Option<&'a str>,
    pub storage_root: Option<&'a str>,
    pub gl: Option<bool>,
    pub max_concurrent_clients: Option<i32>,
    pub init: Option<&'a str>,
    pub disables_login_monitor: bool,
}

/// `create-session`.
pub(super) fn create(session: &NewSession<'_>) -> Vec<String> {
    let mut words = vec!["create-session".to_owned()];
    let mut option = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    let is_virtual = session.type_ == SessionType::Virtual;
    option("type", if is_virtual { "virtual" } else { "console" });
    let name: String = session.name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    if !name.is_empty() {
        option("name", &name);
    }
    option("owner", session.owner);
    if let Some(file) = session.permissions_file {
        option("permissions-file", file);
    }
    if let Some(folder) = session.storage_root {
        option("storage-root", folder);
    }
    if let Some(number) = session.max_concurrent_clients {
        option("max-concurrent-clients", &number.to_string());
    }
    if is_virtual {
        if let Some(user) = session.user {
            option("user", user);
        }
        if let Some(on) = session.gl {
            option("gl", if on { "on" } else { "off" });
        }
        if let Some(program) = session.init {
            option("init", program);
        }
    }
    if session.disables_login_monitor {
        words.push("--disable-login-monitor".to_owned());
    }
    words.push(session.id.to_owned());
    words
}

/// `close-session`.
pub(super) fn close(id: &str) -> Vec<String> {
    strings(&["close-session", id])
}

/// `list-sessions`.
pub(super) fn list_sessions() -> Vec<String> {
    strings(&["list-sessions", "--json"])
}

/// `describe-session`.
pub(super) fn describe(id: &str) -> Vec<String> {
    strings(&["describe-session", "--json", id])
}

/// `list-connections`.
pub(super) fn list_connections(id: &str) -> Vec<String> {
    strings(&["list-connections", "--json", id])
}

/// `version`.
pub(super) fn version() -> Vec<String> {
    strings(&["version", "--json"])
}

/// `set-permissions`; without a file: the owner alone, with everything.
pub(super) fn set_permissions(id: &str, file: Option<&str>) -> Vec<String> {
    let mut words = vec!["set-permissions".to_owned(), format!("--session={id}")];
    words.push(file.map_or_else(|| "--reset-builtin".to_owned(), |file| format!("--file={file}")));
    words
}

/// A bound of a screenshot. Only with one of the two the ratio is sure to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Width(u32),
    Height(u32),
}

/// `get-screenshot` of the primary display.
pub(super) fn screenshot(id: &str, format: ImageFormat, bound: Bound) -> Vec<String> {
    let format = match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
    };
    let bound = match bound {
        Bound::Width(pixels) => format!("--max-width={pixels}"),
        Bound::Height(pixels) => format!("--max-height={pixels}"),
    };
    strings(&["get-screenshot", "--json", "--primary", &format!("--format={format}"), &bound, id])
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: NewSession<'_> = NewSession {
        id: "7b0e",
        type_: SessionType::Virtual,
        name: "",
        owner: "ann",
        user: None,
        permissions_file: None,
        storage_root: None,
        gl: None,
        max_concurrent_clients: None,
        init: None,
        disables_login_monitor: false,
    };

    const FULL: NewSession<'_> = NewSession {
        name: "--json CAD\n1",
        user: Some("ann"),
        permissions_file: Some("/run/p"),
        storage_root: Some("/home/ann/files"),
        gl: Some(true),
        max_concurrent_clients: Some(3),
        init: Some("/init/xfce.sh"),
        disables_login_monitor: true,
        ..PLAIN
    };

    #[test]
    fn only_what_was_asked_for_is_said() {
        assert_eq!(create(&PLAIN), ["create-session", "--type=virtual", "--owner=ann", "7b0e"]);
    }

    #[test]
    fn every_option_is_said_and_a_name_is_none() {
        let expected = [
            "create-session",
            "--type=virtual",
            "--name=--json CAD1",
            "--owner=ann",
            "--permissions-file=/run/p",
            "--storage-root=/home/ann/files",
            "--max-concurrent-clients=3",
            "--user=ann",
            "--gl=on",
            "--init=/init/xfce.sh",
            "--disable-login-monitor",
            "7b0e",
        ];
        assert_eq!(create(&FULL), expected);
    }

    #[test]
    fn a_console_session_gets_no_option_of_virtual_ones() {
        let console = NewSession { type_: SessionType::Console, name: "n", disables_login_monitor: false, ..FULL };
        let expected = [
            "create-session",
            "--type=console",
            "--name=n",
            "--owner=ann",
            "--permissions-file=/run/p",
            "--storage-root=/home/ann/files",
            "--max-concurrent-clients=3",
            "7b0e",
        ];
        assert_eq!(create(&console), expected);
    }

    #[test]
    fn a_name_is_cut_to_what_the_command_takes() {
        let name = "ö".repeat(300);
        let words = create(&NewSession { name: &name, ..PLAIN });
        assert_eq!(words[2].chars().count(), "--name=".len() + 256);
    }

    #[test]
    fn the_other_commands_are_the_documented_ones() {
        let line = |words: Vec<String>| words.join(" ");
        assert_eq!(line(close("a")), "close-session a");
        assert_eq!(line(list_sessions()), "list-sessions --json");
        assert_eq!(line(describe("a")), "describe-session --json a");
        assert_eq!(line(list_connections("a")), "list-connections --json a");
        assert_eq!(line(version()), "version --json");
        assert_eq!(line(set_permissions("a", Some("/p"))), "set-permissions --session=a --file=/p");
        assert_eq!(line(set_permissions("a", None)), "set-permissions --session=a --reset-builtin");
        assert_eq!(
            line(screenshot("a", ImageFormat::Jpeg, Bound::Height(9))),
            "get-screenshot --json --primary --format=JPEG --max-height=9 a"
        );
    }
}
