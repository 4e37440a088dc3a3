//! The command line: raw flags, and the settings each role makes of them.
//!
//! The only place that reads flags and the environment. Every role takes its own `Settings`; nobody below sees raw text.

pub mod session_host;

use std::io;
use std::path::Path;
use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;

use self::session_host::SessionHostArgs;
use crate::api;

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
    /// Run one session of the vnc backend, or one program of it; started by the agent
    #[command(hide = true)]
    SessionHost(SessionHostArgs),
}

/// Runs what the command line asks for until it is done.
///
/// # Errors
/// Whatever ended the role, for a person to read.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.role {
        Role::Crds { output: None } => Ok(api::print_crds(io::stdout())?),
        Role::Crds { output: Some(folder) } => write_crds(&folder),
        Role::SessionHost(args) => args.run(),
    }
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
