//! Calls over HTTPS to exactly the agent that is meant.
//!
//! Agents have certificates of their own and no authority: what an agent has reported as its certificate, in a status that
//! nobody else can write, is the one that is accepted, whatever names and times are in it. Follows no redirect and no proxy
//! setting.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::CONTENT_TYPE;
use hyper_rustls::HttpsConnector;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioTimer;

use super::Address;
use super::Call;
use super::CallError;
use super::Transport;
use crate::cluster::pinned;
use crate::cluster::pinned::Peer;

/// Longest time to connect: agents are near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection, and what is known of an agent, waits for its next use.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Most characters of a refusal that are read.
const WORDS_MAX_BYTES: usize = 1024;

type Pinning = Client<HttpsConnector<HttpConnector>, Body>;

/// The agents called lately, by uid of their server, with their connections.
#[derive(Default)]
pub struct Https(Mutex<HashMap<String, Known>>);

/// An agent called lately.
struct Known {
    address: Address,
    client: Pinning,
    used: Instant,
}

impl Https {
    /// The client for an agent. One that has moved, or has another certificate than before, gets a new one.
    fn client(&self, address: &Address) -> Pinning {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&address.server_uid)
            && known.address == *address
        {
            known.used = now;
            return known.client.clone();
        }
        all.retain(|_, known| now.duration_since(known.used) < IDLE_TIMEOUT);
        let client = connecting_to(&address.fingerprint);
        let known = Known { address: address.clone(), client: client.clone(), used: now };
        all.insert(address.server_uid.clone(), known);
        client
    }

    async fn send(&self, address: &Address, call: Call) -> Result<Bytes, CallError> {
        let request = request(address, &call).map_err(|error| CallError::Unreachable(error.into()))?;
        let response = self.client(address).request(request).await;
        let response = response.map_err(|error| CallError::Unreachable(error.into()))?;
        let (status, body) = (response.status(), Body::new(response.into_body()));
        if status == StatusCode::OK {
            let answer = axum::body::to_bytes(body, call.answer_max_bytes).await;
            return answer.map_err(|error| CallError::Unreadable(error.into()));
        }
        let words = axum::body::to_bytes(body, WORDS_MAX_BYTES).await.unwrap_or_default();
        Err(CallError::Refused { status, text: String::from_utf8_lossy(&words).escape_debug().to_string() })
    }
}

impl Transport for Https {
    fn post<'a>(&'a self, address: &'a Address, call: Call) -> BoxFuture<'a, Result<Bytes, CallError>> {
        self.send(address, call).boxed()
    }
}

fn request(address: &Address, call: &Call) -> Result<Request<Body>, http::Error> {
    let mut token = HeaderValue::try_from(format!("Bearer {}", call.token))?;
    token.set_sensitive(true);
    Request::post(format!("{}{}", address.url.trim_end_matches('/'), call.path))
        .header(AUTHORIZATION, token)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(call.body.clone()))
}

/// A client that talks only to who has the certificate of this fingerprint.
fn connecting_to(fingerprint: &str) -> Pinning {
    let tls = pinned::tls_to(Peer::Fingerprint(fingerprint.to_owned()));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).build(connector)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::http::HeaderMap;
    use axum::response::Redirect;
    use axum::routing::post;
    use axum_server::tls_rustls::RustlsConfig;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use sha2::Digest;
    use sha2::Sha256;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server with a certificate of its own, as agents have.
    struct Agent {
        address: Address,
        /// Requests it has answered.
        answered: Arc<AtomicUsize>,
        task: JoinHandle<()>,
    }

    impl Drop for Agent {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn agent() -> Agent {
        let _ = aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["agent".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let fingerprint = hex::encode(Sha256::digest(&der));
        let tls = RustlsConfig::from_pem(certificate.into(), key.into()).await.unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        let routes = Router::new()
            .route("/port", post(async |ConnectInfo(from): ConnectInfo<SocketAddr>| from.port().to_string()))
            .route(
                "/echo",
                post(async |headers: HeaderMap, body: String| {
                    format!(
                        "{} {} {body}",
                        headers["authorization"].to_str().unwrap(),
                        headers["content-type"].to_str().unwrap()
                    )
                }),
            )
            .route("/busy", post(async || (StatusCode::SERVICE_UNAVAILABLE, "no\ndesktop")))
            .route("/elsewhere", post(async || Redirect::temporary("/port")))
            .layer(axum::middleware::map_response(move |response: axum::response::Response| {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::ready(response)
            }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        let task = tokio::spawn(async move { server.serve(service).await.unwrap() });
        Agent { address: Address { server_uid: "uid".into(), url, fingerprint }, answered, task }
    }

    fn call(path: &'static str) -> Call {
        Call { path, token: "a.b.c".into(), body: b"{}".to_vec(), answer_max_bytes: 100 }
    }

    #[tokio::test]
    async fn the_agent_is_asked_over_one_connection() {
        let (agent, https) = (agent().await, Https::default());
        let echo = https.post(&agent.address, call("/echo")).await.unwrap();
        assert_eq!(echo, "Bearer a.b.c application/json {}");
        let first = https.post(&agent.address, call("/port")).await.unwrap();
        let second = https.post(&agent.address, call("/port")).await.unwrap();
        assert_eq!(first, second, "another connection was made");
    }

    #[tokio::test]
    async fn who_has_another_certificate_than_the_agent_reported_is_told_nothing() {
        let (agent, impostor, https) = (agent().await, self::agent().await, Https::default());
        https.post(&agent.address, call("/echo")).await.unwrap();
        for address in [
            Address { url: impostor.address.url.clone(), ..agent.address.clone() },
            Address { fingerprint: impostor.address.fingerprint.clone(), ..agent.address.clone() },
            Address { fingerprint: String::new(), ..agent.address.clone() },
        ] {
            let refused = https.post(&address, call("/echo")).await;
            assert!(matches!(refused, Err(CallError::Unreachable(_))), "{refused:?}");
        }
        assert_eq!((impostor.answered.load(Ordering::SeqCst), agent.answered.load(Ordering::SeqCst)), (0, 1));
        https.post(&agent.address, call("/echo")).await.unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_comes_back_elsewhere_with_another_certificate_is_found_again() {
        let https = Https::default();
        let first = agent().await;
        https.post(&first.address, call("/echo")).await.unwrap();
        let gone = first.address.clone();
        drop(first);
        let second = agent().await;
        https.post(&second.address, call("/echo")).await.unwrap();
        assert_eq!(https.0.lock().unwrap().len(), 1, "what is known of it is replaced");
        assert!(matches!(https.post(&gone, call("/echo")).await, Err(CallError::Unreachable(_))));
    }

    #[tokio::test]
    async fn what_is_no_good_answer_is_an_error() {
        let (agent, https) = (agent().await, Https::default());
        let refusal = https.post(&agent.address, call("/busy")).await.unwrap_err();
        assert_eq!(refusal.to_string(), "the agent answered 503 Service Unavailable no\\ndesktop");
        let redirect = https.post(&agent.address, call("/elsewhere")).await.unwrap_err();
        assert!(matches!(redirect, CallError::Refused { status: StatusCode::TEMPORARY_REDIRECT, .. }), "{redirect}");
        let large = Call { answer_max_bytes: 3, ..call("/port") };
        assert!(matches!(https.post(&agent.address, large).await, Err(CallError::Unreadable(_))));
        for url in ["http://127.0.0.1:1", "nonsense", "", "https://127.0.0.1:1"] {
            let address = Address { url: url.into(), ..agent.address.clone() };
            assert!(matches!(https.post(&address, call("/port")).await, Err(CallError::Unreachable(_))), "{url}");
        }
    }
}
