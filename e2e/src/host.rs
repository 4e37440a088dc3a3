//! What runs on this machine: the truth about desktops, read from /proc and /run.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use nix::unistd::SysconfVar;
use nix::unistd::sysconf;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line, words joined by blanks.
    pub command: String,
}

/// Everything that runs for the session `id`: what has it in its command line or environment.
pub fn processes_of(id: &str) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc can be read").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environment = read("environ");
        let mentions = command.contains(id) || String::from_utf8_lossy(&environment).contains(id);
        if mentions && is_alive(pid) {
            found.push(Process { pid, command });
        }
    }
    found
}

/// X servers of the session `id`.
pub fn x_servers_of(id: &str) -> Vec<Process> {
    eldest(processes_of(id).into_iter().filter(|process| program(&process.command) == "Xtigervnc").collect())
}

/// Those that no other of them has forked: what was just forked looks like its parent.
fn eldest(mut found: Vec<Process>) -> Vec<Process> {
    let pids: Vec<i32> = found.iter().map(|one| one.pid).collect();
    found.retain(|one| !parent_of(one.pid).is_some_and(|parent| pids.contains(&parent)));
    found
}

/// Session hosts of the session `id`, without what is yet to become a program of it.
pub fn session_hosts_of(id: &str) -> Vec<Process> {
    eldest(processes_of(id).into_iter().filter(|process| process.command.contains(" session-host --folder ")).collect())
}

/// Last part of the path of the program.
fn program(command: &str) -> &str {
    let path = command.split(' ').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// Folder of the session `id` of `server`.
pub fn session_folder(server: &str, id: &str) -> PathBuf {
    Path::new("/run/dcv-operator/vnc").join(server).join(id)
}

/// What is left of the session `id` of `server`: processes and folder. Empty: nothing.
pub fn remains_of(server: &str, id: &str) -> Vec<String> {
    let mut remains: Vec<_> =
        processes_of(id).into_iter().map(|process| format!("{} {}", process.pid, process.command)).collect();
    let folder = session_folder(server, id);
    if folder.exists() {
        remains.push(folder.display().to_string());
    }
    remains
}

/// Parent of a process, if it is there.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Whether a process runs; one that has ended and was not collected by its parent does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; what follows the last one is regular.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Memory that a process has, shared pages too, in MiB.
pub fn resident_mib(pid: i32) -> f64 {
    memory_mib(pid, "VmRSS:")
}

/// Memory that is a process's own, without pages of files, in MiB.
pub fn own_mib(pid: i32) -> f64 {
    memory_mib(pid, "RssAnon:")
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn memory_mib(pid: i32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect("every process has some");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of kB");
    kilobytes as f64 / 1024.0
}

/// Processor time that a process has used so far, in seconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn processor_seconds(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, rest) = stat.rsplit_once(')').expect("the name is in parentheses");
    // User and system time: fields 14 and 15 of proc(5), of which two lie before the parenthesis.
    let ticks = rest.split_whitespace().skip(11).take(2).map(|word| word.parse::<u64>().expect("a number of ticks"));
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("it is known");
    ticks.sum::<u64>() as f64 / ticks_per_second as f64
}

/// Part of one processor that a process takes over this time, in percent.
pub async fn processor_percent(pid: i32, time: Duration) -> f64 {
    let before = processor_seconds(pid);
    tokio::time::sleep(time).await;
    (processor_seconds(pid) - before) / time.as_secs_f64() * 100.0
}

/// Sends `signal`; a process that is gone already is none of the caller's business.
pub fn signal(pid: i32, signal: Signal) {
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

/// Ends a process with SIGKILL.
pub fn kill(process: &Process) {
    signal(process.pid, Signal::SIGKILL);
}
