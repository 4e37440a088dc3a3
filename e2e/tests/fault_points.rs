//! `kill -9` of the agent, the session host and the X server at each step of a create and a close of a real stand: one desktop
//! or none, nothing left over, and the object says what happened. That the backend itself survives more than these is shown
//! by its own tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dcv_operator::agent::fault::Point;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::is_ready;
use e2e::session::state_reason;
use kube::api::DeleteParams;
use serde_json::json;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Agent,
    SessionHost,
    XServer,
}

const AGENT: &[Part] = &[Part::Agent];
const NO_DESKTOP: &[Part] = &[Part::Agent, Part::SessionHost];
const ALL: &[Part] = &[Part::Agent, Part::SessionHost, Part::XServer];

/// Steps of a create, and what there is to kill at each.
const CREATE: &[(Point, &[Part])] = &[
    (Point::OrderChecked, AGENT),
    (Point::FolderBegun, AGENT),
    (Point::FolderUnnamed, AGENT),
    (Point::FolderMade, AGENT),
    (Point::HostSpawned, NO_DESKTOP),
    (Point::HostBegun, NO_DESKTOP),
    (Point::HostLocked, NO_DESKTOP),
    (Point::HostListening, NO_DESKTOP),
    (Point::HostFollowed, NO_DESKTOP),
    (Point::HostRecorded, NO_DESKTOP),
    (Point::OwnedMade, NO_DESKTOP),
    (Point::XServerSpawned, NO_DESKTOP),
    (Point::ProgramBegun, NO_DESKTOP),
    (Point::DisplayTold, ALL),
    (Point::StorageBegun, ALL),
    (Point::DesktopSpawned, ALL),
    (Point::ProgramsSpawned, ALL),
    (Point::DesktopUp, ALL),
    (Point::DesktopTold, ALL),
    (Point::UpHeard, ALL),
    (Point::Created, ALL),
    (Point::AnnounceBegun, ALL),
    (Point::StatusDue, ALL),
    (Point::StatusWritten, ALL),
];

/// Steps of a close.
const CLOSE: &[(Point, &[Part])] = &[
    (Point::CloseBegun, ALL),
    (Point::HostTold, AGENT),
    (Point::EndBegun, NO_DESKTOP),
    (Point::AllEnded, NO_DESKTOP),
    (Point::EndRecorded, NO_DESKTOP),
    (Point::LockTaken, AGENT),
    (Point::LeftoversEnded, AGENT),
    (Point::FolderLeaving, AGENT),
    (Point::FolderGone, AGENT),
    (Point::ReleaseDue, AGENT),
];

/// The folder where points are named, known to the agent of a stand.
struct Points<'a> {
    stand: &'a Stand,
    folder: tempfile::TempDir,
}

impl<'a> Points<'a> {
    async fn of(stand: &'a Stand) -> Self {
        let points = Self { stand, folder: tempfile::tempdir().expect("/tmp can be written") };
        stand.role("agent-1").kill().await.restart_with(&points.flags()).await;
        points
    }

    fn flags(&self) -> [&str; 2] {
        ["--fault-folder", self.path().to_str().expect("/tmp is text")]
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn stop_at(&self, point: Point) {
        fs::write(point.file(self.path()), "").expect("the folder can be written");
    }

    async fn until_reached(&self, point: Point, what: &str) {
        eventually(what, seconds(20), async || {
            if point.reached(self.path()).exists() { Ok(()) } else { Err("nobody came by".into()) }
        })
        .await;
    }

    fn let_go(&self, point: Point) {
        fs::remove_file(point.reached(self.path())).expect("somebody stands there, or did when he was killed");
    }

    /// Kills `part` of the session `id`, and lets whoever stands at `point` go on.
    async fn strike(&self, part: Part, point: Point, id: &str) {
        let look = match part {
            Part::Agent => {
                let killed = self.stand.role("agent-1").kill().await;
                self.let_go(point);
                killed.restart().await;
                return;
            }
            Part::SessionHost => host::session_hosts_of,
            Part::XServer => host::x_servers_of,
        };
        let found = eventually(&format!("one {part:?} at {point:?}"), seconds(5), async || {
            let mut found = look(id);
            if found.len() == 1 { Ok(found.remove(0)) } else { Err(format!("{found:?}")) }
        })
        .await;
        host::kill(&found);
        eventually("it to be dead", seconds(5), async || {
            if host::is_alive(found.pid) { Err(found.command.clone()) } else { Ok(()) }
        })
        .await;
        self.let_go(point);
    }

    async fn leave(self) {
        let killed = self.stand.role("agent-1").kill().await;
        killed.restart_without(&self.flags()).await;
    }
}

async fn until_nothing_is_left(stand: &Stand, id: &str, what: &str) {
    eventually(&format!("nothing to be left: {what}"), seconds(20), async || {
        let remains = host::remains_of(&stand.server(1), id);
        if remains.is_empty() { Ok(()) } else { Err(format!("{remains:#?}")) }
    })
    .await;
}

/// Waits until the session is over, or is READY with one whole desktop of which the killed process is none.
async fn until_settled(sessions: &Sessions, name: &str) -> DcvSession {
    eventually(&format!("{name} to be READY or over"), seconds(45), async || {
        let session = sessions.api.get(name).await.map_err(|error| error.to_string())?;
        let (servers, hosts) = (host::x_servers_of(session.id()), host::session_hosts_of(session.id()));
        assert!(servers.len() <= 1, "two desktops of {name}: {servers:?}");
        let is_whole = is_ready(&session) && servers.len() == 1 && hosts.len() == 1;
        if session.is_finished() || is_whole { Ok(session) } else { Err(format!("{:?} {servers:?}", session.status)) }
    })
    .await
}

/// What the object says about a part that was killed while it was created.
fn is_told(session: &DcvSession) -> bool {
    let words = ["session host", "X server", "cut off", "desktop"];
    let says = |text: &str| words.iter().any(|word| text.contains(word));
    let attempts = session.status.as_ref().map(|status| status.attempts.as_slice()).unwrap_or_default();
    if session.is_finished() {
        return condition(session, "Finished") == "True/EndedOnHost" && says(state_reason(session));
    }
    // It was placed again: which attempt failed, and why.
    session.attempt() > 1 && attempts.last().is_some_and(|attempt| says(&attempt.message))
}

#[tokio::test]
async fn a_create_survives_a_kill_at_every_step() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("steps").await;
    let points = Points::of(&stand).await;
    let mut hit = BTreeSet::new();
    for (point, parts) in CREATE {
        for part in *parts {
            let name = format!("{}-{part:?}", point.name()).to_lowercase();
            points.stop_at(*point);
            let spec = json!({"autorunFile": "script.sh", "storageRoot": "%home%/fault-points"});
            let id = sessions.create(&name, &spec).await.id().to_owned();
            points.until_reached(*point, &name).await;
            points.strike(*part, *point, &id).await;
            hit.insert(*point);
            let session = until_settled(&sessions, &name).await;
            if *part == Part::Agent {
                assert!(is_ready(&session) && session.attempt() == 1, "{name}: {:?}", session.status);
            } else {
                // It may have been READY for a moment before its end is told.
                let told = sessions.until(&name, "told what was killed", is_told).await;
                if told.is_finished() {
                    until_nothing_is_left(&stand, &id, &name).await;
                }
            }
            sessions.delete(&name).await;
            until_nothing_is_left(&stand, &id, &name).await;
        }
    }
    assert_eq!(hit.len(), CREATE.len());
    points.leave().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_close_survives_a_kill_at_every_step() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("steps").await;
    let points = Points::of(&stand).await;
    let mut hit = BTreeSet::new();
    for (point, parts) in CLOSE {
        for part in *parts {
            let name = format!("{}-{part:?}", point.name()).to_lowercase();
            sessions.create(&name, &json!({"autorunFile": "script.sh"})).await;
            let session = sessions.until_ready(&name).await;
            points.stop_at(*point);
            sessions.api.delete(&name, &DeleteParams::default()).await.expect("a session can be deleted");
            points.until_reached(*point, &name).await;
            points.strike(*part, *point, session.id()).await;
            hit.insert(*point);
            sessions.until_gone(&session).await;
            until_nothing_is_left(&stand, session.id(), &name).await;
        }
    }
    assert_eq!(hit.len(), CLOSE.len());
    let of_the_loop: BTreeSet<_> = Point::OF_THE_LOOP.iter().copied().collect();
    let both: BTreeSet<_> = CREATE.iter().chain(CLOSE).map(|(point, _)| *point).collect();
    assert!(of_the_loop.is_subset(&both), "the backend's own tests leave those to this one");
    points.leave().await;
    sessions.delete_namespace().await;
}
