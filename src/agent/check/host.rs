//! What every host needs, whatever runs its sessions.

use super::Finding;
use super::Level;
use super::TAGS;
use super::read::Folder;
use super::read::SetUp;
use super::read::Space;

/// Less room than this is told: downloads and profiles of desktops fail first.
const LITTLE_SPACE_BYTES: u64 = 1 << 30;
/// Most names in a message.
const MAX_NAMES: usize = 5;

/// What is to be said.
pub fn findings(set_up: &SetUp) -> Vec<Finding> {
    let mut findings: Vec<_> = set_up.program_folders.iter().map(|(check, folder)| programs(check, folder)).collect();
    findings.push(tags(set_up));
    findings.push(state(&set_up.state));
    findings.extend(set_up.logs.as_ref().map(logs));
    findings.push(storage(set_up.space.as_ref()));
    findings.push(names(set_up.has_name_service));
    findings.push(clock(set_up.time_service));
    findings
}

fn programs(check: &'static str, folder: &Folder) -> Finding {
    let path = folder.path.display();
    if !folder.path.is_absolute() {
        return Finding::bad(Level::Problem, check, format!("{path} is not absolute"), "set a path that starts with /");
    }
    let Some((owner, mode)) = folder.owner_and_mode else {
        let message = format!("{path} is not there: no session can name a program of it");
        return Finding::bad(
            Level::Note,
            check,
            message,
            format!("if sessions are to name programs: install -d -m 0755 {path}"),
        );
    };
    if mode & 0o022 != 0 || owner != 0 {
        let message = format!("others than root may put programs into {path} (owner {owner}, mode {mode:04o})");
        return Finding::bad(Level::Problem, check, message, format!("chown root: {path} && chmod go-w {path}"));
    }
    if mode & 0o001 == 0 {
        let message =
            format!("people may not enter {path} (mode {mode:04o}), so their sessions cannot run its programs");
        return Finding::bad(Level::Warning, check, message, format!("chmod 0755 {path}"));
    }
    if folder.not_executable.is_empty() {
        return Finding::ok(check, path.to_string());
    }
    let files = some(&folder.not_executable);
    let message = format!("files in {path} that nobody may run: {files}");
    Finding::bad(Level::Warning, check, message, "chmod 0755 what sessions are to run, and move the rest elsewhere")
}

fn some(names: &[String]) -> String {
    let more = if names.len() > MAX_NAMES { ", ..." } else { "" };
    format!("{}{more}", names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", "))
}

fn tags(set_up: &SetUp) -> Finding {
    let (folder, tags) = &set_up.tags;
    let folder = folder.display();
    match tags {
        None => Finding::ok(TAGS, format!("none, as {folder} is not there")),
        Some(Ok(count)) => Finding::ok(TAGS, format!("{count} in {folder}")),
        Some(Err(fault)) => {
            Finding::bad(Level::Problem, TAGS, fault, "mend the file; until then the last good tags stay")
        }
    }
}

fn state(folder: &Folder) -> Finding {
    let path = folder.path.display();
    match (folder.is_in_memory, folder.owner_and_mode) {
        (_, Some((_, mode))) if mode & 0o022 != 0 => {
            let message = format!("{path} can be changed by others (mode {mode:04o})");
            Finding::bad(Level::Problem, "StateFolder", message, format!("chmod 0755 {path}"))
        }
        (Some(false), _) => {
            let message =
                format!("{path} is not in memory: what it says of sessions may outlive a restart of the host");
            Finding::bad(
                Level::Warning,
                "StateFolder",
                message,
                "mount a tmpfs on /run, or set --state-folder to a folder that is in memory",
            )
        }
        _ => Finding::ok("StateFolder", path.to_string()),
    }
}

fn logs(folder: &Folder) -> Finding {
    let path = folder.path.display();
    match folder.owner_and_mode {
        None => Finding::bad(Level::Note, "LogDirectory", format!("{path} is not there yet"), "the agent makes it"),
        Some((_, mode)) if mode & 0o002 != 0 => {
            let message = format!("everybody may change the logs in {path} (mode {mode:04o})");
            Finding::bad(Level::Warning, "LogDirectory", message, format!("chmod o-w {path}"))
        }
        Some(_) => Finding::ok("LogDirectory", path.to_string()),
    }
}

fn storage(space: Option<&Space>) -> Finding {
    let Some(space) = space else {
        let message = "/home is not there: a StorageRoot of %home% cannot be made";
        return Finding::bad(Level::Warning, "Storage", message, "mount the folder that has the homes of people");
    };
    let gib = |bytes: u64| {
        let tenths = u128::from(bytes) * 10 / (1 << 30);
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    };
    let message = format!("{} of {} free in {}", gib(space.free_bytes), gib(space.total_bytes), space.path.display());
    if space.free_bytes < LITTLE_SPACE_BYTES {
        return Finding::bad(Level::Warning, "Storage", message, "make room: desktops fail to start without");
    }
    Finding::ok("Storage", message)
}

fn names(is_there: bool) -> Finding {
    if is_there {
        return Finding::ok("NameService", "getent");
    }
    let message = "getent is not there: no owner of a session can be looked up";
    Finding::bad(Level::Problem, "NameService", message, "install it (Debian: libc-bin; Red Hat: glibc-common)")
}

fn clock(service: Option<&str>) -> Finding {
    match service {
        Some(name) => Finding::ok("Clock", format!("kept by {name}")),
        None => Finding::bad(
            Level::Warning,
            "Clock",
            "no time service is seen to keep the clock: tokens are refused when it is off by more than 30 s",
            "systemctl enable --now chronyd (or systemd-timesyncd), unless the hypervisor keeps the clock",
        ),
    }
}
