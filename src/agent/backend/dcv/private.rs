//! Files that are made for one session and read by others than the agent: its permissions, by the DCV server; the program
//! that starts its desktop, by its owner.
//!
//! They lie in a folder that everybody can pass through and nobody list, each readable by the one it is for. Programs cannot
//! be run from `/run` on many hosts, so it is not there.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::statvfs::FsFlags;
use nix::sys::statvfs::statvfs;
use rand::TryRngCore;
use rand::rngs::OsRng;

/// Between an id and the rest of a file's name; in no id.
const SEPARATOR: char = '+';

/// The folder, as the agent sees it and as the host does.
#[derive(Clone, Debug)]
pub(super) struct PrivateFiles {
    here: PathBuf,
    there: PathBuf,
}

/// One file. It is removed when this is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct PrivateFile {
    here: PathBuf,
    there: String,
    is_kept: bool,
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.here);
        }
    }
}

impl PrivateFile {
    /// Its path on the host.
    pub fn path(&self) -> &str {
        &self.there
    }

    /// Leaves it until [`PrivateFiles::remove_of`].
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

/// Whom a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Root, and this group.
    Group(Option<u32>),
    /// This account, which may also execute it.
    Account { uid: u32, gid: u32 },
}

impl PrivateFiles {
    /// The folder, which is made if need be.
    pub fn open(here: PathBuf, there: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&here)?;
        fs::set_permissions(&here, fs::Permissions::from_mode(0o711))?;
        Ok(Self { here, there })
    }

    /// Makes a file of the session `id`.
    pub fn make(&self, id: &str, text: &str, reader: Reader) -> io::Result<PrivateFile> {
        let mut random = [0; 8];
        OsRng.try_fill_bytes(&mut random).map_err(io::Error::other)?;
        let name = format!("{id}{SEPARATOR}{}", hex::encode(random));
        let there = self.there.join(&name).into_os_string().into_string();
        let there = there.map_err(|_| io::Error::other("the folder's path is not UTF-8"))?;
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(self.here.join(&name))?;
        let private = PrivateFile { here: self.here.join(&name), there, is_kept: false };
        file.write_all(text.as_bytes())?;
        let (owner, group, mode) = match reader {
            Reader::Group(None) => return Ok(private),
            Reader::Group(Some(gid)) => (None, gid, 0o640),
            Reader::Account { uid, gid } => (Some(uid), gid, 0o500),
        };
        // An agent that is not root can only serve its own account.
        if nix::unistd::geteuid().is_root() {
            fchown(&file, owner, Some(group))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(private)
    }

    /// Whether programs can be started from the folder.
    pub fn are_executable(&self) -> bool {
        statvfs(&self.here).is_ok_and(|system| !system.flags().contains(FsFlags::ST_NOEXEC))
    }

    /// Removes the files of the session `id`.
    pub fn remove_of(&self, id: &str) -> io::Result<()> {
        self.remove_where(|owner| owner == id)
    }

    /// Removes the files of all sessions that are not known.
    pub fn sweep(&self, is_known: impl Fn(&str) -> bool) -> io::Result<()> {
        self.remove_where(|owner| !is_known(owner))
    }

    fn remove_where(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.here)? {
            let name = entry?.file_name();
            if let Some((id, _)) = name.to_str().and_then(|name| name.split_once(SEPARATOR))
                && is_wanted(id)
            {
                remove(&self.here.join(&name))?;
            }
        }
        Ok(())
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A program that starts `autorun` beside the desktop, and becomes the desktop `init`: the session ends with that one only.
///
/// It names both by whole paths and stays where it was started: its reader need not be able to read any folder.
pub(super) fn wrapper(init: &str, autorun: &[String]) -> String {
    let autorun: Vec<_> = autorun.iter().map(|word| quoted(word)).collect();
    format!("#!/bin/sh\n# Made for one session.\n{} </dev/null &\nexec {}\n", autorun.join(" "), quoted(init))
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_file_is_readable_by_the_one_it_is_for_and_goes_when_it_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("files");
        let files = PrivateFiles::open(here.clone(), "/there".into()).unwrap();
        assert_eq!(fs::metadata(&here).unwrap().mode() & 0o777, 0o711);
        let group = nix::unistd::getegid().as_raw();
        let permissions = files.make("a", "[permissions]\n", Reader::Group(Some(group))).unwrap();
        let name = permissions.path().strip_prefix("/there/").unwrap().to_owned();
        assert_eq!(fs::metadata(here.join(&name)).unwrap().mode() & 0o777, 0o640);
        drop(permissions);
        assert!(!here.join(&name).exists());

        let account = Reader::Account { uid: nix::unistd::geteuid().as_raw(), gid: group };
        files.make("a", "#!/bin/sh\n", account).unwrap().keep();
        files.make("b", "", Reader::Group(None)).unwrap().keep();
        let modes = || {
            let entries = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap());
            let mut modes: Vec<_> = entries.map(|entry| entry.metadata().unwrap().mode() & 0o777).collect();
            modes.sort_unstable();
            modes
        };
        assert_eq!(modes(), [0o500, 0o600]);
        files.sweep(|id| id == "a").unwrap();
        assert_eq!(modes(), [0o500]);
        files.remove_of("a").unwrap();
        assert!(modes().is_empty());
        assert!(files.are_executable());
    }

    #[test]
    fn a_wrapper_starts_both_and_lasts_as_long_as_the_desktop() {
        let folder = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let out = folder.path().join("out");
        let autorun = script("it's autorun", &format!("printf '%s|' \"$@\" >{0}.part; mv {0}.part {0}", out.display()));
        // The desktop waits for what was started beside it.
        let init = script("init", &format!("while [ ! -e {} ]; do sleep 0.01; done; exit 7", out.display()));
        let words = [autorun, "a b".into(), "$x `id` \"q\" 'r'".into(), "line\nbreak".into(), String::new()];
        let path = script("wrapper", "");
        fs::write(&path, wrapper(&init, &words)).unwrap();
        let status = Command::new(&path).status().unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(fs::read_to_string(&out).unwrap(), "a b|$x `id` \"q\" 'r'|line\nbreak||");
    }
}
