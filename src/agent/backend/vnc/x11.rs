//! What a host must have for X servers: the program, and the folder of their sockets.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Where X servers have their sockets.
const X11_SOCKETS: &str = "/tmp/.X11-unix";

/// Why no X server can be started now; `None`: one can.
pub(super) fn find_fault(x_server: &Path) -> Option<String> {
    if !x_server.is_file() {
        return Some(format!("{} is not installed on this host", x_server.display()));
    }
    check_x11_sockets()
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
pub(super) async fn fetch_version(x_server: &Path) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let text = "\nXvnc TigerVNC 1.12.0 - built 2023-01-02 10:14\nCopyright (C) 1999\n";
        assert_eq!(parse_version(text), "TigerVNC 1.12.0");
        assert_eq!(parse_version("nonsense"), "");
    }
}
