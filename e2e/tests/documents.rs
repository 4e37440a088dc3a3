//! What the documents tell readers to type does what they say: the blocks that name this file are run as they stand, on the
//! instance of the tests instead of the default one; so is every kubectl command in the text of a page.

use std::fs;
use std::path::PathBuf;

use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::document::Terminal;
use e2e::document::block_for;
use e2e::document::blocks_for;
use e2e::document::markdown::Page;
use e2e::session::Sessions;
use e2e::stand::root;
use serde_json::Value;
use serde_json::json;

const THIS: &str = "e2e/tests/documents.rs";

/// A terminal of an administrator of the stand, in this namespace.
async fn terminal(stand: &Stand, namespace: &str) -> Terminal {
    let programs = [stand.folder().join("cluster/bin"), root().join("target/debug")];
    let mut terminal = Terminal::open(&programs, &PathBuf::from(stand.setting("KUBECONFIG")));
    terminal.run(&format!("kubectl config set-context --current --namespace '{namespace}'")).await;
    terminal
}

/// A script for the default instance, for that of the tests.
fn here(script: &str) -> String {
    script
        .replace("hack/cluster env", "hack/cluster env --name e2e-vnc")
        .replace("target/dev/env", "target/dev/e2e-vnc/env")
}

/// What of `shown` is not in `found`: properties, types, and words in capitals. Of lists the first entry counts.
fn missing(shown: &Value, found: &Value, place: &str) -> Vec<String> {
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            let of = |(key, value): (&String, &Value)| {
                missing(value, found.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"))
            };
            shown.iter().flat_map(of).collect()
        }
        (Value::Array(shown), Value::Array(found)) => match (shown.first(), found.first()) {
            (None, _) => Vec::new(),
            (Some(shown), found) => missing(shown, found.unwrap_or(&Value::Null), &format!("{place}[0]")),
        },
        (Value::String(word), found) if is_word(word) && found != shown => {
            vec![format!("{place}: not {word}: {found}")]
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => Vec::new(),
        (shown, found) if shown == found => Vec::new(),
        (shown, found) => vec![format!("{place}: {shown} is shown, {found} found")],
    }
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    let stand = Stand::vnc().await;
    let blocks = blocks_for("README.md", THIS);
    assert_eq!(blocks.len(), 2, "a session by kubectl, one by curl");
    for block in blocks {
        let script = here(&block.text);
        assert_ne!(script, block.text, "it is not for the default instance");
        let printed = terminal(&stand, "default").await.run(&script).await;
        let shows_it = printed.contains("READY") || printed.contains("?authToken=");
        assert!(shows_it, "{}\n{printed}", block.text);
    }
    drop(stand);
}

#[tokio::test]
async fn the_calls_of_the_rest_reference_answer_what_it_shows() {
    let stand = Stand::vnc().await;
    let mut terminal = terminal(&stand, "default").await;
    let mark = format!("tested by {THIS}");
    let blocks = Page::read(&root(), "docs/rest-api.md").blocks();
    let (mut answer, mut compared) = (String::new(), 0);
    for block in blocks {
        if block.mark.as_deref() == Some(&mark) {
            answer = terminal.run(&here(&block.text)).await;
        } else if block.kind == "json" {
            let shown = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
            let found =
                serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{}: {error}: {answer}", block.place));
            assert_eq!(missing(&shown, &found, ""), Vec::<String>::new(), "{}: {answer}", block.place);
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} answers are shown");
    drop(stand);
}

#[tokio::test]
async fn made_up_hosts_can_be_told_what_the_page_says() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("faults").await;
    let server = stand.server(1);
    // The page's host, which has a session.
    stand.patch_servers(|name| json!({"placement": if name == server { None } else { Some("Closed") }})).await;
    sessions.create("desk", &json!({})).await;
    let session = sessions.until_ready("desk").await;
    let script = block_for("docs/fleet.md", THIS, "fake()")
        .replace("curl --silent", "curl --silent --show-error --fail-with-body")
        .replace("/run/fake.sock", &stand.folder().join("fake-host-1.sock").display().to_string())
        .replace("host-dev-1", &server)
        .replace("sessions/ID/", &format!("sessions/{}/", session.id()));
    // After the end there is nothing to connect to.
    let (ends, others): (Vec<&str>, Vec<&str>) =
        script.lines().partition(|line| line.contains("/end ") || line.contains("/restart"));
    assert_eq!((ends.len(), others.len()), (2, 7), "{script}");
    let mut terminal = terminal(&stand, &sessions.namespace).await;
    for line in others.iter().chain(&ends) {
        terminal.run(line).await;
    }
    // Its hosts would go on doing what they were told.
    stand.down().await;
}

/// A READY session `desk` of ann, and a terminal beside it.
async fn desk(stand: &Stand) -> (Sessions, DcvSession, Terminal) {
    let sessions = stand.namespace("documents").await;
    sessions.create("desk", &json!({})).await;
    let session = sessions.until_ready("desk").await;
    let terminal = terminal(stand, &sessions.namespace).await;
    (sessions, session, terminal)
}

#[tokio::test]
async fn a_portal_moves_from_another_broker_as_the_page_says() {
    const PAGE: &str = "docs/moving-from-dcv-broker.md";
    let stand = Stand::vnc().await;
    let mut terminal = terminal(&stand, "default").await;
    terminal.run("kubectl create namespace desktops").await;
    let printed = terminal.run(&block_for(PAGE, THIS, "register portal")).await;
    assert!(printed.contains("client-id:"), "{} characters without an id", printed.len());
    terminal.run("kubectl delete namespace desktops --wait=false").await;

    let script = block_for(PAGE, THIS, "create-session")
        .replace("https://broker.example:8443", stand.setting("BROKER_URL"))
        .replace("ca.pem", stand.setting("BROKER_CA"));
    let (create, rest) = script.split_once('\n').expect("it begins with a session");
    let settings = terminal.folder().join("settings");
    fs::create_dir(&settings).expect("the terminal's folder can be written");
    let of_stand = |key: &str| stand.setting(key);
    let text = format!(
        "[security]\nca-bundle = {}\n[authentication]\nclient-id = {}\nclient-password = {}\n[broker]\nurl = {}\n",
        of_stand("BROKER_CA"),
        of_stand("CLIENT_ID"),
        of_stand("CLIENT_SECRET"),
        of_stand("BROKER_URL"),
    );
    fs::write(settings.join("dcvsmcli.conf"), text).expect("the terminal's folder can be written");
    terminal.run("export XDG_CONFIG_HOME=\"$PWD/settings\"").await;
    let made: Value = serde_json::from_str(&terminal.run(create).await).expect("an answer of the API");
    let id = made["SuccessfulList"][0]["Id"].as_str().unwrap_or_else(|| panic!("{made}"));
    let until_ready =
        format!("until kubectl dcv describe-sessions --session-ids {id} | grep -q '\"READY\"'; do sleep 0.2; done");
    terminal.run(&until_ready).await;
    let printed = terminal.run(&rest.replace("--session-id ID", &format!("--session-id {id}"))).await;
    assert!(printed.contains("ConnectionToken") && printed.contains("DELETING"), "{} characters", printed.len());
    drop(stand);
}

/// Kubectl commands in the text of pages that are the beginning of one.
const BEGUN: [&str; 9] = [
    "kubectl apply",
    "kubectl apply --dry-run=server",
    "kubectl create token",
    "kubectl delete",
    "kubectl delete crd",
    "kubectl describe",
    "kubectl explain",
    "kubectl get … -o yaml",
    "kubectl wait --for=condition=Ready",
];

/// Those about kinds of other operators.
const FOREIGN: [&str; 1] = ["kubectl describe certificate"];

/// A command with the names of what there is, and without its effect.
fn without_effect(command: &str, namespace: &str, server: &str) -> String {
    let changes = ["delete", "patch", "annotate", "label", "apply"];
    let mut command = command
        .replace("NAMESPACE", namespace)
        .replace("dcvs/NAME", "dcvs/desk")
        .replace("dcvs NAME", "dcvs desk")
        .replace("dcvsession NAME", "dcvsession desk")
        .replace("secret NAME", "secret host-lab7")
        .replace("NAME", server);
    if command.split(' ').any(|word| changes.contains(&word)) {
        command.push_str(" --dry-run=server");
    }
    if command.contains(" delete secret ") {
        // Not every installation has all of them.
        command.push_str(" --ignore-not-found");
    }
    command
}

#[tokio::test]
async fn kubectl_knows_every_command_in_the_text_of_a_page_and_hosts_are_enrolled() {
    let stand = Stand::vnc().await;
    let (sessions, _, mut terminal) = desk(&stand).await;
    let enroll = block_for("docs/operations.md", THIS, "enroll lab7");
    // The script is looked at instead of run on another machine.
    terminal.run(&enroll.replace("ssh root@lab7 sh", "sh -n")).await;
    let files = fs::read_dir(terminal.folder().join("lab7")).expect("--out names a folder").count();
    assert!(files >= 4, "{files} files");

    let code = Page::all(&root()).iter().flat_map(Page::code).collect::<Vec<_>>();
    let is_ours = |text: &str| text.starts_with("kubectl ") && !text.starts_with("kubectl dcv");
    let mut commands: Vec<_> = code.into_iter().filter(|code| is_ours(&code.text)).collect();
    commands.retain(|code| !BEGUN.contains(&&*code.text) && !FOREIGN.contains(&&*code.text));
    assert!(commands.len() > 30, "{}", commands.len());
    for code in &commands {
        let command = without_effect(&code.text, &sessions.namespace, &stand.server(1));
        terminal.run(&format!(": {}\n{command}", code.place)).await;
    }
    terminal.run("kubectl dcv enroll lab7 --revoke --purge").await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_node_is_drained_and_a_session_let_go_as_the_page_says() {
    const PAGE: &str = "docs/install.md";
    let stand = Stand::vnc().await;
    let (sessions, session, mut terminal) = desk(&stand).await;
    let patch = block_for(PAGE, THIS, "finalizers");
    terminal.run(&without_effect(patch.trim_end(), &sessions.namespace, &stand.server(1))).await;
    sessions.delete("desk").await;
    sessions.until_gone(&session).await;
    // The server of a Node has its name; here there are no pods.
    terminal.run(&block_for(PAGE, THIS, "drain NODE").replace("NODE", &stand.server(1))).await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn the_api_server_takes_every_manifest_of_every_page() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("manifests").await;
    let mut count = 0;
    for block in Page::all(&root()).iter().flat_map(Page::blocks) {
        if block.kind == "yaml" && block.text.starts_with("apiVersion: dcv-operator.io/") {
            count += 1;
            let text = block.text.replace("namespace: team-a", &format!("namespace: {}", sessions.namespace));
            let args =
                ["apply", "--dry-run=server", "--validate=strict", "--namespace", &sessions.namespace, "-f", "-"];
            stand.kubectl(&args, &text).await.unwrap_or_else(|error| panic!("{}: {error}", block.place));
        }
    }
    assert!(count >= 2, "{count}");
    sessions.delete_namespace().await;
}
