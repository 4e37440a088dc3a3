//! The chart on real nodes: from nothing to a desktop in a browser, its own test, and what an uninstall leaves.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Instant;

use e2e::browser::Browser;
use e2e::desktop::is_painted;
use e2e::eventually;
use e2e::nodes::Nodes;
use e2e::rest::Rest;
use e2e::seconds;
use serde_json::Value;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;

const NAME: &str = "e2e-install";
const RELEASE: &str = "dcv-operator";
const CHART: &str = "charts/dcv-operator";

/// Each namespace takes only pods of the level that the chart claims for it.
const NAMESPACES: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: dcv-system, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: team-a}}
";

/// Desktops on every node, in the images of `hack/image`, and a broker that is reached over a port of this machine.
const VALUES: [&str; 2] = ["--values=charts/dcv-operator/ci/vnc-demo-values.yaml", "--set=tls.names={localhost}"];

const SESSION: &str = "
apiVersion: dcv-operator.io/v1alpha1
kind: DcvSession
metadata: {name: desk, namespace: team-a}
spec: {owner: ann, type: VIRTUAL, initFile: script.sh, autorunFile: script.sh}
";

/// A port of this machine that leads to a Service.
struct Forward {
    _kubectl: Child,
    /// kubectl ends when nobody reads what it has to say.
    _said: Lines<BufReader<ChildStdout>>,
    port: u16,
}

async fn forward(nodes: &Nodes, service: &str, port: u16) -> Forward {
    let mut kubectl = nodes.kubectl_command(&["port-forward", "--namespace=dcv-system", service, &format!(":{port}")]);
    let mut child = kubectl.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("kubectl can be run");
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let line = lines.next_line().await.expect("it can be read").expect("it says where it listens");
    let port = line.split([':', ' ']).find_map(|word| word.parse().ok());
    Forward { port: port.unwrap_or_else(|| panic!("no port in {line:?}")), _kubectl: child, _said: lines }
}

/// A registered client of the REST API in team-a, over `broker`.
async fn client(nodes: &Nodes, broker: &Forward) -> Rest {
    let made = nodes.kubectl_dcv(&["clients", "register", "portal", "--namespace=team-a", "-o", "json"]).await;
    let made: Value = serde_json::from_str(&made).expect("it is JSON");
    let text = |name: &str| made[name].as_str().expect("it is text");
    let secret = [
        "get",
        "secret",
        "dcv-broker-certificate",
        "--namespace=dcv-system",
        "-o",
        r#"go-template={{index .data "ca.crt" | base64decode}}"#,
    ];
    let authority = nodes.folder().join("broker-ca.crt");
    std::fs::write(&authority, nodes.kubectl(&secret, "").await.expect("it is there")).expect("it can be written");
    Rest::new(&format!("https://localhost:{}", broker.port), &authority, text("clientId"), text("clientPassword"))
}

#[tokio::test]
async fn an_installation_shows_a_desktop_passes_its_test_and_leaves_what_it_says() {
    let nodes = Nodes::up(NAME, 2).await;
    nodes.load(&["operator", "desktop"]).await;
    nodes.kubectl(&["apply", "-f", "-"], NAMESPACES).await.expect("an administrator creates namespaces");

    let begun = Instant::now();
    let install =
        [&["install", RELEASE, CHART, "--namespace=dcv-system", "--wait", "--timeout=2m"], &VALUES[..]].concat();
    let told = nodes.helm(&install).await;
    assert!(told.contains("kubectl get dcvservers"), "{told}");
    nodes.kubectl(&["apply", "-f", "-"], SESSION).await.expect("a session can be created");
    let ready = ["wait", "dcvs/desk", "--namespace=team-a", "--for=condition=Ready", "--timeout=60s"];
    nodes.kubectl(&ready, "").await.expect("the session gets READY");
    let (until_ready, broker) = (begun.elapsed(), forward(&nodes, "service/dcv-operator-broker", 8443).await);
    let rest = client(&nodes, &broker).await;
    let rest = eventually("the client to be accepted", seconds(20), async || rest.log_in().await).await;
    let id = nodes.kubectl(&["get", "dcvs/desk", "--namespace=team-a", "-o=jsonpath={.status.sessionId}"], "").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id.expect("it is READY"), "ann").await).await;
    browser.until("a painted desktop", is_painted).await;
    eprintln!("from helm install to READY: {until_ready:?}, to a painted desktop in a browser: {:?}", begun.elapsed());
    browser.screenshot("installed").await;
    browser.close().await;

    let tested = nodes.helm(&["test", RELEASE, "--namespace=dcv-system", "--timeout=2m"]).await;
    assert!(tested.contains("Succeeded"), "{tested}");

    let delete = ["delete", "dcvsessions", "--all", "--all-namespaces", "--timeout=60s"];
    nodes.kubectl(&delete, "").await.expect("desktops end");
    nodes.helm(&["uninstall", RELEASE, "--namespace=dcv-system", "--wait", "--timeout=2m"]).await;
    assert_eq!(left_in(&nodes, "dcv-agents").await, BTreeSet::new());
    let expected = [
        "configmap/dcv-public-keys",
        "secret/dcv-access-token-keys",
        "secret/dcv-agent-token-keys",
        "secret/dcv-broker-authority",
        "secret/dcv-broker-certificate",
        "secret/dcv-connection-token-keys",
    ];
    assert_eq!(left_in(&nodes, "dcv-system").await, expected.map(str::to_owned).into());
    let kinds = nodes.kubectl(&["get", "crds", "-o", "name"], "").await.expect("they can be listed");
    assert!(kinds.contains("dcvsessions.dcv-operator.io"), "the definitions stay: {kinds}");
    nodes.wipe().await;
}

/// What is in a namespace besides what each has, and Leases.
async fn left_in(nodes: &Nodes, namespace: &str) -> BTreeSet<String> {
    let kinds = "pods,deployments,daemonsets,services,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies";
    let list =
        nodes.kubectl(&["get", kinds, "--namespace", namespace, "-o", "name"], "").await.expect("they can be listed");
    let of_every_namespace = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
    list.lines().filter(|line| !of_every_namespace.contains(line)).map(str::to_owned).collect()
}
