//! The one way to make an API client, and which cluster it talks to.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::Config;
use kube::ResourceExt;
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;
use tower::timeout::TimeoutLayer;

use super::Error;
use super::heard::HeardLayer;

/// How long a call may take until its answer begins, retries of the client included. Watches stay open longer: their
/// answer has begun.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon the cluster's uid is asked for again.
const UID_RETRY: Duration = Duration::from_secs(1);

/// A client from `kubeconfig`, else from the usual places: `KUBECONFIG`, the home folder, the pod's account.
///
/// `component` is one of the names in `api::names`; with the version it becomes the `User-Agent`.
///
/// # Errors
/// When no usable configuration is found.
pub async fn client(component: &'static str, kubeconfig: Option<&Path>) -> Result<Client, Error> {
    // Both rustls providers may be compiled in; the first caller decides, later calls change nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| Error::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(|source| Error::NoCluster(Box::new(source)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.headers.push((HeaderName::from_static("user-agent"), user_agent(component)));
    let heard = HeardLayer::new(&config.cluster_url);
    let builder = ClientBuilder::try_from(config).map_err(|source| Error::Client(Box::new(source)))?;
    Ok(builder.with_layer(&TimeoutLayer::new(ANSWER_TIMEOUT)).with_layer(&heard).build())
}

fn user_agent(component: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{component}/{}", env!("CARGO_PKG_VERSION"))).expect("names are plain ASCII")
}

/// The uid of the cluster: that of a namespace that every cluster has and nobody can make anew. Waits until the API
/// server tells it.
pub async fn fetch_uid(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match namespaces.get("kube-system").await {
            Ok(namespace) => return namespace.uid().unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the cluster's uid is not known yet");
                tokio::time::sleep(UID_RETRY).await;
            }
        }
    }
}
