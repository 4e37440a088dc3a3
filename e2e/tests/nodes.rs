//! Real nodes: what pods get on them, and that no end of them, however sudden, is in the way of the next start.

use std::cell::RefCell;
use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::eventually;
use e2e::host;
use e2e::nodes;
use e2e::nodes::Nodes;
use e2e::seconds;
use e2e::unique;
use nix::sys::signal::Signal;
use serde_json::Value;

const NAME: &str = "e2e-nodes";

/// A namespace that takes only `restricted` pods.
async fn restricted_namespace(nodes: &Nodes) -> String {
    let name = unique("nodes");
    let manifest = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    );
    nodes.kubectl(&["apply", "-f", "-"], &manifest).await.expect("an administrator creates namespaces");
    eventually("the namespace to have its account", seconds(20), async || {
        nodes.kubectl(&["get", "serviceaccount", "default", "--namespace", &name], "").await
    })
    .await;
    name
}

/// A web server on each node that answers with the node's name, behind a Service.
const WEB: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: localhost/busybox:dev
        command: [sh, -c, 'echo \"$NODE\" | tee /www/index.html; exec httpd -f -p 8080 -h /www']
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: www, mountPath: /www}]
      volumes: [{name: www, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// Runs [`WEB`] and returns its pods, each with its node.
async fn run_web(nodes: &Nodes, namespace: &str) -> Vec<(String, String)> {
    nodes.kubectl(&["apply", "--namespace", namespace, "-f", "-"], WEB).await.expect("it passes admission");
    web_pods(nodes, namespace).await
}

async fn web_pods(nodes: &Nodes, namespace: &str) -> Vec<(String, String)> {
    let rollout = ["rollout", "status", "--namespace", namespace, "daemonset/web", "--timeout=60s"];
    nodes.kubectl(&rollout, "").await.expect("the pods get ready");
    let pods = ["get", "pods", "--namespace", namespace, "--selector", "app=web", "-o", "json"];
    let pods = nodes.kubectl(&pods, "").await.expect("pods can be listed");
    let pods: Value = serde_json::from_str(&pods).expect("kubectl prints JSON");
    let pods = pods["items"].as_array().expect("a list has items").iter();
    let word = |value: &Value| value.as_str().expect("it is set").to_owned();
    pods.map(|pod| (word(&pod["metadata"]["name"]), word(&pod["spec"]["nodeName"]))).collect()
}

async fn exec(nodes: &Nodes, namespace: &str, pod: &str, command: &[&str]) -> Result<String, String> {
    nodes.kubectl(&[&["exec", "--namespace", namespace, pod, "--"], command].concat(), "").await
}

/// Asks the Service by its name from a pod until every node has answered.
async fn every_node_answers(nodes: &Nodes, namespace: &str, pod: &str) {
    let answered = RefCell::new(BTreeSet::new());
    eventually("pods of both nodes to answer for the Service", seconds(30), async || {
        // Its wget crashes where it is static.
        let ask = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 web 80 | tail -n 1";
        let answer = exec(nodes, namespace, pod, &["sh", "-c", ask]).await?;
        let mut answered = answered.borrow_mut();
        answered.insert(answer);
        if answered.len() == 2 { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
}

#[tokio::test]
async fn pods_get_what_a_cluster_promises() {
    let nodes = Nodes::up(NAME, 2).await;
    nodes.load(&["operator"]).await;
    let namespace = restricted_namespace(&nodes).await;

    let pods = run_web(&nodes, &namespace).await;
    let on: BTreeSet<_> = pods.iter().map(|(_, node)| node.as_str()).collect();
    assert_eq!(on, BTreeSet::from(["node-1", "node-2"]), "one pod on each node");
    for (pod, node) in &pods {
        every_node_answers(&nodes, &namespace, pod).await;
        let log = nodes.kubectl(&["logs", "--namespace", &namespace, pod], "").await.expect("logs can be read");
        assert_eq!(log, format!("{node}\n"));
        assert_eq!(node_of_token(&nodes, &namespace, pod).await, *node, "an agent's token says on which node it is");
    }

    let version = operator_prints(&nodes, &namespace, "--version").await;
    assert_eq!(version, format!("dcv-operator {}\n", env!("CARGO_PKG_VERSION")));
    let delete = ["delete", "namespace", &namespace, "--timeout=60s"];
    nodes.kubectl(&delete, "").await.expect("pods end");
}

/// The node in the token that a pod got without asking.
async fn node_of_token(nodes: &Nodes, namespace: &str, pod: &str) -> String {
    let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = exec(nodes, namespace, pod, &["cat", file]).await.expect("the pod has a token");
    let claims = token.split('.').nth(1).expect("a token has three parts");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("they are base64");
    let claims: Value = serde_json::from_slice(&claims).expect("claims are JSON");
    claims["kubernetes.io"]["node"]["name"].as_str().expect("it is bound to a node").to_owned()
}

/// What the operator's image prints when it is run with this argument, in a pod that has no rights at all.
async fn operator_prints(nodes: &Nodes, namespace: &str, argument: &str) -> String {
    let manifest = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: operator}}, spec: {{restartPolicy: Never, automountServiceAccountToken: false,
          securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}},
          containers: [{{name: operator, image: 'localhost/dcv-operator:dev', args: ['{argument}'],
            securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}}}]}}}}"
    );
    nodes.kubectl(&["apply", "--namespace", namespace, "-f", "-"], &manifest).await.expect("it passes admission");
    let wait =
        ["wait", "--namespace", namespace, "pod/operator", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s"];
    if let Err(complaint) = nodes.kubectl(&wait, "").await {
        panic!("{complaint}{:?}", nodes.kubectl(&["describe", "pod", "--namespace", namespace, "operator"], "").await);
    }
    nodes.kubectl(&["logs", "--namespace", namespace, "operator"], "").await.expect("logs can be read")
}

#[tokio::test]
async fn a_kill_of_everything_is_followed_by_a_start_and_a_stop_leaves_nothing() {
    let nodes = Nodes::up(NAME, 2).await;
    let namespace = restricted_namespace(&nodes).await;
    let pods = run_web(&nodes, &namespace).await;
    let network = nodes.network();

    // Until nobody is left: one that is killed may have just started another.
    eventually("everything to be killed", seconds(20), async || {
        let mut left = nodes.control_plane();
        left.extend(nodes::processes(&network).iter().map(|process| process.pid));
        left.retain(|pid| host::is_alive(*pid));
        for pid in &left {
            host::signal(*pid, Signal::SIGKILL);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    nodes.restart().await;
    let (pod, _) = &pods[0];
    eventually("the pods of before to run", seconds(60), async || exec(&nodes, &namespace, pod, &["true"]).await).await;
    every_node_answers(&nodes, &namespace, pod).await;

    let other = Nodes::up("e2e-nodes-2", 1).await;
    assert_ne!(other.network(), network, "instances side by side have addresses of their own");
    let folder = nodes.folder();
    nodes.wipe().await;
    assert_eq!(nodes::remains(&network, &folder), Vec::<String>::new());
    assert!(!folder.exists());

    let network = other.network();
    let ready = other.kubectl(&["get", "nodes", "--no-headers"], "").await.expect("the other instance goes on");
    assert!(ready.contains("node-1") && ready.contains(" Ready "), "{ready}");
    other.wipe().await;
    assert_eq!(nodes::remains(&network, &other.folder()), Vec::<String>::new());
}
