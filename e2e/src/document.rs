//! Pages of the documentation, and a terminal in which what they tell readers to type is typed.

#[path = "../../tests/docs/markdown.rs"]
pub mod markdown;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::process::Child;
use tokio::process::ChildStdin;
use tokio::process::ChildStdout;
use tokio::process::Command;

use crate::seconds;
use crate::stand::root;
use markdown::Block;
use markdown::Page;

/// What ends the output of one script: a line with nothing else.
const END: &str = "\u{1e}";

/// Folders of manifests: kubectl does not look behind links.
const MANIFESTS: [&str; 3] = ["config", "contrib", "crds"];

/// How long a script may take, unless [`Terminal::within`] says otherwise.
const USUAL: Duration = seconds(60);

/// The blocks of a page of the work tree that the test in the file `test` is to run.
pub fn blocks_for(page: &str, test: &str) -> Vec<Block> {
    let mark = format!("tested by {test}");
    let blocks = Page::read(&root(), page).blocks().into_iter();
    blocks.filter(|block| block.mark.as_deref() == Some(&mark)).collect()
}

/// The one of them that has these words.
///
/// # Panics
/// When there is none, or more than one.
pub fn block_for(page: &str, test: &str, words: &str) -> String {
    let found: Vec<_> = blocks_for(page, test).into_iter().filter(|block| block.text.contains(words)).collect();
    assert_eq!(found.len(), 1, "blocks of {page} with {words:?}");
    found[0].text.clone()
}

/// A shell as readers have one open: variables, functions, files and what runs in the background stay until it is dropped.
///
/// It stands in a folder of its own that has what is at the top of the work tree.
pub struct Terminal {
    bash: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: TempDir,
    scripts: u32,
    limit: Duration,
}

impl Terminal {
    /// A shell that finds programs in these folders first, and the cluster of `kubeconfig`, of which it has a copy.
    ///
    /// # Panics
    /// When there is no bash, or no room for its folder.
    pub fn open(programs: &[PathBuf], kubeconfig: &Path) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        for entry in fs::read_dir(root()).expect("the work tree can be read").flatten() {
            let own = folder.path().join(entry.file_name());
            if MANIFESTS.iter().any(|name| entry.file_name() == *name) {
                let copied = std::process::Command::new("cp").arg("-r").args([&entry.path(), &own]).status();
                assert!(copied.expect("cp can be run").success(), "{} cannot be copied", entry.path().display());
            } else {
                std::os::unix::fs::symlink(entry.path(), own).expect("the folder is empty");
            }
        }
        let own = folder.path().join("kubeconfig");
        fs::copy(kubeconfig, &own).expect("the kubeconfig can be copied");
        let mut path = String::new();
        for programs in programs {
            write!(path, "{}:", programs.display()).expect("text can be written");
        }
        let complaints = fs::File::create(folder.path().join("complaints")).expect("the folder can be written");
        let mut bash = Command::new("bash")
            .args(["-euo", "pipefail"])
            .env("KUBECONFIG", own)
            .env("PATH", path + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            // What it leaves in the background ends with it.
            .process_group(0)
            .spawn()
            .expect("bash can be run");
        let input = bash.stdin.take().expect("it is a pipe");
        let output = BufReader::new(bash.stdout.take().expect("it is a pipe"));
        Self { bash, input, output, folder, scripts: 0, limit: USUAL }
    }

    /// Lets scripts take this long from now on.
    pub fn within(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Where it stands.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a script and returns what it printed.
    ///
    /// # Panics
    /// When a command of it fails, or it takes too long; with what it printed and complained of.
    pub async fn run(&mut self, script: &str) -> String {
        self.scripts += 1;
        // In a file, so that no command of it reads what is to be run next.
        let file = self.folder.path().join(format!("script-{}.sh", self.scripts));
        fs::write(&file, script).expect("the folder can be written");
        let line = format!(". {} </dev/null; printf '\\n{END}\\n'\n", file.display());
        let mut printed = String::new();
        let ended = tokio::time::timeout(self.limit, async {
            self.input.write_all(line.as_bytes()).await?;
            loop {
                let mut line = String::new();
                if self.output.read_line(&mut line).await? == 0 {
                    return Ok::<_, std::io::Error>(false);
                }
                if line.trim_end_matches('\n') == END {
                    return Ok(true);
                }
                printed.push_str(&line);
            }
        });
        let ended = ended.await;
        if !matches!(ended, Ok(Ok(true))) {
            let complaints = fs::read_to_string(self.folder.path().join("complaints")).unwrap_or_default();
            panic!("{ended:?} (Ok(Ok(false)): a command failed)\n{script}\n{printed}\n{complaints}");
        }
        // The line break before the end.
        printed.truncate(printed.trim_end_matches('\n').len());
        printed
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(pid) = self.bash.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}
