//! Writes of what changes on something that runs.

use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::json;

use super::super::store::StoreError;
use super::KubeStore;
use super::words;
use crate::api::DcvSession;
use crate::api::names;

fn by_broker() -> PatchParams {
    PatchParams { field_manager: Some(names::BROKER.to_owned()), ..PatchParams::default() }
}

impl KubeStore {
    /// Replaces the permissions of a session.
    pub(super) async fn permit(&self, session: &DcvSession, text: &str) -> Result<(), StoreError> {
        let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
        // The uid keeps them from a later session of the same name.
        let patch = json!({"metadata": {"uid": session.metadata.uid}, "spec": {"permissions": text}});
        let patched = match self.sessions_of(&namespace).patch(&name, &by_broker(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                let is_over = self.fetch(&namespace, &name).await?.is_some_and(|now| now.is_finished());
                let text = if is_over { "The session has ended meanwhile".to_owned() } else { words(&status) };
                return Err(StoreError::Refused(text));
            }
            patched => patched.map_err(|error| self.failed_write("change the permissions of", session, error))?,
        };
        self.cache.assume_session(patched);
        Ok(())
    }
}
