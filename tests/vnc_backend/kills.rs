//! `kill -9` of the agent, the session host and the X server, at every step of a session: nothing is left over, nothing is
//! there twice, and the list says what happened.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::chown;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::fault::Point;
use futures::StreamExt;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::agents::Agent;
use crate::host::ANN;
use crate::host::HostProcess;
use crate::host::TestHost;
use crate::host::WHOLE;
use crate::host::find;
use crate::host::order;
use crate::host::parent_of;
use crate::host::until;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Agent,
    SessionHost,
    XServer,
}

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// A session is created.
    Create,
    /// People are going to know of it.
    Announce,
    /// Another agent comes.
    Adopt,
    /// It is closed.
    Close,
    /// It ends by itself, as its X server died.
    XServerDied,
    /// It ends as its session host died.
    HostDied,
}

const AGENT: &[Part] = &[Part::Agent];
const NO_DESKTOP: &[Part] = &[Part::Agent, Part::SessionHost];
const ALL: &[Part] = &[Part::Agent, Part::SessionHost, Part::XServer];

/// Every step, and what there is to kill at it.
const STEPS: &[(Scene, Point, &[Part])] = &[
    (Scene::Create, Point::OrderChecked, AGENT),
    (Scene::Create, Point::FolderBegun, AGENT),
    (Scene::Create, Point::FolderUnnamed, AGENT),
    (Scene::Create, Point::FolderMade, AGENT),
    (Scene::Create, Point::HostSpawned, NO_DESKTOP),
    (Scene::Create, Point::HostBegun, NO_DESKTOP),
    (Scene::Create, Point::HostLocked, NO_DESKTOP),
    (Scene::Create, Point::HostListening, NO_DESKTOP),
    (Scene::Create, Point::HostFollowed, NO_DESKTOP),
    (Scene::Create, Point::HostRecorded, NO_DESKTOP),
    (Scene::Create, Point::OwnedMade, NO_DESKTOP),
    (Scene::Create, Point::XServerSpawned, ALL),
    (Scene::Create, Point::ProgramBegun, ALL),
    (Scene::Create, Point::DisplayTold, ALL),
    (Scene::Create, Point::StorageBegun, ALL),
    (Scene::Create, Point::DesktopSpawned, ALL),
    (Scene::Create, Point::ProgramsSpawned, ALL),
    (Scene::Create, Point::DesktopUp, ALL),
    (Scene::Create, Point::DesktopTold, ALL),
    (Scene::Create, Point::UpHeard, ALL),
    (Scene::Create, Point::Created, ALL),
    (Scene::Announce, Point::AnnounceBegun, ALL),
    (Scene::Announce, Point::FileUnnamed, ALL),
    (Scene::Adopt, Point::SessionFound, ALL),
    (Scene::Close, Point::CloseBegun, ALL),
    // The session host may have ended everything already.
    (Scene::Close, Point::HostTold, AGENT),
    (Scene::Close, Point::EndBegun, ALL),
    (Scene::Close, Point::AllEnded, NO_DESKTOP),
    (Scene::Close, Point::EndRecorded, NO_DESKTOP),
    (Scene::Close, Point::LockTaken, AGENT),
    (Scene::Close, Point::LeftoversEnded, AGENT),
    (Scene::Close, Point::FolderLeaving, AGENT),
    (Scene::Close, Point::FolderGone, AGENT),
    (Scene::XServerDied, Point::EndBegun, NO_DESKTOP),
    (Scene::XServerDied, Point::AllEnded, NO_DESKTOP),
    (Scene::XServerDied, Point::EndRecorded, NO_DESKTOP),
    (Scene::HostDied, Point::SettleBegun, &[Part::Agent, Part::XServer]),
    (Scene::HostDied, Point::SettleRecorded, AGENT),
];

/// Cases that run side by side: they mostly wait.
const SIDE_BY_SIDE: usize = 3;

#[tokio::test]
async fn a_kill_of_any_part_at_any_step_leaves_nothing_over_and_nothing_twice() {
    let planned = STEPS.iter().flat_map(|(scene, point, parts)| parts.iter().map(|part| (*scene, *point, *part)));
    let count = planned.clone().count();
    // Each case panics unless its point was reached and its part was there to be killed.
    let hit: Vec<Point> = futures::stream::iter(planned)
        .map(|(scene, point, part)| async move {
            survive(scene, point, part).await;
            point
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    assert_eq!(hit.len(), count);
    let hit: BTreeSet<Point> = hit.into_iter().collect();
    let missed: Vec<_> = Point::ALL.iter().filter(|point| !hit.contains(point)).collect();
    assert_eq!(missed, Point::OF_THE_LOOP.iter().collect::<Vec<_>>(), "points of the backend that nothing came by");
    println!("{count} kills at {} points", hit.len());
}

const ID: &str = "one";

/// A host with a desktop that has everything, and the order for it.
fn prepare() -> (TestHost, Order) {
    let host = TestHost::new();
    host.program("init/desk.sh", "exec xterm");
    host.program("autorun/also.sh", "exec sleep 4243");
    let store = host.folder.path().join("store");
    fs::create_dir(&store).unwrap();
    chown(&store, Some(ANN), Some(ANN)).unwrap();
    let mut order = order(ID, "ann", Some("desk.sh"));
    order.autorun_file = Some("also.sh".into());
    order.storage_root = Some(store.join("files").display().to_string());
    (host, order)
}

fn x_servers(host: &TestHost) -> Vec<HostProcess> {
    eldest(host.processes_with("Xtigervnc"))
}

fn session_hosts(host: &TestHost) -> Vec<HostProcess> {
    eldest(host.processes_with("session-host --folder"))
}

/// Those that no other of them has forked: what was just forked looks like its parent.
fn eldest(mut found: Vec<HostProcess>) -> Vec<HostProcess> {
    let pids: Vec<i32> = found.iter().map(|one| one.pid).collect();
    found.retain(|one| !parent_of(one.pid).is_some_and(|parent| pids.contains(&parent)));
    found
}

/// Kills `part` while somebody stands at `point` of `scene`, and sees what comes of it.
async fn survive(scene: Scene, point: Point, part: Part) {
    let case = format!("{scene:?}, {point:?}, {part:?} killed");
    let (host, order) = prepare();
    let agent = reach(&host, &order, scene, point, &case).await;
    let agent = strike(&host, agent, part, &case).await;
    if host.is_reached(point) {
        host.let_go(point);
    }
    let mut agent = match agent {
        // Nobody else is there to answer.
        None => Agent::start(&host).await.opened().await,
        Some(agent) => see(agent, scene, part, &case).await,
    };
    if part == Part::Agent && matches!(scene, Scene::Create | Scene::Announce | Scene::Adopt) {
        // The session goes on, or begins anew.
        assert_eq!(agent.create(&order).await, Ok(()), "{case}");
        assert_eq!(agent.announce(ID).await, Ok(()), "{case}");
        let listed = agent.list().await;
        assert!(matches!(&listed[..], [one] if one.is_running && one.is_announced), "{case}: {listed:?}");
        assert_eq!((x_servers(&host).len(), session_hosts(&host).len()), (1, 1), "{case}");
    } else if scene != Scene::Close {
        until(&case, async || agent.list().await.iter().all(|session| session.ended.is_some())).await;
        for session in agent.list().await {
            let reason = session.ended.unwrap();
            let is_told = ["the session host", "the X server", "cut off"].iter().any(|words| reason.contains(words));
            assert!(is_told, "{case}: {reason:?}");
        }
        assert_eq!(host.processes(), [], "{case}, over");
    }
    assert_eq!(agent.close(ID).await, Ok(()), "{case}");
    assert_eq!(agent.list().await, [], "{case}");
    host.assert_empty(&case);
    agent.kill().await;
}

/// Plays `scene` until somebody stands at `point`.
async fn reach(host: &TestHost, order: &Order, scene: Scene, point: Point, case: &str) -> Agent {
    let mut agent = Agent::start(host).await.opened().await;
    if scene != Scene::Create {
        assert_eq!(agent.create(order).await, Ok(()), "{case}");
    }
    host.stop_at(point);
    match scene {
        Scene::Create => agent.ask_create(order).await,
        Scene::Announce => agent.ask_announce(ID).await,
        Scene::Close => agent.ask_close(ID).await,
        Scene::XServerDied => x_servers(host)[0].kill(),
        Scene::HostDied => session_hosts(host)[0].kill(),
        Scene::Adopt => {
            agent.kill().await;
            agent = Agent::start(host).await;
        }
    }
    until(format!("{case}: somebody comes by"), async || host.is_reached(point)).await;
    agent
}

/// Kills `part`, which must be there once. The agent, if it lives.
async fn strike(host: &TestHost, agent: Agent, part: Part, case: &str) -> Option<Agent> {
    let look = match part {
        Part::Agent => {
            agent.kill().await;
            return None;
        }
        Part::SessionHost => session_hosts,
        Part::XServer => x_servers,
    };
    // One that is just becoming another program has no command for a moment.
    let mut found = Vec::new();
    until(format!("{case}: it is there once"), async || {
        found = look(host);
        found.len() == 1
    })
    .await;
    let found = found.remove(0);
    found.kill();
    until(format!("{case}: it is dead"), async || !found.is_alive()).await;
    Some(agent)
}

/// What the agent that lives says of what it was about.
async fn see(mut agent: Agent, scene: Scene, part: Part, case: &str) -> Agent {
    match scene {
        Scene::Create => match agent.outcome().await {
            // Killed when it was up already.
            Ok(()) => {}
            Err(reason) => {
                let word = if part == Part::XServer { "the X server ended" } else { "session host" };
                assert!(reason.contains(word) || reason.contains("cut off"), "{case}: {reason}");
                assert_eq!(agent.list().await, [], "{case}: {reason}");
            }
        },
        // Whether it was noted does not matter: it is over.
        Scene::Announce => drop(agent.outcome().await),
        Scene::Close => assert_eq!(agent.outcome().await, Ok(()), "{case}"),
        Scene::Adopt => agent = agent.opened().await,
        Scene::XServerDied | Scene::HostDied => {}
    }
    agent
}

#[tokio::test]
async fn a_session_host_that_had_not_begun_when_the_next_agent_came_never_does() {
    let (host, order) = prepare();
    let mut agent = Agent::start(&host).await.opened().await;
    host.stop_at(Point::HostBegun);
    agent.ask_create(&order).await;
    until("it has begun", async || host.is_reached(Point::HostBegun)).await;
    agent.kill().await;
    // It has no lock yet, so for the next agent the session has no host: what carries the session's mark is ended, and a
    // session that never began is forgotten, to be created anew.
    let mut agent = Agent::start(&host).await.opened().await;
    assert_eq!(agent.list().await, []);
    host.assert_empty("forgotten");
    host.let_go(Point::HostBegun);
    assert_eq!(agent.create(&order).await, Ok(()), "it is created anew");
    assert_eq!(agent.close(ID).await, Ok(()));
    host.assert_empty("closed");
}

#[tokio::test]
async fn what_is_killed_ends_the_session_with_everything_of_it() {
    let host = TestHost::new();
    // One that ignores TERM, one that has left its parent and its session, one whose environment is clean.
    host.program(
        "init/stubborn.sh",
        "(trap '' TERM; while :; do sleep 1; done) &\nsetsid sh -c 'sleep 4242 & exit' &\nexec icewm-session",
    );
    let backend = host.open().await;
    for (which, reason) in [("host", "the session host was killed"), ("xServer", "the X server ended by SIGKILL")] {
        backend.create(&order("one", "ann", Some("stubborn.sh"))).await.unwrap();
        let mut changes = backend.changes();
        changes.mark_unchanged();
        kill(Pid::from_raw(host.pid("one", which)), Signal::SIGKILL).unwrap();
        until("its end is noticed", async || matches!(find(&backend, "one").await.unwrap().phase, Phase::Ended(_)))
            .await;
        assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Ended(reason.into()));
        assert!(changes.has_changed().unwrap());
        assert_eq!(host.processes(), [], "killed: {which}");
        assert!(backend.screenshot("one", WHOLE).await.is_err());
        backend.close("one").await.unwrap();
        assert!(!host.session("one").exists());
    }
    backend.create(&order("one", "ann", Some("stubborn.sh"))).await.unwrap();
    backend.close("one").await.unwrap();
    assert_eq!(host.processes(), [], "closed");
}

#[tokio::test]
async fn a_session_host_of_a_session_that_was_given_up_does_not_begin() {
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    kill(Pid::from_raw(host.pid("one", "host")), Signal::SIGKILL).unwrap();
    until("its end is noticed", async || matches!(find(&backend, "one").await.unwrap().phase, Phase::Ended(_))).await;
    // As one that was held up somewhere until its session was over.
    let instance = host.json("one", "state.json")["instance"].as_str().unwrap().to_owned();
    let late = std::process::Command::new(env!("CARGO_BIN_EXE_dcv-operator"))
        .args(["session-host", "--folder", host.session("one").to_str().unwrap(), "--instance", &instance])
        .output()
        .unwrap();
    assert!(!late.status.success());
    let complaint = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(complaint.contains("is no longer this one"), "{complaint}");
    assert_eq!(host.processes(), []);
    backend.close("one").await.unwrap();
}
