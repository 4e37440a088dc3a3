//! The command line of Session Manager's own client, with its options and their meanings.
//!
//! Source: the Amazon DCV Session Manager CLI Guide. Where it spells an option in several ways, all are taken.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use clap::builder::BoolishValueParser;

/// What the commands exit with.
const EXIT_CODES: &str = "\
Exit code: 0 done; 1 the configuration file is missing or broken; 2 the command line is not understood; 130 interrupted; \
252 a value cannot be right; 253 no broker, no credentials, or certificates that cannot be read; 254 the broker answered \
an error, or one for an item; 255 anything else.";

/// Which broker is asked, and how.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of commands that ask a broker")]
pub struct Options {
    /// Address of the broker, such as `https://broker:8443`; else `url` of the configuration file
    #[arg(long, visible_alias = "broker-url", global = true, value_name = "URL")]
    pub broker: Option<String>,
    /// Where access tokens are asked for; else `$DCV_SM_AUTH_SERVER_URL`, `auth-server-url` of the file, or the broker
    #[arg(long, alias = "auth-server", global = true, value_name = "URL")]
    pub auth_server_url: Option<String>,
    /// Authorities in PEM, one of which must have signed the broker's certificate; else `ca-bundle` of the file, else the system's
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_bundle: Option<PathBuf>,
    /// Do not check certificates: whoever is in between can read the password
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub no_verify_ssl: Option<bool>,
    /// Configuration file; else `dcvsmcli.conf` in `$XDG_CONFIG_HOME` or `~/.config`
    #[arg(long, alias = "config-file", global = true, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Say on standard error what is asked of whom
    #[arg(long, global = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub debug: Option<bool>,
    /// Format of answers, which is json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub output_format: Option<String>,
}

/// A command that asks a broker.
#[derive(Subcommand, Clone, Debug)]
pub enum Call {
    /// Create a session through a broker
    #[command(after_help = EXIT_CODES)]
    CreateSession(Box<CreateSession>),
    /// Describe sessions through a broker
    #[command(after_help = EXIT_CODES)]
    DescribeSessions(DescribeSessions),
    /// Describe servers through a broker
    #[command(after_help = EXIT_CODES)]
    DescribeServers(DescribeServers),
    /// Delete a session through a broker
    #[command(after_help = EXIT_CODES)]
    DeleteSession(DeleteSession),
    /// Let servers take sessions, through a broker
    #[command(after_help = EXIT_CODES)]
    OpenServers(OpenServers),
    /// Let servers take no more sessions, through a broker
    #[command(after_help = EXIT_CODES)]
    CloseServers(CloseServers),
    /// Take pictures of sessions through a broker
    #[command(after_help = EXIT_CODES)]
    GetSessionScreenshots(GetSessionScreenshots),
    /// Get what one person needs to connect to a session, through a broker
    #[command(after_help = EXIT_CODES)]
    GetSessionConnectionData(GetSessionConnectionData),
    /// Replace the permissions of a session through a broker
    #[command(after_help = EXIT_CODES)]
    UpdateSessionPermissions(UpdateSessionPermissions),
}

/// A session to create.
#[derive(Args, Clone, Debug)]
pub struct CreateSession {
    /// Name for people
    #[arg(long)]
    pub name: String,
    /// Account of the host that it is for
    #[arg(long)]
    pub owner: String,
    /// Console or Virtual
    #[arg(long = "type", value_name = "TYPE")]
    pub type_: String,
    /// Program of the host that starts the desktop, below its init folder
    #[arg(long, value_name = "PATH")]
    pub init_file_path: Option<String>,
    /// Program of the host to run in the session, below its autorun folder
    #[arg(long, value_name = "PATH")]
    pub autorun_file: Option<String>,
    /// Arguments of that program, with commas between them; \, is a comma inside one. Can be repeated
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    pub autorun_file_arguments: Vec<String>,
    /// Most clients at once, from 1 to 100
    #[arg(
        long,
        aliases = ["max-concurrents-clients", "max_concurrent-clients", "max_concurrent_clients"],
        value_name = "NUMBER",
        allow_negative_numbers = true
    )]
    pub max_concurrent_clients: Option<i64>,
    /// Run OpenGL on the host's GPU; without it the host decides
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub dcv_gl_enabled: Option<bool>,
    /// File with the permissions of the session
    #[arg(long, value_name = "FILE")]
    pub permissions_file: Option<PathBuf>,
    /// What the server must be like, such as "server:Host.Os.Family = 'linux'"
    #[arg(long)]
    pub requirements: Option<String>,
    /// Folder of the host for file storage
    #[arg(long, value_name = "PATH")]
    pub storage_root: Option<String>,
    /// Wait when no server fits now
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enqueue_request: Option<bool>,
}

/// Which sessions to describe.
#[derive(Args, Clone, Debug, Default)]
pub struct DescribeSessions {
    /// Only these, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub session_ids: Vec<String>,
    /// Only those of this owner
    #[arg(long)]
    pub owner: Option<String>,
    #[command(flatten)]
    pub page: Page,
}

/// Which servers to describe.
#[derive(Args, Clone, Debug, Default)]
pub struct DescribeServers {
    /// Only these, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub server_ids: Vec<String>,
    #[command(flatten)]
    pub page: Page,
}

/// Which part of a list.
#[derive(Args, Clone, Debug, Default)]
pub struct Page {
    /// Most of them in one answer, from 1 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub max_results: Option<i64>,
    /// `NextToken` of the answer before
    #[arg(long, value_name = "TOKEN")]
    pub next_token: Option<String>,
}

/// A session to delete.
#[derive(Args, Clone, Debug, Default)]
pub struct DeleteSession {
    /// Its id
    #[arg(long, value_name = "ID")]
    pub session_id: String,
    /// Its owner
    #[arg(long)]
    pub owner: String,
    /// End its record even when its host cannot be reached
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub force: Option<bool>,
}

/// Servers to open.
#[derive(Args, Clone, Debug, Default)]
pub struct OpenServers {
    /// Their ids, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub server_ids: Vec<String>,
}

/// Servers to close.
#[derive(Args, Clone, Debug, Default)]
pub struct CloseServers {
    /// Their ids, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub server_ids: Vec<String>,
    /// Close them even when sessions run there, which go on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub force: Option<bool>,
}

/// Sessions to take pictures of.
#[derive(Args, Clone, Debug, Default)]
pub struct GetSessionScreenshots {
    /// Their ids, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    pub session_ids: Vec<String>,
    /// Widest picture, in pixels; else as the broker is set
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub max_width: Option<i64>,
    /// Highest picture, in pixels; else as the broker is set
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true)]
    pub max_height: Option<i64>,
}

/// Who connects where.
#[derive(Args, Clone, Debug, Default)]
pub struct GetSessionConnectionData {
    /// Id of the session
    #[arg(long, value_name = "ID")]
    pub session_id: String,
    /// Who will connect
    #[arg(long)]
    pub user: String,
}

/// A session's new permissions.
#[derive(Args, Clone, Debug, Default)]
pub struct UpdateSessionPermissions {
    /// Id of the session
    #[arg(long, value_name = "ID")]
    pub session_id: String,
    /// Its owner
    #[arg(long)]
    pub owner: String,
    /// File with the permissions
    #[arg(long, alias = "permissions-file", value_name = "FILE")]
    pub permission_file: PathBuf,
}
