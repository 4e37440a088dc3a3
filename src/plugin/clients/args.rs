//! The command line of `kubectl dcv clients`.

use std::time::Duration;

use clap::Args;
use clap::Subcommand;

use crate::plugin::args::DataFormat;
use crate::plugin::args::duration;
use crate::plugin::listing::Shown;

/// What is done with clients.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Register a client, and print its id and password, which cannot be shown again
    #[command(
        after_help = "allNamespaces and manageServers take the verbs all-namespaces and manage-servers on apiclients.\n\n\
                            Exit code: 0 registered; 1 not.\n\n\
                            Example:\n  kubectl dcv clients register portal -n team-a --display-name 'Team portal'"
    )]
    Register(Registration),
    /// Give a client a further password, or end its older ones
    #[command(
        after_help = "The older passwords go on until --expire-old says when they end: then both are good meanwhile. An object \
                            has room for four; those that have ended make room. Tokens got with an ended password are refused too.\n\n\
                            Exit code: 0 done; 1 not.\n\n\
                            Examples, all at once with a day of overlap, or in two steps:\n  \
                            kubectl dcv clients rotate portal -n team-a --expire-old=24h\n\n  \
                            kubectl dcv clients rotate portal -n team-a\n  \
                            kubectl dcv clients rotate portal -n team-a --no-new-password --expire-old"
    )]
    Rotate(Rotation),
    /// List clients
    #[command(
        visible_alias = "ls",
        after_help = "It takes the right to list apiclients, and with -w to watch them too.\n\n\
                            Exit code: 0 done; 1 it failed; 130 interrupted, as -w always ends.\n\n\
                            Examples:\n  kubectl dcv clients list -A -o wide\n  kubectl dcv clients list -n team-a -w"
    )]
    List(Selection),
    /// Shut clients out, with the tokens they have; their sessions stay
    #[command(after_help = "Exit code: 0 they are suspended; 1 one is not.\n\n\
                            Example:\n  kubectl dcv clients suspend portal -n team-a")]
    Suspend(Which),
    /// Let suspended clients in again
    #[command(after_help = "Exit code: 0 they are let in; 1 one is not.\n\n\
                            Example:\n  kubectl dcv clients resume portal -n team-a")]
    Resume(Which),
    /// Unregister a client: it cannot log in any more; its sessions stay
    #[command(
        after_help = "Exit code: 0 it is gone; 1 not.\n\nExamples:\n  kubectl dcv clients unregister portal -n team-a\n  \
                            kubectl dcv clients unregister --client-id 0b1c…"
    )]
    Unregister(Departing),
}

/// A client to be.
#[derive(Args, Debug, Default)]
pub struct Registration {
    /// Name of the ApiClient object
    pub name: String,
    /// Name shown to people; else the object's
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// Id the client logs in with; else one is made
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Let it see and change sessions of every namespace
    #[arg(long)]
    pub all_namespaces: bool,
    /// Let it open and close servers
    #[arg(long)]
    pub manage_servers: bool,
    /// Seconds its access tokens live; else as the broker is set
    #[arg(long, value_name = "SECONDS")]
    pub token_lifetime_seconds: Option<i32>,
    /// Print as this instead of text
    #[arg(short, long, value_enum)]
    pub output: Option<DataFormat>,
}

/// A client that gets a password.
#[derive(Args, Debug, Default)]
pub struct Rotation {
    /// Name of the ApiClient object
    #[arg(value_name = "CLIENT")]
    pub name: String,
    /// End the older passwords in this time, such as 24h; without a time: now
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = duration)]
    pub expire_old: Option<Duration>,
    /// Make no new password: the last one stays, and the others end
    #[arg(long, requires = "expire_old")]
    pub no_new_password: bool,
    /// Print id and password as this instead of text
    #[arg(short, long, value_enum)]
    pub output: Option<DataFormat>,
}

/// Which clients to list, and how.
#[derive(Args, Debug, Default)]
pub struct Selection {
    /// Of every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    #[command(flatten)]
    pub(in crate::plugin) shown: Shown,
}

/// Clients.
#[derive(Args, Debug, Default)]
pub struct Which {
    /// Names of ApiClient objects
    #[arg(value_name = "CLIENT", required = true)]
    pub names: Vec<String>,
}

/// The client to unregister.
#[derive(Args, Debug, Default)]
#[group(required = true, multiple = false, id = "which")]
pub struct Departing {
    /// Name of the ApiClient object
    #[arg(value_name = "CLIENT")]
    pub name: Option<String>,
    /// Id the client logs in with
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
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

    fn parse(words: &[&str]) -> Result<Command, i32> {
        Cli::try_parse_from(["clients"].iter().chain(words)).map(|cli| cli.command).map_err(|error| error.exit_code())
    }

    #[test]
    fn unregister_takes_a_name_or_an_id() {
        assert!(parse(&["unregister", "a"]).is_ok() && parse(&["unregister", "--client-id", "b"]).is_ok());
        assert_eq!(parse(&["unregister"]).err(), Some(2));
        assert_eq!(parse(&["unregister", "a", "--client-id", "b"]).err(), Some(2));
    }

    #[test]
    fn a_rotation_does_something() {
        let expiry = |words: &[&str]| match parse(&[&["rotate", "a"], words].concat()) {
            Ok(Command::Rotate(rotation)) => Ok((rotation.expire_old, rotation.no_new_password)),
            Ok(other) => panic!("{other:?}"),
            Err(code) => Err(code),
        };
        assert_eq!(expiry(&[]), Ok((None, false)));
        assert_eq!(expiry(&["--expire-old", "--no-new-password"]), Ok((Some(Duration::ZERO), true)));
        assert_eq!(expiry(&["--expire-old=24h"]), Ok((Some(Duration::from_hours(24)), false)));
        assert_eq!(expiry(&["--no-new-password"]), Err(2));
    }
}
