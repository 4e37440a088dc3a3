//! PID 1 of a container: starts the agent, starts it anew whenever it ends, and takes in processes whose parent is gone.
//!
//! So the end of an agent is not the end of its container, and desktops outlive it as they do on any host. On TERM or INT the
//! container ends: the agent first, then everything else, desktops too.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::signal::unix::Signal as Signals;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::Instant;

use super::backend::vnc::end_descendants;

/// Pause before the agent is started anew: the first one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An agent that lived so long has not failed at its start.
const STEADY: Duration = Duration::from_mins(1);
/// Time the agent has to end when the container does.
const AGENT_END_LIMIT: Duration = Duration::from_secs(10);

/// Keeps `command` running until TERM or INT, and then ends everything.
///
/// # Errors
/// When the command cannot be started at all, or something could not be ended.
pub async fn run(command: &[OsString]) -> io::Result<()> {
    // Before anything is started, so that no end is missed.
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked_to_end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(asked_to_end);
    // Where we are not PID 1, what has lost its parent comes to us all the same.
    prctl::set_child_subreaper(true)?;
    let mut agent = start(command)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let how = tokio::select! {
            how = until_ended(agent, &mut children) => how,
            () = &mut asked_to_end => break,
        };
        pause = next_pause(pause, began.elapsed());
        tracing::warn!(how, pause = ?pause, "the agent ended; it is started anew");
        let pausing = async {
            tokio::time::sleep(pause).await;
            loop {
                match start(command) {
                    Ok(pid) => break pid,
                    Err(error) => tracing::error!(%error, "the agent cannot be started"),
                }
                tokio::time::sleep(LONGEST_PAUSE).await;
            }
        };
        agent = tokio::select! {
            pid = pausing => pid,
            () = &mut asked_to_end => break,
            never = take_in(&mut children) => match never {},
        };
    }
    tracing::info!("ending: the agent first, then the desktops");
    let _ = kill(agent, Signal::SIGTERM);
    let _ = tokio::time::timeout(AGENT_END_LIMIT, until_ended(agent, &mut children)).await;
    let ended = tokio::task::spawn_blocking(|| end_descendants(|| drop(reap(None)))).await;
    ended.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// The standard library never waits for it, [`reap`] does.
fn start(command: &[OsString]) -> io::Result<Pid> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program).args(arguments).spawn()?;
    tracing::info!(pid = child.id(), "the agent was started");
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

/// The pause after one of `last`, for an agent that has `lived` so long.
fn next_pause(last: Duration, lived: Duration) -> Duration {
    if lived >= STEADY { FIRST_PAUSE } else { (last * 2).min(LONGEST_PAUSE) }
}

/// Takes in whatever ends, until `agent` has. The answer is how.
async fn until_ended(agent: Pid, children: &mut Signals) -> String {
    loop {
        if let Some(how) = reap(Some(agent)) {
            return how;
        }
        children.recv().await;
    }
}

/// Takes in whatever ends, for ever.
async fn take_in(children: &mut Signals) -> Infallible {
    loop {
        reap(None);
        children.recv().await;
    }
}

/// Takes in all that has ended. The answer is how `agent` has, if it was among them.
fn reap(agent: Option<Pid>) -> Option<String> {
    let mut how = None;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        let text = match status {
            WaitStatus::StillAlive => break,
            WaitStatus::Exited(_, code) => format!("with exit code {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("by {signal}"),
            _ => continue,
        };
        if status.pid() == agent {
            how = Some(text);
        }
    }
    how
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_the_agent_does_not_live_long() {
        let short = Duration::from_secs(1);
        assert_eq!(next_pause(FIRST_PAUSE, short), 2 * FIRST_PAUSE);
        assert_eq!(next_pause(Duration::from_secs(20), short), LONGEST_PAUSE);
        assert_eq!(next_pause(LONGEST_PAUSE, STEADY), FIRST_PAUSE);
    }
}
