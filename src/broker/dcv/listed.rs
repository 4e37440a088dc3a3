//! Sessions in lists, as JSON.
//!
//! Lists are what portals ask for all day. What seldom changes is written once and kept beside its object in the cache: what
//! is shown of a READY session by itself, and what is shown of a server with each of its sessions.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::super::Rules;
use super::super::store::SessionView;
use super::convert;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::session::SessionState;
use crate::wire;

/// A session as a list shows it.
pub enum Listed<'a> {
    /// What is kept of it by itself, an object without its closing brace, and where it is.
    Kept { own: &'a str, place: Place<'a> },
    /// Made for this answer.
    Made(Box<wire::Session<'a>>),
}

/// Where a session is.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Place<'a> {
    /// What is kept with its server.
    Kept(&'a RawValue),
    /// Made for this answer.
    Made(Box<wire::Server<'a>>),
}

/// As [`convert::session`]. Of a session that is READY nothing but its server depends on another object or on the time.
pub fn session<'a>(view: &'a SessionView, rules: &Rules, now: Timestamp) -> Listed<'a> {
    let place = if view.session.shown_state() == SessionState::Ready { place(view, rules, now) } else { None };
    match place {
        Some(place) => Listed::Kept { own: view.own.get_or_init(|| own(view)), place },
        None => Listed::Made(Box::new(convert::session(view, rules, now))),
    }
}

fn own(view: &SessionView) -> Box<str> {
    let mut text = serde_json::to_string(&convert::own(view)).expect("a session is plain data");
    let brace = text.pop();
    debug_assert_eq!(brace, Some('}'));
    text.into()
}

/// As [`convert::session_server`]. Most sessions are reached where their server is, so what they show of it is all the same.
fn place<'a>(view: &'a SessionView, rules: &Rules, now: Timestamp) -> Option<Place<'a>> {
    let is_like_its_server = |server: &DcvServer| is_reached_at(&view.session, server);
    match &view.server {
        Some(server) if convert::is_listed(server, rules, now) && is_like_its_server(&server.server) => {
            let write = || {
                let place = convert::place(server, rules, now);
                serde_json::value::to_raw_value(&place).expect("a place is plain data")
            };
            Some(Place::Kept(server.place.get_or_init(write)))
        }
        _ => convert::session_server(view, rules, now).map(|server| Place::Made(Box::new(server))),
    }
}

/// Whether the session is reached where its server says that it is itself.
fn is_reached_at(session: &DcvSession, server: &DcvServer) -> bool {
    let Some(reached) = session.status.as_ref().and_then(|status| status.server.as_ref()) else { return true };
    server.status.as_ref().is_some_and(|status| {
        status.ip == reached.ip
            && status.port == Some(reached.port)
            && status.web_url_path == reached.web_url_path
            && status.endpoints == reached.endpoints
    })
}

/// Room for one session, in bytes: what most take with a few tags.
const SESSION_BYTES: usize = 1024;

/// A page of sessions: [`wire::DescribeSessionsResponse`].
///
/// # Errors
/// When a part is no JSON, which none is.
pub fn page(request_id: &str, sessions: &[Listed<'_>], next_token: Option<&str>) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(SESSION_BYTES * (sessions.len() + 1));
    text.extend_from_slice(br#"{"RequestId":"#);
    serde_json::to_writer(&mut text, request_id)?;
    text.extend_from_slice(br#","Sessions":["#);
    for (number, session) in sessions.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        session.write(&mut text)?;
    }
    text.push(b']');
    if let Some(token) = next_token {
        text.extend_from_slice(br#","NextToken":"#);
        serde_json::to_writer(&mut text, token)?;
    }
    text.push(b'}');
    Ok(text)
}

impl Listed<'_> {
    fn write(&self, text: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Made(session) => serde_json::to_writer(text, session),
            Self::Kept { own, place } => {
                text.extend_from_slice(own.as_bytes());
                text.extend_from_slice(br#","Server":"#);
                serde_json::to_writer(&mut *text, place)?;
                text.push(b'}');
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;
    use serde_json::json;

    use super::super::super::store::ServerView;
    use super::*;

    /// A view of a session on a server, each with this status.
    fn placed(session_status: &Value, server_status: &Value) -> SessionView {
        let session = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": "a", "uid": "a"}, "spec": {"owner": "ann", "type": "VIRTUAL"}, "status": session_status});
        let server = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "spec": {},
            "metadata": {"name": "s", "uid": "of-s"}, "status": server_status});
        let server = Arc::new(serde_json::from_value(server).unwrap());
        SessionView {
            session: Arc::new(serde_json::from_value(session).unwrap()),
            server: Some(ServerView { server, is_visible: true, place: Arc::default() }),
            own: Arc::default(),
        }
    }

    fn reached(port: u16) -> Value {
        let endpoint = json!({"ipAddress": "10.0.0.1", "port": port, "webUrlPath": "/", "protocol": "HTTP"});
        json!({"ip": "10.0.0.1", "port": port, "webUrlPath": "/", "endpoints": [endpoint]})
    }

    fn in_state(state: &str, reached: &Value) -> Value {
        json!({"state": state, "serverName": "s", "server": reached})
    }

    #[test]
    fn a_list_shows_of_each_session_what_is_shown_of_it_alone() {
        let mut server = reached(8443);
        server["tags"] = json!({"pool": "render"});
        let (rules, now) = (Rules::default(), Timestamp::UNIX_EPOCH);
        for (status, keeps_own, keeps_place) in [
            (json!(null), false, false),
            (json!({"state": "CREATING", "serverName": "s"}), false, false),
            (json!({"state": "READY", "serverName": "s"}), true, true),
            (in_state("READY", &reached(8443)), true, true),
            (in_state("READY", &reached(1)), true, false),
            (in_state("UNKNOWN", &reached(8443)), false, false),
        ] {
            let mut view = placed(&status, &server);
            for is_visible in [true, true, false] {
                view.server.as_mut().unwrap().is_visible = is_visible;
                let alone = serde_json::to_string(&convert::session(&view, &rules, now)).unwrap();
                let mut shown = Vec::new();
                session(&view, &rules, now).write(&mut shown).unwrap();
                assert_eq!(String::from_utf8(shown).unwrap(), alone, "{status}");
            }
            assert_eq!(view.own.get().is_some(), keeps_own, "{status}");
            assert_eq!(view.server.unwrap().place.get().is_some(), keeps_place, "{status}");
        }
    }

    #[test]
    fn a_page_is_the_documented_answer() {
        let views = ["READY", "CREATING", "READY"].map(|state| placed(&in_state(state, &reached(1)), &reached(8443)));
        let (rules, now) = (Rules::default(), Timestamp::UNIX_EPOCH);
        for (count, token) in [(0, None), (1, Some("a.\"token\"")), (3, None)] {
            let views = &views[..count];
            let answer = wire::DescribeSessionsResponse {
                request_id: "1".into(),
                sessions: views.iter().map(|view| convert::session(view, &rules, now)).collect(),
                next_token: token.map(ToOwned::to_owned),
            };
            let listed: Vec<_> = views.iter().map(|view| session(view, &rules, now)).collect();
            let text = String::from_utf8(page("1", &listed, token).unwrap()).unwrap();
            assert_eq!(text, serde_json::to_string(&answer).unwrap());
        }
    }
}
