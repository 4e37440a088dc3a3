//! A Git repository that is served as plain files: Git can read one over HTTP without a program behind the server.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tokio::process::Command;

/// A repository with one branch, `main`.
pub struct Repository {
    bare: PathBuf,
    work: PathBuf,
    /// Where Git clients find it.
    pub url: String,
}

impl Repository {
    pub(super) async fn make(bare: PathBuf, work: PathBuf, url: String) -> Self {
        let text = |path: &Path| path.to_str().expect("our paths are text").to_owned();
        git(&["init", "--quiet", "--bare", "--initial-branch", "main", &text(&bare)]).await;
        git(&["init", "--quiet", "--initial-branch", "main", &text(&work)]).await;
        Self { bare, work, url }
    }

    /// Writes a file of the next commit.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.work.join(path);
        fs::create_dir_all(file.parent().expect("it is below the folder")).expect("the folder can be made");
        fs::write(file, text).expect("the file can be written");
    }

    /// Reads a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.work.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Leaves a file out of the next commit.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.work.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Commits what was written and removed and publishes that: the commit, as Flux names it.
    pub async fn commit(&self, message: &str) -> String {
        let (work, bare) = (self.work.to_str().expect("text"), self.bare.to_str().expect("text"));
        let who = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"];
        git(&["-C", work, "add", "--all"]).await;
        git(&[&["-C", work][..], &who, &["commit", "--quiet", "--message", message]].concat()).await;
        git(&["-C", work, "push", "--quiet", bare, "main"]).await;
        // What clients read instead of asking.
        git(&["-C", bare, "update-server-info"]).await;
        format!("main@sha1:{}", git(&["-C", work, "rev-parse", "HEAD"]).await)
    }
}

/// Runs Git without anybody's settings: the last line of what it printed.
///
/// # Panics
/// When it fails.
pub(super) async fn git(args: &[&str]) -> String {
    try_git(args).await.unwrap_or_else(|error| panic!("git {args:?}: {error}"))
}

pub(super) async fn try_git(args: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        // Loopback is reached directly.
        .env("no_proxy", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("git is not installed: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
