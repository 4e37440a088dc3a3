//! Objects brought into every situation that `docs/gitops.md` tells of: they are those in `contrib/argocd`, which GitOps
//! tools are shown to understand (`tests/health`), and `kubectl wait` says of each what the page says.
//!
//! `E2E_REFRESH=1 cargo test --package e2e --test health` writes the files anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dcv_operator::api::ApiClient;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::snapshot;
use e2e::stand::root;
use kube::Api;
use kube::api::ApiResource;
use kube::api::DeleteParams;
use kube::api::DynamicObject;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::Value;
use serde_json::json;

/// Silence is noticed sooner than documented, and that of many servers is no reason to wait.
const SHORT: [&str; 6] =
    ["--server-lease-timeout-seconds", "15", "--sessions-unknown-after-seconds", "1", "--hold-timeout-seconds", "1"];

/// Objects of one namespace, and of the cluster.
struct Situations<'a> {
    stand: &'a Stand,
    sessions: &'a Sessions,
    /// What `kubectl wait --for=condition=Ready` says, by kind and situation, as the page has it.
    waits: BTreeMap<(String, String), String>,
    taken: RefCell<BTreeSet<(String, String)>>,
    faults: RefCell<Vec<String>>,
}

/// Status and reason of a condition, such as `True/Bound`; empty when it is absent.
fn condition(object: &Value, type_: &str) -> String {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = conditions.find(|condition| condition["type"] == type_);
    found.map(|found| format!("{}/{}", text(&found["status"]), text(&found["reason"]))).unwrap_or_default()
}

/// An object whose status has seen its spec.
fn is_observed(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).expect("an object is plain data")
}

/// The last column of the page's tables.
fn waits() -> BTreeMap<(String, String), String> {
    let page = fs::read_to_string(root().join("docs/gitops.md")).expect("there is a page");
    let mut kind = String::new();
    let mut found = BTreeMap::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            heading.clone_into(&mut kind);
        } else if let Some((name, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            let last = rest.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a row has cells");
            found.insert((kind.clone(), name.to_owned()), last.to_owned());
        }
    }
    found
}

impl Situations<'_> {
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let client = self.stand.client();
        let namespaced =
            |resource: &ApiResource| Api::namespaced_with(client.clone(), &self.sessions.namespace, resource);
        match kind {
            "DcvSession" => namespaced(&ApiResource::erase::<DcvSession>(&())),
            "ApiClient" => namespaced(&ApiResource::erase::<ApiClient>(&())),
            _ => Api::all_with(client.clone(), &ApiResource::erase::<DcvServer>(&())),
        }
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        let object = serde_json::from_value(object).expect("an object");
        let made = self.api(kind).create(&PostParams::default(), &object).await;
        made.unwrap_or_else(|error| panic!("{kind} {name} was not created: {error}"));
    }

    async fn session(&self, name: &str, spec: Value) {
        let mut all = json!({"owner": "ann", "type": "VIRTUAL"});
        let map = all.as_object_mut().expect("it is one");
        map.extend(spec.as_object().expect("a spec is an object").clone());
        self.create("DcvSession", name, all).await;
    }

    async fn patch(&self, kind: &str, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = self.api(kind).patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap_or_else(|error| panic!("{kind} {name} cannot be patched: {error}"));
    }

    /// Waits until an object is so, and returns it.
    async fn until(&self, kind: &str, name: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        let api = self.api(kind);
        let found = |object: Option<&DynamicObject>| object.is_some_and(|object| wanted(&value(object)));
        let Ok(object) = tokio::time::timeout(limit, await_condition(api.clone(), name, found)).await else {
            panic!("{kind} {name} is not as awaited: {:#}", value(&api.get(name).await.expect("it is there")));
        };
        value(&object.expect("objects can be watched").expect("it was found"))
    }

    /// Waits until a condition of an object that has seen its spec has this status and reason, and takes it.
    async fn take_when(&self, kind: &str, name: &str, situation: &str, type_: &str, wanted: &str) {
        let object = self.until(kind, name, seconds(30), |it| is_observed(it) && condition(it, type_) == wanted).await;
        self.take(kind, situation, &object).await;
    }

    /// A session that is as it says until something is done about it.
    async fn take_session(&self, name: &str, situation: &str, type_: &str, wanted: &str) {
        self.take_when("DcvSession", name, situation, type_, wanted).await;
    }

    /// Takes an object that stays as it is for a while, and asks kubectl about it.
    async fn take(&self, kind: &str, situation: &str, object: &Value) {
        self.note(kind, situation, object);
        let name = object["metadata"]["name"].as_str().expect("an object has a name");
        let is_ready = async |what: &str| {
            let target = format!("{}/{name}", kind.to_lowercase());
            let args =
                ["wait", "--namespace", &self.sessions.namespace, &target, &format!("--for={what}"), "--timeout=0s"];
            self.stand.kubectl(&args, "").await.is_ok()
        };
        let (ready, finished, state) = tokio::join!(
            is_ready("condition=Ready"),
            is_ready("condition=Finished"),
            is_ready("jsonpath={.status.state}=READY")
        );
        let now = value(&self.api(kind).get(name).await.expect("it is there"));
        assert_eq!(
            now["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"],
            "{kind} {situation} became another while kubectl looked: {now:#}"
        );
        let expected = match self.waits.get(&(kind.to_owned(), situation.to_owned())).map(String::as_str) {
            Some("met") => true,
            Some("waits") => false,
            other => panic!("the page says of {kind} {situation}: {other:?}"),
        };
        let mut faults = self.faults.borrow_mut();
        if ready != expected {
            faults.push(format!("{kind} {situation}: --for=condition=Ready is met: {ready}"));
        }
        if finished != condition(object, "Finished").starts_with("True/") {
            faults.push(format!("{kind} {situation}: --for=condition=Finished is met: {finished}"));
        }
        if state != (object["status"]["state"] == "READY") {
            faults.push(format!("{kind} {situation}: --for=jsonpath='{{.status.state}}'=READY is met: {state}"));
        }
    }

    /// Compares an object with the file of its situation.
    fn note(&self, kind: &str, situation: &str, object: &Value) {
        let names = [(self.sessions.namespace.as_str(), "team-a"), ("host-e2e-fake-", "host-")];
        let object = snapshot::comparable(object, &names);
        let is_new = self.taken.borrow_mut().insert((kind.to_owned(), situation.to_owned()));
        assert!(is_new, "{kind} {situation} was taken before");
        self.faults.borrow_mut().extend(snapshot::difference(&file(kind, situation), &object));
    }

    /// Every situation of the page was taken, and everything was as it should.
    fn finish(self) {
        let told: BTreeSet<_> = self.waits.into_keys().collect();
        assert_eq!(self.taken.into_inner(), told, "situations taken, and told of on the page");
        let faults = self.faults.into_inner();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

fn file(kind: &str, situation: &str) -> PathBuf {
    let folder = root().join("contrib/argocd/resource_customizations/dcv-operator.io").join(kind);
    folder.join(format!("testdata/{situation}.yaml"))
}

/// What an administrator does with a server that runs no session.
async fn servers(at: &Situations<'_>, server: &str) {
    let placed = async |situation: &str, spec: Value, availability: &str| {
        at.patch("DcvServer", server, spec).await;
        let wanted = |it: &Value| {
            let status = &it["status"];
            let said =
                if availability == "AVAILABLE" { &status["availability"] } else { &status["unavailabilityReason"] };
            is_observed(it) && *said == availability
        };
        let object = at.until("DcvServer", server, seconds(30), wanted).await;
        at.take("DcvServer", situation, &object).await;
    };
    placed("closed", json!({"placement": "Closed"}), "SERVER_CLOSED").await;
    placed("draining", json!({"placement": "Draining", "drainGraceSeconds": 600}), "SERVER_CLOSED").await;
    let full = json!({"placement": null, "drainGraceSeconds": null, "limits": {"maxVirtualSessions": 0}});
    placed("full", full, "SERVER_FULL").await;
    placed("available", json!({"limits": null}), "AVAILABLE").await;
    at.patch("DcvServer", server, json!({"placement": "Closed"})).await;
    at.until("DcvServer", server, seconds(30), is_observed).await;
}

/// Sessions that get no server, while every server is closed.
async fn without_a_server(at: &Situations<'_>) {
    at.session("waiting", json!({})).await;
    at.session("queue-timeout", json!({"queueTimeoutSeconds": 1})).await;
    at.session("no-server-fits", json!({"enqueueRequest": false})).await;
    at.session("invalid-requirements", json!({"requirements": "tag:pool == 'render'"})).await;
    at.take_session("waiting", "waiting", "Scheduled", "False/NoServerFits").await;
    at.take_session("no-server-fits", "no-server-fits", "Stalled", "True/NoServerFits").await;
    at.take_session("invalid-requirements", "invalid-requirements", "Stalled", "True/InvalidRequirements").await;
    at.take_session("queue-timeout", "queue-timeout", "Stalled", "True/QueueTimeout").await;
    at.patch("DcvSession", "queue-timeout", json!({"ttlSecondsAfterFinished": 86_400})).await;
    at.take_session("queue-timeout", "ttl-changed", "Finished", "True/Failed").await;
    at.patch("DcvSession", "waiting", json!({"desiredState": "Closed"})).await;
    at.take_session("waiting", "closed-unplaced", "Finished", "True/Closed").await;
}

/// Sessions on a server that answers.
async fn on_a_server(at: &Situations<'_>, server: &str) {
    let host = at.stand.fake_host();
    at.session("invalid-session", json!({"permissions": "[permissions]\nbob allow flying\n"})).await;
    at.take_session("invalid-session", "invalid-session", "Stalled", "True/InvalidSession").await;
    host.fail_next_create(server, "no display could be started").await;
    at.session("retries-exhausted", json!({"disableRetryOnFailure": true})).await;
    at.take_session("retries-exhausted", "retries-exhausted", "Stalled", "True/RetriesExhausted").await;

    let shared = json!({"displayName": "Ann's desktop", "permissions": "[permissions]\n%owner% allow builtin\n"});
    at.session("desk", shared).await;
    at.take_session("desk", "ready", "Ready", "True/AcceptingClients").await;
    let id = at.sessions.api.get("desk").await.expect("it is there").id().to_owned();
    host.end(&id, "the desktop has ended").await;
    at.take_session("desk", "ended-on-host", "Finished", "True/EndedOnHost").await;

    for name in ["closed", "closing", "deleting"] {
        at.session(name, json!({})).await;
    }
    for name in ["closed", "closing", "deleting"] {
        at.until("DcvSession", name, seconds(30), |it| it["status"]["state"] == "READY").await;
    }
    at.patch("DcvSession", "closed", json!({"desiredState": "Closed"})).await;
    at.take_session("closed", "closed", "Finished", "True/Closed").await;
    // Long enough for everybody to look at it.
    host.set_latency(0, 8000).await;
    at.patch("DcvSession", "closing", json!({"desiredState": "Closed"})).await;
    at.api("DcvSession").delete("deleting", &DeleteParams::default()).await.expect("a session can be deleted");
    at.take_session("closing", "closing", "Ready", "False/Closing").await;
    at.take_session("deleting", "deleting", "Ready", "False/Closing").await;
    host.set_latency(0, 0).await;
}

/// What agents and controller write one after the other, seen one by one: each is dead while the other works.
async fn from_hand_to_hand(at: &Situations<'_>, server: &str, other: &str, ill: &str) {
    let (stand, host) = (at.stand, at.stand.fake_host());
    for (name, policy) in [("again", "Always"), ("moved", "OnServerLoss"), ("lost", "Never")] {
        at.session(name, json!({"restartPolicy": policy})).await;
        at.until("DcvSession", name, seconds(30), |it| it["status"]["state"] == "READY").await;
    }
    at.patch("DcvServer", other, json!({"placement": null})).await;
    at.until("DcvServer", other, seconds(30), |it| it["status"]["availability"] == "AVAILABLE").await;
    let agent = stand.role("agent-1").kill().await;
    // To where the others are.
    at.session("failed", json!({"placementPolicy": "Pack"})).await;
    at.take_session("failed", "bound", "Scheduled", "True/Bound").await;
    at.session("refused", json!({"requirements": format!("server:Hostname = '{other}'")})).await;
    at.until("DcvSession", "refused", seconds(30), |it| condition(it, "Scheduled") == "True/Bound").await;
    at.patch("DcvServer", other, json!({"placement": "Closed"})).await;
    at.patch("DcvSession", "again", json!({"permissions": "[permissions]\nbob allow display\n"})).await;
    let changed = at.until("DcvSession", "again", seconds(5), |it| !is_observed(it)).await;
    at.take("DcvSession", "changed", &changed).await;

    let controller = stand.role("controller-1").kill().await;
    host.fail_next_create(server, "no display could be started").await;
    host.set_health(ill, Some("the desktop server does not answer")).await;
    agent.restart().await;
    at.take_session("refused", "refused", "Created", "False/Refused").await;
    at.take_session("failed", "failed-on-host", "Created", "False/Failed").await;
    at.take_when("DcvServer", ill, "unhealthy", "Ready", "False/Unhealthy").await;
    host.set_health(ill, None).await;
    let again = at.until("DcvSession", "again", seconds(30), is_observed).await;
    host.end(again["status"]["sessionId"].as_str().expect("it has an id"), "the desktop has ended").await;
    at.take_session("again", "ended-to-restart", "Created", "False/Ended").await;
    host.restart(server).await;
    at.take_session("moved", "lost-to-restart", "Created", "False/ServerLost").await;
    at.take_session("lost", "server-lost", "Finished", "True/ServerLost").await;

    at.session("new", json!({})).await;
    at.create("ApiClient", "new", json!({})).await;
    at.create("DcvServer", "host-e2e-fake-99", json!({})).await;
    for (kind, name) in [("DcvSession", "new"), ("ApiClient", "new"), ("DcvServer", "host-e2e-fake-99")] {
        let object = value(&at.api(kind).get(name).await.expect("it is there"));
        at.take(kind, "new", &object).await;
    }
    at.api("DcvServer").delete("host-e2e-fake-99", &DeleteParams::default()).await.expect("nobody holds it");

    // It is tried again after a second: gone before kubectl has looked.
    let retrying = at.until("DcvSession", "failed", seconds(40), |it| condition(it, "Scheduled") == "False/Retrying");
    let (retrying, _) = tokio::join!(retrying, controller.restart_with(&SHORT));
    at.note("DcvSession", "retrying", &retrying);
    // Its pause is ten seconds.
    at.take_session("again", "restarting", "Scheduled", "False/Retrying").await;
}

/// Sessions and a server whose agent is dead.
async fn unreachable(at: &Situations<'_>, server: &str) {
    for name in ["away", "forced"] {
        at.session(name, json!({})).await;
        at.until("DcvSession", name, seconds(30), |it| it["status"]["state"] == "READY").await;
    }
    let agent = at.stand.role("agent-1").kill().await;
    let lost = |it: &Value| condition(it, "Ready") == "Unknown/ServerUnreachable";
    let object = at.until("DcvSession", "away", seconds(60), lost).await;
    at.take("DcvSession", "unreachable", &object).await;
    at.take_when("DcvServer", server, "unreachable", "Ready", "False/LeaseExpired").await;
    at.patch("DcvSession", "forced", json!({"desiredState": "ForceClosed"})).await;
    at.take_session("forced", "force-closed", "Finished", "True/ForceClosed").await;
    agent.restart().await;
    at.until("DcvSession", "away", seconds(30), |it| it["status"]["state"] == "READY").await;
}

async fn clients(at: &Situations<'_>) {
    let hash = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let credential = json!([{"hash": hash("0")}]);
    let old = json!([{"hash": hash("0"), "expireTime": "2026-01-01T00:00:00Z"}]);
    let id = format!("id-of-{}", at.sessions.namespace);
    let cases = [
        ("accepted", json!({"clientId": id, "credentials": credential}), "True/Accepted"),
        ("suspended", json!({"suspended": true, "credentials": credential}), "True/Suspended"),
        ("no-credential", json!({}), "False/InvalidCredentials"),
        ("expired-credential", json!({"credentials": old}), "False/InvalidCredentials"),
    ];
    for (name, spec, _) in &cases {
        at.create("ApiClient", name, spec.clone()).await;
    }
    for (name, _, wanted) in &cases {
        at.take_when("ApiClient", name, name, "Ready", wanted).await;
    }
    // The older of two keeps an id, and ages are in seconds.
    let first = at.api("ApiClient").get("accepted").await.expect("it is there").metadata.creation_timestamp;
    eventually("a second to pass", seconds(2), async || {
        if first.as_ref().is_some_and(|first| e2e::now().as_second() > first.0.as_second()) {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    at.create("ApiClient", "id-taken", json!({"clientId": id, "credentials": credential})).await;
    at.take_when("ApiClient", "id-taken", "id-taken", "Ready", "False/ClientIdTaken").await;
}

#[tokio::test]
async fn objects_are_in_every_situation_what_tools_are_told_of_it() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("health").await;
    let at = Situations {
        stand: &stand,
        sessions: &sessions,
        waits: waits(),
        taken: RefCell::default(),
        faults: RefCell::default(),
    };
    stand.patch_servers(|_| json!({"placement": "Closed"})).await;
    // One has every session, another what is done to servers, and a third refuses one.
    let [main, other, third] = [stand.server(1), stand.server(2), stand.server(3)];
    clients(&at).await;
    servers(&at, &other).await;
    without_a_server(&at).await;
    at.patch("DcvServer", &main, json!({"placement": null})).await;
    on_a_server(&at, &main).await;
    from_hand_to_hand(&at, &main, &third, &other).await;
    unreachable(&at, &other).await;
    let expired = json!({"placement": "Draining", "drainGraceSeconds": 0});
    at.patch("DcvServer", &main, expired).await;
    at.take_session("away", "expired", "Finished", "True/Expired").await;
    stand.role("controller-1").kill().await.restart_without(&SHORT).await;
    stand.open_all_servers().await;
    at.finish();
    sessions.delete_namespace().await;
}
