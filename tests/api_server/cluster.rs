//! What the tests share: the installed manifests, clients of several people, a namespace for each test, and verdicts.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::panic::resume_unwind;
use std::process::Command;
use std::process::Output;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::api::ApiClient;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use futures::FutureExt;
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::Config;
use kube::api::ApiResource;
use kube::api::DeleteParams;
use kube::api::DynamicObject;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::config::AuthInfo;
use serde_json::Value;
use serde_json::json;
use tokio::sync::OnceCell;

/// Namespace of the controller, brokers and agents.
pub const SYSTEM: &str = "dcv-system";
/// Namespace of the accounts of hosts outside the cluster.
pub const HOSTS: &str = "dcv-hosts";

/// A client with every right, once what the tests need is installed.
pub async fn admin() -> Client {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let config = Config::infer().await.expect("KUBECONFIG names a cluster: hack/cluster env prints it");
    let client = Client::try_from(config).unwrap();
    INSTALLED.get_or_init(|| install(client.clone())).await;
    client
}

async fn install(client: Client) {
    let applied =
        kubectl("apply --server-side --force-conflicts -f crds -f config/rbac -f config/policy -f config/flow-control");
    assert!(applied.status.success(), "{}", text(&applied));
    let established = kubectl("wait --for=condition=Established --timeout=30s -f crds");
    assert!(established.status.success(), "{}", text(&established));
    // A policy works some time after its binding is stored, so ask until the one that was stored last refuses.
    let name = unique("test-install");
    let annotations = json!({"dcv-operator.io/owner-pattern": "nobody"});
    let namespace = serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let session = object("DcvSession", "a", json!({"owner": "ann", "type": "VIRTUAL"}));
    eventually("the policies work", async || {
        let refused = sessions(&client, &name).create(&dry_create(), &session).await.err();
        refused.is_some_and(|error| error.to_string().contains("the owner ann must match"))
    })
    .await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
}

/// Runs kubectl at the top of the work tree, with arguments that contain no blanks.
pub fn kubectl(arguments: &str) -> Output {
    Command::new("kubectl")
        .args(arguments.split_whitespace())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("kubectl is installed: hack/cluster env puts it on the PATH")
}

/// What a command printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until `check` holds, at most 30 seconds.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A name nobody else has.
pub fn unique(topic: &str) -> String {
    format!("{topic}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8])
}

/// Runs `body` with a new namespace, which goes with it.
pub async fn in_namespace<F: Future<Output = ()>>(topic: &str, body: impl FnOnce(Client, String) -> F) {
    let client = admin().await;
    let name = unique(&format!("test-{topic}"));
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let outcome = AssertUnwindSafe(body(client.clone(), name.clone())).catch_unwind().await;
    namespaces.delete(&name, &DeleteParams::default()).await.ok();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Sessions of a namespace, as JSON, so that what the types forbid can be sent.
pub fn sessions(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<DcvSession>(&()))
}

/// Clients of a namespace, as JSON.
pub fn api_clients(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<ApiClient>(&()))
}

/// Servers, as JSON.
pub fn servers(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<DcvServer>(&()))
}

/// An object of one of our kinds.
pub fn object(kind: &str, name: &str, spec: Value) -> DynamicObject {
    let mut object = from(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name},
    }));
    object.data["spec"] = spec;
    object
}

/// An object of any kind.
pub fn from(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

/// `base` with the fields of `change` in place of its own; null takes one out.
pub fn with(mut base: Value, change: &Value) -> Value {
    for (key, value) in change.as_object().unwrap() {
        let fields = base.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(key)
        } else {
            fields.insert(key.clone(), value.clone())
        };
    }
    base
}

/// Parameters of a create that changes nothing.
pub fn dry_create() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// Parameters of a patch that changes nothing.
pub fn dry_patch() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

/// Parameters of a delete that changes nothing.
pub fn dry_delete() -> DeleteParams {
    DeleteParams { dry_run: true, ..DeleteParams::default() }
}

/// Merges `change` into an object's status.
pub async fn write_status(api: &Api<DynamicObject>, name: &str, status: Value) -> kube::Result<DynamicObject> {
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await
}

/// The account `name` of `namespace`, new, with a Secret of its name.
pub async fn make_account(client: &Client, namespace: &str, name: &str) {
    let object = json!({"metadata": {"name": name}});
    let secret = serde_json::from_value(object.clone()).unwrap();
    Api::<Secret>::namespaced(client.clone(), namespace).create(&PostParams::default(), &secret).await.unwrap();
    let account = serde_json::from_value(object).unwrap();
    Api::<ServiceAccount>::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
}

/// What a token is bound to: its kind and name.
pub type Bound<'a> = Option<(&'a str, &'a str)>;

/// Asks as `client` for a token of an account.
pub async fn request_token(
    client: &Client,
    namespace: &str,
    account: &str,
    bound: Bound<'_>,
    seconds: Option<i64>,
) -> kube::Result<String> {
    let bound_object_ref = bound.map(|(kind, name)| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: None,
    });
    let spec = TokenRequestSpec { audiences: Vec::new(), bound_object_ref, expiration_seconds: seconds };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.expect("an answer carries the token").token)
}

/// A client that is whoever the token says.
pub async fn bearer(token: &str) -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
    Client::try_from(config).unwrap()
}

/// What is expected of a request.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It succeeds.
    Allowed,
    /// It is refused with a text that contains this.
    Refused(&'static str),
}

/// Collects what did not go as expected, so that one run shows it all.
#[derive(Default)]
pub struct Verdicts {
    count: usize,
    wrong: Vec<String>,
}

impl Verdicts {
    /// Judges one result.
    pub fn judge<T>(&mut self, case: impl std::fmt::Display, result: kube::Result<T>, expected: Verdict) {
        self.count += 1;
        let wrong = match (result.map_err(|error| message(&error)), expected) {
            (Ok(_), Verdict::Allowed) => None,
            (Err(message), Verdict::Refused(part)) if message.contains(part) => None,
            (Ok(_), Verdict::Refused(part)) => Some(format!("was allowed instead of: {part}")),
            (Err(message), _) => Some(message),
        };
        self.wrong.extend(wrong.map(|wrong| format!("{case}: {wrong}")));
    }

    /// Fails the test when something went wrong, or nothing was tried.
    pub fn finish(self) {
        assert!(self.count > 0, "no case was tried");
        assert!(self.wrong.is_empty(), "{} of {} cases:\n{}", self.wrong.len(), self.count, self.wrong.join("\n"));
    }
}

/// What the API server said; panics when it did not refuse but failed.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code < 500 => format!("{} {}", status.code, status.message),
        other => panic!("the API server failed: {other}"),
    }
}
