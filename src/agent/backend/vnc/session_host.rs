//! The session host: one process per session, which outlives the agent and ends what it has started.
//!
//! It starts the X server, the desktop and the autorun program as the owner, takes in what ends, and ends everything when
//! the X server or the desktop ends, or on TERM. It knows nothing of clients. What it does it writes to `host.json` and tells
//! whoever connects to its control socket. Errors of the programs go to `s/session.log`.
//!
//! The programs are started through [`become_program`](super::program::become_program), a second use of our own binary, because the change of the account
//! must happen in the child, and safe Rust has no way to run our code between fork and exec.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::FcntlArg;
use nix::fcntl::FdFlag;
use nix::fcntl::fcntl;
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Uid;
use nix::unistd::setsid;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;

use super::launch::SEARCH_PATH;
use super::log::Log;
use super::log::Source;
use super::process;
use super::process::INSTANCE_VARIABLE;
use super::process::ProcessId;
use super::state::Folder;
use super::state::HostState;
use super::state::Stage;
use super::state::State;
use super::state::write_json;
use crate::agent::backend::account::Account;
use crate::agent::fault;
use crate::agent::fault::Point;

/// How long the X server may take to be there.
const X_SERVER_LIMIT: Duration = Duration::from_secs(30);
/// How long the desktop is watched for its first window before it is taken to run without one.
const FIRST_CLIENT_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks for the first X client: nothing tells us of it.
const FIRST_CLIENT_TICK: Duration = Duration::from_millis(10);
/// How long after the desktop's end that of the X server is taken for its cause.
const CAUSE_LIMIT: Duration = Duration::from_millis(100);
/// Entry of a cookie file for any host and display ("wild"). Source: `Xau.h`, family 0xffff.
const WILD_COOKIE_HEADER: [u8; 6] = [0xff, 0xff, 0, 0, 0, 0];
const COOKIE_NAME: &[u8] = b"MIT-MAGIC-COOKIE-1";

/// Why a session host did not begin.
#[derive(Debug, thiserror::Error)]
pub enum SessionHostError {
    /// The folder is another's by now, or gone: an agent has cleaned up meanwhile.
    #[error("the session in {} is no longer this one", .0.display())]
    Superseded(PathBuf),
    /// The host said no.
    #[error("failed to {action} in {}", .folder.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The session's folder.
        folder: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Runs the session in `folder`, if it still is the instance named, until it ends. Blocks.
///
/// # Errors
/// When it could not begin; nothing runs then.
pub fn run(folder: &Path, instance: &str) -> Result<(), SessionHostError> {
    let failed = |action| move |source| SessionHostError::Io { action, folder: folder.to_owned(), source };
    close_inherited();
    // Fails where systemd has done it already.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o077));
    let folder_of_session = Folder(folder.to_owned());
    fault::reach(Point::HostBegun);
    // First the lock, then the look: until the lock is ours an agent may take the folder away.
    let lock = match folder_of_session.lock() {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SessionHostError::Superseded(folder.to_owned()));
        }
        Err(error) => return Err(failed("take the lock")(error)),
    };
    let state = folder_of_session.read_state().map_err(failed("read the state"))?;
    // One that has a `host.json` had its session host: an agent took us for dead, and has recorded the end.
    if state.instance != instance || folder_of_session.read_host(instance).is_some() {
        return Err(SessionHostError::Superseded(folder.to_owned()));
    }
    fault::reach(Point::HostLocked);
    prctl::set_child_subreaper(true).map_err(io::Error::from).map_err(failed("become the reaper"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(live(folder_of_session, state)));
    drop(lock);
    outcome.map_err(failed("run the session"))
}

/// Closes what whoever started the agent has let through to us: it would reach the owner's programs. Before anything of
/// our own is open.
fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The one of the list itself is closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// A running session.
struct Host {
    folder: Folder,
    session: State,
    state: HostState,
    listeners: Vec<UnixStream>,
    log: Log,
}

/// What is to be done next, or being waited for.
enum Step {
    /// The X server tells its display.
    Display {
        reader: pipe::Receiver,
        digits: Vec<u8>,
    },
    /// The display is there: make the storage folder, if there is to be one.
    StorageFolder,
    /// This process makes it.
    StorageMaker(i32),
    /// Start the desktop.
    Programs,
    /// A first program uses the display, or none does for a while.
    FirstClient,
    Nothing,
}

/// Lives until the session ends, and ends what is left of it. The result is about the end having been recorded.
async fn live(folder: Folder, session: State) -> io::Result<()> {
    // Before anything is started, so that no end is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = signal(SignalKind::child())?;
    let own = i32::try_from(std::process::id()).ok().and_then(ProcessId::of).ok_or(io::ErrorKind::NotFound)?;
    let mut state = HostState { host: own, ..HostState::unknown(&session.instance) };
    let _ = fs::remove_file(folder.control());
    let control = UnixListener::bind(folder.control())?;
    fault::reach(Point::HostListening);
    write_json(&folder.host(), &state)?;
    fault::reach(Point::HostRecorded);
    let log = match prepare_owned(&folder, &session).and_then(Log::new) {
        Ok(log) => log,
        Err(error) => {
            state.stage = Stage::Ended(format!("the owner's folder could not be made: {error}"));
            return write_json(&folder.host(), &state);
        }
    };
    fault::reach(Point::OwnedMade);
    let mut host = Host { folder, session, state, listeners: Vec::new(), log };
    let mut step = match host.start_x_server() {
        Ok(reader) => Step::Display { reader, digits: Vec::new() },
        Err(error) => {
            host.end(&format!("the X server could not be started: {error}"));
            return Ok(());
        }
    };
    let mut deadline = Instant::now() + X_SERVER_LIMIT;
    let mut tick = tokio::time::interval(FIRST_CLIENT_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reason = loop {
        tokio::select! {
            // In this order: a program that floods its log must not keep the session from ending.
            biased;
            _ = terminate.recv() => break "closed".to_owned(),
            _ = child.recv() => {
                if let Some(mut reason) = host.reap(&mut step) {
                    if reason.0 == Source::Programs {
                        // A desktop whose X server dies can be gone before it.
                        tokio::time::sleep(CAUSE_LIMIT).await;
                        reason = host.reap(&mut step).unwrap_or(reason);
                    }
                    // What it said last may still be in the pipe.
                    host.log.drain();
                    break host.explain(reason);
                }
            }
            Ok((stream, _)) = control.accept() => host.greet(stream),
            read = read_display(&mut step) => match read {
                Ok(None) => {}
                Ok(Some(display)) => {
                    host.state.display = Some(display);
                    fault::reach(Point::DisplayTold);
                    step = Step::StorageFolder;
                }
                // The end of the X server comes as a signal.
                Err(_) => step = Step::Nothing,
            },
            () = tokio::time::sleep_until(deadline), if matches!(step, Step::Display { .. }) => {
                break host.explain((Source::XServer, "the X server did not start in time".into()));
            }
            _ = tick.tick(), if matches!(step, Step::FirstClient) => {
                if Instant::now() >= deadline || host.has_client() {
                    step = Step::Nothing;
                    fault::reach(Point::DesktopUp);
                    host.state.stage = Stage::Ready;
                    host.publish();
                    fault::reach(Point::DesktopTold);
                }
            }
            () = host.log.collect() => {}
        }
        if matches!(step, Step::StorageFolder) {
            match host.start_storage() {
                Ok(next) => step = next,
                Err(error) => break format!("the storage folder could not be made: {error}"),
            }
        }
        if !matches!(step, Step::Programs) {
            continue;
        }
        match host.start_programs() {
            Ok(()) => step = Step::FirstClient,
            Err(error) => break format!("the desktop could not be started: {error}"),
        }
        deadline = Instant::now() + FIRST_CLIENT_LIMIT;
        host.publish();
    };
    host.end(&reason);
    Ok(())
}

/// The owner's folder, and the log in it, which is opened while the folder is still ours: later a link could be there.
fn prepare_owned(folder: &Folder, session: &State) -> io::Result<File> {
    let owned = folder.owned();
    let give = |path: &Path| {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        chown(path, Some(session.account.uid), Some(session.account.gid))
    };
    fs::DirBuilder::new().mode(0o700).create(&owned)?;
    fs::DirBuilder::new().mode(0o700).create(owned.join("run"))?;
    let create = |name: &str| File::options().create_new(true).write(true).mode(0o600).open(owned.join(name));
    let mut xauth = create("xauth")?;
    let cookie = hex::decode(&session.cookie).map_err(io::Error::other)?;
    xauth.write_all(&WILD_COOKIE_HEADER)?;
    for part in [COOKIE_NAME, &cookie] {
        xauth.write_all(&u16::try_from(part.len()).map_err(io::Error::other)?.to_be_bytes())?;
        xauth.write_all(part)?;
    }
    let log = create("session.log")?;
    for name in ["run", "xauth", "session.log"] {
        give(&owned.join(name))?;
    }
    give(&owned)?;
    Ok(log)
}

/// Reads the display's number, if that is what is waited for: `None` while it is not whole, for ever otherwise.
async fn read_display(step: &mut Step) -> io::Result<Option<u32>> {
    let Step::Display { reader, digits } = step else { return std::future::pending().await };
    let byte = reader.read_u8().await?;
    if byte != b'\n' {
        digits.push(byte);
        return if digits.len() > 10 { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
    }
    let text = String::from_utf8_lossy(digits);
    text.trim().parse().map(Some).map_err(io::Error::other)
}

impl Host {
    /// The command that becomes `program` as the owner, with a clean environment.
    fn command<S: AsRef<OsStr>>(&self, make_folder: Option<&Path>, program: &[S]) -> io::Result<Command> {
        let Account { name, uid, gid, groups, home, shell } = &self.session.account;
        let mut command = Command::new("/proc/self/exe");
        command.arg("session-host").arg("--directory").arg(home);
        if Uid::effective().is_root() {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            command.arg("--run-as").arg(format!("{uid}:{gid}:{}", groups.join(",")));
        }
        if let Some(path) = make_folder {
            command.arg("--make-folder").arg(path);
        }
        if let Some(faults) = fault::folder() {
            command.arg("--fault-folder").arg(faults);
        }
        command.arg("--").args(program);
        let owned = self.folder.owned();
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        let runtime = if fs::metadata(&usual).is_ok_and(|folder| folder.is_dir() && folder.uid() == *uid) {
            usual
        } else {
            owned.join("run")
        };
        command
            .env_clear()
            .env("HOME", home)
            .env("USER", name)
            .env("LOGNAME", name)
            .env("SHELL", shell)
            .env("PATH", SEARCH_PATH)
            .env("LANG", "C.UTF-8")
            .env("XAUTHORITY", owned.join("xauth"))
            .env("XDG_RUNTIME_DIR", runtime)
            .env("XDG_SESSION_TYPE", "x11")
            .env("DCV_SESSION_ID", &self.session.order.id)
            .env(INSTANCE_VARIABLE, &self.session.instance);
        if let Some(display) = self.state.display {
            command.env("DISPLAY", format!(":{display}"));
        }
        // Before the display is there, it is the X server that starts.
        let source = if self.state.display.is_none() { Source::XServer } else { Source::Programs };
        command.stdin(Stdio::null()).stdout(self.log.writer(source)?).stderr(self.log.writer(source)?);
        Ok(command)
    }

    /// Starts it; the standard library never waits for it, [`Host::reap`] does.
    fn spawn<S: AsRef<OsStr>>(&self, make_folder: Option<&Path>, program: &[S]) -> io::Result<ProcessId> {
        let child = self.command(make_folder, program)?.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // One that has ended already is a zombie with no start time; its signal is on the way.
        Ok(ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }))
    }

    /// Starts the X server; the answer is where its display's number comes.
    fn start_x_server(&mut self) -> io::Result<pipe::Receiver> {
        let (reader, writer) = io::pipe()?;
        // Inherited by this one child only: the pipe is closed here before another is started.
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let launch = &self.session.launch;
        let owned = self.folder.owned();
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(io::ErrorKind::InvalidInput);
        let (program, rfb, xauth) = (text(&launch.x_server)?, text(&self.folder.rfb())?, text(&owned.join("xauth"))?);
        let name: String = self.session.order.display_name.chars().filter(|c| !c.is_control()).collect();
        let fd = writer.as_raw_fd().to_string();
        // Each option has its reason. Never `-nolisten local`: free displays are found by the abstract socket, and
        // without it every server takes :0. Without a limit of its own on handshakes, as all clients are one "host".
        let words = [
            program.as_str(),
            "-displayfd",
            &fd,
            "-rfbport",
            "-1",
            "-rfbunixpath",
            &rfb,
            "-rfbunixmode",
            "0600",
            "-SecurityTypes",
            "None",
            "-UseBlacklist=0",
            "-AlwaysShared",
            "-desktop",
            if name.is_empty() { &self.session.order.id } else { &name },
            "-geometry",
            &launch.geometry,
            "-depth",
            "24",
            "-auth",
            &xauth,
            "-nolisten",
            "tcp",
            "-noreset",
            "-s",
            "0",
        ];
        let id = self.spawn(None, &words)?;
        drop(writer);
        fault::reach(Point::XServerSpawned);
        self.state.x_server = Some(id);
        self.publish();
        pipe::Receiver::from_owned_fd(reader.into())
    }

    fn start_storage(&self) -> io::Result<Step> {
        match &self.session.launch.storage_root {
            Some(path) => {
                let maker = self.spawn::<&str>(Some(path), &[])?;
                fault::reach(Point::StorageBegun);
                Ok(Step::StorageMaker(maker.pid))
            }
            None => Ok(Step::Programs),
        }
    }

    fn start_programs(&mut self) -> io::Result<()> {
        let launch = self.session.launch.clone();
        let desktop = self.spawn(None, &launch.desktop)?;
        self.state.programs.push(desktop);
        fault::reach(Point::DesktopSpawned);
        if let Some(autorun) = &launch.autorun {
            let autorun = self.spawn(None, autorun)?;
            self.state.programs.push(autorun);
        }
        fault::reach(Point::ProgramsSpawned);
        Ok(())
    }

    /// Takes in what has ended. The answer is why the session ends, if it does.
    fn reap(&self, step: &mut Step) -> Option<(Source, String)> {
        let mut reason = None;
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, how) = match status {
                WaitStatus::Exited(pid, 0) => (pid.as_raw(), "by itself".to_owned()),
                WaitStatus::Exited(pid, code) => (pid.as_raw(), format!("with exit code {code}")),
                WaitStatus::Signaled(pid, signal, _) => (pid.as_raw(), format!("by {signal}")),
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            if self.state.x_server.is_some_and(|id| id.pid == pid) {
                reason = Some((Source::XServer, format!("the X server ended {how}")));
            } else if self.state.programs.first().is_some_and(|id| id.pid == pid) {
                reason = reason.or(Some((Source::Programs, format!("the desktop ended {how}"))));
            } else if matches!(step, Step::StorageMaker(maker) if *maker == pid) {
                match status {
                    WaitStatus::Exited(_, 0) => *step = Step::Programs,
                    _ => reason = reason.or(Some((Source::Programs, "the storage folder could not be made".into()))),
                }
            }
        }
        reason
    }

    /// The reason, with what its source printed last while the session is not up: that is likely to say why.
    fn explain(&mut self, (source, reason): (Source, String)) -> String {
        let lines = self.log.last_lines(source);
        if self.state.stage == Stage::Ready || lines.is_empty() { reason } else { format!("{reason}: {lines}") }
    }

    /// Whether a program has opened the display: the kernel's list has a connected socket of its name.
    fn has_client(&self) -> bool {
        let Some(display) = self.state.display else { return false };
        fs::read_to_string("/proc/net/unix").is_ok_and(|list| is_connected(&list, display))
    }

    /// Tells a new listener how far the session is.
    fn greet(&mut self, stream: UnixStream) {
        if tell(&stream, &self.state) {
            self.listeners.push(stream);
        }
    }

    /// Writes and tells how far the session is.
    fn publish(&mut self) {
        if let Err(error) = write_json(&self.folder.host(), &self.state) {
            self.log.note(&format!("host.json could not be written: {error}"));
        }
        let state = &self.state;
        self.listeners.retain(|stream| tell(stream, state));
    }

    /// Ends everything and records why.
    fn end(&mut self, reason: &str) {
        fault::reach(Point::EndBegun);
        let reap = || {
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
        };
        let reason = match process::end_descendants(reap) {
            Ok(()) => reason.to_owned(),
            Err(left) => format!("{reason}; {left}"),
        };
        fault::reach(Point::AllEnded);
        self.log.note(&format!("session over: {reason}"));
        self.state.stage = Stage::Ended(reason);
        self.publish();
        fault::reach(Point::EndRecorded);
    }
}

/// One line of JSON. Listeners read at once; one whose buffer is full is none.
fn tell(stream: &UnixStream, state: &HostState) -> bool {
    let mut line = serde_json::to_vec(state).unwrap_or_default();
    line.push(b'\n');
    stream.try_write(&line).is_ok_and(|count| count == line.len())
}

/// Whether `/proc/net/unix` lists a connection to the display. Its sixth field is the
/// state, 03 is connected; the eighth is the path.
fn is_connected(list: &str, display: u32) -> bool {
    let path = format!("/tmp/.X11-unix/X{display}");
    list.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(5);
        let (state, name) = (fields.next(), fields.nth(1));
        state == Some("03") && name.is_some_and(|name| name.strip_prefix('@').unwrap_or(name) == path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_the_display_is_told_from_a_listener_and_from_other_displays() {
        let listening = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            00000000a: 00000002 00000000 00010000 0001 01 101 @/tmp/.X11-unix/X1\n\
            00000000b: 00000003 00000000 00000000 0001 03 102 @/tmp/.X11-unix/X12\n\
            00000000c: 00000003 00000000 00000000 0001 03 103\n";
        assert!(!is_connected(listening, 1));
        assert!(is_connected(listening, 12));
        assert!(is_connected(&format!("{listening}d: 3 0 0 1 03 104 /tmp/.X11-unix/X1\n"), 1));
    }
}
