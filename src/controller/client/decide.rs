//! Whether a client is accepted.
//!
//! Pure: no client, no clock.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::ApiClient;
use crate::api::ApiClientStatus;
use crate::api::conditions;
use crate::api::conditions::ClientCondition;
use crate::api::conditions::Reason;

/// Everything the decision may look at, read once at the start of the pass.
pub struct World {
    /// Other clients of the same id.
    pub namesakes: Vec<Arc<ApiClient>>,
    /// The time.
    pub now: Timestamp,
}

/// What a pass leaves behind.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The status as it should be.
    pub status: ApiClientStatus,
    /// When to look again without a change: when a credential ends.
    pub requeue_after: Option<Duration>,
}

/// Decides on `client`.
pub fn decide(client: &ApiClient, world: &World) -> Plan {
    let mut status = client.status.clone().unwrap_or_default();
    let ends =
        || client.spec.credentials.iter().filter_map(|credential| credential.expire_time.as_ref()).map(|it| it.0);
    let usable = client.spec.credentials.iter().any(|it| it.expire_time.as_ref().is_none_or(|end| end.0 > world.now));
    let taken = world.namesakes.iter().find(|other| is_older(other, client));
    let (ready, reason, text) = match taken {
        Some(other) => {
            // Whose it is may be none of this namespace's business.
            let own = other.namespace() == client.namespace();
            let whose = if own {
                format!("ApiClient {}", other.name_any())
            } else {
                "an ApiClient of another namespace".into()
            };
            (false, Reason::ClientIdTaken, format!("{whose} has the same id and is older"))
        }
        None if client.spec.suspended => (true, Reason::Suspended, "shut out, as asked".to_owned()),
        None if client.spec.credentials.is_empty() => {
            (false, Reason::InvalidCredentials, "there is no credential".into())
        }
        None if !usable => (false, Reason::InvalidCredentials, "every credential has expired".into()),
        None => (true, Reason::Accepted, String::new()),
    };
    let generation = client.metadata.generation;
    let condition =
        |type_, state, text: &str| conditions::condition(type_, Some(state), reason, text, world.now, generation);
    conditions::set(&mut status.conditions, condition(ClientCondition::Ready, ready, &text));
    conditions::remove(&mut status.conditions, ClientCondition::Reconciling);
    if ready {
        conditions::remove(&mut status.conditions, ClientCondition::Stalled);
    } else {
        conditions::set(&mut status.conditions, condition(ClientCondition::Stalled, true, &text));
    }
    status.client_id = taken.is_none().then(|| client.client_id());
    status.observed_generation = generation;
    let next = ends().filter(|end| *end > world.now).min();
    let wait = next.map(|end| Duration::try_from(end.duration_since(world.now)).unwrap_or_default());
    Plan { status, requeue_after: wait.map(|wait| wait + Duration::from_millis(100)) }
}

/// The older of two keeps an id; of two made in the same second, the lesser uid.
fn is_older(other: &ApiClient, client: &ApiClient) -> bool {
    let age = |it: &ApiClient| (it.metadata.creation_timestamp.as_ref().map(|time| time.0), it.uid());
    age(other) < age(client)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn client(uid: &str, created: &str, spec: &Value) -> ApiClient {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient", "spec": spec,
            "metadata": {"name": uid, "namespace": "team", "uid": uid, "generation": 3, "creationTimestamp": created},
        }))
        .unwrap()
    }

    fn credential(end: Option<&str>) -> Value {
        json!({"hash": format!("sha256:{}", "0".repeat(64)), "expireTime": end})
    }

    fn conditions_of(plan: &Plan) -> Vec<(String, String, String)> {
        plan.status.conditions.iter().map(|it| (it.type_.clone(), it.status.clone(), it.reason.clone())).collect()
    }

    #[test]
    fn each_reason_has_its_conditions() {
        let old = "2026-01-01T00:00:00Z";
        let (past, future) = ("2026-05-31T00:00:00Z", "2026-06-01T00:01:00Z");
        let good = json!({"credentials": [credential(None)]});
        let cases = [
            ("accepted", good.clone(), None, true, "Accepted"),
            ("suspended", json!({"suspended": true}), None, true, "Suspended"),
            ("none", json!({}), None, false, "InvalidCredentials"),
            ("expired", json!({"credentials": [credential(Some(past))]}), None, false, "InvalidCredentials"),
            (
                "one of two",
                json!({"credentials": [credential(Some(past)), credential(Some(future))]}),
                None,
                true,
                "Accepted",
            ),
            ("older namesake", good.clone(), Some("2025-01-01T00:00:00Z"), false, "ClientIdTaken"),
            ("namesake of the same second, lesser uid", good.clone(), Some(old), false, "ClientIdTaken"),
            ("younger namesake", good, Some("2026-02-01T00:00:00Z"), true, "Accepted"),
        ];
        for (case, spec, namesake, ready, reason) in cases {
            let namesakes = namesake.map(|created| Arc::new(client("a", created, &spec))).into_iter().collect();
            let plan = decide(&client("b", old, &spec), &World { namesakes, now: now() });
            let mut expected = vec![("Ready".into(), if ready { "True" } else { "False" }.into(), reason.into())];
            if !ready {
                expected.push(("Stalled".to_owned(), "True".to_owned(), reason.to_owned()));
            }
            assert_eq!(conditions_of(&plan), expected, "{case}");
            let id = (reason != "ClientIdTaken").then(|| "b".to_owned());
            assert_eq!((plan.status.client_id, plan.status.observed_generation), (id, Some(3)), "{case}");
        }
    }

    #[test]
    fn it_is_looked_at_again_when_a_credential_ends_and_deciding_twice_changes_nothing() {
        let mut object =
            client("b", "2026-01-01T00:00:00Z", &json!({"credentials": [credential(Some("2026-06-01T00:01:00Z"))]}));
        let world = World { namesakes: Vec::new(), now: now() };
        let plan = decide(&object, &world);
        assert_eq!(plan.requeue_after, Some(Duration::from_millis(60_100)));
        object.status = Some(plan.status.clone());
        assert_eq!(decide(&object, &world), plan);
    }
}
