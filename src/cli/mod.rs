//! The command line: raw flags, and the settings each role makes of them.
//!
//! The only place that reads flags and the environment. Every role takes its own `Settings`; nobody below sees raw text.

pub mod agent;
pub mod broker;
pub mod controller;
pub mod fake_host;
pub mod session_host;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::api;
use crate::api::names;
use crate::cluster;
use crate::telemetry;
use agent::AgentArgs;
use broker::BrokerArgs;
use controller::ControllerArgs;
use fake_host::FakeHostArgs;
use session_host::SessionHostArgs;

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

/// Runs what the command line asks for until it is done.
///
/// # Errors
/// Whatever ended the role, for a person to read.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.role {
        Role::Crds { output: None } => Ok(api::print_crds(io::stdout())?),
        Role::Crds { output: Some(folder) } => write_crds(&folder),
        Role::Agent { common: Common { namespace, kubeconfig, health_address, logs }, args } => {
            serve(&logs, args.run(namespace, kubeconfig, health_address))
        }
        Role::Controller { common: Common { namespace, kubeconfig, health_address, logs }, args } => {
            start(&logs, async move {
                let client = cluster::client(names::CONTROLLER, kubeconfig.as_deref()).await?;
                Ok(crate::controller::run(args.settings(namespace, health_address), client).await?)
            })
        }
        Role::Broker { common: Common { namespace, kubeconfig, health_address, logs }, args } => {
            start(&logs, async move {
                let client = cluster::client(names::BROKER, kubeconfig.as_deref()).await?;
                Ok(crate::broker::run(args.settings(namespace, health_address), client).await?)
            })
        }
        Role::FakeHost { logs, args } => serve(&logs, args.run()),
        Role::SessionHost(args) => args.run(),
    }
}

/// Logs as told and runs a role until it ends. The role listens for signals itself.
fn start(logs: &Logs, role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let format = match logs.log_format {
        LogFormat::Json => telemetry::Format::Json,
        LogFormat::Text => telemetry::Format::Text,
    };
    telemetry::init(&logs.log_level, format, None)?;
    tokio::runtime::Runtime::new().context("failed to start the runtime")?.block_on(role)
}

/// As [`start`], for a role that has nothing to do at its end: it is stopped where it is.
fn serve(logs: &Logs, role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    start(logs, async {
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
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
