//! `sessions` and `close-session` against an API server that answers as told.

use std::sync::Arc;
use std::sync::Mutex;

use clap::Parser;
use serde_json::Value;
use serde_json::json;

use super::super::error::words;
use super::super::mock;
use super::super::mock::Call;
use super::*;

const NOW: &str = "2026-11-28T04:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn session(namespace: &str, name: &str, changes: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"), "resourceVersion": "5",
            "creationTimestamp": "2026-11-28T03:00:00Z", "managedFields": [{"manager": "someone"}]},
        "spec": {"owner": "ann", "type": "VIRTUAL", "laterField": 1},
        "status": {"state": "READY", "serverName": "gpu-7", "numOfConnections": 2,
            "server": {"ip": "10.0.0.7", "port": 8443, "webUrlPath": "/"}},
    });
    mock::merge(&mut object, changes);
    object
}

fn waiting() -> Value {
    json!({"status": {"state": "CREATING", "substate": "SESSION_PLACING", "serverName": null, "numOfConnections": null,
        "server": null, "stateReason": "0 of 7 servers fit: 4 full, 3 closed\nrest",
        "conditions": [{"type": "Scheduled", "status": "False", "reason": "NoServerFits", "message": "0 of 7",
            "lastTransitionTime": "2026-11-28T03:59:00Z"}]}})
}

#[derive(Parser, Debug)]
struct Cli {
    #[command(flatten)]
    sessions: Sessions,
}

fn parse(words: &[&str]) -> Sessions {
    Cli::try_parse_from(["sessions"].iter().chain(words)).unwrap().sessions
}

/// What the command answers, and what it asked, where the API server answers as said.
async fn run(
    words: &[&str],
    answer: impl Fn(&Call) -> (u16, Value) + Send + 'static,
) -> (Result<Answer, Error>, Vec<Call>) {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let client = mock::full_client(move |call| {
        seen.lock().unwrap().push(call.clone());
        answer(call)
    });
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let answer = show(&client, "team", &parse(words), &mut voice, now, std::future::pending()).await;
    let calls = calls.lock().unwrap().clone();
    (answer, calls)
}

#[tokio::test]
async fn sessions_are_listed_with_what_people_ask_about() {
    let items = [
        session("team", "desk", &json!({})),
        session("team", "closing", &json!({"metadata": {"deletionTimestamp": NOW}})),
        session("team", "new", &waiting()),
        json!({"metadata": {"name": "strange", "namespace": "team"}, "spec": {"owner": 5}}),
    ];
    let (answer, calls) = run(&[], move |_| mock::list(&items)).await;
    let expected = "\
NAME      STATE          OWNER          SERVER         CLIENTS        AGE            REASON
desk      READY          ann            gpu-7          2              60m            <none>
closing   DELETING       ann            gpu-7          2              60m            <none>
new       CREATING       ann            <none>         0              60m            0 of 7 servers fit: 4 full, 3 closed
strange   <unreadable>   <unreadable>   <unreadable>   <unreadable>   <unreadable>   <unreadable>
";
    assert_eq!(answer.unwrap().data, expected);
    assert_eq!(calls[0].path, "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions");
}

#[tokio::test]
async fn the_wide_view_has_more_and_all_namespaces_have_theirs() {
    let (answer, calls) = run(&["-A", "-owide"], |_| mock::list(&[session("team", "desk", &json!({}))])).await;
    let expected = "\
NAMESPACE   NAME   STATE   OWNER   SERVER   CLIENTS   AGE   TYPE      ADDRESS                  ID         REASON
team        desk   READY   ann     gpu-7    2         60m   VIRTUAL   https://10.0.0.7:8443/   uid-desk   <none>
";
    assert_eq!(answer.unwrap().data, expected);
    assert_eq!(calls[0].path, "/apis/dcv-operator.io/v1alpha1/dcvsessions");
}

#[tokio::test]
async fn selections_are_the_api_servers_where_it_can_make_them() {
    let query = async |words: &[&str]| {
        let (_, calls) = run(words, |_| mock::list(&[])).await;
        calls[0].query.clone()
    };
    assert_eq!(query(&["-l", "team=a"]).await, "&labelSelector=team%3Da&limit=500");
    let fields = query(&["--field-selector", "metadata.name!=a", "--owner", "ann", "--state", "ready"]).await;
    assert!(fields.contains("metadata.name%21%3Da%2Cspec.owner%3Dann%2Cstatus.state%3DREADY"), "{fields}");
    let escaped = query(&["--owner", r"DOM\ann,x"]).await;
    assert!(escaped.contains("spec.owner%3DDOM%5C%5Cann%5C%2Cx"), "{escaped}");
    // A session that is closing has its old state in the object.
    for words in [&["--state", "DELETING"][..], &["--state", "READY,UNKNOWN"]] {
        assert!(!query(words).await.contains("fieldSelector"), "{words:?}");
    }
}

#[tokio::test]
async fn states_are_those_that_are_shown() {
    let items = || {
        mock::list(&[
            session("team", "desk", &json!({})),
            session("team", "closing", &json!({"spec": {"desiredState": "Closed"}})),
        ])
    };
    let names = async |state: &str| run(&["--state", state, "-oname"], move |_| items()).await.0.unwrap().data;
    assert_eq!(names("READY").await, "dcvsession.dcv-operator.io/desk\n");
    assert_eq!(names("deleting").await, "dcvsession.dcv-operator.io/closing\n");
    assert_eq!(names("DELETED").await, "");
}

#[tokio::test]
async fn as_data_it_is_kubectls_list_with_all_that_the_objects_have() {
    let items = [session("team", "desk", &json!({}))];
    let mut expected = items[0].clone();
    expected["metadata"].as_object_mut().unwrap().remove("managedFields");
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [expected]});
    let of = items.clone();
    let (answer, _) = run(&["-ojson"], move |_| mock::list(&of)).await;
    let text = answer.unwrap().data;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), list);
    assert!(text.starts_with("{\n    \"apiVersion\": \"v1\",\n    \"items\": ["), "{text}");
    let (answer, _) = run(&["-oyaml"], move |_| mock::list(&items)).await;
    assert_eq!(serde_saphyr::from_str::<Value>(&answer.unwrap().data).unwrap(), list);
    let one = expected.clone();
    let (answer, _) = run(&["dcvsession/desk", "-ojson"], move |_| (200, one.clone())).await;
    assert_eq!(serde_json::from_str::<Value>(&answer.unwrap().data).unwrap(), expected);
}

#[tokio::test]
async fn nothing_is_said_as_kubectl_says_it_and_long_lists_come_in_pieces() {
    let (answer, _) = run(&[], |_| mock::list(&[])).await;
    assert_eq!(answer.unwrap().talk, "No resources found in team namespace.\n");
    let (answer, _) = run(&["-A"], |_| mock::list(&[])).await;
    assert_eq!(answer.unwrap().talk, "No resources found.\n");
    let pieces = |call: &Call| {
        let (_, mut list) = mock::list(&[session("team", "desk", &json!({}))]);
        if !call.query.contains("continue=") {
            list["metadata"]["continue"] = json!("more");
        }
        (200, list)
    };
    let (answer, calls) = run(&["-oname"], pieces).await;
    assert_eq!((answer.unwrap().data.lines().count(), calls.len()), (2, 2));
}

#[tokio::test]
async fn whoever_may_not_is_told_which_right_is_missing() {
    let (answer, _) = run(&[], |_| mock::forbidden("dcvsessions is forbidden: User \"bob\" cannot list")).await;
    let said = words(&answer.unwrap_err());
    let expected = "error: sessions needs the right to list dcvsessions in namespace team: dcvsessions is forbidden: User \
                    \"bob\" cannot list";
    assert_eq!(said, expected);
    let (answer, _) = run(&["-A"], |_| mock::forbidden("no")).await;
    assert_eq!(
        words(&answer.unwrap_err()),
        "error: sessions needs the right to list dcvsessions in all namespaces: no"
    );
}

#[tokio::test]
async fn one_session_is_told_whole() {
    let changes = json!({"spec": {"requirements": "tag:gpu = 'a10'", "displayName": "A \u{1b}[31mdesk"}});
    let mut object = session("team", "new", &waiting());
    mock::merge(&mut object, &changes);
    let (answer, _) = run(&["new"], move |_| (200, object.clone())).await;
    let answer = answer.unwrap();
    let expected = "\
Name:           new
Namespace:      team
Display name:   A  [31mdesk
Owner:          ann
Type:           VIRTUAL
Created:        2026-11-28T03:00:00Z (60m ago)
State:          CREATING / SESSION_PLACING
Reason:         0 of 7 servers fit: 4 full, 3 closed rest
Id:             uid-new
Requirements:   tag:gpu = 'a10'
Conditions:
  TYPE        STATUS   REASON         SINCE   MESSAGE
  Scheduled   False    NoServerFits   60s     0 of 7
";
    assert_eq!(answer.data, expected);
    assert_eq!(answer.talk, "kubectl dcv explain new -n team says which servers there are and what would help\n");
}

fn event(type_: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": type_, "object": object}))
}

/// What is printed while these events come after this list.
async fn watched(words: &[&str], list: Vec<Value>, events: Vec<String>) -> String {
    let events = Mutex::new(Some(events.concat()));
    let client = mock::full_client(move |call| {
        if !call.query.contains("watch=true") {
            let (code, list) = mock::list(&list);
            return (code, list.to_string());
        }
        events.lock().unwrap().take().map_or((mock::NEVER, String::new()), |events| (200, events))
    });
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let stop = tokio::time::sleep(std::time::Duration::from_millis(200));
    let answer = show(&client, "team", &parse(words), &mut voice, now, stop).await;
    assert!(matches!(answer, Err(Error::Stopped)), "{answer:?}");
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_watch_has_its_titles_once_and_then_what_changes() {
    let desk = |changes: Value| session("team", "desk", &changes);
    let list = vec![desk(json!({"status": {"state": "CREATING", "serverName": null}}))];
    let events = vec![
        event("MODIFIED", &desk(json!({}))),
        // Nothing that is shown has changed.
        event("MODIFIED", &desk(json!({"metadata": {"resourceVersion": "8", "annotations": {"a": "b"}}}))),
        event("ADDED", &session("team", "a-longer-name", &json!({}))),
        event("DELETED", &desk(json!({"metadata": {"resourceVersion": "9"}}))),
    ];
    let expected = "\
NAME   STATE      OWNER   SERVER   CLIENTS   AGE   REASON
desk   CREATING   ann     <none>   2         60m   <none>
desk   READY      ann     gpu-7    2         60m   <none>
a-longer-name   READY      ann     gpu-7    2         60m   <none>
desk            (gone)     ann     gpu-7    2         60m   <none>
";
    assert_eq!(watched(&["-w"], list, events).await, expected);
}

#[tokio::test]
async fn what_leaves_the_selection_is_shown_once_more() {
    let desk = |changes: Value| session("team", "desk", &changes);
    let lost = || desk(json!({"metadata": {"resourceVersion": "8"}, "status": {"state": "UNKNOWN"}}));
    let events = vec![event("MODIFIED", &lost()), event("MODIFIED", &lost())];
    let printed = watched(&["-w", "--state", "READY", "--no-headers"], vec![desk(json!({}))], events).await;
    let states: Vec<_> = printed.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(states, ["READY", "UNKNOWN"]);
}

#[tokio::test]
async fn a_watch_as_data_is_one_document_after_the_other() {
    let desk = session("team", "desk", &json!({}));
    let events = || vec![event("MODIFIED", &session("team", "desk", &json!({"metadata": {"resourceVersion": "8"}})))];
    let names = watched(&["-w", "-oname"], vec![desk.clone()], events()).await;
    assert_eq!(names, "dcvsession.dcv-operator.io/desk\ndcvsession.dcv-operator.io/desk\n");
    let text = watched(&["-w", "-ojson"], vec![desk.clone()], events()).await;
    let documents: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
    let versions: Vec<_> = documents.iter().map(|it| it["metadata"]["resourceVersion"].as_str().unwrap()).collect();
    assert_eq!(versions, ["5", "8"]);
    let text = watched(&["-w", "-oyaml"], vec![desk], events()).await;
    assert_eq!(serde_saphyr::from_multiple::<Value>(&text).unwrap().len(), 2);
}

/// What `close-session` prints and sends for a session that is like this.
async fn closed(force: bool, changes: Value) -> (String, Vec<Value>) {
    let (client, patches) = mock::server(session("team", "desk", &changes));
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let wanted = Closing { sessions: vec!["dcvs/desk".into()], force, wait: None };
    close(&client, "team", &wanted, &mut voice, std::future::pending()).await.unwrap();
    let patches = patches.lock().unwrap().iter().map(|patch| patch["spec"].clone()).collect();
    (String::from_utf8(out).unwrap(), patches)
}

#[tokio::test]
async fn a_session_is_closed_once_and_forced_after_that() {
    let said = |words: &str| format!("dcvsession.dcv-operator.io/desk {words}\n");
    assert_eq!(closed(false, json!({})).await, (said("closing"), vec![json!({"desiredState": "Closed"})]));
    let again = json!({"spec": {"desiredState": "Closed"}});
    assert_eq!(closed(false, again.clone()).await, (said("already closing"), vec![]));
    assert_eq!(closed(true, again).await, (said("closing"), vec![json!({"desiredState": "ForceClosed"})]));
    let over = json!({"status": {"state": "DELETED", "conditions": [{"type": "Finished", "status": "True",
        "reason": "Closed", "message": "", "lastTransitionTime": NOW}]}});
    assert_eq!(closed(true, over).await, (said("already over"), vec![]));
}
