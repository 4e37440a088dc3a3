//! The command line of the commands for servers. A server is opened and closed, as Session Manager calls it; `kubectl`'s words
//! for that, cordon and uncordon, are other names of the same commands. `drain` is as in kubectl.

use std::time::Duration;

use clap::ArgAction;
use clap::Args;
use clap::Subcommand;

use super::super::args::DataFormat;
use super::super::args::duration;

/// A command for servers.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// List servers, or tell everything of one
    #[command(visible_alias = "server", after_help = super::list::HELP)]
    Servers(Box<super::list::Servers>),
    /// Show what servers have to do: load, memory, sessions, cards
    #[command(after_help = super::top::HELP)]
    Top(super::top::Top),
    /// Let servers take no more sessions; those on them go on
    #[command(
        visible_alias = "cordon",
        after_help = "Running sessions stay; to have them ended too, drain the server. One that is being drained is closed \
                            already, and goes on draining. A single session is closed by kubectl dcv close-session, or deleted.\n\n\
                            Exit code: 0 they are closed; 1 one is not, and it says why.\n\n\
                            Examples:\n  kubectl dcv close gpu-7\n  kubectl dcv close gpu-7 gpu-8"
    )]
    Close(Which),
    /// Let servers take sessions again, closed or drained as they may be
    #[command(
        visible_aliases = ["uncordon", "undrain"],
        after_help = "Of a server that was being drained it says so: its sessions are ended no more, and whoever waits for the \
                            drain is told that it was taken back.\n\n\
                            Exit code: 0 they are open; 1 one is not, and it says why.\n\n\
                            Example:\n  kubectl dcv open gpu-7"
    )]
    Open(Which),
    /// Let a server take no more sessions, and wait until nothing is on it
    #[command(
        after_help = "Sessions end by themselves or, with --grace-period, when it is over: then they are closed and \
                            finish as Expired. What was started by hand, and what no session stands for, is never ended \
                            by a drain: end it with kubectl dcv end, or do not wait for it.\n\n\
                            Run it again to see what is left. Interrupted or out of time, the server stays Draining; \
                            kubectl dcv open takes that back.\n\n\
                            Exit code: 0 nothing is left, or it was not to wait; 1 something is, or it failed; 130 interrupted.\n\n\
                            Examples:\n  kubectl dcv drain gpu-7\n  kubectl dcv drain gpu-7 --grace-period 30m --timeout 1h\n  \
                            kubectl dcv drain gpu-7 --dry-run -o json"
    )]
    Drain(Drain),
    /// End desktops that no session stands for: started by hand, or unclaimed
    #[command(
        after_help = "Their ids are in status.otherSessions of the server. A desktop that a DcvSession stands for is \
                            ended by deleting that, or by kubectl dcv close-session.\n\n\
                            It waits until they are gone from the host. Interrupted or out of time, it takes its request \
                            back, so that nothing is left that could end another desktop of the same id.\n\n\
                            Exit code: 0 they are gone; 1 not, or it failed; 130 interrupted.\n\n\
                            Example:\n  kubectl dcv end gpu-7 console"
    )]
    End(End),
}

/// Servers.
#[derive(Args, Debug, Default)]
pub struct Which {
    /// Names of the servers
    #[arg(value_name = "SERVER", required = true)]
    pub servers: Vec<String>,
}

/// A server.
#[derive(Args, Debug, Default)]
pub struct One {
    /// Name of the DcvServer
    #[arg(value_name = "SERVER")]
    pub server: String,
}

/// A server to drain, and how.
#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    pub which: One,
    /// How long its sessions may go on, such as 30m or 0; without it they are never ended, or as was said before
    #[arg(long, value_name = "TIME", value_parser = grace)]
    pub grace_period: Option<i32>,
    /// Whether to wait until nothing is on it
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait, such as 1h; 0: for ever
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub timeout: Duration,
    /// Do not wait for desktops that no session stands for
    #[arg(long)]
    pub ignore_other_sessions: bool,
    /// Only show what is on the server
    #[arg(long)]
    pub dry_run: bool,
    /// Print as this, once, at the end
    #[arg(short, long, value_enum)]
    pub output: Option<DataFormat>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            which: One::default(),
            grace_period: None,
            wait: true,
            timeout: Duration::ZERO,
            ignore_other_sessions: false,
            dry_run: false,
            output: None,
        }
    }
}

/// Desktops to end.
#[derive(Args, Debug, Default)]
pub struct End {
    #[command(flatten)]
    pub which: One,
    /// Their ids on the host
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// How long to wait until they are gone, such as 1m; 0: for ever
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub timeout: Duration,
}

/// A time of whole seconds, as far as a server takes it.
fn grace(text: &str) -> Result<i32, String> {
    const MAX_SECONDS: i32 = 31_536_000;
    let seconds = duration(text)?.as_secs();
    let within = i32::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_SECONDS);
    within.ok_or_else(|| "it is more than a year".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn drain(words: &[&str]) -> Result<Drain, i32> {
        match Cli::try_parse_from(["dcv", "drain", "a"].iter().chain(words)) {
            Ok(Cli { command: Command::Drain(drain) }) => Ok(drain),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.exit_code()),
        }
    }

    #[test]
    fn drain_has_kubectls_flags() {
        let plain = drain(&[]).unwrap();
        assert_eq!((plain.grace_period, plain.wait, plain.timeout), (None, true, Duration::ZERO));
        let all = drain(&["--grace-period=1h", "--wait=false", "--timeout", "90", "-ojson", "--dry-run"]).unwrap();
        assert_eq!((all.grace_period, all.wait, all.timeout), (Some(3600), false, Duration::from_secs(90)));
        assert_eq!(drain(&["--grace-period", "0"]).unwrap().grace_period, Some(0));
        for wrong in ["--grace-period=-1", "--grace-period=9000h", "--wait=perhaps"] {
            assert_eq!(drain(&[wrong]).err(), Some(2), "{wrong}");
        }
    }

    #[test]
    fn end_takes_a_server_and_ids() {
        let parse = |words: &[&str]| Cli::try_parse_from(["dcv", "end"].iter().chain(words)).map_err(|e| e.exit_code());
        assert!(parse(&["a", "console", "x"]).is_ok());
        assert_eq!(parse(&["a"]).err(), Some(2));
    }
}
