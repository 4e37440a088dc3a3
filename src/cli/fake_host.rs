//! `dcv-operator fake-host`: the hosts that `--backend fake` makes up.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;

use crate::agent::backend::fake::Fleet;
use crate::agent::backend::fake::serve::Server;

/// Flags of the made-up hosts.
#[derive(Args, Clone, Debug)]
pub struct FakeHostArgs {
    /// Unix socket to listen at; agents are given it as `--fake-host`
    #[arg(long, env = "DCV_SOCKET", value_name = "SOCKET")]
    socket: PathBuf,
    /// File that says what the hosts are, as `docs/fleet.md` describes; a fixed mix without one
    #[arg(long, env = "DCV_FLEET", value_name = "FILE")]
    fleet: Option<PathBuf>,
}

impl FakeHostArgs {
    /// Serves until the process is stopped.
    ///
    /// # Errors
    /// When the fleet file is no good or the socket cannot be made.
    #[expect(clippy::disallowed_methods, reason = "the one place where the made-up hosts' clock is chosen")]
    pub async fn run(self) -> anyhow::Result<()> {
        let fleet = self.fleet.as_deref().map(Fleet::read).transpose()?.unwrap_or_default();
        let server = Server::bind(&self.socket, fleet, Timestamp::now)
            .with_context(|| format!("failed to listen at {}", self.socket.display()))?;
        server.run().await;
        Ok(())
    }
}
