//! Real X desktops by `TigerVNC`, served to browsers by the agent itself.
//!
//! ```text
//!  browser --TLS--> agent --Unix socket--> Xtigervnc (owner) <--X11-- desktop of the owner
//!                   token, rights,         RFB without
//!                   limits, counts         own authentication
//! ```
//!
//! Each session has a process of its own, the session host, which outlives the agent (`session_host`); its folder says what
//! it is (`state`). The agent is the only way in: it checks tokens (`pages`), carries RFB within rights (`proxy`, `rfb`),
//! takes screenshots. The owner of a session is not trusted: what is in his folder and behind his sockets is his.
//!
//! Not offered: sound, files, printers, USB, several screens per client, OpenGL on a GPU, CONSOLE sessions.

mod launch;
mod log;
mod pages;
mod process;
mod proxy;
mod rfb;
mod screenshot;
mod session;
pub mod session_host;
mod state;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use axum::Router;
use rand::TryRngCore;
use rand::rngs::OsRng;
use regex::Regex;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use self::launch::Folders;
use self::proxy::Access;
use self::proxy::End;
use self::rfb::Rights;
use self::session::Life;
use self::session::Session;
use self::session::read_boot_id;
use self::state::Folder;
use self::state::State;
use super::Backend;
use super::BackendError;
use super::CreateError;
use super::Description;
use super::HostSession;
use super::Order;
use super::ScreenshotRequest;
use super::account;
use super::account::Names;
use crate::agent::gate::View;
use crate::api::server::Capacity;
use crate::api::session::SessionType;
use crate::permissions::Features;
use crate::permissions::Permissions;

/// How long sessions that are found are waited for until it is known how they are.
const ADOPTION_LIMIT: Duration = Duration::from_secs(10);
/// Screenshots taken at once: each holds a screen in memory and a core for tens of milliseconds.
const SCREENSHOTS_MAX: usize = 2;
/// Where X servers have their sockets.
const X11_SOCKETS: &str = "/tmp/.X11-unix";

/// Settings of the backend.
#[derive(Clone, Debug)]
pub struct VncSettings {
    /// Name of the server: sessions of others on the same host are not touched.
    pub server_name: String,
    /// Folder for what is known of running sessions. Its content must not outlive a restart of the host, and the accounts
    /// of owners must be able to pass through it.
    pub state_folder: PathBuf,
    /// Where programs named by `initFile` are.
    pub init_folder: PathBuf,
    /// Where programs named by `autorunFile` are.
    pub autorun_folder: PathBuf,
    /// Lowest uid that may own a session; never root, whatever it is.
    pub min_uid: u32,
    /// What the whole name of an owner must match; see [`owner_pattern`](super::owner_pattern).
    pub owner_pattern: Option<Regex>,
    /// Most sessions at once; negative: no limit.
    pub max_virtual_sessions: i32,
    /// Most sessions of one owner at once; negative: no limit.
    pub max_concurrent_sessions_per_user: i32,
    /// How long a desktop may take to be up.
    pub create_timeout: Duration,
    /// Words before commands that look names up, as in `chroot /host`; desktops run where the agent does.
    pub host_command_prefix: Vec<String>,
    /// Our own program, which is also the session host.
    pub program: PathBuf,
    /// The X server's program. Not `Xvnc`, which may be another product's.
    pub x_server: PathBuf,
    /// Size of the screen of a new session; clients may change it.
    pub geometry: String,
    /// Desktop of sessions without `initFile`: program and arguments. Empty: the first of `icewm-session`,
    /// `openbox-session` and `xterm` that is installed.
    pub desktop_command: Vec<String>,
}

impl VncSettings {
    /// The documented defaults.
    pub fn new(server_name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            server_name: server_name.into(),
            state_folder: "/run/dcv-operator".into(),
            init_folder: "/var/lib/dcv-session-manager-agent/init".into(),
            autorun_folder: "/var/lib/dcv-session-manager-agent/autorun".into(),
            min_uid: 1000,
            owner_pattern: None,
            max_virtual_sessions: -1,
            max_concurrent_sessions_per_user: 1,
            create_timeout: Duration::from_mins(2),
            host_command_prefix: Vec::new(),
            program: program.into(),
            x_server: "/usr/bin/Xtigervnc".into(),
            geometry: "1920x1080".into(),
            desktop_command: Vec::new(),
        }
    }
}

/// The backend. Dropping it ends connections of clients and no session.
pub struct VncBackend {
    inner: Arc<Inner>,
    _stop: DropGuard,
}

/// What the backend's tasks share.
struct Inner {
    settings: VncSettings,
    view: Arc<dyn View>,
    folder: PathBuf,
    names: Names,
    version: String,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    /// Held while it is decided whether one more session fits.
    admission: tokio::sync::Mutex<()>,
    screenshots: Semaphore,
    changes: watch::Sender<u64>,
    stop: CancellationToken,
}

impl VncBackend {
    /// Opens the backend and adopts the sessions that run. There must be only one per server at a time.
    ///
    /// # Errors
    /// When its folder cannot be made or read.
    pub async fn open(settings: VncSettings, view: Arc<dyn View>) -> Result<Self, BackendError> {
        let folder = state::server_folder(&settings.state_folder, &settings.server_name);
        make_folder(&folder).map_err(failed("make the folder of sessions"))?;
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            names: Names::new(settings.host_command_prefix.clone()),
            version: fetch_version(&settings.x_server).await,
            settings,
            view,
            folder,
            sessions: Mutex::default(),
            admission: tokio::sync::Mutex::default(),
            screenshots: Semaphore::new(SCREENSHOTS_MAX),
            changes: watch::Sender::new(0),
            stop: stop.clone(),
        });
        inner.adopt().await.map_err(failed("read the folder of sessions"))?;
        Ok(Self { inner, _stop: stop.drop_guard() })
    }
}

fn failed<E: std::fmt::Display>(action: &'static str) -> impl Fn(E) -> BackendError {
    move |error| BackendError { action, message: error.to_string() }
}

/// Makes the folder of all sessions, which owners can pass through and not list.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
    if let Some(parent) = folder.parent() {
        fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
}

/// Makes the folder of X sockets where nothing else does, as in a container: an X server would make it too, but as its
/// owner's, who could then take away the sockets of others. The answer is what is wrong with it.
fn check_x11_sockets() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    // Made under another name, so that it is never there with another mode.
    let unfinished = format!("{X11_SOCKETS}.{}", std::process::id());
    if fs::symlink_metadata(X11_SOCKETS).is_err() && fs::create_dir(&unfinished).is_ok() {
        let _ = fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o1777));
        if fs::rename(&unfinished, X11_SOCKETS).is_err() {
            let _ = fs::remove_dir(&unfinished);
        }
    }
    match fs::symlink_metadata(X11_SOCKETS) {
        Ok(folder) if folder.is_dir() && folder.uid() == 0 && folder.mode() & 0o1777 == 0o1777 => None,
        Ok(_) => Some(format!("{X11_SOCKETS} must be a folder of root with mode 1777")),
        Err(error) => Some(format!("{X11_SOCKETS} cannot be made: {error}")),
    }
}

/// Version of the X server, as in `TigerVNC 1.12.0`; empty when it cannot be run.
async fn fetch_version(x_server: &Path) -> String {
    let mut command = Command::new(x_server);
    command.arg("-version").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(Duration::from_secs(10), command.output()).await {
        Ok(Ok(output)) => parse_version(&String::from_utf8_lossy(&output.stderr)),
        _ => String::new(),
    }
}

fn parse_version(text: &str) -> String {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Xvnc ")).unwrap_or_default();
    line.split(" - ").next().unwrap_or_default().trim().to_owned()
}

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    OsRng.try_fill_bytes(&mut bytes).expect("the system has randomness");
    hex::encode(bytes)
}

impl Inner {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.sessions.lock().expect("no panic while it is held")
    }

    fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions().get(id).cloned()
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Finds the sessions of an agent before this one, and what was left of some.
    async fn adopt(self: &Arc<Self>) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                // Not yet, or no longer, a session.
                fs::remove_dir_all(entry.path())?;
                continue;
            }
            let folder = Folder(entry.path());
            match folder.read_state() {
                Ok(mut state) if state.order.id == name => {
                    // They went with the agent that carried them.
                    if state.connections > 0 {
                        state.connections = 0;
                        state.last_disconnection_time = Some(self.view.now());
                        state::write_json(&folder.state(), &state)?;
                    }
                    let session = Arc::new(Session::new(folder, state));
                    self.sessions().insert(name, session.clone());
                    self.follow(session, None);
                }
                other => {
                    let error = other.err().map(|error| error.to_string());
                    tracing::warn!(folder = %entry.path().display(), error, "left alone: not understood");
                }
            }
        }
        let found: Vec<_> = self.sessions().values().cloned().collect();
        let deadline = tokio::time::Instant::now() + ADOPTION_LIMIT;
        for session in found {
            let mut life = session.life.subscribe();
            let _ = tokio::time::timeout_at(deadline, life.wait_for(|life| *life != Life::Starting)).await;
        }
        Ok(())
    }

    /// Follows a session in the background, until the backend is dropped.
    fn follow(self: &Arc<Self>, session: Arc<Session>, stream: Option<tokio::net::UnixStream>) {
        let inner = self.clone();
        tokio::spawn(async move {
            let mut life = session.life.subscribe();
            let follow = session.follow(stream);
            let announce = async {
                while life.changed().await.is_ok() {
                    inner.bump();
                }
            };
            tokio::select! {
                () = inner.stop.cancelled() => {}
                () = follow => inner.bump(),
                () = announce => {}
            }
        });
    }

    async fn create(self: Arc<Self>, order: Order) -> Result<(), CreateError> {
        let state = self.prepare(&order).await?;
        let admission = self.admission.lock().await;
        if let Some(existing) = self.session(&order.id) {
            if existing.is_ended() {
                self.remove(&existing).await.map_err(CreateError::Failed)?;
            } else {
                drop(admission);
                return self.join(&existing, &order).await;
            }
        }
        self.check_room(&order.owner)?;
        if self.stop.is_cancelled() {
            return Err(CreateError::Failed("the agent is going down".into()));
        }
        let folder = Folder(self.folder.join(&order.id));
        let failed =
            |error: std::io::Error| CreateError::Failed(format!("the session's folder cannot be made: {error}"));
        folder.create(&state).map_err(failed)?;
        let session = Arc::new(Session::new(folder, state));
        self.sessions().insert(order.id.clone(), session.clone());
        drop(admission);
        let outcome = match session.start_host(&self.settings.program).await {
            Ok(stream) => {
                self.follow(session.clone(), Some(stream));
                self.wait_until_up(&session).await
            }
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => Ok(()),
            // It is the next agent's.
            Err(reason) if self.stop.is_cancelled() => Err(CreateError::Failed(reason)),
            Err(reason) => match self.remove(&session).await {
                Ok(()) => Err(CreateError::Failed(reason)),
                Err(left) => {
                    // Told by `list` until a `close` has ended it.
                    session.life.send_replace(Life::Ended(format!("{reason}; {left}")));
                    Err(CreateError::Failed(format!("{reason}; {left}")))
                }
            },
        }
    }

    /// Checks what can be checked before anything is made.
    async fn prepare(&self, order: &Order) -> Result<State, CreateError> {
        let refused = |reason: &dyn std::fmt::Display| CreateError::Refused(reason.to_string());
        if !state::is_id(&order.id) {
            return Err(refused(&format!("{:?} is no session id", order.id)));
        }
        if order.type_ == SessionType::Console {
            return Err(refused(&"the vnc backend runs no CONSOLE sessions"));
        }
        if order.dcv_gl_enabled == Some(true) {
            return Err(refused(&"the vnc backend has no OpenGL on a GPU: leave dcvGlEnabled out or set it to false"));
        }
        Permissions::parse(order.permissions.as_deref()).map_err(|error| refused(&format!("permissions: {error}")))?;
        account::check_name(&order.owner, self.settings.owner_pattern.as_ref()).map_err(|error| refused(&error))?;
        let account = match self.names.account(&order.owner).await {
            Ok(Some(account)) => account,
            Ok(None) => return Err(refused(&account::OwnerRefusal::Unknown(order.owner.clone()))),
            Err(error) => return Err(CreateError::Failed(error.to_string())),
        };
        let agent_uid = nix::unistd::geteuid().as_raw();
        account::check_account(&account, self.settings.min_uid, agent_uid).map_err(|error| refused(&error))?;
        if let Some(reason) = self.unhealthy() {
            return Err(CreateError::Failed(reason));
        }
        let folders = Folders {
            init: &self.settings.init_folder,
            autorun: &self.settings.autorun_folder,
            desktop_command: &self.settings.desktop_command,
            x_server: &self.settings.x_server,
            geometry: &self.settings.geometry,
        };
        Ok(State {
            instance: random_hex::<16>(),
            boot_id: read_boot_id(),
            creation_time: self.view.now(),
            launch: launch::plan(order, &account, &folders).map_err(|error| refused(&error))?,
            order: order.clone(),
            account,
            cookie: random_hex::<16>(),
            connections: 0,
            last_disconnection_time: None,
            announced: false,
        })
    }

    /// Whether one more session of this owner fits. The caller has the admission.
    fn check_room(&self, owner: &str) -> Result<(), CreateError> {
        let sessions = self.sessions();
        let running = sessions.values().filter(|session| !session.is_ended());
        let owners: Vec<String> = running.map(|session| session.state().order.owner).collect();
        let (all, own) = (owners.len(), owners.iter().filter(|other| *other == owner).count());
        let full = |limit: i32, count: usize| usize::try_from(limit).is_ok_and(|limit| count >= limit);
        if full(self.settings.max_virtual_sessions, all) {
            return Err(CreateError::Refused(format!("the host runs {all} sessions, as many as it may")));
        }
        if full(self.settings.max_concurrent_sessions_per_user, own) {
            return Err(CreateError::Refused(format!("{owner} has {own} sessions on this host, as many as one may")));
        }
        Ok(())
    }

    /// A session of this id runs or is being started: it becomes the order's.
    async fn join(&self, session: &Arc<Session>, order: &Order) -> Result<(), CreateError> {
        if session.state().order.owner != order.owner {
            return Err(CreateError::Refused("a session of this id and of another owner runs on this host".into()));
        }
        session
            .update(|state| state.order.marker = order.marker.clone())
            .map_err(|error| CreateError::Failed(format!("the session could not be marked: {error}")))?;
        match self.wait_until_up(session).await {
            Ok(()) => Ok(()),
            Err(reason) if self.stop.is_cancelled() => Err(CreateError::Failed(reason)),
            Err(reason) => {
                self.remove(session).await.map_err(CreateError::Failed)?;
                Err(CreateError::Failed(reason))
            }
        }
    }

    /// Waits until the desktop is up and its socket accepts clients.
    async fn wait_until_up(&self, session: &Session) -> Result<(), String> {
        let limit = self.settings.create_timeout;
        let mut life = session.life.subscribe();
        let up = async { life.wait_for(|life| *life != Life::Starting).await.map(|life| life.clone()) };
        let up = tokio::select! {
            () = self.stop.cancelled() => return Err("the agent is going down".into()),
            up = tokio::time::timeout(limit, up) => up,
        };
        match up {
            Err(_) => return Err(format!("the desktop was not up after {} s", limit.as_secs())),
            // The sender is the session's own.
            Ok(Err(_)) => return Err("the session is gone".into()),
            Ok(Ok(Life::Ended(reason))) => return Err(reason),
            Ok(Ok(_)) => {}
        }
        session.connect_desktop().await.map(drop).map_err(|error| error.to_string())
    }

    /// Ends a session, takes its files away and forgets it.
    async fn remove(&self, session: &Arc<Session>) -> Result<(), String> {
        let _turn = session.turn.lock().await;
        session.end().await?;
        let mut sessions = self.sessions();
        if sessions.get(&session.id).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&session.id);
        }
        drop(sessions);
        self.bump();
        Ok(())
    }

    /// What `user` may do in a session of these permissions.
    async fn features_by(&self, permissions: &Permissions, owner: &str, user: &str) -> Features {
        let mut groups: Vec<&str> = permissions.osgroups().collect();
        groups.sort_unstable();
        groups.dedup();
        let mut member_of = Vec::new();
        for group in groups {
            if self.names.is_in_group(user, group).await {
                member_of.push(group);
            }
        }
        permissions.features_of(user, owner, |group| member_of.contains(&group))
    }

    /// What `user` may do in a session now.
    async fn features(&self, session: &Session, user: &str) -> Features {
        self.features_by(&session.permissions(), &session.state().order.owner, user).await
    }

    /// Gives a connection the rights of the permissions in force, or ends it.
    async fn refresh(&self, session: &Session, number: u64, user: &str) {
        let owner = session.state().order.owner;
        loop {
            let permissions = session.permissions();
            let features = self.features_by(&permissions, &owner, user).await;
            let table = session.table();
            // Replaced meanwhile: what was found must not be set after what the one who replaced them has set.
            if !Arc::ptr_eq(&permissions, &session.permissions()) {
                continue;
            }
            if let Some(connection) = table.connection(number) {
                connection.set(access(features, owner == user));
            }
            return;
        }
    }

    /// Why no session can be created now.
    fn unhealthy(&self) -> Option<String> {
        if !self.settings.x_server.is_file() {
            return Some(format!("{} is not installed on this host", self.settings.x_server.display()));
        }
        check_x11_sockets()
    }

    fn running(&self, id: &str, action: &'static str) -> Result<Arc<Session>, BackendError> {
        let session = self.session(id).filter(|session| !session.is_ended());
        session.ok_or_else(|| BackendError { action, message: format!("session {id} does not run") })
    }
}

/// The same as what a connection goes by.
fn access(features: Features, is_owner: bool) -> Access {
    if features.contains(Features::DISPLAY) { Ok(Rights::new(features, is_owner)) } else { Err(End::NotPermitted) }
}

/// Runs `work` to its end, also when its caller goes away: half a create or close would leave its other half undone.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Backend for VncBackend {
    const NAME: &'static str = "vnc";

    async fn describe(&self) -> Result<Description, BackendError> {
        Ok(Description {
            version: self.inner.version.clone(),
            capacity: Capacity {
                session_types: vec![SessionType::Virtual],
                max_virtual_sessions: self.inner.settings.max_virtual_sessions.max(-1),
                max_concurrent_sessions_per_user: self.inner.settings.max_concurrent_sessions_per_user.max(-1),
                gl: false,
            },
            unhealthy: self.inner.unhealthy(),
            ..Description::default()
        })
    }

    async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        Ok(self.inner.sessions().values().map(|session| session.describe()).collect())
    }

    async fn create(&self, order: &Order) -> Result<(), CreateError> {
        to_the_end(self.inner.clone().create(order.clone())).await
    }

    async fn announce(&self, id: &str) -> Result<(), BackendError> {
        const ACTION: &str = "note the announcement";
        let session = self.inner.session(id).ok_or_else(|| failed(ACTION)("no such session"))?;
        session.update(|state| state.announced = true).map_err(failed(ACTION))
    }

    async fn close(&self, id: &str) -> Result<(), BackendError> {
        let Some(session) = self.inner.session(id) else { return Ok(()) };
        let inner = self.inner.clone();
        to_the_end(async move { inner.remove(&session).await }).await.map_err(failed("close the session"))
    }

    async fn set_permissions(&self, id: &str, text: Option<&str>) -> Result<(), BackendError> {
        const ACTION: &str = "set the permissions";
        let session = self.inner.running(id, ACTION)?;
        let permissions = Permissions::parse(text).map_err(failed(ACTION))?;
        session.set_permissions(text, permissions).map_err(failed(ACTION))?;
        let connected = session.table().users();
        for (number, user) in connected {
            self.inner.refresh(&session, number, &user).await;
        }
        Ok(())
    }

    async fn screenshot(&self, id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, BackendError> {
        const ACTION: &str = "take a screenshot";
        let session = self.inner.running(id, ACTION)?;
        let _slot = self.inner.screenshots.acquire().await.map_err(failed(ACTION))?;
        let desktop = session.connect_desktop().await.map_err(failed(ACTION))?;
        let screen = screenshot::fetch(desktop).await.map_err(failed(ACTION))?;
        let encoded = tokio::task::spawn_blocking(move || screenshot::encode(screen, request)).await;
        encoded.map_err(failed(ACTION))?.map_err(failed(ACTION))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    fn routes(&self) -> Router {
        pages::router(self.inner.clone())
    }
}

#[cfg(test)]
mod tests;
