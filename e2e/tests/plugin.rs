//! `kubectl dcv` as people run it, by kubectl itself: each command on a running cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::rest::Rest;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::stand::root;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Command;

/// How a command went.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    printed: String,
    said: String,
}

impl Outcome {
    /// What was printed by a command that went well.
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.printed, self.said);
        self.printed
    }

    fn json(self) -> Value {
        serde_json::from_str(&self.good()).expect("it is JSON")
    }
}

/// Somebody with kubectl, in a namespace.
struct Person {
    stand: Stand,
    sessions: Sessions,
    folder: tempfile::TempDir,
}

impl Person {
    async fn on(stand: Stand, word: &str) -> Self {
        let sessions = stand.namespace(word).await;
        let folder = tempfile::tempdir().expect("a folder");
        let plugin = root().join("target/debug/kubectl-dcv");
        for name in ["kubectl-dcv", "kubectl_complete-dcv"] {
            std::os::unix::fs::symlink(&plugin, folder.path().join(name)).expect("the folder is ours");
        }
        Self { stand, sessions, folder }
    }

    /// kubectl, which finds the plugin on the PATH.
    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.stand.folder().join("cluster/bin/kubectl"));
        command
            .args(words)
            .env("KUBECONFIG", self.stand.setting("KUBECONFIG"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// `kubectl dcv` in the namespace.
    fn command(&self, words: &[&str]) -> Command {
        self.kubectl(&[&["dcv"], words, &["-n", &self.sessions.namespace]].concat())
    }

    async fn dcv(&self, words: &[&str]) -> Outcome {
        outcome(&mut self.command(words)).await
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("the folder is ours");
        path.to_str().expect("a plain path").to_owned()
    }
}

async fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().await.expect("kubectl is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), printed: text(&output.stdout), said: text(&output.stderr) }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn a_session_from_its_creation_to_its_end() {
    let person = Person::on(Stand::fake().await, "plugin").await;
    let made = person.dcv(&["create", "desk", "--owner", "ann", "--labels", "team=a", "--wait=60s"]).await;
    assert!(made.said.contains("desk: READY on host-"), "{made:?}");
    assert_eq!(made.good(), "dcvsession.dcv-operator.io/desk created\n");
    let again = ["create", "desk", "--owner", "ann", "-ojson"];
    assert_eq!(person.dcv(&again).await.json()["status"]["state"], "READY");
    let other = person.dcv(&["create", "desk", "--owner", "bob"]).await;
    assert!(other.code == Some(1) && other.said.contains("asks for something else: owner differs"), "{other:?}");
    let typo = person.dcv(&["create", "typo", "--owner", "ann", "--requirements", "tag:pool ="]).await;
    assert_eq!(typo.code, Some(0), "the controller says what is wrong with it: {typo:?}");
    let strict = person.file(
        "strict.yaml",
        "kind: DcvSession\napiVersion: dcv-operator.io/v1alpha1\nmetadata: {name: strict}\n\
                                             spec: {owner: ann, type: VIRTUAL, priotity: 1}\n",
    );
    let strict = person.dcv(&["create", "-f", &strict, "--dry-run=server"]).await;
    assert!(strict.code == Some(1) && strict.said.contains("unknown field \"spec.priotity\""), "{strict:?}");

    let table = person.dcv(&["sessions", "--owner", "ann", "-l", "team=a"]).await.good();
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "OWNER", "SERVER", "CLIENTS", "AGE", "REASON"]);
    let server = person.sessions.api.get("desk").await.expect("it is there").server_name().expect("bound").to_owned();
    assert_eq!((&lines[1][..5], lines.len()), (&["desk", "READY", "ann", &server, "0"][..], 2));
    eventually("the same as kubectl's", seconds(10), async || {
        let ours = person.dcv(&["sessions", "-ojson"]).await.json();
        let theirs = person.kubectl(&["get", "dcvs", "-n", &person.sessions.namespace, "-ojson"]);
        let theirs = outcome(&mut { theirs }).await.json();
        if ours == theirs { Ok(()) } else { Err(format!("{ours}\n{theirs}")) }
    })
    .await;
    assert_eq!(
        person.dcv(&["sessions", "--state", "READY", "-oname"]).await.good(),
        "dcvsession.dcv-operator.io/desk\n"
    );
    let whole = person.dcv(&["sessions", "desk"]).await;
    assert!(whole.said.contains("kubectl dcv connect desk"), "{whole:?}");
    assert!(whole.good().lines().any(|line| words(line) == ["State:", "READY"]));
    let unknown = person.dcv(&["sessions", "dekst"]).await;
    assert!(unknown.code == Some(1) && unknown.said.contains("did you mean desk?"), "{unknown:?}");
    assert_eq!(person.dcv(&["explain", "desk"]).await.code, Some(0));

    permissions(&person).await;
    let closed = person.dcv(&["close-session", "desk", "--wait=60s"]).await.good();
    assert_eq!(closed, "dcvsession.dcv-operator.io/desk closing\ndcvsession.dcv-operator.io/desk is over\n");
    let over = person.dcv(&["create", "desk", "--owner", "ann"]).await;
    assert!(over.code == Some(1) && over.said.contains("over (DELETED)"), "{over:?}");
    person.sessions.delete_namespace().await;
}

async fn permissions(person: &Person) {
    let shared = "[permissions]\n%owner% allow builtin\nbob allow display\n";
    let file = person.file("shared.perm", shared);
    assert_eq!(person.dcv(&["permissions", "desk"]).await.good(), "");
    let written = "dcvsession.dcv-operator.io/desk permissions written\n";
    assert_eq!(person.dcv(&["permissions", "desk", "--set", &file]).await.good(), written);
    assert_eq!(person.dcv(&["permissions", "desk"]).await.good(), shared);
    assert_eq!(person.dcv(&["permissions", "desk", "--user", "bob"]).await.good(), "display\n");
    let editor = person.file("editor", "#!/bin/sh\necho 'cid allow display' >>\"$1\"\n");
    fs::set_permissions(&editor, PermissionsExt::from_mode(0o755)).expect("the file is ours");
    let edited = outcome(person.command(&["permissions", "desk", "--edit"]).env("EDITOR", &editor)).await;
    assert_eq!(edited.good(), written);
    let object = person.sessions.api.get("desk").await.expect("it is there");
    assert_eq!(object.spec.permissions, Some(format!("{shared}cid allow display\n")));
    let wrong = person.file("wrong.perm", "[permissions]\nbob may display\n");
    let refused = person.dcv(&["permissions", "desk", "--set", &wrong]).await;
    assert!(refused.code == Some(1) && refused.said.contains("line 2"), "{refused:?}");
}

#[tokio::test]
async fn a_watch_shows_what_changes_until_it_is_interrupted() {
    let person = Person::on(Stand::fake().await, "watch").await;
    let mut watching = person.command(&["sessions", "-w"]);
    let mut watching = watching.stdout(Stdio::piped()).spawn().expect("kubectl is there");
    let mut lines = BufReader::new(watching.stdout.take().expect("it is piped")).lines();
    // Without a session there is nothing to be seen by which to know that it has begun: its first line comes with the first.
    person.sessions.create("desk", &json!({})).await;
    let mut seen = Vec::new();
    let until = async |seen: &mut Vec<String>, lines: &mut tokio::io::Lines<_>, part: &str| {
        while !seen.last().is_some_and(|line: &String| line.contains(part)) {
            let line = tokio::time::timeout(seconds(30), lines.next_line()).await;
            seen.push(line.unwrap_or_else(|_| panic!("{part} after {seen:?}")).expect("a pipe").expect("it goes on"));
        }
    };
    until(&mut seen, &mut lines, "READY").await;
    person.sessions.delete("desk").await;
    until(&mut seen, &mut lines, "(gone)").await;
    assert!(
        seen[0].starts_with("NAME ") && seen.iter().filter(|line| line.starts_with("NAME ")).count() == 1,
        "{seen:?}"
    );
    let pid = watching.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    // kubectl has become the plugin.
    host::signal(pid, Signal::SIGINT);
    let ended = tokio::time::timeout(seconds(10), watching.wait()).await.expect("it ends").expect("it is ours");
    assert_eq!(ended.code(), Some(130));
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn servers_are_looked_at_closed_and_opened() {
    let person = Person::on(Stand::fake().await, "servers").await;
    let server = person.stand.server(3);
    let table = person.dcv(&["servers"]).await.good();
    assert_eq!(table.lines().count(), 21, "{table}");
    let line = table.lines().find(|line| words(line)[0] == server).expect("it is there");
    assert_eq!(words(line)[1], "AVAILABLE");
    let told = person.dcv(&["servers", &server]).await.good();
    assert!(told.lines().any(|line| words(line) == ["Availability:", "AVAILABLE"]), "{told}");
    let top = person.dcv(&["top", "--sort-by", "load", "-ojson"]).await.json();
    assert_eq!(top["items"].as_array().map(Vec::len), Some(20));

    let qualified = format!("dcvserver.dcv-operator.io/{server}");
    assert_eq!(person.dcv(&["close", &server]).await.good(), format!("{qualified} closed\n"));
    assert_eq!(person.dcv(&["cordon", &server]).await.good(), format!("{qualified} already closed\n"));
    eventually("the server to be closed", seconds(30), async || {
        let closed = person.dcv(&["servers", "--available=false", "-oname"]).await.printed;
        if closed == format!("{qualified}\n") { Ok(()) } else { Err(closed) }
    })
    .await;
    let drained = person.dcv(&["drain", &server, "--grace-period", "1h", "--wait=false"]).await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    let opened = person.dcv(&["open", &server]).await;
    assert!(opened.said.contains(&format!("{server} was being drained")), "{opened:?}");
    assert_eq!(opened.good(), format!("{qualified} opened\n"));
    let unknown = person.dcv(&["close", "host-e2e-fake3"]).await;
    assert!(unknown.code == Some(1) && unknown.said.contains("did you mean host-e2e-fake-3"), "{unknown:?}");
    person.stand.open_all_servers().await;
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn clients_change_their_passwords_and_are_shut_out() {
    let person = Person::on(Stand::fake().await, "clients").await;
    let login = async |credentials: &Value| {
        let text = |key: &str| credentials[key].as_str().expect("it is text").to_owned();
        let ca = person.stand.setting("BROKER_CA");
        let (id, password) = (text("clientId"), text("clientPassword"));
        Rest::new(person.stand.setting("BROKER_URL"), Path::new(ca), &id, &password).log_in().await.map(drop)
    };
    let until = async |what: &str, credentials: &Value, good: bool| {
        eventually(what, seconds(20), async || match login(credentials).await {
            found if found.is_ok() == good => Ok(()),
            found => Err(format!("{found:?}")),
        })
        .await;
    };
    let old = person.dcv(&["clients", "register", "portal", "-ojson"]).await.json();
    until("the first password to be good", &old, true).await;
    let new = person.dcv(&["clients", "rotate", "portal", "-ojson"]).await.json();
    assert_eq!(old["clientId"], new["clientId"]);
    until("the new password to be good", &new, true).await;
    until("the old one to be good still", &old, true).await;
    let ended = person.dcv(&["clients", "rotate", "portal", "--no-new-password", "--expire-old"]).await.good();
    assert_eq!(ended, "apiclient.dcv-operator.io/portal older passwords end\n");
    until("the old one to be refused", &old, false).await;
    until("the new one to be good still", &new, true).await;

    let said = |word: &str| format!("apiclient.dcv-operator.io/portal {word}\n");
    assert_eq!(person.dcv(&["clients", "suspend", "portal"]).await.good(), said("suspended"));
    until("it to be shut out", &new, false).await;
    assert_eq!(person.dcv(&["clients", "resume", "portal"]).await.good(), said("resumed"));
    until("it to be let in", &new, true).await;
    let list = person.dcv(&["clients", "list", "-owide"]).await.good();
    assert_eq!(words(list.lines().nth(1).expect("one"))[0], "portal");
    person.dcv(&["clients", "unregister", "portal"]).await.good();
    until("it to be gone", &new, false).await;
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_screenshot_goes_into_a_file_and_never_as_codes_into_a_pipe() {
    let person = Person::on(Stand::fake().await, "screenshot").await;
    person.sessions.create("desk", &json!({})).await;
    person.sessions.until_ready("desk").await;
    let made = person.dcv(&["clients", "register", "person", "-ojson"]).await.json();
    let shoot = |flags: &[&str]| {
        let (broker, ca) = (person.stand.setting("BROKER_URL"), person.stand.setting("BROKER_CA"));
        let mut command =
            person.command(&[&["screenshot", "desk", "--broker", broker, "--ca-bundle", ca], flags].concat());
        let text = |key: &str| made[key].as_str().expect("it is text").to_owned();
        command.env("DCV_SM_CLIENT_ID", text("clientId")).env("DCV_SM_CLIENT_PASSWORD", text("clientPassword"));
        // As in a terminal that could show it.
        command.env("TERM", "xterm-kitty");
        command
    };
    let file = person.folder.path().join("desk.png");
    eventually("the client to be accepted", seconds(20), async || {
        let taken = outcome(&mut shoot(&[])).await;
        if taken.code == Some(0) && taken.printed.is_empty() { Ok(()) } else { Err(format!("{taken:?}")) }
    })
    .await;
    let picture = fs::read(&file).expect("it is written");
    assert!(image::load_from_memory(&picture).is_ok());
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let again = outcome(&mut shoot(&[])).await;
    assert!(again.code == Some(1) && again.said.contains("is there already"), "{again:?}");
    let piped = shoot(&["-o", "-"]).output().await.expect("kubectl is there");
    assert!(image::load_from_memory(&piped.stdout).is_ok(), "{piped:?}");
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn kubectl_completes_the_plugins_words_and_names() {
    let person = Person::on(Stand::fake().await, "completion").await;
    person.sessions.create("a-long-name", &json!({})).await;
    let complete = async |words: &[&str]| {
        let words = [&["__complete", "dcv"], words].concat();
        outcome(&mut person.kubectl(&words)).await.printed
    };
    let commands = complete(&["close"]).await;
    assert!(commands.contains("close\t") && commands.contains("close-session\t"), "{commands}");
    let names = complete(&["sessions", "-n", &person.sessions.namespace, ""]).await;
    assert!(names.contains("a-long-name\t") && names.contains(" of ann") && names.contains(":4"), "{names}");
    let servers = complete(&["drain", ""]).await;
    assert!(servers.contains(&format!("{}\tAVAILABLE", person.stand.server(1))), "{servers}");
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn whoever_may_not_is_told_which_right_is_missing() {
    let person = Person::on(Stand::fake().await, "rights").await;
    let namespace = person.sessions.namespace.clone();
    let kubectl = async |words: &[&str]| outcome(&mut person.kubectl(words)).await.good();
    kubectl(&["create", "serviceaccount", "guest", "-n", &namespace]).await;
    let token = kubectl(&["create", "token", "guest", "-n", &namespace]).await;
    let config = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-ojson"]).await;
    let mut config: Value = serde_json::from_str(&config).expect("it is JSON");
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = person.file("guest.kubeconfig", &config.to_string());
    let as_guest = async |words: &[&str]| person.dcv(&[words, &["--kubeconfig", &file]].concat()).await;
    for (words, right) in [
        (&["sessions"][..], format!("list dcvsessions in namespace {namespace}")),
        (&["sessions", "-w"], format!("list dcvsessions in namespace {namespace}")),
        (&["servers"], "list dcvservers".to_owned()),
        (&["top"], "list dcvservers".to_owned()),
        (&["create", "desk", "--owner", "ann"], format!("create dcvsessions in namespace {namespace}")),
        (&["close", "a"], "get and patch dcvservers".to_owned()),
        (&["clients", "list"], format!("list apiclients in namespace {namespace}")),
        (&["clients", "register", "a"], format!("create apiclients in namespace {namespace}")),
        (&["enroll", "a"], "create serviceaccounts in namespace dcv-hosts".to_owned()),
    ] {
        let refused = as_guest(words).await;
        assert_eq!((refused.code, refused.printed.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.said.contains(&format!("needs the right to {right}: ")), "{words:?}: {refused:?}");
    }
    person.sessions.delete_namespace().await;
}
