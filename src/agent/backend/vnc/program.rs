//! Becoming a program of a session's owner: the last steps before it, in the process that is to be it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::sys::stat::umask;
use nix::unistd::Gid;
use nix::unistd::Uid;
use nix::unistd::setgid;
use nix::unistd::setgroups;
use nix::unistd::setsid;
use nix::unistd::setuid;

use crate::agent::fault;
use crate::agent::fault::Point;

/// Becomes `program`, as another account where one is named: own session, groups, account, folder. Returns only when that
/// failed. `make_folder` is made first, as the account.
pub fn become_program(
    identity: Option<&Identity>,
    directory: &Path,
    make_folder: Option<&Path>,
    program: &[OsString],
) -> io::Error {
    fault::reach(Point::ProgramBegun);
    let prepare = || {
        let _ = setsid();
        if let Some(identity) = identity {
            let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
            // In this order: an account has no right to choose its groups.
            setgroups(&groups)?;
            setgid(Gid::from_raw(identity.gid))?;
            setuid(Uid::from_raw(identity.uid))?;
        }
        umask(Mode::from_bits_truncate(0o022));
        Ok::<_, nix::Error>(())
    };
    if let Err(error) = prepare() {
        return error.into();
    }
    // A home that is not there keeps nobody from a desktop.
    if std::env::set_current_dir(directory).is_err()
        && let Err(error) = std::env::set_current_dir("/")
    {
        return error;
    }
    if let Some(path) = make_folder
        && let Err(error) = fs::create_dir_all(path)
    {
        return error;
    }
    match program.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => std::process::exit(0),
    }
}

/// An account by its numbers, as in `1001:1001:27,100`: uid, gid, supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl std::str::FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [uid, gid, groups] = parts[..] else { return Err("expected uid:gid:groups".into()) };
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is not a number"));
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(number).collect::<Result<_, _>>()?;
        Ok(Self { uid: number(uid)?, gid: number(gid)?, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_three_parts_of_numbers() {
        let identity = |text: &str| text.parse::<Identity>();
        assert_eq!(identity("1001:1002:").unwrap(), Identity { uid: 1001, gid: 1002, groups: vec![] });
        assert_eq!(identity("1:2:27,100").unwrap(), Identity { uid: 1, gid: 2, groups: vec![27, 100] });
        for bad in ["", "1:2", "1:2:3:4", "a:2:", "1:2:x", "-1:2:"] {
            assert!(identity(bad).is_err(), "{bad}");
        }
    }
}
