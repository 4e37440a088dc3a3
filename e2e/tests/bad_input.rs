//! Bad input: each kind has its clear error where the user looks, and nothing is left of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dcv_operator::api::session::SessionState;
use dcv_operator::token;
use dcv_operator::token::AccessClaims;
use dcv_operator::token::AgentClaims;
use dcv_operator::token::Claims;
use dcv_operator::token::ConnectionClaims;
use dcv_operator::token::KeySet;
use dcv_operator::token::Kind;
use dcv_operator::token::agent::Action;
use dcv_operator::token::agent::SCREENSHOT_PATH;
use e2e::Stand;
use e2e::host;
use e2e::now;
use e2e::rest::Rest;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::state;
use e2e::session::state_reason;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use reqwest::Method;
use serde_json::Value;
use serde_json::json;

#[tokio::test]
async fn an_unknown_type_and_a_negative_limit_are_refused_by_name() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("schema").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    for (field, value, rest_field, expected) in [
        ("type", json!("SCREEN"), "Type", "supported values: \"CONSOLE\", \"VIRTUAL\""),
        ("maxConcurrentClients", json!(-1), "MaxConcurrentClients", "should be greater than or equal to 1"),
        ("owner", json!("-rf"), "Owner", "should match"),
        ("initFile", json!("../../bin/sh"), "InitFile", "initFile must be a relative path without .."),
    ] {
        let mut manifest = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "bad"},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
        });
        manifest["spec"][field] = value.clone();
        let refused = stand.kubectl(&["apply", "-n", &sessions.namespace, "-f", "-"], &manifest.to_string()).await;
        let refused = refused.expect_err("kubectl apply of bad input");
        assert!(refused.contains(&format!("spec.{field}: ")) && refused.contains(expected), "{field}: {refused}");

        let mut item = json!({"Name": "bad", "Owner": "ann", "Type": "VIRTUAL"});
        item[rest_field] = value;
        let answer = rest.post("/createSessions", &json!([item])).await;
        assert_eq!((answer.status, answer.successful().len()), (200, 0), "{answer:?}");
        let failed = &answer.unsuccessful()[0];
        assert_eq!(failed["CreateSessionRequestData"], item, "{failed}");
        let reason = failed["FailureReason"].as_str().unwrap_or_default();
        assert!(reason.contains(rest_field), "{rest_field}: {reason}");
    }
    assert_eq!(stand.all_sessions().await, Vec::new());
    sessions.delete_namespace().await;
}

/// The session has failed for good, with `text`, after `attempts` tries, and nothing of it is left on the host.
async fn assert_failed(stand: &Stand, sessions: &Sessions, name: &str, text: &str, attempts: i32) {
    let session = sessions.until_finished(name).await;
    assert!(state_reason(&session).contains(text), "{name}: {:?}", session.status);
    assert_eq!(state(&session), SessionState::Unknown);
    assert_eq!(session.attempt(), attempts, "{:?}", session.status);
    for (type_, expected) in [
        ("Finished", "True/Failed"),
        ("Stalled", "True/RetriesExhausted"),
        ("Created", "False/Refused"),
        ("Ready", ""),
        ("Reconciling", ""),
    ] {
        assert_eq!(condition(&session, type_), expected, "{type_}: {:?}", session.status);
    }
    assert_eq!(host::remains_of(&stand.server(1), session.id()), Vec::<String>::new());
    sessions.delete(name).await;
}

#[tokio::test]
async fn an_owner_the_host_does_not_know_or_does_not_serve_fails_in_the_hosts_words() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("owners").await;
    let once = |owner: &str| json!({"owner": owner, "disableRetryOnFailure": true});
    sessions.create("ghost", &once("no-such-user")).await;
    assert_failed(&stand, &sessions, "ghost", "Specified user is not a local user", 1).await;
    sessions.create("root", &once("root")).await;
    assert_failed(&stand, &sessions, "root", "root", 1).await;
    sessions.create("system", &once("daemon")).await;
    assert_failed(&stand, &sessions, "system", "daemon", 1).await;
    sessions.create("retried", &json!({"owner": "no-such-user"})).await;
    assert_failed(&stand, &sessions, "retried", "Specified user is not a local user", 3).await;

    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let id = rest.create(json!({"Name": "ghost", "Owner": "no-such-user", "Type": "VIRTUAL"})).await;
    let failed = rest.until_state(&id, "UNKNOWN").await;
    let reason = failed["StateReason"].as_str().unwrap_or_default();
    assert!(reason.contains("Specified user is not a local user"), "{failed}");
    let answer = rest.connection_data(&id, "ann").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.error().contains("neither in READY"), "{answer:?}");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn files_that_are_not_there_fail_by_name() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("files").await;
    let once = |field: &str| json!({field: "no/such.sh", "disableRetryOnFailure": true});
    for field in ["initFile", "autorunFile"] {
        let name = field.to_lowercase();
        sessions.create(&name, &once(field)).await;
        let session = sessions.until_finished(&name).await;
        assert!(state_reason(&session).contains("no/such.sh"), "{field}: {:?}", session.status);
        assert_eq!(state(&session), SessionState::Unknown);
        assert_eq!(host::remains_of(&stand.server(1), session.id()), Vec::<String>::new());
    }
    sessions.delete_namespace().await;
}

/// The keys that really sign tokens of this kind.
async fn signing_keys(stand: &Stand, kind: Kind) -> KeySet {
    let secrets = Api::<Secret>::namespaced(stand.client(), stand.setting("OPERATOR_NAMESPACE"));
    let secret = secrets.get(kind.secret_name()).await.expect("the controller made the keys");
    KeySet::parse(&secret.data.expect("it has data")[token::KEYS_ENTRY].0).expect("it holds a key set")
}

/// The claims of a token, whoever signed it.
fn claims<C: Claims>(token: &str) -> C {
    let payload = token.split('.').nth(1).expect("a token has three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("they are base64");
    serde_json::from_slice(&payload).expect("the claims of this kind")
}

fn sign<C: Claims>(claims: &C, keys: &KeySet) -> String {
    token::sign(claims, keys.signer(now()).expect("a key signs now")).expect("claims can be signed")
}

/// What an agent answers to somebody without a cookie; the token is in the address, or a bridge's in a header.
async fn ask_agent(base: &str, path: &str, bearer: Option<&str>, is_socket: bool) -> u16 {
    let http = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true) // its own; brokers pin it
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .timeout(seconds(10))
        .build()
        .expect("a client");
    let mut request = http.get(format!("{base}{path}"));
    if let Some(token) = bearer {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if is_socket {
        request = request
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Protocol", "binary");
    }
    request.send().await.expect("the agent answers").status().as_u16()
}

#[tokio::test]
async fn the_agent_lets_in_only_a_connection_token_of_this_session_and_time() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("tokens").await;
    for name in ["mine", "other"] {
        sessions.create(name, &json!({})).await;
    }
    let mine = sessions.until_ready("mine").await;
    let other = sessions.until_ready("other").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let data = rest.connection_data(mine.id(), "ann").await;
    let good = data.body["ConnectionToken"].as_str().unwrap_or_else(|| panic!("{data:?}")).to_owned();
    let theirs = rest.connection_data(other.id(), "ann").await.body["ConnectionToken"].clone();
    let stranger = rest.connection_data(mine.id(), "bob").await.body["ConnectionToken"].clone();
    let server = &data.body["Session"]["Server"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let base = format!("https://{}:{}", text(&server["Ip"]), text(&server["Port"]));
    let path = text(&server["WebUrlPath"]);
    let page = format!("/s/{}/", mine.id());
    let socket = format!("/s/{}/ws", mine.id());

    let keys = signing_keys(&stand, Kind::Connection).await;
    let genuine: ConnectionClaims = claims(&good);
    let second = now().as_second();
    let forge = |change: &dyn Fn(&mut ConnectionClaims)| {
        let mut claims = genuine.clone();
        change(&mut claims);
        sign(&claims, &keys)
    };
    let agent_token = AgentClaims {
        action: Action::Screenshot,
        server_uid: genuine.server_uid.clone(),
        session_id: genuine.session_id.clone(),
        attempt: genuine.attempt,
        client_uid: genuine.client_uid.clone().unwrap_or_default(),
        iat: second,
        exp: second + 60,
        jti: genuine.jti.clone(),
        aud: Kind::Agent.audience().into(),
    };
    let (body, signature) = good.rsplit_once('.').expect("a token has three parts");
    let changed = format!("{body}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]);

    assert_eq!(ask_agent(&base, &format!("{path}?authToken={good}"), None, false).await, 303);
    assert_eq!(ask_agent(&base, &format!("{socket}?authToken={good}"), None, true).await, 101);
    let same = forge(&|_| ());
    assert_eq!(
        ask_agent(&base, &format!("{path}?authToken={same}"), None, false).await,
        303,
        "forged tokens are well formed"
    );
    assert_eq!(ask_agent(&base, &path, None, false).await, 401);
    assert_eq!(ask_agent(&base, &page, None, false).await, 401);
    assert_eq!(ask_agent(&base, &socket, None, true).await, 401);
    for (what, token) in [
        ("nonsense", "nonsense".to_owned()),
        ("a changed signature", changed),
        ("keys of somebody else", sign(&genuine, &KeySet::generate(now()))),
        ("an expired one", forge(&|claims| (claims.iat, claims.exp) = (second - 3600, second - 1))),
        ("one of the future", forge(&|claims| (claims.iat, claims.exp) = (second + 3600, second + 7200))),
        ("another server's", forge(&|claims| claims.server_uid = other.metadata.uid.clone().expect("a uid"))),
        ("another attempt's", forge(&|claims| claims.attempt += 1)),
        ("a session that is not there", forge(&|claims| claims.session_id = uuid::Uuid::new_v4().to_string())),
        ("an access token", rest.token().to_owned()),
        ("an agent token", sign(&agent_token, &signing_keys(&stand, Kind::Agent).await)),
    ] {
        for (path, is_socket) in [(&path, false), (&page, false), (&socket, true)] {
            let status = ask_agent(&base, &format!("{path}?authToken={token}"), None, is_socket).await;
            assert_eq!(status, 403, "{what} at {path}");
        }
    }
    // A genuine token of somebody the session's permissions do not name opens no page.
    assert_eq!(ask_agent(&base, &page, Some(&text(&stranger)), false).await, 403);
    let theirs = text(&theirs);
    assert_eq!(
        ask_agent(&base, &format!("{page}?authToken={theirs}"), None, false).await,
        403,
        "another session's token"
    );
    assert_eq!(
        ask_agent(&base, &format!("{socket}?authToken={theirs}"), None, true).await,
        403,
        "another session's token"
    );

    // Revoked: what was given out before this time is refused, what comes after is not.
    let from = jiff::Timestamp::from_second(second + 1).expect("a time");
    sessions.patch("mine", &json!({"tokensValidFrom": from.to_string()})).await;
    e2e::eventually("the token to be revoked", seconds(10), async || {
        let status = ask_agent(&base, &format!("{path}?authToken={good}"), None, false).await;
        if status == 403 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let later = forge(&|claims| claims.iat = second + 2);
    assert_eq!(ask_agent(&base, &format!("{path}?authToken={later}"), None, false).await, 303);
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn the_agent_takes_pictures_only_for_brokers() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("pictures").await;
    sessions.create("desk", &json!({})).await;
    let session = sessions.until_ready("desk").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let connection = rest.connection_data(session.id(), "ann").await.body["ConnectionToken"].clone();
    let server = stand.servers().get(session.server_name().expect("it has a server")).await.expect("it is there");
    let agent = server.status.and_then(|status| status.agent).expect("its agent has said where it is");
    let http = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).timeout(seconds(10)).build();
    let http = http.expect("a client");
    let ask = async |token: Option<&str>| {
        let mut request = http.post(format!("{}{SCREENSHOT_PATH}", agent.url));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let order = json!({"maxWidth": 100, "maxHeight": 100, "format": "png"});
        request.json(&order).send().await.expect("the agent answers").status().as_u16()
    };

    let keys = signing_keys(&stand, Kind::Agent).await;
    let second = now().as_second();
    let genuine = AgentClaims {
        action: Action::Screenshot,
        server_uid: server.metadata.uid.expect("a uid"),
        session_id: session.id().to_owned(),
        attempt: session.attempt(),
        client_uid: "nobody".to_owned(),
        iat: second,
        exp: second + 60,
        jti: "1".to_owned(),
        aud: Kind::Agent.audience().to_owned(),
    };
    let forge = |change: &dyn Fn(&mut AgentClaims)| {
        let mut claims = genuine.clone();
        change(&mut claims);
        sign(&claims, &keys)
    };
    assert_eq!(ask(Some(&forge(&|_| ()))).await, 200, "forged tokens are well formed");
    assert_eq!(ask(None).await, 401);
    for (what, token) in [
        ("nonsense", "nonsense".to_owned()),
        ("an access token", rest.token().to_owned()),
        ("a connection token", connection.as_str().expect("a text").to_owned()),
        ("keys of somebody else", sign(&genuine, &KeySet::generate(now()))),
        ("keys of another kind", sign(&genuine, &signing_keys(&stand, Kind::Connection).await)),
        ("another server's", forge(&|claims| claims.server_uid = session.metadata.uid.clone().expect("a uid"))),
        ("an expired one", forge(&|claims| (claims.iat, claims.exp) = (second - 61, second - 1))),
        ("one of the future", forge(&|claims| (claims.iat, claims.exp) = (second + 3600, second + 3660))),
    ] {
        assert_eq!(ask(Some(&token)).await, 401, "{what}");
    }
    let elsewhere = forge(&|claims| claims.session_id = uuid::Uuid::new_v4().to_string());
    assert_eq!(ask(Some(&elsewhere)).await, 404, "a session that is not there");
    assert_eq!(ask(Some(&forge(&|claims| claims.attempt += 1))).await, 404, "another attempt's");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn the_broker_answers_only_to_an_access_token_that_it_gave_out() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("access").await;
    sessions.create("desk", &json!({})).await;
    let id = sessions.until_ready("desk").await.id().to_owned();
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    let rest = client.log_in().await.expect("the client logs in");

    let path = format!("/sessionConnectionData/{id}/ann");
    let none = client.call_without_token(Method::GET, &path).await;
    assert_eq!((none.status, none.body), (401, json!({"error": "No authorization header"})));
    let none = client.call_without_token(Method::POST, "/createSessions").await;
    assert_eq!((none.status, none.body), (401, json!({"error": "No authorization header"})));

    let wrong = client.with_password("wrong").request_token().await.expect("the broker answers");
    assert_eq!((wrong.status, wrong.body), (401, json!({"error": "invalid_client"})));
    let stranger = Rest::new(
        stand.setting("BROKER_URL"),
        std::path::Path::new(stand.setting("BROKER_CA")),
        &uuid::Uuid::new_v4().to_string(),
        "x",
    );
    let unknown = stranger.request_token().await.expect("the broker answers");
    assert_eq!((unknown.status, unknown.body), (401, json!({"error": "invalid_client"})));

    let keys = signing_keys(&stand, Kind::Access).await;
    let genuine: AccessClaims = claims(rest.token());
    let second = now().as_second();
    let same = sign(&genuine, &keys);
    assert_eq!(client.with_token(&same).get(&path).await.status, 200, "forged tokens are well formed");
    let expired = AccessClaims { iat: second - 3600, exp: second - 1, ..genuine.clone() };
    let other_credential = AccessClaims { credential: format!("sha256:{}", "0".repeat(64)), ..genuine.clone() };
    let other_client = AccessClaims { sub: uuid::Uuid::new_v4().to_string(), ..genuine.clone() };
    let connection = rest.connection_data(&id, "ann").await.body["ConnectionToken"].clone();
    for (what, token) in [
        ("nonsense", "nonsense".to_owned()),
        ("an expired one", sign(&expired, &keys)),
        ("keys of somebody else", sign(&genuine, &KeySet::generate(now()))),
        ("a credential that is not the client's", sign(&other_credential, &keys)),
        ("a client that is not there", sign(&other_client, &keys)),
        ("a connection token", connection.as_str().expect("a text").to_owned()),
    ] {
        let answer = client.with_token(&token).get(&path).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(!answer.error().is_empty(), "{what}: {answer:?}");
        let answer = client.with_token(&token).post("/describeSessions", &json!({})).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
    }
    sessions.delete_namespace().await;
}
