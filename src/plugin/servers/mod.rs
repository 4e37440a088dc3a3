//! `kubectl dcv servers` and `top`, which only look, and `open`, `close`, `drain` and `end`, what an administrator does with servers.
//!
//! Each is a change of the server's spec, which its agent carries out. Invariant: a command that is interrupted or killed at
//! any point leaves a spec that means what it says, and running it again goes on from there.

mod args;
mod drain;
mod end;
mod list;
mod top;

use std::future::Future;
use std::time::Duration;

use kube::Api;
use kube::Client;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::change;
use super::error;
use super::error::Error;
use super::error::needs;
use super::listing;
use super::near;
use super::voice::Voice;
use crate::api::DcvServer;
use crate::api::server::Placement;
use crate::cluster::Clock;

pub use args::Command;

/// How often it is looked what has become of a server.
const LOOK_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };

/// What a command needs to know of its surroundings.
#[derive(Clone, Copy)]
pub(super) struct Surroundings {
    /// Time.
    pub clock: Clock,
    /// Whether somebody looks at a terminal.
    pub is_terminal: bool,
}

/// Does what `command` says, until it is done or `stop` is.
pub(super) async fn run(
    client: Client,
    command: &Command,
    voice: &mut Voice<'_>,
    around: Surroundings,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    match command {
        Command::Servers(wanted) => list::show(&client, wanted, voice, around.clock, stop).await,
        Command::Top(wanted) => top::top(&client, wanted, voice, around.is_terminal, stop).await,
        Command::Close(which) => each(which, voice, async |name| close(&client, name).await).await,
        Command::Open(which) => each(which, voice, async |name| open(&client, name, around.clock).await).await,
        Command::Drain(wanted) => drain::drain(client, wanted, voice, stop).await,
        Command::End(wanted) => end::end(client, wanted, voice, stop).await,
    }
}

/// Does it with one server after the other, whatever becomes of the others.
async fn each(
    which: &args::Which,
    voice: &mut Voice<'_>,
    act: impl AsyncFn(&str) -> Result<(String, Option<String>), Error>,
) -> Result<Answer, Error> {
    let mut failed = 0;
    for name in &which.servers {
        let name = near::bare(name);
        match act(name).await {
            Ok((done, remark)) => {
                voice.say(&format!("{} {done}", qualified(name)))?;
                remark.iter().try_for_each(|remark| voice.remark(remark))?;
            }
            // One server: the error is the answer.
            Err(error) if which.servers.len() == 1 => return Err(error),
            Err(error) => {
                failed += 1;
                voice.remark(&error::words(&error))?;
            }
        }
    }
    Ok(Answer { is_no: failed > 0, ..Answer::default() })
}

/// What was done, and what else there is to say.
async fn close(client: &Client, name: &str) -> Result<(String, Option<String>), Error> {
    let wanted = |now: &DcvServer| now.is_open().then(|| json!({"placement": Placement::Closed}));
    let (server, changed) = change("close", client, name, wanted).await?;
    let done = match (changed, server.spec.placement) {
        (true, _) => "closed",
        (false, Some(Placement::Draining)) => "already closed, and draining",
        (false, _) => "already closed",
    };
    Ok((done.to_owned(), None))
}

async fn open(client: &Client, name: &str, clock: Clock) -> Result<(String, Option<String>), Error> {
    let wanted = |now: &DcvServer| (!now.is_open()).then(|| json!({"placement": null, "drainGraceSeconds": null}));
    let changed = changed("open", client, name, wanted).await?;
    let drain = changed.before.spec.placement == Some(Placement::Draining);
    let mut remarks = Vec::new();
    if drain {
        let end = changed.before.drain_end(clock()).map_or_else(
            || "which ended nobody's session".to_owned(),
            |end| format!("which was to end its sessions at {end}"),
        );
        remarks.push(format!("{name} was being drained, {end}: that is taken back, and they go on"));
    }
    let done = if changed.after.is_some() { "opened" } else { "already open" };
    if changed.now().is_cordoned() {
        remarks.push(format!("it takes no sessions as long as its Node is cordoned: kubectl uncordon {name}"));
    }
    Ok((done.to_owned(), Some(remarks.join("\n")).filter(|remarks| !remarks.is_empty())))
}

fn qualified(name: &str) -> String {
    listing::qualified::<DcvServer>(name)
}

/// Changes the spec of a server for `command` to what `wanted` makes of it as it is now, `None`: nothing.
async fn changed(
    command: &'static str,
    client: &Client,
    name: &str,
    wanted: impl Fn(&DcvServer) -> Option<Value>,
) -> Result<change::Changed<DcvServer>, Error> {
    let api = Api::<DcvServer>::all(client.clone());
    match change::change(&api, name, |now| Ok(wanted(now))).await {
        Err(Error::Request(source)) if near::is_not_found(&source) => Err(near::no_server(client, name, *source).await),
        Err(Error::Request(source)) => Err(needs(command, "get and patch dcvservers", *source)),
        other => other,
    }
}

/// As [`changed`]: the server as it is then, and whether it was changed.
async fn change(
    command: &'static str,
    client: &Client,
    name: &str,
    wanted: impl Fn(&DcvServer) -> Option<Value>,
) -> Result<(DcvServer, bool), Error> {
    let changed = changed(command, client, name, wanted).await?;
    let is_changed = changed.after.is_some();
    Ok((changed.now(), is_changed))
}

#[cfg(test)]
mod tests {
    use super::super::mock;
    use super::*;

    fn now() -> jiff::Timestamp {
        "2026-11-28T04:00:00Z".parse().unwrap()
    }

    /// What is printed and remarked when a command is run on a server of this spec and label, and what is sent.
    async fn told(spec: Value, is_cordoned: bool, command: &Command) -> (String, String, Vec<Value>) {
        let labels = if is_cordoned { json!({"dcv-operator.io/cordoned": ""}) } else { json!({}) };
        let (client, sent) = mock::server(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "s", "uid": "u", "resourceVersion": "7", "labels": labels}, "spec": spec,
        }));
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        let around = Surroundings { clock: now, is_terminal: false };
        run(client, command, &mut voice, around, std::future::pending()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let sent = sent.lock().unwrap().clone();
        (text(out), text(talk), sent)
    }

    fn which(names: &[&str]) -> args::Which {
        args::Which { servers: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[tokio::test]
    async fn a_server_is_closed_and_opened_once() {
        let close = || Command::Close(which(&["dcvserver.dcv-operator.io/s"]));
        let open = || Command::Open(which(&["s"]));
        let changed = |spec: Value| vec![json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec})];
        let opened = json!({"placement": null, "drainGraceSeconds": null});
        for (spec, command, sent, word) in [
            (json!({}), close(), changed(json!({"placement": "Closed"})), "closed"),
            (json!({"placement": "Closed"}), close(), vec![], "already closed"),
            (json!({"placement": "Draining"}), close(), vec![], "already closed, and draining"),
            (json!({"placement": "Open"}), open(), vec![], "already open"),
            (json!({"placement": "Closed"}), open(), changed(opened), "opened"),
        ] {
            let (printed, said, patches) = told(spec, false, &command).await;
            assert_eq!((patches, said.as_str()), (sent, ""));
            assert_eq!(printed, format!("dcvserver.dcv-operator.io/s {word}\n"));
        }
    }

    #[tokio::test]
    async fn a_drain_is_not_lost_silently_and_a_cordoned_node_is_told_of() {
        let open = Command::Open(which(&["s"]));
        let (printed, said, patches) =
            told(json!({"placement": "Draining", "drainGraceSeconds": 60}), true, &open).await;
        assert_eq!((printed.as_str(), patches.len()), ("dcvserver.dcv-operator.io/s opened\n", 1));
        let expected = "s was being drained, which was to end its sessions at 2026-11-28T04:01:00Z: that is taken back, and \
                        they go on\nit takes no sessions as long as its Node is cordoned: kubectl uncordon s\n";
        assert_eq!(said, expected);
        let (_, said, _) = told(json!({"placement": "Draining"}), false, &open).await;
        assert!(said.contains("which ended nobody's session"), "{said}");
    }

    #[tokio::test]
    async fn one_that_fails_does_not_keep_the_others() {
        let client = mock::client(|method, path, _| match (method, path.ends_with("/absent")) {
            ("GET", true) => mock::not_found("no absent"),
            ("GET", false) if path.ends_with("/dcvservers") => mock::list(&[]),
            _ => (
                200,
                json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
                "metadata": {"name": "s", "uid": "u", "resourceVersion": "7"}, "spec": {}}),
            ),
        });
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        let around = Surroundings { clock: now, is_terminal: false };
        let command = Command::Close(which(&["absent", "s"]));
        let answer = run(client, &command, &mut voice, around, std::future::pending()).await.unwrap();
        assert!(answer.is_no);
        assert_eq!(String::from_utf8(out).unwrap(), "dcvserver.dcv-operator.io/s closed\n");
        assert_eq!(String::from_utf8(talk).unwrap(), "Error from server (NotFound): no absent\n");
    }
}
