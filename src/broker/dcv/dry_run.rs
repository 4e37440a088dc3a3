//! `CreateSessions` with `?dryRun=true`: what would become of each item, and why, without making or holding anything.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::Query;
use futures::StreamExt;
use futures::stream;
use http::request::Parts;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::super::App;
use super::super::Rules;
use super::super::problem::Problem;
use super::super::promise::Shortage;
use super::super::store::ServerView;
use super::super::store::SessionView;
use super::super::trial::Accepted;
use super::super::trial::Outlook;
use super::WRITES_AT_ONCE;
use super::convert;
use super::create;
use super::failure_reason;
use crate::api::ApiClient;
use crate::api::DcvSession;
use crate::api::session::SessionSubstate;
use crate::wire;
use crate::wire::CreateSessionRequestData;

const DONE: &str = "tried";

/// Each works over a copy of all that is known, and explaining looks at every server: one at a time is enough for one
/// broker.
static TURN: Semaphore = Semaphore::const_new(1);

/// Whether a call is to make nothing.
pub struct DryRun(pub bool);

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "dryRun")]
    dry_run: Option<bool>,
}

impl<S: Send + Sync> FromRequestParts<S> for DryRun {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = Query::<Parameters>::from_request_parts(parts, state).await;
        // Taken for false, a misspelt true would make what was not to be made.
        let Query(parameters) =
            parameters.map_err(|_| Problem::Invalid("Invalid input: dryRun must be true or false".to_owned()))?;
        Ok(Self(parameters.dry_run.unwrap_or(false)))
    }
}

/// What would become of each request, earlier ones taking their places first.
///
/// # Errors
/// When it could not be found out.
pub async fn rehearse(
    app: &App,
    client: &Arc<ApiClient>,
    requests: &[CreateSessionRequestData],
) -> Result<Vec<create::Outcome>, Problem> {
    let drafts: Vec<_> = requests.iter().map(|request| create::draft(app, client, request)).collect();
    let outlooks = look(app, client, drafts).await?;
    // Admission has a say too, such as on owners.
    let asked = stream::iter(outlooks).map(|outlook| async {
        let (session, outlook) = outlook?;
        let outcome = app.store.rehearse(client, session.clone()).await;
        outcome.map(|()| (session, outlook)).map_err(|error| failure_reason("session", DONE, &error))
    });
    let outcomes: Vec<_> = asked.buffered(WRITES_AT_ONCE).collect().await;
    let servers = app.store.servers(client).into_iter().map(|view| (view.server.name_any(), view)).collect();
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.map(|(session, outlook)| accepted(session, &outlook, &servers)))
        .collect())
}

/// What a request would become, or why it is refused.
type Draft = Result<DcvSession, String>;

/// The same with what would become of it.
type Tried = Result<(DcvSession, Outlook), String>;

/// Tries the drafts one after the other: what would become of each, or why it would be refused.
async fn look(app: &App, client: &Arc<ApiClient>, drafts: Vec<Draft>) -> Result<Vec<Tried>, Problem> {
    let (store, client) = (Arc::clone(&app.store), Arc::clone(client));
    let queue_size = app.rules.create_sessions_queue_max_size;
    let turn = TURN.acquire().await.map_err(|error| Problem::Internal(Box::new(error)))?;
    let work = move || -> Vec<Tried> {
        // Held by the work, which goes on when its caller has gone.
        let _turn = turn;
        let mut trial = store.trial(&client);
        let attempt = |draft: Draft| {
            let session = draft?;
            let outlook = trial.attempt(&session, queue_size).map_err(|error| format!("{error:#}"))?;
            refusal(&outlook).map_or(Ok((session, outlook)), Err)
        };
        drafts.into_iter().map(attempt).collect()
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Problem::Internal(Box::new(error)))
}

/// Why a session would be refused, with all there is to say of it.
fn refusal(outlook: &Outlook) -> Option<String> {
    let text = match outlook.verdict {
        Ok(_) => return None,
        Err(Shortage::NoServer) => create::NO_SERVER,
        Err(Shortage::QueueFull) => create::QUEUE_FULL,
    };
    Some(format!("{text}: {}", outlook.report))
}

/// What would become of a session.
pub struct Forecast {
    /// The server it would get.
    server: Option<ServerView>,
    /// All there is to say of it.
    reason: String,
}

impl Forecast {
    /// `session` as a new one, but without what only one that exists has; `StateReason` says what is what.
    pub fn shown<'a>(&'a self, session: wire::Session<'a>, rules: &Rules, now: Timestamp) -> wire::Session<'a> {
        wire::Session {
            server: self.server.as_ref().map(|view| convert::place(view, rules, now)),
            substate: Some(SessionSubstate::SessionPlacing.as_str().into()),
            state_reason: Some(self.reason.as_str().into()),
            ..session
        }
    }
}

fn accepted(session: DcvSession, outlook: &Outlook, servers: &HashMap<String, ServerView>) -> create::Accepted {
    let (server, would) = match &outlook.verdict {
        Ok(Accepted::Place(name)) => (servers.get(name).cloned(), ""),
        _ => (None, "It would wait for a server. "),
    };
    let reason = format!("Dry run, nothing was created. {would}{}", outlook.report);
    create::Accepted {
        view: SessionView { session: Arc::new(session), server: None, own: Arc::default() },
        forecast: Some(Forecast { server, reason }),
    }
}
