//! Processes of the parts of a stand: kill them, start them again.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::eventually;
use crate::host;
use crate::seconds;
use crate::stand::root;

/// One process that `hack/up` started, such as `agent-1`.
pub struct Role {
    label: String,
    pidfile: PathBuf,
    log: PathBuf,
}

/// A role that was killed, and how it was started.
#[must_use = "a killed role stays dead until it is started"]
pub struct Killed {
    role: Role,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Role {
    pub(crate) fn new(folder: &Path, label: &str) -> Self {
        let pidfile = folder.join("pids").join(format!("{label}.pid"));
        Self { label: label.to_owned(), pidfile, log: folder.join("logs").join(format!("{label}.log")) }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        let text =
            fs::read_to_string(&self.pidfile).unwrap_or_else(|error| panic!("{} has no pid: {error}", self.label));
        text.trim().parse().unwrap_or_else(|_| panic!("{} has the pid {text}", self.label))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How it was started.
    fn command(&self) -> Vec<OsString> {
        let command: Vec<_> = self.words("cmdline").into_iter().filter(|word| !word.is_empty()).collect();
        assert!(!command.is_empty(), "{} does not run", self.label);
        command
    }

    /// The variables it was started with.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let split = |variable: OsString| {
            let bytes = variable.into_vec();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(bytes[..at].into()), OsString::from_vec(bytes[at + 1..].into())))
        };
        self.words("environ").into_iter().filter_map(split).collect()
    }

    /// What a file of its folder in `/proc` has between zero bytes.
    fn words(&self, file: &str) -> Vec<OsString> {
        let text = fs::read(format!("/proc/{}/{file}", self.pid())).unwrap_or_default();
        text.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.into())).collect()
    }

    /// Starts another process like it under the name `label`, with other values of these flags.
    pub async fn start_twin(&self, label: &str, values: &[(&str, &str)]) -> Self {
        let mut command = self.command();
        for (flag, value) in values {
            let at = command.iter().position(|word| word == *flag).unwrap_or_else(|| panic!("no {flag}: {command:?}"));
            command[at + 1] = OsString::from(value);
        }
        let folder = self.pidfile.ancestors().nth(2).expect("it is in a folder of the stand");
        Killed { role: Self::new(folder, label), command, environment: self.environment() }.restart().await
    }

    /// Ends it with SIGKILL, and returns once it is gone.
    pub async fn kill(self) -> Killed {
        let (pid, command, environment) = (self.pid(), self.command(), self.environment());
        host::signal(pid, Signal::SIGKILL);
        eventually("a killed process to be gone", seconds(10), async || {
            if host::is_alive(pid) { Err(format!("{pid} lives")) } else { Ok(()) }
        })
        .await;
        Killed { role: self, command, environment }
    }

    /// Kills it and starts it again at once.
    pub async fn kill_and_restart(self) -> Self {
        self.kill().await.restart().await
    }
}

impl Killed {
    /// Takes it off the stand: nobody looks for it or starts it again.
    pub fn forget(self) {
        fs::remove_file(&self.role.pidfile).expect("it was started with a pid file");
    }

    /// Starts it with further flags.
    pub async fn restart_with(mut self, flags: &[&str]) -> Role {
        self.command.extend(flags.iter().map(OsString::from));
        self.restart().await
    }

    /// Starts it without these flags.
    pub async fn restart_without(mut self, flags: &[&str]) -> Role {
        self.command.retain(|word| !flags.iter().any(|flag| word == *flag));
        self.restart().await
    }

    /// Starts it as it was started before, the way `hack/up` does, so that `hack/down` knows it.
    pub async fn restart(self) -> Role {
        let status = tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", r#". "$1/hack/lib.sh"; shift; start_daemon "$@""#, "e2e"])
            .arg(root())
            .arg(&self.role.pidfile)
            .arg(&self.role.log)
            .args(&self.command)
            .env_clear()
            .envs(self.environment)
            .status()
            .await
            .expect("bash can be run");
        assert!(status.success(), "{} could not be started again", self.role.label);
        self.role
    }
}
