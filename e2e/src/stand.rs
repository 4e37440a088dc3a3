//! What the tests run against: everything of one backend, on this machine.
//!
//! Brought up once a process and left running; `hack/test` takes it down. A test has it alone: parts are killed in it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use dcv_operator::api::client::ApiClient;
use dcv_operator::api::server::Availability;
use dcv_operator::api::server::DcvServer;
use dcv_operator::api::session::DcvSession;
use dcv_operator::token::Password;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;

use crate::audit::Audit;
use crate::dcv_host::DcvServerDouble;
use crate::eventually;
use crate::fake_host::FakeHost;
use crate::rest::Rest;
use crate::role::Role;
use crate::seconds;
use crate::session::Sessions;
use crate::unique;

/// Whether each stand is up; a test that has it holds the lock.
static VNC: Mutex<bool> = Mutex::const_new(false);
static DCV: Mutex<bool> = Mutex::const_new(false);
static FAKE: Mutex<bool> = Mutex::const_new(false);
static FLEET: Mutex<bool> = Mutex::const_new(false);
static BENCH: Mutex<bool> = Mutex::const_new(false);
static BENCH_FLEET: Mutex<bool> = Mutex::const_new(false);
static BENCH_VNC: Mutex<bool> = Mutex::const_new(false);

/// The top of the work tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a folder of the work tree").to_owned()
}

/// Everything of one backend.
pub struct Stand {
    name: &'static str,
    args: Vec<String>,
    settings: BTreeMap<String, String>,
    client: Client,
    /// Whether it is up.
    is_up: MutexGuard<'static, bool>,
}

impl Stand {
    /// One server with real desktops, one broker that keeps deleted sessions for the documented hour.
    pub async fn vnc() -> Self {
        Self::up("e2e-vnc", &["--backend", "vnc"], &VNC).await
    }

    /// One server whose sessions a double of a DCV server holds.
    pub async fn dcv() -> Self {
        Self::up("e2e-dcv", &["--backend", "dcv"], &DCV).await
    }

    /// Twenty made-up servers, two brokers that forget deleted sessions at once.
    pub async fn fake() -> Self {
        let args = &[
            "--backend",
            "fake",
            "--servers",
            "20",
            "--brokers",
            "2",
            "--broker-arg",
            "--delete-session-duration-seconds=0",
        ];
        Self::up("e2e-fake", args, &FAKE).await
    }

    /// [`servers`](crate::servers) made-up servers of the fixed mix. Its test takes it down: so many agents are never idle.
    pub async fn fleet() -> Self {
        let servers = crate::servers().to_string();
        Self::up("e2e-fleet", &["--backend", "fake", "--servers", &servers], &FLEET).await
    }

    /// Twenty made-up servers and a broker as they are released, for benchmarks.
    pub async fn bench() -> Self {
        let args = &[
            "--release",
            "--backend",
            "fake",
            "--servers",
            "20",
            "--broker-arg",
            "--create-sessions-queue-max-size=100000",
            "--broker-arg",
            "--max-api-requests-per-second=1000000",
        ];
        Self::up("bench", args, &BENCH).await
    }

    /// A thousand made-up servers as it is released, and a broker that takes whatever is asked for, for benchmarks.
    pub async fn bench_fleet() -> Self {
        let args = &[
            "--release",
            "--backend",
            "fake",
            "--servers",
            "1000",
            "--broker-arg",
            "--create-sessions-queue-max-size=100000",
        ];
        Self::up("bench-fleet", args, &BENCH_FLEET).await
    }

    /// One server with real desktops as it is released, for benchmarks.
    pub async fn bench_desktops() -> Self {
        Self::up("bench-vnc", &["--release", "--backend", "vnc"], &BENCH_VNC).await
    }

    async fn up(name: &'static str, args: &[&str], lock: &'static Mutex<bool>) -> Self {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        // Another test may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut is_up = lock.lock().await;
        if !*is_up {
            run_up(name, &args).await;
            *is_up = true;
        }
        let settings = read_settings(&root().join("target/dev").join(name).join("env"));
        let kubeconfig = Kubeconfig::read_from(&settings["KUBECONFIG"]).expect("hack/up wrote the kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig of hack/up is complete");
        let client = Client::try_from(config).expect("the kubeconfig of hack/up is usable");
        let stand = Self { name, args, settings, client, is_up };
        stand.reset().await;
        stand
    }

    /// Stops everything of it.
    pub async fn down(mut self) {
        let status = tokio::process::Command::new(root().join("hack/down"))
            .args(["--wipe", "--name", self.name])
            .status()
            .await
            .expect("hack/down can be run");
        assert!(status.success(), "hack/down --name {} failed", self.name);
        *self.is_up = false;
    }

    /// Takes the cluster away with all that is in it, and what talks to it. What runs on the hosts goes on; the next stand of
    /// this kind finds it there, under a new cluster.
    pub async fn lose_cluster(mut self) {
        self.kill_roles().await;
        self.stop_cluster(&["--wipe"]).await;
        *self.is_up = false;
    }

    /// Takes control plane and roles back to what `etcd` held when it was copied; see [`save_etcd`](Self::save_etcd).
    pub async fn restore_etcd(&self) {
        self.kill_roles().await;
        self.stop_cluster(&[]).await;
        let (etcd, saved) = self.etcd_and_copy();
        fs::remove_dir_all(&etcd).expect("etcd has stopped");
        fs::rename(&saved, &etcd).expect("there is a copy");
        self.restart().await;
    }

    /// Copies what etcd holds, while everything stands still for that.
    pub async fn save_etcd(&self) {
        self.kill_roles().await;
        self.stop_cluster(&[]).await;
        let (etcd, saved) = self.etcd_and_copy();
        let status = tokio::process::Command::new("cp").arg("-a").args([&etcd, &saved]).status().await;
        assert!(status.expect("cp can be run").success(), "{} cannot be copied", etcd.display());
        self.restart().await;
    }

    fn etcd_and_copy(&self) -> (PathBuf, PathBuf) {
        let cluster = self.folder().join("cluster");
        (cluster.join("etcd"), cluster.join("etcd.saved"))
    }

    /// Kills every role; [`restart`](Self::restart) starts them again.
    pub async fn kill_roles(&self) {
        for entry in fs::read_dir(self.folder().join("pids")).expect("the stand is up") {
            let name = entry.expect("the stand's folder can be read").file_name();
            if let Some(label) = name.to_str().and_then(|name| name.strip_suffix(".pid")) {
                let _gone = self.role(label).kill().await;
            }
        }
    }

    async fn stop_cluster(&self, flags: &[&str]) {
        let status = tokio::process::Command::new(root().join("hack/cluster"))
            .args(["stop", "--name", self.name])
            .args(flags)
            .status()
            .await
            .expect("hack/cluster can be run");
        assert!(status.success(), "hack/cluster stop --name {} failed", self.name);
    }

    /// Starts again what has ended, by `hack/up`.
    pub async fn restart(&self) {
        run_up(self.name, &self.args).await;
    }

    /// A setting of its `env` file.
    pub fn setting(&self, key: &str) -> &str {
        self.settings.get(key).unwrap_or_else(|| panic!("hack/up did not write {key}"))
    }

    /// Everything of it is under this folder.
    pub fn folder(&self) -> PathBuf {
        root().join("target/dev").join(self.name)
    }

    /// Name of its server number `number`.
    pub fn server(&self, number: usize) -> String {
        format!("host-{}-{number}", self.name)
    }

    /// A client of the API server with every right.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The process of a role, such as `agent-1`.
    pub fn role(&self, label: &str) -> Role {
        Role::new(&self.folder(), label)
    }

    /// What runs the sessions of the made-up servers.
    pub fn fake_host(&self) -> FakeHost {
        FakeHost::new(&self.folder().join("fake-host-1.sock"))
    }

    /// The double of the DCV server number `number`.
    pub fn dcv_server(&self, number: usize) -> DcvServerDouble {
        let host = Path::new("/var/lib/dcv-operator/dev").join(self.name);
        DcvServerDouble::new(host.join(format!("server-{number}")))
    }

    /// What the API server writes down of requests.
    pub fn audit(&self) -> Audit {
        Audit::new(self.folder().join("cluster/audit.log"))
    }

    /// Its servers, of the cluster.
    pub fn servers(&self) -> Api<DcvServer> {
        Api::all(self.client())
    }

    /// The REST client that `hack/up` registered, over the balancer.
    pub fn rest(&self) -> Rest {
        Rest::new(
            self.setting("BROKER_URL"),
            Path::new(self.setting("BROKER_CA")),
            self.setting("CLIENT_ID"),
            self.setting("CLIENT_SECRET"),
        )
    }

    /// Address of each broker, not balanced.
    pub fn broker_urls(&self) -> Vec<String> {
        self.setting("BROKER_URLS").split(',').map(str::to_owned).collect()
    }

    /// A new namespace with its sessions.
    pub async fn namespace(&self, word: &str) -> Sessions {
        let name = unique(&format!("e2e-{word}"));
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace is a name");
        Api::<Namespace>::all(self.client())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("an administrator creates namespaces");
        Sessions::new(self.client(), &name)
    }

    /// Registers a REST client in `namespace` and waits until it is accepted.
    pub async fn rest_client(&self, namespace: &str, spec: serde_json::Value) -> Rest {
        let password = Password::generate();
        let name = unique("client");
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient", "metadata": {"name": name},
            "spec": {"credentials": [{"hash": password.hash()}]},
        });
        for (key, value) in spec.as_object().expect("a spec is an object") {
            object["spec"][key] = value.clone();
        }
        let api = Api::<ApiClient>::namespaced(self.client(), namespace);
        let object = serde_json::from_value(object).expect("the spec of an ApiClient");
        let client = api.create(&PostParams::default(), &object).await.expect("the client can be registered");
        let rest = Rest::new(
            self.setting("BROKER_URL"),
            Path::new(self.setting("BROKER_CA")),
            &client.client_id(),
            password.reveal(),
        );
        eventually("the client to be accepted by every broker", seconds(20), async || {
            for url in self.broker_urls() {
                rest.at(&url).log_in().await?;
            }
            Ok(())
        })
        .await;
        rest
    }

    /// Takes away what an earlier test left: sessions, closed servers, desktops without a session on made-up hosts.
    async fn reset(&self) {
        let sessions = Api::<DcvSession>::all(self.client());
        for session in sessions.list(&ListParams::default()).await.expect("sessions can be listed") {
            let api = Api::<DcvSession>::namespaced(self.client(), &session.namespace().unwrap_or_default());
            let _ = api.delete(&session.name_any(), &DeleteParams::default()).await;
        }
        self.open_all_servers().await;
        eventually("the sessions of an earlier test to be gone", seconds(60), async || {
            let left = sessions.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            match left.items.first() {
                None => Ok(()),
                Some(one) => Err(format!("{} sessions, one is {:?} {:?}", left.items.len(), one.metadata, one.status)),
            }
        })
        .await;
        if self.args.iter().any(|arg| arg == "fake") {
            self.fake_host().clear().await;
        }
        if self.args.iter().any(|arg| arg == "dcv") {
            self.dcv_server(1).clear();
        }
    }

    /// Empties the spec of every server, and waits until all are AVAILABLE.
    pub async fn open_all_servers(&self) {
        self.patch_servers(
            |_| json!({"placement": null, "drainGraceSeconds": null, "allowedNamespaces": null, "limits": null}),
        )
        .await;
        eventually("every server to be AVAILABLE", seconds(60), async || {
            let servers = self.servers().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let bad = servers.items.iter().find(|server| {
                server.status.as_ref().map(|status| status.availability) != Some(Availability::Available)
            });
            bad.map_or(Ok(()), |server| Err(format!("{}: {:?}", server.name_any(), server.status)))
        })
        .await;
    }

    /// Patches the spec of each server with what `spec` returns for its name.
    pub async fn patch_servers(&self, spec: impl Fn(&str) -> serde_json::Value) {
        let servers = self.servers();
        for server in servers.list(&ListParams::default()).await.expect("servers can be listed") {
            let name = server.name_any();
            let patch = Patch::Merge(json!({"spec": spec(&name)}));
            servers.patch(&name, &PatchParams::default(), &patch).await.expect("an administrator changes servers");
        }
    }

    /// Runs kubectl as an administrator: what it printed, or what it complained of.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let kubectl = self.folder().join("cluster/bin/kubectl");
        let (is_good, output, complaint) = run(&kubectl, self.setting("KUBECONFIG"), args, input).await;
        if is_good { Ok(output) } else { Err(complaint) }
    }

    /// What `kubectl dcv` prints to an administrator, whatever its exit code says.
    pub async fn plugin(&self, args: &[&str], input: &str) -> String {
        let plugin = root().join("target/debug/kubectl-dcv");
        let (_, output, _) = run(&plugin, self.setting("KUBECONFIG"), args, input).await;
        output
    }

    /// How `kubectl dcv` goes for an administrator: its exit code, what it printed, and what it said on standard error.
    pub async fn kubectl_dcv(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self.dcv_command(args).output().await.expect("the plugin is built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// `kubectl dcv` for an administrator, yet to be run.
    pub fn dcv_command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(root().join("target/debug/kubectl-dcv"));
        command.env("KUBECONFIG", self.setting("KUBECONFIG")).args(args).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Every session of the stand.
    pub async fn all_sessions(&self) -> Vec<DcvSession> {
        let sessions = Api::<DcvSession>::all(self.client());
        sessions.list(&ListParams::default()).await.expect("sessions can be listed").items
    }
}

impl Drop for Stand {
    /// A test that fails leaves what there is to see, and perhaps something killed: the next one brings that up again.
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.is_up = false;
            dump(self.name, self.setting("KUBECONFIG"), &self.folder());
        }
    }
}

/// Runs a program as an administrator: whether it was content, what it printed, and what it complained of.
pub(crate) async fn run(program: &Path, kubeconfig: &str, args: &[&str], input: &str) -> (bool, String, String) {
    let mut process = tokio::process::Command::new(program)
        .env("KUBECONFIG", kubeconfig)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
    let mut stdin = process.stdin.take().expect("it is a pipe");
    // A program that reads no input may be gone already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = process.wait_with_output().await.expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Writes every object to `target/e2e/failure-<stand>.yaml`, and the ends of all logs to stderr.
fn dump(name: &str, kubeconfig: &str, folder: &Path) {
    let objects = root().join("target/e2e").join(format!("failure-{name}.yaml"));
    let kubectl = folder.join("cluster/bin/kubectl");
    let output = Command::new(kubectl)
        .args(["--kubeconfig", kubeconfig, "--request-timeout=10s", "get", "-A", "-o", "yaml"])
        .arg("dcvsessions,dcvservers,apiclients,leases,events")
        .output();
    if let Ok(output) = output {
        let _ = fs::create_dir_all(root().join("target/e2e"));
        let _ = fs::write(&objects, output.stdout);
        eprintln!("objects of {name}: {}", objects.display());
    }
    for log in fs::read_dir(folder.join("logs")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(log.path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        eprintln!("the end of {}:", log.path().display());
        for line in &lines[lines.len().saturating_sub(15)..] {
            eprintln!("    {}", line.chars().take(400).collect::<String>());
        }
    }
}

async fn run_up(name: &str, args: &[String]) {
    let status = tokio::process::Command::new(root().join("hack/up"))
        .args(["--name", name])
        .args(args)
        .status()
        .await
        .expect("hack/up can be run");
    assert!(status.success(), "hack/up --name {name} failed");
}

fn read_settings(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
}

/// The ids of `sessions`.
pub fn ids(sessions: &[DcvSession]) -> BTreeSet<String> {
    sessions.iter().map(|session| session.id().to_owned()).collect()
}
