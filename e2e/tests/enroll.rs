//! `kubectl dcv enroll`: a host outside the cluster, set up by nothing but what is printed, and shut out again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use dcv_operator::api::server::Availability;
use dcv_operator::api::server::DcvServer;
use e2e::Stand;
use e2e::eventually;
use e2e::seconds;
use e2e::stand::root;
use e2e::unique;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;
use serde_json::json;
use tokio::process::Child;
use tokio::process::Command;

/// A host that is to be: a name, and a folder that stands for its disk.
struct Host {
    name: String,
    disk: tempfile::TempDir,
    /// kubectl and its configuration.
    kubectl: (PathBuf, String),
}

impl Drop for Host {
    /// A test that fails takes its server away: the next one waits until every server is AVAILABLE.
    fn drop(&mut self) {
        let (kubectl, config) = &self.kubectl;
        let mut command = std::process::Command::new(kubectl);
        command.env("KUBECONFIG", config).args(["delete", "--ignore-not-found", "dcvserver", &self.server()]);
        let _ = command.stdout(Stdio::null()).status();
    }
}

impl Host {
    fn new(stand: &Stand) -> Self {
        let kubectl = (stand.folder().join("cluster/bin/kubectl"), stand.setting("KUBECONFIG").to_owned());
        Self { name: unique("enrolled"), disk: tempfile::tempdir().expect("a folder"), kubectl }
    }

    fn server(&self) -> String {
        format!("host-{}", self.name)
    }

    fn files(&self) -> PathBuf {
        self.disk.path().join("etc")
    }

    /// The flags that say where things are on this host, which has no place of its own on the machine.
    fn flags(&self) -> Vec<String> {
        let (files, state) = (self.files().display().to_string(), self.disk.path().join("run").display().to_string());
        let program = root().join("target/debug/dcv-operator").display().to_string();
        let agent = [
            format!("--state-folder={state}"),
            "--https-address=127.0.0.1:0".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--health-address=127.0.0.1:0".to_owned(),
        ];
        let agent = agent.into_iter().map(|flag| format!("--agent-arg={flag}"));
        ["--backend".to_owned(), "vnc".into(), "--folder".into(), files, "--program".into(), program]
            .into_iter()
            .chain(agent)
            .collect()
    }

    /// Starts the agent as its unit says.
    fn start(&self) -> Agent {
        let unit = fs::read_to_string(self.files().join("dcv-operator-agent.service")).expect("it was put there");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a unit starts something");
        let words: Vec<_> = line.split_whitespace().collect();
        let log = self.disk.path().join("agent.log");
        let file = fs::File::create(&log).expect("the disk is ours");
        let process = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .expect("the agent is built");
        Agent { process, log }
    }

    /// The API server as the host reaches it.
    async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.files().join("kubeconfig")).expect("it was put there");
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("it is complete")).expect("it is usable")
    }
}

struct Agent {
    process: Child,
    log: PathBuf,
}

impl Agent {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// How a script goes.
async fn run(script: &Path) -> (bool, String) {
    let output = Command::new("sh").arg(script).stdin(Stdio::null()).output().await.expect("there is a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Writes to the server's status, as its agent does, for a trial only.
async fn try_to_write(client: &Client, server: &str) -> Result<(), String> {
    let patch = Patch::Merge(json!({"status": {"hostname": "tried"}}));
    let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
    let written = Api::<DcvServer>::all(client.clone()).patch_status(server, &parameters, &patch).await;
    written.map(drop).map_err(|error| error.to_string())
}

async fn until_available(stand: &Stand, server: &str, agent: &Agent) {
    eventually("the enrolled host's server to be AVAILABLE", seconds(60), async || {
        let found = stand.servers().get_opt(server).await.map_err(|error| error.to_string())?;
        let status = found.and_then(|found| found.status).unwrap_or_default();
        match status.availability {
            Availability::Available => Ok(()),
            Availability::Unavailable => Err(format!("{:?}\n{}", status.unavailability_reason, agent.log())),
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_is_set_up_by_what_is_printed_and_shut_out_by_one_command() {
    let stand = Stand::fake().await;
    let host = Host::new(&stand);
    let server = host.server();
    let flags = host.flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let out = host.disk.path().join("to-carry");
    let out_text = out.to_str().expect("a plain path");

    let words = [&["enroll", &host.name, "--out", out_text][..], &flags].concat();
    let (code, printed, said) = stand.kubectl_dcv(&words).await;
    assert_eq!(code, Some(0), "{said}");
    let token = fs::read_to_string(out.join("token")).expect("it is written");
    assert!(!printed.contains(token.trim()) && !said.contains(token.trim()), "a token on the screen");
    assert!(said.contains(&format!("serviceaccount/{server} created\nsecret/{server} created\n")), "{said}");
    for entry in fs::read_dir(&out).expect("it is ours") {
        let mode = entry.expect("it is ours").metadata().expect("it is ours").permissions().mode();
        assert_eq!(mode & 0o077, 0, "readable to others");
    }

    let (is_good, told) = run(&out.join("install.sh")).await;
    assert!(is_good, "{told}");
    let mut agent = host.start();
    until_available(&stand, &server, &agent).await;
    let client = host.client().await;
    assert_eq!(try_to_write(&client, &server).await, Ok(()));
    let other = try_to_write(&client, &stand.server(1)).await.expect_err("not its own");
    assert!(other.contains("does not belong to the agent of"), "{other}");

    // Again: a new token, in one script for a pipe. The agent goes on with what it has.
    let words = [&["enroll", &server, "--with-token"][..], &flags].concat();
    let (code, script, said) = stand.kubectl_dcv(&words).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("unchanged") && said.contains("earlier ones stay good until they end"), "{said}");
    let file = host.disk.path().join("piped");
    fs::write(&file, script).expect("the disk is ours");
    let (is_good, told) = run(&file).await;
    assert!(is_good, "{told}");
    assert_ne!(fs::read_to_string(host.files().join("token")).expect("it is there").trim(), token.trim());
    assert_eq!(try_to_write(&client, &server).await, Ok(()));

    // Nothing is taken away while somebody may work there.
    let sessions = stand.namespace("enroll").await;
    let uid = stand.servers().get(&server).await.expect("it is there").metadata.uid.expect("objects have one");
    sessions.create("desk", &json!({"requirements": format!("server:Id = '{uid}'")})).await;
    sessions.until("desk", "bound", |desk| desk.server_name() == Some(server.as_str())).await;
    let (code, _, said) = stand.kubectl_dcv(&["enroll", &host.name, "--revoke", "--purge"]).await;
    assert!(code == Some(1) && said.contains("Nothing was revoked"), "{said}");
    sessions.until_ready("desk").await;
    sessions.delete("desk").await;

    let (code, printed, said) = stand.kubectl_dcv(&["enroll", &host.name, "--revoke"]).await;
    assert_eq!((code, printed), (Some(0), format!("secret/{server} deleted\n")), "{said}");
    eventually("the host to be refused", seconds(30), async || match try_to_write(&client, &server).await {
        Err(error) if error.contains("Unauthorized") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually("the agent to say so", seconds(30), async || {
        if agent.log().contains("does not accept our token") { Ok(()) } else { Err(agent.log()) }
    })
    .await;

    let (code, printed, said) = stand.kubectl_dcv(&["enroll", &host.name, "--revoke", "--purge"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(printed.contains(&format!("dcvserver.dcv-operator.io/{server} deleted\n")), "{printed}");
    assert!(stand.servers().get_opt(&server).await.expect("servers can be read").is_none());
    let accounts = Api::<ServiceAccount>::namespaced(stand.client(), "dcv-hosts");
    assert!(accounts.get_opt(&server).await.expect("accounts can be read").is_none());
    agent.process.kill().await.expect("it is ours");
    let (code, _, said) = stand.kubectl_dcv(&["enroll", &host.name, "--revoke"]).await;
    assert_eq!((code, said), (Some(1), format!("error: no host is enrolled as {server}\n")));
    sessions.delete_namespace().await;
}
