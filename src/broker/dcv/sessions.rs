//! `DescribeSessions`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;

use super::super::App;
use super::super::RequestId;
use super::super::auth::Caller;
use super::super::body::OptionalObject;
use super::super::problem::Problem;
use super::super::store::Position;
use super::super::store::SessionView;
use super::convert;
use super::is_shown;
use super::page::Page;
use crate::wire::DescribeSessionsRequestData;
use crate::wire::DescribeSessionsResponse;
use crate::wire::KeyValuePair;

/// What a session must have. Several filters must all hold.
enum Filter {
    Owner(String),
    Tag { key: String, value: String },
}

impl Filter {
    fn parse(pair: KeyValuePair) -> Result<Self, Problem> {
        match (pair.key.as_str(), pair.key.strip_prefix("tag:")) {
            ("owner", _) => Ok(Self::Owner(pair.value)),
            (_, Some(key)) if !key.is_empty() => Ok(Self::Tag { key: key.to_owned(), value: pair.value }),
            _ => Err(Problem::Invalid(format!("Filter key {:?} is neither owner nor tag:<key>", pair.key))),
        }
    }

    /// A tag is one of the session's server: a session without a server has none.
    fn holds(&self, view: &SessionView) -> bool {
        match self {
            Self::Owner(owner) => view.session.spec.owner == *owner,
            Self::Tag { key, value } => view
                .server
                .as_ref()
                .and_then(|view| view.server.status.as_ref())
                .is_some_and(|status| status.tags.get(key) == Some(value)),
        }
    }
}

/// `POST /describeSessions`: the client's sessions, or those of them it names. Unknown ids are left out.
pub async fn describe_sessions(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    OptionalObject(request): OptionalObject<DescribeSessionsRequestData>,
) -> Result<Json<DescribeSessionsResponse>, Problem> {
    let filters = request.filters.unwrap_or_default();
    let ids: BTreeSet<_> = request.session_ids.unwrap_or_default().into_iter().collect();
    let query = ("sessions", &client.metadata.uid, &ids, &filters);
    let page = Page::parse(request.max_results, request.next_token.as_deref(), &query)?;
    let filters = filters.into_iter().map(Filter::parse).collect::<Result<Vec<_>, _>>()?;

    let now = (app.now)();
    let keep = |view: &SessionView| {
        is_shown(&view.session, &app.rules, now) && filters.iter().all(|filter| filter.holds(view))
    };
    let position = |view: &SessionView| Position::of(view.session.as_ref());
    let sessions = if ids.is_empty() {
        app.store.sessions(&client, page.after.as_ref(), page.limit + 1, &keep)
    } else {
        let ids: Vec<_> = ids.into_iter().collect();
        let mut sessions = app.store.find_sessions(&client, &ids).await?;
        sessions.retain(keep);
        page.select(sessions, position)
    };
    let (sessions, next_token) = page.cut(sessions, position);
    let sessions = sessions.iter().map(|view| convert::session(view, now)).collect();
    Ok(Json(DescribeSessionsResponse { request_id: id.text(), sessions, next_token }))
}
