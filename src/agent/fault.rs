//! Places where a test may stop us, to kill something there.
//!
//! Every step of creating, ending and closing a session has a [`Point`]. A test names one by an empty file in a folder; the
//! first process that comes there renames the file to `<point>.reached` and stands still until that file is gone, or until it
//! is killed. Outside tests no folder is set and a point is a look at a variable: what is tested is what is shipped.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// The folder where points are named; unset outside tests.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Between two looks whether it goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

macro_rules! points {
    ($($(#[$comment:meta])* $name:ident = $text:literal,)+) => {
        /// A step between two changes of what is on the host or in the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[$comment])* $name,)+
        }

        impl Point {
            /// All of them, in the order in which a session comes by.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name, which is that of its file.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

points! {
    /// Agent: the order is checked, nothing is made.
    OrderChecked = "order-checked",
    /// Agent: the folder is there under another name, empty.
    FolderBegun = "folder-begun",
    /// Agent: it has its `state.json`, and not yet its name.
    FolderUnnamed = "folder-unnamed",
    /// Agent: the folder is there.
    FolderMade = "folder-made",
    /// Agent: the session host was started.
    HostSpawned = "host-spawned",
    /// Session host: it runs, without its lock.
    HostBegun = "host-begun",
    /// Session host: it has its lock and knows its session.
    HostLocked = "host-locked",
    /// Session host: its socket is there, not yet its file.
    HostListening = "host-listening",
    /// Agent: it follows the session host.
    HostFollowed = "host-followed",
    /// Session host: `host.json` names it.
    HostRecorded = "host-recorded",
    /// Session host: the owner's folder is made.
    OwnedMade = "owned-made",
    /// Session host: the X server was started, and is not recorded.
    XServerSpawned = "x-server-spawned",
    /// The process that becomes the X server: still root's.
    ProgramBegun = "program-begun",
    /// Session host: the X server has told its display.
    DisplayTold = "display-told",
    /// Session host: the storage folder is being made.
    StorageBegun = "storage-begun",
    /// Session host: the desktop was started, the autorun program was not.
    DesktopSpawned = "desktop-spawned",
    /// Session host: both were started, and are not recorded.
    ProgramsSpawned = "programs-spawned",
    /// Session host: the desktop is up; nobody was told.
    DesktopUp = "desktop-up",
    /// Session host: everybody was told.
    DesktopTold = "desktop-told",
    /// Agent: it knows that the desktop is up, and has not tried the way of clients.
    UpHeard = "up-heard",
    /// Agent: the session is created; nobody was told.
    Created = "created",
    /// Agent: it is about to note that people are going to know of the session.
    AnnounceBegun = "announce-begun",
    /// Agent: a new `state.json` is written beside the old one.
    FileUnnamed = "file-unnamed",
    /// Agent: its loop is about to write the status of the session.
    StatusDue = "status-due",
    /// Agent: its loop has written it.
    StatusWritten = "status-written",
    /// Agent: a session of an earlier agent was found, and is not followed yet.
    SessionFound = "session-found",
    /// Agent: a close begins.
    CloseBegun = "close-begun",
    /// Agent: the session host was told to end.
    HostTold = "host-told",
    /// Session host: it is to end, or its X server or desktop has; nothing is ended yet.
    EndBegun = "end-begun",
    /// Session host: everything of it is ended; that is not recorded.
    AllEnded = "all-ended",
    /// Session host: its end is recorded; it still has its lock.
    EndRecorded = "end-recorded",
    /// Agent: the lock of a session that ended by itself is its own; what is left still runs.
    SettleBegun = "settle-begun",
    /// Agent: nothing of it runs; that is not told.
    SettleRecorded = "settle-recorded",
    /// Agent: the lock of a session to close is its own.
    LockTaken = "lock-taken",
    /// Agent: nothing of it runs.
    LeftoversEnded = "leftovers-ended",
    /// Agent: its folder has lost its name.
    FolderLeaving = "folder-leaving",
    /// Agent: its folder is gone; the session is not forgotten.
    FolderGone = "folder-gone",
    /// Agent: its loop is about to take its finalizer off.
    ReleaseDue = "release-due",
}

impl Point {
    /// Those of the agent's loop: no backend comes by.
    pub const OF_THE_LOOP: &[Self] = &[Self::StatusDue, Self::StatusWritten, Self::ReleaseDue];

    /// The file that names it in `folder`.
    pub fn file(self, folder: &Path) -> PathBuf {
        folder.join(self.name())
    }

    /// The file that says that somebody stands there.
    pub fn reached(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.reached", self.name()))
    }
}

/// From now on points are looked for in `folder`. For tests; the first call counts.
pub fn set_folder(folder: PathBuf) {
    let _ = FOLDER.set(folder);
}

/// The folder that was set, for the processes we start.
pub fn folder() -> Option<&'static Path> {
    FOLDER.get().map(PathBuf::as_path)
}

/// Stands still here if a test wants it. Blocks the thread, as only a test has time for.
pub fn reach(point: Point) {
    if let Some(folder) = folder() {
        stop_at(point, folder);
    }
}

fn stop_at(point: Point, folder: &Path) {
    let reached = point.reached(folder);
    // Of several that come by at once, one.
    if fs::rename(point.file(folder), &reached).is_ok() {
        while reached.exists() {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct() {
        let names: BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn only_a_point_that_is_named_is_stopped_at_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_owned();
        stop_at(Point::FolderMade, &at);
        fs::write(Point::FolderMade.file(&at), "").unwrap();
        let stands = std::thread::spawn({
            let at = at.clone();
            move || stop_at(Point::FolderMade, &at)
        });
        while !Point::FolderMade.reached(&at).exists() {
            std::thread::sleep(LOOK_AGAIN);
        }
        // Another one that comes by goes on.
        stop_at(Point::FolderMade, &at);
        assert!(!stands.is_finished());
        fs::remove_file(Point::FolderMade.reached(&at)).unwrap();
        stands.join().unwrap();
    }
}
