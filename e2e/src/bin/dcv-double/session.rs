//! One session, and the program that is its desktop.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use serde_json::Value;
use serde_json::json;
use tokio::process::Child;
use tokio::process::Command;

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Counts the sessions of this server.
    pub serial: u32,
    pub id: String,
    pub owner: String,
    pub user: String,
    pub uid: u32,
    pub name: String,
    pub is_console: bool,
    pub storage_root: String,
    pub permissions: Option<String>,
    pub max_clients: Option<usize>,
    pub creation_time: Timestamp,
    pub last_disconnection_time: Option<Timestamp>,
    pub connections: BTreeMap<u64, Connection>,
    pub display: String,
    /// When it is listed, and when it has its display.
    pub appears: Instant,
    pub has_display: Instant,
    /// Process group of its desktop.
    pub desktop: Option<Pid>,
}

/// Somebody who is connected.
#[derive(Debug)]
pub struct Connection {
    pub user: String,
    pub address: String,
    pub time: Timestamp,
}

impl Session {
    pub fn kind(&self) -> &'static str {
        if self.is_console { "console" } else { "virtual" }
    }

    pub fn is_listed(&self) -> bool {
        Instant::now() >= self.appears
    }

    pub fn shown_display(&self) -> String {
        if Instant::now() >= self.has_display { self.display.clone() } else { String::new() }
    }

    /// What stays the same for as long as nothing ends.
    pub fn standing(&self) -> Value {
        json!({"desktop": self.desktop.map(Pid::as_raw), "connections": self.connections.keys().collect::<Vec<_>>()})
    }

    /// Ends its desktop.
    pub fn end(&mut self) {
        if let Some(group) = self.desktop.take() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// Whether `user` may see it: the owner without a file, with one as its lines say.
    pub fn admits(&self, user: &str) -> bool {
        let Some(text) = &self.permissions else { return user == self.owner };
        let mut may_see = false;
        let lines = text.lines().skip_while(|line| line.trim() != "[permissions]").skip(1);
        for line in lines.take_while(|line| !line.trim().starts_with('[')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [actor, rule, features @ ..] = words.as_slice() else { continue };
            let is_meant = *actor == user || *actor == "%any%" || (*actor == "%owner%" && user == self.owner);
            if is_meant && features.iter().any(|feature| ["builtin", "display"].contains(feature)) {
                match *rule {
                    "allow" => may_see = true,
                    "disallow" => may_see = false,
                    _ => return false,
                }
            }
        }
        may_see
    }
}

/// An account of this machine.
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    pub home: String,
}

/// The local account of this name.
pub fn account(name: &str) -> Option<Account> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [own, _, uid, gid, _, home, _] = fields.as_slice() else { return None };
        (*own == name).then_some(())?;
        Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: (*home).to_owned() })
    })
}

/// Starts the program of a virtual session as its account, as the server does: bare of any profile, with its display.
pub fn start_desktop(program: &str, user: &str, account: &Account, display: &str) -> std::io::Result<Child> {
    let mut command = std::process::Command::new("/bin/bash");
    command.args(["--noprofile", "--norc", "-c", "exec \"$0\"", program]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("DISPLAY", display);
    command.env("HOME", &account.home).env("USER", user).env("LOGNAME", user).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.gid(account.gid).uid(account.uid);
    }
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Command::from(command).spawn()
}

/// So many milliseconds from now.
pub fn after(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}
