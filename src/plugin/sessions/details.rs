//! All there is to say of one session, for people.

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::DcvSession;
use crate::api::session::DesiredState;
use crate::api::session::SessionState;
use crate::plugin::age;
use crate::plugin::table;

/// Where a browser finds it, without a token.
pub(super) fn address(session: &DcvSession) -> Option<String> {
    let server = session.status.as_ref()?.server.as_ref()?;
    let host = if server.ip.contains(':') { format!("[{}]", server.ip) } else { server.ip.clone() };
    Some(format!("https://{host}:{}{}", server.port, server.web_url_path))
}

/// The session as text.
pub(super) fn text(session: &DcvSession, now: Timestamp) -> String {
    let mut lines = Vec::new();
    let mut line = |title: &str, text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            lines.push(vec![format!("{title}:"), plain(&text)]);
        }
    };
    let (spec, status) = (&session.spec, session.status.clone().unwrap_or_default());
    line("Name", Some(session.name_any()));
    line("Namespace", session.namespace());
    line("Display name", spec.display_name.clone());
    line("Owner", Some(spec.owner.clone()));
    line("Type", Some(spec.type_.as_str().to_owned()));
    line("Created", session.metadata.creation_timestamp.as_ref().map(|time| time_of(time.0, now)));
    line("State", Some(state(session)));
    line("Since", status.last_transition_time.filter(|time| time.0.as_second() > 0).map(|time| time_of(time.0, now)));
    line("Reason", status.state_reason);
    line("Server", session.server_name().map(str::to_owned));
    line("Address", address(session));
    line("Id", Some(session.id().to_owned()));
    line("Clients", status.num_of_connections.map(|count| count.to_string()));
    line("Last client left", status.last_disconnection_time.map(|time| time_of(time.0, now)));
    line("Finished", status.completion_time.map(|time| time_of(time.0, now)));
    line("Ends at the latest", ends(session).map(|(end, why)| format!("{end}, as {why}")));
    line("Requirements", spec.requirements.clone());
    line("Priority", (spec.priority != 0).then(|| spec.priority.to_string()));
    line("Desired state", (spec.desired_state != DesiredState::Running).then(|| format!("{:?}", spec.desired_state)));
    line("Permissions", spec.permissions.as_ref().map(|_| "its own; see kubectl dcv permissions".to_owned()));
    let mut text = table::aligned(&lines);
    text += &conditions(session, now);
    text += &attempts(session, now);
    text
}

/// What to do next, if that is plain.
pub(super) fn advice(session: &DcvSession) -> String {
    let (name, namespace) = (session.name_any(), session.namespace().unwrap_or_default());
    match session.shown_state() {
        SessionState::Creating if session.server_name().is_none() => {
            format!("kubectl dcv explain {name} -n {namespace} says which servers there are and what would help\n")
        }
        SessionState::Ready => format!("kubectl dcv connect {name} -n {namespace} leads into it\n"),
        _ => String::new(),
    }
}

fn state(session: &DcvSession) -> String {
    let state = session.shown_state();
    let substate = session.status.as_ref().and_then(|status| status.substate);
    match substate.filter(|_| state == SessionState::Creating) {
        Some(substate) => format!("{} / {}", state.as_str(), substate.as_str()),
        None => state.as_str().to_owned(),
    }
}

/// When a limit of its own ends it first, and which.
fn ends(session: &DcvSession) -> Option<(Timestamp, &'static str)> {
    if session.is_finished() {
        return None;
    }
    let status = session.status.as_ref()?;
    let left = status.last_disconnection_time.as_ref().map(|time| time.0);
    session.time_limits(status.num_of_connections.unwrap_or(0), left).into_iter().min()
}

fn time_of(time: Timestamp, now: Timestamp) -> String {
    format!("{time} ({} ago)", age::short(now.duration_since(time)))
}

fn conditions(session: &DcvSession, now: Timestamp) -> String {
    let title = ["  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"].map(str::to_owned).to_vec();
    let lines = session.conditions().iter().map(|condition| {
        let since = age::short(now.duration_since(condition.last_transition_time.0));
        let type_ = format!("  {}", condition.type_);
        vec![type_, condition.status.clone(), condition.reason.clone(), since, plain(&condition.message)]
    });
    section("Conditions", title, lines.collect())
}

fn attempts(session: &DcvSession, now: Timestamp) -> String {
    let attempts = session.status.as_ref().map_or(&[][..], |status| &status.attempts);
    let title = ["  SERVER", "REASON", "AGE", "MESSAGE"].map(str::to_owned).to_vec();
    let lines = attempts.iter().map(|attempt| {
        let ago = age::short(now.duration_since(attempt.time.0));
        vec![format!("  {}", attempt.server_name), attempt.reason.clone(), ago, plain(&attempt.message)]
    });
    section("Attempts that did not last", title, lines.collect())
}

fn section(name: &str, title: Vec<String>, lines: Vec<Vec<String>>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = std::iter::once(title).chain(lines).collect();
    format!("{name}:\n{}", table::aligned(&lines))
}

/// Without what a terminal would obey. Hosts and users write these texts.
fn plain(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
