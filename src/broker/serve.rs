//! Running a broker: watches, the ports, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::Server;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

use super::App;
use super::GatewaySettings;
use super::Settings;
use super::agents::Agents;
use super::gateway;
use super::gateway::DnsNames;
use super::kube_store::KubeStore;
use super::router;
use super::store::Store;
use super::tls;
use super::verifier;
use crate::telemetry::health;

/// How long requests under way may take to finish at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a starting broker looks whether its caches are filled.
const READINESS_INTERVAL: Duration = Duration::from_millis(50);

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What ends a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate.
    #[error("no certificate to serve with")]
    Tls(#[from] tls::Error),
    /// No names of servers.
    #[error("no server DNS mappings")]
    DnsNames(#[from] gateway::Error),
    /// The address is taken, or not ours.
    #[error("failed to listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Serving failed.
    #[error("failed to serve")]
    Serve(#[source] io::Error),
    /// Health cannot be served.
    #[error("failed to serve health on {address}")]
    Health {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The watches ended.
    #[error("the watches ended unexpectedly")]
    Watches(#[source] tokio::task::JoinError),
    /// Signals cannot be caught.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
}

#[expect(clippy::disallowed_methods, reason = "the broker's one clock; everything below gets it handed in")]
fn clock() -> Timestamp {
    Timestamp::now()
}

/// Serves until a signal asks for the end.
///
/// # Errors
/// When there is no certificate or no address to listen on. An unreachable API server is none: the broker waits.
pub async fn run(settings: Settings, client: Client) -> Result<(), Error> {
    let Settings { api_address, verifier_address, gateway, tls, health_address, namespace, rules } = settings;
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut identity = tls::Identity::load(tls).await?;
    let handle = Handle::new();
    let api = listen("the REST API", api_address, identity.port(None).await?, &handle)?;
    let verifier = listen("the token verifier", verifier_address, identity.port(None).await?, &handle)?;
    let mut names = DnsNames::default();
    let mut resolver = None;
    if let Some(GatewaySettings { address, client_authorities, dns_names }) = gateway {
        names = DnsNames::load(dns_names).await?;
        let config = identity.port(client_authorities.as_deref()).await?;
        resolver = Some(listen("the session resolver", address, config, &handle)?);
    }
    let names = Arc::new(names);

    let store = Arc::new(KubeStore::new(client, &namespace));
    let app = Arc::new(App { store: Arc::clone(&store) as _, agents: Agents::default(), rules, now: clock });
    let end = end_signal()?;
    let (tell_ready, ready) = watch::channel(false);
    let health = health::serve(health_address, ready, Arc::new(Registry::default()));
    // A task of its own: reading a busy cluster must not hold up new connections.
    let watches = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.follow().await }
    });
    let resolving = async {
        match resolver {
            Some(server) => {
                let routes = gateway::router(Arc::clone(&app), Arc::clone(&names));
                server.serve(routes.into_make_service()).await
            }
            None => Ok(()),
        }
    };
    let serving = async {
        tokio::try_join!(
            api.serve(router(Arc::clone(&app)).into_make_service()),
            verifier.serve(verifier::router(Arc::clone(&app)).into_make_service()),
            resolving,
        )
    };
    // Does not end: serving goes on while requests under way finish.
    let drain = async {
        end.await;
        tell_ready.send_replace(false);
        handle.graceful_shutdown(Some(DRAIN_TIMEOUT));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = serving => result.map(drop).map_err(Error::Serve),
        result = health => result.map_err(|source| Error::Health { address: health_address, source }),
        () = identity.follow() => Ok(()),
        () = names.follow() => Ok(()),
        () = watch_readiness(&store, &tell_ready) => Ok(()),
        result = watches => result.map_err(Error::Watches),
        () = drain => Ok(()),
    }
}

/// A port that is open. It serves nothing before it is told what.
fn listen(
    what: &str,
    address: SocketAddr,
    config: RustlsConfig,
    handle: &Handle<SocketAddr>,
) -> Result<Server<SocketAddr, RustlsAcceptor>, Error> {
    let bind = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let mut server = axum_server::from_tcp_rustls(listener, config).map_err(Error::Serve)?.handle(handle.clone());
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    tracing::info!(address = %bound, "serving {what} over HTTPS");
    Ok(server)
}

/// Says when the caches are filled, which they stay. Does not end.
async fn watch_readiness(store: &KubeStore, tell: &watch::Sender<bool>) {
    while !store.is_ready() {
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
    tell.send_replace(true);
    tracing::info!("the caches are filled");
    std::future::pending::<()>().await;
}

fn end_signal() -> Result<impl Future<Output = ()>, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: requests under way may finish");
    })
}
