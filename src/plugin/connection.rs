//! From kubectl's flags to a client and a namespace.

use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::Client;
use kube::Config;
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;
use tower::timeout::TimeoutLayer;

use crate::api::names;

use super::args::ConnectionArgs;
use super::error::Error;

/// A cluster, as somebody reaches it.
pub(super) struct Cluster {
    pub client: Client,
    /// Namespace of requests.
    pub namespace: String,
    /// Where it is, and whom one is there.
    pub config: Config,
}

/// A client for the cluster that the flags name, and the namespace of requests.
pub(super) async fn client(args: &ConnectionArgs) -> Result<(Client, String), Error> {
    let Cluster { client, namespace, .. } = cluster(args).await?;
    Ok((client, namespace))
}

/// The cluster that the flags name.
pub(super) async fn cluster(args: &ConnectionArgs) -> Result<Cluster, Error> {
    let mut config = config(args).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let agent = format!("{}/{}", names::PLUGIN, env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::from_str(&agent).expect("name and version are plain text")));
    let timeout = if args.request_timeout.is_zero() { FOR_EVER } else { args.request_timeout };
    let builder = ClientBuilder::try_from(config.clone()).map_err(|source| Error::Client(Box::new(source)))?;
    let client = builder.with_layer(&TimeoutLayer::new(timeout)).build();
    Ok(Cluster { client, namespace, config })
}

/// Ten years: a timer that never ends.
const FOR_EVER: Duration = Duration::from_hours(10 * 365 * 24);

async fn config(args: &ConnectionArgs) -> Result<Config, Error> {
    let ConnectionArgs { kubeconfig, context, .. } = args;
    if kubeconfig.is_none() && context.is_none() {
        // As kubectl: in a pod without a kubeconfig, the pod's own account.
        return Config::infer().await.map_err(|source| Error::InferConfig(Box::new(source)));
    }
    let file = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let config = match file {
        Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
        Err(error) => Err(error),
    };
    config.map_err(|source| Error::Kubeconfig(Box::new(source)))
}
