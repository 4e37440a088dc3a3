//! `CreateSessions`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream;
use http::HeaderMap;
use kube::ResourceExt;
use rand::Rng;
use rand::distr::slice::Choose;
use sha2::Digest;
use sha2::Sha256;

use super::super::App;
use super::super::RequestId;
use super::super::access_log;
use super::super::auth::Caller;
use super::super::body::Items;
use super::super::problem::Problem;
use super::super::promise::Reservation;
use super::super::promise::Shortage;
use super::super::store::SessionView;
use super::WRITES_AT_ONCE;
use super::check;
use super::check_items;
use super::convert;
use super::dry_run;
use super::dry_run::DryRun;
use super::failure_reason;
use crate::api::ApiClient;
use crate::api::DcvSession;
use crate::api::DcvSessionSpec;
use crate::api::names;
use crate::wire;
use crate::wire::CreateSessionRequestData;
use crate::wire::CreateSessionsResponse;
use crate::wire::UnsuccessfulCreateSessionRequestData;

const DONE: &str = "created";

/// Text for a session that no server has room for.
pub const NO_SERVER: &str = "No DCV server found for the given criteria";
/// Text for a session that may not even wait.
pub const QUEUE_FULL: &str = "The queue of waiting requests is full";
const OTHER_REQUEST: &str = "The Idempotency-Key was used with another request";

/// Header by which a repeated call makes no second session.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const KEY_MAX_CHARACTERS: usize = 255;

/// A repeated call is known by it: the client's key, and a digest of what it asked for.
struct Idempotency {
    key: String,
    digest: String,
}

/// `POST /createSessions`. Success means accepted: placing and creating come after. With `?dryRun=true` nothing is made.
pub async fn create_sessions(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    DryRun(is_dry_run): DryRun,
    headers: HeaderMap,
    Items(requests): Items<CreateSessionRequestData>,
) -> Result<Response, Problem> {
    check_items(&requests)?;
    let idempotency = idempotency(&headers, &requests)?;
    let outcomes = if is_dry_run {
        dry_run::rehearse(&app, &client, &requests).await?
    } else {
        make(&app, &client, &requests, idempotency.as_ref()).await?
    };
    let mut response = CreateSessionsResponse { request_id: id.text(), ..CreateSessionsResponse::default() };
    for (request, outcome) in requests.into_iter().zip(&outcomes) {
        match outcome {
            Ok(accepted) => response.successful_list.push(accepted.shown(&app)),
            Err(reason) => response.unsuccessful_list.push(UnsuccessfulCreateSessionRequestData {
                create_session_request_data: request,
                failure_reason: reason.clone(),
            }),
        }
    }
    access_log::note_failed(response.unsuccessful_list.len());
    Ok(Json(response).into_response())
}

/// What becomes of each request.
async fn make(
    app: &App,
    client: &ApiClient,
    requests: &[CreateSessionRequestData],
    idempotency: Option<&Idempotency>,
) -> Result<Vec<Outcome>, Problem> {
    // In order, so that an earlier item's place counts for a later one; the writes then run beside each other.
    let mut plans = Vec::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        plans.push(plan(app, client, request, idempotency, number).await?);
    }
    carry_out_all(app, client, plans, idempotency.is_some()).await
}

fn idempotency(headers: &HeaderMap, requests: &[CreateSessionRequestData]) -> Result<Option<Idempotency>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().map(str::trim).filter(|key| (1..=KEY_MAX_CHARACTERS).contains(&key.len()));
    let key =
        key.ok_or_else(|| Problem::Invalid(format!("Idempotency-Key must be 1 to {KEY_MAX_CHARACTERS} characters")))?;
    let body = serde_json::to_vec(requests).map_err(|error| Problem::Internal(Box::new(error)))?;
    Ok(Some(Idempotency { key: key.to_owned(), digest: hex::encode(Sha256::digest(body)) }))
}

/// What to do about one item.
enum Plan {
    Fail(String),
    /// Made by an earlier call with the same key.
    Repeat(Arc<DcvSession>),
    Make(Box<DcvSession>, Reservation),
}

async fn plan(
    app: &App,
    client: &ApiClient,
    request: &CreateSessionRequestData,
    idempotency: Option<&Idempotency>,
    number: usize,
) -> Result<Plan, Problem> {
    let spec = match check::session_spec(request, &app.rules) {
        Ok(spec) => spec,
        Err(reason) => return Ok(Plan::Fail(reason)),
    };
    let name = match idempotency {
        Some(idempotency) => derived_name(client, &idempotency.key, number),
        None => random_name(spec.display_name.as_deref().unwrap_or_default()),
    };
    let mut session = object(client, &name, spec);
    let digest = idempotency.map(|idempotency| (names::REQUEST_DIGEST.to_owned(), idempotency.digest.clone()));
    let request_id = access_log::request_id().map(|id| (names::REQUEST_ID.to_owned(), id));
    let traceparent = access_log::traceparent().map(|line| (names::TRACEPARENT.to_owned(), line));
    session.metadata.annotations = Some(digest.into_iter().chain(request_id).chain(traceparent).collect());
    if idempotency.is_some() {
        match app.store.session_named(client, &name).await {
            Ok(Some(earlier)) if is_same_request(&session, &earlier) => return Ok(Plan::Repeat(earlier)),
            Ok(Some(_)) => return Err(Problem::Invalid(OTHER_REQUEST.to_owned())),
            Ok(None) => {}
            Err(error) => return Ok(Plan::Fail(failure_reason("session", DONE, &error))),
        }
    }
    Ok(match app.store.reserve(client, &session, app.rules.create_sessions_queue_max_size) {
        Ok(reservation) => Plan::Make(Box::new(session), reservation),
        Err(Shortage::NoServer) => Plan::Fail(NO_SERVER.to_owned()),
        Err(Shortage::QueueFull) => Plan::Fail(QUEUE_FULL.to_owned()),
    })
}

/// The object of a session of the client.
fn object(client: &ApiClient, name: &str, spec: DcvSessionSpec) -> DcvSession {
    let mut session = DcvSession::new(name, spec);
    session.metadata.finalizers = Some(vec![names::SESSION_FINALIZER.to_owned()]);
    session.metadata.labels =
        Some(BTreeMap::from([(names::CLIENT_LABEL.to_owned(), client.metadata.uid.clone().unwrap_or_default())]));
    session
}

/// The object that a request would become, under a name of its own.
///
/// # Errors
/// What is wrong with the request, for the client.
pub fn draft(app: &App, client: &ApiClient, request: &CreateSessionRequestData) -> Result<DcvSession, String> {
    let spec = check::session_spec(request, &app.rules)?;
    let name = random_name(spec.display_name.as_deref().unwrap_or_default());
    Ok(object(client, &name, spec))
}

/// Whether `found`, of the name of `wanted`, was made for the same request of the same client.
fn is_same_request(wanted: &DcvSession, found: &DcvSession) -> bool {
    let client = |session: &DcvSession| session.labels().get(names::CLIENT_LABEL).cloned();
    let digest = |session: &DcvSession| session.annotations().get(names::REQUEST_DIGEST).cloned();
    client(wanted) == client(found) && digest(wanted) == digest(found)
}

/// What became of one item: the session, or why there is none.
pub type Outcome = Result<Accepted, String>;

/// A session that was accepted.
pub struct Accepted {
    /// The session.
    pub view: SessionView,
    /// What would become of it, where nothing was made.
    pub forecast: Option<dry_run::Forecast>,
}

impl Accepted {
    fn shown(&self, app: &App) -> wire::Session<'_> {
        let now = (app.now)();
        let session = convert::session(&self.view, &app.rules, now);
        match &self.forecast {
            Some(forecast) => forecast.shown(session, &app.rules, now),
            None => session,
        }
    }
}

/// Under a key the first session is made before the others: whoever makes it has the key, and a call that comes too late
/// with another body makes nothing.
async fn carry_out_all(
    app: &App,
    client: &ApiClient,
    mut plans: Vec<Plan>,
    has_key: bool,
) -> Result<Vec<Outcome>, Problem> {
    let first = plans.iter().position(|plan| matches!(plan, Plan::Make(..))).filter(|_| has_key);
    let others = plans.split_off(first.map_or(0, |first| first + 1));
    let mut outcomes = Vec::with_capacity(plans.len() + others.len());
    for plan in plans {
        outcomes.push(carry_out(app, client, plan).await?);
    }
    let others = stream::iter(others).map(|plan| carry_out(app, client, plan)).buffered(WRITES_AT_ONCE);
    outcomes.extend(others.try_collect::<Vec<_>>().await?);
    Ok(outcomes)
}

async fn carry_out(app: &App, client: &ApiClient, plan: Plan) -> Result<Outcome, Problem> {
    let session = match plan {
        Plan::Fail(reason) => return Ok(Err(reason)),
        Plan::Repeat(session) => session,
        Plan::Make(session, reservation) => {
            let made = match app.store.create(client, session.as_ref().clone()).await {
                Ok(made) => made,
                Err(error) => return Ok(Err(failure_reason("session", DONE, &error))),
            };
            // A lost answer is asked for again, so what has this name already may be our own success.
            if !is_same_request(&session, &made) {
                return Err(Problem::Invalid(OTHER_REQUEST.to_owned()));
            }
            reservation.keep_for(made.metadata.uid.as_deref().unwrap_or_default(), Instant::now());
            made
        }
    };
    Ok(Ok(Accepted { view: SessionView { session, server: None, own: Arc::default() }, forecast: None }))
}

const NAME_ALPHABET: [char; 32] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'm', 'n', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y',
    'z', '2', '3', '4', '5', '6', '7', '8', '9',
];
const SUFFIX_CHARACTERS: usize = 12;
const SLUG_MAX_CHARACTERS: usize = 40;

/// An object name that reminds of the session's name. Sixty random bits: nobody else has it.
fn random_name(display_name: &str) -> String {
    let letters = Choose::new(&NAME_ALPHABET).expect("the alphabet is not empty");
    let suffix: String = rand::rng().sample_iter(letters).take(SUFFIX_CHARACTERS).collect();
    format!("{}-{suffix}", slug(display_name))
}

fn slug(display_name: &str) -> String {
    let mut slug = String::new();
    for character in display_name.chars().map(|character| character.to_ascii_lowercase()) {
        if slug.len() == SLUG_MAX_CHARACTERS {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "session".to_owned() } else { slug.to_owned() }
}

/// The name of an item under a key: the same each time, and nobody else's.
fn derived_name(client: &ApiClient, key: &str, number: usize) -> String {
    let uid = client.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{uid}\n{number}\n{key}"));
    format!("key-{}", hex::encode(&digest[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_whatever_the_session_is_called() {
        for (display_name, expected) in [
            ("My Desktop", "my-desktop"),
            ("  --Ünï__cödé 2--", "n-c-d-2"),
            ("日本", "session"),
            ("", "session"),
            (&"a".repeat(256), &"a".repeat(40)),
            (&format!("{} b", "a".repeat(39)), &"a".repeat(39)),
        ] {
            assert_eq!(slug(display_name), expected);
            let name = random_name(display_name);
            assert_eq!(name.len(), expected.len() + 1 + SUFFIX_CHARACTERS);
            assert_ne!(name, random_name(display_name));
        }
    }
}
