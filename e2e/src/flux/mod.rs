//! Flux on this machine: its own kustomize-controller, and a stand-in for its source-controller.
//!
//! Of a source-controller only this is needed: it watches `GitRepository` objects and publishes each new commit as an
//! archive under a URL. [`source`] does that; [`repository`] is a Git repository to point it to.

pub mod repository;
pub mod source;

use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use axum::Router;
use axum::http::StatusCode;
use axum::http::Uri;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::Stand;
use crate::flux::repository::Repository;
use crate::stand::root;

/// Flux beside a stand, for as long as this value lives.
pub struct Flux {
    /// Repositories and archives, served over HTTP.
    folder: TempDir,
    address: String,
    controller: Child,
    source: JoinHandle<()>,
    files: JoinHandle<()>,
}

impl Flux {
    /// Installs its definitions and starts it.
    pub async fn start(stand: &Stand) -> Self {
        let definitions = tool("hack/modules/flux/crds", &[]).await;
        let programs = tool("hack/modules/build", &["flux"]).await;
        let definitions = definitions.to_str().expect("our paths are text").to_owned();
        for args in [
            &["apply", "--server-side", "--force-conflicts", "-f", &definitions][..],
            &["wait", "--for=condition=Established", "--timeout=30s", "-f", &definitions],
        ] {
            stand.kubectl(args, "").await.unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"));
        }
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let (address, files) = serve(folder.path()).await;
        let archives = folder.path().join("archives");
        let source = tokio::spawn(source::run(stand.client(), archives, format!("{address}/archives")));
        let controller = start_controller(stand, &programs.join("kustomize-controller"), folder.path());
        Self { folder, address, controller, source, files }
    }

    /// Makes a Git repository without commits.
    pub async fn repository(&self, name: &str) -> Repository {
        let url = format!("{}/{name}.git", self.address);
        Repository::make(self.folder.path().join(format!("{name}.git")), self.folder.path().join(name), url).await
    }

    /// Stops it. Its objects stay, so delete them before.
    pub async fn stop(mut self) {
        self.controller.kill().await.expect("it runs until it is stopped");
    }
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.source.abort();
        self.files.abort();
    }
}

/// Runs one of our scripts, which prints a folder.
async fn tool(script: &str, args: &[&str]) -> PathBuf {
    let output = Command::new(root().join(script))
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .await
        .unwrap_or_else(|error| panic!("{script} cannot be run: {error}"));
    assert!(output.status.success(), "{script} failed");
    PathBuf::from(String::from_utf8(output.stdout).expect("it prints text").trim_end())
}

/// It ends with this process, however that ends.
fn start_controller(stand: &Stand, program: &Path, folder: &Path) -> Child {
    let temporary = folder.join("tmp");
    fs::create_dir(&temporary).expect("the folder is new");
    let log = stand.folder().join("logs/kustomize-controller.log");
    let log = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(program)
        .args(["--metrics-addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0", "--log-level", "debug"])
        .env("KUBECONFIG", stand.setting("KUBECONFIG"))
        .env("RUNTIME_NAMESPACE", "flux-system")
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("setpriv is part of util-linux")
}

/// Serves the files below `folder` on loopback, and returns the address.
async fn serve(folder: &Path) -> (String, JoinHandle<()>) {
    let folder = folder.to_owned();
    let file = move |uri: Uri| {
        let path = folder.join(uri.path().trim_start_matches('/'));
        async move { fs::read(path).map_err(|_| StatusCode::NOT_FOUND) }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it listens");
    let serving = axum::serve(listener, Router::new().fallback(file)).into_future();
    let serving = tokio::spawn(async move { serving.await.expect("it serves until it is stopped") });
    (format!("http://{address}"), serving)
}
