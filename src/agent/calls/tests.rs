//! The agent's side of brokers' calls, without sockets: who is answered, what, and how many at once.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use serde_json::Value;
use serde_json::json;
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::agent::backend::CreateError;
use crate::agent::backend::Description;
use crate::agent::backend::HostSession;
use crate::agent::backend::Order;
use crate::agent::mock;
use crate::api::DcvSession;
use crate::token;
use crate::token::KeySet;
use crate::token::Kind;

/// What the host does when asked for a picture.
#[derive(Clone, Copy, PartialEq)]
enum Host {
    Draws,
    Fails,
    Hangs,
}

/// A host that only takes pictures.
struct Screens {
    host: Host,
    /// How many it is asked for now, and at most were.
    now: AtomicUsize,
    most: AtomicUsize,
    asked: Mutex<Vec<(String, ScreenshotRequest)>>,
}

impl Backend for Screens {
    const NAME: &'static str = "screens";

    async fn describe(&self) -> Result<Description, BackendError> {
        unreachable!("calls do not ask")
    }
    async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        unreachable!("calls do not ask")
    }
    async fn create(&self, _: &Order) -> Result<(), CreateError> {
        unreachable!("calls do not ask")
    }
    async fn announce(&self, _: &str) -> Result<(), BackendError> {
        unreachable!("calls do not ask")
    }
    async fn close(&self, _: &str) -> Result<(), BackendError> {
        unreachable!("calls do not ask")
    }
    async fn set_permissions(&self, _: &str, _: Option<&str>) -> Result<(), BackendError> {
        unreachable!("calls do not ask")
    }
    async fn screenshot(&self, id: &str, request: ScreenshotRequest) -> Result<Vec<u8>, BackendError> {
        self.asked.lock().unwrap().push((id.to_owned(), request));
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        if self.host == Host::Hangs {
            std::future::pending::<()>().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        match self.host {
            Host::Draws => Ok(b"picture".to_vec()),
            _ => Err(BackendError { action: "take a screenshot", message: "the desktop did not greet".to_owned() }),
        }
    }
    fn changes(&self) -> watch::Receiver<u64> {
        unreachable!("calls do not ask")
    }
}

/// A server with one session, `s1`.
struct Cluster {
    keys: Arc<JwkSet>,
    agent_keys: Arc<JwkSet>,
    session: Arc<DcvSession>,
}

impl View for Cluster {
    fn keys(&self) -> Arc<JwkSet> {
        self.keys.clone()
    }
    fn agent_keys(&self) -> Arc<JwkSet> {
        self.agent_keys.clone()
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

/// An agent, and the keys that its cluster signs with.
struct Agent {
    router: Router,
    screens: Arc<Screens>,
    keys: KeySet,
    connection_keys: KeySet,
}

fn agent(host: Host, spec: &Value) -> Agent {
    // Only a host that hangs is not waited for.
    let timeout = if host == Host::Hangs { Duration::from_millis(50) } else { TIMEOUT };
    let (keys, connection_keys) = (KeySet::generate(mock::clock()), KeySet::generate(mock::clock()));
    let mut session = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "a", "namespace": "n", "uid": "s1"},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
        "status": {"attempt": 2, "sessionId": "s1", "conditions": [
            {"type": "Created", "status": "True", "reason": "Created", "message": "",
             "lastTransitionTime": "2027-01-01T00:00:00Z"}]},
    });
    session["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let view = Cluster {
        keys: Arc::new(connection_keys.public()),
        agent_keys: Arc::new(keys.public()),
        session: Arc::new(serde_json::from_value(session).unwrap()),
    };
    let screens =
        Arc::new(Screens { host, now: AtomicUsize::new(0), most: AtomicUsize::new(0), asked: Mutex::default() });
    Agent { router: answering_within(timeout, screens.clone(), Arc::new(view)), screens, keys, connection_keys }
}

fn claims() -> AgentClaims {
    let iat = mock::clock().as_second();
    AgentClaims {
        action: Action::Screenshot,
        server_uid: "server".into(),
        session_id: "s1".into(),
        attempt: 2,
        client_uid: "client".into(),
        iat,
        exp: iat + 60,
        jti: "j".into(),
        aud: Kind::Agent.audience().into(),
    }
}

const ORDER: &str = r#"{"maxWidth": 160, "maxHeight": 100, "format": "jpeg"}"#;

impl Agent {
    async fn post(&self, authorization: Option<&str>, body: &str) -> (u16, String, String) {
        let request = Request::post(SCREENSHOT_PATH).header(header::CONTENT_TYPE, "application/json");
        let request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind.unwrap_or_default(), String::from_utf8(text.to_vec()).unwrap())
    }

    async fn ask(&self, claims: &AgentClaims) -> (u16, String, String) {
        let token = token::sign(claims, self.keys.signer(mock::clock()).unwrap()).unwrap();
        self.post(Some(&format!("Bearer {token}")), ORDER).await
    }

    fn asked(&self) -> Vec<(String, ScreenshotRequest)> {
        std::mem::take(&mut self.screens.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn a_broker_gets_the_picture_it_asks_for() {
    let agent = agent(Host::Draws, &json!({}));
    assert_eq!(agent.ask(&claims()).await, (200, "image/jpeg".into(), "picture".into()));
    let request = ScreenshotRequest { max_width: 160, max_height: 100, format: ImageFormat::Jpeg };
    assert_eq!(agent.asked(), [("s1".to_owned(), request)]);
}

#[tokio::test]
async fn nobody_else_is_answered_and_nothing_is_asked_of_the_host() {
    let agent = agent(Host::Draws, &json!({}));
    let now = mock::clock().as_second();
    let sign = |keys: &KeySet, claims: &AgentClaims| token::sign(claims, keys.signer(mock::clock()).unwrap()).unwrap();
    let connection = token::ConnectionClaims {
        session_id: "s1".into(),
        session_owner: "ann".into(),
        session_user: "ann".into(),
        server_uid: "server".into(),
        attempt: 2,
        client_uid: None,
        iat: now,
        exp: now + 60,
        jti: "j".into(),
        aud: Kind::Connection.audience().into(),
    };
    let connection = token::sign(&connection, agent.connection_keys.signer(mock::clock()).unwrap()).unwrap();
    let good = sign(&agent.keys, &claims());
    for (what, authorization) in [
        ("nothing", None),
        ("another scheme", Some(format!("Basic {good}"))),
        ("nonsense", Some("Bearer nonsense".to_owned())),
        ("a connection token", Some(format!("Bearer {connection}"))),
        ("the key of another kind", Some(format!("Bearer {}", sign(&agent.connection_keys, &claims())))),
        ("an expired token", Some(format!("Bearer {}", sign(&agent.keys, &AgentClaims { exp: now, ..claims() })))),
        (
            "a token for another server",
            Some(format!("Bearer {}", sign(&agent.keys, &AgentClaims { server_uid: "other".into(), ..claims() }))),
        ),
    ] {
        // Also when the body is bad: it is not even read.
        for body in [ORDER, "nonsense"] {
            assert_eq!(agent.post(authorization.as_deref(), body).await, (401, String::new(), String::new()), "{what}");
        }
    }
    assert_eq!(agent.post(Some(&format!("Bearer {good}")), "{}").await.0, 400);
    assert_eq!(agent.post(Some(&format!("Bearer {good}")), &" ".repeat(BODY_MAX_BYTES + 1)).await.0, 400);
    assert_eq!(agent.asked(), []);
}

#[tokio::test]
async fn a_session_that_is_not_here_not_of_this_bind_or_not_open_is_not_found() {
    let open = agent(Host::Draws, &json!({}));
    for other in [
        AgentClaims { session_id: "s2".into(), ..claims() },
        AgentClaims { attempt: 1, ..claims() },
        AgentClaims { attempt: 3, ..claims() },
    ] {
        assert_eq!(open.ask(&other).await.0, 404, "{other:?}");
    }
    let closing = agent(Host::Draws, &json!({"desiredState": "Closed"}));
    assert_eq!(closing.ask(&claims()).await.0, 404);
    assert_eq!((open.asked(), closing.asked()), (vec![], vec![]));
}

#[tokio::test]
async fn a_host_that_fails_or_hangs_is_told_in_time() {
    let failing = agent(Host::Fails, &json!({})).ask(&claims()).await;
    let text = "failed to take a screenshot: the desktop did not greet";
    assert_eq!((failing.0, failing.2.as_str()), (503, text));
    let hanging = agent(Host::Hangs, &json!({})).ask(&claims()).await;
    assert_eq!((hanging.0, hanging.2.as_str()), (503, "the host did not take the picture in time"));
}

#[tokio::test]
async fn only_a_few_are_taken_at_once_and_the_others_wait() {
    let agent = agent(Host::Draws, &json!({}));
    let claims = claims();
    let answers = futures::future::join_all((0..30).map(|_| agent.ask(&claims))).await;
    assert!(answers.iter().all(|answer| answer.0 == 200), "{answers:?}");
    assert_eq!((agent.asked().len(), agent.screens.most.load(Ordering::SeqCst)), (30, AT_ONCE));
}
