//! What an agent is told at its start.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use regex::Regex;

use super::check;
use super::decide::OrphanPolicy;
use super::host::HostSettings;
use crate::cluster::Clock;
use crate::cluster::Scope;

/// The settings of one agent, for one server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of its `DcvServer`: that of the Node, or `host-` and the host's name.
    pub server_name: String,
    /// Release namespace, where Leases and the public keys are.
    pub namespace: String,
    /// Whose sessions it runs.
    pub scope: Scope,
    /// Kubeconfig the client was made from, if any. When it names a token file, the agent keeps the token in it alive.
    pub kubeconfig: Option<PathBuf>,
    /// Folder for the lock and the certificate; must outlive the agent, not the host's boot.
    pub state_folder: PathBuf,
    /// Where the HTTPS server listens. Port 0: any free one.
    pub https_address: SocketAddr,
    /// Address clients and brokers are told. Absent: the first that is not a loopback one.
    pub advertise_address: Option<IpAddr>,
    /// Folder of `*.toml` files with tags. Absent or not there: no tags.
    pub tags_folder: Option<PathBuf>,
    /// How the host is read.
    pub host: HostSettings,
    /// What the host's set-up is looked at for; absent for hosts that are made up.
    pub check: Option<check::Source>,
    /// Most virtual sessions; -1: no limit. Absent: as the backend says.
    pub max_virtual_sessions: Option<i32>,
    /// Most virtual sessions of one owner; -1: no limit. Absent: as the backend says.
    pub max_concurrent_sessions_per_user: Option<i32>,
    /// What names of owners must match as a whole. Absent: anything.
    pub owner_pattern: Option<Regex>,
    /// What becomes of desktops whose objects are gone.
    pub orphan_policy: OrphanPolicy,
    /// Longest time a session may take to accept clients.
    pub create_timeout: Duration,
    /// How often facts of the host are read; they are never written more often than every 30 seconds.
    pub update_interval: Duration,
    /// Where the host's desktop server asks whether tokens are good. Absent: it does not ask.
    pub verifier: Option<VerifierSettings>,
    /// Where the time comes from.
    pub clock: Clock,
}

/// The listener of the host's desktop server.
#[derive(Clone, Debug)]
pub struct VerifierSettings {
    /// Where it listens: on loopback.
    pub address: SocketAddr,
    /// Folder of its certificate, which outlives boots, and of `ca.pem`, the authority that signed it.
    pub folder: PathBuf,
}

impl Settings {
    /// Folder for what belongs to this server alone.
    pub fn server_folder(&self) -> PathBuf {
        self.state_folder.join("agent").join(&self.server_name)
    }

    /// The time in whole seconds, as the API server keeps it.
    pub fn now(&self) -> Timestamp {
        super::report::seconds((self.clock)())
    }
}
