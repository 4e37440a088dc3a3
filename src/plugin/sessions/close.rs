//! `kubectl dcv close-session`: closes desktops and keeps their objects.
//!
//! What `kubectl delete` does to both, this does to the desktop alone: `spec.desiredState`, which moves only forward.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use clap::Args as ClapArgs;
use futures::StreamExt;
use kube::Api;
use kube::Client;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde_json::json;

use crate::api::DcvSession;
use crate::api::session::DesiredState;
use crate::plugin::Answer;
use crate::plugin::args::duration;
use crate::plugin::change;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::listing::qualified;
use crate::plugin::near;
use crate::plugin::voice::Voice;

/// Sessions to close.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(in crate::plugin) struct Closing {
    /// Names of the sessions
    #[arg(value_name = "SESSION", required = true)]
    pub sessions: Vec<String>,
    /// Do not wait for a server that does not answer: the session is over, and its desktop ends when the server is back
    #[arg(long)]
    pub force: bool,
    /// Wait until they are over, for at most this long; 0, and without a time: for ever
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// Closes each of the sessions.
pub(in crate::plugin) async fn close(
    client: &Client,
    namespace: &str,
    wanted: &Closing,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let api = Api::<DcvSession>::namespaced(client.clone(), namespace);
    let mut stop = pin!(stop);
    let mut open = Vec::new();
    for name in &wanted.sessions {
        let name = near::bare(name);
        let session = near::session(client, namespace, name).await?;
        let state = if session.is_finished() { "already over" } else { begin(&api, name, wanted.force).await? };
        voice.say(&format!("{} {state}", qualified::<DcvSession>(name)))?;
        if !session.is_finished() {
            open.push(name);
        }
    }
    let Some(limit) = wanted.wait else { return Ok(Answer::default()) };
    let over = async {
        for name in &open {
            until_over(&api, name).await?;
            voice.say(&format!("{} is over", qualified::<DcvSession>(name)))?;
        }
        Ok(Answer::default())
    };
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    tokio::select! {
        () = &mut stop => Err(Error::Interrupted),
        over = tokio::time::timeout(limit, over) => over.unwrap_or(Err(Error::NotOver)),
    }
}

async fn begin(api: &Api<DcvSession>, name: &str, is_forced: bool) -> Result<&'static str, Error> {
    let wanted = if is_forced { DesiredState::ForceClosed } else { DesiredState::Closed };
    let changed = change::change(api, name, |now: &DcvSession| {
        Ok((now.spec.desired_state < wanted).then(|| json!({"desiredState": wanted})))
    });
    let changed = changed.await.map_err(|error| match error {
        Error::Request(source) => needs("close-session", "patch dcvsessions", *source),
        other => other,
    })?;
    Ok(if changed.after.is_some() { "closing" } else { "already closing" })
}

/// One that is gone is over too.
async fn until_over(api: &Api<DcvSession>, name: &str) -> Result<(), Error> {
    let mut changes = pin!(watch_object(api.clone(), name).default_backoff());
    while let Some(change) = changes.next().await {
        // What fails is tried again; the time is bounded by the caller.
        if let Ok(session) = change
            && session.is_none_or(|session| session.is_finished())
        {
            return Ok(());
        }
    }
    Ok(())
}
