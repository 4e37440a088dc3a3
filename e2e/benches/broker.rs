//! How fast a broker answers with 50,000 sessions in its caches, on a real API server; prints JSON.
//!
//! Controller and agents are dead meanwhile: what is measured is the broker, and this program and the API server on the same
//! processors. `bare_axum_rps` is a route that returns the same bytes over the same TLS, with nothing behind it.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use dcv_operator::api::server::DcvServer;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::api_server;
use e2e::eventually;
use e2e::host::processor_seconds;
use e2e::host::resident_mib;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use futures::StreamExt;
use futures::stream;
use kube::Client;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use reqwest::Certificate;
use serde_json::Value;
use serde_json::json;

const SESSIONS: usize = 50_000;
const PAGES: usize = 500;
const WRITES_AT_ONCE: usize = 32;
const CLIENTS: usize = 16;
const SMALL_REQUESTS: usize = 20_000;
const TOKENS: usize = 5_000;

/// How many sessions: `BENCH_SESSIONS`, or [`SESSIONS`].
#[expect(clippy::disallowed_methods, reason = "a benchmark has no settings")]
fn sessions_wanted() -> usize {
    env::var("BENCH_SESSIONS").map_or(SESSIONS, |count| count.parse().expect("BENCH_SESSIONS is a number"))
}

/// One session on a server, as its agent has it when it runs.
async fn make_session(api: &kube::Api<DcvSession>, number: usize, server: &DcvServer) {
    let name = format!("session-{number}");
    let host = server.status.as_ref().expect("its agent has reported");
    let object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": name, "finalizers": ["dcv-operator.io/session-cleanup"]},
        "spec": {"owner": format!("user-{}", number % 500), "type": "VIRTUAL", "displayName": format!("Desktop {number}"),
            "requirements": "tag:pool = 'render'"},
    });
    let object = serde_json::from_value(object).expect("a session");
    let made = api.create(&PostParams::default(), &object).await.expect("it can be created");
    let id = made.metadata.uid.expect("every object has one");
    let at = "2026-01-01T00:00:00Z";
    let condition = |type_: &str, reason: &str| json!({"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": at});
    let status = json!({"status": {
        "state": "READY", "serverName": server.metadata.name, "serverUid": server.metadata.uid, "sessionId": id, "attempt": 1,
        "numOfConnections": 1,
        "server": {"ip": host.ip, "port": host.port, "webUrlPath": host.web_url_path, "endpoints": host.endpoints},
        "conditions": [condition("Scheduled", "Bound"), condition("Created", "Created"), condition("Ready", "AcceptingClients")],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("it can be told READY");
}

/// A client that keeps its connections, as portals do.
struct Portal {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Portal {
    fn new(ca: &Path, base: &str, token: &str) -> Self {
        let ca = fs::read(ca).expect("hack/up wrote the brokers' certificate");
        let http = reqwest::Client::builder()
            .tls_certs_only([Certificate::from_pem(&ca).expect("it is PEM")])
            .build()
            .expect("a client of one certificate");
        Self { http, base: base.to_owned(), token: token.to_owned() }
    }

    async fn post(&self, path: &str, body: &Value) -> Vec<u8> {
        let request = self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        let response = request.send().await.expect("it answers");
        assert_eq!(response.status(), 200);
        response.bytes().await.expect("it answers whole").to_vec()
    }

    /// Requests a second with [`CLIENTS`] at once.
    async fn rate(&self, count: usize, path: &str, body: &Value) -> f64 {
        let start = Instant::now();
        stream::iter(0..count).for_each_concurrent(CLIENTS, async |_| drop(self.post(path, body).await)).await;
        count as f64 / start.elapsed().as_secs_f64()
    }
}

/// How often the API server was asked for our kinds, by whoever.
async fn reads(client: &Client) -> u64 {
    let is_read = |labels: &str| labels.contains("verb=\"GET\"") || labels.contains("verb=\"LIST\"");
    api_server::requests(client, |labels| labels.contains("group=\"dcv-operator.io\"") && is_read(labels)).await
}

/// Every page of 1,000, [`PAGES`] times in all: the times in milliseconds, ascending.
async fn walk(portal: &Portal) -> Vec<f64> {
    let mut times = Vec::new();
    let mut question = json!({"MaxResults": 1000});
    while times.len() < PAGES {
        let start = Instant::now();
        let page = portal.post("/describeSessions", &question).await;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        let page: Value = serde_json::from_slice(&page).expect("it is JSON");
        assert!(!page["Sessions"].as_array().expect("a list").is_empty());
        question["NextToken"] = page.get("NextToken").cloned().unwrap_or_default();
    }
    times.sort_by(f64::total_cmp);
    times
}

/// This program again, as a server that returns one answer.
struct Bare(Child);

impl Bare {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process ids are small")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the bytes of a file, until it is killed.
async fn serve_bare(port: u16, folder: &Path, answer: &Path) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let bytes = axum::body::Bytes::from(fs::read(answer).expect("the answer is there"));
    let tls =
        RustlsConfig::from_pem_file(folder.join("broker.crt"), folder.join("broker.key")).await.expect("it is PEM");
    let route = post(async move |_: axum::body::Bytes| ([("content-type", "application/json")], bytes));
    let app = Router::new().route("/describeSessions", route);
    axum_server::bind_rustls(SocketAddr::from(([127, 0, 0, 1], port)), tls)
        .serve(app.into_make_service())
        .await
        .expect("it serves");
}

async fn start_bare(stand: &Stand, portal: &Portal, answer: &[u8]) -> (Bare, Portal) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let file = stand.folder().join("bare-answer.json");
    fs::write(&file, answer).expect("the folder of the stand can be written");
    let program = env::current_exe().expect("it runs");
    let child = Command::new(program).arg("bare").arg(free.to_string()).arg(stand.folder()).arg(&file).spawn();
    let bare = Bare(child.expect("it can be run again"));
    let url = format!("https://localhost:{free}");
    let portal = Portal { http: portal.http.clone(), base: url, token: portal.token.clone() };
    eventually("the bare server to answer", seconds(10), async || {
        let request = portal.http.post(format!("{}/describeSessions", portal.base)).json(&json!({}));
        request.send().await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    (bare, portal)
}

async fn token_rate(stand: &Stand) -> f64 {
    let rest = stand.rest();
    let http = Portal::new(Path::new(stand.setting("BROKER_CA")), "", "").http;
    let url = format!("{}/oauth2/token?grant_type=client_credentials", stand.setting("BROKER_URL"));
    let (id, password) = (stand.setting("CLIENT_ID"), stand.setting("CLIENT_SECRET"));
    rest.log_in().await.expect("the client logs in");
    let start = Instant::now();
    let asks = stream::iter(0..TOKENS).for_each_concurrent(CLIENTS, async |_| {
        let response = http.post(&url).basic_auth(id, Some(password)).send().await.expect("it answers");
        assert_eq!(response.status(), 200);
        drop(response.bytes().await);
    });
    asks.await;
    TOKENS as f64 / start.elapsed().as_secs_f64()
}

async fn fill(sessions: &Sessions, servers: &[DcvServer], rest: &LoggedIn) {
    let wanted = sessions_wanted();
    let made = stream::iter(0..wanted).for_each_concurrent(WRITES_AT_ONCE, async |number| {
        make_session(&sessions.api, number, &servers[number % servers.len()]).await;
        if number % 5_000 == 0 {
            eprintln!("{number} of {wanted} sessions made");
        }
    });
    made.await;
    eventually("the broker to know them", seconds(120), async || {
        let last = rest.post("/describeSessions", &json!({"Filters": [{"Key": "owner", "Value": "user-1"}]})).await;
        let seen = last.list("Sessions").len();
        if seen == wanted.div_ceil(500) { Ok(()) } else { Err(format!("{seen} of one owner")) }
    })
    .await;
}

async fn measure() -> Value {
    let stand = Stand::bench().await;
    let sessions = stand.namespace("bench").await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    let controller = stand.role("controller-1").kill().await;
    let agent = stand.role("agent-1").kill().await;
    let rest = client.log_in().await.expect("the client logs in");
    let servers = stand.servers().list(&ListParams::default()).await.expect("servers can be listed").items;
    fill(&sessions, &servers, &rest).await;
    let token = rest.token().to_owned();
    let portal = Portal::new(Path::new(stand.setting("BROKER_CA")), stand.setting("BROKER_URL"), &token);

    let before = reads(&stand.client()).await;
    let times = walk(&portal).await;
    let api_reads = reads(&stand.client()).await - before;
    let rss_mib = resident_mib(stand.role("broker-1").pid());

    let page = json!({"MaxResults": 20});
    let answer = portal.post("/describeSessions", &page).await;
    let (bare, bare_portal) = start_bare(&stand, &portal, &answer).await;
    // One after the other, twice, so that what changes on the machine meanwhile does not favour one.
    let mut rates = (0.0, 0.0);
    let broker = stand.role("broker-1").pid();
    let processor = || (processor_seconds(broker), processor_seconds(bare.pid()));
    let before = processor();
    for _ in 0..2 {
        rates.0 += portal.rate(SMALL_REQUESTS / 2, "/describeSessions", &page).await / 2.0;
        rates.1 += bare_portal.rate(SMALL_REQUESTS / 2, "/describeSessions", &page).await / 2.0;
    }
    let after = processor();
    let microseconds = |seconds: f64| seconds * 1e6 / SMALL_REQUESTS as f64;
    let processor_us = (microseconds(after.0 - before.0), microseconds(after.1 - before.1));
    drop(bare);
    let token_rps = token_rate(&stand).await;

    let item = |number: usize| json!({"Name": format!("made {number}"), "Owner": "ann", "Type": "VIRTUAL", "EnqueueRequest": true});
    let items: Vec<_> = (0..1000).map(item).collect();
    let start = Instant::now();
    let made: Value = serde_json::from_slice(&portal.post("/createSessions", &json!(items)).await).expect("it is JSON");
    let create_1000_seconds = start.elapsed();
    assert_eq!(made["SuccessfulList"].as_array().map(Vec::len), Some(1000), "{}", made["UnsuccessfulList"][0]);

    drop((controller, agent));
    stand.down().await;
    let at = |percent: usize| times[times.len() * percent / 100];
    let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
    json!({
        "describe_p50_ms": rounded(at(50)),
        "describe_p99_ms": rounded(at(99)),
        "api_reads_per_request": rounded(api_reads as f64 / times.len() as f64),
        "create_1000_seconds": rounded(create_1000_seconds.as_secs_f64()),
        "describe20_rps": rates.0.round(),
        "bare_axum_rps": rates.1.round(),
        "describe20_processor_us": rounded(processor_us.0),
        "bare_axum_processor_us": rounded(processor_us.1),
        "token_rps": token_rps.round(),
        "rss_mib": rounded(rss_mib),
    })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let arguments: Vec<_> = env::args().collect();
    if let [_, word, port, folder, answer] = &arguments[..]
        && word == "bare"
    {
        let port = port.parse().expect("a port");
        return runtime.block_on(serve_bare(port, Path::new(folder), Path::new(answer)));
    }
    println!("{}", runtime.block_on(measure()));
    runtime.shutdown_timeout(Duration::from_secs(1));
}
