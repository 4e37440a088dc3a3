//! A host of its own for each test.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::CreateError;
use dcv_operator::agent::backend::HostSession;
use dcv_operator::agent::backend::ImageFormat;
use dcv_operator::agent::backend::Marker;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::ScreenshotRequest;
use dcv_operator::agent::backend::vnc::VncBackend;
use dcv_operator::agent::backend::vnc::VncSettings;
use dcv_operator::agent::gate::View;
use dcv_operator::api::DcvSession;
use dcv_operator::api::session::SessionType;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use crate::agents::AGENT_PROCESS;

/// A cluster that knows no session: nobody gets in, which these tests do not try.
pub struct NoView;

impl View for NoView {
    fn keys(&self) -> Arc<JwkSet> {
        Arc::new(JwkSet { keys: Vec::new() })
    }
    fn agent_keys(&self) -> Arc<JwkSet> {
        self.keys()
    }
    fn session(&self, _: &str) -> Option<Arc<DcvSession>> {
        None
    }
    fn server_uid(&self) -> String {
        String::new()
    }
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// The settings of a host whose folders are below `folder`.
pub fn settings(folder: &Path) -> VncSettings {
    let mut settings = VncSettings::new("test", env!("CARGO_BIN_EXE_dcv-operator"));
    settings.state_folder = folder.join("run");
    settings.init_folder = folder.join("init");
    settings.autorun_folder = folder.join("autorun");
    settings.max_concurrent_sessions_per_user = -1;
    settings.geometry = "640x480".into();
    settings.create_timeout = Duration::from_secs(30);
    settings
}

/// A host of its own: folders below a fresh one, which is gone at the end with every process of it.
pub struct TestHost {
    pub folder: tempfile::TempDir,
    pub settings: VncSettings,
}

impl TestHost {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vnc-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { settings: settings(folder.path()), folder };
        host.program("init/plain.sh", "exec sleep 1000");
        host
    }

    pub fn program(&self, path: &str, script: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub async fn open(&self) -> VncBackend {
        VncBackend::open(self.settings.clone(), Arc::new(NoView)).await.unwrap()
    }

    pub fn session(&self, id: &str) -> PathBuf {
        self.settings.state_folder.join("vnc/test").join(id)
    }

    pub fn json(&self, id: &str, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.session(id).join(file)).unwrap()).unwrap()
    }

    pub fn pid(&self, id: &str, which: &str) -> i32 {
        i32::try_from(self.json(id, "host.json")[which]["pid"].as_i64().unwrap()).unwrap()
    }

    pub fn display(&self, id: &str) -> u64 {
        self.json(id, "host.json")["display"].as_u64().unwrap()
    }

    /// Every process that has to do with this host, but for the test's own.
    pub fn processes(&self) -> Vec<HostProcess> {
        let own = self.folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |file: &str| {
                String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).replace('\0', " ")
            };
            let command = read("cmdline");
            let is_own = i32::try_from(std::process::id()) == Ok(pid) || command.contains(AGENT_PROCESS);
            if !is_own && (command.contains(&own) || read("environ").contains(&own)) {
                found.push(HostProcess { pid, command });
            }
        }
        found
    }

    /// The processes whose command says `word`.
    pub fn processes_with(&self, word: &str) -> Vec<HostProcess> {
        self.processes().into_iter().filter(|process| process.command.contains(word)).collect()
    }

    /// Panics unless nothing is left: no process, and in the folder of sessions no file.
    pub fn assert_empty(&self, what: &str) {
        assert_eq!(self.processes(), [], "{what}");
        let sessions = self.settings.state_folder.join("vnc/test");
        let files: Vec<_> = fs::read_dir(sessions).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(files.is_empty(), "{what}: {files:?}");
    }
}

/// Parent of a process, if it is there.
pub fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostProcess {
    pub pid: i32,
    pub command: String,
}

impl HostProcess {
    pub fn kill(&self) {
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// Whether it runs; what only waits to be taken in does not.
    pub fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for process in self.processes() {
            process.kill();
        }
    }
}

pub fn order(id: &str, owner: &str, init: Option<&str>) -> Order {
    Order {
        id: id.into(),
        marker: Marker {
            cluster_uid: "cluster".into(),
            namespace: "default".into(),
            name: id.into(),
            uid: id.into(),
            attempt: 1,
            owner: owner.into(),
            boot_id: "boot".into(),
        },
        type_: SessionType::Virtual,
        display_name: format!("Session {id}"),
        owner: owner.into(),
        init_file: init.map(str::to_owned),
        autorun_file: None,
        autorun_file_arguments: Vec::new(),
        max_concurrent_clients: None,
        dcv_gl_enabled: None,
        permissions: None,
        storage_root: None,
        traceparent: None,
    }
}

pub async fn find(backend: &VncBackend, id: &str) -> Option<HostSession> {
    backend.list().await.unwrap().into_iter().find(|session| session.id == id)
}

/// Waits for a condition, for twenty seconds.
pub async fn until(what: impl Display, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(20), "not after 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub const WHOLE: ScreenshotRequest = ScreenshotRequest { max_width: 4000, max_height: 4000, format: ImageFormat::Png };

pub async fn screen(backend: &VncBackend, id: &str) -> image::RgbImage {
    image::load_from_memory(&backend.screenshot(id, WHOLE).await.unwrap()).unwrap().into_rgb8()
}

pub fn refused(outcome: Result<(), CreateError>) -> String {
    match outcome {
        Err(CreateError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

pub fn failed(outcome: Result<(), CreateError>) -> String {
    match outcome {
        Err(CreateError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Runs a program as an account and says whether it succeeded.
pub fn run_as(uid: u32, environment: &[(&str, String)], program: &[&str]) -> bool {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).uid(uid).gid(uid).env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stderr(Stdio::null()).status().unwrap().success()
}

pub const ANN: u32 = 1001;
pub const BOB: u32 = 1002;

/// The uids this file takes for granted.
pub fn check_accounts() {
    for (name, uid) in [("ann", ANN), ("bob", BOB)] {
        let id = Command::new("id").args(["-u", name]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), uid.to_string(), "account {name}");
    }
}
