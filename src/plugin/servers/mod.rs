//! `kubectl dcv cordon`, `uncordon`, `drain` and `end`: what an administrator does with one server.
//!
//! Each is a change of the server's spec, which its agent carries out. Invariant: a command that is interrupted or killed at
//! any point leaves a spec that means what it says, and running it again goes on from there.

mod args;
mod drain;
mod end;

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::error::Error;
use crate::api::DcvServer;
use crate::api::names;
use crate::api::server::Placement;

pub use args::Command;

/// How often it is looked what has become of a server.
const LOOK_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };
/// How often a change is tried again when somebody else was faster.
const CHANGE_ATTEMPTS: usize = 10;

/// Where a command that takes long says how it goes.
pub(super) struct Voice<'a> {
    /// Data.
    pub out: &'a mut dyn Write,
    /// Remarks.
    pub talk: &'a mut dyn Write,
}

impl Voice<'_> {
    fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.out, "{line}").and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    fn remark(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.talk, "{line}").map_err(Error::Output)
    }
}

/// Does what `command` says, until it is done or `stop` is.
pub(super) async fn run(
    client: Client,
    command: &Command,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    match command {
        Command::Cordon(which) => cordon(client, &which.server).await,
        Command::Uncordon(which) => uncordon(client, &which.server).await,
        Command::Drain(wanted) => drain::drain(client, wanted, voice, stop).await,
        Command::End(wanted) => end::end(client, wanted, voice, stop).await,
    }
}

async fn cordon(client: Client, name: &str) -> Result<Answer, Error> {
    let close = |now: &DcvServer| now.is_open().then(|| json!({"placement": Placement::Closed}));
    let (_, changed) = change(&Api::all(client), name, close).await?;
    Ok(done(name, changed, "cordoned"))
}

async fn uncordon(client: Client, name: &str) -> Result<Answer, Error> {
    let open = |now: &DcvServer| (!now.is_open()).then(|| json!({"placement": null, "drainGraceSeconds": null}));
    let (server, changed) = change(&Api::all(client), name, open).await?;
    let mut answer = done(name, changed, "uncordoned");
    if server.is_cordoned() {
        answer.talk = format!("it takes no sessions as long as its Node is cordoned: kubectl uncordon {name}\n");
    }
    Ok(answer)
}

fn done(name: &str, changed: bool, word: &str) -> Answer {
    let already = if changed { "" } else { "already " };
    Answer { data: format!("{} {already}{word}\n", qualified(name)), ..Answer::default() }
}

fn qualified(name: &str) -> String {
    format!("dcvserver.dcv-operator.io/{name}")
}

/// Changes the spec of a server to what `wanted` makes of it as it is now, `None`: nothing. Returns it as it is then, and
/// whether it was changed.
async fn change(
    servers: &Api<DcvServer>,
    name: &str,
    wanted: impl Fn(&DcvServer) -> Option<Value>,
) -> Result<(DcvServer, bool), Error> {
    let parameters = PatchParams { field_manager: Some(names::PLUGIN.to_owned()), ..PatchParams::default() };
    let mut attempts = 1;
    loop {
        let before = servers.get(name).await?;
        let Some(spec) = wanted(&before) else { return Ok((before, false)) };
        let metadata = json!({"uid": before.uid(), "resourceVersion": before.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
        match servers.patch(name, &parameters, &patch).await {
            // Its agent reports all the time.
            Err(kube::Error::Api(status)) if status.is_conflict() && attempts < CHANGE_ATTEMPTS => attempts += 1,
            other => return Ok((other?, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock;
    use super::*;

    /// A client of an API server with one server of this spec, and what it says to a command.
    async fn told(spec: Value, command: fn(String) -> Command) -> (Answer, Vec<Value>) {
        let (client, sent) = mock::server(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "s", "uid": "u", "resourceVersion": "7"}, "spec": spec,
        }));
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        let answer = run(client, &command("s".into()), &mut voice, std::future::pending()).await.unwrap();
        let sent = sent.lock().unwrap().clone();
        (answer, sent)
    }

    #[tokio::test]
    async fn a_server_is_cordoned_and_uncordoned_once() {
        let cordon = |server| Command::Cordon(args::Which { server });
        let uncordon = |server| Command::Uncordon(args::Which { server });
        let changed = |spec: Value| vec![json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec})];
        let open = json!({"placement": null, "drainGraceSeconds": null});
        for (spec, command, sent, word) in [
            (json!({}), cordon as fn(String) -> Command, changed(json!({"placement": "Closed"})), "cordoned"),
            (json!({"placement": "Closed"}), cordon, vec![], "already cordoned"),
            (json!({"placement": "Draining"}), cordon, vec![], "already cordoned"),
            (json!({}), uncordon, vec![], "already uncordoned"),
            (json!({"placement": "Draining", "drainGraceSeconds": 5}), uncordon, changed(open), "uncordoned"),
        ] {
            let (answer, patches) = told(spec, command).await;
            assert_eq!(patches, sent);
            assert_eq!(answer.data, format!("dcvserver.dcv-operator.io/s {word}\n"));
        }
    }
}
