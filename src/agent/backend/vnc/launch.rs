//! Decides what a session starts: which files of the host, and that they may be started.
//!
//! Looks at files, changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use super::account::Account;
use super::state::Launch;
use crate::agent::backend::Order;

/// Where programs are looked for, and what a session gets as `PATH`.
pub(super) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// Desktops to look for when nothing else was said, the first one found is taken.
const DESKTOPS: [&str; 3] = ["icewm-session", "openbox-session", "xterm"];

/// Why a session cannot be started here. Shown to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LaunchRefusal {
    #[error("{what} {path:?} must be a relative path without ..")]
    Escapes { what: &'static str, path: String },
    #[error("{what} {path:?} leads out of its folder by a link")]
    LinksOut { what: &'static str, path: String },
    #[error("{what} {path:?} does not exist on this host")]
    Missing { what: &'static str, path: String },
    #[error("{what} {path:?} is not a file that {owner} may execute")]
    NotExecutable { what: &'static str, path: String, owner: String },
    #[error("no desktop is installed on this host: none of icewm-session, openbox-session and xterm was found")]
    NoDesktop,
    #[error("storageRoot {0:?} must be an absolute path, or start with %home%")]
    StorageRoot(String),
}

/// What is set for all sessions of a host.
pub(super) struct Folders<'a> {
    pub init: &'a Path,
    pub autorun: &'a Path,
    pub desktop_command: &'a [String],
    pub x_server: &'a Path,
    pub geometry: &'a str,
}

/// What `order` starts as `account`.
pub(super) fn plan(order: &Order, account: &Account, folders: &Folders<'_>) -> Result<Launch, LaunchRefusal> {
    let desktop = match &order.init_file {
        Some(file) => vec![program_below(folders.init, file, "initFile", account)?],
        None if !folders.desktop_command.is_empty() => folders.desktop_command.to_vec(),
        None => vec![find_desktop().ok_or(LaunchRefusal::NoDesktop)?],
    };
    let autorun = match &order.autorun_file {
        Some(file) => {
            let mut words = vec![program_below(folders.autorun, file, "autorunFile", account)?];
            words.extend(order.autorun_file_arguments.iter().cloned());
            Some(words)
        }
        None => None,
    };
    Ok(Launch {
        x_server: folders.x_server.to_owned(),
        geometry: folders.geometry.to_owned(),
        desktop,
        autorun,
        storage_root: order.storage_root.as_deref().map(|text| storage_root(text, &account.home)).transpose()?,
    })
}

/// The program at `path` below `folder`, links resolved, if it is below it for good and `account` may execute it.
fn program_below(folder: &Path, path: &str, what: &'static str, account: &Account) -> Result<String, LaunchRefusal> {
    let name = || path.to_owned();
    // The deprecated InitFilePath may start with a slash and is below the folder all the same.
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || relative.as_os_str().is_empty() || path.contains('\0') {
        return Err(LaunchRefusal::Escapes { what, path: name() });
    }
    let missing = |_| LaunchRefusal::Missing { what, path: name() };
    let folder = fs::canonicalize(folder).map_err(missing)?;
    let program = fs::canonicalize(folder.join(relative)).map_err(missing)?;
    if !program.starts_with(&folder) {
        return Err(LaunchRefusal::LinksOut { what, path: name() });
    }
    let refused = || LaunchRefusal::NotExecutable { what, path: name(), owner: account.name.clone() };
    if !fs::metadata(&program).is_ok_and(|file| file.is_file() && may_execute(&file, account)) {
        return Err(refused());
    }
    program.into_os_string().into_string().map_err(|_| refused())
}

fn may_execute(file: &fs::Metadata, account: &Account) -> bool {
    let in_group = file.gid() == account.gid || account.groups.contains(&file.gid());
    let shift = if file.uid() == account.uid {
        6
    } else if in_group {
        3
    } else {
        0
    };
    file.mode() >> shift & 1 != 0
}

fn find_desktop() -> Option<String> {
    let found = |name: &&str| {
        let candidates = SEARCH_PATH.split(':').map(|folder| format!("{folder}/{name}"));
        candidates.into_iter().find(|path| Path::new(path).is_file())
    };
    DESKTOPS.iter().find_map(found)
}

fn storage_root(text: &str, home: &Path) -> Result<PathBuf, LaunchRefusal> {
    let path = PathBuf::from(text.replace("%home%", &home.to_string_lossy()));
    if path.is_absolute() && !text.contains('\0') { Ok(path) } else { Err(LaunchRefusal::StorageRoot(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use super::super::tests::account;
    use super::super::tests::order;
    use super::*;

    fn file(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_programs_below_their_folder_that_the_owner_may_execute_are_started() {
        let host = tempfile::tempdir().unwrap();
        let init = host.path().join("init");
        file(&init.join("script.sh"), 0o755);
        file(&init.join("dcv/script.sh"), 0o755);
        file(&init.join("plain.txt"), 0o644);
        file(&init.join("roots.sh"), 0o700);
        file(&host.path().join("outside.sh"), 0o755);
        symlink("../outside.sh", init.join("link.sh")).unwrap();
        symlink("script.sh", init.join("inner.sh")).unwrap();
        symlink("../..", init.join("up")).unwrap();
        let check = |path: &str| program_below(&init, path, "initFile", &account("ann"));
        let real = fs::canonicalize(&init).unwrap();
        for (path, target) in [
            ("script.sh", "script.sh"),
            ("./dcv/script.sh", "dcv/script.sh"),
            ("/script.sh", "script.sh"),
            ("inner.sh", "script.sh"),
        ] {
            assert_eq!(check(path).unwrap(), real.join(target).to_str().unwrap(), "{path}");
        }
        for (path, expected) in [
            ("../outside.sh", "initFile \"../outside.sh\" must be a relative path without .."),
            ("dcv/../../outside.sh", "initFile \"dcv/../../outside.sh\" must be a relative path without .."),
            ("", "initFile \"\" must be a relative path without .."),
            ("/", "initFile \"/\" must be a relative path without .."),
            ("absent.sh", "initFile \"absent.sh\" does not exist on this host"),
            ("link.sh", "initFile \"link.sh\" leads out of its folder by a link"),
            ("up", "initFile \"up\" leads out of its folder by a link"),
            ("plain.txt", "initFile \"plain.txt\" is not a file that ann may execute"),
            ("roots.sh", "initFile \"roots.sh\" is not a file that ann may execute"),
            ("dcv", "initFile \"dcv\" is not a file that ann may execute"),
        ] {
            assert_eq!(check(path).unwrap_err().to_string(), expected, "{path}");
        }
    }

    #[test]
    fn an_order_becomes_a_plan() {
        let host = tempfile::tempdir().unwrap();
        file(&host.path().join("autorun/app.sh"), 0o755);
        let command = ["my-desktop".to_owned(), "--flag".to_owned()];
        let folders = Folders {
            init: host.path(),
            autorun: &host.path().join("autorun"),
            desktop_command: &command,
            x_server: Path::new("/x"),
            geometry: "800x600",
        };
        let mut order = order("one", "ann");
        order.autorun_file = Some("app.sh".into());
        order.autorun_file_arguments = vec!["a b".into(), "$x".into()];
        order.storage_root = Some("%home%/files".into());
        let launch = plan(&order, &account("ann"), &folders).unwrap();
        assert_eq!(launch.desktop, command);
        assert_eq!(launch.autorun.unwrap()[1..], ["a b", "$x"]);
        assert_eq!(launch.storage_root.unwrap(), Path::new("/home/ann/files"));
        order.storage_root = Some("files".into());
        assert_eq!(plan(&order, &account("ann"), &folders).unwrap_err(), LaunchRefusal::StorageRoot("files".into()));
    }
}
