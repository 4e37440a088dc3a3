//! `create` against an API server that answers as told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use clap::Args as _;
use clap::Parser;

use super::super::error::words;
use super::super::mock;
use super::super::mock::Call;
use super::*;
use crate::api;

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    create: Create,
}

fn parse(words: &[&str]) -> Result<Create, i32> {
    Cli::try_parse_from(["create"].iter().chain(words)).map(|cli| cli.create).map_err(|error| error.exit_code())
}

/// How it went: the outcome, what was printed and remarked, and what was asked.
struct Ran {
    answer: Result<Answer, Error>,
    printed: String,
    said: String,
    calls: Vec<Call>,
}

impl Ran {
    fn error(&self) -> String {
        words(self.answer.as_ref().unwrap_err())
    }

    fn bodies(&self) -> Vec<Value> {
        self.calls.iter().filter(|call| call.method == "POST").map(|call| call.body.clone()).collect()
    }
}

async fn run<S: mock::Said>(words: &[&str], mut answer: impl FnMut(&Call) -> (u16, S) + Send + 'static) -> Ran {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let client = mock::full_client(move |call| {
        seen.lock().unwrap().push(call.clone());
        answer(call)
    });
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let answer = create(&client, "team", &parse(words).unwrap(), &mut voice, std::future::pending()).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let calls = calls.lock().unwrap().clone();
    Ran { answer, printed: text(out), said: text(talk), calls }
}

/// An API server that takes everything.
fn takes(call: &Call) -> (u16, Value) {
    let mut object = call.body.clone();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = json!("ann-x7");
    }
    object["metadata"]["managedFields"] = json!([]);
    (201, object)
}

#[tokio::test]
async fn flags_make_what_a_manifest_would_say() {
    let permissions = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(permissions.path(), "[permissions]\n%owner% allow builtin\n").unwrap();
    let flags = [
        "desk",
        "--owner",
        "ann",
        "--type",
        "virtual",
        "--display-name",
        "A desk",
        "--requirements",
        "tag:gpu = 'a10'",
        "--server-selector",
        "zone=a,gpu",
        "--init-file",
        "a/b.sh",
        "--autorun-file",
        "c.sh",
        "--autorun-file-argument=--scene",
        "--autorun-file-argument",
        "a,b",
        "--max-concurrent-clients",
        "3",
        "--dcv-gl-enabled",
        "--permissions",
        permissions.path().to_str().unwrap(),
        "--storage-root",
        "%home%",
        "--enqueue-request=false",
        "--disable-retry-on-failure",
        "--priority",
        "-5",
        "--placement-policy",
        "pack",
        "--queue-timeout-seconds",
        "60",
        "--restart-policy",
        "OnServerLoss",
        "--max-duration-seconds",
        "3600",
        "--disconnect-timeout-seconds",
        "600",
        "--ttl-seconds-after-finished",
        "0",
        "--adopt",
        "gpu-7/console",
        "--labels",
        "team=a,project=b",
    ];
    let ran = run(&flags, takes).await;
    assert_eq!((ran.printed.as_str(), ran.said.as_str()), ("dcvsession.dcv-operator.io/desk created\n", ""));
    let call = &ran.calls[0];
    assert_eq!(call.path, "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions");
    assert_eq!(call.query, "&fieldManager=kubectl-dcv&fieldValidation=Strict");
    let expected = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "desk", "namespace": "team", "labels": {"team": "a", "project": "b"}},
        "spec": {
            "owner": "ann", "type": "VIRTUAL", "displayName": "A desk", "requirements": "tag:gpu = 'a10'",
            "serverSelector": {"matchLabels": {"zone": "a"}, "matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
            "initFile": "a/b.sh", "autorunFile": "c.sh", "autorunFileArguments": ["--scene", "a,b"],
            "maxConcurrentClients": 3, "dcvGlEnabled": true, "permissions": "[permissions]\n%owner% allow builtin\n",
            "storageRoot": "%home%", "enqueueRequest": false, "disableRetryOnFailure": true, "priority": -5,
            "placementPolicy": "Pack", "queueTimeoutSeconds": 60, "desiredState": "Running",
            "restartPolicy": "OnServerLoss", "maxDurationSeconds": 3600, "disconnectTimeoutSeconds": 600,
            "ttlSecondsAfterFinished": 0, "adopt": {"serverName": "gpu-7", "sessionId": "console"}},
    });
    assert_eq!(ran.bodies(), [expected]);
}

#[test]
fn every_field_of_a_session_has_a_flag_of_its_name() {
    let command = args::Spec::augment_args(clap::Command::new("create"));
    let flags: BTreeSet<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
    let session = api::crds().into_iter().find(|crd| crd.spec.names.kind == "DcvSession").unwrap();
    let schema = serde_json::to_value(&session.spec.versions[0].schema).unwrap();
    let fields = schema["openAPIV3Schema"]["properties"]["spec"]["properties"].as_object().unwrap().clone();
    let kebab = |field: &str| {
        let words = field.chars().flat_map(|c| c.is_uppercase().then_some('-').into_iter().chain(c.to_lowercase()));
        words.collect::<String>()
    };
    let without: Vec<_> = fields.keys().filter(|field| !flags.contains(kebab(field).as_str())).collect();
    // One argument at a time; and what says nothing on a new session.
    assert_eq!(without, ["autorunFileArguments", "desiredState", "tokensValidFrom"]);
}

#[test]
fn flags_and_files_do_not_mix() {
    assert!(parse(&["-f", "a", "-f", "b"]).is_ok() && parse(&["--owner", "ann"]).is_ok());
    for wrong in [
        &[][..],
        &["desk"],
        &["desk", "-f", "a"],
        &["-f", "a", "--owner", "ann"],
        &["--owner", "ann", "--adopt", "gpu-7"],
        &["--owner", "ann", "--dry-run=client", "--wait"],
        &["--owner", "ann", "--type", "desktop"],
    ] {
        assert_eq!(parse(wrong).err(), Some(2), "{wrong:?}");
    }
    let wait = |words: &[&str]| parse(&[&["--owner", "ann"], words].concat()).unwrap().wait;
    assert_eq!(
        [wait(&[]), wait(&["--wait"]), wait(&["--wait=2m"])],
        [None, Some(Duration::ZERO), Some(Duration::from_mins(2))]
    );
}

#[tokio::test]
async fn without_a_name_one_is_made_and_told() {
    let ran = run(&["--owner", r"DOM\Ann", "-oname"], takes).await;
    assert_eq!(ran.printed, "dcvsession.dcv-operator.io/ann-x7\n");
    assert_eq!(ran.bodies()[0]["metadata"], json!({"generateName": "dom-ann-", "namespace": "team"}));
    assert_eq!(["", "--", "é", "a.b"].map(slug), ["session", "session", "session", "a-b"]);
}

/// A server that has `desk` already, as these changes make it.
fn taken(changes: Value) -> impl FnMut(&Call) -> (u16, Value) + Send + 'static {
    move |call| {
        if call.method == "POST" {
            return mock::already_exists("desk already exists");
        }
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "desk", "namespace": "team"},
            "spec": {"owner": "ann", "type": "VIRTUAL", "enqueueRequest": true, "priority": 0, "desiredState": "Running"}});
        mock::merge(&mut object, &changes);
        (200, object)
    }
}

#[tokio::test]
async fn a_name_makes_it_repeatable() {
    let again = ["desk", "--owner", "ann"];
    let ran = run(&again, taken(json!({}))).await;
    assert!(ran.answer.is_ok());
    assert_eq!(ran.printed, "dcvsession.dcv-operator.io/desk unchanged\n");
    let other = run(&["desk", "--owner", "bob", "--priority", "1"], taken(json!({}))).await;
    assert_eq!(other.error(), "error: session desk is there and asks for something else: owner, priority differ");
    let going = json!({"metadata": {"deletionTimestamp": "2026-11-28T04:00:00Z"}});
    assert!(run(&again, taken(going)).await.error().contains("being deleted"));
    let over = json!({"spec": {"permissions": "changed since"}, "status": {"state": "DELETED", "conditions": [{"type": "Finished", "status": "True",
        "reason": "Closed", "message": "", "lastTransitionTime": "2026-11-28T04:00:00Z"}]}});
    let error = run(&again, taken(over)).await.error();
    assert!(error.contains("over (DELETED); delete it first: kubectl delete dcvs desk"), "{error}");
}

#[tokio::test]
async fn a_dry_run_creates_nothing() {
    let words = ["desk", "--owner", "ann", "--dry-run=client", "-oyaml"];
    let ran = run(&words, |_| -> (u16, Value) { panic!("nothing is asked") }).await;
    let object: Value = serde_saphyr::from_str(&ran.printed).unwrap();
    assert_eq!((&object["spec"]["owner"], &object["metadata"]["name"]), (&json!("ann"), &json!("desk")));
    let ran = run(&["desk", "--owner", "ann", "--dry-run=server"], takes).await;
    assert_eq!(ran.printed, "dcvsession.dcv-operator.io/desk created (server dry run)\n");
    assert!(ran.calls[0].query.contains("dryRun=All"), "{:?}", ran.calls);
    let ran = run(&["desk", "--owner", "ann", "--dry-run"], takes).await;
    assert_eq!((ran.printed.as_str(), ran.calls.len()), ("dcvsession.dcv-operator.io/desk created (dry run)\n", 0));
}

#[tokio::test]
async fn files_are_sent_as_they_are_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let manifest = |name: &str| {
        format!(
            "---\nkind: DcvSession\napiVersion: dcv-operator.io/v1alpha1\nmetadata: {{name: {name}}}\n\
             spec: {{owner: ann, type: VIRTUAL, later: 1}}\n"
        )
    };
    let text = format!("{}{}---\nkind: Namespace\nmetadata: {{name: x}}\n", manifest("a"), manifest("b"));
    std::fs::write(file.path(), text).unwrap();
    let ran = run(&["-f", file.path().to_str().unwrap(), "-ojson"], takes).await;
    assert_eq!(ran.said, "left out: Namespace x\n");
    assert_eq!(ran.bodies()[1]["spec"], json!({"owner": "ann", "type": "VIRTUAL", "later": 1}));
    let list: Value = serde_json::from_str(&ran.printed).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("List"), Some(2)));
    assert_eq!(list["items"][0]["metadata"].get("managedFields"), None);
}

#[tokio::test]
async fn permissions_that_do_not_parse_are_not_sent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[permissions]\nbob may display\n").unwrap();
    let ran = run(&["--owner", "ann", "--permissions", file.path().to_str().unwrap()], takes).await;
    assert!(ran.error().contains("cannot be used: line 2:") && ran.calls.is_empty(), "{}", ran.error());
}

fn status(state: &str, reason: &str, conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(type_, reason)| {
            json!({"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-11-28T04:00:00Z"})
        })
        .collect();
    json!({"state": state, "stateReason": reason, "conditions": conditions})
}

/// How a wait goes while the session has one status after the other.
async fn waited(statuses: Vec<Value>, wait: &str, output: &[&str]) -> Ran {
    let object = |status: &Value, version: usize| {
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": "desk", "namespace": "team", "uid": "u", "resourceVersion": version.to_string()},
            "spec": {"owner": "ann", "type": "VIRTUAL"}, "status": status})
    };
    let objects: Vec<_> = statuses.iter().enumerate().map(|(at, status)| object(status, at + 1)).collect();
    let mut has_watched = false;
    let flags = [&["desk", "--owner", "ann", wait], output].concat();
    run(&flags, move |call| {
        if call.method == "POST" {
            return (201, objects[0].to_string());
        }
        if call.path.ends_with("/desk") {
            return (200, objects[objects.len() - 1].to_string());
        }
        if !call.query.contains("watch=true") {
            return (200, mock::list(&objects[..1]).1.to_string());
        }
        if std::mem::replace(&mut has_watched, true) {
            return (mock::NEVER, String::new());
        }
        let events = objects[1..].iter().map(|object| format!("{}\n", json!({"type": "MODIFIED", "object": object})));
        (200, events.collect())
    })
    .await
}

#[tokio::test]
async fn waiting_tells_each_reason_once_and_ends_when_it_is_ready() {
    let statuses = || {
        vec![
            status("CREATING", "0 of 7 servers fit: 7 full\nmore", &[]),
            status("CREATING", "0 of 7 servers fit: 7 full", &[]),
            status("CREATING", "", &[]),
            status("READY", "", &[("Ready", "AcceptingClients")]),
        ]
    };
    let ran = waited(statuses(), "--wait", &[]).await;
    assert!(ran.answer.is_ok(), "{:?}", ran.answer);
    assert_eq!(ran.printed, "dcvsession.dcv-operator.io/desk created\n");
    assert_eq!(ran.said, "desk: CREATING: 0 of 7 servers fit: 7 full\ndesk: CREATING\ndesk: READY\n");
    let ran = waited(statuses(), "--wait", &["-ojson"]).await;
    let object: Value = serde_json::from_str(&ran.printed).unwrap();
    assert_eq!(object["status"]["state"], "READY", "as it is then");
}

#[tokio::test]
async fn what_never_gets_ready_is_told_and_left_alone() {
    let ran = waited(vec![status("CREATING", "no room", &[])], "--wait=100ms", &[]).await;
    assert!(ran.error().starts_with("error: not READY in that time"), "{}", ran.error());
    let failed = vec![status("CREATING", "", &[]), status("UNKNOWN", "the host said no", &[("Finished", "Failed")])];
    let ran = waited(failed, "--wait=5s", &["-oname"]).await;
    assert_eq!(ran.error(), "error: session desk is over: the host said no");
    assert_eq!(ran.printed, "dcvsession.dcv-operator.io/desk\n");
}
