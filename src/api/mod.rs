//! The objects everything meets in: group `dcv-operator.io`, version `v1alpha1`.
//!
//! Shapes, names and small accessors. Nothing here talks to a cluster or decides anything.

// Both misfire on the derives: every printer column repeats an attribute, and the schema derive makes a public item.
#![allow(clippy::duplicated_attributes, unreachable_pub)]
// Comments of fields are what `kubectl explain` prints: plain text, where backticks around each word would be noise.
#![allow(clippy::doc_markdown)]

pub mod client;
pub mod conditions;
pub mod names;
pub mod reference;
pub mod schema;
pub mod server;
pub mod session;

use std::io;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use client::ApiClient;
pub use client::ApiClientSpec;
pub use client::ApiClientStatus;
pub use server::DcvServer;
pub use server::DcvServerSpec;
pub use server::DcvServerStatus;
pub use session::DcvSession;
pub use session::DcvSessionSpec;
pub use session::DcvSessionStatus;

/// The definitions of all our kinds, in the order in which `crds/` lists them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [ApiClient::crd(), DcvServer::crd(), DcvSession::crd()].into_iter().map(tidied).collect()
}

fn tidied(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).expect("a definition is plain data");
    schema::tidy(&mut value);
    serde_json::from_value(value).expect("tidying keeps the shape")
}

/// The definitions as file name and text, as they are in `crds/`.
///
/// # Errors
/// When a definition cannot be written as YAML.
pub fn crd_files() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    crds().iter().map(|crd| Ok((format!("{}.yaml", crd.spec.names.plural), serde_saphyr::to_string(crd)?))).collect()
}

/// Prints all definitions as one stream of YAML documents.
///
/// # Errors
/// When writing fails.
pub fn print_crds(mut out: impl io::Write) -> io::Result<()> {
    for (_, text) in crd_files().map_err(io::Error::other)? {
        write!(out, "---\n{text}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_bounded_described_and_typed() {
        for crd in crds() {
            let value = serde_json::to_value(&crd).unwrap();
            let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            assert_eq!(schema::faults(schema), Vec::<String>::new(), "in {}", crd.spec.names.kind);
        }
    }
}
