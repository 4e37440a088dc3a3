//! Flags of the commands that look at the host.

use std::path::Path;
use std::path::PathBuf;

use clap::ArgAction;
use clap::Args;
use clap::ValueEnum;

use super::agent_conf;
use crate::agent::HostSettings;
use crate::agent::check;
use crate::agent::host::EC2_METADATA_ENDPOINT;
use crate::telemetry::LogFiles;
use crate::telemetry::Rotation;

/// What the agent's log is called, as documented.
const LOG_FILE: &str = "agent.log";

/// Where things are on the host.
#[derive(Args, Clone, Debug)]
pub struct PlaceArgs {
    /// Folder for the lock, the certificate and what is known of running sessions; must not outlive the host's boot
    #[arg(long, env = "DCV_STATE_FOLDER", value_name = "DIR", default_value = "/run/dcv-operator")]
    pub state_folder: PathBuf,
    /// Folder of the programs that sessions may name as `initFile`
    #[arg(
        long,
        env = "DCV_INIT_FOLDER",
        value_name = "DIR",
        default_value = "/var/lib/dcv-session-manager-agent/init"
    )]
    pub init_folder: PathBuf,
    /// Folder of the programs that sessions may name as `autorunFile`
    #[arg(
        long,
        env = "DCV_AUTORUN_FOLDER",
        value_name = "DIR",
        default_value = "/var/lib/dcv-session-manager-agent/autorun"
    )]
    pub autorun_folder: PathBuf,
    /// Folder of `*.toml` files with the host's tags (not for fake, whose tags are the fleet's)
    #[arg(long, env = "DCV_TAGS_FOLDER", value_name = "DIR", default_value = "/etc/dcv-session-manager-agent/tags")]
    pub tags_folder: PathBuf,
    /// Folder of the verifier's certificate and of `ca.pem`, which the DCV server's `ca-file` names; kept over boots (dcv only)
    #[arg(long, env = "DCV_VERIFIER_FOLDER", value_name = "DIR", default_value = "/var/lib/dcv-operator/verifier")]
    pub verifier_folder: PathBuf,
    /// The DCV server's configuration, on the host (dcv only)
    #[arg(long, env = "DCV_DCV_CONF", value_name = "FILE", default_value = "/etc/dcv/dcv.conf")]
    pub dcv_conf: PathBuf,
    /// Words before commands of the host, such as `chroot /host`
    #[arg(
        long,
        env = "DCV_HOST_COMMAND_PREFIX",
        value_name = "COMMAND",
        default_value = "",
        hide_default_value = true
    )]
    host_command_prefix: String,
}

impl PlaceArgs {
    /// The words before commands of the host.
    pub fn command_prefix(&self) -> Vec<String> {
        words(&self.host_command_prefix)
    }

    /// What the set-up of a host is looked at for, where `kind` is to run sessions.
    pub fn check_source(&self, kind: check::Kind, host_root: &Path, log_directory: Option<&Path>) -> check::Source {
        check::Source {
            kind,
            host_root: host_root.to_owned(),
            own_root: "/".into(),
            init_folder: self.init_folder.clone(),
            autorun_folder: self.autorun_folder.clone(),
            tags_folder: self.tags_folder.clone(),
            state_folder: self.state_folder.clone(),
            log_directory: log_directory.map(Path::to_owned),
            verifier_authority: self.verifier_folder.join("ca.pem"),
            dcv_conf: self.dcv_conf.clone(),
        }
    }
}

/// The words of a command.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// How the host is read.
#[derive(Args, Clone, Debug)]
pub struct HostArgs {
    /// File with settings, as documented for the Session Manager agent; flags and the environment go before it
    #[arg(long, env = "DCV_CONFIG_FILE", value_name = "FILE", help = config_file_help())]
    config_file: Option<PathBuf>,
    /// Folder that has the host's files: where a container has them, such as /host
    #[arg(long, env = "DCV_HOST_ROOT", value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// Network interface whose address clients are told; by default the first that is not a loopback one
    #[arg(long, env = "DCV_PREFERRED_NETWORK_INTERFACE", value_name = "NAME")]
    preferred_network_interface: Option<String>,
    /// Whether it is told who is logged in to the host; if not, the list holds `unknown`
    #[arg(long, env = "DCV_ENABLE_QUERY_LOGGED_IN_USERS", default_value_t = true, action = ArgAction::Set)]
    enable_query_logged_in_users: bool,
    /// Whether the metadata service of EC2 is asked what instance the host is
    #[arg(long, env = "DCV_ENABLE_EC2_METADATA", default_value_t = true, action = ArgAction::Set)]
    enable_ec2_metadata: bool,
    /// Where the metadata service of EC2 is
    #[arg(long, env = "DCV_EC2_METADATA_ENDPOINT", value_name = "URL", default_value = EC2_METADATA_ENDPOINT)]
    ec2_metadata_endpoint: String,
}

fn config_file_help() -> String {
    format!(
        "File with settings, as documented for the Session Manager agent; flags and the environment go before it [default: {}]",
        agent_conf::DEFAULT_FILE
    )
}

impl HostArgs {
    /// How the host is read, with `command_prefix` before commands that look names up.
    pub fn settings(&self, command_prefix: Vec<String>) -> HostSettings {
        HostSettings {
            root: self.host_root.clone(),
            command_prefix,
            preferred_network_interface: self.preferred_network_interface.clone(),
            enable_query_logged_in_users: self.enable_query_logged_in_users,
            ec2_metadata_endpoint: self.enable_ec2_metadata.then(|| self.ec2_metadata_endpoint.clone()),
        }
    }
}

/// Log files.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
pub struct LogFileArgs {
    /// Folder of log files, which are written instead of standard error
    #[arg(long, env = "DCV_LOG_DIRECTORY", value_name = "DIR")]
    pub log_directory: Option<PathBuf>,
    /// When a new log file begins
    #[arg(long, env = "DCV_LOG_ROTATION", value_enum, default_value_t = RotationName::Daily)]
    log_rotation: RotationName,
    /// Bytes after which a new log file begins
    #[arg(long, env = "DCV_LOG_MAX_FILE_SIZE", value_name = "BYTES", default_value_t = 10_485_760, value_parser = clap::value_parser!(u64).range(1024..))]
    log_max_file_size: u64,
    /// How many old log files are kept
    #[arg(long, env = "DCV_LOG_ROTATE", value_name = "FILES", default_value_t = 9, value_parser = clap::value_parser!(u16).range(0..=1000))]
    log_rotate: u16,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum RotationName {
    /// At midnight, UTC
    Daily,
    /// At the full hour
    Hourly,
}

impl LogFileArgs {
    /// The files, if there are to be any.
    pub fn files(&self) -> Option<LogFiles> {
        Some(LogFiles {
            directory: self.log_directory.clone()?,
            file_name: LOG_FILE.into(),
            rotation: match self.log_rotation {
                RotationName::Daily => Rotation::Daily,
                RotationName::Hourly => Rotation::Hourly,
            },
            max_file_bytes: self.log_max_file_size,
            rotate: self.log_rotate.into(),
        })
    }
}
