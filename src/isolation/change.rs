//! What each change does to an object. Doing it twice is doing it once, so an object shows whether it was done.

use serde_json::Value;
use serde_json::json;

use super::case::Change;
use super::case::Resource;
use crate::api::names;

/// A finalizer that is not ours.
pub const FOREIGN_FINALIZER: &str = "example.com/verify-isolation";
/// What owners of sessions must match in the scratch namespaces.
pub const OWNER_PATTERN: &str = "ann|bob";
/// Where our made-up sessions are moved to.
const THIRD_SERVER: &str = "dcv-verify-elsewhere";

/// Makes the change. `own_server` is the actor's, where it has one.
pub fn apply(change: Change, resource: Resource, own_server: Option<&str>, object: &mut Value) {
    match change {
        Change::Label => object["metadata"]["labels"]["example.com/verify"] = json!("a"),
        Change::Annotation => object["metadata"]["annotations"]["example.com/verify"] = json!("a"),
        Change::RequestId => object["metadata"]["annotations"][names::REQUEST_ID] = json!("verify"),
        Change::RenewKeys => object["metadata"]["annotations"][names::RENEW_KEYS] = json!("verify access keep"),
        Change::Owner => {
            object["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "verify", "uid": "verify"}]);
        }
        Change::AddFinalizer => set_finalizer(object, "example.com/added", true),
        Change::TakeOurFinalizer => set_finalizer(object, names::SESSION_FINALIZER, false),
        Change::TakeForeignFinalizer => set_finalizer(object, FOREIGN_FINALIZER, false),
        Change::Spec => object["spec"]["displayName"] = json!("verify"),
        Change::Close => object["spec"]["desiredState"] = json!("Closed"),
        Change::WrongOwner => object["spec"]["owner"] = json!("cid"),
        Change::Adopt => object["spec"]["adopt"] = json!({"serverName": THIRD_SERVER, "sessionId": "verify"}),
        Change::Report => report(resource, object),
        Change::Move => object["status"]["serverName"] = json!(THIRD_SERVER),
        Change::Unbind => remove(&mut object["status"], "serverName"),
        Change::Claim => object["status"]["serverName"] = json!(own_server),
        Change::Attempt => object["status"]["attempt"] = json!(3),
        Change::SessionId => object["status"]["sessionId"] = json!("verify"),
        Change::Retries => object["status"]["retries"] = json!(2),
        Change::Attempts => object["status"]["attempts"] = past_attempts(THIRD_SERVER),
        Change::Placement => object["spec"]["placement"] = json!("Open"),
        Change::EndSessions => object["spec"]["endSessions"] = json!(["verify"]),
        Change::AllowedNamespaces => object["spec"]["allowedNamespaces"] = json!({"matchLabels": {"verify": "a"}}),
        Change::Limits => object["spec"]["limits"] = json!({"maxVirtualSessions": 1}),
        Change::Credential => object["spec"]["credentials"] = json!([{"hash": format!("sha256:{}", "0".repeat(64))}]),
        Change::AllNamespaces => object["spec"]["allNamespaces"] = json!(true),
        Change::ManageServers => object["spec"]["manageServers"] = json!(true),
        Change::Renew => object["spec"]["holderIdentity"] = json!("verify"),
        Change::Data => object["data"]["verify"] = json!("a"),
        Change::AccountToken => {
            object["type"] = json!("kubernetes.io/service-account-token");
            object["metadata"]["annotations"]["kubernetes.io/service-account.name"] = json!(names::BROKER);
        }
        Change::Nothing | Change::Hour | Change::TwoDays | Change::Unbound | Change::BoundToAnother => {}
    }
}

/// Whether an object that the API server sent back has the change.
pub fn is_made(change: Change, resource: Resource, own_server: Option<&str>, object: &Value) -> bool {
    let mut changed = object.clone();
    apply(change, resource, own_server, &mut changed);
    changed == *object
}

/// The memory of one attempt on a server.
pub fn past_attempts(server: &str) -> Value {
    json!([{"serverName": server, "time": "2026-01-01T00:00:00Z", "reason": "Failed"}])
}

fn report(resource: Resource, object: &mut Value) {
    match resource {
        Resource::Servers | Resource::ServerStatus => object["status"]["version"] = json!("verify"),
        Resource::Clients | Resource::ClientStatus => object["status"]["clientId"] = json!("verify"),
        _ => object["status"]["numOfConnections"] = json!(7),
    }
}

fn set_finalizer(object: &mut Value, name: &str, wanted: bool) {
    let finalizers = &mut object["metadata"]["finalizers"];
    let mut names: Vec<Value> = finalizers.as_array().cloned().unwrap_or_default();
    names.retain(|other| other != name);
    if wanted {
        names.push(json!(name));
    }
    if names.is_empty() { remove(&mut object["metadata"], "finalizers") } else { *finalizers = json!(names) }
}

fn remove(fields: &mut Value, name: &str) {
    fields.as_object_mut().map(|fields| fields.remove(name));
}

/// The merge patch that makes `new` of `old`.
pub fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.clone(), difference(old.get(key).unwrap_or(&Value::Null), value)));
    Value::Object(gone.chain(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_merge_patch_between_two_objects() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let new = json!({"a": 1, "b": {"c": 3}, "e": [2], "f": {"g": 1}});
        assert_eq!(difference(&old, &new), json!({"b": {"c": 3, "d": null}, "e": [2], "f": {"g": 1}}));
        assert_eq!(difference(&old, &old), json!({}));
    }

    #[test]
    fn an_object_shows_whether_a_change_was_made() {
        let object = json!({"metadata": {"finalizers": [names::SESSION_FINALIZER, FOREIGN_FINALIZER]}, "spec": {},
            "status": {"serverName": "a"}});
        for change in [
            Change::Label,
            Change::Owner,
            Change::AddFinalizer,
            Change::TakeOurFinalizer,
            Change::Spec,
            Change::Report,
            Change::Unbind,
            Change::Claim,
        ] {
            let made = |object: &Value| is_made(change, Resource::Sessions, Some("mine"), object);
            assert!(!made(&object), "{change:?}");
            let mut changed = object.clone();
            apply(change, Resource::Sessions, Some("mine"), &mut changed);
            assert!(made(&changed), "{change:?}");
        }
    }

    #[test]
    fn the_last_finalizer_takes_the_list_along() {
        let mut object = json!({"metadata": {"finalizers": [names::SESSION_FINALIZER]}});
        apply(Change::TakeOurFinalizer, Resource::Sessions, None, &mut object);
        assert_eq!(object, json!({"metadata": {}}));
    }
}
