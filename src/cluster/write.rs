//! Writes with preconditions.

use std::fmt::Debug;

use kube::Api;
use kube::Resource;
use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Error;
use super::cache::describe;

/// Turns `old` into `new` as a JSON merge patch, `None` when they are equal. Lists go whole, what is gone becomes null.
pub fn merge_patch(old: &impl Serialize, new: &impl Serialize) -> Option<Value> {
    let value = |it: Result<Value, serde_json::Error>| it.expect("our objects are plain data");
    difference(&value(serde_json::to_value(old)), &value(serde_json::to_value(new)))
}

fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let changed = match old.get(key) {
            Some(before) => difference(before, value),
            None => Some(value.clone()),
        };
        patch.extend(changed.map(|changed| (key.clone(), changed)));
    }
    patch.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Patches the status of `object` by what [`merge_patch`] made of it; refused with a conflict when the object has changed
/// since it was read.
///
/// # Errors
/// When the call fails.
pub async fn patch_status<K>(api: &Api<K>, object: &K, manager: &str, status: &Value) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let patch = json!({"metadata": {"resourceVersion": object.resource_version()}, "status": status});
    api.patch_status(&object.name_any(), &params(manager), &Patch::Merge(&patch))
        .await
        .map_err(Error::api("report the status of", describe(object)))
}

/// Adds `finalizer` to `object` unless it is there.
///
/// # Errors
/// A conflict when the object has changed since it was read, or when the call fails.
pub async fn add_finalizer<K>(api: &Api<K>, object: &K, manager: &str, finalizer: &str) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|it| it == finalizer) {
        return Ok(object.clone());
    }
    finalizers.push(finalizer.to_owned());
    replace_finalizers(api, object, manager, "add our finalizer to", &finalizers).await
}

/// Takes `finalizer` off `object`. `None`: it was not there, or the object is gone.
///
/// # Errors
/// A conflict when the object has changed since it was read, or when the call fails.
pub async fn remove_finalizer<K>(api: &Api<K>, object: &K, manager: &str, finalizer: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let left: Vec<String> = object.finalizers().iter().filter(|it| *it != finalizer).cloned().collect();
    if left.len() == object.finalizers().len() {
        return Ok(None);
    }
    match replace_finalizers(api, object, manager, "remove our finalizer from", &left).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn replace_finalizers<K>(
    api: &Api<K>,
    object: &K,
    manager: &str,
    action: &'static str,
    finalizers: &[String],
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    // The uid as well: an object of the same name made anew must not lose its finalizer.
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }});
    api.patch(&object.name_any(), &params(manager), &Patch::Merge(&patch))
        .await
        .map_err(Error::api(action, describe(object)))
}

fn params(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_differs_and_nulls_what_is_gone() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "list": [1, 2], "gone": {"x": 1}});
        let new = json!({"a": 1, "b": {"c": 1, "d": 3, "e": null}, "list": [2], "new": true});
        let expected = json!({"b": {"d": 3, "e": null}, "list": [2], "gone": null, "new": true});
        assert_eq!(merge_patch(&old, &new), Some(expected));
        assert_eq!(merge_patch(&new, &new), None);
    }
}
