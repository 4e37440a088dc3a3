//! Creating, listing, picturing, adopting and closing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::ImageFormat;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::backend::ScreenshotRequest;
use dcv_operator::agent::backend::contract;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::host::ANN;
use crate::host::TestHost;
use crate::host::find;
use crate::host::order;
use crate::host::refused;
use crate::host::screen;
use crate::host::until;

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_backend_promises() {
    let host = TestHost::new();
    let backend = host.open().await;
    let fixture = contract::Fixture {
        backend: &backend,
        owner: "ann".into(),
        refused_owner: "root".into(),
        init_file: Some("plain.sh".into()),
    };
    let end = async |id: &str| kill(Pid::from_raw(host.pid(id, "xServer")), Signal::SIGKILL).unwrap();
    contract::holds(&fixture, end).await;
}

#[tokio::test]
async fn a_desktop_is_created_listed_pictured_and_closed() {
    let host = TestHost::new();
    let backend = host.open().await;
    let description = backend.describe().await.unwrap();
    assert!(description.version.starts_with("TigerVNC 1."), "{}", description.version);
    assert_eq!(description.unhealthy, None);
    let start = Instant::now();
    backend.create(&order("one", "ann", None)).await.unwrap();
    println!("create to ready: {:?}", start.elapsed());
    let listed = find(&backend, "one").await.unwrap();
    assert_eq!((listed.phase, listed.owner.as_str()), (Phase::Running, "ann"));
    assert_eq!(listed.marker, Some(order("one", "ann", None).marker));
    assert_eq!(screen(&backend, "one").await.dimensions(), (640, 480));
    let small = ScreenshotRequest { max_width: 100, max_height: 100, format: ImageFormat::Jpeg };
    let small = image::load_from_memory(&backend.screenshot("one", small).await.unwrap()).unwrap();
    assert_eq!((small.width(), small.height()), (100, 75));
    let host_pid = host.pid("one", "host");
    let mut again = order("one", "ann", None);
    again.marker.attempt = 2;
    backend.create(&again).await.unwrap();
    assert_eq!(host.pid("one", "host"), host_pid, "the same one");
    assert_eq!(find(&backend, "one").await.unwrap().marker, Some(again.marker));
    assert!(refused(backend.create(&order("one", "bob", None)).await).contains("another owner"));
    let start = Instant::now();
    backend.close("one").await.unwrap();
    println!("close: {:?}", start.elapsed());
    backend.close("one").await.unwrap();
    assert_eq!(backend.list().await.unwrap(), []);
    assert_eq!(host.processes(), []);
    assert!(!host.session("one").exists());
}

#[tokio::test]
async fn twenty_sessions_at_once_have_twenty_displays_and_each_picture_is_of_its_own() {
    let host = TestHost::new();
    let backend = Arc::new(host.open().await);
    let ids: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
    // Which session a picture is of is told by its colour.
    let colour = |number: usize| [20 + 10 * u8::try_from(number).unwrap(), 200, 100];
    let mut creates = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let [red, green, blue] = colour(number);
        let script = format!("exec xterm -bg '#{red:02x}{green:02x}{blue:02x}' -geometry 200x100+0+0");
        host.program(&format!("init/{id}.sh"), &script);
        let (backend, order) = (backend.clone(), order(id, "ann", Some(&format!("{id}.sh"))));
        creates.push(tokio::spawn(async move { backend.create(&order).await }));
    }
    for create in creates {
        create.await.unwrap().unwrap();
    }
    let displays: BTreeSet<u64> = ids.iter().map(|id| host.display(id)).collect();
    assert_eq!(displays.len(), 20);
    for (number, id) in ids.iter().enumerate() {
        until("its own colour", async || screen(&backend, id).await.get_pixel(400, 400).0 == colour(number)).await;
    }
    for id in &ids {
        backend.close(id).await.unwrap();
    }
    assert_eq!(host.processes(), []);
}

#[tokio::test]
async fn a_session_ends_with_its_desktop_and_a_new_one_takes_its_place() {
    let host = TestHost::new();
    host.program("init/brief.sh", "sleep 0.3; xterm -e true; exit 3");
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("brief.sh"))).await.unwrap();
    let reason = "the desktop ended with exit code 3";
    until(reason, async || find(&backend, "one").await.unwrap().phase == Phase::Ended(reason.into())).await;
    assert_eq!(host.processes(), []);
    drop(backend);
    let backend = host.open().await;
    let phase = find(&backend, "one").await.unwrap().phase;
    assert_eq!(phase, Phase::Ended(reason.into()), "still told after a restart");
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running);
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_cleans_up_what_does_not() {
    let host = TestHost::new();
    let backend = host.open().await;
    for id in ["lives", "dies"] {
        backend.create(&order(id, "ann", None)).await.unwrap();
    }
    let pid = host.pid("lives", "xServer");
    drop(backend);
    kill(Pid::from_raw(host.pid("dies", "host")), Signal::SIGKILL).unwrap();
    let start = Instant::now();
    let backend = host.open().await;
    println!("adoption: {:?}", start.elapsed());
    assert_eq!(find(&backend, "lives").await.unwrap().phase, Phase::Running);
    assert_eq!(find(&backend, "dies").await.unwrap().phase, Phase::Ended("the session host was killed".into()));
    assert_eq!(host.pid("lives", "xServer"), pid);
    screen(&backend, "lives").await;
    backend.close("dies").await.unwrap();
    assert_eq!(host.processes_with("/dies/"), []);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("its end is noticed", async || find(&backend, "lives").await.unwrap().phase != Phase::Running).await;
    backend.close("lives").await.unwrap();
    assert_eq!(host.processes(), []);
}

#[tokio::test]
async fn a_create_whose_caller_goes_away_is_finished_all_the_same() {
    let host = TestHost::new();
    let backend = host.open().await;
    let order = order("one", "ann", None);
    let hurried = tokio::time::timeout(Duration::from_millis(20), backend.create(&order)).await;
    assert!(hurried.is_err());
    until("it runs", async || find(&backend, "one").await.is_some_and(|session| session.phase == Phase::Running)).await;
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn programs_run_as_the_owner_in_a_clean_environment() {
    let host = TestHost::new();
    let report = "{ id; pwd; umask; env; printf '%s\\n' \"$@\"; ls -l /proc/self/fd; } >\"$HOME/vnc-test-report.new\"\n\
        mv \"$HOME/vnc-test-report.new\" \"$HOME/vnc-test-report\"";
    host.program("autorun/report.sh", report);
    let backend = host.open().await;
    let mut order = order("one", "ann", Some("plain.sh"));
    order.autorun_file = Some("report.sh".into());
    order.autorun_file_arguments = vec!["a b".into(), "$HOME;`id`".into()];
    order.storage_root = Some("%home%/vnc-test-storage/deep".into());
    let (report, storage) = (Path::new("/home/ann/vnc-test-report"), Path::new("/home/ann/vnc-test-storage"));
    let clean = || {
        let _ = fs::remove_file(report);
        let _ = fs::remove_dir_all(storage);
    };
    clean();
    backend.create(&order).await.unwrap();
    until("the report", async || report.exists()).await;
    let text = fs::read_to_string(report).unwrap();
    for line in [
        "uid=1001(ann) gid=1001(ann) groups=1001(ann)",
        "/home/ann",
        "0022",
        "USER=ann",
        "LOGNAME=ann",
        "LANG=C.UTF-8",
        "DCV_SESSION_ID=one",
        "a b",
        "$HOME;`id`",
        &format!("DISPLAY=:{}", host.display("one")),
        &format!("XAUTHORITY={}/s/xauth", host.session("one").display()),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("CARGO"), "nothing of the agent's environment\n{text}");
    assert_eq!(text.matches("pipe:").count(), 1, "no other pipe than its errors'\n{text}");
    assert_eq!(text.matches("socket:").count(), 0, "{text}");
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(&storage.join("deep")), ANN);
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running, "the end of the autorun program is no end");
    backend.close("one").await.unwrap();
    clean();
}
