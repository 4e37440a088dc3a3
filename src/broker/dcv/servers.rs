//! `DescribeServers`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;

use super::super::App;
use super::super::RequestId;
use super::super::answer;
use super::super::auth::Caller;
use super::super::body::OptionalObject;
use super::super::problem::Problem;
use super::super::store::Position;
use super::super::store::ServerView;
use super::convert;
use super::page::Page;
use crate::wire::DescribeServersRequestData;
use crate::wire::DescribeServersResponse;

/// `POST /describeServers`: the servers the client may use, or those of them it names. Unknown ids are left out.
pub async fn describe_servers(
    State(app): State<Arc<App>>,
    Caller(client): Caller,
    Extension(id): Extension<RequestId>,
    OptionalObject(request): OptionalObject<DescribeServersRequestData>,
) -> Result<Response, Problem> {
    let wanted: HashSet<_> = request.server_ids.unwrap_or_default().into_iter().collect();
    let mut sorted: Vec<_> = wanted.iter().collect();
    sorted.sort();
    let query = ("servers", &client.metadata.uid, sorted);
    let page = Page::parse(&app, request.max_results, request.next_token.as_deref(), &query)?;
    let position = |view: &ServerView| Position::of(view.server.as_ref());
    let now = (app.now)();
    let mut servers = app.store.servers(&client);
    servers.retain(|view| {
        let is_wanted = wanted.is_empty() || view.server.metadata.uid.as_ref().is_some_and(|uid| wanted.contains(uid));
        is_wanted && convert::is_listed(view, &app.rules, now)
    });
    let (servers, next_token) = page.cut(page.select(servers, position), position);
    let shown = servers.iter().map(|view| convert::server(&view.server, &app.store.load(&view.server))).collect();
    answer::list(&DescribeServersResponse { request_id: id.text(), servers: shown, next_token }, servers.len())
}
