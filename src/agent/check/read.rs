//! Reads how the host is set up. Judges nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use nix::sys::statfs::TMPFS_MAGIC;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;

use super::Kind;
use super::Source;
use crate::agent::dcv_conf::DcvConf;
use crate::agent::host::Card;
use crate::agent::host::cards;
use crate::agent::tags;

/// Files that time services leave while they run, and their names; in the first one's case only once the clock is right.
/// Sources: systemd-timesyncd.service(8), chronyd(8), ntpd(8).
const TIME_SERVICES: [(&str, &str); 6] = [
    ("run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("run/chrony/chronyd.pid", "chronyd"),
    ("run/chrony/chronyd.sock", "chronyd"),
    ("run/chronyd.pid", "chronyd"),
    ("run/ntpd.pid", "ntpd"),
    ("run/ntpsec/ntpd.pid", "ntpd"),
];

/// Where programs of the host are.
const PROGRAM_FOLDERS: [&str; 5] = ["usr/local/bin", "usr/bin", "bin", "usr/sbin", "usr/local/games"];

/// How the host is set up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetUp {
    /// Uid the agent has, or whoever asks.
    pub uid: u32,
    /// Folders of programs that sessions may name, with what they are called.
    pub program_folders: Vec<(&'static str, Folder)>,
    /// Folder of the tags, and how many there are, or what is wrong with them.
    pub tags: (PathBuf, Option<Result<usize, String>>),
    /// Folder for what must not outlive the host's boot.
    pub state: Folder,
    /// Folder of the logs.
    pub logs: Option<Folder>,
    /// The time service that runs.
    pub time_service: Option<&'static str>,
    /// Whether names of accounts can be looked up.
    pub has_name_service: bool,
    /// Room for what people keep.
    pub space: Option<Space>,
    /// Graphics cards.
    pub cards: Vec<Card>,
    /// The installed desktop server, where it is to run sessions.
    pub dcv: Option<DcvSetUp>,
    /// What our own desktops need, where they are.
    pub vnc: Option<VncSetUp>,
}

/// A folder as it is on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Where, as it is set.
    pub path: PathBuf,
    /// Absent: it is not there.
    pub owner_and_mode: Option<(u32, u32)>,
    /// Files in it, one level deep, that nobody may run.
    pub not_executable: Vec<String>,
    /// Whether it is in memory, so that it is gone after a restart of the host. Absent: cannot be told.
    pub is_in_memory: Option<bool>,
}

/// Room in a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// A folder in it.
    pub path: PathBuf,
    /// All there is.
    pub total_bytes: u64,
    /// What is left to people.
    pub free_bytes: u64,
}

/// An installed Amazon DCV server.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that is there or not, by itself")]
pub struct DcvSetUp {
    /// Whether its command is there.
    pub has_command: bool,
    /// Whether its server runs.
    pub is_running: bool,
    /// Whether it starts with the host.
    pub is_enabled: bool,
    /// Whether it is started again when it ends.
    pub is_restarted: bool,
    /// Its configuration; absent: there is none.
    pub conf: Option<DcvConf>,
    /// Where that is, on the host.
    pub conf_file: PathBuf,
    /// Text of the certificates that the configuration names; absent: there is no such file.
    pub authorities: Option<String>,
    /// Text of the certificate that the agent's verifier is known by; absent: there is none yet.
    pub agent_authority: Option<String>,
    /// Name of the account that the agent, or whoever asks, has.
    pub account: Option<String>,
    /// Whether the X server of virtual sessions is there.
    pub has_xdcv: bool,
    /// Whether there is a desktop for sessions that name none.
    pub has_default_desktop: bool,
    /// Whether virtual sessions can reach a graphics card.
    pub has_gl: bool,
    /// Whether an X server runs on the host's first display.
    pub has_display: bool,
    /// Whether the login screen is one of Wayland. Absent: there is none that is known.
    pub is_wayland: Option<bool>,
    /// Whether the system's message bus is there.
    pub has_message_bus: bool,
}

/// What our own desktops need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VncSetUp {
    /// Whether the X server is there.
    pub has_x_server: bool,
    /// Whether its keyboard compiler is.
    pub has_xkbcomp: bool,
    /// Whether keyboard descriptions are.
    pub has_keyboards: bool,
    /// A desktop for sessions that name none.
    pub desktop: Option<&'static str>,
    /// Mode of the folder of X sockets; absent: it will be made.
    pub x_socket_mode: Option<u32>,
}

/// Reads the host. What cannot be read counts as not there.
pub fn read(source: &Source) -> SetUp {
    let host = |path: &str| source.host_root.join(path);
    let programs_root = match source.kind {
        Kind::Dcv => &source.host_root,
        Kind::Vnc => &source.own_root,
    };
    let own_folder = |path: &PathBuf| folder(path, &below(&source.own_root, path));
    let program_folder = |path: &PathBuf| folder(path, &below(programs_root, path));
    let services = TIME_SERVICES.iter().filter(|(path, _)| host(path).exists());
    SetUp {
        uid: nix::unistd::geteuid().as_raw(),
        program_folders: vec![
            ("InitFolder", program_folder(&source.init_folder)),
            ("AutorunFolder", program_folder(&source.autorun_folder)),
        ],
        tags: (source.tags_folder.clone(), read_tags(&below(&source.own_root, &source.tags_folder))),
        state: own_folder(&source.state_folder),
        logs: source.log_directory.as_ref().map(own_folder),
        time_service: services.map(|(_, name)| *name).next(),
        has_name_service: has_program(&source.host_root, "getent"),
        space: space("/home", &host("home")),
        cards: cards(&source.host_root),
        dcv: (source.kind == Kind::Dcv).then(|| dcv(source)),
        vnc: (source.kind == Kind::Vnc).then(|| vnc(&source.own_root)),
    }
}

/// Where a path of the host is when its files are in `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn folder(shown: &Path, path: &Path) -> Folder {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir);
    let nearest = path.ancestors().find(|folder| folder.is_dir());
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter(|entry| {
        entry.path().metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 == 0)
    });
    let mut not_executable: Vec<_> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    not_executable.sort();
    Folder {
        path: shown.to_owned(),
        owner_and_mode: metadata.map(|metadata| (metadata.uid(), metadata.mode() & 0o7777)),
        not_executable,
        is_in_memory: nearest.and_then(|path| statfs(path).ok()).map(|system| system.filesystem_type() == TMPFS_MAGIC),
    }
}

fn read_tags(folder: &Path) -> Option<Result<usize, String>> {
    folder.is_dir().then(|| tags::read(folder).map(|tags| tags.len()).map_err(|error| error.in_full()))
}

fn space(shown: &str, path: &Path) -> Option<Space> {
    let system = statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.fragment_size());
    Some(Space {
        path: shown.into(),
        total_bytes: bytes(system.blocks()),
        free_bytes: bytes(system.blocks_available()),
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

fn has_program(root: &Path, name: &str) -> bool {
    PROGRAM_FOLDERS.iter().any(|folder| is_program(&root.join(folder).join(name)))
}

fn dcv(source: &Source) -> DcvSetUp {
    let root = &source.host_root;
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let conf = fs::read_to_string(below(root, &source.dcv_conf)).ok().map(|text| DcvConf::parse(&text));
    let named = conf.as_ref().and_then(|conf| conf.text("security", "ca-file"));
    let authorities = named.and_then(|path| text(path.trim_start_matches('/')));
    let login_screens = ["etc/gdm3/custom.conf", "etc/gdm/custom.conf", "etc/gdm3/daemon.conf"];
    let login_screen = login_screens.iter().find_map(|path| text(path));
    DcvSetUp {
        conf_file: source.dcv_conf.clone(),
        has_command: has_program(root, "dcv"),
        is_running: has_process(root, "dcvserver"),
        is_enabled: ["multi-user", "graphical"].iter().any(|target| {
            fs::symlink_metadata(root.join(format!("etc/systemd/system/{target}.target.wants/dcvserver.service")))
                .is_ok()
        }),
        is_restarted: is_restarted(root, "dcvserver"),
        authorities,
        agent_authority: fs::read_to_string(below(&source.own_root, &source.verifier_authority)).ok(),
        account: account(&text("etc/passwd").unwrap_or_default(), nix::unistd::geteuid().as_raw()),
        has_xdcv: has_program(root, "Xdcv"),
        has_default_desktop: root.join("etc/dcv/dcvsessioninit").exists(),
        has_gl: ["dcvgladmin", "dcvgldiag"].iter().any(|name| has_program(root, name)),
        has_display: root.join("tmp/.X11-unix/X0").exists(),
        is_wayland: login_screen.map(|text| !disables_wayland(&text)),
        has_message_bus: root.join("run/dbus/system_bus_socket").exists(),
        conf,
    }
}

fn has_process(root: &Path, name: &str) -> bool {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut processes =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    processes.any(|entry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|text| text.trim() == name))
}

/// Whether systemd starts the unit again when it ends: the last word in the unit and what administrators added to it.
fn is_restarted(root: &Path, unit: &str) -> bool {
    let units = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];
    let own = units.iter().map(|folder| root.join(folder).join(format!("{unit}.service"))).find(|path| path.exists());
    let added = fs::read_dir(root.join(format!("etc/systemd/system/{unit}.service.d"))).into_iter().flatten().flatten();
    let mut added: Vec<_> = added.map(|entry| entry.path()).collect();
    added.sort();
    let texts = own.into_iter().chain(added).filter_map(|path| fs::read_to_string(path).ok());
    let lines = texts.flat_map(|text| {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix("Restart=")).map(str::to_owned);
        values.collect::<Vec<_>>()
    });
    lines.last().is_some_and(|value| value == "always")
}

fn account(passwd: &str, uid: u32) -> Option<String> {
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.to_string().as_str()))?;
    line.split(':').next().map(str::to_owned)
}

fn disables_wayland(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().collect::<String>().eq_ignore_ascii_case("WaylandEnable=false"))
}

fn vnc(root: &Path) -> VncSetUp {
    let desktops = ["icewm-session", "openbox-session", "xterm"];
    VncSetUp {
        has_x_server: is_program(&root.join("usr/bin/Xtigervnc")),
        has_xkbcomp: has_program(root, "xkbcomp"),
        has_keyboards: root.join("usr/share/X11/xkb").is_dir(),
        desktop: desktops.into_iter().find(|name| has_program(root, name)),
        x_socket_mode: fs::metadata(root.join("tmp/.X11-unix")).ok().map(|metadata| metadata.mode() & 0o7777),
    }
}
