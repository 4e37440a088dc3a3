//! The store over a made-up API server: what is asked of it, and what is made of its answers.

use std::sync::Mutex as StdMutex;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::Value;

use super::*;

const ID: &str = "7f8a2c1e-0000-4000-8000-000000000001";

/// What was called, and what is answered: status and body.
struct Server {
    calls: Arc<StdMutex<Vec<String>>>,
    store: KubeStore,
}

impl Server {
    fn new(answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let calls: Arc<StdMutex<Vec<String>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&calls), Arc::new(answer));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let path = parts.uri.path_and_query().unwrap().to_string();
                let path = path.trim_start_matches("/apis/dcv-operator.io/v1alpha1/").trim_end_matches(['?', '&']);
                let method = parts.method.as_str();
                let body = String::from_utf8(body.collect_bytes().await?.to_vec())?;
                let body = if method == "POST" { "" } else { body.as_str() };
                seen.lock().unwrap().push(format!("{method} {path} {body}").trim_end().to_owned());
                let (code, value) = answer(method, path);
                let body = Full::<Bytes>::from(serde_json::to_vec(&value)?);
                Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?)
            }
        });
        let store = KubeStore::new(Client::new(service, "default"), "dcv-system", Scope::All);
        let mut world = store.cache.write();
        world.apply_session(Change::ListBegins);
        world.apply_session(Change::ListEnds);
        drop(world);
        Self { calls, store }
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    async fn find(&self, id: &str) -> usize {
        self.store.find(&client(), &[id.to_owned()]).await.unwrap().len()
    }
}

fn client() -> ApiClient {
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": "c", "namespace": "red", "uid": "uid-c"}, "spec": {},
    }))
    .unwrap()
}

fn session_value(version: u64) -> Value {
    json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "a", "namespace": "red", "uid": ID, "resourceVersion": version.to_string(),
            "finalizers": [names::SESSION_FINALIZER]},
        "spec": {"owner": "ann", "type": "VIRTUAL"},
    })
}

fn session(version: u64) -> DcvSession {
    serde_json::from_value(session_value(version)).unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message});
    (code, status)
}

fn list(items: &[Value]) -> (u16, Value) {
    let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": "9"}, "items": items});
    (200, list)
}

fn metadata(namespace: &str) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "a", "namespace": namespace, "uid": ID}})
}

#[tokio::test]
async fn a_session_of_another_replica_is_found_before_the_watch_shows_it() {
    let server = Server::new(|_, path| match path {
        "dcvsessions" => list(&[metadata("red")]),
        _ => (200, session_value(7)),
    });
    assert_eq!(server.find(ID).await, 1);
    assert_eq!(server.calls(), ["GET dcvsessions", "GET namespaces/red/dcvsessions/a"]);
    assert_eq!(server.find(ID).await, 1);
    assert_eq!(server.calls(), Vec::<String>::new(), "it is in the cache now");
}

#[tokio::test]
async fn an_id_that_nobody_has_is_asked_for_once_and_another_tenants_is_not_read() {
    let server = Server::new(|_, _| list(&[]));
    assert_eq!((server.find(ID).await, server.find(ID).await), (0, 0));
    assert_eq!(server.calls(), ["GET dcvsessions"]);
    assert_eq!(server.find("console").await, 0);
    assert_eq!(server.calls(), Vec::<String>::new(), "no uid, so no session is about to appear under it");
    let server = Server::new(|_, _| list(&[metadata("blue")]));
    assert_eq!(server.find(ID).await, 0);
    assert_eq!(server.calls(), ["GET dcvsessions"]);
}

#[tokio::test]
async fn a_verifier_finds_sessions_of_all_tenants_and_waits_for_one_it_does_not_know() {
    let server = Server::new(|_, path| match path {
        "dcvsessions" => list(&[metadata("red")]),
        _ => (200, session_value(7)),
    });
    assert_eq!(server.store.locate(ID).await.unwrap().len(), 1);
    assert_eq!(server.calls(), ["GET dcvsessions", "GET namespaces/red/dcvsessions/a"]);
    assert_eq!(server.store.locate(ID).await.unwrap().len(), 1);
    assert_eq!(server.calls(), Vec::<String>::new(), "it is in the cache now");
}

#[tokio::test]
async fn one_list_serves_all_who_wait_for_it() {
    let server = Server::new(|_, _| list(&[]));
    let ids: Vec<_> = (0..20).map(|number| format!("7f8a2c1e-0000-4000-8000-{number:012}")).collect();
    futures::future::join_all(ids.iter().map(|id| server.find(id))).await;
    let lists = server.calls().len();
    assert!(lists <= 2, "{lists} lists for 20 calls at once");
}

#[tokio::test]
async fn an_id_is_not_called_unknown_when_the_api_server_cannot_say() {
    let server = Server::new(|_, _| status(500, "InternalError", "etcd"));
    assert!(server.store.find(&client(), &[ID.to_owned()]).await.is_err());
}

#[tokio::test]
async fn a_created_session_is_read_at_once_and_one_that_exists_is_taken() {
    let server = Server::new(|_, _| (201, session_value(7)));
    server.store.make(&client(), session(0)).await.unwrap();
    assert_eq!(server.find(ID).await, 1);
    assert_eq!(server.calls(), ["POST namespaces/red/dcvsessions?&fieldManager=dcv-broker"]);
    let server = Server::new(|method, _| match method {
        "POST" => status(409, "AlreadyExists", "exists"),
        _ => (200, session_value(7)),
    });
    assert_eq!(server.store.make(&client(), session(0)).await.unwrap().metadata.uid.as_deref(), Some(ID));
}

#[tokio::test]
async fn what_the_cluster_refuses_for_the_object_is_told_and_our_own_lack_of_rights_is_not() {
    let refusal = async |code: u16, reason: &'static str, message: &'static str| {
        let server = Server::new(move |_, _| status(code, reason, message));
        match server.store.make(&client(), session(0)).await {
            Err(StoreError::Refused(words)) => Some(words),
            Err(_) => None,
            Ok(_) => panic!("made"),
        }
    };
    let policy = "dcvsessions \"a\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: owner cannot be root";
    assert_eq!(refusal(403, "Forbidden", policy).await.as_deref(), Some(policy));
    assert_eq!(refusal(403, "Forbidden", "exceeded quota: q").await.as_deref(), Some("exceeded quota: q"));
    assert_eq!(refusal(422, "Invalid", "spec.owner: bad").await.as_deref(), Some("spec.owner: bad"));
    let rights = "dcvsessions is forbidden: User \"b\" cannot create resource \"dcvsessions\" in the namespace \"red\"";
    assert_eq!(refusal(403, "Forbidden", rights).await, None);
    assert_eq!(refusal(500, "InternalError", "etcd").await, None);
    let causes = json!({"causes": [
        {"reason": "FieldValueInvalid", "message": "Policy 'p' denied request: owner must match ^a"},
        {"reason": "FieldValueInvalid", "message": "too long", "field": "spec.owner"},
    ]});
    let mut body = status(422, "Invalid", "whole").1;
    body["details"] = causes;
    let status: Status = serde_json::from_value(body).unwrap();
    assert_eq!(words(&status), "owner must match ^a; spec.owner: too long");
}

#[tokio::test]
async fn a_delete_names_the_object_it_means_and_shows_at_once() {
    let server = Server::new(|_, _| {
        let mut marked = session_value(9);
        marked["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
        (200, marked)
    });
    server.store.cache.write().apply_session(Change::Put(session(5)));
    server.store.remove(&session(5)).await.unwrap();
    let expected = format!("DELETE namespaces/red/dcvsessions/a {{\"preconditions\":{{\"uid\":\"{ID}\"}}}}");
    assert_eq!(server.calls(), [expected]);
    let found = server.store.find(&client(), &[ID.to_owned()]).await.unwrap();
    assert!(found[0].session.is_closing());

    let server = Server::new(|_, _| status(404, "NotFound", "gone"));
    server.store.cache.write().apply_session(Change::Put(session(5)));
    assert!(matches!(server.store.remove(&session(5)).await, Err(StoreError::NotFound(_))));
    assert_eq!(server.find(ID).await, 0);
    assert_eq!(server.calls().len(), 1, "known to be gone");
}

#[tokio::test]
async fn a_close_names_the_object_it_means_and_one_that_ended_meanwhile_is_no_failure() {
    let server = Server::new(|_, _| (200, session_value(9)));
    server.store.order(&session(5), DesiredState::Closed).await.unwrap();
    let body = format!("{{\"metadata\":{{\"uid\":\"{ID}\"}},\"spec\":{{\"desiredState\":\"Closed\"}}}}");
    let expected = format!("PATCH namespaces/red/dcvsessions/a?&fieldManager=dcv-broker {body}");
    assert_eq!(server.calls(), [expected]);

    let ended = |method: &str, _: &str| {
        let mut finished = session_value(9);
        finished["status"] = json!({"state": "DELETED", "conditions": [{"type": "Finished", "status": "True",
            "reason": "EndedOnHost", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]});
        if method == "PATCH" {
            status(422, "Invalid", "a finished session may not be changed")
        } else {
            (200, finished)
        }
    };
    assert!(Server::new(ended).store.order(&session(5), DesiredState::Closed).await.is_ok());
    let refused = |method: &str, _: &str| match method {
        "PATCH" => status(422, "Invalid", "no"),
        _ => (200, session_value(9)),
    };
    let outcome = Server::new(refused).store.order(&session(5), DesiredState::Closed).await;
    assert!(matches!(outcome, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn permissions_name_the_session_they_mean_and_one_that_ended_meanwhile_is_told() {
    let server = Server::new(|_, _| (200, session_value(9)));
    server.store.permit(&session(5), "# none").await.unwrap();
    let body = format!("{{\"metadata\":{{\"uid\":\"{ID}\"}},\"spec\":{{\"permissions\":\"# none\"}}}}");
    let expected = format!("PATCH namespaces/red/dcvsessions/a?&fieldManager=dcv-broker {body}");
    assert_eq!(server.calls(), [expected]);

    let refusal = async |now: Value| {
        let answer = move |method: &str, _: &str| match method {
            "PATCH" => status(422, "Invalid", "spec.permissions: too long"),
            _ => (200, now.clone()),
        };
        match Server::new(answer).store.permit(&session(5), "x").await {
            Err(StoreError::Refused(words)) => words,
            other => panic!("{other:?}"),
        }
    };
    let mut finished = session_value(9);
    finished["status"] = json!({"state": "DELETED", "conditions": [{"type": "Finished", "status": "True",
        "reason": "EndedOnHost", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]});
    assert_eq!(refusal(finished).await, "The session has ended meanwhile");
    assert_eq!(refusal(session_value(9)).await, "spec.permissions: too long");
}

#[tokio::test]
async fn a_session_can_be_tried_without_making_it() {
    let server = Server::new(|_, _| (201, session_value(7)));
    server.store.try_make(&client(), session(0)).await.unwrap();
    assert_eq!(server.calls(), ["POST namespaces/red/dcvsessions?&dryRun=All&fieldManager=dcv-broker"]);
    assert_eq!(server.store.cache.sessions(&client(), None, 9, &|_| true).len(), 0, "nothing is shown of it");
}

/// The server `s`, whose agent knows of `observed` changes of the spec.
fn server_value(placement: Option<&str>, version: u64, generation: i64, observed: i64) -> Value {
    json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
        "metadata": {"name": "s", "uid": "uid-s", "resourceVersion": version.to_string(), "generation": generation},
        "spec": {"placement": placement}, "status": {"availability": "AVAILABLE", "observedGeneration": observed},
    })
}

fn host(placement: Option<&str>) -> DcvServer {
    serde_json::from_value(server_value(placement, 5, 1, 1)).unwrap()
}

const READ: &str = "GET dcvservers/s";
const LIST: &str = "GET dcvsessions?&fieldSelector=status.serverName%3Ds";

fn change(version: u64, spec: &str) -> String {
    let body = format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"spec\":{spec}}}");
    format!("PATCH dcvservers/s?&fieldManager=dcv-broker {body}")
}

fn sessions(items: &[Value]) -> (u16, Value) {
    let list = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSessionList",
        "metadata": {"resourceVersion": "9"}, "items": items});
    (200, list)
}

fn bound_to_s() -> Value {
    let mut bound = session_value(8);
    bound["status"] = json!({"state": "CREATING", "conditions": [], "serverName": "s", "attempt": 1});
    bound
}

/// An API server that changes `s` as it is told, while its agent keeps up, and knows these sessions.
fn obedient(placement: Option<&'static str>, bound: Vec<Value>) -> Server {
    let changes = std::sync::atomic::AtomicI64::new(0);
    Server::new(move |method, path| {
        let is_change = i64::from(method == "PATCH");
        let number = changes.fetch_add(is_change, Ordering::SeqCst) + is_change;
        match (path.starts_with("dcvsessions"), number) {
            (true, _) => sessions(&bound),
            (false, 0) => (200, server_value(placement, 5, 1, 1)),
            (false, 1) => (200, server_value(Some("Closed"), 6, 2, 2)),
            (false, _) => (200, server_value(placement, 7, 3, 3)),
        }
    })
}

#[tokio::test]
async fn opening_clears_what_belongs_to_draining_and_an_open_server_is_left_alone() {
    let server = obedient(Some("Draining"), vec![]);
    server.store.open(&host(None)).await.unwrap();
    let cleared = change(5, "{\"drainGraceSeconds\":null,\"placement\":null}");
    assert_eq!(server.calls(), [READ.to_owned(), cleared]);
    let server = obedient(Some("Open"), vec![]);
    server.store.open(&host(Some("Closed"))).await.unwrap();
    assert_eq!(server.calls(), [READ], "another replica has opened it");
}

#[tokio::test]
async fn an_empty_server_is_closed_and_looked_at_again() {
    let server = obedient(None, vec![]);
    assert!(server.store.close(&host(None), false).await.unwrap());
    let closed = change(5, "{\"placement\":\"Closed\"}");
    assert_eq!(server.calls(), [READ.to_owned(), closed.clone(), LIST.to_owned()]);
    assert!(!server.store.cache.server("uid-s").unwrap().is_open(), "it shows at once");
    let server = obedient(None, vec![bound_to_s()]);
    assert!(server.store.close(&host(None), true).await.unwrap());
    assert_eq!(server.calls(), [READ.to_owned(), closed], "with force nothing there matters");
    for placement in ["Closed", "Draining"] {
        let server = obedient(Some(placement), vec![]);
        assert!(server.store.close(&host(None), false).await.unwrap());
        assert_eq!(server.calls(), [READ, LIST], "{placement} is closed already");
    }
}

#[tokio::test]
async fn a_server_that_got_a_session_while_it_was_closed_is_opened_again() {
    let server = obedient(None, vec![bound_to_s()]);
    assert!(!server.store.close(&host(None), false).await.unwrap());
    let closed = change(5, "{\"placement\":\"Closed\"}");
    let opened = change(6, "{\"placement\":null}");
    assert_eq!(server.calls(), [READ.to_owned(), closed, LIST.to_owned(), READ.to_owned(), opened]);
    assert!(!server.store.close(&host(None), false).await.unwrap());
    assert_eq!(server.calls(), Vec::<String>::new(), "the session is in the cache now");
}

#[tokio::test]
async fn an_agent_that_does_not_report_is_not_waited_for_long() {
    let server = Server::new(|method, path| match (method, path.starts_with("dcvsessions")) {
        (_, true) => sessions(&[]),
        ("PATCH", _) => (200, server_value(Some("Closed"), 6, 2, 1)),
        _ => (200, server_value(None, 5, 1, 1)),
    });
    assert!(server.store.close(&host(None), false).await.unwrap());
    assert_eq!(server.calls().last().map(String::as_str), Some(LIST));
}

#[tokio::test]
async fn a_change_of_a_server_is_tried_anew_when_its_agent_was_faster_but_not_for_ever() {
    let server = Server::new(|method, _| match method {
        "PATCH" => status(409, "Conflict", "the object has been modified"),
        _ => (200, server_value(Some("Closed"), 5, 1, 1)),
    });
    assert!(server.store.open(&host(None)).await.is_err());
    assert_eq!(server.calls().len(), 10);
    let server = Server::new(|_, _| status(404, "NotFound", "gone"));
    assert!(matches!(server.store.open(&host(None)).await, Err(StoreError::NotFound(_))));
    let mut other = host(None);
    other.metadata.uid = Some("earlier".to_owned());
    let server = obedient(None, vec![]);
    assert!(matches!(server.store.open(&other).await, Err(StoreError::NotFound(_))), "one of the same name");
}
