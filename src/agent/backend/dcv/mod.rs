//! Sessions of an installed Amazon DCV server, driven by its `dcv` command.
//!
//! ```text
//!  agent -- dcv create-session, list-sessions, … --> dcv --> dcvserver <-- clients, on its own port
//!    |                                                          |
//!    +-- markers in /run/dcv-operator/dcv (root only)           +-- asks the agent whether a token is good
//! ```
//!
//! The server holds the sessions: an agent may come and go. What each is, is on the host in a marker (`marker`), written
//! before the session is made (`create`). What the server prints is read as JSON (`parse`), its configuration from its file
//! (`conf`); its texts only choose words for people (`words`). Sessions without a marker were started by hand: they are
//! told of, and never touched unless somebody says so.

mod arguments;
mod conf;
mod create;
mod look;
mod marker;
mod parse;
mod private;
mod words;

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::arguments::Bound;
use self::conf::Configuration;
use self::create::CHANGE;
use self::look::Look;
use self::marker::Notes;
use self::parse::Told;
use self::private::PrivateFiles;
use self::private::Reader;
use super::Backend;
use super::BackendError;
use super::CreateError;
use super::Description;
use super::HostSession;
use super::License;
use super::Order;
use super::ScreenshotRequest;
use super::account::Names;
use crate::agent::command::Commands;
use crate::agent::command::Limits;
use crate::agent::lock;
use crate::agent::lock::Lock;
use crate::api::server::Capacity;
use crate::api::session::SessionType;
use crate::permissions::Permissions;

/// Creates that the server works on at once; more wait.
const CREATES_AT_ONCE: usize = 4;
/// What a picture may take: four screens of 4096 by 2160, hardly compressed.
const PICTURE: Limits = Limits { time: Duration::from_secs(7), answer_bytes: 96 << 20 };
/// How long no session is sent here after one got no licence. Then it is tried again: licences come back.
const LICENCE_RETRY: Duration = Duration::from_mins(1);
/// Largest configuration file that is read.
const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;
/// The first version that speaks QUIC unless told otherwise.
const QUIC_SINCE: u32 = 2024;

/// Settings of the backend. Paths are the host's.
#[derive(Clone, Debug)]
pub struct DcvSettings {
    /// Folder of the markers and the lock, for root alone; its content must not outlive a restart of the host.
    pub state_folder: PathBuf,
    /// Folder for files that the DCV server and owners of sessions read. Programs must be startable from it.
    pub files_folder: PathBuf,
    /// Where the agent sees the host's files.
    pub host_root: PathBuf,
    /// Words before commands of the host, as in `chroot /host`.
    pub host_command_prefix: Vec<String>,
    /// The `dcv` command.
    pub command: String,
    /// The DCV server's configuration. Its default init script lies beside it.
    pub configuration: PathBuf,
    /// Name of the DCV server's process.
    pub server_process: String,
    /// Account of the DCV server's process.
    pub server_account: String,
    /// Where programs named by `initFile` are.
    pub init_folder: PathBuf,
    /// Where programs named by `autorunFile` are.
    pub autorun_folder: PathBuf,
    /// Lowest uid that may own a session; never root, whatever it is.
    pub min_uid: u32,
    /// What the whole name of an owner must match; see [`owner_pattern`](super::owner_pattern).
    pub owner_pattern: Option<Regex>,
    /// Whether sessions are created without the server's login monitor.
    pub disables_login_monitor: bool,
    /// How long a session may take to accept clients.
    pub create_timeout: Duration,
    /// How long a session that the server has begun to create may take to be listed.
    pub appear_timeout: Duration,
    /// How long a session has to be there before it counts as created.
    pub settle_time: Duration,
    /// How often the server is asked for what changed by itself.
    pub poll_interval: Duration,
    /// Where the time comes from.
    pub clock: fn() -> Timestamp,
}

impl DcvSettings {
    /// The documented defaults, for a host whose commands are run behind `host_command_prefix`.
    pub fn new(host_command_prefix: Vec<String>, clock: fn() -> Timestamp) -> Self {
        Self {
            state_folder: "/run/dcv-operator".into(),
            files_folder: "/var/lib/dcv-operator/dcv".into(),
            host_root: host_root(&host_command_prefix),
            host_command_prefix,
            command: "dcv".into(),
            configuration: "/etc/dcv/dcv.conf".into(),
            server_process: "dcvserver".into(),
            server_account: "dcv".into(),
            init_folder: "/var/lib/dcv-session-manager-agent/init".into(),
            autorun_folder: "/var/lib/dcv-session-manager-agent/autorun".into(),
            min_uid: 1000,
            owner_pattern: None,
            disables_login_monitor: false,
            create_timeout: Duration::from_mins(2),
            appear_timeout: Duration::from_secs(30),
            settle_time: Duration::from_secs(2),
            poll_interval: Duration::from_secs(3),
            clock,
        }
    }

    /// The script that starts the desktop of sessions without another.
    fn default_init(&self) -> String {
        self.configuration.with_file_name("dcvsessioninit").to_string_lossy().into_owned()
    }
}

/// Where the files of the host are seen whose commands run behind `prefix`.
fn host_root(prefix: &[String]) -> PathBuf {
    let program = prefix.first().and_then(|program| Path::new(program).file_name()).unwrap_or_default();
    if program == "chroot" {
        let folder = prefix.iter().skip(1).find(|word| !word.starts_with('-'));
        return folder.map_or_else(|| "/".into(), PathBuf::from);
    }
    if program == "nsenter" { "/proc/1/root".into() } else { "/".into() }
}

/// The backend. Dropping it ends nothing on the host.
pub struct DcvBackend {
    inner: Arc<Inner>,
    follower: JoinHandle<()>,
    _lock: Lock,
}

impl Drop for DcvBackend {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What the backend's tasks share.
struct Inner {
    settings: DcvSettings,
    commands: Commands,
    names: Names,
    notes: Notes,
    private: PrivateFiles,
    creates: Semaphore,
    /// The server's last answer.
    look: tokio::sync::Mutex<Option<Look>>,
    /// Counts our own changes of the server's sessions.
    generation: AtomicU64,
    version: tokio::sync::Mutex<Option<(String, Instant)>>,
    licences: Mutex<Licences>,
    changes: watch::Sender<u64>,
}

/// What is known of the server's licences.
#[derive(Debug, Default)]
struct Licences {
    /// What its sessions say; the last word is kept when there are none.
    told: Option<Result<(), String>>,
    /// What a create was refused with, and when.
    denied: Option<(String, Instant)>,
}

impl DcvBackend {
    /// Opens the backend. There is only one for each DCV server at a time: while another holds the lock, this waits.
    ///
    /// # Errors
    /// When its folders cannot be made.
    pub async fn open(settings: DcvSettings) -> Result<Self, BackendError> {
        let failed =
            |error: io::Error| BackendError { action: "make the backend's folders", message: error.to_string() };
        let seen = |path: &Path| seen_from(&settings.host_root, path);
        let folder = seen(&settings.state_folder).join("dcv");
        let notes = Notes::open(&folder).map_err(failed)?;
        let lock = lock::acquire(&folder).await.map_err(failed)?;
        let private =
            PrivateFiles::open(seen(&settings.files_folder), settings.files_folder.clone()).map_err(failed)?;
        // What an agent before this one left in the middle of a create that is forgotten.
        let known = notes.all().map_err(failed)?;
        private.sweep(|id| known.contains_key(id)).map_err(failed)?;
        let commands = Commands::new(settings.host_command_prefix.clone());
        let inner = Arc::new(Inner {
            names: Names::new(settings.host_command_prefix.clone()),
            commands,
            settings,
            notes,
            private,
            creates: Semaphore::new(CREATES_AT_ONCE),
            look: tokio::sync::Mutex::default(),
            generation: AtomicU64::new(0),
            version: tokio::sync::Mutex::default(),
            licences: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let follower = tokio::spawn(inner.clone().follow());
        Ok(Self { inner, follower, _lock: lock })
    }
}

/// Where a file of the host is seen.
fn seen_from(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Inner {
    /// Where the agent sees a file of the host.
    fn here(&self, path: &Path) -> PathBuf {
        seen_from(&self.settings.host_root, path)
    }

    fn licences(&self) -> std::sync::MutexGuard<'_, Licences> {
        self.licences.lock().expect("no panic while it is held")
    }

    /// Takes in what sessions say of their licences.
    fn note_licences(&self, told: &[Told]) {
        let mut licences = told.iter().flat_map(|told| told.licences.iter().map(move |licence| (told, licence)));
        let fault = licences.clone().find(|(_, licence)| licence.status != "licensed").map(|(told, licence)| {
            format!("the licence of {} for the session {} is {:?}", licence.product, told.id, licence.status)
        });
        if licences.next().is_some() {
            self.licences().told = Some(fault.map_or(Ok(()), Err));
        }
    }

    /// A session was created: there was a licence.
    fn licence_given(&self) {
        self.licences().denied = None;
    }

    /// A session was not created for want of a licence.
    fn licence_denied(&self, words: &str) {
        self.licences().denied = Some((words.to_owned(), Instant::now()));
    }

    fn license(&self) -> License {
        let licences = self.licences();
        match (&licences.denied, &licences.told) {
            (Some((words, _)), _) => License::Faulty(words.clone()),
            (None, Some(Err(fault))) => License::Faulty(fault.clone()),
            (None, Some(Ok(()))) => License::Valid,
            (None, None) => License::Unknown,
        }
    }

    /// Why no further session would get a licence now.
    fn lack_of_licences(&self) -> Option<String> {
        let licences = self.licences();
        let (words, since) = licences.denied.as_ref()?;
        (since.elapsed() < LICENCE_RETRY).then(|| format!("the DCV server has no licence for another session: {words}"))
    }

    /// The server's configuration; without a file the defaults.
    fn configuration(&self) -> io::Result<Configuration> {
        use std::io::Read;
        let file = match fs::File::open(self.here(&self.settings.configuration)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Configuration::parse("")),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.take(CONFIGURATION_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Configuration::parse(&String::from_utf8_lossy(&bytes)))
    }

    async fn describe(&self) -> Result<Description, BackendError> {
        let configuration = self.configuration().map_err(|error| BackendError {
            action: "read the configuration of the DCV server",
            message: format!("{}: {error}", self.settings.configuration.display()),
        })?;
        let told = self.look().await;
        let version = if told.is_ok() { self.version().await } else { String::new() };
        let license = self.license();
        let (told, fault) = match told {
            Ok(told) => (told, self.lack_of_licences()),
            Err(fault) => (Arc::default(), Some(fault)),
        };
        let year = version.split('.').next().and_then(|year| year.parse::<u32>().ok());
        let has_gl_tool = self.here(Path::new("/usr/bin/dcvgladmin")).exists();
        Ok(Description {
            capacity: Capacity {
                session_types: possible_types(&told),
                max_virtual_sessions: configuration.max_virtual_sessions(),
                max_concurrent_sessions_per_user: configuration.max_sessions_per_user(),
                gl: has_gl_tool && configuration.has_gl(),
            },
            endpoints: configuration.endpoints(year.is_none_or(|year| year >= QUIC_SINCE)),
            unhealthy: fault,
            version,
            license,
            ..Description::default()
        })
    }

    async fn set_permissions(&self, id: &str, text: Option<&str>) -> Result<(), String> {
        Permissions::parse(text).map_err(|error| error.to_string())?;
        self.running(id).await?;
        let file = match text {
            Some(text) => {
                let file = self.private.make(id, text, Reader::Group(self.server_group().await));
                Some(file.map_err(|error| format!("their file could not be made: {error}"))?)
            }
            None => None,
        };
        let words = arguments::set_permissions(id, file.as_ref().map(private::PrivateFile::path));
        let answer = self.dcv(&words, CHANGE).await.map_err(|error| error.to_string())?;
        if answer.is_success() { Ok(()) } else { Err(answer.words()) }
    }

    async fn screenshot(&self, id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, String> {
        self.running(id).await?;
        let picture = self.picture(id, request, Bound::Width(request.max_width)).await?;
        if fits(&picture, request)? {
            return Ok(picture);
        }
        self.picture(id, request, Bound::Height(request.max_height)).await
    }

    async fn picture(&self, id: &str, request: ScreenshotRequest, bound: Bound) -> Result<Vec<u8>, String> {
        let words = arguments::screenshot(id, request.format, bound);
        let answer = self.dcv(&words, PICTURE).await.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            return Err(answer.words());
        }
        parse::parse_screenshot(&answer.text(), request.format).map_err(|error| error.to_string())
    }

    async fn running(&self, id: &str) -> Result<(), String> {
        let told = self.look().await?;
        if told.iter().any(|told| told.id == id) { Ok(()) } else { Err(format!("session {id} does not run")) }
    }
}

/// Whether a picture is as small as asked for.
fn fits(picture: &[u8], request: ScreenshotRequest) -> Result<bool, String> {
    let reader = image::ImageReader::new(io::Cursor::new(picture)).with_guessed_format();
    let size = reader.map_err(|error| error.to_string())?.into_dimensions();
    let (width, height) = size.map_err(|error| format!("the picture cannot be read: {error}"))?;
    Ok(width <= request.max_width && height <= request.max_height)
}

/// Kinds of session that can be created beside those that are there: never both at a time.
fn possible_types(told: &[Told]) -> Vec<SessionType> {
    match told.first() {
        None => vec![SessionType::Virtual, SessionType::Console],
        Some(told) => vec![told.kind().unwrap_or(SessionType::Virtual)],
    }
}

fn failed(action: &'static str) -> impl Fn(String) -> BackendError {
    move |message| BackendError { action, message }
}

impl Backend for DcvBackend {
    const NAME: &'static str = "dcv";

    async fn describe(&self) -> Result<Description, BackendError> {
        self.inner.describe().await
    }

    async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        self.inner.list().await
    }

    async fn create(&self, order: &Order) -> Result<(), CreateError> {
        self.inner.create(order).await
    }

    /// A session that was started by hand is known to people as it is.
    async fn announce(&self, id: &str) -> Result<(), BackendError> {
        let noted = self.inner.notes.update(id, |note| note.announced = true);
        let error = match noted {
            Ok(true) => return Ok(()),
            Ok(false) => match self.inner.running(id).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error.to_string(),
        };
        Err(failed("note the announcement")(error))
    }

    async fn close(&self, id: &str) -> Result<(), BackendError> {
        self.inner.close(id).await
    }

    async fn set_permissions(&self, id: &str, text: Option<&str>) -> Result<(), BackendError> {
        self.inner.set_permissions(id, text).await.map_err(failed("set the permissions"))
    }

    async fn screenshot(&self, id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, BackendError> {
        self.inner.screenshot(id, request).await.map_err(failed("take a screenshot"))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_files_are_seen_where_its_commands_run() {
        let root = |prefix: &str| host_root(&prefix.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for (prefix, expected) in [
            ("", "/"),
            ("chroot /host", "/host"),
            ("/usr/sbin/chroot --userspec=0 /host", "/host"),
            ("nsenter -t 1 -m --", "/proc/1/root"),
            ("sudo -n", "/"),
        ] {
            assert_eq!(root(prefix), Path::new(expected), "{prefix}");
        }
        assert_eq!(seen_from(Path::new("/host"), Path::new("/etc/dcv")), Path::new("/host/etc/dcv"));
        assert_eq!(seen_from(Path::new("/"), Path::new("/etc/dcv")), Path::new("/etc/dcv"));
    }
}
