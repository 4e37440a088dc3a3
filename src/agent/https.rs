//! The agent's HTTPS server.
//!
//! Serves what it is given (desktops, where the agent itself serves them, and brokers' calls), `/health`, and the documented
//! path by which a local desktop server asks whether a connection token is good. Its certificate is its own and is kept in the
//! state folder: its fingerprint is in the server's status, which nobody else can write, and is pinned by who calls us.

use std::fs;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::Digest;
use sha2::Sha256;

use super::gate;
use super::gate::View;
use crate::telemetry::metrics;
use crate::token::verifier;
use crate::token::verifier::Denial;
use crate::token::verifier::Question;

/// Longest time to wait for a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no HTTPS server.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The certificate cannot be read, made or kept.
    #[error("failed to {action} the certificate in {folder}")]
    Certificate {
        /// What was tried.
        action: &'static str,
        /// Where.
        folder: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A certificate and its key.
pub struct Identity {
    certificate: String,
    key: String,
    /// SHA-256 of the certificate in lower-case hexadecimal.
    pub fingerprint: String,
}

/// A server that listens.
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Identity {
    /// The certificate of `folder`; made there, for these names and addresses, if there is none.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn load_or_make(folder: &Path, names: Vec<String>) -> Result<Self, HttpsError> {
        let fault = |action| {
            let folder = folder.display().to_string();
            move |source| HttpsError::Certificate { action, folder, source }
        };
        let path = folder.join("agent.pem");
        // Both in one file, so that no kill can leave a certificate with another's key.
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = make(names).map_err(io::Error::other).map_err(fault("make"))?;
                keep(&path, &text, 0o600).map_err(fault("keep"))?;
                text
            }
            other => other.map_err(fault("read"))?,
        };
        Self::parse(text).map_err(fault("read"))
    }

    /// The certificate and its key in one text; certificates that signed it may follow.
    pub(super) fn parse(text: String) -> io::Result<Self> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes());
        let certificate = certificate.map_err(|error| io::Error::other(error.to_string()))?;
        let fingerprint = hex::encode(Sha256::digest(&certificate));
        metrics::note_certificate("agent", text.as_bytes());
        Ok(Self { certificate: text.clone(), key: text, fingerprint })
    }
}

fn make(names: Vec<String>) -> Result<String, rcgen::Error> {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    Ok(format!("{}{}", cert.pem(), signing_key.serialize_pem()))
}

/// Writes a file of this mode, whole or not at all.
pub(super) fn keep(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

/// Starts to serve `routes` and our own paths. Ends when the answer is dropped.
///
/// # Errors
/// When the address is taken or the certificate unusable.
pub async fn serve(
    address: SocketAddr,
    identity: &Identity,
    routes: Router,
    view: Arc<dyn View>,
) -> Result<Serving, HttpsError> {
    listen(address, identity, router(routes, view)).await
}

/// Starts to serve `app` and nothing else. Ends when the answer is dropped.
pub(super) async fn listen(address: SocketAddr, identity: &Identity, app: Router) -> Result<Serving, HttpsError> {
    // The first caller in the process decides; later calls change nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let fault = |source| HttpsError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    let tls = RustlsConfig::from_pem(identity.certificate.clone().into(), identity.key.clone().into());
    let mut server = axum_server::from_tcp_rustls(listener, tls.await.map_err(fault)?).map_err(fault)?;
    server.http_builder().http1().timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move { server.serve(app).await });
    Ok(Serving { address: bound, task })
}

/// Everything the server answers.
pub fn router(routes: Router, view: Arc<dyn View>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route(verifier::PATH, post(validate))
        .layer(DefaultBodyLimit::max(verifier::BODY_MAX_BYTES))
        .with_state(view)
        .merge(routes)
}

/// Answers 200 in any case, as the documentation has it: the verdict is in the body.
async fn validate(
    State(view): State<Arc<dyn View>>,
    question: Result<Form<Question>, FormRejection>,
) -> impl IntoResponse {
    let verdict = question.map_err(|_| Denial::Malformed).and_then(|Form(question)| {
        gate::admit(view.as_ref(), &question.token, Some(&question.session_id))
            .map(|claims| claims.session_user)
            .inspect_err(|denial| tracing::info!(session = question.session_id, %denial, "nobody let in"))
    });
    let text = verifier::answer(verdict.as_deref().map_err(|denial| *denial));
    ([(CONTENT_TYPE, verifier::ANSWER_TYPE)], text)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use jiff::Timestamp;
    use jsonwebtoken::jwk::JwkSet;
    use tower::ServiceExt;

    use super::*;
    use crate::agent::mock;
    use crate::api::DcvSession;
    use crate::token;
    use crate::token::ConnectionClaims;
    use crate::token::KeySet;
    use crate::token::Kind;

    struct Sessions {
        keys: Arc<JwkSet>,
        session: Arc<DcvSession>,
    }

    impl View for Sessions {
        fn keys(&self) -> Arc<JwkSet> {
            self.keys.clone()
        }
        fn agent_keys(&self) -> Arc<JwkSet> {
            Arc::new(JwkSet { keys: Vec::new() })
        }
        fn session(&self, id: &str) -> Option<Arc<DcvSession>> {
            Some(self.session.clone()).filter(|session| session.id() == id)
        }
        fn server_uid(&self) -> String {
            "server".into()
        }
        fn now(&self) -> Timestamp {
            mock::clock()
        }
    }

    fn claims(user: &str) -> ConnectionClaims {
        let now = mock::clock().as_second();
        ConnectionClaims {
            session_id: "s1".into(),
            session_owner: "ann".into(),
            session_user: user.into(),
            server_uid: "server".into(),
            attempt: 1,
            client_uid: None,
            iat: now,
            exp: now + 60,
            jti: "1".into(),
            aud: Kind::Connection.audience().into(),
        }
    }

    async fn ask(body: String) -> (u16, String, String) {
        let set = KeySet::generate(mock::clock());
        let key = set.signer(mock::clock()).unwrap();
        let body = body
            .replace("GOOD", &token::sign(&claims("ann"), key).unwrap())
            .replace("ODD", &token::sign(&claims("a<b>&c"), key).unwrap());
        let session = serde_json::from_value(serde_json::json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": "a", "namespace": "n", "uid": "s1"},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
            "status": {"attempt": 1, "sessionId": "s1", "conditions": [
                {"type": "Created", "status": "True", "reason": "Created", "message": "",
                 "lastTransitionTime": "2027-01-01T00:00:00Z"}]},
        }));
        let view = Sessions { keys: Arc::new(set.public()), session: Arc::new(session.unwrap()) };
        let request = Request::post(verifier::PATH)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let response = router(Router::new(), Arc::new(view)).oneshot(request).await.unwrap();
        let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(text.to_vec()).unwrap())
    }

    fn yes(user: &str) -> (u16, String, String) {
        (200, "text/xml".into(), format!("<auth result=\"yes\"><username>{user}</username></auth>"))
    }

    fn no(message: &str) -> (u16, String, String) {
        (200, "text/xml".into(), format!("<auth result=\"no\"><message>{message}</message></auth>"))
    }

    #[tokio::test]
    async fn a_good_token_names_its_user_with_and_without_a_client_address() {
        assert_eq!(ask("sessionId=s1&authenticationToken=GOOD&clientAddress=10.0.0.1".into()).await, yes("ann"));
        assert_eq!(ask("sessionId=s1&authenticationToken=GOOD".into()).await, yes("ann"));
    }

    #[tokio::test]
    async fn names_are_escaped() {
        assert_eq!(ask("sessionId=s1&authenticationToken=ODD".into()).await, yes("a&lt;b&gt;&amp;c"));
    }

    #[tokio::test]
    async fn a_refusal_is_a_200_that_says_why() {
        assert_eq!(ask("sessionId=s2&authenticationToken=GOOD".into()).await, no("token is for another session"));
        assert_eq!(ask("sessionId=s1&authenticationToken=nonsense".into()).await, no("malformed token"));
        assert_eq!(ask("sessionId=s1".into()).await, no("malformed request"));
    }

    #[test]
    fn the_fingerprint_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load_or_make(folder.path(), vec!["localhost".into()]).unwrap();
        let second = Identity::load_or_make(folder.path(), vec!["other".into()]).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_eq!(first.fingerprint.len(), 64);
    }

    #[tokio::test]
    async fn it_listens_on_a_free_port() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(folder.path(), vec!["localhost".into()]).unwrap();
        let view = crate::agent::view::Watched::new(mock::clock);
        let serving = serve("127.0.0.1:0".parse().unwrap(), &identity, Router::new(), Arc::new(view)).await.unwrap();
        tokio::net::TcpStream::connect(serving.address).await.unwrap();
    }
}
