//! A cluster with real nodes on this machine, by `hack/cluster start --nodes`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use kube::Client;
use kube::config::KubeConfigOptions;
use kube::config::Kubeconfig;

use crate::host;
use crate::host::Process;
use crate::session::Sessions;
use crate::stand::root;
use crate::stand::run;

/// A control plane and nodes. They outlive it, like stands; `hack/test` takes them down.
pub struct Nodes {
    name: &'static str,
}

impl Nodes {
    /// As many nodes, all Ready.
    pub async fn up(name: &'static str, count: u32) -> Self {
        script("cluster", &["start", "--name", name, "--nodes", &count.to_string()]).await;
        Self { name }
    }

    /// Starts again what has ended.
    pub async fn restart(&self) {
        script("cluster", &["start", "--name", self.name]).await;
    }

    /// Stops all of it, and forgets it.
    pub async fn wipe(&self) {
        script("cluster", &["stop", "--name", self.name, "--wipe"]).await;
    }

    /// Builds images and puts them on every node.
    pub async fn load(&self, images: &[&str]) {
        script("image", &[&["--load", self.name], images].concat()).await;
    }

    /// Puts the operator's image of the last release on every node: its version, and its chart.
    pub async fn load_last_release(&self) -> (String, String) {
        let printed = self.printed_by(&root().join("hack/last-release"), &["--load", self.name]).await;
        let mut lines = printed.lines().map(str::to_owned);
        let mut next = || lines.next().expect("it prints version and chart");
        (next(), next())
    }

    /// A command that runs on a node, outside pods, yet to be run. What it leaves running ends with the node.
    pub fn on_node(&self, node: u32, command: &[&str]) -> Command {
        let mut run = Command::new(root().join("hack/cluster"));
        run.args(["run", "--name", self.name, "--node", &node.to_string(), "--"]).args(command);
        run
    }

    /// The files of a node's host, as its processes see them.
    pub fn host_files(&self, node: u32) -> PathBuf {
        let pid = fs::read_to_string(self.folder().join(format!("pids/node-{node}.pid"))).expect("the node runs");
        Path::new("/proc").join(pid.trim()).join("root")
    }

    /// Address of a node, which this machine reaches.
    pub fn address(&self, node: u32) -> String {
        format!("10.{}.0.{}", self.network(), 10 + node)
    }

    /// The sessions of a namespace, for an administrator.
    pub async fn sessions(&self, namespace: &str) -> Sessions {
        let config = Kubeconfig::read_from(self.folder().join("kubeconfig")).expect("hack/cluster wrote it");
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("it is whole")).expect("it leads to an API server");
        Sessions::new(client, namespace)
    }

    /// Runs a line as somebody types it who has kubectl, its plugin and Helm, and returns what it printed.
    pub async fn typed(&self, line: &str) -> String {
        let helm = self.printed_by(&root().join("hack/modules/build"), &["helm", "helm"]).await;
        let ours = [self.folder().join("bin"), root().join("target/debug"), PathBuf::from(helm.trim())];
        let ours = ours.map(|folder| folder.to_str().expect("the work tree has a plain path").to_owned()).join(":");
        self.printed_by(Path::new("bash"), &["-euc", &format!("PATH={ours}:$PATH\n{line}")]).await
    }

    /// Everything of it is under this folder.
    pub fn folder(&self) -> PathBuf {
        root().join("target/dev").join(self.name).join("cluster")
    }

    /// The second part of its addresses, as `200` of `10.200.0.1`.
    pub fn network(&self) -> String {
        fs::read_to_string(self.folder().join("nodes/network")).expect("it was started").trim().to_owned()
    }

    /// Runs kubectl as an administrator: what it printed, or what it complained of.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let kubeconfig = self.folder().join("kubeconfig");
        let kubeconfig = kubeconfig.to_str().expect("the work tree has a plain path");
        let (is_good, output, complaint) = run(&self.folder().join("bin/kubectl"), kubeconfig, args, input).await;
        if is_good { Ok(output) } else { Err(complaint) }
    }

    /// kubectl as an administrator, yet to be run.
    pub fn kubectl_command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.folder().join("bin/kubectl"));
        command.env("KUBECONFIG", self.folder().join("kubeconfig")).args(args);
        command
    }

    /// Runs `kubectl dcv` as an administrator and returns what it printed.
    pub async fn kubectl_dcv(&self, args: &[&str]) -> String {
        self.printed_by(&root().join("target/debug/kubectl-dcv"), args).await
    }

    /// Runs helm as an administrator and returns what it printed.
    pub async fn helm(&self, args: &[&str]) -> String {
        let folder = self.printed_by(&root().join("hack/modules/build"), &["helm", "helm"]).await;
        self.printed_by(&Path::new(folder.trim()).join("helm"), args).await
    }

    async fn printed_by(&self, program: &Path, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(program);
        command.env("KUBECONFIG", self.folder().join("kubeconfig")).args(args).current_dir(root());
        let output = command.output().await.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?}: {complaint}\n{printed}", program.display());
        printed
    }

    /// Pids of the control plane.
    pub fn control_plane(&self) -> Vec<i32> {
        let pids = fs::read_dir(self.folder().join("pids")).into_iter().flatten().flatten();
        let files = pids.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "pid"));
        files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
    }
}

/// What is on this machine of the nodes of `network`. Empty: nothing.
pub fn remains(network: &str, folder: &Path) -> Vec<String> {
    let cgroup = format!("dcv{network}n");
    let processes = processes(network).into_iter().map(|process| format!("{} {}", process.pid, process.command));
    let having = |text: String, word: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    };
    let folder = folder.to_str().expect("the work tree has a plain path");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let links = printed("ip", &["-oneline", "link"]);
    let routes = printed("ip", &["-4", "route", "show", "table", "all"]);
    let namespaces = printed("ip", &["netns"]);
    let cgroups = printed("find", &["/sys/fs/cgroup", "-type", "d", "-name", &format!("{cgroup}*")]);
    processes
        .chain(having(mounts, folder))
        .chain(having(links, &format!("dcvbr{network}")))
        .chain(having(routes, &format!("10.{network}.")))
        .chain(having(namespaces, &cgroup))
        .chain(having(cgroups, &cgroup))
        .collect()
}

/// Every process of the nodes of `network`, by their cgroups: those of pods too.
pub fn processes(network: &str) -> Vec<Process> {
    let cgroup = format!("/dcv{network}n");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc can be read").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("cgroup").contains(&cgroup) && host::is_alive(pid) {
            found.push(Process { pid, command: read("cmdline").replace('\0', " ") });
        }
    }
    found
}

fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn script(name: &str, args: &[&str]) {
    let status = tokio::process::Command::new(root().join("hack").join(name)).args(args).status().await;
    let status = status.unwrap_or_else(|error| panic!("hack/{name} cannot be run: {error}"));
    assert!(status.success(), "hack/{name} {} failed", args.join(" "));
}
