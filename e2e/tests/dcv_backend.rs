//! The `dcv` backend against the double of a DCV server: the shared contract, and everything that goes wrong. Needs root and
//! the account `ann`, and no cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::CreateError;
use dcv_operator::agent::backend::HostSession;
use dcv_operator::agent::backend::License;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::backend::contract;
use dcv_operator::agent::backend::contract::order;
use dcv_operator::agent::backend::dcv::DcvBackend;
use dcv_operator::agent::backend::dcv::DcvSettings;
use dcv_operator::api::session::SessionType;
use e2e::dcv_host::DcvHost;
use e2e::eventually;
use e2e::seconds;
use serde_json::json;

async fn host() -> DcvHost {
    DcvHost::start(Path::new(env!("CARGO_BIN_EXE_dcv-double"))).await
}

async fn open(settings: DcvSettings) -> DcvBackend {
    DcvBackend::open(settings).await.expect("the backend can be opened")
}

async fn list(backend: &DcvBackend) -> Vec<HostSession> {
    backend.list().await.expect("list answers")
}

async fn phase(backend: &DcvBackend, id: &str) -> Option<Phase> {
    list(backend).await.into_iter().find(|session| session.id == id).map(|session| session.phase)
}

fn console(id: &str) -> Order {
    Order { type_: SessionType::Console, ..order(id, "ann") }
}

async fn hold_contract(host: &DcvHost, settings: DcvSettings) {
    let backend = open(settings).await;
    let fixture = contract::Fixture {
        backend: &backend,
        owner: "ann".into(),
        refused_owner: "nobody-here".into(),
        init_file: None,
    };
    contract::holds(&fixture, async |id: &str| {
        host.server.order(&json!({"end": id}));
    })
    .await;
    assert_eq!(host.remains(), [""; 0]);
}

#[tokio::test]
async fn the_contract_holds() {
    let host = host().await;
    hold_contract(&host, host.settings()).await;
}

#[tokio::test]
async fn the_contract_holds_with_an_old_server_behind_chroot() {
    let host = host().await;
    host.server.order(&json!({"style": "old"}));
    let prefix = ["chroot", "/"].map(str::to_owned).to_vec();
    hold_contract(&host, DcvSettings { host_command_prefix: prefix, ..host.settings() }).await;
}

#[tokio::test]
async fn everything_that_is_ordered_reaches_the_server_and_nothing_is_left_of_it() {
    let host = host().await;
    let out = host.path("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
    host.program(
        "init/desk.sh",
        &format!("id -un >{0}/init.part; mv {0}/init.part {0}/init; exec sleep 1000", out.display()),
    );
    host.program(
        "autorun/app.sh",
        &format!("printf '%s|' \"$@\" \"$DISPLAY\" >{0}/app.part; mv {0}/app.part {0}/app", out.display()),
    );
    // The owner may pass through the folders and not read them.
    for folder in ["init", "autorun"] {
        fs::set_permissions(host.path(folder), fs::Permissions::from_mode(0o711)).unwrap();
    }
    let storage = format!("%home%/{}", e2e::unique("dcv-storage"));
    let permissions = "[permissions]\n%owner% allow builtin\nbob allow display\n";
    let backend = open(host.settings()).await;
    let full = Order {
        display_name: "CAD --json".into(),
        init_file: Some("desk.sh".into()),
        autorun_file: Some("app.sh".into()),
        autorun_file_arguments: vec!["a b".into(), "$x;'".into()],
        max_concurrent_clients: Some(3),
        dcv_gl_enabled: Some(false),
        permissions: Some(permissions.into()),
        storage_root: Some(storage.clone()),
        ..order("full", "ann")
    };
    backend.create(&full).await.expect("it is created");
    let words = host.server.last("create-session");
    let folder = storage.replace("%home%", "/home/ann");
    for word in [
        "--type=virtual",
        "--name=CAD --json",
        "--owner=ann",
        "--user=ann",
        "--gl=off",
        "--max-concurrent-clients=3",
        &format!("--storage-root={folder}"),
    ] {
        assert!(words.iter().any(|known| known == word), "{word} is not in {words:?}");
    }
    for (file, expected) in [("init", "ann\n"), ("app", "a b|$x;'|:1|")] {
        eventually("the program to have run", seconds(10), async || match fs::read_to_string(out.join(file)) {
            Ok(text) if text == expected => Ok(()),
            other => Err(format!("{file}: {other:?}")),
        })
        .await;
    }
    let made = fs::metadata(&folder).expect("the storage folder is there");
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&made),
        nix::unistd::User::from_name("ann").unwrap().unwrap().uid.as_raw()
    );
    fs::remove_dir(&folder).unwrap();
    assert_eq!(host.server.order(&json!({"permissions": "full"})), json!(permissions));
    let file = words.iter().find_map(|word| word.strip_prefix("--permissions-file=")).expect("it had a file");
    assert!(!Path::new(file).exists(), "the file of the permissions is gone");

    let changed = "[permissions]\nbob allow display\n";
    backend.set_permissions("full", Some(changed)).await.expect("permissions are changed");
    assert_eq!(host.server.order(&json!({"permissions": "full"})), json!(changed));
    backend.set_permissions("full", Some("[permissions]\nbob may all\n")).await.expect_err("they make no sense");
    backend.close("full").await.expect("it is closed");
    assert_eq!(host.remains(), [""; 0]);

    // The desktop that is started beside an autorun program is the server's own where none is named.
    let default = Order { autorun_file: Some("app.sh".into()), ..order("default", "ann") };
    fs::remove_file(out.join("app")).unwrap();
    backend.create(&default).await.expect("it is created");
    eventually("the program to have run", seconds(10), async || {
        fs::read_to_string(out.join("app")).map(drop).map_err(|error| error.to_string())
    })
    .await;
    backend.close("default").await.expect("it is closed");
}

#[tokio::test]
async fn a_server_runs_either_a_console_session_or_virtual_ones() {
    let host = host().await;
    let backend = open(host.settings()).await;
    let types = async || backend.describe().await.expect("describe answers").capacity.session_types;
    assert_eq!(types().await, [SessionType::Virtual, SessionType::Console]);
    backend.create(&console("screen")).await.expect("a console session is created");
    assert_eq!(host.server.last("create-session").iter().filter(|word| word.starts_with("--user")).count(), 0);
    assert_eq!(types().await, [SessionType::Console]);
    let refused = |result: Result<(), CreateError>, word: &str| match result {
        Err(CreateError::Refused(reason)) => assert!(reason.contains(word), "{reason}"),
        other => panic!("{other:?}"),
    };
    refused(backend.create(&order("v", "ann")).await, "either CONSOLE or VIRTUAL");
    refused(backend.create(&console("second")).await, "already runs a CONSOLE session");
    refused(backend.create(&Order { init_file: Some("x".into()), ..console("third") }).await, "takes no initFile");
    backend.close("screen").await.expect("it is closed");
    backend.create(&order("v", "ann")).await.expect("now a virtual one can be");
    refused(backend.create(&console("fourth")).await, "either CONSOLE or VIRTUAL");
    backend.close("v").await.expect("it is closed");
    assert_eq!(host.remains(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_run_here_is_refused_before_the_server_hears_of_it() {
    let host = host().await;
    host.program("outside.sh", "");
    let backend = open(host.settings()).await;
    for (order, word) in [
        (order("a", "root"), "uid 0"),
        (order("a", "-x"), "hyphen"),
        (order("a", "nobody-here"), "Specified user is not a local user: nobody-here"),
        (order("-a", "ann"), "no session id"),
        (Order { init_file: Some("../outside.sh".into()), ..order("a", "ann") }, "without .."),
        (Order { autorun_file: Some("none.sh".into()), ..order("a", "ann") }, "does not exist"),
        (Order { permissions: Some("[permissions]\nx".into()), ..order("a", "ann") }, "permissions"),
        (Order { storage_root: Some("files".into()), ..order("a", "ann") }, "storageRoot"),
    ] {
        match backend.create(&order).await {
            Err(CreateError::Refused(reason)) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{word}: {other:?}"),
        }
    }
    let unwritable = Order { storage_root: Some("/root/files".into()), ..order("a", "ann") };
    match backend.create(&unwritable).await {
        Err(CreateError::Failed(reason)) => assert!(reason.contains("storage folder could not be made"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(!host.server.history().iter().any(|words| words[0] == "create-session"));
    assert_eq!(host.remains(), [""; 0]);
}

#[tokio::test]
async fn a_session_counts_as_created_when_it_is_there_and_stays() {
    let host = host().await;
    let backend = open(host.settings()).await;
    for (milliseconds, word) in [(0, "did not appear"), (150, "ended right after it was created")] {
        host.server.order(&json!({"next": {"dies": milliseconds}}));
        match backend.create(&order("short", "ann")).await {
            Err(CreateError::Failed(reason)) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(host.remains(), [""; 0]);
    }
    let begin = Instant::now();
    host.server.order(&json!({"next": {"appears": 700, "shows": 1500}}));
    backend.create(&order("late", "ann")).await.expect("it comes late");
    assert!(begin.elapsed() >= Duration::from_millis(1500), "without a display nobody can use it");
    host.program("init/ends.sh", "exit 0");
    match backend.create(&Order { init_file: Some("ends.sh".into()), ..order("returns", "ann") }).await {
        Err(CreateError::Failed(reason)) => assert!(reason.contains("its init script"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.server.ids(), ["late"]);
}

#[tokio::test]
async fn the_servers_words_become_reasons_and_a_lack_of_licences_is_told() {
    let host = host().await;
    let backend = open(host.settings()).await;
    let described = async || backend.describe().await.expect("describe answers");
    assert_eq!(described().await.license, License::Unknown);
    assert_eq!(described().await.version, "2024.0.19030");
    host.server.fault("create-session", "fail", "Could not create session. Specified user is not a local user");
    let refused = CreateError::Refused("Specified user is not a local user: ann".into());
    assert_eq!(backend.create(&order("a", "ann")).await, Err(refused));
    host.server.fault("create-session", "fail", "Could not create session. no licenses");
    match backend.create(&order("a", "ann")).await {
        Err(CreateError::Failed(reason)) => assert!(reason.contains("no licence for another session"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let without = described().await;
    assert!(
        matches!(&without.license, License::Faulty(words) if words.contains("no licenses")),
        "{:?}",
        without.license
    );
    assert!(without.unhealthy.is_some_and(|reason| reason.contains("no licence for another session")));
    backend.create(&order("a", "ann")).await.expect("a licence came back");
    let with = described().await;
    assert_eq!((with.license, with.unhealthy), (License::Valid, None));
    let port = with.endpoints[0].port;
    assert!(fs::read_to_string(host.path("dcv.conf")).unwrap().contains(&format!("web-port={port}")));
}

#[tokio::test]
async fn cannot_tell_is_never_gone() {
    let mut host = host().await;
    let backend = open(host.settings()).await;
    backend.create(&order("a", "ann")).await.expect("it is created");
    for (what, text) in [("fail", "No DCV server found"), ("garbage", "Session: 'a' (owner:ann"), ("garbage", "{}")] {
        host.server.order(&json!({"fault": {"on": "list-sessions", "what": what, "text": text, "times": 3}}));
        let error = eventually("an error", seconds(10), async || match backend.list().await {
            Err(error) => Ok(error.to_string()),
            Ok(listed) => Err(format!("{listed:?}")),
        })
        .await;
        assert!(error.contains("list the sessions of the DCV server"), "{error}");
        eventually("the session again", seconds(10), async || match backend.list().await {
            Ok(listed) if listed.len() == 1 && listed[0].phase == Phase::Running => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    // A list that leaves it out is not believed as long as the server still describes it.
    for text in ["", "[]"] {
        host.server.order(&json!({"fault": {"on": "list-sessions", "what": "garbage", "text": text, "times": 5}}));
        eventually("to see through it", seconds(10), async || match backend.list().await {
            Err(error) if error.to_string().contains("yet describes it") => Ok(()),
            Ok(listed) if listed.iter().all(|session| session.phase == Phase::Running) => Err("not yet".into()),
            other => panic!("{other:?}"),
        })
        .await;
        eventually("the session again", seconds(10), async || match backend.list().await {
            Ok(listed) if listed[0].phase == Phase::Running => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    // Slow answers are late, and true.
    host.server.order(&json!({"fault": {"on": "list-sessions", "what": "delay", "milliseconds": 1500}}));
    assert_eq!(phase(&backend, "a").await, Some(Phase::Running));

    host.kill_server();
    eventually("that the server is away", seconds(10), async || match backend.list().await {
        Err(error) if error.to_string().contains("does not run") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let described = backend.describe().await.expect("the backend itself is well");
    assert!(described.unhealthy.is_some_and(|reason| reason.contains("Could not connect to the DCV server")));
    backend.close("a").await.expect_err("nobody knows");
    host.start_server().await;
    let again = async || backend.list().await.map_err(|error| error.to_string());
    let listed = eventually("the server again", seconds(10), again).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(matches!(&listed[0].phase, Phase::Ended(reason) if reason.contains("restarted")), "{listed:?}");
    backend.close("a").await.expect("what has ended can be closed");
    assert_eq!(host.remains(), [""; 0]);

    // Many at once, as when the server is restarted.
    let ids: Vec<String> = (0..20).map(|number| format!("many-{number}")).collect();
    let creates = ids.iter().map(|id| {
        let order = order(id, "ann");
        let backend = &backend;
        async move { backend.create(&order).await }
    });
    for created in futures::future::join_all(creates).await {
        created.expect("it is created");
    }
    host.kill_server();
    host.start_server().await;
    eventually("all to have ended", seconds(10), async || {
        let listed = again().await?;
        let ended = listed.iter().filter(|session| matches!(session.phase, Phase::Ended(_))).count();
        if (listed.len(), ended) == (20, 20) { Ok(()) } else { Err(format!("{listed:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_killed_at_any_step_of_a_create_is_followed_by_one_that_finishes_it_once() {
    let host = host().await;
    // What the server does to the command before the agent dies: nothing yet, nothing ever, all of it and nobody hears.
    for fault in [
        json!({"on": "create-session", "what": "delay", "milliseconds": 1000}),
        json!({"on": "create-session", "what": "hang"}),
        json!({"on": "create-session", "what": "lose"}),
    ] {
        let backend = open(host.settings()).await;
        host.server.order(&json!({"fault": fault}));
        let creates = || host.server.history().iter().filter(|words| words[0] == "create-session").count();
        let before = creates();
        let permitted =
            Order { permissions: Some("[permissions]\n%owner% allow builtin\n".into()), ..order("a", "ann") };
        {
            let create = backend.create(&permitted);
            tokio::pin!(create);
            let begin = Instant::now();
            while creates() == before {
                let poll = tokio::time::timeout(Duration::from_millis(20), &mut create).await;
                assert!(poll.is_err() && begin.elapsed() < seconds(10), "{poll:?}");
            }
        }
        drop(backend);
        let backend = open(host.settings()).await;
        assert_eq!(phase(&backend, "a").await, Some(Phase::Preparing), "{fault}");
        assert_eq!(list(&backend).await[0].marker.as_ref(), Some(&permitted.marker));
        backend.create(&permitted).await.expect("the next agent finishes it");
        assert_eq!(host.server.ids(), ["a"], "{fault}");
        assert_eq!(phase(&backend, "a").await, Some(Phase::Running));
        backend.close("a").await.expect("it is closed");
        assert_eq!(host.remains(), [""; 0], "{fault}");
    }
    // And one that is to be closed instead leaves nothing, even if the server is slow to hear of it.
    let backend = open(host.settings()).await;
    host.server.order(&json!({"fault": {"on": "create-session", "what": "delay", "milliseconds": 200}}));
    let cut = tokio::time::timeout(Duration::from_millis(100), backend.create(&order("b", "ann"))).await;
    cut.expect_err("it is cut off");
    backend.close("b").await.expect("it is closed");
    assert_eq!(host.remains(), [""; 0]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(host.server.ids(), [""; 0]);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_taken_for_a_failure() {
    let host = host().await;
    let backend = open(host.settings()).await;
    host.server.fault("create-session", "garbage", "so be it");
    backend.create(&order("a", "ann")).await.expect("what the command says does not matter");
    // A close that is refused is told; the session stays.
    host.server.order(&json!({"fault": {"on": "close-session", "what": "fail", "text": "busy", "times": 100}}));
    let closed = tokio::time::timeout(seconds(2), backend.close("a")).await;
    closed.expect_err("it goes on trying");
    assert_eq!(phase(&backend, "a").await, Some(Phase::Running));
    assert_eq!(host.remains(), ["a.json"]);
}

#[tokio::test]
async fn sessions_started_by_hand_are_told_of_and_left_alone() {
    let host = host().await;
    host.server.dcv(&["create-session", "--type", "virtual", "--owner", "ann", "--user", "ann", "by-hand"]);
    let backend = open(host.settings()).await;
    let listed = list(&backend).await;
    assert_eq!(listed.len(), 1);
    let session = &listed[0];
    assert_eq!((session.id.as_str(), session.owner.as_str(), &session.marker), ("by-hand", "ann", &None));
    assert_eq!((&session.phase, session.announced), (&Phase::Running, true));
    backend.announce("by-hand").await.expect("it is known as it is");
    backend.announce("nowhere").await.expect_err("there is no such session");
    match backend.create(&order("by-hand", "ann")).await {
        Err(CreateError::Refused(reason)) => assert!(reason.contains("another session of this id"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.server.ids(), ["by-hand"]);
    assert_eq!(host.remains(), [""; 0], "it gets no marker");
    host.server.dcv(&["close-session", "by-hand"]);
    eventually("it to be gone without a trace", seconds(10), async || {
        let listed = list(&backend).await;
        if listed.is_empty() { Ok(()) } else { Err(format!("{listed:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_with_its_last_session_does_not_hold_up_its_close() {
    let mut host = host().await;
    let backend = open(host.settings()).await;
    host.server.order(&json!({"stop_with_last": true}));
    backend.create(&order("a", "ann")).await.expect("it is created");
    tokio::time::timeout(seconds(20), backend.close("a")).await.expect("in time").expect("it is closed");
    host.await_end_of_server();
    assert_eq!(host.remains(), [""; 0]);
}

#[tokio::test]
async fn there_is_one_agent_for_each_server() {
    let host = host().await;
    let first = open(host.settings()).await;
    let second = tokio::spawn(DcvBackend::open(host.settings()));
    tokio::time::sleep(seconds(1)).await;
    assert!(!second.is_finished(), "it waits");
    drop(first);
    tokio::time::timeout(seconds(10), second).await.expect("in time").expect("no panic").expect("it opens");
}
