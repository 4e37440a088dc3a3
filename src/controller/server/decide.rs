//! What becomes of a server's object.
//!
//! Pure: no client, no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::DcvServer;
use crate::api::DcvServerSpec;
use crate::api::DcvServerStatus;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::ServerCondition;
use crate::api::names;
use crate::api::server::Availability;
use crate::api::server::UnavailabilityReason;

/// Which labels of a Node its server gets: a label's name, or its beginning when it ends with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRule(pub String);

impl LabelRule {
    fn covers(&self, label: &str) -> bool {
        if self.0.ends_with('/') { label.starts_with(&self.0) } else { label == self.0 }
    }
}

/// Everything the decision may look at, read once at the start of the pass.
#[derive(Clone, Debug)]
pub struct World {
    /// Since when its agent is silent, if it is and that may be said.
    pub silent_since: Option<Timestamp>,
    /// Labels of the Node of the same name, if there is one.
    pub node_labels: Option<BTreeMap<String, String>>,
    /// Whether that Node is cordoned.
    pub node_cordoned: bool,
    /// Our own namespace, where other installations may have servers too.
    pub installation: Option<String>,
    /// Which of them are copied.
    pub copied: Vec<LabelRule>,
    /// Whether a session that is not finished is bound to it.
    pub in_use: bool,
    /// How long an unreachable server is kept.
    pub purge_after: SignedDuration,
    /// The time.
    pub now: Timestamp,
}

/// What a pass leaves behind.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The write, at most one.
    pub step: Step,
    /// When to look again without a change.
    pub requeue_after: Option<Duration>,
}

/// A write.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// None.
    Nothing,
    /// These labels, `None`: gone.
    Labels(BTreeMap<String, Option<String>>),
    /// This status.
    Status(Box<DcvServerStatus>),
    /// Delete the object.
    Purge,
}

/// Decides on `server`.
pub fn decide(server: &DcvServer, world: &World) -> Plan {
    let step = |step| Plan { step, requeue_after: None };
    if server.metadata.deletion_timestamp.is_some() {
        return step(Step::Nothing);
    }
    let Some(since) = world.silent_since else {
        let labels = label_changes(server, world);
        return step(if labels.is_empty() { Step::Nothing } else { Step::Labels(labels) });
    };
    let status = unreachable(server, since, world.now);
    if server.status.as_ref() != Some(&status) {
        return step(Step::Status(Box::new(status)));
    }
    // Whoever wrote into the spec may have plans for it; and its sessions are proved lost by deleting it.
    if server.spec != DcvServerSpec::default() || world.in_use {
        return step(Step::Nothing);
    }
    let condition = conditions::find(server.conditions(), ServerCondition::AgentConnected);
    let end = condition.map_or(world.now, |condition| condition.last_transition_time.0) + world.purge_after;
    if end <= world.now {
        return step(Step::Purge);
    }
    let wait = Duration::try_from(end.duration_since(world.now)).unwrap_or_default();
    Plan { step: Step::Nothing, requeue_after: Some(wait.max(Duration::from_millis(100))) }
}

/// What is said of an unreachable server: that, and nothing else of it.
fn unreachable(server: &DcvServer, since: Timestamp, now: Timestamp) -> DcvServerStatus {
    let mut status = server.status.clone().unwrap_or_default();
    let said = conditions::is(&status.conditions, ServerCondition::AgentConnected, Some(false), Reason::LeaseExpired)
        && status.unavailability_reason == Some(UnavailabilityReason::UnreachableAgent);
    if said {
        return status;
    }
    let text = format!("its agent has not renewed its Lease since {since:.0}");
    let generation = server.metadata.generation;
    let mut set = |type_, state, reason| {
        conditions::set(&mut status.conditions, conditions::condition(type_, state, reason, &text, now, generation));
    };
    set(ServerCondition::AgentConnected, Some(false), Reason::LeaseExpired);
    set(ServerCondition::Ready, Some(false), Reason::LeaseExpired);
    set(ServerCondition::Reconciling, Some(true), Reason::LeaseExpired);
    status.availability = Availability::Unavailable;
    status.unavailability_reason = Some(UnavailabilityReason::UnreachableAgent);
    status.observed_generation = generation;
    status
}

/// Labels to write: whose server it is, and those of the Node.
fn label_changes(server: &DcvServer, world: &World) -> BTreeMap<String, Option<String>> {
    let mut changes = node_labels(server, world);
    changes.remove(names::INSTALLATION);
    if server.labels().get(names::INSTALLATION) != world.installation.as_ref() {
        changes.insert(names::INSTALLATION.to_owned(), world.installation.clone());
    }
    changes
}

/// Labels to write so that those under our rules are the Node's. Without a Node they are the administrator's.
fn node_labels(server: &DcvServer, world: &World) -> BTreeMap<String, Option<String>> {
    let Some(wanted) = &world.node_labels else { return BTreeMap::new() };
    let cordoned = (names::CORDONED.to_owned(), String::new());
    let cordoned = world.node_cordoned.then_some((&cordoned.0, &cordoned.1));
    // That label is ours, whatever the Node carries.
    let is_rule = |label: &str| world.copied.iter().any(|rule| rule.covers(label));
    let copied = |label: &str| label == names::CORDONED || is_rule(label);
    let is_wanted = |label: &str| label != names::CORDONED && is_rule(label);
    let wanted = || wanted.iter().filter(|(label, _)| is_wanted(label)).chain(cordoned);
    let current = server.labels();
    let set = wanted().filter(|(label, value)| current.get(*label) != Some(*value));
    let gone = current.keys().filter(|label| copied(label) && !wanted().any(|(it, _)| it == *label));
    set.map(|(label, value)| (label.clone(), Some(value.clone()))).chain(gone.map(|it| (it.clone(), None))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn world() -> World {
        World {
            silent_since: None,
            node_labels: None,
            node_cordoned: false,
            installation: None,
            copied: vec![LabelRule("zone".into()), LabelRule("dcv-operator.io/".into())],
            in_use: false,
            purge_after: SignedDuration::from_secs(1800),
            now: second(100),
        }
    }

    fn server(spec: &Value, labels: &Value) -> DcvServer {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "s", "generation": 2, "labels": labels}, "spec": spec,
            "status": {"availability": "AVAILABLE", "virtualSessionCount": 3, "observedGeneration": 2, "conditions": [
                {"type": "Ready", "status": "True", "reason": "Running", "message": "",
                 "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_silent_server_is_said_to_be_unreachable_once() {
        let mut object = server(&json!({}), &json!({}));
        let silent = World { silent_since: Some(second(40)), in_use: true, ..world() };
        let Step::Status(status) = decide(&object, &silent).step else { panic!("a status") };
        assert_eq!(status.availability, Availability::Unavailable);
        assert_eq!(status.unavailability_reason, Some(UnavailabilityReason::UnreachableAgent));
        assert_eq!(status.virtual_session_count, Some(3), "the rest stays the agent's");
        let told: Vec<_> =
            status.conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect();
        let expected = [
            ("Ready", "False", "LeaseExpired"),
            ("AgentConnected", "False", "LeaseExpired"),
            ("Reconciling", "True", "LeaseExpired"),
        ];
        assert_eq!(told, expected);
        object.status = Some(*status);
        let later = World { silent_since: Some(second(41)), now: second(200), ..silent };
        assert_eq!(decide(&object, &later), Plan { step: Step::Nothing, requeue_after: None });
    }

    #[test]
    fn only_an_unused_server_that_nobody_has_touched_is_purged() {
        let silent = World { silent_since: Some(second(40)), ..world() };
        let object = |spec| {
            let mut object = server(&spec, &json!({}));
            object.status = Some(unreachable(&object, second(40), second(100)));
            object
        };
        let at = |now| World { now: second(now), ..silent.clone() };
        let plan = decide(&object(json!({})), &at(1000));
        assert_eq!(plan, Plan { step: Step::Nothing, requeue_after: Some(Duration::from_mins(15)) });
        assert_eq!(decide(&object(json!({})), &at(1900)).step, Step::Purge);
        assert_eq!(decide(&object(json!({"placement": "Closed"})), &at(9000)).step, Step::Nothing);
        assert_eq!(decide(&object(json!({})), &World { in_use: true, ..at(9000) }).step, Step::Nothing);
        assert_eq!(decide(&object(json!({})), &World { silent_since: None, ..at(9000) }).step, Step::Nothing);
    }

    #[test]
    fn labels_under_the_rules_follow_the_node_and_others_are_left() {
        let object = server(&json!({}), &json!({"zone": "a", "dcv-operator.io/old": "1", "mine": "x"}));
        let labels = |list: &[(&str, &str)]| Some(list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        let node = labels(&[("zone", "b"), ("dcv-operator.io/new", "2"), ("secret", "no")]);
        let expected = [("dcv-operator.io/new", Some("2")), ("dcv-operator.io/old", None), ("zone", Some("b"))];
        let expected = expected.map(|(label, value)| (label.to_owned(), value.map(str::to_owned)));
        let plan = decide(&object, &World { node_labels: node, ..world() });
        assert_eq!(plan.step, Step::Labels(expected.into()));
        let same = labels(&[("zone", "a"), ("dcv-operator.io/old", "1")]);
        assert_eq!(decide(&object, &World { node_labels: same, ..world() }).step, Step::Nothing);
        assert_eq!(decide(&object, &world()).step, Step::Nothing, "without a Node they are the administrator's");
    }

    #[test]
    fn where_there_are_several_installations_a_server_says_whose_it_is() {
        let ours = World { installation: Some("a".into()), ..world() };
        let label = |value: Option<&str>| {
            Step::Labels(BTreeMap::from([(names::INSTALLATION.to_owned(), value.map(str::to_owned))]))
        };
        assert_eq!(decide(&server(&json!({}), &json!({})), &ours).step, label(Some("a")));
        let marked = server(&json!({}), &json!({names::INSTALLATION: "a"}));
        let on_a_node = World { node_labels: Some(BTreeMap::new()), ..ours.clone() };
        assert_eq!(decide(&marked, &ours).step, Step::Nothing);
        assert_eq!(decide(&marked, &on_a_node).step, Step::Nothing, "no rule for labels of Nodes takes it away");
        assert_eq!(decide(&marked, &world()).step, label(None));
    }

    #[test]
    fn a_cordoned_node_shows_on_its_server_until_it_is_uncordoned() {
        let node = |cordoned, labels: &[(&str, &str)]| World {
            node_labels: Some(labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()),
            node_cordoned: cordoned,
            ..world()
        };
        let open = server(&json!({}), &json!({}));
        let shut = server(&json!({}), &json!({"dcv-operator.io/cordoned": ""}));
        let change = |value: Option<&str>| {
            Step::Labels([("dcv-operator.io/cordoned".to_owned(), value.map(str::to_owned))].into())
        };
        assert_eq!(decide(&open, &node(true, &[])).step, change(Some("")));
        assert_eq!(decide(&shut, &node(true, &[])).step, Step::Nothing);
        assert_eq!(decide(&shut, &node(false, &[])).step, change(None));
        let pretends = [("dcv-operator.io/cordoned", "x")];
        assert_eq!(decide(&open, &node(false, &pretends)).step, Step::Nothing, "a Node's label is not its state");
    }
}
