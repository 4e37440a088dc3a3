//! From a viewer's socket to the WebSocket of a session: the bytes of RFB, in both directions.
//!
//! Knows nothing of RFB. The agent checks the token at the upgrade, and what each message may do after it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use futures::StreamExt;
use http::HeaderValue;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::cluster::pinned;
use crate::cluster::pinned::Peer;
use crate::wire::GetSessionConnectionDataResponse;

/// Time for the goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes read from the viewer at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Time to connect when no other is set.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Why a viewer does not reach the desktop.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// No way there.
    #[error("the session's server cannot be reached: {0}")]
    Unreachable(String),
    /// The token does not let in.
    #[error("the session's server does not let this user in ({0})")]
    Refused(StatusCode),
    /// The agent has ended the connection, and said why.
    #[error("the session's server has closed the connection: {0}")]
    Closed(String),
}

/// Where a session's desktop is, and what lets in.
#[derive(Debug)]
pub struct Desktop {
    host: String,
    port: u16,
    path: String,
    token: HeaderValue,
    peer: Peer,
    limit: Duration,
}

impl Desktop {
    /// The desktop at a session's address; none if that cannot be one.
    pub fn new(
        address: &Url,
        data: &GetSessionConnectionDataResponse<'_>,
        peer: Peer,
        limit: Option<Duration>,
    ) -> Option<Self> {
        let mut token = HeaderValue::try_from(format!("Bearer {}", data.connection_token)).ok()?;
        token.set_sensitive(true);
        Some(Self {
            host: address.host_str()?.trim_matches(['[', ']']).to_owned(),
            port: address.port_or_known_default()?,
            path: format!("{}/s/{}/ws", address.path().trim_end_matches('/'), data.session.id),
            token,
            peer,
            limit: limit.unwrap_or(CONNECT_LIMIT),
        })
    }

    /// Connects to it, and hears its first word: who is not let in is told so instead.
    ///
    /// # Errors
    /// Why it does not let in, or cannot be reached.
    pub async fn connect(&self) -> Result<Connection, BridgeError> {
        let unreachable = |error: String| BridgeError::Unreachable(error);
        let connected = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
            let tcp = tcp.map_err(|error| unreachable(error.to_string()))?;
            // Each key press is a message of its own.
            let _ = tcp.set_nodelay(true);
            let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(error.to_string()))?;
            let tls = TlsConnector::from(Arc::new(pinned::tls_to(self.peer.clone())));
            let stream = tls.connect(name, tcp).await.map_err(|error| unreachable(error.to_string()))?;
            let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
            let request = format!("wss://{host}:{}{}", self.port, self.path).into_client_request();
            let mut request = request.map_err(|error| unreachable(error.to_string()))?;
            request.headers_mut().insert(AUTHORIZATION, self.token.clone());
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
            let mut socket = match tokio_tungstenite::client_async(request, stream).await {
                Ok((socket, _)) => socket,
                Err(tungstenite::Error::Http(response)) => return Err(BridgeError::Refused(response.status())),
                Err(error) => return Err(unreachable(error.to_string())),
            };
            loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(greeting))) => return Ok(Connection { greeting, socket }),
                    Some(Ok(Message::Close(frame))) => said(frame)?,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(unreachable(error.to_string())),
                    None => return Err(unreachable("it said nothing".to_owned())),
                }
            }
        };
        match tokio::time::timeout(self.limit, connected).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable("no answer in time".to_owned())),
        }
    }
}

/// A way to a desktop that has begun to speak.
pub struct Connection {
    greeting: Bytes,
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

/// Carries bytes until one side ends.
///
/// # Errors
/// When the agent ends it and says why.
pub async fn carry(viewer: UnixStream, desktop: Connection) -> Result<(), BridgeError> {
    let Connection { greeting, socket } = desktop;
    let (mut from_viewer, mut to_viewer) = viewer.into_split();
    let (mut to_desktop, mut from_desktop) = socket.split();
    let there = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = from_viewer.read(&mut chunk).await?;
            if count == 0 {
                return Ok::<_, io::Error>(());
            }
            let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
            to_desktop.send(message).await.map_err(io::Error::other)?;
        }
    };
    let back = async {
        if to_viewer.write_all(&greeting).await.is_err() {
            return Ok(());
        }
        while let Some(message) = from_desktop.next().await {
            match message {
                Ok(Message::Binary(bytes)) => {
                    if to_viewer.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Message::Close(frame)) => return said(frame),
                Ok(_) => {}
                Err(error) => return Err(BridgeError::Unreachable(error.to_string())),
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        ended = there => ended.map_err(|error| BridgeError::Unreachable(error.to_string())),
        ended = back => ended,
    };
    // The agent counts clients: it is told at once that this one has gone.
    let _ = tokio::time::timeout(CLOSE_LIMIT, to_desktop.close()).await;
    outcome
}

/// What the agent says with its goodbye. Codes from 4000 on are its own, and final.
fn said(frame: Option<CloseFrame>) -> Result<(), BridgeError> {
    let Some(frame) = frame else { return Ok(()) };
    let words = match u16::from(frame.code) {
        4400 => "the viewer broke the protocol",
        4403 => "this user may not, or no longer, see the session",
        4410 => "the session has ended",
        4429 => "as many clients as may be are connected",
        1012 => "the agent is restarting; connect again",
        1000 | 1001 => return Ok(()),
        _ => return Err(BridgeError::Closed(frame.reason.chars().filter(|c| !c.is_control()).collect())),
    };
    Err(BridgeError::Closed(words.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::ws;
    use axum::extract::ws::WebSocketUpgrade;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum_server::tls_rustls::RustlsConfig;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::json;
    use sha2::Digest;
    use sha2::Sha256;

    use super::*;

    /// An agent whose desktop says `RFB`, then what it hears, until it hears `bye`; and the fingerprint of its certificate.
    /// The token `late` comes when as many as may be are connected.
    async fn agent() -> (u16, String) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["agent".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let fingerprint = hex::encode(Sha256::digest(&der));
        let tls = RustlsConfig::from_pem(certificate.into(), key.into()).await.unwrap();
        let desktop = async |headers: HeaderMap, upgrade: WebSocketUpgrade| {
            let token = headers.get(AUTHORIZATION).and_then(|token| token.to_str().ok()).unwrap_or_default().to_owned();
            if !["Bearer good", "Bearer late"].contains(&token.as_str()) {
                return StatusCode::FORBIDDEN.into_response();
            }
            upgrade.protocols(["binary"]).on_upgrade(move |mut socket| async move {
                if token == "Bearer late" {
                    let frame = ws::CloseFrame { code: 4429, reason: "".into() };
                    let _ = socket.send(ws::Message::Close(Some(frame))).await;
                    return;
                }
                let _ = socket.send(ws::Message::Binary("RFB".into())).await;
                while let Some(Ok(ws::Message::Binary(bytes))) = socket.recv().await {
                    if bytes == "bye"[..] {
                        let frame = ws::CloseFrame { code: 4410, reason: "".into() };
                        let _ = socket.send(ws::Message::Close(Some(frame))).await;
                        return;
                    }
                    let _ = socket.send(ws::Message::Binary(bytes)).await;
                }
            })
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().route("/s/one/ws", get(desktop)).into_make_service();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(async move { server.serve(routes).await.unwrap() });
        (port, fingerprint)
    }

    fn desktop(port: u16, token: &str, peer: Peer) -> Desktop {
        let data = json!({"Session": {"Id": "one"}, "ConnectionToken": token});
        let data = serde_json::from_value(data).unwrap();
        let address = Url::parse(&format!("https://127.0.0.1:{port}/?authToken={token}#one")).unwrap();
        Desktop::new(&address, &data, peer, None).unwrap()
    }

    #[tokio::test]
    async fn bytes_are_carried_both_ways_and_the_agents_goodbye_is_told() {
        let (port, fingerprint) = agent().await;
        let desktop = desktop(port, "good", Peer::Fingerprint(fingerprint));
        let (mut viewer, ours) = UnixStream::pair().unwrap();
        let socket = desktop.connect().await.unwrap();
        let bridge = tokio::spawn(carry(ours, socket));
        viewer.write_all(b"hello").await.unwrap();
        let mut heard = [0; 8];
        viewer.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"RFBhello");
        viewer.write_all(b"bye").await.unwrap();
        let ended = bridge.await.unwrap().unwrap_err();
        assert_eq!(ended.to_string(), "the session's server has closed the connection: the session has ended");
        assert_eq!(viewer.read(&mut heard).await.unwrap(), 0, "the viewer hears of it");
    }

    #[tokio::test]
    async fn a_viewer_that_goes_is_no_fault() {
        let (port, fingerprint) = agent().await;
        let desktop = desktop(port, "good", Peer::Fingerprint(fingerprint));
        let (viewer, ours) = UnixStream::pair().unwrap();
        drop(viewer);
        assert!(carry(ours, desktop.connect().await.unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_wrong_token_and_another_certificate_do_not_get_in() {
        let (port, fingerprint) = agent().await;
        let refused = desktop(port, "bad", Peer::Fingerprint(fingerprint.clone())).connect().await.err();
        assert!(matches!(refused, Some(BridgeError::Refused(StatusCode::FORBIDDEN))), "{refused:?}");
        let late = desktop(port, "late", Peer::Fingerprint(fingerprint)).connect().await.err();
        assert!(matches!(&late, Some(BridgeError::Closed(words)) if words.contains("as many clients")), "{late:?}");
        let impostor = desktop(port, "good", Peer::Fingerprint("00".repeat(32))).connect().await.err();
        assert!(matches!(impostor, Some(BridgeError::Unreachable(_))), "{impostor:?}");
        assert!(desktop(port, "good", Peer::Anyone).connect().await.is_ok());
        let shown = format!("{:?}", desktop(port, "secret-token", Peer::Anyone));
        assert!(!shown.contains("secret-token"), "{shown}");
    }
}
