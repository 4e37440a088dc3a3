//! The command line of `kubectl dcv enroll`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use http::Uri;

use crate::api::names;
use crate::plugin::args::duration;

/// What the command's help says at the end.
pub(in crate::plugin) const HELP: &str = "\
The host gets an account of its own in dcv-hosts and a Secret of the same name, which every token of the host is bound to. With \
--out the first token and all else that the host needs is written to files that only you can read; the commands to put them \
there are printed. Without it a script is printed that does so on the host; the token is in it only with --with-token. From its \
first start on the agent renews its token by itself.

Run it again for a new token, such as when the host was off for a day: earlier ones stay good until they end. --revoke deletes \
the Secret: within seconds the API server refuses every token of the host, and its agent can write nothing more; what runs on \
the host goes on. --purge takes the account and the DcvServer away too, if nothing is on it: drain it first.

It takes the rights to create serviceaccounts, serviceaccounts/token and secrets in dcv-hosts; to revoke, to delete secrets \
there; to purge, also to delete serviceaccounts there, to get, patch and delete dcvservers, and to list dcvsessions in all \
namespaces. No Secret is read.

Exit code: 0 done; 1 not; 130 interrupted.

Examples:
  kubectl dcv enroll lab7 --out lab7
  kubectl dcv enroll lab7 --backend vnc --with-token | ssh root@lab7 sh
  kubectl dcv enroll lab7 --revoke
  kubectl dcv drain host-lab7 --grace-period 10m && kubectl dcv enroll lab7 --revoke --purge";

/// A host outside the cluster.
#[derive(Args, Clone, Debug)]
pub(in crate::plugin) struct Enroll {
    /// Name of the host; its server is called host- and that
    #[arg(value_name = "HOST", value_parser = host)]
    pub host: String,
    /// Write what the host needs into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "revoke")]
    pub out: Option<PathBuf>,
    /// Print the token with the rest, for a pipe to the host
    #[arg(long, conflicts_with_all = ["out", "revoke"])]
    pub with_token: bool,
    /// How long the first token is good: the agent must be started before, from 10m to 24h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime, conflicts_with = "revoke")]
    pub token_lifetime: Duration,
    /// What runs the sessions there
    #[arg(long, value_enum, default_value_t, conflicts_with = "revoke")]
    pub backend: Backend,
    /// Address of the API server as the host reaches it; else the kubeconfig's
    #[arg(long, value_name = "URL", value_parser = address, conflicts_with = "revoke")]
    pub api_server: Option<Uri>,
    /// Authorities in PEM of the API server's certificate; else the kubeconfig's, or what the cluster publishes
    #[arg(long, value_name = "FILE", conflicts_with = "revoke")]
    pub certificate_authority: Option<PathBuf>,
    /// Folder on the host for its files
    #[arg(long, value_name = "DIR", default_value = "/etc/dcv-operator", value_parser = absolute, conflicts_with = "revoke")]
    pub folder: String,
    /// Where dcv-operator is on the host
    #[arg(long, value_name = "FILE", default_value = "/usr/local/bin/dcv-operator", value_parser = absolute, conflicts_with = "revoke")]
    pub program: String,
    /// A further flag of the agent, such as --agent-arg=--max-virtual-sessions=4; can be repeated
    #[arg(long = "agent-arg", value_name = "FLAG", allow_hyphen_values = true, conflicts_with = "revoke")]
    pub agent_args: Vec<String>,
    /// Namespace the operator is installed in
    #[arg(long, value_name = "NAME", default_value = "dcv-system")]
    pub operator_namespace: String,
    /// Namespace of the accounts of its hosts
    #[arg(long, value_name = "NAME", default_value = names::HOSTS_NAMESPACE)]
    pub hosts_namespace: String,
    /// Shut the host out: no token of it is good any more
    #[arg(long)]
    pub revoke: bool,
    /// With --revoke: also take away its account and its DcvServer, if nothing is on it
    #[arg(long, requires = "revoke")]
    pub purge: bool,
}

impl Enroll {
    /// Name of the server, its account and its Secret.
    pub(super) fn server(&self) -> String {
        format!("{}{}", names::HOST_PREFIX, self.host)
    }
}

/// What runs the sessions on a host.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::plugin) enum Backend {
    /// An installed Amazon DCV server
    #[default]
    Dcv,
    /// X desktops that the agent serves
    Vnc,
}

impl Backend {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Dcv => "dcv",
            Self::Vnc => "vnc",
        }
    }
}

/// The longest that the admission policy lets a host have.
const LONGEST: Duration = Duration::from_hours(24);
/// The shortest that the API server makes.
const SHORTEST: Duration = Duration::from_mins(10);

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if (SHORTEST..=LONGEST).contains(&lifetime) { Ok(lifetime) } else { Err("it is not from 10m to 24h".to_owned()) }
}

/// A name that objects can have: the host's, or its server's, or as `kubectl get -o name` prints that.
///
/// Source: "Object Names and IDs" in the Kubernetes documentation (RFC 1123).
fn host(text: &str) -> Result<String, String> {
    const LONGEST: usize = 200;
    let name = text.rsplit('/').next().unwrap_or(text);
    let name = name.strip_prefix(names::HOST_PREFIX).unwrap_or(name);
    let is_good = |part: &str| {
        let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(is_inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.len() <= LONGEST && name.split('.').all(is_good) {
        Ok(name.to_owned())
    } else {
        Err("a name is small letters, digits, dashes and dots, with a letter or digit at both ends".to_owned())
    }
}

/// Where the API server is: the kubeconfig of the host has it.
fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        _ => Err("it is no address such as https://api.example:6443".to_owned()),
    }
}

/// A path that needs no quotes, in a script or in a unit.
fn absolute(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.starts_with('/') && text.chars().all(is_plain) {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("it is no absolute path of letters, digits and / . _ - + @".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        enroll: Enroll,
    }

    fn parse(words: &[&str]) -> Result<Enroll, i32> {
        Cli::try_parse_from(["enroll"].iter().chain(words)).map(|cli| cli.enroll).map_err(|error| error.exit_code())
    }

    #[test]
    fn a_host_is_called_by_its_own_name_or_by_its_servers() {
        for name in ["lab7", "host-lab7", "dcvserver.dcv-operator.io/host-lab7"] {
            assert_eq!(parse(&[name]).unwrap().server(), "host-lab7", "{name}");
        }
        assert_eq!(parse(&["lab7.example"]).unwrap().server(), "host-lab7.example");
        for wrong in ["", "host-", "Lab7", "-a", "a-", "a..b", "a b", "a_b", &"a".repeat(201)] {
            assert_eq!(parse(&["--", wrong]).err(), Some(2), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_good_for_a_day_at_most() {
        let lifetime = |text: &str| parse(&["a", "--token-lifetime", text]).map(|it| it.token_lifetime);
        assert_eq!(parse(&["a"]).unwrap().token_lifetime, Duration::from_hours(1));
        assert_eq!(lifetime("24h"), Ok(LONGEST));
        assert_eq!([lifetime("24h1s"), lifetime("5m")], [Err(2), Err(2)]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for wrong in [
            &["a", "--purge"][..],
            &["a", "--revoke", "--out", "b"],
            &["a", "--with-token", "--out", "b"],
            &["a", "--api-server", "http://api"],
            &["a", "--api-server", "api:6443"],
            &["a", "--folder", "etc"],
            &["a", "--folder", "/etc/$x"],
        ] {
            assert_eq!(parse(wrong).err(), Some(2), "{wrong:?}");
        }
        assert!(parse(&["a", "--revoke", "--purge"]).is_ok());
        assert!(parse(&["a", "--agent-arg=--max-virtual-sessions=4", "--agent-arg", "--debug"]).is_ok());
    }
}
