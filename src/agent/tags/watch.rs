//! The tags as they are now: the files are read again when they change.
//!
//! The kernel says when; a look every minute makes sure, as it hears nothing of a network file system, nor of a file that a
//! link in the folder leads to. While a file is broken, the last good tags stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::Event;
use notify::EventKind;
use notify::RecommendedWatcher;
use notify::RecursiveMode;
use notify::Watcher;
use notify::event::AccessKind;
use notify::event::AccessMode;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often the files are read whatever was heard.
const LOOK: Duration = Duration::from_mins(1);
/// How long a change is waited for to be complete: an editor writes several files.
const SETTLE: Duration = Duration::from_millis(100);
/// Somebody has written a file to its end.
const WRITTEN: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

/// What is known of the tags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags {
    /// The last good ones; absent: the files were not good since the agent runs.
    pub good: Option<BTreeMap<String, String>>,
    /// What is wrong with the files now.
    pub fault: Option<String>,
}

/// Reads the tags of `folder` again and again while `tasks` lives. The answer is marked as changed whenever they differ, and
/// after the first time they were read in any case.
pub fn follow(folder: PathBuf, tasks: &mut JoinSet<()>) -> watch::Receiver<Tags> {
    let (known, mut told) = watch::channel(Tags::default());
    told.mark_unchanged();
    tasks.spawn(async move {
        let mut watching = Watching::start();
        let mut is_first = true;
        loop {
            if let Some(watching) = &mut watching {
                // Before reading, so that no change falls in between. Again each time: the folder may be another by now.
                watching.add(&folder);
            }
            take(&known, read(&folder).await, is_first);
            is_first = false;
            let heard = async {
                match &watching {
                    Some(watching) => watching.heard.notified().await,
                    None => std::future::pending().await,
                }
            };
            if tokio::time::timeout(LOOK, heard).await.is_ok() {
                tokio::time::sleep(SETTLE).await;
            }
        }
    });
    told
}

async fn read(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let folder = folder.to_owned();
    let read = tokio::task::spawn_blocking(move || super::read(&folder).map_err(|error| error.in_full()));
    read.await.unwrap_or_else(|_| Err("reading the tags broke off".into()))
}

fn take(known: &watch::Sender<Tags>, read: Result<BTreeMap<String, String>, String>, is_first: bool) {
    known.send_if_modified(|tags| {
        let before = tags.clone();
        match read {
            Ok(good) => *tags = Tags { good: Some(good), fault: None },
            Err(fault) => tags.fault = Some(fault),
        }
        if tags.fault.is_some() && tags.fault != before.fault {
            tracing::warn!(fault = tags.fault, "the tags stay as they were");
        }
        is_first || *tags != before
    });
}

/// What the kernel has to say of a folder.
struct Watching {
    watcher: RecommendedWatcher,
    heard: Arc<Notify>,
}

impl Watching {
    /// Nothing when the host has no watches to give: then the files are looked at every minute.
    fn start() -> Option<Self> {
        let heard = Arc::new(Notify::new());
        let tell = heard.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Our own reading is heard too.
            if event.is_ok_and(|event| !event.kind.is_access() || event.kind == WRITTEN) {
                tell.notify_one();
            }
        });
        watcher
            .inspect_err(|error| tracing::warn!(%error, "changed tags are noticed once a minute only"))
            .map(|watcher| Self { watcher, heard })
            .ok()
    }

    /// Watches the folder; while it is not there, the nearest one above that is.
    fn add(&mut self, folder: &Path) {
        // Watching what is watched already changes nothing.
        let _ = folder.ancestors().find(|folder| self.watcher.watch(folder, RecursiveMode::NonRecursive).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tags(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Waits until the tags are so. Far less than a minute, so that it was the kernel that said it.
    async fn become_so(told: &mut watch::Receiver<Tags>, expected: impl Fn(&Tags) -> bool) -> Tags {
        let become_so = told.wait_for(|tags| expected(tags));
        tokio::time::timeout(Duration::from_secs(20), become_so).await.expect("the tags change").unwrap().clone()
    }

    #[tokio::test]
    async fn changes_are_noticed_and_a_broken_file_keeps_the_last_good_tags() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        fs::write(&file, "pool = \"office\"\n").unwrap();
        let mut tasks = JoinSet::new();
        let mut told = follow(folder.path().to_owned(), &mut tasks);
        let office = Some(tags(&[("pool", "office")]));
        become_so(&mut told, |tags| tags.good == office && tags.fault.is_none()).await;

        fs::write(&file, "pool = \n").unwrap();
        let broken = become_so(&mut told, |tags| tags.fault.is_some()).await;
        assert_eq!(broken.good, office);
        assert!(broken.fault.unwrap().contains("a.toml, line 1"));

        // As programs replace a file: written beside it and renamed over it.
        fs::write(folder.path().join("a.new"), "pool = \"render\"\n").unwrap();
        fs::rename(folder.path().join("a.new"), &file).unwrap();
        let render = Some(tags(&[("pool", "render")]));
        become_so(&mut told, |tags| tags.good == render && tags.fault.is_none()).await;

        fs::remove_file(&file).unwrap();
        become_so(&mut told, |tags| tags.good == Some(BTreeMap::new())).await;
    }

    #[tokio::test]
    async fn a_folder_that_is_made_or_replaced_later_is_noticed() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("etc/tags");
        let mut tasks = JoinSet::new();
        let mut told = follow(folder.clone(), &mut tasks);
        told.changed().await.unwrap();
        assert_eq!(*told.borrow(), Tags { good: Some(BTreeMap::new()), fault: None }, "the first look is told");

        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.toml"), "site = \"paris\"\n").unwrap();
        become_so(&mut told, |all| all.good == Some(tags(&[("site", "paris")]))).await;

        let other = above.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a.toml"), "site = \"rome\"\n").unwrap();
        fs::rename(&folder, above.path().join("old")).unwrap();
        fs::rename(&other, &folder).unwrap();
        become_so(&mut told, |all| all.good == Some(tags(&[("site", "rome")]))).await;
    }

    #[tokio::test]
    async fn tags_that_were_never_good_are_not_known() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.toml"), "pool").unwrap();
        let mut tasks = JoinSet::new();
        let mut told = follow(folder.path().to_owned(), &mut tasks);
        told.changed().await.unwrap();
        assert_eq!(told.borrow().good, None);
    }
}
