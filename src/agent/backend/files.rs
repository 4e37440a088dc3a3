//! Files of the host that a session names: which ones its owner may have started, and where his storage is.
//!
//! Looks at files, changes nothing.
//!
//! A program is opened once, by the kernel's own rule that nothing may lead out of the folder, and all that is asked of it
//! is asked of what was opened: there is no moment between two looks in which a link could be put in the way, and what is
//! outside, and whether it exists, is never found out. It is started by its path, without links, as the owner. Whoever can
//! put something else there by then could have put it there before: he may write below the folder, and what he starts
//! he starts with rights that are no more than the owner's. By its descriptor it is not started, as a script would not
//! know its own name and place any more.

use std::fs;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::OpenHow;
use nix::fcntl::ResolveFlag;
use nix::fcntl::open;
use nix::fcntl::openat;
use nix::fcntl::openat2;
use nix::sys::stat::Mode;

use super::account::Account;

/// Why a file that a session names is not used. Shown to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::agent) enum FileRefusal {
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

/// The path below a folder that a session means, if it is one on any host.
pub(in crate::agent) fn relative<'a>(path: &'a str, what: &'static str) -> Result<&'a Path, FileRefusal> {
    // The deprecated InitFilePath may start with a slash and is below the folder all the same.
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || relative.as_os_str().is_empty() || path.contains('\0') {
        return Err(FileRefusal::Escapes { what, path: path.to_owned() });
    }
    Ok(relative)
}

/// The program at `path` below `folder`, links resolved, if it is below it for good and `account` may execute it.
pub(super) fn program_below(
    folder: &Path,
    path: &str,
    what: &'static str,
    account: &Account,
) -> Result<String, FileRefusal> {
    let relative = relative(path, what)?;
    let name = || path.to_owned();
    let not_opened = |errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => FileRefusal::Missing { what, path: name() },
        Errno::EXDEV | Errno::ELOOP => FileRefusal::LinksOut { what, path: name() },
        _ => FileRefusal::NotExecutable { what, path: name(), owner: account.name.clone() },
    };
    let refused = || not_opened(Errno::EACCES);
    let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let folder = folder.map_err(not_opened)?;
    let file = File::from(open_below(&folder, relative).map_err(not_opened)?);
    if !file.metadata().is_ok_and(|facts| facts.is_file() && may_execute(&facts, account)) {
        return Err(refused());
    }
    let program = place(&file).ok_or_else(refused)?;
    // Moved away in this moment, folder and all.
    if !place(&folder).is_some_and(|folder| program.starts_with(folder)) {
        return Err(not_opened(Errno::EXDEV));
    }
    program.into_os_string().into_string().map_err(|_| refused())
}

/// Opens what is at `path` below `folder` and nowhere else, for looking at it.
fn open_below(folder: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(folder, path, how) {
            // Something above it is being renamed: the kernel cannot say.
            Err(Errno::EAGAIN) => {}
            // Kernels before 5.6, and containers whose filter does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => return open_without_links(folder, path),
            other => return other,
        }
    }
}

/// The same, step by step and without any link.
fn open_without_links(folder: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let mut at = folder.try_clone().map_err(|_| Errno::EMFILE)?;
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = openat(&at, part.as_os_str(), flags, Mode::empty())?;
        let next = File::from(next);
        if next.metadata().is_ok_and(|facts| facts.is_symlink()) {
            return Err(Errno::ELOOP);
        }
        at = next.into();
    }
    Ok(at)
}

/// Where something that is open is.
fn place(open: &impl AsRawFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).ok()
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
pub(in crate::agent) fn storage_root(text: &str, home: &Path) -> Result<PathBuf, FileRefusal> {
    let path = PathBuf::from(text.replace("%home%", &home.to_string_lossy()));
    if path.is_absolute() && !text.contains('\0') { Ok(path) } else { Err(FileRefusal::StorageRoot(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::thread;

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
        symlink("/etc/hostname", init.join("absolute")).unwrap();
        symlink("/proc/self/exe", init.join("magic")).unwrap();
        symlink("round", init.join("round")).unwrap();
        symlink("../nowhere", init.join("dangling")).unwrap();
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
            ("up/outside.sh", "initFile \"up/outside.sh\" leads out of its folder by a link"),
            ("absolute", "initFile \"absolute\" leads out of its folder by a link"),
            ("magic", "initFile \"magic\" leads out of its folder by a link"),
            ("round", "initFile \"round\" leads out of its folder by a link"),
            // Whether there is something outside is not told.
            ("dangling", "initFile \"dangling\" leads out of its folder by a link"),
            ("script.sh/x", "initFile \"script.sh/x\" does not exist on this host"),
            ("plain.txt", "initFile \"plain.txt\" is not a file that ann may execute"),
            ("roots.sh", "initFile \"roots.sh\" is not a file that ann may execute"),
            ("dcv", "initFile \"dcv\" is not a file that ann may execute"),
        ] {
            assert_eq!(check(path).unwrap_err().to_string(), expected, "{path}");
        }
    }

    /// Somebody who may write below the folder changes a link all the time: what is found is inside, or nothing is.
    #[test]
    fn a_link_that_is_changed_while_it_is_looked_at_never_leads_out() {
        let host = tempfile::tempdir().unwrap();
        let init = host.path().join("init");
        file(&init.join("in/script.sh"), 0o755);
        file(&host.path().join("out/script.sh"), 0o755);
        symlink("in", init.join("inside")).unwrap();
        symlink("../out", init.join("outside")).unwrap();
        let real = fs::canonicalize(init.join("in/script.sh")).unwrap();
        let stop = AtomicBool::new(false);
        let found = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for target in ["in", "../out"] {
                        symlink(target, init.join("next")).unwrap();
                        fs::rename(init.join("next"), init.join("link")).unwrap();
                    }
                }
            });
            let found = (0..20_000)
                .map(|_| program_below(&init, "link/script.sh", "initFile", &account("ann")))
                .collect::<Vec<_>>();
            stop.store(true, Ordering::Relaxed);
            found
        });
        let inside = found.iter().flatten().inspect(|path| assert_eq!(Path::new(path), real)).count();
        assert!(inside > 0 && inside < found.len(), "both were seen: {inside} of {}", found.len());
    }

    #[test]
    fn without_help_of_the_kernel_no_link_is_followed() {
        let host = tempfile::tempdir().unwrap();
        file(&host.path().join("dcv/script.sh"), 0o755);
        symlink("dcv", host.path().join("link")).unwrap();
        symlink("script.sh", host.path().join("dcv/inner.sh")).unwrap();
        let folder = open(host.path(), OFlag::O_PATH, Mode::empty()).unwrap();
        let opened = |path: &str| open_without_links(&folder, Path::new(path)).map(|file| place(&file).unwrap());
        assert_eq!(opened("./dcv/script.sh"), Ok(fs::canonicalize(host.path().join("dcv/script.sh")).unwrap()));
        assert_eq!(opened("link/script.sh"), Err(Errno::ELOOP));
        assert_eq!(opened("dcv/inner.sh"), Err(Errno::ELOOP));
        assert_eq!(opened("dcv/absent.sh"), Err(Errno::ENOENT));
    }

    #[test]
    fn storage_is_an_absolute_path_after_the_home_folder_is_put_in() {
        assert_eq!(storage_root("%home%/files", Path::new("/home/ann")).unwrap(), Path::new("/home/ann/files"));
        assert_eq!(storage_root("/data/ann", Path::new("/home/ann")).unwrap(), Path::new("/data/ann"));
        let refused = storage_root("files", Path::new("/home/ann")).unwrap_err();
        assert_eq!(refused.to_string(), "storageRoot \"files\" must be an absolute path, or start with %home%");
    }
}
