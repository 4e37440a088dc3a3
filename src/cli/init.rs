//! `dcv-operator init`: PID 1 of a container with an agent and its desktops.

use std::ffi::OsString;

use anyhow::Context;
use clap::Args;

use crate::agent::init;

/// Flags of init.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Program to keep running, with its arguments: `dcv-operator init -- dcv-operator agent --backend vnc`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl InitArgs {
    /// Runs until the container is to end.
    ///
    /// # Errors
    /// Why it could not begin, or end everything.
    pub async fn run(self) -> anyhow::Result<()> {
        let program = self.command.first().map(|program| program.display().to_string()).unwrap_or_default();
        init::run(&self.command).await.with_context(|| format!("failed to keep {program} running"))
    }
}
