//! `kubectl dcv connect`: into a session's desktop.
//!
//! The address and its token come from a broker, as they do for portals: who may connect is the broker's and the session's
//! business. The token is in what is printed and nowhere else: not in a log, a file or the arguments of a viewer.

mod bridge;
mod viewer;

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use kube::Api;
use kube::Client;
use reqwest::Url;
use tokio::process::Command;

use super::args::ConnectionArgs;
use super::broker;
use super::broker::Call;
use super::broker::GetSessionConnectionData;
use super::broker::Options;
use super::connection;
use super::ending;
use super::ending::Fault;
use super::ending::Origin;
use super::error;
use super::error::needs;
use super::interrupted;
use super::near;
use crate::api::DcvServer;
use crate::cluster::pinned::Peer;
use crate::wire::GetSessionConnectionDataResponse;
use bridge::Desktop;
use viewer::Viewed;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
A broker is asked as by get-session-connection-data: see its options and dcvsmcli.conf. The address is good for whoever has \
it, until its token ends: an hour, unless the broker is set otherwise.

--viewer is for servers whose sessions the agent itself serves (backend vnc). It takes the right to get the DcvServer, whose \
status tells the agent's certificate; with --no-verify-ssl it does without.

Exit code: as of the commands that ask a broker; 1 when the API server does not answer, or the viewer fails or is not let in; \
130 interrupted.

Examples:
  kubectl dcv connect desk -n team-a
  kubectl dcv connect desk -n team-a --viewer
  kubectl dcv connect --session-id 0b1c… --user ann --open";

/// What opens an address on this system.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Which session, for whom, and how.
#[derive(Args, Debug, Default)]
pub(super) struct Connect {
    /// Name of a DcvSession
    #[arg(required_unless_present = "session_id", conflicts_with = "session_id")]
    pub session: Option<String>,
    /// Id of a session, which takes no right in the cluster
    #[arg(long, value_name = "ID", requires = "user")]
    pub session_id: Option<String>,
    /// Who connects; else the session's owner
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Open the address in a browser instead of printing it; other accounts of this machine may see it meanwhile
    #[arg(long, conflicts_with = "viewer")]
    pub open: bool,
    /// Show the desktop in this VNC viewer, instead of printing the address
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, require_equals = true, default_missing_value = "xtigervncviewer")]
    pub viewer: Option<PathBuf>,
}

/// What stopped the command.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cluster(#[from] error::Error),
    #[error(transparent)]
    Broker(#[from] broker::Error),
    #[error("the broker's answer names no address of the session")]
    NoAddress,
    #[error(
        "the server's backend is {0}, whose desktops a VNC viewer cannot show; open the address in a browser or in its own client"
    )]
    NotVnc(String),
    #[error("{program} cannot be run: {source}")]
    Program { program: String, source: io::Error },
    #[error("{0} ended with {1}")]
    Ended(String, std::process::ExitStatus),
    #[error("the certificate of the agent is not known by an id alone: name the session, or give --no-verify-ssl")]
    NoCertificate,
    #[error(transparent)]
    Bridge(#[from] bridge::BridgeError),
    #[error("cannot make a place for the viewer's socket: {0}")]
    Socket(#[source] io::Error),
    #[error("cannot print: {0}")]
    Output(#[source] io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl Fault for Error {
    fn origin(&self) -> Origin<'_> {
        match self {
            Self::Cluster(error) => Origin::Cluster(error),
            Self::Broker(error) => Origin::Broker(error),
            Self::Interrupted => Origin::Interrupted,
            _ => Origin::Own,
        }
    }
}

/// Connects, and says how that went by the exit code.
pub(super) fn run(connection: &ConnectionArgs, options: &Options, wanted: &Connect) -> ExitCode {
    ending::run(connect(connection, options, wanted))
}

async fn connect(connection: &ConnectionArgs, options: &Options, wanted: &Connect) -> Result<(), Error> {
    let limit = Some(connection.request_timeout).filter(|limit| !limit.is_zero());
    let prepared = async {
        let target = Target::find(connection, wanted).await?;
        let data = target.ask(options, limit).await?;
        let peer = match &wanted.viewer {
            Some(_) => Some(target.peer(options).await?),
            None => None,
        };
        Ok::<_, Error>((data, peer))
    };
    let (data, peer) = tokio::select! {
        prepared = prepared => prepared?,
        () = interrupted() => return Err(Error::Interrupted),
    };
    let address = address(&data).ok_or(Error::NoAddress)?;
    match (&wanted.viewer, peer) {
        (Some(program), Some(peer)) => {
            let desktop = Desktop::new(&address, &data, peer, limit).ok_or(Error::NoAddress)?;
            show(program, &desktop).await
        }
        _ if wanted.open => open(&address).await,
        _ => {
            let mut out = io::stdout().lock();
            writeln!(out, "{address}").and_then(|()| out.flush()).map_err(Error::Output)
        }
    }
}

/// The session that is meant.
struct Target {
    id: String,
    user: String,
    /// Its server, where the cluster was asked.
    server: Option<(Client, String)>,
}

impl Target {
    async fn find(connection: &ConnectionArgs, wanted: &Connect) -> Result<Self, Error> {
        if let Some(id) = &wanted.session_id {
            let user = wanted.user.clone().unwrap_or_default();
            return Ok(Self { id: id.clone(), user, server: None });
        }
        let (client, namespace) = connection::client(connection).await?;
        let session = near::session(&client, &namespace, wanted.session.as_deref().unwrap_or_default()).await?;
        Ok(Self {
            id: session.id().to_owned(),
            user: wanted.user.clone().unwrap_or_else(|| session.spec.owner.clone()),
            server: session.server_name().map(|server| (client, server.to_owned())),
        })
    }

    async fn ask(
        &self,
        options: &Options,
        limit: Option<Duration>,
    ) -> Result<GetSessionConnectionDataResponse<'static>, Error> {
        let who = GetSessionConnectionData { session_id: self.id.clone(), user: self.user.clone() };
        let answer = broker::ask(options, &Call::GetSessionConnectionData(who), limit).await?;
        let fault = |error| broker::Error::Other(format!("the broker's answer is not understood: {error}"));
        Ok(serde_json::from_str(&answer).map_err(fault)?)
    }

    /// Whose certificate the agent must have.
    async fn peer(&self, options: &Options) -> Result<Peer, Error> {
        let anyone = options.no_verify_ssl.unwrap_or(false);
        let Some((client, name)) = &self.server else {
            return if anyone { Ok(Peer::Anyone) } else { Err(Error::NoCertificate) };
        };
        let server = match Api::<DcvServer>::all(client.clone()).get(name).await {
            Ok(server) => server,
            Err(_) if anyone => return Ok(Peer::Anyone),
            Err(error) => return Err(needs("connect --viewer", "get dcvservers", error).into()),
        };
        let status = server.status.unwrap_or_default();
        if status.backend != "vnc" {
            return Err(Error::NotVnc(status.backend));
        }
        Ok(Peer::Fingerprint(status.agent.unwrap_or_default().certificate_fingerprint))
    }
}

/// The documented address of a session, with its token.
fn address(data: &GetSessionConnectionDataResponse<'_>) -> Option<Url> {
    let server = data.session.server.as_ref()?;
    let host = server.ip.as_deref().filter(|host| !host.is_empty())?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = server.port.as_deref()?;
    let path = server.web_url_path.as_deref().unwrap_or("/");
    let mut url = Url::parse(&format!("https://{host}:{port}{path}")).ok()?;
    url.query_pairs_mut().append_pair("authToken", &data.connection_token);
    url.set_fragment(Some(&data.session.id));
    Some(url)
}

async fn open(address: &Url) -> Result<(), Error> {
    let failed = |source| Error::Program { program: OPENER.to_owned(), source };
    let opened = Command::new(OPENER).arg(address.as_str()).stdin(Stdio::null()).status().await.map_err(failed)?;
    if opened.success() { Ok(()) } else { Err(Error::Ended(OPENER.to_owned(), opened)) }
}

async fn show(program: &std::path::Path, desktop: &Desktop) -> Result<(), Error> {
    match viewer::view(program, desktop, interrupted()).await? {
        Viewed::Closed(status) if status.success() => Ok(()),
        Viewed::Closed(status) => Err(Error::Ended(program.display().to_string(), status)),
        Viewed::Interrupted => Err(Error::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        connect: Connect,
    }

    fn parse(words: &[&str]) -> Result<Connect, i32> {
        let parsed = Cli::try_parse_from(["connect"].iter().chain(words));
        parsed.map(|cli| cli.connect).map_err(|error| error.exit_code())
    }

    #[test]
    fn a_session_is_named_or_given_by_id_and_user() {
        assert_eq!(parse(&["desk", "--viewer"]).unwrap().viewer, Some("xtigervncviewer".into()));
        assert_eq!(parse(&["desk", "--viewer=/opt/viewer"]).unwrap().viewer, Some("/opt/viewer".into()));
        assert_eq!(parse(&["--viewer", "desk"]).unwrap().session.as_deref(), Some("desk"));
        assert!(parse(&["--session-id", "x", "--user", "ann"]).is_ok());
        for wrong in [
            &[][..],
            &["--session-id", "x"],
            &["desk", "--session-id", "x", "--user", "ann"],
            &["desk", "--open", "--viewer"],
        ] {
            assert_eq!(parse(wrong).err(), Some(2), "{wrong:?}");
        }
    }

    #[test]
    fn the_address_is_the_documented_one() {
        let data = |ip: &str, path: &str| {
            let server = json!({"Ip": ip, "Port": "8444", "WebUrlPath": path});
            let data = json!({"Session": {"Id": "the id", "Server": server}, "ConnectionToken": "a.b-c_d"});
            let data: GetSessionConnectionDataResponse<'static> = serde_json::from_value(data).unwrap();
            super::address(&data).map(|url| url.to_string())
        };
        assert_eq!(data("10.0.0.1", "/").unwrap(), "https://10.0.0.1:8444/?authToken=a.b-c_d#the%20id");
        assert_eq!(data("fd00::1", "/dcv").unwrap(), "https://[fd00::1]:8444/dcv?authToken=a.b-c_d#the%20id");
        assert_eq!(data("", "/"), None);
    }
}
