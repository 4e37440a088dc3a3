//! The events there are. Few: of what was refused, failed, lost or expired, and none on the way of success.
//!
//! `docs/metrics.md` lists them, and a test holds the two together.

use k8s_openapi::api::core::v1::ObjectReference;

use super::Context;
use crate::api::conditions::Reason;

/// What was done, and why it ended so: every pair that is ever told. All are warnings.
pub const EVENTS: [(&str, Reason); 11] = [
    ("PlaceSession", Reason::NoServerFits),
    ("PlaceSession", Reason::QueueTimeout),
    ("PlaceSession", Reason::InvalidRequirements),
    ("CreateSession", Reason::InvalidSession),
    ("CreateSession", Reason::Refused),
    ("CreateSession", Reason::Failed),
    ("CreateSession", Reason::RetriesExhausted),
    ("RunSession", Reason::ServerLost),
    ("RunSession", Reason::Expired),
    ("CloseSession", Reason::ServerUnreachable),
    ("JudgeServers", Reason::ServerUnreachable),
];

/// Tells people of `object`.
pub async fn tell(context: &Context, object: &ObjectReference, action: &'static str, reason: Reason, note: &str) {
    // Every test that comes by here checks the list.
    debug_assert!(EVENTS.contains(&(action, reason)), "{action} {reason:?} is not among the events");
    context.events.warn(object, action, reason.as_str(), note).await;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_lists_every_event_and_no_other() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let page = fs::read_to_string(page).unwrap();
        let section = page.split("## Events").nth(1).unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let mut listed: Vec<(String, String, String)> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
                (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap())
            })
            .collect();
        let mut known: Vec<_> = EVENTS
            .iter()
            .map(|(action, reason)| ((*action).to_owned(), reason.as_str().to_owned(), "Warning".to_owned()))
            .collect();
        listed.sort();
        known.sort();
        assert_eq!(listed, known);
    }
}
