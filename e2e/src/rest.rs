//! A client of the REST API as the guide describes one: it knows addresses, words and JSON, and none of our types.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Certificate;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

use crate::contract;
use crate::eventually;
use crate::seconds;

/// A registered client.
#[derive(Clone)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    id: String,
    password: String,
}

/// What the broker answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; null when it is no JSON.
    pub body: Value,
}

impl Answer {
    /// `SuccessfulList`, which must be there.
    pub fn successful(&self) -> &Vec<Value> {
        self.list("SuccessfulList")
    }

    /// `UnsuccessfulList`, which must be there.
    pub fn unsuccessful(&self) -> &Vec<Value> {
        self.list("UnsuccessfulList")
    }

    /// A list of the body, which must be there.
    pub fn list(&self, name: &str) -> &Vec<Value> {
        self.body[name].as_array().unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// `error`, the text of a refused request.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_else(|| panic!("no error in {self:?}"))
    }
}

impl Rest {
    /// A client of the broker at `base`, whose certificate `ca` signed.
    pub fn new(base: &str, ca: &Path, id: &str, password: &str) -> Self {
        // The first caller of the process decides; later calls change nothing.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let ca = fs::read(ca).expect("hack/up wrote the brokers' certificate");
        let http = reqwest::Client::builder()
            .tls_certs_only([Certificate::from_pem(&ca).expect("the brokers' certificate is PEM")])
            // Each call is one connection, so that a balancer spreads them and none breaks with a killed broker.
            .pool_max_idle_per_host(0)
            .timeout(seconds(30))
            .build()
            .expect("a client of one certificate");
        Self { http, base: base.to_owned(), id: id.to_owned(), password: password.to_owned() }
    }

    /// The same client at another address.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// The same client with another password.
    #[must_use]
    pub fn with_password(&self, password: &str) -> Self {
        Self { password: password.to_owned(), ..self.clone() }
    }

    /// Where it calls.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The id it logs in with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The token request of the guide, and its whole answer.
    pub async fn request_token(&self) -> Result<Answer, reqwest::Error> {
        let basic = STANDARD.encode(format!("{}:{}", self.id, self.password));
        let request = self
            .http
            .post(format!("{}/oauth2/token?grant_type=client_credentials", self.base))
            .header("Authorization", format!("Basic {basic}"))
            .header("Content-Type", "application/x-www-form-urlencoded");
        answer(request).await
    }

    /// An access token, or what came instead.
    pub async fn log_in(&self) -> Result<LoggedIn, String> {
        let answer = self.request_token().await.map_err(|error| format!("{error:?}"))?;
        let token = answer.body["access_token"].as_str().ok_or_else(|| format!("{answer:?}"))?.to_owned();
        Ok(LoggedIn { rest: self.clone(), token })
    }

    /// A client with this token, whoever made it.
    pub fn with_token(&self, token: &str) -> LoggedIn {
        LoggedIn { rest: self.clone(), token: token.to_owned() }
    }

    /// What is at `path` for somebody without a token: status, content type and text.
    pub async fn text(&self, path: &str) -> (u16, String, String) {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.expect("the broker answers");
        let type_ = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let type_ = type_.unwrap_or_default().to_owned();
        (response.status().as_u16(), type_, response.text().await.expect("it is text"))
    }

    /// A call without an Authorization header.
    pub async fn call_without_token(&self, method: Method, path: &str) -> Answer {
        answer(self.http.request(method, format!("{}{path}", self.base))).await.expect("the broker answers")
    }
}

/// A client with an access token.
#[derive(Clone)]
pub struct LoggedIn {
    rest: Rest,
    token: String,
}

impl LoggedIn {
    /// The access token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same token at another address.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { rest: self.rest.at(base), token: self.token.clone() }
    }

    /// Sends `body`, and tells how it went.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// Sends `body` with an `Idempotency-Key`, and tells how it went.
    pub async fn try_post_with_key(&self, path: &str, body: &Value, key: &str) -> Result<Answer, reqwest::Error> {
        answer(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    /// Sends `body` to a broker that must answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.expect("the broker answers")
    }

    /// Puts `body` to a broker that must answer.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PUT, path).json(body)).await.expect("the broker answers")
    }

    /// Sends `body` as it is, to a broker that must answer.
    pub async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = self.request(method, path).header("Content-Type", "application/json").body(body.to_owned());
        answer(request).await.expect("the broker answers")
    }

    /// Posts no body at all.
    pub async fn request_without_body(&self, path: &str) -> Answer {
        answer(self.request(Method::POST, path)).await.expect("the broker answers")
    }

    /// Asks a broker that must answer.
    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await.expect("the broker answers")
    }

    /// Creates one session, and returns its id.
    pub async fn create(&self, item: Value) -> String {
        let answer = self.post("/createSessions", &json!([item])).await;
        let made = answer.successful().first().unwrap_or_else(|| panic!("not created: {answer:?}"));
        made["Id"].as_str().unwrap_or_else(|| panic!("no id: {answer:?}")).to_owned()
    }

    /// The session `id` as describeSessions shows it; `None` when it is not listed.
    pub async fn describe(&self, id: &str) -> Option<Value> {
        let answer = self.post("/describeSessions", &json!({"SessionIds": [id]})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.list("Sessions").first().cloned()
    }

    /// Polls the session `id` until its state is `state`, and returns it.
    pub async fn until_state(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} to be {state}"), seconds(30), async || match self.describe(id).await {
            Some(session) if session["State"] == state => Ok(session),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    /// Polls the session `id` until it is not listed.
    pub async fn until_gone(&self, id: &str) {
        eventually(&format!("{id} to be gone"), seconds(30), async || {
            self.describe(id).await.map_or(Ok(()), |session| Err(session.to_string()))
        })
        .await;
    }

    /// `GetSessionConnectionData`.
    pub async fn connection_data(&self, id: &str, user: &str) -> Answer {
        self.get(&format!("/sessionConnectionData/{id}/{user}")).await
    }

    /// The address of a session for `user`'s browser, put together as the guide says.
    pub async fn connection_url(&self, id: &str, user: &str) -> String {
        let answer = self.connection_data(id, user).await;
        let session = &answer.body["Session"];
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no URL in {answer:?}")).to_owned();
        format!(
            "https://{}:{}{}?authToken={}#{}",
            text(&session["Server"]["Ip"]),
            text(&session["Server"]["Port"]),
            text(&session["Server"]["WebUrlPath"]),
            text(&answer.body["ConnectionToken"]),
            text(&session["Id"])
        )
    }

    /// Deletes one session; it must be accepted.
    pub async fn delete(&self, id: &str, owner: &str) {
        let answer = self.post("/deleteSessions", &json!([{"SessionId": id, "Owner": owner}])).await;
        assert_eq!(answer.successful(), &vec![json!({"SessionId": id, "State": "DELETING"})], "{answer:?}");
    }

    /// Replaces the permissions of one session by this file; it must be accepted.
    pub async fn permit(&self, id: &str, owner: &str, file: &str) {
        let item = json!({"SessionId": id, "Owner": owner, "PermissionsFile": STANDARD.encode(file)});
        let answer = self.put("/sessionPermissions", &json!([item])).await;
        assert_eq!(answer.successful(), &vec![json!({"SessionId": id})], "{answer:?}");
    }

    /// The server `id` as describeServers shows it; `None` when it is not listed.
    pub async fn describe_server(&self, id: &str) -> Option<Value> {
        let answer = self.post("/describeServers", &json!({"ServerIds": [id]})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.list("Servers").first().cloned()
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.rest
            .http
            .request(method, format!("{}{path}", self.rest.base))
            .header("Authorization", format!("Bearer {}", self.token))
    }
}

/// Sends a request. Whatever comes back must be as documented.
async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let url = response.url();
    let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let status = response.status().as_u16();
    let text = response.text().await?;
    contract::check(&path, status, &text);
    Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or_default() })
}
