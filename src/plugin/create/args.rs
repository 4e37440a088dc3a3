//! The command line of `kubectl dcv create`: a flag for every field that a new session can use, with the field's own name.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use clap::builder::BoolishValueParser;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::labels::selector;
use crate::api::DcvSessionSpec;
use crate::api::session::Adopt;
use crate::api::session::DesiredState;
use crate::api::session::PlacementPolicy;
use crate::api::session::RestartPolicy;
use crate::api::session::SessionType;
use crate::plugin::args::duration;

/// What the command's help says at the end.
pub(in crate::plugin) const HELP: &str = "\
With a name the command can be run again: a session that is there already and asks for the same is left alone, and told of as \
unchanged; one that asks for something else is an error. Without a name one is made up, and printed.

--wait follows the session until it is READY and says on standard error why it is not, each time that changes. A session that \
ends meanwhile, or is not READY in time, makes exit code 1; it stays as it is.

It takes the right to create dcvsessions, for a name also to get them, and for --wait to watch them.

Exit code: 0 created, or there already, and with --wait READY; 1 not; 130 interrupted.

Examples:
  kubectl dcv create desk --owner ann -n team-a --wait=2m
  kubectl dcv create --owner ann --requirements \"tag:gpu = 'a10'\" -o name
  kubectl dcv create desk --owner ann --autorun-file app.sh --autorun-file-argument=--scene --autorun-file-argument=demo
  kubectl dcv create desk --owner ann --dry-run=client -o yaml > desk.yaml
  kubectl dcv create -f desk.yaml --dry-run=server";

/// A session to create, and how.
#[derive(Args, Clone, Debug)]
pub(in crate::plugin) struct Create {
    /// Name of the DcvSession; else one is made from the owner's
    #[arg(value_name = "NAME", conflicts_with = "filename")]
    pub name: Option<String>,
    /// File with manifests of sessions, instead of flags; - reads stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "spec")]
    pub filename: Vec<PathBuf>,
    /// Labels of the object, such as team=a,project=b
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = pair, conflicts_with = "filename")]
    pub labels: Vec<(String, String)>,
    /// client: only show what would be sent; server: let the API server check it, and create nothing
    #[arg(long, value_enum, value_name = "WHERE", default_value_t, num_args = 0..=1, require_equals = true, default_missing_value = "client")]
    pub dry_run: DryRun,
    /// Wait until it is READY, for at most this long; 0, and without a time: for ever
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = duration, conflicts_with = "dry_run")]
    pub wait: Option<Duration>,
    /// Print the object as this, or its name
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    // The last: what follows would be under its heading.
    #[command(flatten)]
    pub spec: Spec,
}

/// The fields of a session's spec.
#[derive(Args, Clone, Debug, Default)]
#[group(id = "spec", multiple = true)]
#[command(next_help_heading = "Fields of the session")]
pub(in crate::plugin) struct Spec {
    /// Account of the host that the desktop belongs to
    #[arg(long, value_name = "NAME", required_unless_present = "filename")]
    pub owner: Option<String>,
    /// VIRTUAL: a desktop of its own; CONSOLE: the one screen of the machine
    #[arg(long = "type", value_enum, ignore_case = true, value_name = "TYPE", default_value_t)]
    pub type_: Type,
    /// Name for people; else the object's
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// What the server must be like, such as "tag:pool = 'render'"
    #[arg(long, value_name = "EXPRESSION")]
    pub requirements: Option<String>,
    /// Labels the DcvServer must have, such as gpu=a10,zone!=b
    #[arg(long, value_name = "LABELS", value_parser = selector)]
    pub server_selector: Option<LabelSelector>,
    /// Program of the host that starts the desktop, below its init folder
    #[arg(long, value_name = "PATH")]
    pub init_file: Option<String>,
    /// Program of the host to run in the session, below its autorun folder
    #[arg(long, value_name = "PATH")]
    pub autorun_file: Option<String>,
    /// An argument of that program; can be repeated
    #[arg(long = "autorun-file-argument", value_name = "TEXT", allow_hyphen_values = true)]
    pub autorun_file_arguments: Vec<String>,
    /// Most clients at once; else as many as come
    #[arg(long, value_name = "NUMBER")]
    pub max_concurrent_clients: Option<i32>,
    /// Run OpenGL on the host's GPU; else the host decides
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub dcv_gl_enabled: Option<bool>,
    /// File with the permissions; else only the owner may connect
    #[arg(long = "permissions", value_name = "FILE")]
    pub permissions: Option<PathBuf>,
    /// Folder of the host for file storage
    #[arg(long, value_name = "PATH")]
    pub storage_root: Option<String>,
    /// Wait when no server fits now; with false it fails then
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub enqueue_request: bool,
    /// Do not try another host after a failure on one
    #[arg(long)]
    pub disable_retry_on_failure: bool,
    /// Who waits with a higher one is placed first
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Which of the servers that fit; else as the controller is set
    #[arg(long, value_enum, ignore_case = true, value_name = "POLICY")]
    pub placement_policy: Option<Placing>,
    /// Longest wait for a server, in seconds; else for ever
    #[arg(long, value_name = "SECONDS")]
    pub queue_timeout_seconds: Option<i32>,
    /// What happens when the desktop is lost
    #[arg(long, value_enum, ignore_case = true, value_name = "POLICY", default_value_t)]
    pub restart_policy: Restart,
    /// Close it so many seconds after it was READY
    #[arg(long, value_name = "SECONDS")]
    pub max_duration_seconds: Option<i32>,
    /// Close it so many seconds after its last client left
    #[arg(long, value_name = "SECONDS")]
    pub disconnect_timeout_seconds: Option<i32>,
    /// Delete the object so many seconds after its end; else never
    #[arg(long, value_name = "SECONDS")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Take over this desktop of a host instead of making one
    #[arg(long, value_name = "SERVER/ID", value_parser = adopt)]
    pub adopt: Option<Adopt>,
}

/// Whether anything is created.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::plugin) enum DryRun {
    /// It is created
    #[default]
    None,
    /// Nothing is sent
    Client,
    /// It is sent to be checked
    Server,
}

/// How the object is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(in crate::plugin) enum Output {
    Json,
    Yaml,
    Name,
}

/// The documented types, as words of the command line.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
#[value(rename_all = "UPPER")]
pub(in crate::plugin) enum Type {
    #[default]
    Virtual,
    Console,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
#[value(rename_all = "PascalCase")]
pub(in crate::plugin) enum Placing {
    /// The one with the fewest sessions
    Spread,
    /// The one with the most
    Pack,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
#[value(rename_all = "PascalCase")]
pub(in crate::plugin) enum Restart {
    /// The session ends
    #[default]
    Never,
    /// It is placed again once the server is proved dead
    OnServerLoss,
    /// Also when the server only does not answer: two desktops may run
    OnUnreachable,
    /// As with `OnServerLoss`, and also when the desktop ended by itself
    Always,
}

impl Spec {
    /// The spec, with the text of the permissions. `desiredState` and `tokensValidFrom` say nothing on a new session.
    pub(super) fn build(&self, permissions: Option<String>) -> DcvSessionSpec {
        // Taken apart whole, so that no field is forgotten.
        let Self {
            owner,
            type_,
            display_name,
            requirements,
            server_selector,
            init_file,
            autorun_file,
            autorun_file_arguments,
            max_concurrent_clients,
            dcv_gl_enabled,
            permissions: _,
            storage_root,
            enqueue_request,
            disable_retry_on_failure,
            priority,
            placement_policy,
            queue_timeout_seconds,
            restart_policy,
            max_duration_seconds,
            disconnect_timeout_seconds,
            ttl_seconds_after_finished,
            adopt,
        } = self.clone();
        DcvSessionSpec {
            display_name,
            owner: owner.unwrap_or_default(),
            type_: match type_ {
                Type::Virtual => SessionType::Virtual,
                Type::Console => SessionType::Console,
            },
            requirements,
            server_selector,
            init_file,
            autorun_file,
            autorun_file_arguments,
            max_concurrent_clients,
            dcv_gl_enabled,
            permissions,
            storage_root,
            enqueue_request,
            disable_retry_on_failure,
            priority,
            placement_policy: placement_policy.map(|policy| match policy {
                Placing::Spread => PlacementPolicy::Spread,
                Placing::Pack => PlacementPolicy::Pack,
            }),
            queue_timeout_seconds,
            desired_state: DesiredState::Running,
            restart_policy: match restart_policy {
                Restart::Never => RestartPolicy::Never,
                Restart::OnServerLoss => RestartPolicy::OnServerLoss,
                Restart::OnUnreachable => RestartPolicy::OnUnreachable,
                Restart::Always => RestartPolicy::Always,
            },
            max_duration_seconds,
            disconnect_timeout_seconds,
            ttl_seconds_after_finished,
            tokens_valid_from: None,
            adopt,
        }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no label; such as team=a"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn adopt(text: &str) -> Result<Adopt, String> {
    match text.split_once('/') {
        Some((server, id)) if !server.is_empty() && !id.is_empty() => {
            Ok(Adopt { server_name: server.to_owned(), session_id: id.to_owned() })
        }
        _ => Err("expected the name of a DcvServer, / and an id of its status.otherSessions".to_owned()),
    }
}
