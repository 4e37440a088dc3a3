//! The chart on real nodes, as `docs/getting-started.md` installs it: from nothing to a desktop in a browser, its own test, and
//! what an uninstall leaves; and a change of the release that the definitions belong to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use e2e::browser::Browser;
use e2e::desktop::is_painted;
use e2e::document::Terminal;
use e2e::document::blocks_for;
use e2e::eventually;
use e2e::nodes::Nodes;
use e2e::seconds;
use e2e::stand::root;

const NAME: &str = "e2e-install";
const PAGE: &str = "docs/getting-started.md";
const THIS: &str = "e2e/tests/install.rs";

/// The namespace takes only pods of the level that the chart claims for it.
const NAMESPACE: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: dcv-system, labels: {pod-security.kubernetes.io/enforce: restricted}}}
";

/// A terminal of an administrator with kubectl, our plugin and Helm.
async fn terminal(nodes: &Nodes) -> Terminal {
    let built = tokio::process::Command::new(root().join("hack/modules/build")).args(["helm", "helm"]).output().await;
    let built = built.expect("hack/modules/build can be run");
    let helm = String::from_utf8_lossy(&built.stdout).lines().last().map(PathBuf::from).expect("it says where");
    let programs = [nodes.folder().join("bin"), helm, root().join("target/debug")];
    Terminal::open(&programs, &nodes.folder().join("kubeconfig"))
}

/// What the page tells to type, in order.
struct Script(std::vec::IntoIter<String>);

impl Script {
    fn read() -> Self {
        let blocks: Vec<_> = blocks_for(PAGE, THIS).into_iter().map(|block| block.text).collect();
        Self(blocks.into_iter())
    }

    /// Types the next block, which has these words.
    async fn run(&mut self, terminal: &mut Terminal, words: &str) -> String {
        let block = self.0.next().unwrap_or_else(|| panic!("{PAGE} has no block with {words:?}"));
        assert!(block.contains(words), "{words:?} is to be next, not\n{block}");
        terminal.run(&block).await
    }
}

#[tokio::test]
async fn an_installation_shows_a_desktop_passes_its_test_and_leaves_what_it_says() {
    let nodes = Nodes::up(NAME, 2).await;
    nodes.load(&["operator", "desktop"]).await;
    nodes.kubectl(&["apply", "-f", "-"], NAMESPACE).await.expect("an administrator creates namespaces");
    let (mut terminal, mut script) = (terminal(&nodes).await, Script::read());
    terminal.within(seconds(180));

    let begun = Instant::now();
    let told = script.run(&mut terminal, "helm install").await;
    assert!(told.contains("kubectl get dcvservers") && told.contains("AVAILABLE"), "{told}");
    let told = script.run(&mut terminal, "kind: DcvSession").await;
    assert!(told.contains("READY"), "{told}");
    let until_ready = begun.elapsed();
    script.run(&mut terminal, "clients register portal").await;
    let url = script.run(&mut terminal, "kubectl dcv connect").await;
    let mut browser = Browser::start();
    browser.open(&url).await;
    browser.until("a painted desktop", is_painted).await;
    eprintln!("from helm install to READY: {until_ready:?}, to a painted desktop in a browser: {:?}", begun.elapsed());
    browser.screenshot("installed").await;
    browser.close().await;

    let told = script.run(&mut terminal, "/createSessions").await;
    assert!(told.contains("\"WebUrlPath\"") && told.contains("DELETING"), "{told}");
    let told = script.run(&mut terminal, "helm test").await;
    assert!(told.contains("Succeeded"), "{told}");

    hand_definitions_over(&nodes, &mut terminal).await;
    script.run(&mut terminal, "helm uninstall").await;
    assert_eq!(script.0.next(), None, "all of the page is run");
    eventually("nothing to be left of the agents", seconds(60), async || {
        let left = left_in(&nodes, "dcv-agents").await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let expected = [
        "configmap/dcv-public-keys",
        "secret/dcv-access-token-keys",
        "secret/dcv-agent-token-keys",
        "secret/dcv-broker-authority",
        "secret/dcv-broker-certificate",
        "secret/dcv-connection-token-keys",
    ];
    let expected: BTreeSet<_> = expected.map(str::to_owned).into();
    eventually("what is said to be all that is left of the release", seconds(60), async || {
        let left = left_in(&nodes, "dcv-system").await;
        if left == expected { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let kinds = nodes.kubectl(&["get", "crds", "-o", "name"], "").await.expect("they can be listed");
    assert!(kinds.contains("dcvsessions.dcv-operator.io"), "the definitions stay: {kinds}");
    nodes.wipe().await;
}

/// The release hands the definitions over to one of their own, as that chart tells, and nothing of them is made anew.
async fn hand_definitions_over(nodes: &Nodes, terminal: &mut Terminal) {
    let blocks = blocks_for("charts/dcv-operator-crds/README.md", THIS);
    let [apart, hand_over] = &blocks[..] else { panic!("{blocks:?}") };
    for line in apart.text.lines() {
        // They are there already.
        terminal.run(&format!("{line} --dry-run=client")).await;
    }
    let before = of_definitions(nodes, "uid").await;
    terminal.run(&hand_over.text).await;
    assert_eq!(of_definitions(nodes, "uid").await, before, "they are the same ones");
    let releases = of_definitions(nodes, r"annotations.meta\.helm\.sh/release-name").await;
    assert_eq!(releases, ["dcv-operator-crds"; 3].join(" "));
    nodes.helm(&["uninstall", "dcv-operator-crds", "--namespace=dcv-system"]).await;
    assert_eq!(of_definitions(nodes, "uid").await, before, "they outlive that release too");
}

/// This field of the metadata of each of our definitions.
async fn of_definitions(nodes: &Nodes, field: &str) -> String {
    let [sessions, servers, clients] =
        ["dcvsessions", "dcvservers", "apiclients"].map(|it| format!("{it}.dcv-operator.io"));
    let path = format!("-o=jsonpath={{.items[*].metadata.{field}}}");
    nodes.kubectl(&["get", "crds", &sessions, &servers, &clients, &path], "").await.expect("they are there")
}

/// What is in a namespace besides what each has, and Leases.
async fn left_in(nodes: &Nodes, namespace: &str) -> BTreeSet<String> {
    let kinds = "pods,deployments,daemonsets,services,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies";
    let list =
        nodes.kubectl(&["get", kinds, "--namespace", namespace, "-o", "name"], "").await.expect("they can be listed");
    let of_every_namespace = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
    list.lines().filter(|line| !of_every_namespace.contains(line)).map(str::to_owned).collect()
}
