//! Who may call the broker, and what is written down of it, on two replicas.

use std::fs;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dcv_operator::api::client::ApiClient;
use dcv_operator::token;
use dcv_operator::token::AccessClaims;
use dcv_operator::token::AgentClaims;
use dcv_operator::token::Claims;
use dcv_operator::token::KeySet;
use dcv_operator::token::Kind;
use dcv_operator::token::Password;
use e2e::Stand;
use e2e::eventually;
use e2e::now;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const EXPIRED: &str = "The access token has expired";
const INVALID: &str = "Invalid access token";
const NO_CREDENTIAL: &str = "The credential of the access token is no longer valid";

/// Waits, a second at most, until every broker answers a call with this status and text.
async fn until_all_answer(stand: &Stand, caller: &LoggedIn, status: u16, text: Option<&str>) {
    for url in stand.broker_urls() {
        let caller = caller.at(&url);
        eventually(&format!("{url} to answer {status} {text:?}"), seconds(1), async || {
            let answer = caller.post("/describeSessions", &json!({})).await;
            let is_so = answer.status == status && text.is_none_or(|text| answer.error() == text);
            if is_so { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

/// The only client of a namespace.
async fn object(clients: &Api<ApiClient>) -> ApiClient {
    let mut found = clients.list(&ListParams::default()).await.expect("clients can be listed").items;
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn patch(clients: &Api<ApiClient>, spec: Value) {
    let name = object(clients).await.name_any();
    let patch = Patch::Merge(json!({"spec": spec}));
    clients.patch(&name, &PatchParams::default(), &patch).await.expect("an administrator changes clients");
}

#[tokio::test]
async fn what_happens_to_a_client_happens_to_its_tokens_within_a_second_on_every_replica() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("matrix").await;
    let clients = Api::<ApiClient>::namespaced(stand.client(), &sessions.namespace);
    let rest = stand.rest_client(&sessions.namespace, json!({"tokenLifetimeSeconds": 600})).await;
    let first = object(&clients).await.spec.credentials.remove(0);
    let token = rest.request_token().await.expect("the broker answers");
    assert_eq!(token.body["expires_in"], 600);
    let old = rest.log_in().await.expect("the client logs in");
    until_all_answer(&stand, &old, 200, None).await;

    patch(&clients, json!({"suspended": true})).await;
    until_all_answer(&stand, &old, 401, Some("The client is suspended")).await;
    let refused = rest.request_token().await.expect("the broker answers");
    assert_eq!((refused.status, refused.error()), (401, "invalid_client"));
    patch(&clients, json!({"suspended": false})).await;
    until_all_answer(&stand, &old, 200, None).await;

    // A rotation: for a while both passwords are good, and the tokens of both.
    let next = Password::generate();
    patch(&clients, json!({"credentials": [{"hash": first.hash}, {"hash": next.hash()}]})).await;
    let rotated = rest.with_password(next.reveal());
    let new = eventually("the next password to be known", seconds(1), async || rotated.log_in().await).await;
    until_all_answer(&stand, &new, 200, None).await;
    until_all_answer(&stand, &old, 200, None).await;
    rest.log_in().await.expect("the old password is still good");
    patch(&clients, json!({"credentials": [{"hash": next.hash()}]})).await;
    until_all_answer(&stand, &old, 401, Some(NO_CREDENTIAL)).await;
    until_all_answer(&stand, &new, 200, None).await;
    assert!(rest.log_in().await.is_err(), "the old password is no longer good");

    let end = now() + jiff::SignedDuration::from_secs(2);
    patch(&clients, json!({"credentials": [{"hash": next.hash(), "expireTime": end.to_string()}]})).await;
    eventually("the credential to expire", seconds(5), async || {
        let answer = new.post("/describeSessions", &json!({})).await;
        if answer.status == 401 && now() >= end { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    // The controller may have noticed too, and then accepts no client without a password.
    until_all_answer(&stand, &new, 401, None).await;
    assert!(rotated.log_in().await.is_err(), "an expired password is no longer good");
    patch(&clients, json!({"credentials": [{"hash": next.hash()}], "tokenLifetimeSeconds": 60})).await;
    until_all_answer(&stand, &new, 200, None).await;
    let short = eventually("the new lifetime", seconds(1), async || {
        let answer = rotated.request_token().await.map_err(|error| error.to_string())?;
        if answer.body["expires_in"] == 60 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let claims = short.body["access_token"].as_str().and_then(|token| token.split('.').nth(1)).expect("a token");
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("claims");
    assert_eq!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, start)| end - start), Some(60));

    let name = object(&clients).await.name_any();
    clients.delete(&name, &DeleteParams::default()).await.expect("an administrator deletes clients");
    until_all_answer(&stand, &new, 401, Some("The client no longer exists")).await;
    assert!(rotated.log_in().await.is_err(), "a client that is gone does not log in");
    sessions.delete_namespace().await;
}

/// The keys of a kind of token, as an administrator can read them.
async fn keys(stand: &Stand, kind: Kind) -> KeySet {
    let secrets = Api::<Secret>::namespaced(stand.client(), stand.setting("OPERATOR_NAMESPACE"));
    let secret = secrets.get(kind.secret_name()).await.expect("the keys are there");
    KeySet::parse(&secret.data.expect("it has data")[token::KEYS_ENTRY].0).expect("it holds keys")
}

fn signed<C: Claims>(claims: &C, keys: &KeySet) -> String {
    token::sign(claims, keys.signer(now()).expect("a key signs")).expect("it can be signed")
}

/// What a desktop server is answered about a token.
async fn verified(stand: &Stand, session: &str, token: &str) -> String {
    let ca = fs::read(stand.setting("BROKER_CA")).expect("the authority is there");
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).expect("it is PEM")])
        .build()
        .expect("a client of one certificate");
    let request = http
        .post(stand.setting("VERIFIER_URL"))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("sessionId={session}&authenticationToken={token}"));
    request.send().await.expect("the verifier answers").text().await.expect("it is text")
}

#[tokio::test]
async fn every_wrong_token_is_refused_in_the_documented_words_by_every_replica() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("tokens").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await;
    let good = rest.log_in().await.expect("the client logs in");
    let id = good.create(json!({"Name": "a", "Owner": "ann", "Type": "VIRTUAL"})).await;
    good.until_state(&id, "READY").await;
    let connection =
        good.connection_data(&id, "ann").await.body["ConnectionToken"].as_str().expect("a token").to_owned();
    let parts: Vec<_> = good.token().split('.').collect();
    let claims: AccessClaims =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).expect("base64")).expect("claims of ours");
    let (access, agent) = (keys(&stand, Kind::Access).await, keys(&stand, Kind::Agent).await);
    let foreign = KeySet::generate(now());
    let seconds = now().as_second();
    let for_agents = AgentClaims {
        action: token::agent::Action::Screenshot,
        server_uid: "u".into(),
        session_id: id.clone(),
        attempt: 1,
        client_uid: claims.sub.clone(),
        iat: seconds,
        exp: seconds + 60,
        jti: "j".into(),
        aud: Kind::Agent.audience().into(),
    };
    let other = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("it logs in");
    let spliced = format!("{}.{}.{}", parts[0], other.token().split('.').nth(1).expect("claims"), parts[2]);
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#), parts[1]);
    let changed = |change: fn(&mut AccessClaims)| {
        let mut claims = claims.clone();
        change(&mut claims);
        signed(&claims, &access)
    };
    for (case, token, text) in [
        ("not a token", "nonsense".to_owned(), INVALID),
        ("without a signature", format!("{}.{}", parts[0], parts[1]), INVALID),
        ("unsigned", unsigned, INVALID),
        ("with another one's claims", spliced, INVALID),
        ("signed by a stranger", signed(&claims, &foreign), INVALID),
        ("signed for agents", signed(&claims, &agent), INVALID),
        ("for a desktop", connection.clone(), INVALID),
        ("for an agent", signed(&for_agents, &agent), INVALID),
        ("for an agent, by our key", signed(&for_agents, &access), INVALID),
        ("for another audience", changed(|claims| claims.aud = Kind::Connection.audience().into()), INVALID),
        ("of tomorrow", changed(|claims| claims.iat += 86_400), INVALID),
        ("expired", changed(|claims| claims.exp = claims.iat), EXPIRED),
        ("of an unknown client", changed(|claims| claims.sub = "u".into()), "The client no longer exists"),
        ("of an unknown credential", changed(|claims| claims.credential = "sha256:0".into()), NO_CREDENTIAL),
    ] {
        for url in stand.broker_urls() {
            let answer = rest.at(&url).with_token(&token).post("/describeSessions", &json!({})).await;
            assert_eq!((answer.status, answer.error()), (401, text), "{case}");
        }
    }
    until_all_answer(&stand, &good, 200, None).await;
    for url in stand.broker_urls() {
        let answer =
            rest.at(&url).call_without_token(reqwest::Method::GET, "/sessionConnectionData/aSession/aOwner").await;
        assert_eq!((answer.status, &answer.body), (401, &json!({"error": "No authorization header"})));
    }
    assert!(verified(&stand, &id, &connection).await.contains("<auth result=\"yes\">"));
    for token in [good.token(), &signed(&for_agents, &agent)] {
        assert!(verified(&stand, &id, token).await.contains("<auth result=\"no\">"));
    }
    good.delete(&id, "ann").await;
    sessions.delete_namespace().await;
}

fn key_of(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a header")).expect("base64");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a key id").to_owned()
}

#[tokio::test]
async fn keys_are_renewed_when_asked_for_and_revoked_ones_are_good_for_nothing_at_once() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("keys").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await;
    let first = rest.log_in().await.expect("the client logs in");
    let id = first.create(json!({"Name": "a", "Owner": "ann", "Type": "VIRTUAL"})).await;
    first.until_state(&id, "READY").await;
    let mut pages = json!({"MaxResults": 1});
    let more = first.create(json!({"Name": "b", "Owner": "ann", "Type": "VIRTUAL"})).await;
    pages["NextToken"] = first.post("/describeSessions", &pages).await.body["NextToken"].clone();

    assert_eq!(stand.plugin(&["keys", "renew"], "").await, "Keys renewed.\n");
    let second = eventually("tokens to be signed with the new key", seconds(1), async || {
        let caller = rest.log_in().await?;
        if key_of(caller.token()) == key_of(first.token()) { Err("the old one".to_owned()) } else { Ok(caller) }
    })
    .await;
    until_all_answer(&stand, &first, 200, None).await;
    until_all_answer(&stand, &second, 200, None).await;
    for url in stand.broker_urls() {
        let page = second.at(&url).post("/describeSessions", &pages).await;
        assert_eq!((page.status, page.list("Sessions").len()), (200, 1), "pages go on: {page:?}");
    }

    let connection =
        second.connection_data(&id, "ann").await.body["ConnectionToken"].as_str().expect("a token").to_owned();
    assert!(verified(&stand, &id, &connection).await.contains("<auth result=\"yes\">"));
    assert_eq!(
        stand.plugin(&["keys", "renew", "--kind", "access,connection", "--revoke"], "").await,
        "Keys renewed.\n"
    );
    until_all_answer(&stand, &first, 401, Some(INVALID)).await;
    until_all_answer(&stand, &second, 401, Some(INVALID)).await;
    eventually("the connection token to be refused", seconds(1), async || {
        let verdict = verified(&stand, &id, &connection).await;
        if verdict.contains("<auth result=\"no\">") { Ok(()) } else { Err(verdict) }
    })
    .await;
    let third = rest.log_in().await.expect("the client logs in again");
    until_all_answer(&stand, &third, 200, None).await;
    let again = eventually("connection tokens to be signed with the new key", seconds(1), async || {
        let data = third.connection_data(&id, "ann").await;
        let token = data.body["ConnectionToken"].as_str().ok_or_else(|| format!("{data:?}"))?.to_owned();
        if key_of(&token) == key_of(&connection) { Err("the old one".to_owned()) } else { Ok(token) }
    })
    .await;
    assert!(verified(&stand, &id, &again).await.contains("<auth result=\"yes\">"));
    let page = third.post("/describeSessions", &pages).await;
    assert_eq!(page.status, 400, "its seal was revoked too: {page:?}");
    third.delete(&id, "ann").await;
    third.delete(&more, "ann").await;
    sessions.delete_namespace().await;
}

/// Everything that every process of the stand has logged.
fn logs(stand: &Stand) -> String {
    let folder = fs::read_dir(stand.folder().join("logs")).expect("there are logs");
    folder.flatten().map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
}

/// The lines of a target with this request id.
fn lines(stand: &Stand, target: &str, request_id: &str) -> Vec<Value> {
    let lines = logs(stand);
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["logger"] == target && line["request_id"] == request_id).collect()
}

#[tokio::test]
async fn requests_are_found_in_logs_and_on_objects_and_secrets_nowhere() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("logs").await;
    let rest = stand.rest_client(&sessions.namespace, json!({"manageServers": true})).await;
    let token = rest.request_token().await.expect("the broker answers");
    let caller = rest.log_in().await.expect("the client logs in");
    let wrong = rest.with_password("a-guessed-password").request_token().await.expect("the broker answers");
    assert_eq!(wrong.status, 401);
    let permissions = "[permissions]\n%owner% allow builtin\nzoe-the-guest allow display\n";
    let item = json!({"Name": "a", "Owner": "ann", "Type": "VIRTUAL", "PermissionsFile": STANDARD.encode(permissions)});
    let bad = json!({"Name": "a", "Owner": "ann", "Type": "NEITHER"});
    let created = caller.post("/createSessions", &json!([item, bad])).await;
    let id = created.successful()[0]["Id"].as_str().expect("an id").to_owned();
    let request = created.body["RequestId"].as_str().expect("a request id").to_owned();
    let object = find(&stand, &sessions, &id).await;
    assert_eq!(object.annotations()["dcv-operator.io/request-id"], request);
    caller.until_state(&id, "READY").await;
    let data = caller.connection_data(&id, "zoe-the-guest").await;
    let connection = data.body["ConnectionToken"].as_str().expect("a token").to_owned();
    assert!(verified(&stand, &id, &connection).await.contains("yes"));
    assert!(verified(&stand, &id, &format!("{connection}x")).await.contains("no"));
    let deleted = caller.post("/deleteSessions", &json!([{"SessionId": id, "Owner": "ann"}])).await;
    let delete_request = deleted.body["RequestId"].as_str().expect("a request id").to_owned();
    caller.until_gone(&id).await;
    let server = stand.servers().get(&stand.server(1)).await.expect("the server is there");
    let server_id = server.uid().expect("it has one");
    let closed = caller.post("/closeServers", &json!([{"ServerId": server_id}])).await;
    assert_eq!(closed.successful().len(), 1, "{closed:?}");
    let server = stand.servers().get(&stand.server(1)).await.expect("the server is there");
    assert_eq!(server.annotations()["dcv-operator.io/request-id"], closed.body["RequestId"]);
    let audit = lines(&stand, "audit", closed.body["RequestId"].as_str().expect("a request id"));
    assert_eq!(
        (audit.len(), &audit[0]["msg"], &audit[0]["object"]),
        (1, &json!("server closed"), &json!(stand.server(1)))
    );
    let opened = caller.post("/openServers", &json!([{"ServerId": server_id}])).await;
    assert_eq!(opened.successful().len(), 1, "{opened:?}");

    let access = lines(&stand, "access", &request);
    assert_eq!(access.len(), 1, "{access:?}");
    let line = &access[0];
    let brief = [&line["operation"], &line["status"], &line["items"], &line["failed"], &line["peer"]];
    assert_eq!(brief, [&json!("/createSessions"), &json!(200), &json!(2), &json!(1), &json!("127.0.0.1")]);
    assert!(line["client"].as_str().is_some_and(|client| client.starts_with(&sessions.namespace)), "{line}");
    let full_name = format!("{}/{}", sessions.namespace, object.name_any());
    for (request, change) in [(&request, "session created"), (&delete_request, "session deleted")] {
        let audit = lines(&stand, "audit", request);
        assert_eq!(audit.len(), 1, "{audit:?}");
        let brief = [&audit[0]["msg"], &audit[0]["object"], &audit[0]["uid"]];
        assert_eq!(brief, [&json!(change), &json!(full_name), &json!(object.uid())]);
    }
    let text = logs(&stand);
    let encoded = STANDARD.encode(permissions);
    let second_token = token.body["access_token"].as_str().expect("a token");
    for secret in
        [rest.password(), "a-guessed-password", caller.token(), second_token, &connection, "zoe-the-guest", &encoded]
    {
        let signature = secret.rsplit('.').next().expect("the last part");
        assert!(!text.contains(secret) && !text.contains(signature), "a log holds {secret}");
    }
    sessions.delete_namespace().await;
}

async fn find(stand: &Stand, sessions: &Sessions, id: &str) -> dcv_operator::api::DcvSession {
    let all = stand.all_sessions().await;
    let found = all.into_iter().find(|session| session.id() == id).expect("the session is an object");
    assert_eq!(found.namespace().as_deref(), Some(sessions.namespace.as_str()));
    found
}

#[tokio::test]
async fn hostile_clients_hold_up_nobody_and_those_who_ask_too_often_are_told_to_wait() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("limits").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.at(&stand.broker_urls()[0]);
    let other = stand.rest_client(&sessions.namespace, json!({})).await.at(&stand.broker_urls()[0]);
    let flags = ["--max-api-requests-per-second=20", "--max-connections=150"];
    let limited = stand.role("broker-1").kill().await.restart_with(&flags).await;
    let caller = eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    let address: SocketAddr =
        rest.base().replace("https://localhost", "127.0.0.1").parse().expect("a port of this machine");
    let mut hostile = Vec::new();
    for number in 0..400 {
        // Nothing, the beginning of a handshake, and no handshake at all.
        let mut stream = TcpStream::connect(address).await.expect("there is room");
        let opening: &[u8] = [&[][..], &[0x16, 0x03, 0x01], b"GET / HTTP/1.1\r\n"][number % 3];
        let _ = stream.write_all(opening).await;
        hostile.push(stream);
    }
    for _ in 0..10 {
        assert_eq!(caller.post("/describeSessions", &json!({})).await.status, 200);
    }
    let other = other.log_in().await.expect("another client is not held up");
    let calls = (0..60).map(|_| async { caller.post("/describeSessions", &json!({})).await });
    let answers = futures::future::join_all(calls).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty(), "sixty at once are too many");
    for answer in refused {
        assert_eq!((answer.status, answer.error()), (429, "Too many requests, try again later"));
    }
    assert_eq!(other.post("/describeSessions", &json!({})).await.status, 200);
    drop(hostile);
    limited.kill().await.restart_without(&flags).await;
    eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    sessions.delete_namespace().await;
}

/// What another authorization server says.
#[derive(Serialize, Deserialize)]
struct Foreign {
    iss: String,
    sub: String,
    scope: String,
    team: String,
    exp: i64,
}

impl Claims for Foreign {
    const KIND: Kind = Kind::Access;
    fn expires(&self) -> i64 {
        self.exp
    }
}

/// A web server that has nothing but a key set; ends when it is dropped.
struct KeyServer(Child);

impl KeyServer {
    fn start(stand: &Stand, port: u16, keys: &KeySet) -> Self {
        let folder = stand.folder().join("issuer");
        fs::create_dir_all(&folder).expect("the stand's folder can be written");
        let set = serde_json::to_string(&keys.public()).expect("keys are plain data");
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{set}");
        fs::write(folder.join("jwks.json"), answer).expect("the stand's folder can be written");
        let child = Command::new("openssl")
            .args(["s_server", "-HTTP", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
            .args([
                &"-cert".into(),
                &stand.folder().join("broker.crt"),
                &"-key".into(),
                &stand.folder().join("broker.key"),
            ])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl can be run");
        Self(child)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn tokens_of_another_authorization_server_are_good_in_the_namespace_they_name() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("issuer").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.at(&stand.broker_urls()[0]);
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let keys = KeySet::generate(now() - jiff::SignedDuration::from_secs(1));
    let server = KeyServer::start(&stand, port, &keys);
    let file = stand.folder().join("issuers.toml");
    let text = format!(
        "[[issuer]]\nurl = 'https://localhost:{port}/jwks.json'\nissuer = 'https://login.example'\n\
         algorithms = ['EdDSA']\nscope = 'dcv-session-manager/sm_scope'\nnamespace-claim = 'team'\nca-file = '{}'\n",
        stand.setting("BROKER_CA")
    );
    fs::write(&file, text).expect("the stand's folder can be written");
    let flag = format!("--authorization-servers-file={}", file.display());
    let broker = stand.role("broker-1").kill().await.restart_with(&[&flag]).await;
    let own = eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    let token = |team: &str, scope: &str| {
        let exp = now().as_second() + 600;
        let claims = Foreign {
            iss: "https://login.example".into(),
            sub: "portal".into(),
            scope: scope.into(),
            team: team.into(),
            exp,
        };
        rest.with_token(&signed(&claims, &keys))
    };
    let caller = token(&sessions.namespace, "openid dcv-session-manager/sm_scope");
    eventually("the issuer's keys to be known", seconds(40), async || {
        let answer = caller.post("/describeSessions", &json!({})).await;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let id = caller.create(json!({"Name": "a", "Owner": "ann", "Type": "VIRTUAL"})).await;
    caller.until_state(&id, "READY").await;
    assert!(own.describe(&id).await.is_some(), "it is the tenant's, whoever made it");
    let elsewhere = token("elsewhere", "dcv-session-manager/sm_scope");
    assert_eq!(elsewhere.describe(&id).await, None);
    let without = token(&sessions.namespace, "openid").post("/describeSessions", &json!({})).await;
    assert_eq!((without.status, without.error()), (401, "The access token does not have the scope"));
    drop(server);
    assert!(caller.describe(&id).await.is_some(), "the keys are known");
    caller.delete(&id, "ann").await;

    // The broker starts without the issuer, for those who do not need it.
    let broker = broker.kill_and_restart().await;
    let own = eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    assert_eq!(own.post("/describeSessions", &json!({})).await.status, 200);
    let answer = caller.post("/describeSessions", &json!({})).await;
    assert_eq!((answer.status, answer.error()), (401, INVALID));
    broker.kill().await.restart_without(&[&flag]).await;
    eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn where_calls_need_no_token_everybody_is_in_the_one_namespace() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("open").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.at(&stand.broker_urls()[0]);
    let namespace = format!("--no-authorization-namespace={}", sessions.namespace);
    let flags = ["--enable-authorization=false", &namespace];
    let broker = stand.role("broker-1").kill().await.restart_with(&flags).await;
    let anyone = rest.with_token("whatever");
    eventually("the broker to be back", seconds(20), async || {
        anyone.try_post("/describeSessions", &json!({})).await.map_err(|error| error.to_string())
    })
    .await;
    let id = eventually("a session to be made", seconds(20), async || {
        let answer = anyone.post("/createSessions", &json!([{"Name": "a", "Owner": "ann", "Type": "VIRTUAL"}])).await;
        let id = answer.body["SuccessfulList"][0]["Id"].as_str().map(str::to_owned);
        id.ok_or_else(|| format!("{answer:?}"))
    })
    .await;
    find(&stand, &sessions, &id).await;
    anyone.until_state(&id, "READY").await;
    let bare = rest.call_without_token(reqwest::Method::POST, "/describeSessions").await;
    assert_eq!((bare.status, bare.list("Sessions").len()), (200, 1), "{bare:?}");
    anyone.delete(&id, "ann").await;
    broker.kill().await.restart_without(&flags).await;
    eventually("the broker to be back", seconds(20), async || rest.log_in().await).await;
    sessions.delete_namespace().await;
}
