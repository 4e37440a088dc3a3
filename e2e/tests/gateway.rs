//! What desktop servers and connection gateways ask a broker: whether a token is good, and where a session is.

use std::fs;
use std::time::Duration;

use e2e::Stand;
use e2e::eventually;
use e2e::now;
use e2e::seconds;
use jiff::SignedDuration;
use kube::ResourceExt;
use reqwest::Certificate;
use serde_json::Value;
use serde_json::json;

/// A desktop server and a gateway that trust the brokers' authority.
struct Callers<'a> {
    http: reqwest::Client,
    stand: &'a Stand,
}

impl<'a> Callers<'a> {
    fn new(stand: &'a Stand) -> Self {
        let ca = fs::read(stand.setting("BROKER_CA")).expect("hack/up wrote the brokers' authority");
        let http = reqwest::Client::builder()
            .tls_certs_only([Certificate::from_pem(&ca).expect("the authority is PEM")])
            .timeout(seconds(30))
            .build()
            .expect("a client of one authority");
        Self { http, stand }
    }

    /// The verifier's words on a token.
    async fn verify(&self, session: &str, token: &str) -> String {
        let request = self
            .http
            .post(self.stand.setting("VERIFIER_URL"))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("sessionId={session}&authenticationToken={token}&clientAddress=127.0.0.1"));
        let response = request.send().await.expect("the verifier answers");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/xml");
        let length = response.headers()["content-length"].to_str().expect("a number").to_owned();
        let text = response.text().await.expect("a whole answer");
        assert_eq!(length, text.len().to_string());
        text
    }

    /// The resolver's answer.
    async fn resolve(&self, query: &str) -> (u16, Value) {
        let url = format!("{}/resolveSession?{query}", self.stand.setting("GATEWAY_URL"));
        let response = self.http.post(url).header("accept", "application/json").send().await.expect("it answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a whole answer");
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
    }
}

fn no(message: &str) -> String {
    format!("<auth result=\"no\"><message>{message}</message></auth>")
}

#[tokio::test]
async fn a_token_is_good_for_its_session_until_it_is_revoked_or_the_session_deleted() {
    const LIMIT: Duration = seconds(10);
    let stand = Stand::fake().await;
    let callers = Callers::new(&stand);
    let sessions = stand.namespace("verifier").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        ids.push(rest.create(json!({"Name": name, "Owner": "ann", "Type": "VIRTUAL"})).await);
    }
    let token = async |id: &str| {
        rest.until_state(id, "READY").await;
        let data = rest.connection_data(id, "bob").await;
        data.body["ConnectionToken"].as_str().unwrap_or_else(|| panic!("no token in {data:?}")).to_owned()
    };
    let [one, two] = [token(&ids[0]).await, token(&ids[1]).await];
    // The broker that is asked need not be the one that gave the token.
    let yes = "<auth result=\"yes\"><username>bob</username></auth>";
    eventually("the verifier to say yes", LIMIT, async || {
        let answers = (callers.verify(&ids[0], &one).await, callers.verify(&ids[1], &two).await);
        if answers == (yes.to_owned(), yes.to_owned()) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await;
    assert_eq!(callers.verify(&ids[0], &one).await, yes, "a reload presents the token again");
    assert_eq!(callers.verify(&ids[1], &one).await, no("token is for another session"));
    assert_eq!(callers.verify(&ids[0], rest.token()).await, no("malformed token"), "a token of another kind");
    assert_eq!(callers.verify(&ids[0], "").await, no("malformed token"));

    let all = stand.all_sessions().await;
    let object = all.iter().find(|session| session.id() == ids[0]).expect("the session is an object");
    let from = now() + SignedDuration::from_secs(1);
    sessions.patch(&object.name_any(), &json!({"tokensValidFrom": from})).await;
    rest.delete(&ids[1], "ann").await;
    for (id, token, message) in [(&ids[0], &one, "token was revoked"), (&ids[1], &two, "session is not available")] {
        eventually("the verifier to say no", LIMIT, async || {
            let answer = callers.verify(id, token).await;
            if answer == no(message) { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_gateway_is_told_where_a_ready_session_answers() {
    let stand = Stand::fake().await;
    let callers = Callers::new(&stand);
    let sessions = stand.namespace("resolver").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let id = rest.create(json!({"Name": "resolved", "Owner": "ann", "Type": "VIRTUAL"})).await;
    rest.until_state(&id, "READY").await;
    let query = format!("sessionId={id}&transport=HTTP&clientIpAddress=127.0.0.1");
    let answer = eventually("the session to be resolved", seconds(10), async || match callers.resolve(&query).await {
        (200, answer) => Ok(answer),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!((&answer["SessionId"], &answer["TransportProtocol"]), (&json!(id), &json!("HTTP")));
    assert_eq!(answer["WebUrlPath"], "/");
    let host = answer["DcvServerEndpoint"].as_str().expect("a name");
    let port = answer["Port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    tokio::net::TcpStream::connect((host, port)).await.unwrap_or_else(|error| panic!("{answer}: {error}"));

    let nowhere = (404, json!({"error": "No destination for this session"}));
    assert_eq!(callers.resolve(&format!("sessionId={id}&transport=QUIC")).await, nowhere, "it has no such endpoint");
    let unknown = uuid::Uuid::new_v4();
    assert_eq!(callers.resolve(&format!("sessionId={unknown}&transport=HTTP")).await, nowhere);
    for wrong in [format!("sessionId={id}"), format!("sessionId={id}&transport=TCP"), "transport=HTTP".to_owned()] {
        assert_eq!(callers.resolve(&wrong).await.0, 400, "{wrong}");
    }
    rest.delete(&id, "ann").await;
    eventually("the deleted session to be resolved no more", seconds(10), async || {
        let answer = callers.resolve(&query).await;
        if answer == nowhere { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    sessions.delete_namespace().await;
}
