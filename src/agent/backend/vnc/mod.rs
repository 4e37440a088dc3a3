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

mod create;
mod launch;
mod log;
mod pages;
mod process;
pub mod program;
mod proxy;
mod rfb;
mod screenshot;
mod session;
pub mod session_host;
mod state;
mod x11;

pub(in crate::agent) use process::end_descendants;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use axum::Router;
use regex::Regex;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use self::proxy::Access;
use self::proxy::End;
use self::rfb::Rights;
use self::session::Life;
use self::session::Session;
use self::state::Folder;
use super::Backend;
use super::BackendError;
use super::CreateError;
use super::Description;
use super::HostSession;
use super::Order;
use super::ScreenshotRequest;
use super::account;
use super::account::Names;
use crate::agent::fault;
use crate::agent::fault::Point;
use crate::agent::gate::View;
use crate::api::server::Capacity;
use crate::api::session::SessionType;
use crate::permissions::Features;
use crate::permissions::Permissions;

/// How long sessions that are found are waited for until it is known how they are.
const ADOPTION_LIMIT: Duration = Duration::from_secs(10);
/// Screenshots taken at once: each holds a screen in memory and a core for tens of milliseconds.
const SCREENSHOTS_MAX: usize = 2;

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
            version: x11::fetch_version(&settings.x_server).await,
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
                    fault::reach(Point::SessionFound);
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
            // The agent before us was about to create it: to have it created anew, there must be nothing of it.
            if session.was_cut_off()
                && let Err(left) = self.remove(&session).await
            {
                tracing::warn!(session = session.id, left, "a create that was cut off is not cleaned up");
            }
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
            unhealthy: x11::find_fault(&self.inner.settings.x_server),
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
        fault::reach(Point::AnnounceBegun);
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
