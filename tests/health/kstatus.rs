//! What an object is to kstatus, and so to `helm --wait` of Helm 4, to kpt, and to Flux where no expression says otherwise.
//!
//! Source: "The `Status` property" and "Conditions" in the README of `kstatus` in sigs.k8s.io/cli-utils.

use serde_json::Value;

/// What it says of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    InProgress,
    Failed,
    Current,
    Terminating,
}

/// Decides by the object alone, as kstatus does.
pub fn status(object: &Value) -> Status {
    if object["metadata"].get("deletionTimestamp").is_some() {
        return Status::Terminating;
    }
    let observed = object["status"].get("observedGeneration");
    if observed.is_some_and(|observed| *observed != object["metadata"]["generation"]) {
        return Status::InProgress;
    }
    let is = |type_: &str| {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.find(|condition| condition["type"] == type_).map(|condition| condition["status"] == "True")
    };
    match (is("Reconciling"), is("Stalled"), is("Ready")) {
        (Some(true), ..) => Status::InProgress,
        (_, Some(true), _) => Status::Failed,
        (_, _, Some(false)) => Status::InProgress,
        (_, _, Some(true) | None) => Status::Current,
    }
}
