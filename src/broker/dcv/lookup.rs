//! Which session an item of a call means, and why it means none.

use super::super::App;
use super::super::store::OtherView;
use super::super::store::SessionView;
use super::NO_SUCH_SESSION;
use super::convert;
use super::failure_reason;
use super::is_shown;
use crate::api::ApiClient;

const WRONG_OWNER: &str = "Owner does not match the owner of the session";

/// Text for a desktop that is listed but that no object here stands for: nothing can be asked of it. Not the text for a
/// session that does not exist, which clients take for the success of a delete.
const UNMANAGED: &str = "The session runs on its host without a record here, so this API cannot change it";

/// What an item says of the session it means.
pub struct Named<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its owner.
    pub owner: &'a str,
}

impl<'a> Named<'a> {
    /// Reads what was sent.
    ///
    /// # Errors
    /// What is missing, for the client.
    pub fn read(id: Option<&'a str>, owner: Option<&'a str>) -> Result<Self, String> {
        let given = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        let id = given(id).ok_or("SessionId is required")?;
        let owner = given(owner).ok_or("Owner is required")?;
        Ok(Self { id, owner })
    }

    /// The session of the client with this id and owner. Hosts may give the same id; then the live one is meant.
    ///
    /// # Errors
    /// Why there is none, for the client; `done` is what was to be done to it.
    pub async fn find(&self, app: &App, client: &ApiClient, done: &str) -> Result<SessionView, String> {
        let ids = [self.id.to_owned()];
        let found = app.store.find_sessions(client, &ids).await;
        let mut shown = found.map_err(|error| failure_reason("session", done, &error))?;
        let now = (app.now)();
        shown.retain(|view| is_shown(&view.session, &app.rules, now));
        if shown.is_empty() {
            return Err(if others(app, client, &ids).is_empty() { NO_SUCH_SESSION } else { UNMANAGED }.to_owned());
        }
        shown.retain(|view| view.session.spec.owner == self.owner);
        let live = shown.iter().position(|view| !view.session.is_finished()).unwrap_or(0);
        if shown.is_empty() { Err(WRONG_OWNER.to_owned()) } else { Ok(shown.swap_remove(live)) }
    }
}

/// The desktops of these ids, of all ids without any, that the client is shown and that no object stands for.
pub fn others(app: &App, client: &ApiClient, ids: &[String]) -> Vec<OtherView> {
    let now = (app.now)();
    let mut others = app.store.others(client, ids);
    others.retain(|view| convert::is_listed(&view.server, &app.rules, now));
    others
}

/// Has the ids of a call looked up together that this replica does not know. One after the other each would wait for the
/// API server; what goes wrong here goes wrong, and is told, once more for the item itself.
pub async fn look_ahead(app: &App, client: &ApiClient, ids: impl Iterator<Item = Option<&str>>) {
    let ids: Vec<_> = ids.flatten().map(str::to_owned).collect();
    if ids.len() > 1 {
        let _ = app.store.find_sessions(client, &ids).await;
    }
}
