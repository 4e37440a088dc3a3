//! The `vnc` backend with real desktops. Needs root, `tigervnc-standalone-server`, icewm, xterm and the accounts `ann`
//! and `bob`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::CreateError;
use dcv_operator::agent::backend::HostSession;
use dcv_operator::agent::backend::ImageFormat;
use dcv_operator::agent::backend::Marker;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::backend::ScreenshotRequest;
use dcv_operator::agent::backend::contract;
use dcv_operator::agent::backend::owner_pattern;
use dcv_operator::agent::backend::vnc::VncBackend;
use dcv_operator::agent::backend::vnc::VncSettings;
use dcv_operator::agent::gate::View;
use dcv_operator::api::DcvSession;
use dcv_operator::api::session::SessionType;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

/// A cluster that knows no session: nobody gets in, which these tests do not try.
struct NoView;

impl View for NoView {
    fn keys(&self) -> Arc<JwkSet> {
        Arc::new(JwkSet { keys: Vec::new() })
    }
    fn agent_keys(&self) -> Arc<JwkSet> {
        self.keys()
    }
    fn session(&self, _: &str) -> Option<Arc<DcvSession>> {
        None
    }
    fn server_uid(&self) -> String {
        String::new()
    }
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// A host of its own: folders below a fresh one, which is gone at the end with every process of it.
struct TestHost {
    folder: tempfile::TempDir,
    settings: VncSettings,
}

impl TestHost {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("vnc-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut settings = VncSettings::new("test", env!("CARGO_BIN_EXE_dcv-operator"));
        settings.state_folder = folder.path().join("run");
        settings.init_folder = folder.path().join("init");
        settings.autorun_folder = folder.path().join("autorun");
        settings.max_concurrent_sessions_per_user = -1;
        settings.geometry = "640x480".into();
        settings.create_timeout = Duration::from_secs(30);
        let host = Self { folder, settings };
        host.program("init/plain.sh", "exec sleep 1000");
        host
    }

    fn program(&self, path: &str, script: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn open(&self) -> VncBackend {
        VncBackend::open(self.settings.clone(), Arc::new(NoView)).await.unwrap()
    }

    fn session(&self, id: &str) -> PathBuf {
        self.settings.state_folder.join("vnc/test").join(id)
    }

    fn json(&self, id: &str, file: &str) -> Value {
        serde_json::from_slice(&fs::read(self.session(id).join(file)).unwrap()).unwrap()
    }

    fn pid(&self, id: &str, which: &str) -> i32 {
        i32::try_from(self.json(id, "host.json")[which]["pid"].as_i64().unwrap()).unwrap()
    }

    fn display(&self, id: &str) -> u64 {
        self.json(id, "host.json")["display"].as_u64().unwrap()
    }

    /// Every process that has to do with this host.
    fn processes(&self) -> Vec<String> {
        let own = self.folder.path().display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == std::process::id().to_string() {
                continue;
            }
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let text = [read("cmdline"), read("environ")].concat();
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            if text.contains(&own) {
                found.push(format!("{name}: {}", String::from_utf8_lossy(&read("cmdline")).replace('\0', " ")));
            }
        }
        found
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for process in self.processes() {
            let pid = process.split(':').next().unwrap().parse().unwrap();
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn order(id: &str, owner: &str, init: Option<&str>) -> Order {
    Order {
        id: id.into(),
        marker: Marker {
            cluster_uid: "cluster".into(),
            namespace: "default".into(),
            name: id.into(),
            uid: id.into(),
            attempt: 1,
            owner: owner.into(),
            boot_id: "boot".into(),
        },
        type_: SessionType::Virtual,
        display_name: format!("Session {id}"),
        owner: owner.into(),
        init_file: init.map(str::to_owned),
        autorun_file: None,
        autorun_file_arguments: Vec::new(),
        max_concurrent_clients: None,
        dcv_gl_enabled: None,
        permissions: None,
        storage_root: None,
    }
}

async fn find(backend: &VncBackend, id: &str) -> Option<HostSession> {
    backend.list().await.unwrap().into_iter().find(|session| session.id == id)
}

/// Waits for a condition for ten seconds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const WHOLE: ScreenshotRequest = ScreenshotRequest { max_width: 4000, max_height: 4000, format: ImageFormat::Png };

async fn screen(backend: &VncBackend, id: &str) -> image::RgbImage {
    image::load_from_memory(&backend.screenshot(id, WHOLE).await.unwrap()).unwrap().into_rgb8()
}

fn refused(outcome: Result<(), CreateError>) -> String {
    match outcome {
        Err(CreateError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn failed(outcome: Result<(), CreateError>) -> String {
    match outcome {
        Err(CreateError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// Runs a program as an account and says whether it succeeded.
fn run_as(uid: u32, environment: &[(&str, String)], program: &[&str]) -> bool {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).uid(uid).gid(uid).env_clear().env("PATH", "/usr/bin:/bin");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stderr(Stdio::null()).status().unwrap().success()
}

const ANN: u32 = 1001;
const BOB: u32 = 1002;

/// The uids this file takes for granted.
fn check_accounts() {
    for (name, uid) in [("ann", ANN), ("bob", BOB)] {
        let id = Command::new("id").args(["-u", name]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), uid.to_string(), "account {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_backend_promises() {
    let host = TestHost::new();
    let backend = host.open().await;
    let fixture = contract::Fixture {
        backend: &backend,
        owner: "ann".into(),
        refused_owner: "root".into(),
        init_file: Some("plain.sh".into()),
    };
    let end = async |id: &str| kill(Pid::from_raw(host.pid(id, "xServer")), Signal::SIGKILL).unwrap();
    contract::holds(&fixture, end).await;
}

#[tokio::test]
async fn a_desktop_is_created_listed_pictured_and_closed() {
    let host = TestHost::new();
    let backend = host.open().await;
    let description = backend.describe().await.unwrap();
    assert!(description.version.starts_with("TigerVNC 1."), "{}", description.version);
    assert_eq!(description.unhealthy, None);
    let start = Instant::now();
    backend.create(&order("one", "ann", None)).await.unwrap();
    println!("create to ready: {:?}", start.elapsed());
    let listed = find(&backend, "one").await.unwrap();
    assert_eq!((listed.phase, listed.owner.as_str()), (Phase::Running, "ann"));
    assert_eq!(listed.marker, Some(order("one", "ann", None).marker));
    assert_eq!(screen(&backend, "one").await.dimensions(), (640, 480));
    let small = ScreenshotRequest { max_width: 100, max_height: 100, format: ImageFormat::Jpeg };
    let small = image::load_from_memory(&backend.screenshot("one", small).await.unwrap()).unwrap();
    assert_eq!((small.width(), small.height()), (100, 75));
    let host_pid = host.pid("one", "host");
    let mut again = order("one", "ann", None);
    again.marker.attempt = 2;
    backend.create(&again).await.unwrap();
    assert_eq!(host.pid("one", "host"), host_pid, "the same one");
    assert_eq!(find(&backend, "one").await.unwrap().marker, Some(again.marker));
    assert!(refused(backend.create(&order("one", "bob", None)).await).contains("another owner"));
    let start = Instant::now();
    backend.close("one").await.unwrap();
    println!("close: {:?}", start.elapsed());
    backend.close("one").await.unwrap();
    assert_eq!(backend.list().await.unwrap(), []);
    assert_eq!(host.processes(), [""; 0]);
    assert!(!host.session("one").exists());
}

#[tokio::test]
async fn ten_sessions_at_once_have_ten_displays_and_each_picture_is_of_its_own() {
    let host = TestHost::new();
    let backend = Arc::new(host.open().await);
    let ids: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
    let colour = |number: usize| [20 + 20 * u8::try_from(number).unwrap(), 200, 100];
    let mut creates = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let [red, green, blue] = colour(number);
        let script = format!("exec xterm -bg '#{red:02x}{green:02x}{blue:02x}' -geometry 200x100+0+0");
        host.program(&format!("init/{id}.sh"), &script);
        let (backend, order) = (backend.clone(), order(id, "ann", Some(&format!("{id}.sh"))));
        creates.push(tokio::spawn(async move { backend.create(&order).await }));
    }
    for create in creates {
        create.await.unwrap().unwrap();
    }
    let displays: BTreeSet<u64> = ids.iter().map(|id| host.display(id)).collect();
    assert_eq!(displays.len(), 10);
    for (number, id) in ids.iter().enumerate() {
        until("its own colour", async || screen(&backend, id).await.get_pixel(400, 400).0 == colour(number)).await;
    }
    for id in &ids {
        backend.close(id).await.unwrap();
    }
    assert_eq!(host.processes(), [""; 0]);
}

#[tokio::test]
async fn nobody_but_the_owner_opens_the_display_or_reaches_the_files() {
    check_accounts();
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", None)).await.unwrap();
    let folder = host.session("one");
    let xauth = folder.join("s/xauth");
    let environment = |xauth: &Path| {
        vec![("DISPLAY", format!(":{}", host.display("one"))), ("XAUTHORITY", xauth.display().to_string())]
    };
    let open = ["xterm", "-e", "true"];
    assert!(run_as(ANN, &environment(&xauth), &open), "the owner does");
    assert!(!run_as(ANN, &environment(Path::new("/dev/null")), &open), "not without the cookie");
    assert!(!run_as(BOB, &environment(&xauth), &open));
    for (uid, path, expected) in [
        (ANN, "s/rfb.sock", true),
        (ANN, "state.json", false),
        (ANN, "host.json", false),
        (ANN, "control", false),
        (BOB, "s", false),
        (BOB, "s/xauth", false),
        (BOB, "state.json", false),
    ] {
        let path = folder.join(path);
        assert_eq!(run_as(uid, &[], &["test", "-r", path.to_str().unwrap()]), expected, "{uid} {}", path.display());
    }
    let server = host.pid("one", "xServer");
    let sockets = fs::read_dir(format!("/proc/{server}/fd")).unwrap().flatten();
    let inodes: BTreeSet<String> = sockets
        .filter_map(|fd| {
            fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    for table in ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp"] {
        let text = fs::read_to_string(table).unwrap();
        let inode = |line: &str| line.split_ascii_whitespace().nth(9).map(str::to_owned);
        assert!(!text.lines().filter_map(inode).any(|inode| inodes.contains(&inode)), "a port in {table}");
    }
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn a_socket_that_the_owner_has_replaced_gets_nothing() {
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    let target = host.folder.path().join("for-root-only.sock");
    let listener = std::os::unix::net::UnixListener::bind(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    let socket = host.session("one").join("s/rfb.sock");
    let script = format!("rm {0} && ln -s {1} {0}", socket.display(), target.display());
    assert!(run_as(ANN, &[], &["sh", "-c", &script]));
    let error = backend.screenshot("one", WHOLE).await.unwrap_err();
    assert!(error.message.contains("is not that of the session's X server"), "{}", error.message);
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut got).unwrap();
    assert_eq!(got, [0_u8; 0]);
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running, "the desktop itself goes on");
    backend.close("one").await.unwrap();
    assert!(target.exists(), "links are not followed");
    assert_eq!(host.processes(), [""; 0]);
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out() {
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    let mut open = Vec::new();
    for number in 0..12 {
        let mut stream = std::os::unix::net::UnixStream::connect(host.session("one").join("s/rfb.sock")).unwrap();
        std::io::Read::read_exact(&mut stream, &mut [0; 12]).unwrap();
        if number % 2 == 0 {
            open.push(stream);
        }
    }
    assert_eq!(screen(&backend, "one").await.dimensions(), (640, 480));
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn what_is_killed_ends_the_session_with_everything_of_it() {
    let host = TestHost::new();
    // One that ignores TERM, one that has left its parent and its session, one whose environment is clean.
    host.program(
        "init/stubborn.sh",
        "(trap '' TERM; while :; do sleep 1; done) &\nsetsid sh -c 'sleep 4242 & exit' &\nexec icewm-session",
    );
    let backend = host.open().await;
    for (which, reason) in [("host", "the session host was killed"), ("xServer", "the X server ended by SIGKILL")] {
        backend.create(&order("one", "ann", Some("stubborn.sh"))).await.unwrap();
        let mut changes = backend.changes();
        changes.mark_unchanged();
        kill(Pid::from_raw(host.pid("one", which)), Signal::SIGKILL).unwrap();
        until("its end is noticed", async || matches!(find(&backend, "one").await.unwrap().phase, Phase::Ended(_)))
            .await;
        assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Ended(reason.into()));
        assert!(changes.has_changed().unwrap());
        assert_eq!(host.processes(), [""; 0], "killed: {which}");
        assert!(backend.screenshot("one", WHOLE).await.is_err());
        backend.close("one").await.unwrap();
        assert!(!host.session("one").exists());
    }
    backend.create(&order("one", "ann", Some("stubborn.sh"))).await.unwrap();
    backend.close("one").await.unwrap();
    assert_eq!(host.processes(), [""; 0], "closed");
}

#[tokio::test]
async fn a_session_ends_with_its_desktop_and_a_new_one_takes_its_place() {
    let host = TestHost::new();
    host.program("init/brief.sh", "sleep 0.3; xterm -e true; exit 3");
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("brief.sh"))).await.unwrap();
    let reason = "the desktop ended with exit code 3";
    until(reason, async || find(&backend, "one").await.unwrap().phase == Phase::Ended(reason.into())).await;
    assert_eq!(host.processes(), [""; 0]);
    drop(backend);
    let backend = host.open().await;
    let phase = find(&backend, "one").await.unwrap().phase;
    assert_eq!(phase, Phase::Ended(reason.into()), "still told after a restart");
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running);
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_cleans_up_what_does_not() {
    let host = TestHost::new();
    let backend = host.open().await;
    for id in ["lives", "dies"] {
        backend.create(&order(id, "ann", None)).await.unwrap();
    }
    let pid = host.pid("lives", "xServer");
    drop(backend);
    kill(Pid::from_raw(host.pid("dies", "host")), Signal::SIGKILL).unwrap();
    let start = Instant::now();
    let backend = host.open().await;
    println!("adoption: {:?}", start.elapsed());
    assert_eq!(find(&backend, "lives").await.unwrap().phase, Phase::Running);
    assert_eq!(find(&backend, "dies").await.unwrap().phase, Phase::Ended("the session host was killed".into()));
    assert_eq!(host.pid("lives", "xServer"), pid);
    screen(&backend, "lives").await;
    backend.close("dies").await.unwrap();
    assert!(host.processes().iter().all(|process| !process.contains("/dies/")));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("its end is noticed", async || find(&backend, "lives").await.unwrap().phase != Phase::Running).await;
    backend.close("lives").await.unwrap();
    assert_eq!(host.processes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_any_two_steps_of_a_create_leaves_a_session_or_nothing() {
    let host = TestHost::new();
    for (number, delay) in (0..36).map(|number| (number, 6 * (number / 3))) {
        let id = format!("s{number}");
        let backend = Arc::new(host.open().await);
        let create = tokio::spawn({
            let (backend, order) = (backend.clone(), order(&id, "ann", None));
            async move { backend.create(&order).await }
        });
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let file = fs::read(host.session(&id).join("host.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&file).unwrap_or_default();
        let pid = |which: &str| state[which]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        match number % 3 {
            0 => {
                if let Some(pid) = pid("host") {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            1 => {
                if let Some(pid) = pid("xServer") {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            // The agent: all that it was doing stops, and another one comes.
            _ => {
                create.abort();
                let _ = create.await;
                drop(backend);
                let backend = host.open().await;
                let again = backend.create(&order(&id, "ann", None)).await;
                assert_eq!(again, Ok(()), "after {delay} ms");
                assert_eq!(find(&backend, &id).await.unwrap().phase, Phase::Running);
                backend.close(&id).await.unwrap();
                assert_eq!(host.processes(), [""; 0], "agent killed after {delay} ms");
                continue;
            }
        }
        match create.await.unwrap() {
            Ok(()) => backend.close(&id).await.unwrap(),
            Err(CreateError::Failed(_)) => {}
            Err(other) => panic!("{other}"),
        }
        assert_eq!(find(&backend, &id).await, None);
        assert_eq!(host.processes(), [""; 0], "number {number} after {delay} ms");
        assert!(!host.session(&id).exists());
    }
}

#[tokio::test]
async fn a_create_whose_caller_goes_away_is_finished_all_the_same() {
    let host = TestHost::new();
    let backend = host.open().await;
    let order = order("one", "ann", None);
    let hurried = tokio::time::timeout(Duration::from_millis(20), backend.create(&order)).await;
    assert!(hurried.is_err());
    until("it runs", async || find(&backend, "one").await.is_some_and(|session| session.phase == Phase::Running)).await;
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn failures_carry_the_hosts_words_and_leave_nothing() {
    let mut host = TestHost::new();
    host.program("init/fails.sh", "echo 'no licence for the desktop' >&2; exit 7");
    host.program("init/nonsense.sh", "");
    fs::write(host.settings.init_folder.join("nonsense.sh"), "#!/does/not/exist\n").unwrap();
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", Some("fails.sh"))).await);
    assert_eq!(reason, "the desktop ended with exit code 7: no licence for the desktop");
    let reason = failed(backend.create(&order("one", "ann", Some("nonsense.sh"))).await);
    assert!(reason.contains("No such file or directory"), "{reason}");
    let mut unwritable = order("one", "ann", Some("plain.sh"));
    unwritable.storage_root = Some("/root/of/ann".into());
    let reason = failed(backend.create(&unwritable).await);
    assert!(
        reason.contains("the storage folder could not be made") && reason.contains("Permission denied"),
        "{reason}"
    );
    drop(backend);

    host.program("broken-x", "echo 'Fatal server error: no fonts' >&2; exit 1");
    host.settings.x_server = host.folder.path().join("broken-x");
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", None)).await);
    assert_eq!(reason, "the X server ended with exit code 1: Fatal server error: no fonts");
    drop(backend);

    host.program("mute-x", "exec sleep 1000");
    host.settings.x_server = host.folder.path().join("mute-x");
    host.settings.create_timeout = Duration::from_secs(1);
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", None)).await);
    assert_eq!(reason, "the desktop was not up after 1 s");
    assert_eq!(backend.list().await.unwrap(), []);
    assert_eq!(host.processes(), [""; 0]);
}

#[tokio::test]
async fn owners_files_and_limits_are_checked_first() {
    let mut host = TestHost::new();
    host.settings.max_virtual_sessions = 2;
    host.settings.max_concurrent_sessions_per_user = 1;
    host.settings.owner_pattern = Some(owner_pattern("ann|bob|root|daemon|nobody-here").unwrap());
    let backend = host.open().await;
    let mut cases = vec![
        (order("x", "nobody-here", None), "Specified user is not a local user: nobody-here"),
        (order("x", "carl", None), "the owner carl is not among the accounts that may have sessions on this host"),
        (order("x", "root", None), "the owner root has the uid 0; sessions on this host are for uid 1000 and above"),
        (
            order("x", "daemon", None),
            "the owner daemon has the uid 1; sessions on this host are for uid 1000 and above",
        ),
        (order("x", "ann", Some("absent.sh")), "initFile \"absent.sh\" does not exist on this host"),
    ];
    let mut autorun = order("x", "ann", None);
    autorun.autorun_file = Some("../x".into());
    cases.push((autorun, "autorunFile \"../x\" must be a relative path without .."));
    for (order, expected) in cases {
        assert_eq!(refused(backend.create(&order).await), expected);
    }
    backend.create(&order("a", "ann", Some("plain.sh"))).await.unwrap();
    let second = backend.create(&order("a2", "ann", Some("plain.sh"))).await;
    assert_eq!(refused(second), "ann has 1 sessions on this host, as many as one may");
    backend.create(&order("b", "bob", Some("plain.sh"))).await.unwrap();
    let third = backend.create(&order("a3", "ann", Some("plain.sh"))).await;
    assert_eq!(refused(third), "the host runs 2 sessions, as many as it may");
    backend.close("a").await.unwrap();
    backend.create(&order("a2", "ann", Some("plain.sh"))).await.unwrap();
    for id in ["a2", "b"] {
        backend.close(id).await.unwrap();
    }
}

#[tokio::test]
async fn programs_run_as_the_owner_in_a_clean_environment() {
    let host = TestHost::new();
    let report = "{ id; pwd; umask; env; printf '%s\\n' \"$@\"; ls -l /proc/self/fd; } >\"$HOME/vnc-test-report.new\"\n\
        mv \"$HOME/vnc-test-report.new\" \"$HOME/vnc-test-report\"";
    host.program("autorun/report.sh", report);
    let backend = host.open().await;
    let mut order = order("one", "ann", Some("plain.sh"));
    order.autorun_file = Some("report.sh".into());
    order.autorun_file_arguments = vec!["a b".into(), "$HOME;`id`".into()];
    order.storage_root = Some("%home%/vnc-test-storage/deep".into());
    let (report, storage) = (Path::new("/home/ann/vnc-test-report"), Path::new("/home/ann/vnc-test-storage"));
    let clean = || {
        let _ = fs::remove_file(report);
        let _ = fs::remove_dir_all(storage);
    };
    clean();
    backend.create(&order).await.unwrap();
    until("the report", async || report.exists()).await;
    let text = fs::read_to_string(report).unwrap();
    for line in [
        "uid=1001(ann) gid=1001(ann) groups=1001(ann)",
        "/home/ann",
        "0022",
        "USER=ann",
        "LOGNAME=ann",
        "LANG=C.UTF-8",
        "DCV_SESSION_ID=one",
        "a b",
        "$HOME;`id`",
        &format!("DISPLAY=:{}", host.display("one")),
        &format!("XAUTHORITY={}/s/xauth", host.session("one").display()),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("CARGO"), "nothing of the agent's environment\n{text}");
    assert_eq!(text.matches("pipe:").count(), 1, "no other pipe than its errors'\n{text}");
    assert_eq!(text.matches("socket:").count(), 0, "{text}");
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&storage.join("deep")), ANN);
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running, "the end of the autorun program is no end");
    backend.close("one").await.unwrap();
    clean();
}
