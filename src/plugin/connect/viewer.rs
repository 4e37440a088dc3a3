//! A VNC viewer of this machine on a session's desktop.
//!
//! The viewer gets a Unix socket in a folder that nobody else can enter, and speaks there without a password. Socket and
//! folder are gone with the viewer; what it has connected goes when this ends, however it ends.

use std::fs;
use std::future::Future;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use nix::unistd::mkdtemp;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::process::Command;

use super::Error;
use super::bridge;
use super::bridge::BridgeError;
use super::bridge::Desktop;

/// How long a viewer that is told to end may take.
const END_LIMIT: Duration = Duration::from_secs(3);

/// How a viewer's visit ended.
#[derive(Debug)]
pub(super) enum Viewed {
    /// The viewer has ended.
    Closed(ExitStatus),
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// A folder of our own that goes with this.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        Ok(Self(mkdtemp(&std::env::temp_dir().join("kubectl-dcv-XXXXXX"))?))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `program` on the desktop until it ends, or `stop` does.
///
/// # Errors
/// When there is no desktop for it, or it cannot be run.
pub(super) async fn view(program: &Path, desktop: &Desktop, stop: impl Future<Output = ()>) -> Result<Viewed, Error> {
    // Before a window opens: whoever is not let in is told here.
    let mut ready = Some(desktop.connect().await?);
    let folder = Folder::make().map_err(Error::Socket)?;
    let socket = folder.0.join("vnc.sock");
    let listener = UnixListener::bind(&socket).map_err(Error::Socket)?;
    let mut viewer = start(program, &socket)?;
    let mut stop = pin!(stop);
    loop {
        // One at a time; a viewer that was cut off may connect again.
        let visit = async {
            let (stream, _) = listener.accept().await.map_err(Error::Socket)?;
            let outcome = match ready.take() {
                Some(connected) => bridge::carry(stream, connected).await,
                None => again(desktop, stream).await,
            };
            Ok::<_, Error>(outcome)
        };
        tokio::select! {
            // A goodbye is told before the viewer's end, which follows from it.
            biased;
            outcome = visit => if let Err(error) = outcome? {
                let _ = writeln!(io::stderr(), "{error}");
            },
            status = viewer.wait() => return status.map(Viewed::Closed).map_err(|source| failed(program, source)),
            () = &mut stop => {
                end(&mut viewer).await;
                return Ok(Viewed::Interrupted);
            }
        }
    }
}

async fn again(desktop: &Desktop, stream: UnixStream) -> Result<(), BridgeError> {
    bridge::carry(stream, desktop.connect().await?).await
}

fn start(program: &Path, socket: &Path) -> Result<Child, Error> {
    let mut command = Command::new(program);
    // What it prints is talk.
    command.arg(socket).stdin(Stdio::null()).stdout(io::stderr()).kill_on_drop(true);
    command.spawn().map_err(|source| failed(program, source))
}

fn failed(program: &Path, source: io::Error) -> Error {
    Error::Program { program: program.display().to_string(), source }
}

async fn end(viewer: &mut Child) {
    if let Some(pid) = viewer.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    // Dropping it kills it, if it is still there then.
    let _ = tokio::time::timeout(END_LIMIT, viewer.wait()).await;
}
