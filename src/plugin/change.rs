//! A change of an object that depends on what it is like.

use std::fmt::Debug;

use kube::Api;
use kube::Resource;
use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use super::error::Error;
use crate::api::names;

/// How often a change is tried again when somebody else was faster.
const ATTEMPTS: usize = 10;

/// An object before and after a change; after it is absent when there was nothing to change.
#[derive(Debug)]
pub(super) struct Changed<K> {
    /// As it was.
    pub before: K,
    /// As it is now.
    pub after: Option<K>,
}

impl<K> Changed<K> {
    /// As it is now.
    pub fn now(self) -> K {
        self.after.unwrap_or(self.before)
    }
}

/// Parameters of a write of ours.
pub(super) fn patch_parameters() -> PatchParams {
    PatchParams { field_manager: Some(names::PLUGIN.to_owned()), ..PatchParams::default() }
}

/// Changes the spec of an object to what `wanted` makes of it as it is now; `None`: nothing.
pub(super) async fn change<K>(
    api: &Api<K>,
    name: &str,
    wanted: impl Fn(&K) -> Result<Option<Value>, Error>,
) -> Result<Changed<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut attempts = 1;
    loop {
        let before = api.get(name).await?;
        let Some(spec) = wanted(&before)? else { return Ok(Changed { before, after: None }) };
        let metadata = json!({"uid": before.uid(), "resourceVersion": before.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
        match api.patch(name, &patch_parameters(), &patch).await {
            // Its agent and the controller report all the time.
            Err(kube::Error::Api(status)) if status.is_conflict() && attempts < ATTEMPTS => attempts += 1,
            other => return Ok(Changed { before, after: Some(other?) }),
        }
    }
}
