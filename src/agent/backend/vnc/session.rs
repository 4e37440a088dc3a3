//! One session, as the agent knows it: starting its session host, following it, ending what is left of it.
//!
//! The session host holds the truth about the processes. The agent follows it over its control socket, whose end says
//! that the host is gone; nothing is polled.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::watch;

use super::process;
use super::process::INSTANCE_VARIABLE;
use super::proxy::Table;
use super::rfb;
use super::state::Folder;
use super::state::HostState;
use super::state::Stage;
use super::state::State;
use super::state::write_json;
use crate::agent::backend::HostSession;
use crate::agent::backend::Phase;
use crate::agent::fault;
use crate::agent::fault::Point;
use crate::api::session::SessionType;
use crate::permissions::Permissions;

/// How long a session host may take to be there: it only has to start.
const HOST_START_LIMIT: Duration = Duration::from_secs(20);
/// Between two tries to reach a session host that is starting, or to take the lock of one that is ending.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// How long a session host may take to end what it has started, before it is killed and that is done for it. More than
/// it needs for programs that ignore TERM.
const HOST_END_LIMIT: Duration = Duration::from_secs(16);
/// Time to connect to a desktop's socket.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time a desktop has to greet, the first time.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to be greeted.
const ANSWER_AGAIN: Duration = Duration::from_millis(200);

/// Why a session is over whose session host never began.
const CUT_OFF: &str = "its start was cut off";

/// How far a session is, as the agent knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Life {
    /// Its session host is starting it, or it does not answer yet.
    Starting,
    /// It has greeted a client, us.
    Running(HostState),
    /// Over; nothing of it runs.
    Ended(String),
}

/// Why a desktop's socket was not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DesktopError {
    #[error("the session does not run")]
    NotRunning,
    #[error("the desktop's socket cannot be reached: {0}")]
    Unreachable(String),
    #[error("the desktop's socket is not that of the session's X server")]
    Impostor,
    #[error("the desktop does not greet: {0}")]
    Mute(String),
}

/// One session of this server.
#[derive(Debug)]
pub(super) struct Session {
    /// Its id, and the name of its folder.
    pub id: String,
    /// Where its files are.
    pub folder: Folder,
    state: Mutex<State>,
    permissions: Mutex<Arc<Permissions>>,
    table: Mutex<Table>,
    obstacle: Mutex<Option<String>>,
    /// How far it is.
    pub life: watch::Sender<Life>,
    /// Held while it is being ended, so that two do not.
    pub turn: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}

impl Session {
    /// A session of which nothing is known but its files. Permissions that cannot be read let nobody in.
    pub fn new(folder: Folder, state: State) -> Self {
        let permissions =
            Permissions::parse(state.order.permissions.as_deref()).or_else(|_| Permissions::parse(Some("")));
        Self {
            id: state.order.id.clone(),
            folder,
            permissions: Mutex::new(Arc::new(permissions.unwrap_or_default())),
            state: Mutex::new(state),
            table: Mutex::default(),
            obstacle: Mutex::default(),
            life: watch::Sender::new(Life::Starting),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// A copy of its state.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// The permissions in force.
    pub fn permissions(&self) -> Arc<Permissions> {
        lock(&self.permissions).clone()
    }

    /// The table of its clients.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Why clients would not reach its desktop, when that was tried last.
    pub fn obstacle(&self) -> Option<String> {
        lock(&self.obstacle).clone()
    }

    /// Changes the state in memory and on the host.
    ///
    /// # Errors
    /// When it could not be written; the change holds in memory.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = lock(&self.state);
        change(&mut state);
        // A small file on a memory file system: quicker than handing it to another thread.
        write_json(&self.folder.state(), &*state)
    }

    /// Replaces the permissions in memory and on the host.
    pub fn set_permissions(&self, text: Option<&str>, permissions: Permissions) -> io::Result<()> {
        *lock(&self.permissions) = Arc::new(permissions);
        self.update(|state| state.order.permissions = text.map(str::to_owned))
    }

    /// Notes how many are connected now and, where one has left, when.
    pub fn note_connections(&self, left: Option<Timestamp>) {
        // Counted under the state's lock: of two changes at once, the later count is written last.
        let outcome = self.update(|state| {
            state.connections = self.table().count();
            state.last_disconnection_time = left.or(state.last_disconnection_time);
        });
        if let Err(error) = outcome {
            tracing::warn!(session = self.id, error = &error as &dyn std::error::Error, "connections not recorded");
        }
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(*self.life.borrow(), Life::Ended(_))
    }

    /// Whether it is over without ever having begun.
    pub fn was_cut_off(&self) -> bool {
        *self.life.borrow() == Life::Ended(CUT_OFF.into())
    }

    /// What `list` says of it.
    pub fn describe(&self) -> HostSession {
        let state = self.state();
        HostSession {
            id: self.id.clone(),
            owner: state.order.owner.clone(),
            announced: state.announced,
            type_: SessionType::Virtual,
            phase: match &*self.life.borrow() {
                Life::Starting => Phase::Preparing,
                Life::Running(_) => Phase::Running,
                Life::Ended(reason) => Phase::Ended(reason.clone()),
            },
            marker: Some(state.order.marker),
            num_of_connections: self.table().count(),
            last_disconnection_time: state.last_disconnection_time,
            creation_time: Some(state.creation_time),
        }
    }

    /// Connects to the desktop's socket and makes sure who is behind it, before a byte is sent.
    ///
    /// The owner can put anything in the socket's place, also a link to a socket that only root may open: so the other
    /// side must be the X server that the session host has started.
    pub async fn connect_desktop(&self) -> Result<UnixStream, DesktopError> {
        let Life::Running(host) = self.life.borrow().clone() else { return Err(DesktopError::NotRunning) };
        self.connect_to(&host).await
    }

    async fn connect_to(&self, host: &HostState) -> Result<UnixStream, DesktopError> {
        let server = host.x_server.filter(|server| server.is_alive()).ok_or(DesktopError::NotRunning)?;
        let unreachable = |error: io::Error| DesktopError::Unreachable(error.to_string());
        let stream = tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(self.folder.rfb()))
            .await
            .map_err(|_| DesktopError::Unreachable("no answer".into()))?
            .map_err(unreachable)?;
        let peer = stream.peer_cred().map_err(unreachable)?;
        let uid = lock(&self.state).account.uid;
        if peer.uid() == uid && peer.pid() == Some(server.pid) { Ok(stream) } else { Err(DesktopError::Impostor) }
    }

    /// Starts the session host and waits until it can be followed.
    ///
    /// # Errors
    /// Why it did not start. Something of it may run all the same.
    pub async fn start_host(&self, program: &Path) -> Result<UnixStream, String> {
        let instance = lock(&self.state).instance.clone();
        let mut command = host_command(program, &self.folder.0, &instance, is_under_systemd());
        let mut child = command.spawn().map_err(|error| format!("the session host could not be started: {error}"))?;
        fault::reach(Point::HostSpawned);
        let deadline = tokio::time::Instant::now() + HOST_START_LIMIT;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(self.folder.control()).await {
                break Ok(stream);
            }
            match child.try_wait() {
                // With systemd the child is only who asked for the unit, and may end first.
                Ok(Some(status)) if !status.success() => break Err(format!("the session host ended with {status}")),
                _ if tokio::time::Instant::now() >= deadline => {
                    break Err("the session host did not start in time".to_owned());
                }
                _ => tokio::time::sleep(TRY_AGAIN).await,
            }
        };
        tokio::spawn(reap(child));
        fault::reach(Point::HostFollowed);
        stream
    }

    /// Follows the session host until it is gone, and then ends what it may have left. `stream` is a connection to its
    /// control socket, if there is one yet.
    pub async fn follow(&self, mut stream: Option<UnixStream>) {
        loop {
            if self.is_ended() {
                return;
            }
            let connected = match stream.take() {
                Some(stream) => Some(stream),
                None => UnixStream::connect(self.folder.control()).await.ok(),
            };
            if let Some(stream) = connected {
                self.read_control(stream).await;
            }
            // The connection's end comes a moment before the lock is let go.
            match self.folder.try_lock() {
                Ok(Some(held)) => {
                    // Whoever has the turn is ending it, and needs the lock that was just taken.
                    if let Ok(_turn) = self.turn.try_lock() {
                        return self.settle(held).await;
                    }
                    drop(held);
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Ok(None) => tokio::time::sleep(TRY_AGAIN).await,
                // The folder was taken away: the session was closed.
                Err(_) => return,
            }
        }
    }

    async fn read_control(&self, stream: UnixStream) {
        let mut lines = BufReader::new(stream).lines();
        let instance = lock(&self.state).instance.clone();
        let mut is_up = None;
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line,
                host = self.until_it_answers(is_up.clone()) => {
                    is_up = None;
                    self.life.send_if_modified(|life| {
                        let changes = *life == Life::Starting;
                        if changes {
                            *life = Life::Running(host);
                        }
                        changes
                    });
                    continue;
                }
            };
            let Ok(Some(line)) = line else { return };
            let Ok(host) = serde_json::from_str::<HostState>(&line) else { continue };
            if host.instance != instance {
                // The folder is another session's by now.
                return;
            }
            is_up = Some(host).filter(|host| host.stage == Stage::Ready);
        }
    }

    /// Waits until the desktop of `host` greets a client on the way that all will take. For ever, if there is none.
    async fn until_it_answers(&self, host: Option<HostState>) -> HostState {
        let Some(host) = host else { return std::future::pending().await };
        *lock(&self.obstacle) = Some("the desktop has not greeted yet".into());
        loop {
            let greeted = async {
                let mut stream = self.connect_to(&host).await?;
                rfb::connect(&mut stream).await.map_err(|error| DesktopError::Mute(error.to_string()))
            };
            let obstacle = match tokio::time::timeout(ANSWER_LIMIT, greeted).await {
                Ok(Ok(_)) => return host,
                Ok(Err(error)) => error,
                Err(_) => DesktopError::Mute("no answer".into()),
            };
            *lock(&self.obstacle) = Some(obstacle.to_string());
            tokio::time::sleep(ANSWER_AGAIN).await;
        }
    }

    /// The session host is gone, its lock and the turn are ours: ends what it left and says why it ended.
    async fn settle(&self, held: File) {
        if self.is_ended() {
            return;
        }
        fault::reach(Point::SettleBegun);
        let reason = match self.end_leftovers().await {
            Ok(reason) => reason,
            Err(left) => left,
        };
        self.record_end(&reason);
        fault::reach(Point::SettleRecorded);
        drop(held);
        self.table().close();
        self.life.send_replace(Life::Ended(reason));
    }

    /// Writes for the session host, which is gone, that the session is over: for agents after us, and so that a session
    /// host that comes too late does not begin. The caller has the lock.
    fn record_end(&self, reason: &str) {
        let instance = lock(&self.state).instance.clone();
        let mut host = self.folder.read_host(&instance).unwrap_or_else(|| HostState::unknown(&instance));
        if matches!(host.stage, Stage::Ended(_)) {
            return;
        }
        host.stage = Stage::Ended(reason.to_owned());
        if let Err(error) = write_json(&self.folder.host(), &host) {
            tracing::warn!(session = self.id, error = &error as &dyn std::error::Error, "the end was not recorded");
        }
    }

    /// Ends whatever of the session runs, and takes its folder away. The caller has its turn.
    ///
    /// # Errors
    /// What could not be ended or taken away.
    pub async fn end(&self) -> Result<(), String> {
        fault::reach(Point::CloseBegun);
        self.table().close();
        let instance = lock(&self.state).instance.clone();
        let held = self.end_host(&instance).await?;
        fault::reach(Point::LockTaken);
        self.end_leftovers().await?;
        fault::reach(Point::LeftoversEnded);
        let folder = self.folder.clone();
        // The lock is let go only when the folder is gone: a session host that starts late finds nothing.
        let removed = tokio::task::spawn_blocking(move || folder.remove(&instance).map(|()| drop(held))).await;
        match removed {
            Ok(Ok(())) => fault::reach(Point::FolderGone),
            Ok(Err(error)) => return Err(format!("the session's folder could not be removed: {error}")),
            Err(error) => return Err(error.to_string()),
        }
        self.life.send_if_modified(|life| {
            let changes = !matches!(life, Life::Ended(_));
            if changes {
                *life = Life::Ended("closed".into());
            }
            changes
        });
        Ok(())
    }

    /// Makes the session host end, if it runs. The answer is its lock; none when the folder is gone already.
    async fn end_host(&self, instance: &str) -> Result<Option<File>, String> {
        let start = tokio::time::Instant::now();
        let (mut asked, mut killed) = (false, false);
        loop {
            match self.folder.try_lock() {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(format!("the session's lock could not be tried: {error}")),
            }
            // One that has just started has not said yet who it is; it will.
            if let Some(host) = self.folder.read_host(instance) {
                if !asked {
                    host.host.signal(Signal::SIGTERM);
                    asked = true;
                    fault::reach(Point::HostTold);
                } else if !killed && start.elapsed() > HOST_END_LIMIT {
                    host.host.signal(Signal::SIGKILL);
                    killed = true;
                }
            }
            if start.elapsed() > 2 * HOST_END_LIMIT {
                return Err("the session host could not be ended".into());
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Ends what runs although no session host does. The answer is why the session ended.
    async fn end_leftovers(&self) -> Result<String, String> {
        let (instance, boot_id, uid) = {
            let state = lock(&self.state);
            (state.instance.clone(), state.boot_id.clone(), state.account.uid)
        };
        if read_boot_id() != boot_id {
            return Ok("the host was restarted".into());
        }
        let host = self.folder.read_host(&instance);
        let recorded = host.as_ref().map(HostState::processes).unwrap_or_default();
        let ended = tokio::task::spawn_blocking(move || process::end_leftovers(&recorded, &instance, uid)).await;
        ended.map_err(|error| error.to_string())??;
        Ok(match host.map(|host| host.stage) {
            Some(Stage::Ended(reason)) => reason,
            Some(_) => "the session host was killed".into(),
            None => CUT_OFF.into(),
        })
    }
}

/// Takes in the session host when it ends, if it is still our child then.
async fn reap(mut child: Child) {
    let _ = child.wait().await;
}

/// Whether systemd runs the machine, and lets us start units.
fn is_under_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir() && nix::unistd::geteuid().is_root()
}

/// The command that starts a session host which outlives the agent.
///
/// Where systemd runs the machine it gets a unit of its own: a unit's processes are ended with the unit, and the agent
/// may be one. Elsewhere a session of its own, which the session host makes itself, is enough.
fn host_command(program: &Path, folder: &Path, instance: &str, under_systemd: bool) -> Command {
    let mut command = if under_systemd {
        let mut command = Command::new("systemd-run");
        command
            .args(["--quiet", "--collect", "--property=KillMode=mixed"])
            .arg(format!("--unit=dcv-operator-session-{instance}"))
            .arg(format!("--setenv={INSTANCE_VARIABLE}={instance}"))
            .arg("--")
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    // What the session host has forked carries the mark before it is a program: the host may be killed in between.
    command.env(INSTANCE_VARIABLE, instance);
    command.arg("session-host").arg("--folder").arg(folder).arg("--instance").arg(instance);
    if let Some(faults) = fault::folder() {
        command.arg("--fault-folder").arg(faults);
    }
    // The root folder: the agent's may be on a file system that is to be unmounted one day.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Number of this start of the machine.
pub(super) fn read_boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_systemd_a_session_host_gets_a_unit_of_its_own() {
        let words = |under_systemd| {
            let command = host_command(Path::new("/bin/it"), Path::new("/run/s"), "1a", under_systemd);
            let command = command.as_std();
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            words.map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(false), "/bin/it session-host --folder /run/s --instance 1a");
        assert_eq!(
            words(true),
            "systemd-run --quiet --collect --property=KillMode=mixed --unit=dcv-operator-session-1a \
             --setenv=DCV_OPERATOR_INSTANCE=1a -- /bin/it session-host --folder /run/s --instance 1a"
        );
    }
}
