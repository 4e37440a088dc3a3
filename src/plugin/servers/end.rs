//! `kubectl dcv end`: ends desktops of a host that no session stands for.
//!
//! The request is an entry in `spec.endSessions`, and is there no longer than this command runs: an entry that stays would
//! end a later desktop of the same id, such as the next `console`.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;

use kube::Api;
use kube::Client;
use serde_json::json;
use tokio::time::Instant;

use super::LOOK_INTERVAL;
use super::args::End;
use super::change;
use crate::api::DcvServer;
use crate::api::server::OtherSession;
use crate::plugin::Answer;
use crate::plugin::error::Error;
use crate::plugin::near;
use crate::plugin::voice::Voice;

/// Ends them, and returns once they are gone.
pub(super) async fn end(
    client: Client,
    wanted: &End,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let server = &wanted.which.server;
    let servers = Api::<DcvServer>::all(client.clone());
    let ids: BTreeSet<&str> = wanted.ids.iter().map(String::as_str).collect();
    let found = near::server(&client, server).await?;
    for id in &ids {
        match find(&found, id) {
            Some(other) => voice.remark(&described(other))?,
            // Left by one that was killed: it is done, and the entry must go.
            None if found.spec.end_sessions.iter().any(|entry| entry == id) => {}
            None => return Err(Error::NoOtherSession { server: server.clone(), id: (*id).to_owned() }),
        }
    }
    let asked = change("end", &client, server, |now| with(now, &ids)).await;
    let gone = match asked {
        Ok(_) => wait(&servers, wanted, &ids, voice, stop).await,
        Err(error) => Err(error),
    };
    // Whatever came of it: a request whose answer was lost is there too.
    let withdrawn = change("end", &client, server, |now| without(now, &ids)).await;
    gone?;
    withdrawn?;
    let lines: Vec<_> = ids.iter().map(|id| format!("session {id} on {server} ended\n")).collect();
    let data = lines.concat();
    Ok(Answer { data, ..Answer::default() })
}

async fn wait(
    servers: &Api<DcvServer>,
    wanted: &End,
    ids: &BTreeSet<&str>,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let server = &wanted.which.server;
    let end = (!wanted.timeout.is_zero()).then(|| Instant::now() + wanted.timeout);
    let mut stop = pin!(stop);
    let mut was_silent = false;
    loop {
        let now = tokio::select! {
            () = &mut stop => return Err(Error::Interrupted),
            now = servers.get(server) => now?,
        };
        let left: Vec<_> = ids.iter().filter(|id| find(&now, id).is_some()).collect();
        if left.is_empty() {
            return Ok(());
        }
        if now.is_silent() && !was_silent {
            voice.remark(&format!("the agent of {server} does not answer; waiting until it is back"))?;
        }
        was_silent = now.is_silent();
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(Error::NotEnded { server: server.clone(), left: left.len() });
        }
        tokio::select! {
            () = &mut stop => return Err(Error::Interrupted),
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

fn find<'a>(server: &'a DcvServer, id: &str) -> Option<&'a OtherSession> {
    server.status.as_ref()?.other_sessions.iter().find(|other| other.id == id)
}

fn described(other: &OtherSession) -> String {
    let OtherSession { id, owner, num_of_connections, .. } = other;
    let origin = match (&other.namespace, &other.session_name) {
        (Some(namespace), Some(name)) => format!("made for {namespace}/{name}"),
        _ => "started by hand".to_owned(),
    };
    format!("ending session {id} of {owner}, {origin}, with {num_of_connections} clients connected")
}

/// The entries with these; `None`: they are there.
fn with(now: &DcvServer, ids: &BTreeSet<&str>) -> Option<serde_json::Value> {
    let entries = &now.spec.end_sessions;
    let missing = ids.iter().filter(|id| !entries.iter().any(|entry| entry == *id));
    let missing: Vec<_> = missing.map(|id| (*id).to_owned()).collect();
    let entries = [entries.clone(), missing.clone()].concat();
    (!missing.is_empty()).then(|| json!({ "endSessions": entries }))
}

/// The entries without these; `None`: none of them is there.
fn without(now: &DcvServer, ids: &BTreeSet<&str>) -> Option<serde_json::Value> {
    let entries = &now.spec.end_sessions;
    let kept: Vec<_> = entries.iter().filter(|entry| !ids.contains(entry.as_str())).collect();
    (kept.len() < entries.len())
        .then(|| if kept.is_empty() { json!({"endSessions": null}) } else { json!({"endSessions": kept}) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Duration;

    use serde_json::Value;

    use super::super::args::One;
    use super::*;
    use crate::plugin::mock;

    fn wanted(ids: &[&str]) -> End {
        End {
            which: One { server: "gpu-7".into() },
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            timeout: Duration::from_millis(300),
        }
    }

    fn server(entries: &Value, others: &[&str]) -> Value {
        let others: Vec<_> = others
            .iter()
            .map(|id| json!({"id": id, "owner": "bob", "type": "CONSOLE", "origin": "Manual", "numOfConnections": 2}))
            .collect();
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "gpu-7", "uid": "u", "resourceVersion": "7"},
            "spec": {"endSessions": entries}, "status": {"otherSessions": others}})
    }

    /// How it goes on a server with the desktop `console` and an entry of somebody else's, whose agent ends the former after
    /// so many looks; what was printed, and the entries after each change.
    async fn run(
        looks: usize,
        wanted: &End,
        stop: impl Future<Output = ()>,
    ) -> (Result<Answer, Error>, String, Vec<Value>) {
        let entries: Arc<Mutex<Vec<Value>>> = Arc::new(Mutex::new(vec![json!(["other"])]));
        let (seen, mut looked) = (Arc::clone(&entries), 0);
        let client = mock::client(move |method, _, body| {
            let mut seen = seen.lock().unwrap();
            if method == "PATCH" {
                seen.push(body["spec"]["endSessions"].clone());
            } else if seen.len() == 2 {
                looked += 1;
            }
            let others: &[&str] = if looked > looks { &["other"] } else { &["console", "other"] };
            (200, server(seen.last().unwrap(), others))
        });
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let answer = end(client, wanted, &mut Voice { out: &mut out, talk: &mut talk }, stop).await;
        let entries = entries.lock().unwrap()[1..].to_vec();
        (answer, String::from_utf8([out, talk].concat()).unwrap(), entries)
    }

    #[tokio::test]
    async fn the_entry_is_there_until_the_desktop_is_gone_and_no_longer() {
        let (answer, printed, entries) = run(3, &wanted(&["console"]), std::future::pending()).await;
        assert_eq!(answer.unwrap().data, "session console on gpu-7 ended\n");
        assert_eq!(printed, "ending session console of bob, started by hand, with 2 clients connected\n");
        assert_eq!(entries, [json!(["other", "console"]), json!(["other"])]);
    }

    #[tokio::test]
    async fn out_of_time_or_interrupted_the_request_is_taken_back() {
        let (answer, _, entries) = run(usize::MAX, &wanted(&["console"]), std::future::pending()).await;
        assert!(matches!(answer, Err(Error::NotEnded { left: 1, .. })), "{answer:?}");
        assert_eq!(entries.last(), Some(&json!(["other"])));
        let stop = tokio::time::sleep(Duration::from_millis(50));
        let (answer, _, entries) = run(usize::MAX, &wanted(&["console"]), stop).await;
        assert!(matches!(answer, Err(Error::Interrupted)), "{answer:?}");
        assert_eq!(entries.last(), Some(&json!(["other"])));
    }

    #[tokio::test]
    async fn an_entry_that_was_left_behind_goes_when_the_command_is_run_again() {
        let (client, sent) = mock::server(server(&json!(["console"]), &[]));
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        assert!(end(client, &wanted(&["console"]), &mut voice, std::future::pending()).await.is_ok());
        let sent: Vec<_> = sent.lock().unwrap().iter().map(|patch| patch["spec"].clone()).collect();
        assert_eq!(sent, [json!({"endSessions": null})]);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_asked_for() {
        let (answer, _, entries) = run(1, &wanted(&["console", "absent"]), std::future::pending()).await;
        assert!(matches!(answer, Err(Error::NoOtherSession { .. })), "{answer:?}");
        assert_eq!(entries, [Value::Null; 0]);
    }
}
