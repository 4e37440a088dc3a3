//! Names by which gateways reach servers, from the documented mapping file.
//!
//! Source: "DCV server - DNS mapping reference" in the Amazon DCV Session Manager Administrator Guide. Where several
//! entries are about one server, the guide does not say which counts: the first.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::api::DcvServer;

/// How often the file is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_mins(1);

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file is not a list of mappings.
    #[error("{path} is not a list of server DNS mappings")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// What a mapping knows its server by.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
enum IdType {
    Ip,
    Id,
    #[serde(rename = "Host.Aws.Ec2InstanceId")]
    Ec2InstanceId,
}

/// One server and its name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mapping {
    server_id_type: IdType,
    server_id: String,
    dns_names: Names,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Names {
    // The guide's example and its list of fields differ by an s.
    #[serde(rename = "InternalDnsName", alias = "InternalDnsNames")]
    internal: String,
}

impl Mapping {
    fn is_of(&self, server: &DcvServer) -> bool {
        let status = server.status.as_ref();
        let id = match self.server_id_type {
            IdType::Id => server.metadata.uid.as_deref(),
            IdType::Ip => status.map(|status| status.ip.as_str()),
            IdType::Ec2InstanceId => {
                status.and_then(|status| status.host.as_ref()?.aws.as_ref()).map(|aws| aws.ec2_instance_id.as_str())
            }
        };
        id == Some(self.server_id.as_str())
    }
}

/// The mappings in force.
#[derive(Default)]
pub struct DnsNames {
    path: Option<PathBuf>,
    mappings: ArcSwap<Vec<Mapping>>,
}

impl DnsNames {
    /// The mappings of a file, none without one.
    pub async fn load(path: Option<PathBuf>) -> Result<Self, Error> {
        let names = Self { path, mappings: ArcSwap::default() };
        if let Some(mappings) = names.read().await? {
            names.mappings.store(mappings.into());
        }
        Ok(names)
    }

    async fn read(&self) -> Result<Option<Vec<Mapping>>, Error> {
        let Some(path) = &self.path else { return Ok(None) };
        let text = tokio::fs::read(path).await.map_err(|source| Error::Read { path: path.clone(), source })?;
        let parsed = serde_json::from_slice(&text).map_err(|source| Error::Parse { path: path.clone(), source })?;
        Ok(Some(parsed))
    }

    /// Reads the file again from time to time; one that cannot be used leaves the old mappings. Does not end.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.refresh().await;
        }
    }

    async fn refresh(&self) {
        match self.read().await {
            Ok(Some(mappings)) if mappings != **self.mappings.load() => {
                tracing::info!(mappings = mappings.len(), "server DNS mappings loaded anew");
                self.mappings.store(mappings.into());
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the new server DNS mappings are not used, the old ones stay"
            ),
        }
    }

    /// The name of `server`: the mapped one, else the default one it reports.
    pub fn of(&self, server: &DcvServer) -> Option<String> {
        let mappings = self.mappings.load();
        let mapped = mappings.iter().find(|mapping| mapping.is_of(server)).map(|mapping| &mapping.dns_names.internal);
        let reported = server.status.as_ref().map(|status| &status.default_dns_name);
        mapped.or(reported).filter(|name| !name.is_empty()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn server() -> DcvServer {
        serde_json::from_value(json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": "s", "uid": "u-1"},
            "spec": {}, "status": {"ip": "10.0.0.1", "defaultDnsName": "default.example",
                "host": {"aws": {"ec2InstanceId": "i-1"}}},
        }))
        .unwrap()
    }

    async fn loaded(mappings: Value) -> Result<DnsNames, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), mappings.to_string()).unwrap();
        DnsNames::load(Some(file.path().to_owned())).await
    }

    fn mapping(kind: &str, id: &str, name: &str) -> Value {
        json!({"ServerIdType": kind, "ServerId": id, "DnsNames": {"InternalDnsName": name}})
    }

    #[tokio::test]
    async fn a_server_is_known_by_address_id_or_instance_and_the_first_mapping_counts() {
        for (mappings, expected) in [
            (json!([]), "default.example"),
            (json!([mapping("Ip", "10.0.0.2", "a")]), "default.example"),
            (json!([mapping("Ip", "10.0.0.1", "a")]), "a"),
            (json!([mapping("Id", "u-1", "b")]), "b"),
            (json!([mapping("Host.Aws.Ec2InstanceId", "i-1", "c")]), "c"),
            (json!([mapping("Id", "u-2", "a"), mapping("Id", "u-1", "b"), mapping("Ip", "10.0.0.1", "c")]), "b"),
        ] {
            assert_eq!(loaded(mappings.clone()).await.unwrap().of(&server()).as_deref(), Some(expected), "{mappings}");
        }
        assert_eq!(DnsNames::load(None).await.unwrap().of(&server()).as_deref(), Some("default.example"));
    }

    #[tokio::test]
    async fn the_example_of_the_documentation_is_read() {
        let page = include_str!("../../../docs/operations.md");
        let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let mut server = server();
        server.status.as_mut().unwrap().ip = "192.168.0.1".to_owned();
        let names = loaded(serde_json::from_str(example).unwrap()).await.unwrap();
        assert_eq!(names.of(&server).as_deref(), Some("host-1.example"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_documented_list_is_refused() {
        for wrong in [json!({}), json!([mapping("Name", "s", "a")]), json!([{"ServerIdType": "Ip", "ServerId": "a"}])] {
            assert!(matches!(loaded(wrong.clone()).await, Err(Error::Parse { .. })), "{wrong}");
        }
        assert!(matches!(DnsNames::load(Some("/nonexistent".into())).await, Err(Error::Read { .. })));
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = json!([mapping("Id", "u-1", "b")]).to_string();
        std::fs::write(file.path(), "[]").unwrap();
        let names = DnsNames::load(Some(file.path().to_owned())).await.unwrap();
        for (text, expected) in [(good.as_str(), "b"), ("[", "b"), ("[]", "default.example")] {
            std::fs::write(file.path(), text).unwrap();
            names.refresh().await;
            assert_eq!(names.of(&server()).as_deref(), Some(expected), "{text}");
        }
    }
}
