//! Desktops from Git, applied by Flux's own kustomize-controller; what is applied again and again; and the commands that
//! `docs/gitops.md` gives.

use std::collections::BTreeMap;
use std::fs;
use std::process::Output;
use std::time::Duration;

use dcv_operator::api::ApiClient;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::flux::Flux;
use e2e::flux::repository::Repository;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::is_ready;
use e2e::session::state_reason;
use e2e::stand::root;
use futures::future::join_all;
use kube::Api;
use kube::ResourceExt;
use kube::api::ApiResource;
use kube::api::DeleteParams;
use kube::api::DynamicObject;
use kube::api::GroupVersionKind;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;

/// A file of the work tree.
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A namespace whose sessions come from a repository, as `contrib/flux/desktops.yaml` sets it up.
struct Desktops<'a> {
    stand: &'a Stand,
    sessions: Sessions,
    repository: Repository,
    kustomizations: Api<DynamicObject>,
}

/// A condition of a Flux object, as status, reason and message.
fn told(object: &DynamicObject, type_: &str) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_).unwrap_or(&Value::Null);
    (text(&found["status"]), text(&found["reason"]), text(&found["message"]))
}

impl<'a> Desktops<'a> {
    async fn new(stand: &'a Stand, flux: &Flux) -> Self {
        let sessions = stand.namespace("flux").await;
        let kind = GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
        let kind = ApiResource::from_gvk(&kind);
        let kustomizations = Api::namespaced_with(stand.client(), &sessions.namespace, &kind);
        Self { stand, sessions, repository: flux.repository("desktops").await, kustomizations }
    }

    /// Applies the published manifest, with this namespace and repository put in as it says.
    async fn install(&self) {
        let manifest = read("contrib/flux/desktops.yaml");
        for placeholder in ["https://git.example.com/team-a/desktops.git", "namespace: team-a"] {
            assert!(manifest.contains(placeholder), "it has {placeholder}");
        }
        let manifest = manifest
            .replace("https://git.example.com/team-a/desktops.git", &self.repository.url)
            .replace("amespace: team-a", &format!("amespace: {}", self.sessions.namespace));
        self.stand.kubectl(&["apply", "--server-side", "-f", "-"], &manifest).await.expect("it is well-formed");
    }

    async fn until(&self, what: &str, wanted: impl Fn(&DynamicObject) -> bool) -> DynamicObject {
        eventually(what, seconds(60), async || {
            let object = self.kustomizations.get("desktops").await.map_err(|error| error.to_string())?;
            if wanted(&object) { Ok(object) } else { Err(format!("{:#}", object.data["status"])) }
        })
        .await
    }

    /// Waits until everything of a commit is applied and healthy.
    async fn until_healthy(&self, revision: &str) {
        self.until(&format!("{revision} to be healthy"), |object| {
            object.data["status"]["lastAppliedRevision"] == revision && told(object, "Ready").0 == "True"
        })
        .await;
    }

    /// Waits until a commit has failed: the reason and the message.
    async fn until_failed(&self, revision: &str) -> (String, String) {
        let is_so = |object: &DynamicObject| {
            object.data["status"]["lastAttemptedRevision"] == revision && told(object, "Ready").0 == "False"
        };
        let object = self.until(&format!("{revision} to fail"), is_so).await;
        let (_, reason, message) = told(&object, "Ready");
        (reason, message)
    }

    /// Has Flux look again now, as `flux reconcile kustomization` does.
    async fn reconcile(&self) {
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": e2e::now().to_string()}}});
        let patch = Patch::Merge(patch);
        self.kustomizations.patch("desktops", &PatchParams::default(), &patch).await.expect("it is there");
    }

    async fn session(&self, name: &str) -> DcvSession {
        self.sessions.api.get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// A manifest of a session.
fn manifest(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: dcv-operator.io/v1alpha1\nkind: DcvSession\nmetadata:\n  name: {name}\nspec:\n  owner: ann\n  type: VIRTUAL\n{spec}"
    )
}

#[tokio::test]
async fn flux_applies_desktops_waits_for_them_changes_them_reports_failed_ones_and_prunes() {
    let stand = Stand::fake().await;
    let flux = Flux::start(&stand).await;
    let desktops = Desktops::new(&stand, &flux).await;
    let Desktops { sessions, repository, .. } = &desktops;
    let samples = ["minimal", "requirements", "shared"];
    for name in samples {
        repository.write(&format!("desktops/{name}.yaml"), &read(&format!("config/samples/{name}.yaml")));
    }
    let first = repository.commit("three desktops").await;
    stand.fake_host().set_latency(2500, 0).await;
    desktops.install().await;
    let waiting = |object: &DynamicObject| told(object, "Reconciling").2.contains("health check");
    desktops.until("it to wait for health", waiting).await;
    for session in sessions.api.list(&ListParams::default()).await.expect("sessions can be listed") {
        assert!(!is_ready(&session), "it waits for what is not ready yet");
    }
    desktops.until_healthy(&first).await;
    stand.fake_host().set_latency(0, 0).await;
    let mut before = BTreeMap::new();
    for name in samples {
        let session = desktops.session(name).await;
        assert!(is_ready(&session), "{name}: {:?}", session.status);
        assert_eq!(session.spec.ttl_seconds_after_finished, None, "what is in Git is not to delete itself");
        let managers = session.managed_fields().iter().filter_map(|entry| entry.manager.as_deref());
        assert!(managers.into_iter().any(|manager| manager == "kustomize-controller"), "{name}");
        before.insert(name, session);
    }

    // A commit that changes only the permissions: the desktop runs on, and has them.
    let shared = repository.read("desktops/shared.yaml").replace("bob allow display", "bob allow display mouse");
    repository.write("desktops/shared.yaml", &shared);
    desktops.until_healthy(&repository.commit("bob may point").await).await;
    let (old, new) = (&before["shared"], desktops.session("shared").await);
    assert_eq!((new.uid(), new.id(), new.attempt()), (old.uid(), old.id(), 1));
    let wanted = new.spec.permissions.clone().expect("it has some");
    assert!(wanted.contains("mouse"), "{wanted}");
    let host = stand.fake_host().session(new.id()).await.expect("it runs");
    assert_eq!(host["permissions"].as_str(), Some(wanted.as_str()));

    // Removed from Git, gone from the host.
    repository.remove("desktops/requirements.yaml");
    desktops.until_healthy(&repository.commit("one less").await).await;
    sessions.until_gone(&before["requirements"]).await;
    assert!(!stand.fake_host().sessions().await.contains_key(before["requirements"].id()));

    // Two that fail for good: one that no host could run, one that no host had room for in time.
    repository.write("desktops/bad.yaml", &manifest("bad", "  requirements: \"tag:pool == 'render'\"\n"));
    let late = manifest("late", "  requirements: \"tag:pool = 'nowhere'\"\n  queueTimeoutSeconds: 1\n");
    repository.write("desktops/late.yaml", &late);
    let (reason, message) = desktops.until_failed(&repository.commit("two bad ones").await).await;
    assert_eq!(reason, "HealthCheckFailed", "{message}");
    assert!(message.contains("failed early due to stalled resources"), "{message}");
    for name in ["bad", "late"] {
        let named = format!("DcvSession/{}/{name} status: 'Failed'", sessions.namespace);
        let session = sessions.until_finished(name).await;
        assert_eq!(condition(&session, "Finished"), "True/Failed", "{}", state_reason(&session));
        if condition(&session, "Stalled") == "True/InvalidRequirements" {
            assert!(message.contains(&named), "{message}");
        }
    }
    assert_eq!(
        desktops.session("minimal").await,
        before["minimal"],
        "the others are none the worse, and were not written"
    );

    // What has finished as asked is healthy, in later commits too; and what it was cannot be changed any more.
    for name in ["bad", "late"] {
        repository.remove(&format!("desktops/{name}.yaml"));
    }
    repository.write("desktops/minimal.yaml", &manifest("minimal", "  desiredState: Closed\n"));
    desktops.until_healthy(&repository.commit("no bad ones, and one closed").await).await;
    assert_eq!(condition(&sessions.until_finished("minimal").await, "Finished"), "True/Closed");
    repository.write("desktops/README.md", "Desktops of the team.\n");
    desktops.until_healthy(&repository.commit("a commit about something else").await).await;
    repository.write("desktops/minimal.yaml", &manifest("minimal", "  desiredState: Closed\n  displayName: Mine\n"));
    let (_, message) = desktops.until_failed(&repository.commit("too late").await).await;
    assert!(message.contains("a finished session may not be changed, except for ttlSecondsAfterFinished"), "{message}");
    repository.write("desktops/minimal.yaml", &manifest("minimal", "  desiredState: Closed\n"));
    let last = repository.commit("as it was").await;
    desktops.until_healthy(&last).await;

    // Deleted by somebody, made anew by Flux.
    sessions.delete("shared").await;
    desktops.reconcile().await;
    let again = sessions.until_ready("shared").await;
    assert_ne!(again.uid(), before["shared"].uid());
    desktops.until_healthy(&last).await;

    // With its Kustomization everything goes.
    desktops.kustomizations.delete("desktops", &DeleteParams::default()).await.expect("it is there");
    sessions.until_gone(&again).await;
    eventually("everything to be pruned", seconds(30), async || {
        let left = sessions.api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    assert_eq!(stand.fake_host().sessions().await, BTreeMap::new());
    flux.stop().await;
    desktops.sessions.delete_namespace().await;
}

/// Objects to apply, with as many fields as there are, in the states in which they stay for long.
fn applied(namespace: &str, server: &str) -> Vec<Value> {
    let session = |name: &str, spec: Value| {
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": name, "namespace": namespace, "labels": {"team": "a"}},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
        });
        object["spec"].as_object_mut().expect("it is one").extend(spec.as_object().expect("a spec").clone());
        object
    };
    let full = json!({
        "displayName": "Ann's desktop", "requirements": "tag:dcv:os-family = 'linux'",
        "serverSelector": {"matchExpressions": [{"key": "no-such-label", "operator": "DoesNotExist"}]},
        "autorunFile": "myapp.sh", "autorunFileArguments": ["--scene", "demo"], "maxConcurrentClients": 5,
        "permissions": "[permissions]\n%owner% allow builtin\n", "storageRoot": "%home%", "enqueueRequest": true,
        "disableRetryOnFailure": true, "priority": 7, "placementPolicy": "Pack", "queueTimeoutSeconds": 3600,
        "desiredState": "Running", "restartPolicy": "OnServerLoss", "maxDurationSeconds": 86400,
        "disconnectTimeoutSeconds": 3600, "tokensValidFrom": "2026-01-01T00:00:00Z",
    });
    let client = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient", "metadata": {"name": "portal", "namespace": namespace},
        "spec": {
            "displayName": "Portal", "clientId": format!("portal-{namespace}"), "tokenLifetimeSeconds": 600,
            "credentials": [
                {"hash": format!("sha256:{}", "0".repeat(64)), "expireTime": "2126-01-01T00:00:00Z"},
                {"hash": format!("sha256:{}", "1".repeat(64))},
            ],
        },
    });
    let server = json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": server},
        "spec": {
            "placement": "Closed", "limits": {"maxVirtualSessions": 20, "maxConcurrentSessionsPerUser": 2},
            "allowedNamespaces": {"matchLabels": {"team": "render"}},
        },
    });
    vec![
        session("least", json!({})),
        session("full", full),
        session("waiting", json!({"requirements": "tag:pool = 'nowhere'"})),
        session("closed", json!({"desiredState": "Closed"})),
        session("failed", json!({"requirements": "tag:pool = 'nowhere'", "enqueueRequest": false})),
        client,
        server,
    ]
}

/// The objects of one namespace, and the servers of the cluster.
struct Applied {
    stand: Stand,
    namespace: String,
    objects: Vec<Value>,
}

impl Applied {
    fn api(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let client = self.stand.client();
        let api = match object["kind"].as_str() {
            Some("DcvSession") => Api::namespaced_with(client, &self.namespace, &ApiResource::erase::<DcvSession>(&())),
            Some("ApiClient") => Api::namespaced_with(client, &self.namespace, &ApiResource::erase::<ApiClient>(&())),
            _ => Api::all_with(client, &ApiResource::erase::<DcvServer>(&())),
        };
        (api, object["metadata"]["name"].as_str().expect("it has a name").to_owned())
    }

    /// As GitOps tools do: everything by server-side apply, under one name.
    async fn apply(&self) {
        let apply = async |object: &Value| {
            let (api, name) = self.api(object);
            let parameters = PatchParams::apply("kustomize-controller").force();
            let applied = api.patch(&name, &parameters, &Patch::Apply(object)).await;
            applied.unwrap_or_else(|error| panic!("{name}: {error}"));
        };
        join_all(self.objects.iter().map(apply)).await;
    }

    /// As people do.
    async fn apply_by_kubectl(&self) {
        let text: Vec<_> = self.objects.iter().map(ToString::to_string).collect();
        let args = ["apply", "--server-side", "-f", "-"];
        self.stand.kubectl(&args, &text.join("\n---\n")).await.expect("the objects can be applied");
    }

    /// Generation and version of each.
    async fn versions(&self) -> Vec<(String, Option<i64>, Option<String>)> {
        let version = async |object: &Value| {
            let (api, name) = self.api(object);
            let found = api.get(&name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, found.metadata.generation, found.metadata.resource_version)
        };
        join_all(self.objects.iter().map(version)).await
    }

    /// Waits until each is as it will stay, and so for a second.
    async fn until_settled(&self) {
        eventually("everything to have a status", seconds(30), async || {
            for object in &self.objects {
                let (api, name) = self.api(object);
                let found = api.get(&name).await.map_err(|error| error.to_string())?;
                let is = |type_: &str, word: &str| told(&found, type_).0 == word;
                let settled = match name.as_str() {
                    "waiting" => is("Scheduled", "False"),
                    "closed" | "failed" => is("Finished", "True"),
                    _ => is("Ready", "True"),
                };
                if !settled || found.data["status"]["observedGeneration"].as_i64() != found.metadata.generation {
                    return Err(format!("{name}: {:#}", found.data["status"]));
                }
            }
            let before = self.versions().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = self.versions().await;
            if before == after { Ok(()) } else { Err(format!("{before:?} became {after:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_applied_a_hundred_times_is_written_by_nobody() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("applied").await;
    let objects = applied(&sessions.namespace, &stand.server(7));
    let applied = Applied { namespace: sessions.namespace.clone(), objects, stand };
    applied.apply().await;
    applied.apply_by_kubectl().await;
    applied.until_settled().await;
    let (before, audit) = (applied.versions().await, applied.stand.audit());
    for round in 0..100 {
        applied.apply().await;
        if round % 10 == 0 {
            applied.apply_by_kubectl().await;
        }
        assert_eq!(applied.versions().await, before, "after {} rounds", round + 1);
    }
    // A write too many would come late; there is nothing to await for it.
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(applied.versions().await, before);
    let ours = |resource: &str| {
        let writes = audit.writes_of(resource, &sessions.namespace).into_iter();
        writes.filter(|write| write.agent.starts_with("dcv-")).collect::<Vec<_>>()
    };
    assert_eq!((ours("dcvsessions"), ours("apiclients")), (Vec::new(), Vec::new()));
    applied.stand.open_all_servers().await;
    sessions.delete_namespace().await;
}

/// A shell script with the kubectl of the stand, in a namespace.
async fn shell(stand: &Stand, namespace: &str, script: &str) -> Output {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    fs::copy(stand.setting("KUBECONFIG"), &kubeconfig).expect("the kubeconfig can be copied");
    let path = format!("{}:/usr/bin:/bin", stand.folder().join("cluster/bin").display());
    let script = format!("kubectl config set-context --current --namespace '{namespace}' >/dev/null\n{script}");
    tokio::process::Command::new("timeout")
        .args(["60", "bash", "-euxo", "pipefail", "-c", &script])
        .env("KUBECONFIG", &kubeconfig)
        .env("PATH", path)
        .current_dir(root())
        .output()
        .await
        .expect("bash can be run")
}

fn assert_success(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

/// The block of the page that holds `word`.
fn block(word: &str) -> String {
    let page = read("docs/gitops.md");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```\n").next());
    let found: Vec<_> = blocks.filter(|block| block.contains(word)).map(str::to_owned).collect();
    assert_eq!(found.len(), 1, "blocks with {word}");
    found.into_iter().next().expect("there is one")
}

#[tokio::test]
async fn the_commands_on_the_page_that_wait_return_when_it_is_so() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("waits").await;
    let script = block("--for=create");
    let late = async {
        tokio::time::sleep(seconds(1)).await;
        sessions.create("desk", &json!({})).await
    };
    let (output, session) = tokio::join!(shell(&stand, &sessions.namespace, &script), late);
    assert_success(&output);
    sessions.until_gone(&session).await;
    assert!(!stand.fake_host().sessions().await.contains_key(session.id()));
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn argo_cds_scripts_are_installed_beside_what_else_it_is_told() {
    let stand = Stand::fake().await;
    let given = "kubectl create namespace argocd
        kubectl create configmap argocd-cm --namespace argocd --from-literal=url=https://argocd.example.com";
    let script = block("argocd-cm");
    let shown =
        "kubectl get configmap argocd-cm --namespace argocd -o json; kubectl delete namespace argocd --wait=false >&2";
    let output = shell(&stand, "argocd", &format!("{given} >&2\n{script} >&2\n{shown}")).await;
    assert_success(&output);
    // What the first line of `given` prints comes before.
    let text = String::from_utf8_lossy(&output.stdout);
    let shown: Value = serde_json::from_str(&text[text.find('{').expect("an object")..]).expect("an object");
    let keys: Vec<_> = shown["data"].as_object().expect("it has data").keys().map(String::as_str).collect();
    let script = |kind: &str| format!("resource.customizations.health.dcv-operator.io_{kind}");
    assert_eq!(keys, [&*script("ApiClient"), &*script("DcvServer"), &*script("DcvSession"), "url"]);
}
