//! Two releases on real nodes, as docs/install.md has them: upgrades and rollbacks of one in every order, with clients connected to
//! its desktops; what becomes of desktops in the other one's pods; and that neither knows the other.

use std::fs;

use dcv_operator::api::session::DcvSession;
use e2e::dcv_client::DcvClient;
use e2e::dcv_node::DcvNode;
use e2e::dcv_node::FOLDER;
use e2e::document::markdown::Block;
use e2e::document::markdown::Page;
use e2e::eventually;
use e2e::nodes::Nodes;
use e2e::rest::LoggedIn;
use e2e::rest::Rest;
use e2e::rounds;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::state_reason;
use e2e::stand::root;
use e2e::witness;
use e2e::witness::Witness;
use kube::api::ListParams;
use serde_json::Value;
use serde_json::json;

const NAME: &str = "e2e-upgrade";
const PAGE: &str = "docs/install.md";
/// How many desktops with a client each live through it.
const DESKTOPS: usize = 20;

/// One node is for each release.
const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: dcv-system, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: dcv-system-a, labels: {pod-security.kubernetes.io/enforce: restricted}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: team-a}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: team-b}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: team-c}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {example.com/pool: c, dcv-operator.io/server: 'true'}}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-2, labels: {example.com/pool: a}}}
";

/// What both releases need here: images that are on the nodes, and a broker that this machine reaches.
const COMMON: &str = "
image: {registry: localhost}
broker:
  services: {api: {type: NodePort}}
  probes: {readinessProbe: {periodSeconds: 1}, startupProbe: {periodSeconds: 1}}
controller:
  probes: {readinessProbe: {periodSeconds: 1}, startupProbe: {periodSeconds: 1}}
";

/// Images of pods, of those that are not about to end.
const IMAGES_OF_PODS: &str = "-o=go-template={{range .items}}{{if not .metadata.deletionTimestamp}}\
    {{(index .spec.containers 0).image}}\n{{end}}{{end}}";

/// A component of a release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Controller,
    Broker,
    Agent,
}

use Part::Agent;
use Part::Broker;
use Part::Controller;

const PARTS: [(Part, &str); 3] = [(Controller, "controller"), (Broker, "broker"), (Agent, "agent")];

/// The one line of the page that starts so. Names in capitals stand for something.
fn typed_line(start: &str) -> String {
    let scripts = Page::read(&root(), PAGE).blocks().into_iter().filter(|block| block.kind == "sh");
    let lines: Vec<_> = scripts.flat_map(|block| block.text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let found: Vec<_> = lines.iter().filter(|line| line.starts_with(start)).collect();
    let [line] = found[..] else { panic!("not one line of {PAGE} starts with {start}: {found:?}") };
    line.clone()
}

/// A release that is upgraded part by part: which of them have been.
struct Upgrade<'a> {
    nodes: &'a Nodes,
    /// Version it comes from.
    before: String,
}

impl Upgrade<'_> {
    /// Upgrades to this tree, the parts that are not `done` with the image they have had.
    async fn upgrade(&self, done: &[Part]) {
        let line = typed_line("helm upgrade dcv-operator ");
        let kept = PARTS.iter().map(|(part, name)| {
            let tag = if done.contains(part) { "" } else { &self.before };
            format!("--set-string {name}.image.tag={tag}")
        });
        let kept = kept.collect::<Vec<_>>().join(" ");
        self.nodes.typed(&format!("{line} --set image.tag=dev {kept} --wait --timeout 2m")).await;
        self.has(done).await;
    }

    /// Rolls back, to where `done` are as this tree has them.
    async fn roll_back(&self, revision: u32, done: &[Part]) {
        let line = typed_line("helm rollback dcv-operator ");
        let line = line.replace("helm rollback dcv-operator", &format!("helm rollback dcv-operator {revision}"));
        self.nodes.typed(&format!("{line} --wait --timeout 2m")).await;
        self.has(done).await;
    }

    /// The number of the revision that runs.
    async fn revision(&self) -> u32 {
        let listed = self.nodes.typed("helm history dcv-operator --namespace dcv-system --max 1 -o json").await;
        let listed: Value = serde_json::from_str(&listed).expect("helm prints JSON");
        listed[0]["revision"].as_u64().and_then(|revision| revision.try_into().ok()).expect("a number")
    }

    /// Whether the pods run that there are to be.
    async fn has(&self, done: &[Part]) {
        for (part, name) in PARTS {
            let image = if done.contains(&part) { "dev" } else { &self.before };
            let image = format!("localhost/dcv-operator:{image}");
            let select =
                format!("--selector=app.kubernetes.io/instance=dcv-operator,app.kubernetes.io/component={name}");
            let list = ["get", "pods", "--all-namespaces", &select, IMAGES_OF_PODS];
            eventually(&format!("the {name} to be {image}"), seconds(60), async || {
                let images = self.nodes.kubectl(&list, "").await?;
                let is_so = !images.is_empty() && images.lines().all(|one| one == image);
                if is_so { Ok(()) } else { Err(images) }
            })
            .await;
        }
    }
}

/// Installs the release that is upgraded later, from the last release's chart.
async fn install_last(nodes: &Nodes) -> Upgrade<'_> {
    let (version, chart) = nodes.load_last_release().await;
    let values = format!(
        "{COMMON}
watchNamespaces: [team-c]
tls: {{names: [{}]}}
agent:
  backend: dcv
  namespace: dcv-agents
  nodeSelector: {{example.com/pool: c}}
  settings: {{dcvCommand: {FOLDER}/bin/dcv, dcvConf: {FOLDER}/dcv.conf, dcvPollSeconds: 1, maxConcurrentSessionsPerUser: 100}}
",
        nodes.address(1)
    );
    let file = nodes.folder().join("upgraded.yaml");
    fs::write(&file, values).expect("it can be written");
    let file = format!("--values={}", file.display());
    let install = ["install", "dcv-operator", &chart, "--namespace=dcv-system", &file, "--wait", "--timeout=2m"];
    nodes.helm(&install).await;
    let upgrade = Upgrade { nodes, before: version };
    upgrade.has(&[]).await;
    upgrade
}

/// Installs the other one beside it, as the page says.
async fn install_beside(nodes: &Nodes) {
    let documented = nodes.folder().join("a.yaml");
    let is_of_second = |block: &&Block| block.text.starts_with("watchNamespaces:");
    let blocks = Page::read(&root(), PAGE).blocks();
    let values = blocks.iter().find(is_of_second).expect("values of a second release");
    fs::write(&documented, &values.text).expect("it can be written");
    let ours = nodes.folder().join("beside.yaml");
    let address = nodes.address(2);
    let values = format!(
        "{COMMON}
tls: {{names: [{address}]}}
agent: {{backend: vnc, image: {{repository: dcv-operator-desktop}}}}
"
    );
    fs::write(&ours, values).expect("it can be written");
    let line = typed_line("helm install desks-a ").replace("a.yaml", &documented.display().to_string());
    nodes.typed(&format!("{line} --values {} --set image.tag=dev --wait --timeout 2m", ours.display())).await;
}

/// A client of the REST API in `namespace`, over the brokers of the release in `system`, on this node's port.
async fn client(nodes: &Nodes, system: &str, service: &str, node: u32, namespace: &str) -> LoggedIn {
    let made = nodes.kubectl_dcv(&["clients", "register", "portal", "--namespace", namespace, "-o", "json"]).await;
    let made: Value = serde_json::from_str(&made).expect("it is JSON");
    let text = |name: &str| made[name].as_str().expect("it is text");
    let template = r#"-o=go-template={{index .data "ca.crt" | base64decode}}"#;
    let secret = ["get", "secret", "dcv-broker-certificate", "--namespace", system, template];
    let authority = nodes.folder().join(format!("{system}.crt"));
    fs::write(&authority, nodes.kubectl(&secret, "").await.expect("it is there")).expect("it can be written");
    let port = ["get", "service", service, "--namespace", system, "-o=jsonpath={.spec.ports[0].nodePort}"];
    let port = nodes.kubectl(&port, "").await.expect("the service is there");
    let base = format!("https://{}:{port}", nodes.address(node));
    let rest = Rest::new(&base, &authority, text("clientId"), text("clientPassword"));
    eventually("the client to be accepted", seconds(30), async || rest.log_in().await).await
}

async fn all(sessions: &Sessions) -> Vec<DcvSession> {
    sessions.api.list(&ListParams::default()).await.expect("sessions can be listed").items
}

/// Desktops on the DCV server, each with a client that stays.
async fn connected_desktops(sessions: &Sessions, rest: &LoggedIn) -> Vec<DcvClient> {
    for number in 0..DESKTOPS {
        sessions.create(&format!("desk-{number}"), &json!({})).await;
    }
    let mut clients = Vec::new();
    for number in 0..DESKTOPS {
        let session =
            sessions.until_within(&format!("desk-{number}"), seconds(60), "READY", e2e::session::is_ready).await;
        // Another broker, or the verifier, may hear of it a moment later.
        let client = eventually("the client to be let in", seconds(10), async || {
            let known = rest.connection_data(session.id(), "ann").await;
            if known.status != 200 {
                return Err(format!("{known:?}"));
            }
            let client = DcvClient::open(&rest.connection_url(session.id(), "ann").await);
            if client.said == "yes, user ann" { Ok(client) } else { Err(client.said.clone()) }
        })
        .await;
        clients.push(client);
    }
    for number in 0..DESKTOPS {
        let is_used =
            |session: &DcvSession| session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(1));
        sessions.until(&format!("desk-{number}"), "used by one client", is_used).await;
    }
    clients
}

/// Takes the release through upgrades and rollbacks: each part is the first to go and the first to come back, and all at once.
async fn in_every_order(upgrade: &Upgrade<'_>, mut check: impl AsyncFnMut(&str)) {
    let everything = [Controller, Broker, Agent];
    // Rounds of a long run: whoever goes first, the other two go one by one, and come back in another order.
    let orders = [[Controller, Broker, Agent], [Broker, Agent, Controller], [Agent, Controller, Broker]];
    let mut old = upgrade.revision().await;
    for (round, order) in orders.iter().enumerate() {
        upgrade.upgrade(&order[..1]).await;
        check(&format!("{:?} went first", order[0])).await;
        if rounds(1) > 1 {
            upgrade.upgrade(&order[..2]).await;
            check(&format!("{:?} went second", order[1])).await;
            let two = upgrade.revision().await;
            upgrade.upgrade(&everything).await;
            check("everything is new").await;
            upgrade.roll_back(two, &order[..2]).await;
            check(&format!("{:?} came back first", order[2])).await;
        } else if round + 1 == orders.len() {
            break;
        }
        upgrade.roll_back(old, &[]).await;
        check("everything is old again").await;
        old = upgrade.revision().await;
    }
    upgrade.upgrade(&everything).await;
    check("everything is new").await;
    upgrade.roll_back(old, &[]).await;
    check("everything is old, all at once").await;
    upgrade.upgrade(&everything).await;
    check("everything is new, all at once").await;
}

#[tokio::test]
async fn no_desktop_ends_with_an_upgrade_and_no_release_knows_of_another() {
    let nodes = Nodes::up(NAME, 2).await;
    nodes.load(&["operator", "desktop"]).await;
    nodes
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], OBJECTS)
        .await
        .expect("by an administrator");
    let mut host = DcvNode::start(&nodes, 1).await;
    let upgrade = install_last(&nodes).await;
    install_beside(&nodes).await;

    let (dcv, vnc) = (nodes.sessions("team-c").await, nodes.sessions("team-a").await);
    let rest = client(&nodes, "dcv-system", "dcv-operator-broker", 1, "team-c").await;
    vnc.create("desk", &json!({})).await;
    let clients = connected_desktops(&dcv, &rest).await;
    let desk = vnc.until_ready("desk").await;
    each_has_its_own(&nodes, &dcv, &vnc, &rest).await;

    let before = host.standing();
    let facts = witness::facts(&all(&dcv).await);
    let witness = Witness::of(&dcv, facts.clone(), rest.clone());
    in_every_order(&upgrade, async |what| {
        assert_eq!(host.standing(), before, "{what}");
        assert_eq!(witness::facts(&all(&dcv).await), facts, "{what}");
        eprintln!("{what}: {}", witness.swear());
    })
    .await;
    drop(witness);
    let url = rest.connection_url(dcv.until_ready("desk-0").await.id(), "ann").await;
    assert_eq!(DcvClient::open(&url).said, "yes, user ann", "the token of a new broker is good for a new agent");

    pods_of_desktops_are_replaced_when_somebody_says_so(&nodes, &vnc, &desk).await;

    drop(clients);
    nodes.typed("kubectl delete dcvsessions --all --namespace team-c --timeout 60s").await;
    nodes.typed(&format!("{} --wait --timeout 2m", typed_line("helm uninstall "))).await;
    vnc.create("alone", &json!({"owner": "bob"})).await;
    vnc.until_within("alone", seconds(60), "READY", e2e::session::is_ready).await;
    nodes.wipe().await;
}

/// Each release knows its own servers, and sessions go nowhere else.
async fn each_has_its_own(nodes: &Nodes, dcv: &Sessions, vnc: &Sessions, rest: &LoggedIn) {
    let beside = client(nodes, "dcv-system-a", "desks-a-dcv-operator-broker", 2, "team-a").await;
    for (rest, node, system) in [(rest, "node-1", "dcv-system"), (&beside, "node-2", "dcv-system-a")] {
        let answer = rest.post("/describeServers", &json!({})).await;
        let ids: Vec<&Value> = answer.list("Servers").iter().map(|server| &server["Id"]).collect();
        assert_eq!(ids, [&id_of(nodes, node).await], "{answer:?}");
        let label = ["get", "dcvservers", node, r"-o=jsonpath={.metadata.labels.dcv-operator\.io/installation}"];
        assert_eq!(nodes.kubectl(&label, "").await.expect("it is there"), system);
        let lease = nodes.kubectl(&["get", "lease", node, "--namespace", system], "").await;
        lease.expect("its Lease is in the release's namespace");
    }
    for (sessions, own, other) in [(dcv, "node-1", "node-2"), (vnc, "node-2", "node-1")] {
        for session in all(sessions).await {
            assert_eq!(session.server_name(), Some(own));
        }
        sessions.create("elsewhere", &json!({"requirements": format!("server:Id = '{other}'")})).await;
        let waits = |session: &DcvSession| condition(session, "Scheduled") == "False/NoServerFits";
        let waiting = sessions.until("elsewhere", "waiting", waits).await;
        assert!(state_reason(&waiting).contains("0 of 1 servers fit"), "{}", state_reason(&waiting));
        sessions.delete("elsewhere").await;
    }
}

/// A server's id in the REST API.
async fn id_of(nodes: &Nodes, server: &str) -> String {
    nodes.kubectl(&["get", "dcvservers", server, "-o=jsonpath={.metadata.uid}"], "").await.expect("it is there")
}

/// Desktops in pods: an upgrade leaves them, and they end when their server is drained and its pod deleted.
async fn pods_of_desktops_are_replaced_when_somebody_says_so(nodes: &Nodes, sessions: &Sessions, desk: &DcvSession) {
    let select = "app.kubernetes.io/instance=desks-a,app.kubernetes.io/component=agent";
    let pod = ["get", "pods", "--namespace=dcv-agents-a", "--selector", select, "-o=jsonpath={.items[0].metadata.uid}"];
    let pod = async || nodes.kubectl(&pod, "").await;
    let old = pod().await.expect("it runs");
    let upgrade = "helm upgrade desks-a charts/dcv-operator --namespace dcv-system-a --reset-then-reuse-values";
    nodes.typed(&format!("{upgrade} --set agent.podAnnotations.changed=yes --wait=legacy --timeout 2m")).await;
    assert_eq!(pod().await.expect("it runs"), old, "it is left to an administrator");
    assert_eq!(witness::facts(&[sessions.until_ready("desk").await]), witness::facts(std::slice::from_ref(desk)));

    let drain = typed_line("kubectl dcv drain ").replace("NODE", "node-2").replace("30m", "1s");
    nodes.typed(&drain.replace("dcv-agents", "dcv-agents-a")).await;
    let ended = sessions.until_finished("desk").await;
    assert_eq!(condition(&ended, "Finished"), "True/Expired");
    assert_eq!(state_reason(&ended), "the session was closed: its server is drained");
    sessions.create("next", &json!({})).await;
    nodes.typed(&typed_line("kubectl dcv open ").replace("NODE", "node-2")).await;
    sessions.until_within("next", seconds(60), "READY", e2e::session::is_ready).await;
    assert_ne!(pod().await.expect("it runs"), old, "it is another pod");
}
