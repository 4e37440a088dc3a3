//! The command line: raw flags, and the settings each role makes of them.
//!
//! The only place that reads flags and the environment. Every role takes its own `Settings`; nobody below sees raw text.

pub mod agent;
mod agent_conf;
pub mod broker;
pub mod check;
pub mod chroot;
pub mod controller;
pub mod fake_host;
mod host;
pub mod init;
pub mod session_host;
pub mod trial;
pub mod verify_isolation;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use clap::Args;
use clap::CommandFactory;
use clap::FromArgMatches;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::api;
use crate::api::names;
use crate::cluster;
use crate::cluster::Scope;
use crate::telemetry;
use crate::telemetry::LogFiles;
use crate::telemetry::traces;
use agent::AgentArgs;
use agent_conf::Fault;
use agent_conf::Notices;
use broker::BrokerArgs;
use check::CheckArgs;
use chroot::ChrootArgs;
use controller::ControllerArgs;
use fake_host::FakeHostArgs;
use init::InitArgs;
use session_host::SessionHostArgs;
use trial::TrialArgs;
use verify_isolation::VerifyIsolationArgs;

/// Most threads that an agent works on. The host is there for desktops: a thread for each of a hundred cores would take memory
/// that the agent has no use for.
const AGENT_THREADS: usize = 4;
/// No bound on threads.
const ALL_CORES: usize = usize::MAX;

/// Manages remote-desktop sessions on a fleet of hosts, as Kubernetes objects.
#[derive(Parser, Debug)]
#[command(name = "dcv-operator", version, max_term_width = 100)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub role: Role,
}

/// The roles and commands of the one binary.
#[derive(Subcommand, Debug)]
pub enum Role {
    /// Print the custom resource definitions
    Crds {
        /// Write one file a kind into this folder instead of printing them
        #[arg(long, value_name = "FOLDER")]
        output: Option<PathBuf>,
        /// Print what their fields mean instead, as Markdown
        #[arg(long, conflicts_with = "output")]
        reference: bool,
    },
    /// Place sessions, watch servers, keep signing keys
    Controller {
        /// The flags of every role that talks to the API server.
        #[command(flatten)]
        common: Common,
        /// The controller's own flags.
        #[command(flatten)]
        args: Box<ControllerArgs>,
    },
    /// Serve the Session Manager REST API
    Broker {
        /// The flags of every role that talks to the API server.
        #[command(flatten)]
        common: Common,
        /// The broker's own flags.
        #[command(flatten)]
        args: Box<BrokerArgs>,
    },
    /// Run the sessions that are bound to a server
    Agent {
        /// The flags of every role that talks to the API server.
        #[command(flatten)]
        common: Common,
        /// The agent's own flags.
        #[command(flatten)]
        args: Box<AgentArgs>,
    },
    /// Hold the sessions of made-up hosts, for tests
    FakeHost {
        /// How to log.
        #[command(flatten)]
        logs: Logs,
        /// Its own flags.
        #[command(flatten)]
        args: FakeHostArgs,
    },
    /// Look at this host: what it is, whether it is set up for sessions, and how to mend what is missing
    Check(Box<CheckArgs>),
    /// Be PID 1 of a container: keep the agent running, and take in processes whose parent is gone
    Init {
        /// How to log.
        #[command(flatten)]
        logs: Logs,
        /// Its own flags.
        #[command(flatten)]
        args: InitArgs,
    },
    /// Try whether an installation works: a session that is not kept, and the health of what runs
    Try(TrialArgs),
    /// Run a command of the host whose files are below a folder, as `chroot` does
    #[command(hide = true)]
    Chroot(ChrootArgs),
    /// Try on a cluster whether each party can do what it needs and nothing else
    VerifyIsolation(Box<VerifyIsolationArgs>),
    /// Run one session of the vnc backend; started by the agent
    #[command(hide = true)]
    SessionHost(SessionHostArgs),
}

/// Flags of every role that talks to the API server.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Namespace the operator is installed in
    #[arg(long, env = "DCV_NAMESPACE", default_value = "dcv-system")]
    pub namespace: String,
    /// Namespaces this installation is for; without one all. Then nothing of others is listed, and only servers whose Lease is
    /// in the operator's namespace are known
    #[arg(long, env = "DCV_WATCH_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// File that says how to reach the API server; in a pod its own account by default
    #[arg(long, env = "DCV_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where health and metrics are served
    #[arg(long, env = "DCV_HEALTH_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// How to log.
    #[command(flatten)]
    pub logs: Logs,
}

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// What is logged: a level, or a filter such as `info,kube=debug`
    #[arg(long, env = "DCV_LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// How log lines look
    #[arg(long, env = "DCV_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum LogFormat {
    /// One JSON record a line
    Json,
    /// For people
    Text,
}

/// Runs what the command line `words` asks for until it is done. A command line that cannot be read ends the process, as does
/// a question for help.
///
/// # Errors
/// Whatever ended the role, for a person to read.
pub fn run(words: impl Iterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let (mut cli, notices) = match parse(words.collect()) {
        Err(Fault::CommandLine(error)) => error.exit(),
        other => other?,
    };
    match &mut cli.role {
        Role::Agent { args, .. } => args.notices = notices,
        Role::Check(args) => return block_on(args.clone().run(&notices)),
        Role::VerifyIsolation(args) => return block_on(args.clone().run()),
        _ => {}
    }
    play(cli).map(|()| ExitCode::SUCCESS)
}

/// Reads the command line, and the files that stand behind it.
fn parse(words: Vec<OsString>) -> Result<(Cli, Notices), Fault> {
    let (matches, notices) = agent_conf::matches(&Cli::command(), words)?;
    Ok((Cli::from_arg_matches(&matches)?, notices))
}

fn play(cli: Cli) -> anyhow::Result<()> {
    match cli.role {
        Role::Crds { reference: true, .. } => {
            Ok(io::stdout().write_all(api::reference::markdown(&api::crds()).as_bytes())?)
        }
        Role::Crds { output: None, .. } => Ok(api::print_crds(io::stdout())?),
        Role::Crds { output: Some(folder), .. } => write_crds(&folder),
        Role::Agent { common: Common { namespace, watch_namespaces, kubeconfig, health_address, logs }, args } => {
            let files = args.log_files();
            let scope = Scope::of(watch_namespaces);
            let _exporter = traces::export(names::AGENT)?;
            serve(&logs, files.as_ref(), AGENT_THREADS, args.run(namespace, scope, kubeconfig, health_address))
        }
        Role::Controller { common: Common { namespace, watch_namespaces, kubeconfig, health_address, logs }, args } => {
            let _exporter = traces::export(names::CONTROLLER)?;
            start(&logs, None, ALL_CORES, async move {
                let client = cluster::client(names::CONTROLLER, kubeconfig.as_deref()).await?;
                let scope = Scope::of(watch_namespaces);
                let settings = crate::controller::Settings { scope, ..args.settings(namespace, health_address) };
                Ok(crate::controller::run(settings, client).await?)
            })
        }
        Role::Broker { common: Common { namespace, watch_namespaces, kubeconfig, health_address, logs }, args } => {
            let _exporter = traces::export(names::BROKER)?;
            start(&logs, None, ALL_CORES, async move {
                let client = cluster::client(names::BROKER, kubeconfig.as_deref()).await?;
                let scope = Scope::of(watch_namespaces);
                let settings = crate::broker::Settings { scope, ..args.settings(namespace, health_address) };
                Ok(crate::broker::run(settings, client).await?)
            })
        }
        Role::FakeHost { logs, args } => serve(&logs, None, ALL_CORES, args.run()),
        Role::Check(args) => block_on(args.run(&Notices::default())).map(drop),
        Role::VerifyIsolation(args) => block_on(args.run()).map(drop),
        Role::Init { logs, args } => start(&logs, None, ALL_CORES, args.run()),
        Role::Try(args) => block_on(args.run()),
        Role::Chroot(args) => args.run(),
        Role::SessionHost(args) => args.run(),
    }
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    block_on_threads(ALL_CORES, future)
}

/// Runs on a thread for each core, and on no more than `threads`.
fn block_on_threads<T>(threads: usize, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if thread::available_parallelism().is_ok_and(|cores| cores.get() > threads) {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().context("failed to start the runtime")?.block_on(future)
}

/// Logs as told and runs a role until it ends, on no more than `threads`. The role listens for signals itself.
fn start(
    logs: &Logs,
    files: Option<&LogFiles>,
    threads: usize,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let format = match logs.log_format {
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    };
    telemetry::init(&logs.log_level, format, files)?;
    block_on_threads(threads, role)
}

/// As [`start`], for a role that has nothing to do at its end: it is stopped where it is.
fn serve(
    logs: &Logs,
    files: Option<&LogFiles>,
    threads: usize,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    start(logs, files, threads, async {
        let mut terminate = signal(SignalKind::terminate()).context("failed to listen for signals")?;
        tokio::select! {
            ended = role => ended,
            _ = terminate.recv() => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

fn write_crds(folder: &Path) -> anyhow::Result<()> {
    for (name, text) in api::crd_files()? {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_role_works_on_no_more_threads_than_it_is_told() {
        let threads = async || Ok(tokio::runtime::Handle::current().metrics().num_workers());
        let cores = thread::available_parallelism().unwrap().get();
        assert_eq!(block_on_threads(1, threads()).unwrap(), 1);
        assert_eq!(block_on(threads()).unwrap(), cores);
    }
}
