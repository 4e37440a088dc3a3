//! `dcv-operator init` as PID 1, with real desktops: in a PID namespace of its own, as in a container.

use std::process::Stdio;

use tokio::process::Child;
use tokio::process::Command;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::agents::AgentListener;
use crate::host::HostProcess;
use crate::host::TestHost;
use crate::host::order;
use crate::host::parent_of;
use crate::host::until;

/// Starts `init` with an agent of `host` below it.
fn start(host: &TestHost) -> Child {
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
        env!("CARGO_BIN_EXE_dcv-operator"),
        "init",
        "--",
    ]);
    AgentListener::add_command(&mut command, host);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// The one process that says `word` and is no agent's.
fn one(host: &TestHost, word: &str) -> HostProcess {
    let found = host.processes_with(word);
    assert_eq!(found.len(), 1, "{word}: {found:?}");
    found.into_iter().next().unwrap()
}

/// Processes below `parent` that have ended and that nobody has taken in.
fn zombies_of(parent: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    children.filter(|pid| !HostProcess { pid: *pid, command: String::new() }.is_alive()).collect()
}

#[tokio::test]
async fn as_pid_1_it_restarts_the_agent_without_ending_desktops_and_ends_them_with_itself() {
    let host = TestHost::new();
    host.program("init/desk.sh", "(sleep 0.2 & exit); exec xterm");
    let listener = AgentListener::bind(&host);
    let mut unshare = start(&host);
    let (mut agent, pid) = listener.accept().await;
    agent = agent.opened().await;
    assert_eq!(agent.create(&order("one", "ann", Some("desk.sh"))).await, Ok(()));
    let server = one(&host, "Xtigervnc");
    let init = parent_of(pid).unwrap();

    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let (agent, second) = listener.accept().await;
    let mut agent = agent.opened().await;
    assert_ne!(second, pid);
    assert_eq!(parent_of(second), Some(init), "it is the same init");
    let listed = agent.list().await;
    assert!(matches!(&listed[..], [one] if one.is_running), "{listed:?}");
    assert_eq!(one(&host, "Xtigervnc"), server, "the desktop has not noticed");
    until("nobody waits to be taken in", async || zombies_of(init).is_empty()).await;

    assert_eq!(agent.create(&order("two", "ann", Some("plain.sh"))).await, Ok(()));
    assert_eq!(agent.close("two").await, Ok(()));
    until("what was closed was taken in", async || zombies_of(init).is_empty()).await;

    kill(Pid::from_raw(init), Signal::SIGTERM).unwrap();
    let status = tokio::time::timeout(std::time::Duration::from_secs(30), unshare.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(host.processes(), []);
}
