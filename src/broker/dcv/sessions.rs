//! `DescribeSessions`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;

use super::super::App;
use super::super::RequestId;
use super::super::Rules;
use super::super::answer;
use super::super::auth::Caller;
use super::super::body::OptionalObject;
use super::super::problem::Problem;
use super::super::store::OtherView;
use super::super::store::Position;
use super::super::store::ServerView;
use super::super::store::SessionView;
use super::convert;
use super::is_shown;
use super::listed;
use super::listed::Listed;
use super::lookup;
use super::page::Page;
use crate::wire::DescribeSessionsRequestData;
use crate::wire::KeyValuePair;

/// What a session must have. Several filters must all hold.
enum Filter {
    Owner(String),
    Tag { key: String, value: String },
}

impl Filter {
    fn parse(pair: KeyValuePair<'_>) -> Result<Self, Problem> {
        let value = pair.value.into_owned();
        match (pair.key.as_ref(), pair.key.strip_prefix("tag:")) {
            ("owner", _) => Ok(Self::Owner(value)),
            (_, Some(key)) if !key.is_empty() => Ok(Self::Tag { key: key.to_owned(), value }),
            _ => Err(Problem::Invalid(format!("Filter key {:?} is neither owner nor tag:<key>", pair.key))),
        }
    }

    /// A tag is one of the session's server: a session without a server has none.
    fn holds(&self, owner: &str, server: Option<&ServerView>) -> bool {
        match self {
            Self::Owner(wanted) => owner == wanted,
            Self::Tag { key, value } => server
                .and_then(|view| view.server.status.as_ref())
                .is_some_and(|status| status.tags.get(key) == Some(value)),
        }
    }
}

/// A session, or a desktop on a host that none stands for.
enum View {
    Session(SessionView),
    Other(OtherView),
}

impl View {
    fn position(&self) -> Position {
        match self {
            Self::Session(view) => Position::of(view.session.as_ref()),
            Self::Other(view) => view.position.clone(),
        }
    }

    fn listed(&self, rules: &Rules, now: Timestamp) -> Listed<'_> {
        match self {
            Self::Session(view) => listed::session(view, rules, now),
            Self::Other(view) => Listed::Made(Box::new(convert::other(view, rules, now))),
        }
    }
}

/// `POST /describeSessions`: the client's sessions, or those of them it names. Unknown ids are left out. A client of all
/// namespaces sees desktops too that no session stands for.
pub async fn describe_sessions(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    OptionalObject(request): OptionalObject<DescribeSessionsRequestData>,
) -> Result<Response, Problem> {
    let filters = request.filters.unwrap_or_default();
    let ids: BTreeSet<_> = request.session_ids.unwrap_or_default().into_iter().collect();
    let query = ("sessions", &client.metadata.uid, &ids, &filters);
    let page = Page::parse(&app, request.max_results, request.next_token.as_deref(), &query)?;
    let filters = filters.into_iter().map(Filter::parse).collect::<Result<Vec<_>, _>>()?;

    let now = (app.now)();
    let meets = |owner: &str, server: Option<&ServerView>| filters.iter().all(|filter| filter.holds(owner, server));
    let keep = |view: &SessionView| {
        is_shown(&view.session, &app.rules, now) && meets(&view.session.spec.owner, view.server.as_ref())
    };
    let ids: Vec<_> = ids.into_iter().collect();
    let sessions = if ids.is_empty() {
        app.store.sessions(&client, page.after.as_ref(), page.limit + 1, &keep)
    } else {
        let mut sessions = app.store.find_sessions(&client, &ids).await?;
        sessions.retain(keep);
        sessions
    };
    let mut others = lookup::others(&app, &client, &ids);
    others.retain(|view| meets(&view.session.owner, Some(&view.server)));
    let is_page = ids.is_empty() && others.is_empty();
    let mut views: Vec<_> = sessions.into_iter().map(View::Session).collect();
    views.extend(others.into_iter().map(View::Other));
    if !is_page {
        views = page.select(views, View::position);
    }
    let (views, next_token) = page.cut(views, View::position);
    let listed: Vec<_> = views.iter().map(|view| view.listed(&app.rules, now)).collect();
    answer::json(listed::page(&id.text(), &listed, next_token.as_deref()))
}
