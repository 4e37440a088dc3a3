//! Whether the host is set up for sessions, and how to mend what is missing.
//!
//! [`SetUp`] is what was read of the host, the findings are what follows from it: pure, and the same for the command `check`,
//! the condition `HostConfigured` and the tests. Nothing is changed on the host and nothing is started there.

mod dcv;
mod host;
mod read;
mod vnc;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use read::SetUp;
pub use read::read;

/// How often a running agent looks.
const LOOK: Duration = Duration::from_mins(5);
/// The finding about tag files.
const TAGS: &str = "Tags";
/// Longest message of a condition.
const MAX_MESSAGE: usize = 4096;

/// What runs the sessions of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An installed Amazon DCV server.
    Dcv,
    /// Our own desktops.
    Vnc,
}

/// Where the host is looked at, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What is to run sessions.
    pub kind: Kind,
    /// Folder that has the host's files.
    pub host_root: PathBuf,
    /// Folder that has the files the agent itself sees: `/`, but in tests.
    pub own_root: PathBuf,
    /// Folder of the programs that sessions may name as `initFile`.
    pub init_folder: PathBuf,
    /// Folder of the programs that sessions may name as `autorunFile`.
    pub autorun_folder: PathBuf,
    /// Folder of the tag files.
    pub tags_folder: PathBuf,
    /// Folder of the lock, the certificate and what is known of running sessions.
    pub state_folder: PathBuf,
    /// Folder of log files, if there are any.
    pub log_directory: Option<PathBuf>,
    /// File with the authority of the agent's verifier, which the desktop server is to trust.
    pub verifier_authority: PathBuf,
    /// The desktop server's configuration, on the host.
    pub dcv_conf: PathBuf,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; perhaps as it should be.
    Note,
    /// Some sessions will not be as expected.
    Warning,
    /// Sessions cannot be created, reached or kept apart.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, as one word that stays the same.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// How it is, in words.
    pub message: String,
    /// What to do about it; absent when there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), remedy: None }
    }

    /// Something to do, however bad it is.
    pub fn bad(level: Level, check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level, message: message.into(), remedy: Some(remedy.into()) }
    }
}

/// What the findings come to, for the server's condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// There is no problem.
    pub is_complete: bool,
    /// Every problem and every warning, with its remedy.
    pub message: String,
}

/// Looks at the host and judges it. Blocks for the length of some small reads.
pub fn examine(source: &Source) -> Vec<Finding> {
    findings(&read(source))
}

/// What is to be said of a host, in the order in which a person would mend it.
pub fn findings(set_up: &SetUp) -> Vec<Finding> {
    let mut findings = match (&set_up.dcv, &set_up.vnc) {
        (Some(dcv), _) => dcv::findings(dcv, set_up),
        (_, Some(vnc)) => vnc::findings(vnc),
        (None, None) => Vec::new(),
    };
    findings.extend(host::findings(set_up));
    findings
}

/// What `findings` come to.
pub fn verdict(findings: &[Finding]) -> Verdict {
    let mut told: Vec<&Finding> = findings.iter().filter(|finding| finding.level >= Level::Warning).collect();
    told.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let texts = told.iter().map(|finding| {
        let remedy = finding.remedy.as_deref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
        format!("{} {}: {}{remedy}", finding.level, finding.check, finding.message)
    });
    Verdict {
        is_complete: told.iter().all(|finding| finding.level < Level::Problem),
        message: texts.collect::<Vec<_>>().join("; ").chars().take(MAX_MESSAGE).collect(),
    }
}

/// Looks again and again while `tasks` lives. The answer changes when the verdict does.
pub fn follow(source: Source, tasks: &mut JoinSet<()>) -> watch::Receiver<Option<Verdict>> {
    let (known, told) = watch::channel(None);
    tasks.spawn(async move {
        loop {
            let source = source.clone();
            if let Ok(mut findings) = tokio::task::spawn_blocking(move || examine(&source)).await {
                // They are followed, and have a condition of their own that is never old.
                findings.retain(|finding| finding.check != TAGS);
                let new = Some(verdict(&findings));
                known.send_if_modified(|old| {
                    let is_news = *old != new;
                    *old = new;
                    is_news
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_running_agent_is_told_of_everything_but_the_tags_which_it_follows() {
        let host = tempfile::tempdir().unwrap();
        let folder = host.path().join("tags");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.toml"), "broken").unwrap();
        let source = Source {
            kind: Kind::Vnc,
            host_root: host.path().into(),
            own_root: host.path().into(),
            init_folder: "/init".into(),
            autorun_folder: "/autorun".into(),
            tags_folder: "/tags".into(),
            state_folder: "/run".into(),
            log_directory: None,
            verifier_authority: "/ca.pem".into(),
            dcv_conf: "/etc/dcv/dcv.conf".into(),
        };
        assert!(examine(&source).iter().any(|finding| finding.check == TAGS && finding.level == Level::Problem));
        let mut tasks = JoinSet::new();
        let mut told = follow(source, &mut tasks);
        let verdict = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(!verdict.is_complete && verdict.message.starts_with("problem XServer: "), "{}", verdict.message);
        assert!(!verdict.message.contains("a.toml"), "{}", verdict.message);
    }

    #[test]
    fn a_verdict_has_problems_first_and_leaves_out_what_is_well() {
        let finding = |check, level, remedy: Option<&str>| Finding {
            check,
            level,
            message: format!("{check} is so"),
            remedy: remedy.map(str::to_owned),
        };
        let list = [
            finding("A", Level::Ok, None),
            finding("B", Level::Warning, Some("do b")),
            finding("C", Level::Note, None),
            finding("D", Level::Problem, None),
        ];
        let told = "problem D: D is so; warning B: B is so (do b)";
        assert_eq!(verdict(&list), Verdict { is_complete: false, message: told.into() });
        let well = Verdict { is_complete: true, message: "warning B: B is so (do b)".into() };
        assert_eq!(verdict(&list[..3]), well);
        assert_eq!(verdict(&[]), Verdict { is_complete: true, message: String::new() });
    }
}
