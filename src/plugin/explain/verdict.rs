//! What becomes of one session, in words and as data.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Subject;
use super::fleet::Fleet;
use crate::api::session::PlacementPolicy;
use crate::placement;
use crate::placement::Report;
use crate::placement::Request;
use crate::requirement::Dialect;

/// What becomes of each session, in the order asked.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Verdicts {
    /// One for each.
    pub items: Vec<Verdict>,
}

/// What becomes of a session.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty: the manifest has none.
    pub name: String,
    /// Its state; absent: it is not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Why it is in that state, in the object's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// The server it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether it has a server or would get one now.
    pub fits: bool,
    /// Why it can be placed nowhere, whatever the servers are like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What would become of it now, unless it has a server or nobody looks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// What becomes of `subject`. A manifest that fits takes its place, so that the next one finds it taken.
pub(super) fn judge(fleet: &mut Fleet, subject: &Subject) -> Verdict {
    let session = &subject.session;
    let mut verdict = Verdict {
        namespace: subject.namespace.clone(),
        name: session.metadata.name.clone().or_else(|| session.metadata.generate_name.clone()).unwrap_or_default(),
        ..Verdict::default()
    };
    if subject.is_applied {
        verdict.state = Some(session.shown_state().as_str());
        verdict.state_reason = session.status.as_ref().and_then(|status| status.state_reason.clone());
        verdict.server_name = session.server_name().map(str::to_owned);
        if verdict.server_name.is_some() || session.is_closing() {
            verdict.fits = verdict.server_name.is_some() && !session.is_finished() && !session.is_closing();
            return verdict;
        }
    }
    if let Some(adopt) = &session.spec.adopt {
        let text = format!(
            "it takes over desktop {} of server {}, and goes nowhere else",
            adopt.session_id, adopt.server_name
        );
        verdict.error = Some(text);
        return verdict;
    }
    let no_labels = BTreeMap::new();
    let labels = fleet.namespaces.get(&subject.namespace).unwrap_or(&no_labels);
    match Request::of(&session.spec, &subject.namespace, labels, Dialect::Extended) {
        Err(error) => verdict.error = Some(format!("{error:#}")),
        Ok(request) => {
            let report = placement::explain(&fleet.ledger, &request, PlacementPolicy::Spread);
            if let Some(server) = &report.server_name {
                verdict.fits = true;
                fleet.take(server, session);
            }
            verdict.report = Some(report);
        }
    }
    verdict
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, verdict) in self.items.iter().enumerate() {
            writeln!(f, "{}{verdict}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// A line that says what it is about, and what there is to say below it.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, if self.name.is_empty() { "(no name)" } else { &self.name })?;
        match (self.state, &self.server_name) {
            (None, _) => f.write_str(": not applied")?,
            (Some(state), None) => write!(f, ": {state}")?,
            (Some(state), Some(server)) => write!(f, ": {state} on server {server}")?,
        }
        // What is found now says the same as a waiting session's reason, only newer.
        let is_said = self.error.is_some() || (self.report.is_some() && self.state == Some("CREATING"));
        if let Some(reason) = self.state_reason.as_ref().filter(|_| !is_said) {
            write!(f, "\n{reason}")?;
        }
        if let Some(error) = &self.error {
            write!(f, "\n{error}")?;
        }
        self.report.iter().try_for_each(|report| write!(f, "\n{report}"))
    }
}
