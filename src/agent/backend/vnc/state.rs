//! What a session keeps on the host: its folder, and the two files by which an agent that comes back knows it.
//!
//! Each file has one writer: `state.json` the agent, `host.json` whoever has the lock: the session host, and once that is
//! gone the agent, to record the end. Both are replaced whole. A folder of a
//! session always holds a `state.json`: it is made under another name and renamed.
//!
//! ```text
//! <state folder>/vnc/<server>/<id>/   root 0711
//!   state.json   root 0600   whose it is, how it is started, cookie, number of connections
//!   host.json    root 0600   processes and display, how it ended
//!   lock         root 0600   held by the session host for its life
//!   control      root 0600   socket: the session host tells whoever connects how far it is
//!   s/           owner 0700  rfb.sock, xauth, session.log, run/
//! ```

use std::fs;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;
use sha2::Sha256;

use super::process::ProcessId;
use crate::agent::backend::Order;
use crate::agent::backend::account::Account;
use crate::agent::fault;
use crate::agent::fault::Point;

/// Longest path of a Unix socket. Source: unix(7), less the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The longest path below a session's folder.
const LONGEST_SOCKET: &str = "/s/rfb.sock";
/// Longest id of a session; ours are UUIDs of 36.
pub(super) const ID_BYTES_MAX: usize = 64;

/// Whether an id can be the name of a folder, part of a path in a URL, and no option of a command.
pub(super) fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) && id.as_bytes()[0].is_ascii_alphanumeric()
}

/// The folder of all sessions of one server. A name that would make socket paths too long is cut, with a hash to keep it
/// apart from others.
pub(super) fn server_folder(state_folder: &Path, server: &str) -> PathBuf {
    let base = state_folder.join("vnc");
    let fixed = base.as_os_str().len() + "/".len() + "/".len() + 36 + LONGEST_SOCKET.len();
    let room = SOCKET_PATH_BYTES_MAX.saturating_sub(fixed);
    if server.len() <= room {
        return base.join(server);
    }
    let hash = &hex::encode(Sha256::digest(server))[..12];
    let kept: String = server.chars().take(room.saturating_sub(hash.len() + 1)).collect();
    base.join(format!("{kept}-{hash}"))
}

/// The folder of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder(pub PathBuf);

/// The agent's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// Number of this instance of the session, made at random: in the environment of all its processes.
    pub instance: String,
    /// Boot id of the machine when it was made: pids of another boot mean nothing.
    pub boot_id: String,
    /// When it was made.
    pub creation_time: Timestamp,
    /// What was ordered; the permissions are those in force.
    pub order: Order,
    /// The account it runs as.
    pub account: Account,
    /// How it is started.
    pub launch: Launch,
    /// Secret that opens the display, in hexadecimal. Never read back from the owner's folder.
    pub cookie: String,
    /// Whether people are known to know of it. Files of a version that did not note this say yes.
    #[serde(default = "yes")]
    pub announced: bool,
    /// Clients connected at the last change.
    pub connections: i32,
    /// When a client left last.
    pub last_disconnection_time: Option<Timestamp>,
}

fn yes() -> bool {
    true
}

/// What the session host starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Launch {
    /// The X server's program.
    pub x_server: PathBuf,
    /// Size of the screen, as in `1920x1080`.
    pub geometry: String,
    /// Program and arguments of the desktop; the session ends with it.
    pub desktop: Vec<String>,
    /// Program and arguments that are started beside it.
    pub autorun: Option<Vec<String>>,
    /// Folder to make as the owner.
    pub storage_root: Option<PathBuf>,
}

/// The session host's file, and what it tells on its socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostState {
    /// The instance it is for.
    pub instance: String,
    /// The session host itself.
    pub host: ProcessId,
    /// The X server.
    pub x_server: Option<ProcessId>,
    /// The desktop and the autorun program.
    pub programs: Vec<ProcessId>,
    /// The display, as in 3 for `:3`.
    pub display: Option<u32>,
    /// How far it is.
    pub stage: Stage,
}

/// How far a session host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// The desktop is not up yet.
    Starting,
    /// The desktop runs.
    Ready,
    /// Over, with all its processes, for this reason.
    Ended(String),
}

impl HostState {
    /// That of a session host which has never said anything.
    pub fn unknown(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            host: ProcessId { pid: 0, start_time: 0 },
            x_server: None,
            programs: Vec::new(),
            display: None,
            stage: Stage::Starting,
        }
    }

    /// Every process it has recorded, its own too.
    pub fn processes(&self) -> Vec<ProcessId> {
        let mut all = vec![self.host];
        all.extend(self.x_server);
        all.extend(&self.programs);
        all
    }
}

impl Folder {
    /// The agent's file.
    pub fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// The session host's file.
    pub fn host(&self) -> PathBuf {
        self.0.join("host.json")
    }

    /// Socket of the session host.
    pub fn control(&self) -> PathBuf {
        self.0.join("control")
    }

    /// The owner's folder.
    pub fn owned(&self) -> PathBuf {
        self.0.join("s")
    }

    /// Socket of the desktop.
    pub fn rfb(&self) -> PathBuf {
        self.owned().join("rfb.sock")
    }

    /// Makes the folder with its `state.json` in one step, as seen from outside.
    pub fn create(&self, state: &State) -> io::Result<()> {
        let parent = self.0.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let unfinished = Self(parent.join(format!(".new-{}", state.instance)));
        fs::DirBuilder::new().mode(0o711).create(&unfinished.0)?;
        fault::reach(Point::FolderBegun);
        // The mode asked for is subject to the umask.
        fs::set_permissions(&unfinished.0, fs::Permissions::from_mode(0o711))?;
        write_json(&unfinished.state(), state)?;
        fault::reach(Point::FolderUnnamed);
        fs::rename(&unfinished.0, &self.0)
    }

    /// Takes the folder away. Links in it are removed, not followed. Success when it is not there.
    pub fn remove(&self, instance: &str) -> io::Result<()> {
        let parent = self.0.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // Renamed first, so that it is there whole or not at all.
        let leaving = parent.join(format!(".gone-{instance}"));
        match fs::rename(&self.0, &leaving) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        fault::reach(Point::FolderLeaving);
        match fs::remove_dir_all(&leaving) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The agent's file.
    pub fn read_state(&self) -> io::Result<State> {
        read_json(&self.state())
    }

    /// The session host's file, if there is one of this instance.
    pub fn read_host(&self, instance: &str) -> Option<HostState> {
        read_json(&self.host()).ok().filter(|host: &HostState| host.instance == instance)
    }

    fn open_lock(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).mode(0o600).open(self.0.join("lock"))
    }

    /// The lock, if nobody holds it: then no session host runs, nor can one start while it is kept.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let lock = self.open_lock()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The lock, for the session host's life. Waits for an agent that is looking.
    ///
    /// # Errors
    /// `NotFound` when the folder was taken away meanwhile.
    pub fn lock(&self) -> io::Result<File> {
        let lock = self.open_lock()?;
        lock.lock()?;
        // The name may by now be another file's, of a folder made anew.
        let (held, named) = (lock.metadata()?, fs::metadata(self.0.join("lock"))?);
        if (held.dev(), held.ino()) == (named.dev(), named.ino()) {
            Ok(lock)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// Replaces a file by `value` as JSON; whoever reads sees the old or the new one.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    fault::reach(Point::FileUnnamed);
    fs::rename(&temporary, path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::state;
    use super::*;

    #[test]
    fn only_plain_ids_become_folders() {
        for good in ["7b0e1f5a-3a51-4c58-9d5e-0c1b1f7a9f10", "a", "A.b_c-1"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", "-x", ".new-1", "a/b", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn socket_paths_fit_whatever_the_servers_name() {
        let base = Path::new("/run/dcv-operator");
        let id = "7b0e1f5a-3a51-4c58-9d5e-0c1b1f7a9f10";
        let folder = |server: &str| server_folder(base, server);
        assert_eq!(folder("node-1"), base.join("vnc/node-1"));
        let (a, b) = (format!("{}a", "n".repeat(62)), format!("{}b", "n".repeat(62)));
        assert_ne!(folder(&a), folder(&b));
        for server in [a.as_str(), &"n".repeat(253), &"n".repeat(37), &"n".repeat(38)] {
            let socket = Folder(folder(server).join(id)).rfb();
            assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", socket.display());
        }
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder(parent.path().join("one"));
        let state = state("one", "ann");
        folder.create(&state).unwrap();
        assert_eq!(folder.read_state().unwrap(), state);
        assert!(folder.create(&state).is_err(), "never over another");
        folder.remove(&state.instance).unwrap();
        folder.remove(&state.instance).unwrap();
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, [format!(".new-{}", state.instance).as_str()], "what the failed one left is not a session");
    }

    #[test]
    fn removal_does_not_follow_links() {
        let parent = tempfile::tempdir().unwrap();
        let precious = parent.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let folder = Folder(parent.path().join("one"));
        folder.create(&state("one", "ann")).unwrap();
        fs::create_dir(folder.owned()).unwrap();
        std::os::unix::fs::symlink(&precious, folder.rfb()).unwrap();
        folder.remove("i").unwrap();
        assert!(precious.join("file").exists());
    }

    #[test]
    fn a_lock_of_a_folder_that_was_made_anew_is_not_the_sessions() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder(parent.path().join("one"));
        folder.create(&state("one", "ann")).unwrap();
        let held = folder.lock().unwrap();
        assert!(folder.try_lock().unwrap().is_none());
        let late = std::thread::spawn({
            let folder = folder.clone();
            move || folder.lock()
        });
        // Give the late one time to open the lock that is about to go; whichever comes first, it must not succeed.
        std::thread::sleep(std::time::Duration::from_millis(50));
        folder.remove("i").unwrap();
        drop(held);
        assert_eq!(late.join().unwrap().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_host_file_of_another_instance_is_not_read() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder(parent.path().to_owned());
        let host = HostState {
            instance: "i".into(),
            host: ProcessId { pid: 1, start_time: 2 },
            x_server: None,
            programs: vec![ProcessId { pid: 3, start_time: 4 }],
            display: Some(5),
            stage: Stage::Ended("why".into()),
        };
        write_json(&folder.host(), &host).unwrap();
        assert_eq!(folder.read_host("i"), Some(host));
        assert_eq!(folder.read_host("j"), None);
    }
}
