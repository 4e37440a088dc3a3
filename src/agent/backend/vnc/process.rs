//! Processes of a session: which are surely its own, and ending them.
//!
//! A process is known by pid **and** start time, as pids are used again. What is not surely of the session is not touched.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Deserialize;
use serde::Serialize;

/// Variable in the environment of everything a session starts: its instance, a number nobody can guess.
pub(super) const INSTANCE_VARIABLE: &str = "DCV_OPERATOR_INSTANCE";

/// Time between TERM and KILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// Time after which what cannot be killed is given up.
const KILL_LIMIT: Duration = Duration::from_secs(12);
/// Between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One process, distinct from all that had or will have its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since the start of the machine.
    pub start_time: u64,
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: ProcessId,
    parent: i32,
}

impl ProcessId {
    /// The process that has `pid` now; none if it has ended, reaped or not.
    pub fn of(pid: i32) -> Option<Self> {
        read(pid).map(|process| process.id)
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends `signal` if it still runs.
    pub fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may have ended since, or belong to somebody the unprivileged agent may not signal: the caller looks again.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

fn read(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/<pid>/stat`; none for a zombie. Source: proc(5). The name may hold blanks and parentheses.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    let start_time = fields.get(19)?.parse().ok()?;
    Some(Process { id: ProcessId { pid, start_time }, parent: fields.get(1)?.parse().ok()? })
}

fn read_all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// `roots` that live, and everything below them.
fn with_descendants(roots: &[ProcessId], all: &[Process]) -> Vec<ProcessId> {
    let mut found: Vec<ProcessId> = all.iter().map(|process| process.id).filter(|id| roots.contains(id)).collect();
    let mut known: HashSet<i32> = found.iter().map(|id| id.pid).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|id| id.pid) {
        next += 1;
        for child in all.iter().filter(|process| process.parent == parent) {
            if known.insert(child.id.pid) {
                found.push(child.id);
            }
        }
    }
    found
}

/// Whether a process carries the instance in its environment, and is of the session's account or of root.
///
/// Root's are those that were about to become the account when the session host was killed, and what the account has
/// started by `sudo`. Others' are not touched: the account could lend them the variable.
fn is_marked(id: ProcessId, entry: &str, uid: u32) -> bool {
    let folder = format!("/proc/{}", id.pid);
    // The account is read from the status: the folder of a process that hides from its account is root's.
    let Ok(status) = fs::read_to_string(format!("{folder}/status")) else { return false };
    if !real_uid(&status).is_some_and(|real| real == uid || real == 0) || is_ourselves(id) {
        return false;
    }
    fs::read(format!("{folder}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes()))
}

/// The first of the four numbers of the line `Uid:` in `/proc/<pid>/status`. Source: proc(5).
fn real_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())
}

fn is_ourselves(id: ProcessId) -> bool {
    u32::try_from(id.pid) == Ok(std::process::id())
}

/// Ends everything below this process: TERM, after two seconds KILL, again and again until nothing is left. `reap` takes
/// in children that have ended.
pub(in crate::agent) fn end_descendants(mut reap: impl FnMut()) -> Result<(), String> {
    let Some(own) = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0)) else { return Ok(()) };
    end(1, |all| {
        reap();
        with_descendants(&[own], all).into_iter().filter(|id| *id != own).collect()
    })
}

/// Ends what a session host has left behind that did not live to do it: the processes it had recorded, all below them,
/// and all that carry its instance and are of its account.
pub(super) fn end_leftovers(recorded: &[ProcessId], instance: &str, uid: u32) -> Result<(), String> {
    let entry = format!("{INSTANCE_VARIABLE}={instance}");
    // Looked at twice: one that was being started during the first look is there at the second.
    end(2, |all| {
        let mut roots: Vec<ProcessId> = recorded.to_vec();
        roots.extend(all.iter().map(|process| process.id).filter(|id| is_marked(*id, &entry, uid)));
        with_descendants(&roots, all)
    })
}

/// Ends what `select` finds, until it has found nothing `looks` times in a row.
fn end(looks: u32, mut select: impl FnMut(&[Process]) -> Vec<ProcessId>) -> Result<(), String> {
    let start = Instant::now();
    let mut asked = HashSet::new();
    let mut clean = 0;
    loop {
        let left = select(&read_all());
        clean = if left.is_empty() { clean + 1 } else { 0 };
        if clean == looks {
            return Ok(());
        }
        if let Some(id) = left.first()
            && start.elapsed() > KILL_LIMIT
        {
            return Err(format!("process {} could not be ended", id.pid));
        }
        for id in left {
            if start.elapsed() >= TERM_GRACE {
                id.signal(Signal::SIGKILL);
            } else if asked.insert(id) {
                id.signal(Signal::SIGTERM);
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_is_read() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1000 10 18446744073709551615";
        let expected = Process { id: ProcessId { pid: 42, start_time: 987_654 }, parent: 7 };
        assert_eq!(parse_stat(42, stat), Some(expected));
        assert_eq!(parse_stat(42, &stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_stat(42, "42 (a"), None);
        assert_eq!(parse_stat(42, ""), None);
    }

    #[test]
    fn the_account_is_the_real_one() {
        assert_eq!(real_uid("Name:\tsudo\nUid:\t1001\t0\t0\t0\nGid:\t1\t1\t1\t1\n"), Some(1001));
        assert_eq!(real_uid("Name:\tx\n"), None);
    }

    #[test]
    fn a_pid_that_was_used_again_is_not_touched() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        let earlier = ProcessId { start_time: id.start_time - 1, ..id };
        end_leftovers(&[earlier], "nobody", 0).unwrap();
        assert!(id.is_alive());
        child.kill().unwrap();
        // A kill takes effect a moment later; what is left until `wait` is a zombie, which does not run.
        let start = Instant::now();
        while id.is_alive() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(LOOK_AGAIN);
        }
        child.wait().unwrap();
    }

    #[test]
    fn what_is_marked_is_ended_with_all_below_it_and_nothing_else() {
        let uid = nix::unistd::getuid().as_raw();
        let spawn = |instance: &str| {
            // A shell that ignores TERM, with a child that has a clean environment.
            let script = "trap '' TERM; env -i sleep 61 & echo started; wait; wait";
            let mut child = Command::new("sh")
                .args(["-c", script])
                .env(INSTANCE_VARIABLE, instance)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = [0; 8];
            std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
            (ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap(), child)
        };
        let ((ours, mut our_child), (other, mut other_child)) = (spawn("1a"), spawn("1b"));
        let waiter = std::thread::spawn(move || our_child.wait().unwrap());
        end_leftovers(&[], "1a", uid).unwrap();
        assert!(!ours.is_alive());
        assert!(other.is_alive());
        waiter.join().unwrap();
        for id in with_descendants(&[other], &read_all()) {
            id.signal(Signal::SIGKILL);
        }
        other_child.wait().unwrap();
    }
}
