//! Decides what a session starts: which files of the host, and that they may be started.
//!
//! Looks at files, changes nothing.

use std::path::Path;

use super::state::Launch;
use crate::agent::backend::Order;
use crate::agent::backend::account::Account;
use crate::agent::backend::files::FileRefusal;
use crate::agent::backend::files::program_below;
use crate::agent::backend::files::storage_root;

/// Where programs are looked for, and what a session gets as `PATH`.
pub(super) const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// Desktops to look for when nothing else was said, the first one found is taken.
const DESKTOPS: [&str; 3] = ["icewm-session", "openbox-session", "xterm"];

/// Why a session cannot be started here. Shown to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LaunchRefusal {
    #[error(transparent)]
    File(#[from] FileRefusal),
    #[error("no desktop is installed on this host: none of icewm-session, openbox-session and xterm was found")]
    NoDesktop,
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

fn find_desktop() -> Option<String> {
    let found = |name: &&str| {
        let candidates = SEARCH_PATH.split(':').map(|folder| format!("{folder}/{name}"));
        candidates.into_iter().find(|path| Path::new(path).is_file())
    };
    DESKTOPS.iter().find_map(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::account;
    use super::super::tests::order;
    use super::*;

    fn file(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
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
        assert_eq!(
            plan(&order, &account("ann"), &folders).unwrap_err(),
            FileRefusal::StorageRoot("files".into()).into()
        );
    }
}
