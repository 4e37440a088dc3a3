//! What calls are made, and what they teach.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::*;
use crate::agent::backend::BackendError;
use crate::agent::backend::Description;
use crate::agent::backend::HostSession;
use crate::agent::backend::ScreenshotRequest;
use crate::agent::backend::contract;
use crate::agent::mock;
use crate::agent::mock::Calls;
use crate::agent::report;
use crate::agent::room::Refusal;

/// A host that never finishes creating `slow`, refuses to close once, and notes what it is asked.
#[derive(Default)]
struct Host {
    asked: Mutex<Vec<String>>,
    closes: AtomicUsize,
}

impl Host {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

impl Backend for Host {
    const NAME: &'static str = "host";

    async fn describe(&self) -> Result<Description, BackendError> {
        Ok(Description::default())
    }

    async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        Ok(Vec::new())
    }

    async fn create(&self, order: &Order) -> Result<(), CreateError> {
        self.note(format!("create {}", order.id));
        if order.id == "slow" { std::future::pending().await } else { Ok(()) }
    }

    async fn announce(&self, id: &str) -> Result<(), BackendError> {
        self.note(format!("announce {id}"));
        Ok(())
    }

    async fn close(&self, id: &str) -> Result<(), BackendError> {
        self.note(format!("close {id}"));
        let fault = BackendError { action: "close", message: "busy".into() };
        if self.closes.fetch_add(1, Ordering::Relaxed) == 0 { Err(fault) } else { Ok(()) }
    }

    async fn set_permissions(&self, id: &str, text: Option<&str>) -> Result<(), BackendError> {
        self.note(format!("permit {id} {text:?}"));
        Ok(())
    }

    async fn screenshot(&self, _: &str, _: ScreenshotRequest) -> Result<Vec<u8>, BackendError> {
        Ok(Vec::new())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        server_name: "host-1".into(),
        namespace: "dcv-system".into(),
        scope: crate::cluster::Scope::All,
        kubeconfig: None,
        state_folder: "/nowhere".into(),
        https_address: "127.0.0.1:0".parse().unwrap(),
        advertise_address: None,
        tags_folder: None,
        host: crate::agent::HostSettings::default(),
        check: None,
        max_virtual_sessions: None,
        max_concurrent_sessions_per_user: None,
        owner_pattern: None,
        orphan_policy: super::super::OrphanPolicy::Keep,
        create_timeout: Duration::from_millis(100),
        update_interval: Duration::from_secs(30),
        verifier: None,
        clock: mock::clock,
    })
}

/// Hands over an API server made of `answer`, with a Lease that was just renewed, or never.
async fn hands(
    is_current: bool,
    answer: impl FnMut(&str, &str, &Value) -> (u16, Value) + Send + 'static,
) -> (Hands<Host>, Calls) {
    let (renewed, _) = mock::client(move |_, _, body| (if is_current { 200 } else { 500 }, body.clone()));
    let (mut lease, work) = ServerLease::new(Api::default_namespaced(renewed), "host-1", "host-1", mock::clock);
    tokio::spawn(work);
    if is_current {
        lease.renewed().await;
    }
    let (client, calls) = mock::client(answer);
    (Hands::new(Arc::new(Host::default()), client, lease, settings()), calls)
}

fn session() -> Arc<DcvSession> {
    let object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "a", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 1,
            "finalizers": ["other", "dcv-operator.io/session-cleanup"]},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
        "status": {"serverName": "host-1", "serverUid": "server", "sessionId": "u", "attempt": 3, "state": "CREATING",
            "substate": "PENDING_PREPARATION", "observedGeneration": 1,
            "lastTransitionTime": "2027-01-01T00:00:00Z", "conditions": [
                {"type": "Scheduled", "status": "True", "reason": "Bound", "message": "",
                 "lastTransitionTime": "2027-01-01T00:00:00Z"}]},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn refused() -> Write {
    let session = session();
    let status = report::not_created(&session, &Refusal::OfHost("no".into()), mock::clock());
    Write { session, status }
}

fn writes(write: Write) -> Plan {
    Plan { writes: vec![write], ..Plan::default() }
}

async fn next(hands: &mut Hands<Host>) -> Done {
    tokio::time::timeout(Duration::from_secs(5), hands.next()).await.unwrap()
}

#[tokio::test]
async fn a_status_is_one_merge_patch_with_version_server_and_attempt() {
    let (mut hands, calls) = hands(true, |_, _, _| (200, serde_json::to_value(session().as_ref()).unwrap())).await;
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    let done = next(&mut hands).await;
    assert!(matches!(done, Done::Written { outcome: Outcome::Done(Some(_)), .. }), "{done:?}");
    let calls = calls.take();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].method, "PATCH");
    assert_eq!(
        calls[0].path,
        "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions/a/status?&fieldManager=dcv-agent"
    );
    let created = json!({"type": "Created", "status": "False", "reason": "Refused", "message": "no",
        "observedGeneration": 1, "lastTransitionTime": "2027-01-15T08:00:00Z"});
    let scheduled = json!({"type": "Scheduled", "status": "True", "reason": "Bound", "message": "",
        "lastTransitionTime": "2027-01-01T00:00:00Z"});
    let status = json!({"serverName": "host-1", "attempt": 3, "stateReason": "no", "conditions": [scheduled, created]});
    assert_eq!(calls[0].body, json!({"metadata": {"resourceVersion": "7"}, "status": status}));
}

#[tokio::test]
async fn an_announcement_is_under_way_until_the_host_has_noted_it() {
    let (mut hands, _) = hands(true, |_, _, _| (200, Value::Null)).await;
    let mut ledger = Ledger::default();
    let mut plan = Plan { host: vec![HostAction::Announce("u".into())], ..Plan::default() };
    hands.begin(&mut plan, &mut ledger);
    assert_eq!(ledger.announcing, BTreeMap::from([("u".to_owned(), None)]));
    let done = next(&mut hands).await;
    assert!(matches!(&done, Done::Announced { id, is_noted: true } if id == "u"), "{done:?}");
    assert_eq!(*hands.backend.asked.lock().unwrap(), ["announce u"]);
}

#[test]
fn mere_counters_do_not_depend_on_the_version() {
    let session = session();
    let mut status = session.status.clone().unwrap();
    status.num_of_connections = Some(2);
    let expected = json!({"metadata": {"uid": "u"},
        "status": {"serverName": "host-1", "attempt": 3, "numOfConnections": 2}});
    assert_eq!(status_patch(&session, &status), Some(expected));
}

#[tokio::test]
async fn nothing_changed_is_no_call() {
    let (mut hands, calls) = hands(true, |_, _, _| (500, mock::failure(500))).await;
    let session = session();
    let status = session.status.clone().unwrap();
    hands.begin(&mut writes(Write { session, status }), &mut Ledger::default());
    next(&mut hands).await;
    assert_eq!(calls.take(), []);
}

#[tokio::test]
async fn a_conflict_is_looked_at_again() {
    let newer = || {
        let mut newer = (*session()).clone();
        newer.metadata.resource_version = Some("8".into());
        serde_json::to_value(newer).unwrap()
    };
    let (mut hands, calls) = hands(true, move |method, _, _| match method {
        "PATCH" => (409, mock::failure(409)),
        _ => (200, newer()),
    })
    .await;
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    match next(&mut hands).await {
        Done::Written { version, outcome: Outcome::Changed(Some(now)), .. } => {
            assert_eq!((version.as_deref(), now.resource_version().as_deref()), (Some("7"), Some("8")));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(calls.take().len(), 2);
    assert_eq!(hands.next_retry(), None, "at once");
}

#[tokio::test]
async fn an_object_of_the_same_name_made_anew_is_another() {
    let (mut hands, _) = hands(true, |method, _, _| {
        let mut other = (*session()).clone();
        other.metadata.uid = Some("another".into());
        if method == "PATCH" { (409, mock::failure(409)) } else { (200, serde_json::to_value(other).unwrap()) }
    })
    .await;
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    assert!(matches!(next(&mut hands).await, Done::Written { outcome: Outcome::Changed(None), .. }));
}

#[tokio::test]
async fn a_write_that_is_refused_for_good_is_tried_again_later() {
    let (mut hands, calls) = hands(true, |method, _, _| match method {
        "PATCH" => (403, mock::failure(403)),
        _ => (200, serde_json::to_value(session().as_ref()).unwrap()),
    })
    .await;
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    assert!(matches!(next(&mut hands).await, Done::Written { outcome: Outcome::Failed, .. }));
    assert!(hands.next_retry().is_some());
    calls.take();
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    assert_eq!(calls.take(), [], "not before its time");
}

#[tokio::test]
async fn no_call_is_made_without_a_current_lease() {
    let (mut hands, calls) = hands(false, |_, _, _| (200, Value::Null)).await;
    hands.begin(&mut writes(refused()), &mut Ledger::default());
    assert!(matches!(next(&mut hands).await, Done::Written { outcome: Outcome::Failed, .. }));
    assert_eq!(calls.take(), []);
}

#[tokio::test]
async fn exactly_our_finalizer_is_taken_off_and_only_while_the_list_is_as_seen() {
    let (mut hands, calls) = hands(true, |_, _, _| (404, mock::failure(404))).await;
    let mut plan = Plan { releases: vec![session()], ..Plan::default() };
    hands.begin(&mut plan, &mut Ledger::default());
    let done = next(&mut hands).await;
    assert!(matches!(done, Done::Written { outcome: Outcome::Done(None), .. }), "gone is done: {done:?}");
    let call = calls.take().remove(0);
    assert_eq!(call.path, "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions/a?&fieldManager=dcv-agent");
    assert_eq!(
        call.body,
        json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/metadata/finalizers", "value": ["other", "dcv-operator.io/session-cleanup"]},
            {"op": "remove", "path": "/metadata/finalizers/1"},
        ])
    );
}

#[tokio::test]
async fn with_its_last_finalizer_the_object_is_gone_whatever_version_is_answered() {
    let (mut hands, _) = hands(true, |_, _, _| {
        let mut answer = (*session()).clone();
        answer.metadata.finalizers = None;
        (200, serde_json::to_value(answer).unwrap())
    })
    .await;
    let mut plan = Plan { releases: vec![session()], ..Plan::default() };
    hands.begin(&mut plan, &mut Ledger::default());
    assert!(matches!(next(&mut hands).await, Done::Written { outcome: Outcome::Done(None), .. }));
}

#[tokio::test]
async fn one_object_is_written_once_at_a_time() {
    let (mut hands, calls) = hands(true, |_, _, _| (200, serde_json::to_value(session().as_ref()).unwrap())).await;
    let mut plan = Plan { writes: vec![refused(), refused()], releases: vec![session()], ..Plan::default() };
    hands.begin(&mut plan, &mut Ledger::default());
    next(&mut hands).await;
    assert_eq!(calls.take().len(), 1);
}

fn host(action: HostAction) -> Plan {
    Plan { host: vec![action], ..Plan::default() }
}

fn create(id: &str) -> HostAction {
    HostAction::Create(Box::new(contract::order(id, "ann")))
}

#[tokio::test]
async fn a_create_that_takes_too_long_is_told_only_once_the_host_is_clear() {
    let (mut hands, _) = hands(true, |_, _, _| (500, Value::Null)).await;
    let mut ledger = Ledger::default();
    hands.begin(&mut host(create("slow")), &mut ledger);
    let Done::Created { result: Some(Err(CreateError::Failed(message))), .. } = next(&mut hands).await else {
        panic!("it fails")
    };
    assert_eq!(message, "the session did not accept clients within 0 seconds");
    assert_eq!(*hands.backend.asked.lock().unwrap(), ["create slow", "close slow", "close slow"]);
}

#[tokio::test]
async fn a_close_stops_the_create_first() {
    let (mut hands, _) = hands(true, |_, _, _| (500, Value::Null)).await;
    let mut ledger = Ledger::default();
    hands.begin(&mut host(create("slow")), &mut ledger);
    hands.begin(&mut host(HostAction::Close("slow".into())), &mut ledger);
    assert!(ledger.creating["slow"].cancelled);
    let Done::Created { id, permissions, result: None } = next(&mut hands).await else { panic!("it is cut short") };
    ledger.create_ended(&id, permissions, None, mock::clock());
    hands.begin(&mut host(HostAction::Close("slow".into())), &mut ledger);
    assert!(matches!(next(&mut hands).await, Done::Closed { result: Err(_), .. }));
}

#[tokio::test]
async fn a_slow_session_does_not_keep_others_waiting() {
    let (mut hands, _) = hands(true, |_, _, _| (500, Value::Null)).await;
    let mut plan = Plan { host: vec![create("slow"), create("quick")], ..Plan::default() };
    hands.begin(&mut plan, &mut Ledger::default());
    let done = next(&mut hands).await;
    assert!(matches!(&done, Done::Created { id, result: Some(Ok(())), .. } if id == "quick"), "{done:?}");
}
