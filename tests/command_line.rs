//! `kubectl dcv` as a process that asks a broker: what it sends, what it prints, and what it exits with.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::http::Method;
use axum::http::StatusCode;
use axum::http::Uri;
use axum_server::tls_rustls::RustlsConfig;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::Command;

const TOKEN: &str = r#"{"access_token": "the-token", "token_type": "Bearer", "expires_in": 3600}"#;
const GOOD: &str = r#"{"RequestId":"r","SuccessfulList":[{"Id":"i","Name":"n"}],"UnsuccessfulList":[]}"#;
const NEVER: (u16, &str) = (0, "");

/// What a broker got: `POST /path`, headers and body.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: String,
}

/// A broker that answers as a test says, and a folder with the certificate of its authority and a configuration file.
struct Broker {
    url: String,
    folder: TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Broker {
    /// `answer` gets method and path without query, and returns status and body; [`NEVER`]: no answer comes.
    async fn start(answer: fn(&str) -> (u16, &'static str)) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), certified.cert.pem()).unwrap();
        let key = certified.signing_key.serialize_pem().into_bytes();
        let tls = RustlsConfig::from_pem(certified.cert.pem().into_bytes(), key).await.unwrap();

        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let routes = Router::new().fallback(async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8(body.to_vec()).unwrap();
            let asked = uri.path_and_query().unwrap();
            log.lock().unwrap().push(Seen { line: format!("{method} {asked}"), headers, body });
            match answer(&format!("{method} {}", uri.path())) {
                NEVER => std::future::pending().await,
                (status, text) => (StatusCode::from_u16(status).unwrap(), text),
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(server.serve(routes.into_make_service()));
        let broker = Self { url, folder, seen };
        broker.configure(&format!(
            "[security]\nca-bundle = ca.pem\n[authentication]\nclient-id = the-id\nclient-password = the-password\n\
             [broker]\nurl = {}\n",
            broker.url
        ));
        broker
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("dcvsmcli.conf"), text).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// The command, with the configuration file in its usual place.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = plugin(arguments);
        command.env("XDG_CONFIG_HOME", self.folder.path());
        command
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command(arguments)).await
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|seen| seen.line.clone()).collect()
    }
}

/// The program, with nothing in its environment.
fn plugin(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-dcv"));
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Exit code, output and complaints.
async fn outcome(mut command: Command) -> (i32, String, String) {
    told(command.output().await.unwrap())
}

fn told(output: Output) -> (i32, String, String) {
    let code = output.status.code().expect("it ends by itself");
    (code, String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// What most brokers of these tests do.
fn content(line: &str) -> (u16, &'static str) {
    (200, if line == "POST /oauth2/token" { TOKEN } else { GOOD })
}

const CREATE: [&str; 7] = ["create-session", "--name", "n", "--owner", "ann", "--type", "virtual"];

#[tokio::test]
async fn a_call_logs_in_asks_and_prints_what_the_broker_answers() {
    let broker = Broker::start(content).await;
    let (code, out, complaints) = broker.run(&CREATE).await;
    let expected = "{\n  \"RequestId\": \"r\",\n  \"SuccessfulList\": [\n    {\n      \"Id\": \"i\",\n      \"Name\": \
                    \"n\"\n    }\n  ],\n  \"UnsuccessfulList\": []\n}\n";
    assert_eq!((code, out.as_str(), complaints.as_str()), (0, expected, ""));

    let seen = broker.seen.lock().unwrap().clone();
    let [login, call] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(login.line, "POST /oauth2/token?grant_type=client_credentials");
    assert_eq!(login.headers["authorization"], "Basic dGhlLWlkOnRoZS1wYXNzd29yZA==");
    assert_eq!(login.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(login.body, "");
    assert_eq!(call.line, "POST /createSessions");
    assert_eq!(call.headers["authorization"], "Bearer the-token");
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.body, r#"[{"Name":"n","Owner":"ann","Type":"VIRTUAL"}]"#);
}

#[tokio::test]
async fn a_token_of_the_environment_saves_the_login() {
    let broker = Broker::start(content).await;
    let arguments = ["get-session-connection-data", "--session-id", "i", "--user", r"DOMAIN\eve"];
    let mut command = broker.command(&arguments);
    command.env("DCV_SM_OAUTH2_TOKEN", "of-the-environment");
    assert_eq!(outcome(command).await.0, 0);
    let seen = broker.seen.lock().unwrap().clone();
    let [call] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(call.line, "GET /sessionConnectionData/i/DOMAIN%5Ceve");
    assert_eq!(call.headers["authorization"], "Bearer of-the-environment");
}

#[tokio::test]
async fn options_and_environment_do_without_a_file() {
    let broker = Broker::start(content).await;
    let ca = broker.path("ca.pem");
    let mut command = plugin(&["--broker", &broker.url, "--ca-bundle", ca.to_str().unwrap(), "describe-servers"]);
    command.env("DCV_SM_CLIENT_ID", "a").env("DCV_SM_CLIENT_PASSWORD", "b");
    command.env("DCV_SM_AUTH_SERVER_URL", format!("{}/elsewhere?scope=x", broker.url));
    // No token is answered elsewhere.
    let (code, out, complaint) = outcome(command).await;
    assert_eq!((code, out.as_str()), (255, ""), "{complaint}");
    assert_eq!(broker.lines(), ["POST /elsewhere?scope=x&grant_type=client_credentials"]);

    let mut command = plugin(&["describe-servers", "--broker", &broker.url, "--no-verify-ssl"]);
    command.env("DCV_SM_OAUTH2_TOKEN", "t");
    let (code, _, complaint) = outcome(command).await;
    assert_eq!(code, 0, "{complaint}");
    assert!(complaint.starts_with("warning: certificates are not checked"), "{complaint}");
}

#[tokio::test]
async fn debug_tells_what_is_asked_and_no_secret() {
    let broker = Broker::start(content).await;
    fs::write(broker.path("a.perm"), "[permissions]\n%owner% allow builtin\n").unwrap();
    let permissions = broker.path("a.perm");
    let arguments = ["--permissions-file", permissions.to_str().unwrap(), "--debug"];
    let mut command = broker.command(&[&CREATE[..], &arguments].concat());
    command.env("DCV_SM_AUTH_SERVER_URL", format!("{}/oauth2/token?client_secret=in-the-query", broker.url));
    let (code, out, told) = outcome(command).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains(&format!("debug: POST {}/createSessions\n", broker.url)), "{told}");
    assert!(told.contains("as client the-id") && told.contains("answered 200 OK"), "{told}");
    let sent = broker.seen.lock().unwrap().last().unwrap().body.clone();
    assert!(sent.contains("PermissionsFile"), "{sent}");
    for secret in ["the-password", "the-token", "in-the-query", "dGhlLWlkOnRoZS1w", "W3Blcm1pc3Npb25zXQ"] {
        assert!(!told.contains(secret) && !out.contains(secret), "{secret} in {told}{out}");
    }
}

#[tokio::test]
async fn what_is_wrong_here_is_told_without_asking() {
    let broker = Broker::start(content).await;
    let missing = broker.path("missing");
    let missing = missing.to_str().unwrap();
    for (arguments, code, complaint) in [
        (&["describe-sessions", "--conf", missing][..], 1, "missing: "),
        (&["describe-sessions", "--colour", "red"], 2, "--colour"),
        (&["describe-session"], 2, "describe-session"),
        (&["describe-sessions", "--max-results", "0"], 252, "--max-results"),
        (&["describe-sessions", "--broker", "broker"], 252, "--broker"),
        (&["describe-sessions", "--ca-bundle", missing], 253, "the CA bundle"),
    ] {
        let (found, out, complaints) = broker.run(arguments).await;
        assert_eq!((found, out.as_str()), (code, ""), "{arguments:?}: {complaints}");
        assert!(complaints.starts_with("error: ") && complaints.contains(complaint), "{complaints}");
    }
    broker.configure("[broker]\nurl\n");
    assert_eq!(broker.run(&["describe-sessions"]).await.0, 1);
    broker.configure("[authentication]\nclient-id = a\nclient-password = b\n");
    assert_eq!(broker.run(&["describe-sessions"]).await.0, 253, "no broker");
    broker.configure(&format!("[broker]\nurl = {}\n", broker.url));
    assert_eq!(broker.run(&["describe-sessions"]).await.0, 253, "no credentials");
    assert_eq!(broker.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_broker_refuses_is_told_in_its_words() {
    let broker = Broker::start(|line| match line {
        "POST /oauth2/token" => (200, TOKEN),
        "POST /describeSessions" => (400, r#"{"error": "MaxResults must be from 1 to 1000"}"#),
        "POST /describeServers" => (200, "<html>"),
        _ => (200, r#"{"SuccessfulList":[],"UnsuccessfulList":[{"FailureReason":"No DCV server found"}]}"#),
    })
    .await;
    let (code, out, complaint) = broker.run(&["describe-sessions"]).await;
    let words = "error: the broker answered 400: MaxResults must be from 1 to 1000\n";
    assert_eq!((code, out.as_str(), complaint.as_str()), (254, "", words));
    let (code, out, complaint) = broker.run(&CREATE).await;
    assert_eq!((code, complaint.as_str()), (254, ""), "an item that failed");
    assert!(out.contains("\"FailureReason\": \"No DCV server found\""), "{out}");
    let (code, out, complaint) = broker.run(&["describe-servers"]).await;
    assert_eq!((code, out.as_str()), (255, ""), "{complaint}");

    let broker = Broker::start(|_| (401, r#"{"error": "invalid_client"}"#)).await;
    let (code, _, complaint) = broker.run(&CREATE).await;
    let words = "error: the authentication server answered 401: invalid_client\n";
    assert_eq!((code, complaint.as_str()), (254, words));
    assert_eq!(broker.lines().len(), 1, "nothing is asked without a token");
}

#[tokio::test]
async fn who_cannot_be_asked_or_trusted_is_told_of() {
    let broker = Broker::start(content).await;
    broker
        .configure(&format!("[authentication]\nclient-id = a\nclient-password = b\n[broker]\nurl = {}\n", broker.url));
    let (code, _, complaint) = broker.run(&["describe-sessions"]).await;
    assert_eq!(code, 255, "a certificate of nobody: {complaint}");
    assert_eq!(broker.lines(), Vec::<String>::new());
    let (code, _, complaint) = broker.run(&["describe-sessions", "--broker", "https://127.0.0.1:1"]).await;
    assert_eq!(code, 255, "nobody listens: {complaint}");

    let mute = Broker::start(|_| NEVER).await;
    let (code, _, complaint) = mute.run(&["describe-sessions", "--request-timeout", "200ms"]).await;
    assert_eq!((code, complaint.as_str()), (255, "error: no answer from the authentication server within 0.2 s\n"));
}

#[tokio::test]
async fn an_interrupted_call_exits_with_130() {
    let mute = Broker::start(|_| NEVER).await;
    let child = mute.command(&["describe-sessions"]).spawn().unwrap();
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    while mute.lines().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(pid, Signal::SIGINT).unwrap();
    let (code, out, complaint) = told(child.wait_with_output().await.unwrap());
    assert_eq!((code, out.as_str(), complaint.as_str()), (130, "", "error: interrupted\n"));
}
