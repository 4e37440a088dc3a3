//! Waiting for sessions, and saying what they wait for.

use std::future::Future;
use std::pin::Pin;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::Client;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::runtime::watcher::watch_object;

use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::voice::Voice;

/// Follows the sessions of these namespaces and names, one after the other, until each is READY. A limit of zero is none.
pub(super) async fn wait(
    client: &Client,
    sessions: &[(String, String)],
    limit: Duration,
    voice: &mut Voice<'_>,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Error> {
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    let all = async {
        for (namespace, name) in sessions {
            follow(client, namespace, name, voice).await?;
        }
        Ok(())
    };
    tokio::select! {
        () = &mut stop => Err(Error::Interrupted),
        done = tokio::time::timeout(limit, all) => {
            done.unwrap_or_else(|_| Err(Error::Told("not READY in that time; it stays, and goes on waiting".to_owned())))
        }
    }
}

async fn follow(client: &Client, namespace: &str, name: &str, voice: &mut Voice<'_>) -> Result<(), Error> {
    let api = Api::<DcvSession>::namespaced(client.clone(), namespace);
    let mut changes = pin!(watch_object(api, name).default_backoff());
    let mut last = String::new();
    while let Some(change) = changes.next().await {
        match change {
            Ok(Some(session)) => {
                let words = words(&session);
                if words != last {
                    voice.remark(&format!("{name}: {words}"))?;
                    last = words;
                }
                if let Some(outcome) = outcome(name, &session) {
                    return outcome.map_err(Error::Told);
                }
            }
            Ok(None) => return Err(Error::Told(format!("session {name} is gone: somebody has deleted it"))),
            Err(
                watcher::Error::InitialListFailed(error)
                | watcher::Error::WatchStartFailed(error)
                | watcher::Error::WatchFailed(error),
            ) if matches!(&error, kube::Error::Api(status) if status.is_forbidden()) => {
                return Err(needs("create --wait", "list and watch dcvsessions", error));
            }
            // It is tried again.
            Err(_) => {}
        }
    }
    Ok(())
}

/// State and reason.
fn words(session: &DcvSession) -> String {
    let status = session.status.as_ref();
    let state = session.shown_state().as_str();
    let server = session.server_name().map(|server| format!(" on {server}")).unwrap_or_default();
    let reason = status.and_then(|status| status.state_reason.as_deref()).unwrap_or_default();
    let reason: String = reason.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let substate =
        status.and_then(|status| status.substate).map(|it| format!(" / {}", it.as_str())).unwrap_or_default();
    if reason.is_empty() {
        format!("{state}{substate}{server}")
    } else {
        format!("{state}{substate}{server}: {reason}")
    }
}

/// Whether there is nothing left to wait for, and how it ended.
fn outcome(name: &str, session: &DcvSession) -> Option<Result<(), String>> {
    if session.is_finished() {
        let reason = session.status.as_ref().and_then(|status| status.state_reason.clone()).unwrap_or_default();
        return Some(Err(format!("session {name} is over: {reason}")));
    }
    if session.is_closing() {
        return Some(Err(format!("session {name} is being closed: somebody asked for its end")));
    }
    conditions::is_true(session.conditions(), SessionCondition::Ready).then_some(Ok(()))
}
