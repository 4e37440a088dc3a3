//! A DCV server's double (`src/bin/dcv-double`): started for a test, told what to do, asked what it was told.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use dcv_operator::agent::backend::dcv::DcvSettings;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;

use crate::eventually;
use crate::host::signal;
use crate::now;
use crate::seconds;
use crate::unique;

/// A server whose folder is known: one of a stand, or of a [`DcvHost`].
pub struct DcvServerDouble {
    folder: PathBuf,
}

impl DcvServerDouble {
    /// The server of `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The `dcv` command.
    pub fn command(&self) -> PathBuf {
        self.folder.join("bin/dcv")
    }

    /// Tells the server something.
    pub fn order(&self, order: &Value) -> Value {
        let mut stream = UnixStream::connect(self.folder.join("server.sock")).expect("the server runs");
        writeln!(stream, "{}", json!({"order": order})).expect("the server listens");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the server answers");
        let answer: Value = serde_json::from_str(&line).expect("it is JSON");
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    /// Every command so far, word by word.
    pub fn history(&self) -> Vec<Vec<String>> {
        serde_json::from_value(self.order(&json!("history"))).expect("a list of commands")
    }

    /// The words of the last command that began with `command`.
    pub fn last(&self, command: &str) -> Vec<String> {
        let history = self.history();
        let last = history.iter().rev().find(|words| words.first().is_some_and(|word| word == command));
        last.unwrap_or_else(|| panic!("nobody ran {command}")).clone()
    }

    /// Goes wrong with the next `command`.
    pub fn fault(&self, command: &str, what: &str, text: &str) {
        self.order(&json!({"fault": {"on": command, "what": what, "text": text}}));
    }

    /// Runs the command as somebody at the host does; it must succeed.
    pub fn dcv(&self, words: &[&str]) -> String {
        let output = Command::new(self.command()).args(words).output().expect("the command can be run");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Ends its sessions, and forgets what it was to do wrong.
    pub fn clear(&self) {
        self.order(&json!("behave"));
        for id in self.ids() {
            self.dcv(&["close-session", &id]);
        }
    }

    /// Ids of its sessions, by the command.
    pub fn ids(&self) -> Vec<String> {
        let listed: Vec<Value> = serde_json::from_str(&self.dcv(&["list-sessions", "--json"])).expect("a list");
        listed.iter().map(|session| session["id"].as_str().expect("an id").to_owned()).collect()
    }
}

/// A host of its own with a DCV server, gone at the end.
pub struct DcvHost {
    /// The server.
    pub server: DcvServerDouble,
    folder: PathBuf,
    name: String,
    process: Option<Child>,
}

impl DcvHost {
    /// A host whose server, the double `program`, has started.
    pub async fn start(program: &Path) -> Self {
        let folder = Path::new("/tmp").join(unique("dcv-host"));
        // A name of its own, so that it can be told from the servers of other tests. The kernel keeps 15 characters.
        let name = unique("dcvs");
        for path in ["bin", "init", "autorun", "run"] {
            fs::create_dir_all(folder.join(path)).expect("the folder can be made");
        }
        for link in ["dcv", &name] {
            symlink(program, folder.join("bin").join(link)).expect("a link can be made");
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("there is a free port").port();
        fs::write(folder.join("dcv.conf"), format!("[connectivity]\nweb-port={port}\n")).expect("it can be written");
        let mut host = Self { server: DcvServerDouble::new(&folder), folder, name, process: None };
        host.program("dcvsessioninit", "exec sleep 1000");
        host.start_server().await;
        host
    }

    /// Starts the server, and waits until it answers.
    pub async fn start_server(&mut self) {
        let server = Command::new(self.folder.join("bin").join(&self.name)).stdin(Stdio::null()).spawn();
        self.process = Some(server.expect("the double can be run"));
        let socket = self.folder.join("server.sock");
        eventually("the double to answer", seconds(20), async || {
            UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Kills the server, as a crash does.
    pub fn kill_server(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Waits for the end of a server that stops by itself.
    pub fn await_end_of_server(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.wait().expect("it ends");
        }
    }

    /// A file below the host's folder.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Makes a program there.
    pub fn program(&self, path: &str, script: &str) {
        let path = self.folder.join(path);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// Settings of a backend for it, quick enough for tests.
    pub fn settings(&self) -> DcvSettings {
        DcvSettings {
            state_folder: self.folder.join("run"),
            files_folder: self.folder.join("files"),
            command: self.server.command().to_str().expect("the path is text").to_owned(),
            configuration: self.folder.join("dcv.conf"),
            server_process: self.name.clone(),
            init_folder: self.folder.join("init"),
            autorun_folder: self.folder.join("autorun"),
            create_timeout: seconds(15),
            appear_timeout: seconds(2),
            settle_time: Duration::from_millis(300),
            poll_interval: Duration::from_millis(100),
            ..DcvSettings::new(Vec::new(), now)
        }
    }

    /// What the backend has left on the host.
    pub fn remains(&self) -> Vec<String> {
        let mut remains = Vec::new();
        for folder in ["run/dcv", "files"] {
            for entry in fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten() {
                remains.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        remains.retain(|name| name != "lock");
        remains
    }
}

impl Drop for DcvHost {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It ends its sessions with it.
            signal(i32::try_from(process.id()).expect("a process id"), Signal::SIGTERM);
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
