//! Running a broker: watches, the ports, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum_server::Handle;
use axum_server::Server;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use futures::future::join_all;
use hyper_util::rt::TokioTimer;
use jiff::Timestamp;
use kube::Client;
use nix::sys::resource::Resource;
use nix::sys::resource::getrlimit;
use nix::sys::resource::setrlimit;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::watch;

use super::App;
use super::GatewaySettings;
use super::Settings;
use super::auth::issuers;
use super::auth::issuers::Issuers;
use super::connections::Connections;
use super::connections::Entrance;
use super::gateway;
use super::gateway::DnsNames;
use super::kube_store::KubeStore;
use super::metrics;
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

/// Largest head of a request: a token or two, and what balancers add.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// The same over HTTP/2, where it is counted without compression.
const HEAD_MAX_HTTP2_BYTES: u32 = 64 * 1024;

/// Most requests at once of one connection over HTTP/2: each may have the largest body.
const STREAMS_MAX: u32 = 100;

/// Which part of the files that the process may have open is for the connections of one port: there are three, and the
/// rest.
const PORT_SHARE: u64 = 4;

/// What ends a broker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate.
    #[error("no certificate to serve with")]
    Tls(#[from] tls::Error),
    /// No names of servers.
    #[error("no server DNS mappings")]
    DnsNames(#[from] gateway::Error),
    /// The other authorization servers cannot be used.
    #[error("the other authorization servers cannot be used")]
    Issuers(#[from] issuers::ConfigError),
    /// Every call would be refused.
    #[error(
        "nobody could call: enable-authorization-server is false, no authorization-servers-file names another, \
         and enable-authorization is true"
    )]
    NoCallers,
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
    let Settings {
        api_address,
        verifier_address,
        gateway,
        tls,
        health_address,
        namespace,
        scope,
        authorization_servers,
        max_connections,
        rules,
    } = settings;
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let issuers = Arc::new(Issuers::load(authorization_servers.as_deref())?);
    if issuers.is_empty() && !rules.enable_authorization_server && rules.no_authorization_namespace.is_none() {
        return Err(Error::NoCallers);
    }
    let mut identity = tls::Identity::load(tls).await?;
    let handle = Handle::new();
    let connections = [(); 3].map(|()| Arc::new(Connections::new(affordable(max_connections))));
    let [api_connections, verifier_connections, resolver_connections] = &connections;
    let api = listen("the REST API", api_address, identity.port(None).await?, &handle, api_connections)?;
    let verifier =
        listen("the token verifier", verifier_address, identity.port(None).await?, &handle, verifier_connections)?;
    let mut names = DnsNames::default();
    let mut resolver = None;
    if let Some(GatewaySettings { address, client_authorities, dns_names }) = gateway {
        names = DnsNames::load(dns_names).await?;
        let config = identity.port(client_authorities.as_deref()).await?;
        resolver = Some(listen("the session resolver", address, config, &handle, resolver_connections)?);
    }
    let names = Arc::new(names);

    let store = Arc::new(KubeStore::new(client, &namespace, scope));
    let app = Arc::new(App::new(Arc::clone(&store) as _, rules, Arc::clone(&issuers), clock));
    let end = end_signal()?;
    let (tell_ready, ready) = watch::channel(false);
    let health = health::serve(health_address, ready, Arc::new(metrics::registry()));
    // A task of its own: reading a busy cluster must not hold up new connections.
    let watches = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.follow().await }
    });
    let resolving = async {
        match resolver {
            Some(server) => {
                let routes = gateway::router(Arc::clone(&app), Arc::clone(&names));
                server.serve(with_peer(routes)).await
            }
            None => Ok(()),
        }
    };
    let serving = async {
        tokio::try_join!(
            api.serve(with_peer(router(Arc::clone(&app)))),
            verifier.serve(with_peer(verifier::router(Arc::clone(&app)))),
            resolving,
        )
    };
    // Does not end: serving goes on while requests under way finish.
    let ending = AtomicBool::new(false);
    let drain = async {
        end.await;
        // First of all, so that nobody is sent here any more. Ports stay open while requests under way finish.
        ending.store(true, Ordering::Relaxed);
        tell_ready.send_replace(false);
        handle.graceful_shutdown(Some(DRAIN_TIMEOUT));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = serving => result.map(drop).map_err(Error::Serve),
        result = health => result.map_err(|source| Error::Health { address: health_address, source }),
        () = identity.follow() => Ok(()),
        () = names.follow() => Ok(()),
        () = issuers.follow() => Ok(()),
        _ = join_all(connections.iter().map(|connections| connections.follow())) => Ok(()),
        () = watch_readiness(&store, &tell_ready, &ending) => Ok(()),
        result = watches => result.map_err(Error::Watches),
        () = drain => Ok(()),
    }
}

/// The routes, with the address of a connection's other end in each request.
fn with_peer(routes: Router) -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
    routes.into_make_service_with_connect_info()
}

/// As many connections of each port as the process may have open; it asks for as many as it may have.
fn affordable(wanted: usize) -> usize {
    let Ok((mut soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        soft = hard;
    }
    let affordable = usize::try_from(soft / PORT_SHARE).unwrap_or(wanted).min(wanted);
    if affordable < wanted {
        tracing::warn!(wanted, affordable, "fewer connections, as the process may not open more files");
    }
    affordable
}

/// A port that is open. It serves nothing before it is told what.
fn listen(
    what: &str,
    address: SocketAddr,
    config: RustlsConfig,
    handle: &Handle<SocketAddr>,
    connections: &Arc<Connections>,
) -> Result<Server<SocketAddr, Entrance<RustlsAcceptor>>, Error> {
    let bind = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let server = axum_server::from_tcp_rustls(listener, config).map_err(Error::Serve)?.handle(handle.clone());
    let server = bounded(server, connections);
    tracing::info!(address = %bound, "serving {what} over HTTPS");
    Ok(server)
}

/// A server that no client can hold up: with bounds on connections, on heads of requests, and on the time for them.
fn bounded<A>(server: Server<SocketAddr, A>, connections: &Arc<Connections>) -> Server<SocketAddr, Entrance<A>> {
    let mut server = server.map(|acceptor| Entrance::new(acceptor, Arc::clone(connections)));
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEAD_MAX_BYTES);
    builder.http2().max_header_list_size(HEAD_MAX_HTTP2_BYTES).max_concurrent_streams(STREAMS_MAX);
    server
}

/// Says when the caches are filled, which they stay, unless the broker is ending by then. Does not end.
async fn watch_readiness(store: &KubeStore, tell: &watch::Sender<bool>, ending: &AtomicBool) {
    while !store.is_ready() {
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
    if !ending.load(Ordering::Relaxed) {
        tell.send_replace(true);
    }
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

#[cfg(test)]
mod tests;
