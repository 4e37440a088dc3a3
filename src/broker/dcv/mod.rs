//! The calls of Session Manager's API: extract, check, ask the store, convert.

mod check;
mod connection;
mod convert;
mod create;
mod delete;
mod dry_run;
#[cfg(test)]
mod fuzz;
mod listed;
mod lookup;
mod page;
mod permissions;
mod placement;
mod screenshots;
mod servers;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum::routing::post;
use axum::routing::put;
use futures::StreamExt;
use futures::stream;
use jiff::SignedDuration;
use jiff::Timestamp;

use super::App;
use super::Rules;
use super::problem::Problem;
use super::store::StoreError;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::session::SessionState;

/// Text for a session that does not exist, or not for this client. Clients compare it to the letter.
const NO_SUCH_SESSION: &str = "The requested dcvSession does not exist";

/// Most items of one call.
const ITEMS_MAX: usize = 1000;

/// How many writes one call has under way.
const WRITES_AT_ONCE: usize = 8;

/// The routes of the API.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/closeServers", post(placement::close_servers))
        .route("/createSessions", post(create::create_sessions))
        .route("/deleteSessions", post(delete::delete_sessions))
        .route("/describeSessions", post(sessions::describe_sessions))
        .route("/describeServers", post(servers::describe_servers))
        .route("/openServers", post(placement::open_servers))
        .route("/getSessionScreenshots", post(screenshots::session_screenshots))
        .route("/sessionConnectionData/{session_id}/{user}", get(connection::session_connection_data))
        .route("/sessionPermissions", put(permissions::update_session_permissions))
}

/// Whether clients see the session: a deleted one only for the retention time, one that is being removed not at all.
fn is_shown(session: &DcvSession, rules: &Rules, now: Timestamp) -> bool {
    if !session.is_finished() {
        return !is_given_up(session, rules, now);
    }
    if session.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let retention = SignedDuration::from_secs(rules.delete_session_duration_seconds.into());
    let completed = session.status.as_ref().and_then(|status| status.completion_time.as_ref());
    session.shown_state() != SessionState::Deleted || completed.is_none_or(|time| now < time.0 + retention)
}

/// Whether the session's server has been away for as long as the setting says, if it says. Nothing is done to the session:
/// it is shown again when the server is back.
fn is_given_up(session: &DcvSession, rules: &Rules, now: Timestamp) -> bool {
    let Some(limit) = rules.seconds_before_deleting_sessions_unreachable_server else { return false };
    let is_away = conditions::is(session.conditions(), SessionCondition::Ready, None, Reason::ServerUnreachable);
    let ready = conditions::find(session.conditions(), SessionCondition::Ready).filter(|_| is_away);
    ready.is_some_and(|ready| ready.last_transition_time.0 + SignedDuration::from_secs(limit.into()) < now)
}

fn check_items<T>(items: &[T]) -> Result<(), Problem> {
    if items.len() > ITEMS_MAX {
        return Err(Problem::Invalid(format!("Invalid input: more than {ITEMS_MAX} items")));
    }
    Ok(())
}

/// Does `work` for each of `items`, several at a time but those of one key one after the other, so that of two that change
/// the same the later one counts. Returns what came of them in their order.
async fn in_turn<T, O, F>(items: Vec<T>, key: impl Fn(&T) -> Option<String>, work: impl Fn(T) -> F) -> Vec<O>
where
    F: Future<Output = O>,
{
    let mut groups: HashMap<Option<String>, Vec<(usize, T)>> = HashMap::new();
    for (number, item) in items.into_iter().enumerate() {
        groups.entry(key(&item)).or_default().push((number, item));
    }
    let work = &work;
    let mut outcomes: Vec<_> = stream::iter(groups.into_values())
        .map(|group| async move {
            let mut outcomes = Vec::with_capacity(group.len());
            for (number, item) in group {
                outcomes.push((number, work(item).await));
            }
            outcomes
        })
        .buffer_unordered(WRITES_AT_ONCE)
        .concat()
        .await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// What a client is told of a write that failed: the cluster's words on what was asked for, nothing of our own faults.
fn failure_reason(what: &str, done: &str, error: &StoreError) -> String {
    match error {
        StoreError::Refused(text) => text.clone(),
        error => {
            tracing::error!(error = error as &dyn std::error::Error, "a {what} was not {done}");
            format!("The {what} could not be {done}, try again")
        }
    }
}
