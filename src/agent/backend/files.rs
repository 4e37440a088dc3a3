//! Files of the host that a session names: which ones its owner may have started, and where his storage is.
//!
//! Looks at files, changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use super::account::Account;

/// Why a file that a session names is not used. Shown to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileRefusal {
    #[error("{what} {path:?} must be a relative path without ..")]
    Escapes { what: &'static str, path: String },
    #[error("{what} {path:?} leads out of its folder by a link")]
    LinksOut { what: &'static str, path: String },
    #[error("{what} {path:?} does not exist on this host")]
    Missing { what: &'static str, path: String },
    #[error("{what} {path:?} is not a file that {owner} may execute")]
    NotExecutable { what: &'static str, path: String, owner: String },
    #[error("storageRoot {0:?} must be an absolute path, or start with %home%")]
    StorageRoot(String),
}

/// The program at `path` below `folder`, links resolved, if it is below it for good and `account` may execute it.
pub(super) fn program_below(
    folder: &Path,
    path: &str,
    what: &'static str,
    account: &Account,
) -> Result<String, FileRefusal> {
    let name = || path.to_owned();
    // The deprecated InitFilePath may start with a slash and is below the folder all the same.
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || relative.as_os_str().is_empty() || path.contains('\0') {
        return Err(FileRefusal::Escapes { what, path: name() });
    }
    let missing = |_| FileRefusal::Missing { what, path: name() };
    let folder = fs::canonicalize(folder).map_err(missing)?;
    let program = fs::canonicalize(folder.join(relative)).map_err(missing)?;
    if !program.starts_with(&folder) {
        return Err(FileRefusal::LinksOut { what, path: name() });
    }
    let refused = || FileRefusal::NotExecutable { what, path: name(), owner: account.name.clone() };
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

/// The folder that `text` of a session means, `%home%` replaced.
pub(super) fn storage_root(text: &str, home: &Path) -> Result<PathBuf, FileRefusal> {
    let path = PathBuf::from(text.replace("%home%", &home.to_string_lossy()));
    if path.is_absolute() && !text.contains('\0') { Ok(path) } else { Err(FileRefusal::StorageRoot(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn account(name: &str) -> Account {
        Account {
            name: name.into(),
            uid: 4_000_001,
            gid: 4_000_001,
            groups: vec![27],
            home: format!("/home/{name}").into(),
            shell: "/bin/bash".into(),
        }
    }

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
    fn storage_is_an_absolute_path_after_the_home_folder_is_put_in() {
        assert_eq!(storage_root("%home%/files", Path::new("/home/ann")).unwrap(), Path::new("/home/ann/files"));
        assert_eq!(storage_root("/data/ann", Path::new("/home/ann")).unwrap(), Path::new("/data/ann"));
        let refused = storage_root("files", Path::new("/home/ann")).unwrap_err();
        assert_eq!(refused.to_string(), "storageRoot \"files\" must be an absolute path, or start with %home%");
    }
}
