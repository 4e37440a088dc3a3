//! Events for people, on what was refused, failed, lost or expired; none on the way of success.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::Event;
use kube::runtime::events::EventType;
use kube::runtime::events::Recorder;
use kube::runtime::events::Reporter;

/// Longest note the API server takes, in bytes. Source: validation of `events.k8s.io/v1`.
const NOTE_LIMIT: usize = 1024;

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events reported by `component`, as this `instance` (pod or host name) of it.
    pub fn new(client: Client, component: &str, instance: &str) -> Self {
        let reporter = Reporter {
            controller: format!("dcv-operator.io/{component}"),
            instance: Some(instance.to_owned()).filter(|instance| !instance.is_empty()),
        };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Says that something went wrong with `object`. `action` is what was done, `reason` why it ended so; both are
    /// constants. A failure to record is logged and has no other effect.
    pub async fn warn(&self, object: &ObjectReference, action: &'static str, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(reason, object = object.name.as_deref().unwrap_or_default(), error, "Event not recorded");
        }
    }
}

fn shortened(note: &str) -> String {
    let end = note.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NOTE_LIMIT).last();
    note[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(600)).len(), 1024);
        assert_eq!(shortened(&format!("a{}", "ä".repeat(600))).len(), 1023);
    }
}
