//! `dcv-operator agent`: the agent of one server, or of many made-up ones.

use std::fs;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::ValueEnum;
use jiff::Timestamp;
use regex::Regex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::agent_conf::Notices;
use super::host::HostArgs;
use super::host::LogFileArgs;
use super::host::PlaceArgs;
use super::host::words;
use crate::agent;
use crate::agent::OrphanPolicy;
use crate::agent::Settings;
use crate::agent::VerifierSettings;
use crate::agent::Watched;
use crate::agent::backend::dcv::DcvBackend;
use crate::agent::backend::dcv::DcvSettings;
use crate::agent::backend::fake::Fake;
use crate::agent::backend::owner_pattern;
use crate::agent::backend::vnc::VncBackend;
use crate::agent::backend::vnc::VncSettings;
use crate::agent::check;
use crate::agent::fault;
use crate::api::names;
use crate::cluster;
use crate::cluster::Scope;
use crate::telemetry;
use crate::telemetry::LogFiles;

/// What the files of `--kubeconfig-dir` are called, after the server's name.
const KUBECONFIG_EXTENSION: &str = "kubeconfig";
/// The most servers of one process: each has connections of its own.
const MAX_SERVERS: usize = 100;
/// How much longer than the backend the agent waits, so that the backend's own words are heard.
const BACKEND_SLACK: Duration = Duration::from_secs(5);
/// How often it is looked whether every agent has made its first pass.
const READY_POLL: Duration = Duration::from_millis(250);

/// Flags of the agent.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Name of the server: its Node's, or for a host outside the cluster `host-` and a name
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required_unless_present = "kubeconfig_dir")]
    server_name: Option<String>,
    /// What runs the sessions
    #[arg(long, env = "DCV_BACKEND", value_enum)]
    backend: BackendName,
    /// Folder with one file `SERVER.kubeconfig` for each of up to 100 made-up servers, which this process serves all (fake only)
    #[arg(long, env = "DCV_KUBECONFIG_DIR", value_name = "DIR", conflicts_with = "server_name")]
    kubeconfig_dir: Option<PathBuf>,
    /// Socket of the `fake-host` process (fake only)
    #[arg(long, env = "DCV_FAKE_HOST", value_name = "SOCKET", required_if_eq("backend", "fake"))]
    fake_host: Option<PathBuf>,
    /// Where the agent serves HTTPS; port 0: any free one
    #[arg(long, env = "DCV_HTTPS_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:8444")]
    https_address: SocketAddr,
    /// Address that clients and brokers are told; the first that is not a loopback one by default
    #[arg(long, env = "DCV_ADVERTISE_ADDRESS", value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// Most virtual sessions at once; -1: no limit. By default -1, with fake as the fleet says
    #[arg(long, env = "DCV_MAX_VIRTUAL_SESSIONS", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=100_000))]
    max_virtual_sessions: Option<i32>,
    /// Most virtual sessions of one owner at once; -1: no limit. By default 1, with fake as the fleet says
    #[arg(long, env = "DCV_MAX_CONCURRENT_SESSIONS_PER_USER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=100_000))]
    max_concurrent_sessions_per_user: Option<i32>,
    /// Lowest uid that may own a session; root never may
    #[arg(long, env = "DCV_MIN_UID", value_name = "UID", default_value_t = 1000)]
    min_uid: u32,
    /// Regular expression that the whole name of an owner must match
    #[arg(long, env = "DCV_OWNER_PATTERN", value_name = "REGEX", value_parser = owner_pattern)]
    owner_pattern: Option<Regex>,
    /// What becomes of a desktop whose object is gone although nobody asked for its end
    #[arg(long, env = "DCV_ORPHAN_POLICY", value_enum, ignore_case = true, default_value = "Keep")]
    orphan_policy: OrphanPolicyName,
    /// Seconds without a client, and as many in which it could be taken over, after which `CloseWhenIdle` closes such a desktop
    #[arg(long, env = "DCV_ORPHAN_IDLE_SECONDS", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(60..=31_536_000))]
    orphan_idle_seconds: u64,
    /// How long a session may take to accept clients
    #[arg(long, env = "DCV_CREATE_TIMEOUT_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    create_timeout_seconds: u64,
    /// How often the host's facts are read, in seconds
    #[arg(long, env = "DCV_BROKER_UPDATE_INTERVAL", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=120))]
    broker_update_interval: u64,
    /// Where the host's DCV server asks whether a connection token is good: on loopback, below 1024 (dcv only)
    #[arg(long, env = "DCV_VERIFIER_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:945")]
    verifier_address: SocketAddr,
    /// The DCV server's command, on the host (dcv only)
    #[arg(long, env = "DCV_DCV_COMMAND", value_name = "PROGRAM", default_value = "dcv")]
    dcv_command: String,
    /// Folder on the host for permissions files and autorun programs; not on a file system mounted noexec (dcv only)
    #[arg(long, env = "DCV_DCV_FILES_FOLDER", value_name = "DIR", default_value = "/var/lib/dcv-operator/dcv")]
    dcv_files_folder: PathBuf,
    /// How often the DCV server is asked for what changed by itself, in seconds (dcv only)
    #[arg(long, env = "DCV_DCV_POLL_SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    dcv_poll_seconds: u64,
    /// Creates sessions without the DCV server's login monitor (dcv only)
    #[arg(long, env = "DCV_DISABLE_LOGIN_MONITOR")]
    disable_login_monitor: bool,
    /// Where things are on the host.
    #[command(flatten)]
    places: PlaceArgs,
    /// How the host is read.
    #[command(flatten)]
    host: HostArgs,
    /// Log files.
    #[command(flatten)]
    log_files: LogFileArgs,
    /// What is to be said of the configuration file.
    #[arg(skip)]
    pub notices: Notices,
    /// Desktop of sessions without `initFile`, a program with its arguments (vnc only). By default the first of
    /// icewm-session, openbox-session and xterm that is installed
    #[arg(
        long,
        env = "DCV_VNC_DESKTOP_COMMAND",
        value_name = "COMMAND",
        default_value = "",
        hide_default_value = true
    )]
    vnc_desktop_command: String,
    /// Size of the screen of a new session; clients that may work in it change it (vnc only)
    #[arg(long, env = "DCV_VNC_GEOMETRY", value_name = "WIDTHxHEIGHT", default_value = "1920x1080", value_parser = geometry)]
    vnc_geometry: String,
    /// `TigerVNC`'s X server (vnc only)
    #[arg(long, env = "DCV_VNC_X_SERVER", value_name = "FILE", default_value = "/usr/bin/Xtigervnc")]
    vnc_x_server: PathBuf,
    /// Folder where a test names the points to stop at
    #[arg(long, value_name = "DIR", hide = true)]
    fault_folder: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum BackendName {
    /// Sessions of an installed Amazon DCV server
    Dcv,
    /// Desktops of an X server, served to browsers by the agent
    Vnc,
    /// Made-up hosts, for tests
    Fake,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum OrphanPolicyName {
    /// It stays until an administrator ends it or somebody takes it over
    #[value(name = "Keep")]
    Keep,
    /// It is closed once nobody was connected to it for a while
    #[value(name = "CloseWhenIdle")]
    CloseWhenIdle,
}

impl AgentArgs {
    /// Runs the agents until one cannot go on.
    ///
    /// # Errors
    /// Why not.
    pub async fn run(
        self,
        namespace: String,
        scope: Scope,
        kubeconfig: Option<PathBuf>,
        health_address: SocketAddr,
    ) -> anyhow::Result<()> {
        self.notices.log();
        if let Some(folder) = &self.fault_folder {
            fault::set_folder(folder.clone());
        }
        let mut tasks = JoinSet::new();
        let mut views = Vec::new();
        for (server_name, kubeconfig) in self.servers(kubeconfig)? {
            let settings = Settings { scope: scope.clone(), ..self.settings(server_name, &namespace, kubeconfig) };
            let view = Arc::new(Watched::new(settings.clock));
            views.push(view.clone());
            tasks.spawn(self.clone().run_one(settings, view));
        }
        let (ready, is_ready) = watch::channel(false);
        tasks.spawn(async move {
            telemetry::health::serve(health_address, is_ready, Arc::new(agent::metrics::registry()))
                .await
                .with_context(|| format!("failed to serve health on {health_address}"))
        });
        let became_ready = async {
            while !views.iter().all(|view| view.is_ready()) {
                tokio::time::sleep(READY_POLL).await;
            }
            ready.send_replace(true);
            std::future::pending().await
        };
        tokio::select! {
            ended = tasks.join_next() => ended.context("an agent has ended")?.context("an agent broke")?,
            never = became_ready => never,
        }
    }

    async fn run_one(self, settings: Settings, view: Arc<Watched>) -> anyhow::Result<()> {
        let client = cluster::client(names::AGENT, settings.kubeconfig.as_deref()).await?;
        let lock = agent::acquire_lock(&settings).await?;
        match self.backend {
            BackendName::Dcv => {
                let backend = DcvBackend::open(self.dcv_settings()).await?;
                agent::run(settings, client, backend, view, lock).await?;
            }
            BackendName::Fake => {
                let socket = self.fake_host.context("--fake-host is missing")?;
                let backend = Fake::new(&socket, &settings.server_name);
                agent::run(settings, client, backend, view, lock).await?;
            }
            BackendName::Vnc => {
                let backend = VncBackend::open(self.vnc_settings(&settings)?, view.clone()).await?;
                agent::run(settings, client, backend, view, lock).await?;
            }
        }
        Ok(())
    }

    /// Names of the servers, and the kubeconfig of each.
    fn servers(&self, kubeconfig: Option<PathBuf>) -> anyhow::Result<Vec<(String, Option<PathBuf>)>> {
        let Some(folder) = &self.kubeconfig_dir else {
            let name = self.server_name.clone().context("--server-name is missing")?;
            return Ok(vec![(name, kubeconfig)]);
        };
        anyhow::ensure!(self.backend == BackendName::Fake, "--kubeconfig-dir is for --backend fake");
        anyhow::ensure!(self.https_address.port() == 0, "--kubeconfig-dir needs a port 0 in --https-address");
        let servers = kubeconfigs(folder)?;
        anyhow::ensure!(!servers.is_empty(), "there is no *.{KUBECONFIG_EXTENSION} in {}", folder.display());
        anyhow::ensure!(servers.len() <= MAX_SERVERS, "{} has more than {MAX_SERVERS} kubeconfigs", folder.display());
        Ok(servers)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the agent's clock is chosen")]
    fn settings(&self, server_name: String, namespace: &str, kubeconfig: Option<PathBuf>) -> Settings {
        let is_fake = self.backend == BackendName::Fake;
        let timeout = Duration::from_secs(self.create_timeout_seconds);
        Settings {
            server_name,
            namespace: namespace.to_owned(),
            scope: Scope::All,
            kubeconfig,
            state_folder: self.places.state_folder.clone(),
            https_address: self.https_address,
            advertise_address: self.advertise_address,
            tags_folder: (!is_fake).then(|| self.places.tags_folder.clone()),
            host: self.host.settings(self.places.command_prefix()),
            check: (!is_fake).then(|| self.check_source()),
            max_virtual_sessions: self.max_virtual_sessions.or((!is_fake).then_some(-1)),
            max_concurrent_sessions_per_user: self.max_concurrent_sessions_per_user.or((!is_fake).then_some(1)),
            owner_pattern: self.owner_pattern.clone(),
            orphan_policy: match self.orphan_policy {
                OrphanPolicyName::Keep => OrphanPolicy::Keep,
                OrphanPolicyName::CloseWhenIdle => {
                    OrphanPolicy::CloseWhenIdle(Duration::from_secs(self.orphan_idle_seconds))
                }
            },
            create_timeout: if is_fake { timeout } else { timeout + BACKEND_SLACK },
            update_interval: Duration::from_secs(self.broker_update_interval),
            verifier: (self.backend == BackendName::Dcv).then(|| VerifierSettings {
                address: self.verifier_address,
                folder: self.places.verifier_folder.clone(),
            }),
            clock: Timestamp::now,
        }
    }

    /// The log files, if there are to be any.
    pub fn log_files(&self) -> Option<LogFiles> {
        self.log_files.files()
    }

    /// What the host's set-up is looked at for.
    fn check_source(&self) -> check::Source {
        let kind = if self.backend == BackendName::Dcv { check::Kind::Dcv } else { check::Kind::Vnc };
        self.places.check_source(kind, &self.host.host_root, self.log_files.log_directory.as_deref())
    }

    #[expect(clippy::disallowed_methods, reason = "as above")]
    fn dcv_settings(&self) -> DcvSettings {
        let defaults = DcvSettings::new(self.places.command_prefix(), Timestamp::now);
        let is_root_given = self.host.host_root != Path::new("/");
        DcvSettings {
            host_root: if is_root_given { self.host.host_root.clone() } else { defaults.host_root.clone() },
            state_folder: self.places.state_folder.clone(),
            files_folder: self.dcv_files_folder.clone(),
            command: self.dcv_command.clone(),
            configuration: self.places.dcv_conf.clone(),
            init_folder: self.places.init_folder.clone(),
            autorun_folder: self.places.autorun_folder.clone(),
            min_uid: self.min_uid,
            owner_pattern: self.owner_pattern.clone(),
            disables_login_monitor: self.disable_login_monitor,
            create_timeout: Duration::from_secs(self.create_timeout_seconds),
            poll_interval: Duration::from_secs(self.dcv_poll_seconds),
            ..defaults
        }
    }

    fn vnc_settings(&self, settings: &Settings) -> anyhow::Result<VncSettings> {
        let program = std::env::current_exe().context("failed to find our own program")?;
        Ok(VncSettings {
            state_folder: self.places.state_folder.clone(),
            init_folder: self.places.init_folder.clone(),
            autorun_folder: self.places.autorun_folder.clone(),
            min_uid: self.min_uid,
            owner_pattern: self.owner_pattern.clone(),
            // The agent admits, by the limits an administrator may have changed on the server.
            max_virtual_sessions: -1,
            max_concurrent_sessions_per_user: -1,
            create_timeout: Duration::from_secs(self.create_timeout_seconds),
            host_command_prefix: self.places.command_prefix(),
            desktop_command: words(&self.vnc_desktop_command),
            geometry: self.vnc_geometry.clone(),
            x_server: self.vnc_x_server.clone(),
            ..VncSettings::new(&settings.server_name, program)
        })
    }
}

/// A size of a screen that the X server can have.
fn geometry(text: &str) -> Result<String, String> {
    let is_size = |text: &str| text.parse::<u16>().is_ok_and(|pixels| (64..=16384).contains(&pixels));
    match text.split_once('x') {
        Some((width, height)) if is_size(width) && is_size(height) => Ok(text.to_owned()),
        _ => Err("expected two numbers from 64 to 16384, as in 1920x1080".into()),
    }
}

fn kubeconfigs(folder: &Path) -> anyhow::Result<Vec<(String, Option<PathBuf>)>> {
    let read = || format!("failed to read {}", folder.display());
    let mut servers = Vec::new();
    for entry in fs::read_dir(folder).with_context(read)? {
        let path = entry.with_context(read)?.path();
        if path.extension().is_some_and(|extension| extension == KUBECONFIG_EXTENSION)
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            servers.push((name.to_owned(), Some(path)));
        }
    }
    servers.sort();
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn parse(flags: &[&str]) -> Result<AgentArgs, String> {
        let parsed = Cli::try_parse_from(["agent"].iter().chain(flags));
        parsed.map(|cli| cli.args).map_err(|error| error.to_string())
    }

    fn settings(flags: &[&str]) -> Settings {
        parse(flags).unwrap().settings("host-1".into(), "dcv-system", None)
    }

    #[test]
    fn limits_default_to_the_documented_ones_and_with_fake_to_the_fleets() {
        let vnc = settings(&["--backend", "vnc", "--server-name", "host-1"]);
        assert_eq!((vnc.max_virtual_sessions, vnc.max_concurrent_sessions_per_user), (Some(-1), Some(1)));
        let fake = settings(&["--backend", "fake", "--fake-host", "s", "--server-name", "host-1"]);
        assert_eq!((fake.max_virtual_sessions, fake.max_concurrent_sessions_per_user), (None, None));
        assert_eq!(fake.tags_folder, None);
    }

    #[test]
    fn only_a_dcv_server_asks_a_verifier() {
        let dcv = settings(&["--backend", "dcv", "--server-name", "host-1"]);
        assert_eq!(dcv.verifier.unwrap().address, "127.0.0.1:945".parse().unwrap());
        assert!(settings(&["--backend", "vnc", "--server-name", "host-1"]).verifier.is_none());
    }

    #[test]
    fn unclaimed_desktops_are_kept_unless_a_setting_says_otherwise() {
        let policy = |flags: &[&str]| {
            settings(&[&["--backend", "vnc", "--server-name", "host-1"], flags].concat()).orphan_policy
        };
        assert_eq!(policy(&[]), OrphanPolicy::Keep);
        let hour = OrphanPolicy::CloseWhenIdle(Duration::from_hours(1));
        assert_eq!(policy(&["--orphan-policy", "CloseWhenIdle"]), hour);
        let minute = OrphanPolicy::CloseWhenIdle(Duration::from_mins(1));
        assert_eq!(policy(&["--orphan-policy", "CloseWhenIdle", "--orphan-idle-seconds", "60"]), minute);
    }

    #[test]
    fn bad_flags_are_refused() {
        assert!(parse(&["--backend", "fake", "--server-name", "a"]).unwrap_err().contains("--fake-host"));
        assert!(parse(&["--backend", "vnc", "--server-name", "a", "--max-virtual-sessions", "-2"]).is_err());
        assert!(parse(&["--backend", "vnc", "--server-name", "a", "--owner-pattern", "("]).is_err());
        for size in ["1920", "1920x", "axb", "0x600", "800x99999", "800x600x2"] {
            assert!(parse(&["--backend", "vnc", "--server-name", "a", "--vnc-geometry", size]).is_err(), "{size}");
        }
    }

    #[test]
    fn the_desktop_of_a_vnc_host_is_the_flags() {
        let flags = ["--vnc-desktop-command", "dbus-run-session -- xfce4-session", "--vnc-geometry", "800x600"];
        let args = parse(&[&["--backend", "vnc", "--server-name", "a"], &flags[..]].concat()).unwrap();
        let vnc = args.vnc_settings(&args.settings("a".into(), "dcv-system", None)).unwrap();
        assert_eq!(vnc.desktop_command, ["dbus-run-session", "--", "xfce4-session"]);
        assert_eq!((vnc.geometry.as_str(), vnc.x_server.as_path()), ("800x600", Path::new("/usr/bin/Xtigervnc")));
    }

    #[test]
    fn the_pattern_is_for_the_whole_name() {
        let pattern = settings(&["--backend", "vnc", "--server-name", "a", "--owner-pattern", "a|b"]).owner_pattern;
        let pattern = pattern.unwrap();
        assert!(pattern.is_match("a") && !pattern.is_match("ab"));
    }

    #[test]
    fn each_kubeconfig_of_a_folder_is_a_server() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["host-2.kubeconfig", "host-1.kubeconfig", "host-1.token"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = kubeconfigs(folder.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["host-1", "host-2"]);
    }
}
