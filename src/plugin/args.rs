//! The command line, with kubectl's own flags and their meanings.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use super::broker;
use super::clients;
use super::completion;
use super::completion::Completion;
use super::connect::Connect;
use super::create;
use super::create::Create;
use super::enroll;
use super::enroll::Enroll;
use super::permissions;
use super::screenshot;
use super::screenshot::Screenshot;
use super::servers;
use super::sessions;
use super::sessions::Closing;
use super::sessions::Sessions;

/// Remote-desktop sessions of a cluster: look, create, follow, connect, and what administrators do with servers and clients
#[derive(Parser, Debug)]
#[command(name = "kubectl-dcv", bin_name = "kubectl dcv", version, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub broker: broker::Options,
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster and namespace.
#[derive(ClapArgs, Debug, Default)]
pub(super) struct ConnectionArgs {
    /// Path to the kubeconfig file to use; else $KUBECONFIG, else ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the request; else the context's
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How long to wait for one answer, such as 30s or 2m; 0: for ever
    #[arg(long, global = true, value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub request_timeout: Duration,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// Print the address that opens a session's desktop, open it, or show the desktop in a VNC viewer
    #[command(after_help = super::connect::HELP)]
    Connect(Connect),
    /// Show what is on a session's screen, or write it to a file
    #[command(after_help = screenshot::HELP)]
    Screenshot(Screenshot),
    #[command(flatten)]
    Broker(broker::Call),
    /// Print what makes a shell complete this command's words
    #[command(after_help = completion::HELP)]
    Completion(Completion),
}

/// A command that asks the API server.
#[derive(Subcommand, Debug)]
pub(super) enum ClusterCommand {
    /// List sessions, or tell everything of one
    #[command(visible_alias = "session", after_help = sessions::HELP)]
    Sessions(Box<Sessions>),
    /// Create a session, and wait until it is READY
    #[command(after_help = create::HELP)]
    Create(Box<Create>),
    /// Close sessions and keep their objects
    #[command(
        after_help = "The desktop is closed as by kubectl delete, but the object stays and says how it ended, until it is deleted \
                      or its ttlSecondsAfterFinished is over. To have both gone:\n\n  kubectl delete dcvs NAME\n\n\
                      A desktop that no session stands for is ended by kubectl dcv end.\n\n\
                      Exit code: 0 they are closing, or with --wait over; 1 not; 130 interrupted.\n\n\
                      Examples:\n  kubectl dcv close-session desk -n team-a --wait=1m\n  kubectl dcv close-session desk --force"
    )]
    CloseSession(Closing),
    /// Show or change who may do what in a session
    #[command(after_help = permissions::HELP)]
    Permissions(permissions::Wanted),
    /// Say whether a session gets a server now, which one, and if none what stands in the way and what would help
    #[command(after_help = "It reads servers, sessions and namespaces with your own rights, and changes nothing.\n\n\
                            Exit code: 0 when every session has or would get a server, 1 when not.\n\n\
                            Examples:\n  kubectl dcv explain render -n team-a\n  \
                            kubectl dcv explain -f session.yaml -o json")]
    Explain(Question),
    #[command(flatten)]
    Server(servers::Command),
    /// Let a host outside the cluster run sessions, or shut it out
    #[command(after_help = enroll::HELP)]
    Enroll(Box<Enroll>),
    /// Clients of the REST API
    #[command(subcommand)]
    Clients(clients::Command),
    /// Keys that tokens are signed with
    #[command(subcommand)]
    Keys(KeysCommand),
}

/// What to explain, and how.
#[derive(ClapArgs, Debug, Default)]
pub(super) struct Question {
    #[command(flatten)]
    pub subject: Subject,
    /// Print as this
    #[arg(short, long, value_enum, default_value_t)]
    pub output: TextFormat,
}

/// The sessions to explain.
#[derive(ClapArgs, Debug, Default)]
#[group(required = true, multiple = false, id = "subject")]
pub(super) struct Subject {
    /// Name of a DcvSession
    pub session: Option<String>,
    /// File with manifests of sessions that need not be applied, taken one after the other; - reads stdin
    #[arg(short, long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(super) enum KeysCommand {
    /// Make a new key that signs at once, and wait until it does
    #[command(after_help = "Tokens signed with an older key stay good until they end, unless --revoke is given: then \
                            every token of these kinds is refused at once, and its holder must get a new one.\n\n\
                            It takes the right to patch the ConfigMap dcv-public-keys, and none on Secrets.\n\n\
                            Exit code: 0 they sign; 1 not within a minute, or it failed.\n\n\
                            Example, after a key became known:\n  kubectl dcv keys renew --revoke")]
    Renew(KeyRenewal),
}

/// Which keys to renew.
#[derive(ClapArgs, Debug)]
pub(super) struct KeyRenewal {
    /// Kinds of token: access (for the REST API), connection (for desktops), agent (of brokers for agents)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "access")]
    pub kind: Vec<KeyKind>,
    /// Refuse every token that was signed with an older key
    #[arg(long)]
    pub revoke: bool,
    /// Namespace the operator is installed in
    #[arg(long, value_name = "NAME", default_value = "dcv-system")]
    pub operator_namespace: String,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum KeyKind {
    Access,
    Connection,
    Agent,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum DataFormat {
    Json,
    Yaml,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum TextFormat {
    #[default]
    Text,
    Json,
    Yaml,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum ListFormat {
    Json,
    Yaml,
    Name,
    Wide,
}

/// Reads a time as kubectl does: a number of seconds, or numbers with the units h, m, s, ms.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time; such as 30s, 2m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        whole += Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(wrong)?);
        rest = next;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(whole) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_of_the_connection_stand_anywhere() {
        let args =
            Args::try_parse_from(["kubectl-dcv", "clients", "-n", "a", "list", "--context", "b", "-A", "-owide"])
                .unwrap();
        assert_eq!((args.connection.namespace.as_deref(), args.connection.context.as_deref()), (Some("a"), Some("b")));
        let Command::Cluster(ClusterCommand::Clients(clients::Command::List(selection))) = args.command else {
            panic!("not a list")
        };
        assert!(selection.all_namespaces && selection.shown.output == Some(ListFormat::Wide));
    }

    #[test]
    fn explain_takes_a_session_or_files() {
        let parse = |words: &[&str]| {
            Args::try_parse_from(["kubectl-dcv", "explain"].iter().chain(words)).map_err(|e| e.exit_code())
        };
        assert!(parse(&["a"]).is_ok() && parse(&["-f", "b", "-f", "-", "-ojson"]).is_ok());
        for wrong in [&[][..], &["a", "-f", "b"], &["-owide", "a"], &["a", "b"]] {
            assert_eq!(parse(wrong).err(), Some(2), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_read_as_kubectl_reads_them() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1h2m3s4ms"), Ok(Duration::from_millis(3_723_004)));
        for wrong in ["", "s", "5x", "-1s", "1m5", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
