//! `enroll` against an API server that answers as told.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::Mutex;

use clap::Parser;
use serde_json::Value;

use super::super::error::words;
use super::super::mock;
use super::*;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    enroll: Enroll,
}

/// How it went.
struct Ran {
    answer: Result<Answer, Error>,
    printed: String,
    said: String,
    /// Method and path of each call.
    calls: Vec<String>,
    bodies: Vec<Value>,
}

impl Ran {
    fn data(&self) -> &str {
        &self.answer.as_ref().unwrap().data
    }
}

fn config() -> Config {
    let mut config = Config::new("https://api.example:6443".parse().unwrap());
    config.root_cert = Some(vec![b"certificate".to_vec()]);
    config
}

async fn run_with(
    config: Config,
    flags: &[&str],
    mut answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static,
) -> Ran {
    let calls: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let client = mock::client(move |method, path, body| {
        seen.lock().unwrap().push((format!("{method} {path}"), body.clone()));
        answer(method, path, &body)
    });
    let wanted = Cli::try_parse_from(["enroll", "lab7"].iter().chain(flags)).unwrap().enroll;
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let answer = enroll(&client, &config, &wanted, &mut voice, std::future::pending()).await;
    let (calls, bodies) = calls.lock().unwrap().drain(..).unzip();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { answer, printed: text(out), said: text(talk), calls, bodies }
}

async fn run(flags: &[&str], answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static) -> Ran {
    run_with(config(), flags, answer).await
}

/// A cluster that does not know the host.
fn fresh(_: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut object = body.clone();
    if path.ends_with("/token") {
        object["status"] = json!({"token": "the-token", "expirationTimestamp": "2026-11-28T05:00:00Z"});
    }
    (201, object)
}

/// One that does.
fn known(method: &str, path: &str, body: &Value) -> (u16, Value) {
    if path.ends_with("/token") { fresh(method, path, body) } else { mock::already_exists("it is there") }
}

const HOSTS: &str = "/api/v1/namespaces/dcv-hosts";

#[tokio::test]
async fn a_host_gets_an_account_a_secret_and_a_token_bound_to_it() {
    let ran = run(&["--with-token"], fresh).await;
    let expected = [
        format!("POST {HOSTS}/serviceaccounts"),
        format!("POST {HOSTS}/secrets"),
        format!("POST {HOSTS}/serviceaccounts/host-lab7/token"),
    ];
    assert_eq!(ran.calls, expected);
    assert_eq!(ran.bodies[0]["automountServiceAccountToken"], json!(false));
    assert_eq!(ran.bodies[1].get("data"), None);
    let asked = &ran.bodies[2]["spec"];
    assert_eq!(asked["boundObjectRef"], json!({"apiVersion": "v1", "kind": "Secret", "name": "host-lab7"}));
    assert_eq!(asked["expirationSeconds"], json!(3600));
    assert!(
        ran.data().starts_with("#!/bin/sh\n") && ran.data().contains("\nprintf %s 'the-token' >\"$folder/token\"\n"),
        "{}",
        ran.data()
    );
    let said = "serviceaccount/host-lab7 created\nsecret/host-lab7 created\n\
                a token was made, good until 2026-11-28T05:00:00Z: start the agent before\n";
    assert_eq!(ran.said, said);
}

/// `docs/dcv-hosts.md` shows the unit without what is only of this host.
#[tokio::test]
async fn the_unit_is_the_one_of_the_documentation() {
    let page = include_str!("../../../docs/dcv-hosts.md");
    let unit = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let ran = run(&["--with-token"], fresh).await;
    let is_command = |line: &&str| line.starts_with("ExecStart=");
    let made = ran.data().lines().find(is_command).unwrap();
    for line in unit.lines().filter(|line| !line.starts_with('#')) {
        let is_there = if is_command(&line) {
            line.split_whitespace().filter(|word| word.starts_with("--")).all(|flag| made.contains(flag))
        } else {
            ran.data().lines().any(|known| known == line)
        };
        assert!(is_there, "{line} is not in\n{}", ran.data());
    }
}

#[tokio::test]
async fn an_installation_beside_another_has_hosts_of_its_own() {
    let flags = ["--with-token", "--operator-namespace", "dcv-system-a", "--hosts-namespace", "dcv-hosts-a"];
    let ran = run(&flags, fresh).await;
    assert!(ran.calls.iter().all(|call| call.starts_with("POST /api/v1/namespaces/dcv-hosts-a/")), "{:?}", ran.calls);
    let script = ran.data();
    assert!(
        script.contains("    namespace: dcv-hosts-a\n") && script.contains(" --namespace dcv-system-a "),
        "{script}"
    );
    let flags = ["--revoke", "--hosts-namespace", "dcv-hosts-a"];
    let ran = run(&flags, with_server(json!({}), vec![])).await;
    assert_eq!(ran.calls, ["DELETE /api/v1/namespaces/dcv-hosts-a/secrets/host-lab7"]);
}

#[tokio::test]
async fn run_again_it_makes_a_new_token_and_says_so() {
    let ran = run(&["--with-token", "--token-lifetime", "24h"], known).await;
    assert_eq!(ran.bodies[2]["spec"]["expirationSeconds"], json!(86_400));
    assert!(ran.said.starts_with("serviceaccount/host-lab7 unchanged\nsecret/host-lab7 unchanged\n"), "{}", ran.said);
    assert!(ran.said.ends_with("; earlier ones stay good until they end\n"), "{}", ran.said);
}

#[tokio::test]
async fn no_token_is_printed_or_made_unless_it_is_asked_for() {
    let ran = run(&[], fresh).await;
    assert_eq!(ran.calls.len(), 2, "{:?}", ran.calls);
    assert!(!ran.data().contains("the-token") && ran.data().contains("kind: Config"), "{}", ran.data());
    assert!(ran.said.contains("kubectl create token host-lab7 -n dcv-hosts --duration 3600s"), "{}", ran.said);

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("lab7");
    let ran = run(&["--out", out.to_str().unwrap()], fresh).await;
    let shown = [ran.data(), &ran.printed, &ran.said].concat();
    assert!(!shown.contains("the-token"), "{shown}");
    assert!(ran.data().contains("ssh root@lab7 sh lab7/install.sh\n"), "{}", ran.data());
    assert_eq!(fs::read_to_string(out.join("token")).unwrap(), "the-token");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&out), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    let files = ["agent.conf", "ca.crt", "dcv-operator-agent.service", "install.sh", "kubeconfig", "token"];
    assert_eq!(names, files);
    assert!(fs::read_to_string(out.join("ca.crt")).unwrap().starts_with("-----BEGIN CERTIFICATE-----\n"));
}

#[tokio::test]
async fn whom_the_host_trusts_is_never_left_open() {
    let mut careless = config();
    careless.root_cert = None;
    careless.accept_invalid_certs = true;
    let published = |method: &str, path: &str, body: &Value| {
        if path.ends_with("/configmaps/kube-root-ca.crt") {
            return (200, json!({"data": {"ca.crt": "the cluster's\n"}}));
        }
        fresh(method, path, body)
    };
    let ran = run_with(careless.clone(), &["--with-token"], published).await;
    assert!(ran.data().contains("\nthe cluster's\n"), "{}", ran.data());
    let ran = run_with(careless, &["--with-token"], |_, _, _| mock::not_found("no such ConfigMap")).await;
    assert!(words(&ran.answer.unwrap_err()).contains("--certificate-authority"));
    assert_eq!(ran.calls.len(), 1, "nothing is made: {:?}", ran.calls);
}

#[tokio::test]
async fn an_address_that_hosts_cannot_reach_is_told_of() {
    let mut local = config();
    local.cluster_url = "https://127.0.0.1:6443/".parse().unwrap();
    let ran = run_with(local.clone(), &["--with-token"], fresh).await;
    assert!(ran.said.starts_with("warning: https://127.0.0.1:6443 is this machine alone"), "{}", ran.said);
    let ran = run_with(local, &["--with-token", "--api-server", "https://api:6443"], fresh).await;
    assert!(!ran.said.contains("warning") && ran.data().contains("server: https://api:6443\n"), "{}", ran.said);
}

#[tokio::test]
async fn what_stands_in_the_way_is_told() {
    let ran = run(&[], |_, _, _| mock::forbidden("you cannot")).await;
    let said = words(&ran.answer.unwrap_err());
    assert_eq!(said, "error: enroll needs the right to create serviceaccounts in namespace dcv-hosts: you cannot");
    let ran = run(&[], |_, _, _| mock::not_found("namespaces \"dcv-hosts\" not found")).await;
    assert!(words(&ran.answer.unwrap_err()).contains("is the operator installed"));
}

/// A cluster with the host, its server with these changes and these sessions on it.
fn with_server(
    changes: Value,
    sessions: Vec<Value>,
) -> impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static {
    let mut is_deleted = false;
    move |method, path, body| {
        let mut server = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "host-lab7", "uid": "the-uid", "resourceVersion": "7"}, "spec": {}, "status": {}});
        mock::merge(&mut server, &changes);
        match (method, path) {
            ("GET", path) if path.ends_with("/dcvsessions") => mock::list(&sessions),
            ("GET", path) if path.contains("/dcvservers/") && is_deleted => mock::not_found("no server"),
            ("DELETE", path) if path.contains("/dcvservers/") => {
                assert_eq!(body["preconditions"]["uid"], "the-uid");
                is_deleted = true;
                (200, server)
            }
            ("PATCH", _) => {
                mock::merge(&mut server["spec"], &body["spec"]);
                (200, server)
            }
            ("GET", path) if path.contains("/dcvservers/") => (200, server),
            _ => (200, json!({"kind": "Status", "status": "Success", "code": 200})),
        }
    }
}

#[tokio::test]
async fn revoking_deletes_the_secret_alone() {
    let ran = run(&["--revoke"], with_server(json!({}), vec![])).await;
    assert_eq!(ran.calls, [format!("DELETE {HOSTS}/secrets/host-lab7")]);
    assert_eq!(ran.printed, "secret/host-lab7 deleted\n");
    let again = |_: &str, path: &str, _: &Value| {
        let account = json!({"metadata": {"name": "host-lab7"}});
        if path.contains("/secrets/") { mock::not_found("no secret") } else { (200, account) }
    };
    assert_eq!(run(&["--revoke"], again).await.printed, "secret/host-lab7 already deleted\n");
    let ran = run(&["--revoke"], |_, _, _| mock::not_found("nothing")).await;
    assert_eq!(words(&ran.answer.unwrap_err()), "error: no host is enrolled as host-lab7");
}

#[tokio::test]
async fn purging_takes_all_away_in_an_order_in_which_nothing_comes_back() {
    let ran = run(&["--revoke", "--purge"], with_server(json!({}), vec![])).await;
    assert!(ran.answer.is_ok(), "{:?}", ran.answer);
    let expected = "dcvserver.dcv-operator.io/host-lab7 closed\nsecret/host-lab7 deleted\n\
                    dcvserver.dcv-operator.io/host-lab7 deleted\nserviceaccount/host-lab7 deleted\nlease/host-lab7 deleted\n";
    assert_eq!(ran.printed, expected);
    let deletes: Vec<_> = ran.calls.iter().filter(|call| call.starts_with("DELETE")).collect();
    assert!(deletes[0].ends_with("/secrets/host-lab7") && deletes[1].ends_with("/dcvservers/host-lab7"), "{deletes:?}");
    let lists = ran.calls.iter().position(|call| call.ends_with("/dcvsessions"));
    let patches = ran.calls.iter().position(|call| call.starts_with("PATCH"));
    assert!(patches < lists, "closed before it is looked: {:?}", ran.calls);
}

#[tokio::test]
async fn nothing_is_purged_or_revoked_under_a_desktop() {
    let session = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "desk", "namespace": "n"}, "spec": {"owner": "ann", "type": "VIRTUAL"}, "status": {"state": "READY"}});
    let other = json!({"status": {"otherSessions": [{"id": "console", "owner": "bob", "type": "CONSOLE", "origin": "Manual"}]}});
    for (changes, sessions) in [(json!({}), vec![session]), (other, vec![])] {
        let ran = run(&["--revoke", "--purge"], with_server(changes, sessions)).await;
        let said = words(&ran.answer.unwrap_err());
        assert!(said.contains("1 desktop is on host-lab7") && said.ends_with("Nothing was revoked"), "{said}");
        assert!(!ran.calls.iter().any(|call| call.starts_with("DELETE")), "{:?}", ran.calls);
    }
}
