//! Tokens of other authorization servers, as calls of the API and as an issuer's answers over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use http::StatusCode;
use http_body_util::BodyExt;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use kube::ResourceExt;
use serde_json::json;
use tower::ServiceExt;

use super::keys::FetchError;
use super::keys::Source;
use super::*;
use crate::broker::App;
use crate::broker::Rules;
use crate::broker::memory::Memory;
use crate::broker::memory::merge;
use crate::broker::memory::now;
use crate::broker::memory::ready_on;
use crate::broker::router;

/// An EC key for signing and its public half, with this id.
struct Signer {
    id: &'static str,
    key: rcgen::KeyPair,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self { id, key: rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }

    fn encoding(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.key.serialize_der())
    }

    fn public(&self) -> Value {
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.encoding(), Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.id);
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding()).unwrap()
    }
}

struct Fixed(Value);

impl Source for Fixed {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        std::future::ready(Ok(self.0.to_string().into_bytes())).boxed()
    }
}

const ISSUER: &str = "https://login.example";

/// An issuer with the keys of `signers`, and these settings beside the usual ones.
fn issuer(signers: &[&Signer], settings: &str) -> Issuer {
    let text =
        format!("url = 'https://login.example/jwks.json'\nissuer = '{ISSUER}'\nalgorithms = ['ES256']\n{settings}");
    let keys: Vec<_> = signers.iter().map(|signer| signer.public()).collect();
    Issuer { config: toml::from_str(&text).unwrap(), keys: Keys::new(ISSUER, Box::new(Fixed(json!({"keys": keys})))) }
}

const BY_CLAIM: &str = "scope = 'dcv/use'\nnamespace-claim = 'team'\nall-namespaces-scope = 'dcv/all'\n\
                        manage-servers-scope = 'dcv/servers'\n";

fn claims(changes: Value) -> Value {
    let seconds = now().as_second();
    let mut claims = json!({"iss": ISSUER, "sub": "portal", "scope": "openid dcv/use", "team": "red",
        "iat": seconds, "exp": seconds + 60});
    merge(&mut claims, changes);
    claims
}

struct Broker {
    memory: Arc<Memory>,
    router: Router,
}

impl Broker {
    fn new(issuers: Vec<Issuer>, rules: Rules) -> Self {
        let memory = Arc::new(Memory::new());
        let app = App::new(Arc::clone(&memory) as _, rules, Arc::new(Issuers(issuers)), now);
        Self { memory, router: router(Arc::new(app)) }
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> (StatusCode, Value) {
        let mut request = Request::post(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
    }

    /// The ids of the sessions that a caller sees, or why it sees none.
    async fn sees(&self, token: Option<&str>) -> Result<Vec<String>, (u16, String)> {
        let (status, answer) = self.post("/describeSessions", token, json!({})).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        match status.as_u16() {
            200 => Ok(answer["Sessions"].as_array().unwrap().iter().map(|session| text(&session["Id"])).collect()),
            status => Err((status, text(&answer["error"]))),
        }
    }
}

fn in_two_namespaces(broker: &Broker) {
    broker.memory.add_server("s1", json!({"limits": {"maxVirtualSessions": 9}}), json!({}));
    broker.memory.add_session("mine", ready_on("s1"));
    let mut other = ready_on("s1");
    merge(&mut other, json!({"metadata": {"namespace": "blue"}}));
    broker.memory.add_session("other", other);
}

fn unauthorized(text: &str) -> Result<Vec<String>, (u16, String)> {
    Err((401, text.to_owned()))
}

#[tokio::test]
async fn a_caller_is_of_the_tenant_its_token_names_and_may_what_its_scopes_say() {
    let signer = Signer::new("a");
    let broker = Broker::new(vec![issuer(&[&signer], BY_CLAIM)], Rules::default());
    in_two_namespaces(&broker);
    let sees = async |changes: Value| broker.sees(Some(&signer.sign(&claims(changes)))).await;
    assert_eq!(sees(json!({})).await, Ok(vec!["mine".to_owned()]));
    assert_eq!(sees(json!({"team": "blue"})).await, Ok(vec!["other".to_owned()]));
    assert_eq!(sees(json!({"team": "green"})).await, Ok(vec![]));
    assert_eq!(sees(json!({"scope": "dcv/use dcv/all"})).await.unwrap().len(), 2);
    assert_eq!(sees(json!({"scope": null, "scp": ["dcv/use"]})).await, unauthorized(NO_SCOPE), "null is no text");
    assert_eq!(sees(json!({"scope": ["dcv/use", "x"]})).await, Ok(vec!["mine".to_owned()]));

    let token = signer.sign(&claims(json!({})));
    let item = json!([{"Name": "a", "Owner": "ann", "Type": "VIRTUAL"}]);
    let (_, answer) = broker.post("/createSessions", Some(&token), item).await;
    let id = answer["SuccessfulList"][0]["Id"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let red = super::super::anyone::client("red");
    let made = broker.memory.cache.sessions_of_id(&red, id).remove(0).session;
    assert_eq!(made.namespace().as_deref(), Some("red"));
    let label = made.labels()["dcv-operator.io/api-client"].clone();
    assert!(uuid::Uuid::try_parse(&label).is_ok(), "{label}");

    let client = issuer(&[&signer], BY_CLAIM).identify(&signer.sign(&claims(json!({"scope": "dcv/use"}))), now()).await;
    let client = client.unwrap();
    assert_eq!((client.spec.all_namespaces, client.spec.manage_servers), (false, false));
    let mighty = signer.sign(&claims(json!({"scope": "dcv/use dcv/servers"})));
    assert!(issuer(&[&signer], BY_CLAIM).identify(&mighty, now()).await.unwrap().spec.manage_servers);
}

#[tokio::test]
async fn tokens_that_are_not_for_us_not_of_now_or_not_well_signed_are_refused() {
    let (signer, stranger) = (Signer::new("a"), Signer::new("a"));
    let broker = Broker::new(vec![issuer(&[&signer], &format!("{BY_CLAIM}audience = 'dcv'\n"))], Rules::default());
    let good = claims(json!({"aud": ["dcv", "other"]}));
    let with = |changes: Value| {
        let mut claims = good.clone();
        merge(&mut claims, changes);
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let seconds = now().as_second();
    let sees = async |token: &str| broker.sees(Some(token)).await;
    assert_eq!(sees(&signer.sign(&good)).await, Ok(vec![]));
    for (claims, text) in [
        (with(json!({"iss": "https://other.example"})), INVALID_TOKEN),
        (with(json!({"iss": [ISSUER]})), INVALID_TOKEN),
        (without("iss"), INVALID_TOKEN),
        (with(json!({"aud": "other"})), INVALID_TOKEN),
        (without("aud"), INVALID_TOKEN),
        (without("exp"), INVALID_TOKEN),
        (with(json!({"exp": "tomorrow"})), INVALID_TOKEN),
        (with(json!({"exp": seconds})), EXPIRED_TOKEN),
        (with(json!({"exp": -1})), INVALID_TOKEN),
        (with(json!({"nbf": seconds + 31})), "The access token is not valid yet"),
        (with(json!({"nbf": "now"})), INVALID_TOKEN),
        (with(json!({"scope": "openid"})), NO_SCOPE),
        (without("team"), NO_NAMESPACE),
        (with(json!({"team": "../kube-system"})), NO_NAMESPACE),
        (with(json!({"team": ["red"]})), NO_NAMESPACE),
        (without("sub"), "The access token does not name a client"),
        (with(json!({"sub": ""})), "The access token does not name a client"),
    ] {
        assert_eq!(sees(&signer.sign(&claims)).await, unauthorized(text), "{claims}");
    }
    assert_eq!(
        sees(&signer.sign(&with(json!({"exp": f64::from(u32::MAX) + 0.5, "nbf": seconds + 30})))).await,
        Ok(vec![])
    );
    assert_eq!(sees(&stranger.sign(&good)).await, unauthorized(INVALID_TOKEN), "the same id, another key");
    assert_eq!(sees(&Signer::new("b").sign(&good)).await, unauthorized(INVALID_TOKEN), "an unknown key");

    // The public key as a shared secret, no signature at all, and a header that must be understood.
    let encoded = |header: Value| {
        use base64::Engine;
        let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&header), part(&good))
    };
    let mut header = Header { kid: Some("a".into()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(signer.public().to_string().as_bytes());
    let confused = jsonwebtoken::encode(&header, &good, &secret).unwrap();
    header = Header { kid: Some("a".into()), crit: Some(vec!["b64".into()]), ..Header::new(Algorithm::ES256) };
    let critical = jsonwebtoken::encode(&header, &good, &signer.encoding()).unwrap();
    let unsigned = format!("{}.", encoded(json!({"alg": "none", "typ": "JWT"})));
    for token in [confused.as_str(), &critical, &unsigned, "a.b.c", "a", ""] {
        let refused = sees(token).await.unwrap_err();
        assert_eq!(refused.0, 401, "{token}: {refused:?}");
    }
}

#[tokio::test]
async fn of_two_issuers_each_is_good_for_its_own_name_only() {
    let (one, two) = (Signer::new("a"), Signer::new("a"));
    let mut second = issuer(&[&two], "audience = 'dcv'\nnamespace = 'blue'\nclient-claim = 'azp'\n");
    second.config.issuer = "https://second.example".to_owned();
    let broker = Broker::new(vec![issuer(&[&one], BY_CLAIM), second], Rules::default());
    in_two_namespaces(&broker);
    let second = claims(json!({"iss": "https://second.example", "aud": "dcv", "azp": "tool", "team": "red"}));
    assert_eq!(broker.sees(Some(&two.sign(&second))).await, Ok(vec!["other".to_owned()]));
    assert_eq!(broker.sees(Some(&one.sign(&second))).await, unauthorized(INVALID_TOKEN));
    assert_eq!(broker.sees(Some(&two.sign(&claims(json!({}))))).await, unauthorized(INVALID_TOKEN));
    assert_eq!(broker.sees(Some(&one.sign(&claims(json!({}))))).await, Ok(vec!["mine".to_owned()]));
}

#[tokio::test]
async fn a_broker_that_issues_no_tokens_accepts_none_of_its_own() {
    let signer = Signer::new("a");
    let rules = Rules { enable_authorization_server: false, ..Rules::default() };
    let broker = Broker::new(vec![issuer(&[&signer], BY_CLAIM)], rules);
    let (status, answer) = broker.post("/oauth2/token?grant_type=client_credentials", None, json!(null)).await;
    assert_eq!((status, answer), (StatusCode::NOT_FOUND, json!({"error": "This broker issues no access tokens"})));
    let claims = crate::token::AccessClaims {
        sub: "uid-red".into(),
        client_id: "red".into(),
        namespace: "red".into(),
        credential: String::new(),
        iat: now().as_second(),
        exp: now().as_second() + 60,
        jti: "j".into(),
        aud: crate::token::Kind::Access.audience().into(),
    };
    let keys = broker.memory.cache.keys(crate::token::Kind::Access).unwrap();
    let own = crate::token::sign(&claims, keys.private.signer(now()).unwrap()).unwrap();
    assert_eq!(broker.sees(Some(&own)).await, unauthorized(INVALID_TOKEN));
    assert_eq!(broker.sees(None).await, unauthorized("No authorization header"));
}

#[tokio::test]
async fn without_authorization_everybody_is_a_client_of_the_one_namespace() {
    let rules = Rules { no_authorization_namespace: Some("red".into()), ..Rules::default() };
    let broker = Broker::new(Vec::new(), rules);
    in_two_namespaces(&broker);
    for token in [None, Some("nonsense")] {
        assert_eq!(broker.sees(token).await, Ok(vec!["mine".to_owned()]));
    }
    let delete = json!([{"SessionId": "mine", "Owner": "ann"}, {"SessionId": "other", "Owner": "ann"}]);
    let (_, answer) = broker.post("/deleteSessions", None, delete).await;
    assert_eq!(answer["SuccessfulList"].as_array().unwrap().len(), 1, "{answer}");
    assert!(super::super::anyone::client("red").spec.manage_servers);
}

/// Serves `routes` over HTTPS on this machine: the port, the authority of the certificate, and what stops it.
async fn serve(routes: Router) -> (u16, tempfile::NamedTempFile, Handle<SocketAddr>) {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), cert.pem()).unwrap();
    let config = RustlsConfig::from_pem(cert.pem().into(), signing_key.serialize_pem().into()).await.unwrap();
    let handle = Handle::<SocketAddr>::new();
    let server = axum_server::bind_rustls(([127, 0, 0, 1], 0).into(), config).handle(handle.clone());
    tokio::spawn(server.serve(routes.into_make_service()));
    (handle.listening().await.unwrap().port(), authority, handle)
}

#[tokio::test]
async fn keys_are_fetched_over_https_with_bounds_and_from_nowhere_else() {
    let signer = Signer::new("a");
    let set = json!({"keys": [signer.public()]}).to_string();
    let routes = Router::new()
        .route(
            "/good",
            get({
                let set = set.clone();
                async move || set
            }),
        )
        .route("/away", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/moved", get(async || (StatusCode::FOUND, [("location", "/good")])))
        .route(
            "/large",
            get({
                let set = set.clone();
                async move || format!("{set}{}", " ".repeat(300 * 1024))
            }),
        )
        .route("/slow", get(async || std::future::pending::<()>().await));
    let (port, authority, handle) = serve(routes).await;
    let config = |path: &str, ca_file: Option<&Path>| IssuerConfig {
        url: format!("https://localhost:{port}{path}"),
        ca_file: ca_file.map(Path::to_owned),
        ..issuer(&[], BY_CLAIM).config
    };
    let fetch = async |path: &str, ca_file| Remote::new(&config(path, ca_file)).unwrap().fetch().await;
    let trusted = Some(authority.path());
    assert_eq!(fetch("/good", trusted).await.unwrap(), set.as_bytes());
    assert!(matches!(fetch("/away", trusted).await, Err(FetchError::Status(503))));
    assert!(matches!(fetch("/moved", trusted).await, Err(FetchError::Status(302))));
    assert!(matches!(fetch("/large", trusted).await, Err(FetchError::TooLarge)));
    let slow = tokio::time::timeout(Duration::from_secs(20), fetch("/slow", trusted)).await.unwrap();
    assert!(matches!(slow, Err(FetchError::Unanswered(error)) if error.is_timeout()));
    let (_, other_authority, other) = serve(Router::new()).await;
    assert!(matches!(fetch("/good", Some(other_authority.path())).await, Err(FetchError::Unanswered(_))));

    // A whole issuer, from a file as users write it, that goes away after its keys were fetched.
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[[issuer]]\nurl = 'https://localhost:{port}/good'\nissuer = '{ISSUER}'\nalgorithms = ['ES256']\nca-file = '{}'\n{BY_CLAIM}",
        authority.path().display()
    );
    std::fs::write(file.path(), text).unwrap();
    let issuers = Issuers::load(Some(file.path())).unwrap();
    let token = signer.sign(&claims(json!({})));
    issuers.identify(&token, now()).await.unwrap();
    handle.shutdown();
    other.shutdown();
    issuers.identify(&token, now()).await.unwrap();
    assert!(issuers.identify(&Signer::new("b").sign(&claims(json!({}))), now()).await.is_err());
}
