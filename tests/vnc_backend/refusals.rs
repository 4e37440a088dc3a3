//! What cannot be created, and what is said of it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::backend::owner_pattern;

use crate::host::TestHost;
use crate::host::failed;
use crate::host::find;
use crate::host::order;
use crate::host::refused;
use crate::host::until;

#[tokio::test]
async fn failures_carry_the_hosts_words_and_leave_nothing() {
    let mut host = TestHost::new();
    host.program("init/fails.sh", "echo 'no licence for the desktop' >&2; exit 7");
    host.program("init/nonsense.sh", "");
    fs::write(host.settings.init_folder.join("nonsense.sh"), "#!/does/not/exist\n").unwrap();
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", Some("fails.sh"))).await);
    assert_eq!(reason, "the desktop ended with exit code 7: no licence for the desktop");
    let reason = failed(backend.create(&order("one", "ann", Some("nonsense.sh"))).await);
    assert!(reason.contains("No such file or directory"), "{reason}");
    let mut unwritable = order("one", "ann", Some("plain.sh"));
    unwritable.storage_root = Some("/root/of/ann".into());
    let reason = failed(backend.create(&unwritable).await);
    assert!(
        reason.contains("the storage folder could not be made") && reason.contains("Permission denied"),
        "{reason}"
    );
    drop(backend);

    host.program("broken-x", "echo 'Fatal server error: no fonts' >&2; exit 1");
    host.settings.x_server = host.folder.path().join("broken-x");
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", None)).await);
    assert_eq!(reason, "the X server ended with exit code 1: Fatal server error: no fonts");
    drop(backend);

    host.program("mute-x", "exec sleep 1000");
    host.settings.x_server = host.folder.path().join("mute-x");
    host.settings.create_timeout = Duration::from_secs(1);
    let backend = host.open().await;
    let reason = failed(backend.create(&order("one", "ann", None)).await);
    assert_eq!(reason, "the desktop was not up after 1 s");
    assert_eq!(backend.list().await.unwrap(), []);
    assert_eq!(host.processes(), []);
}

#[tokio::test]
async fn owners_files_and_limits_are_checked_first() {
    let mut host = TestHost::new();
    host.settings.max_virtual_sessions = 2;
    host.settings.max_concurrent_sessions_per_user = 1;
    host.settings.owner_pattern = Some(owner_pattern("ann|bob|root|daemon|nobody-here").unwrap());
    let backend = host.open().await;
    let mut cases = vec![
        (order("x", "nobody-here", None), "Specified user is not a local user: nobody-here"),
        (order("x", "carl", None), "the owner carl is not among the accounts that may have sessions on this host"),
        (order("x", "root", None), "the owner root has the uid 0; sessions on this host are for uid 1000 and above"),
        (
            order("x", "daemon", None),
            "the owner daemon has the uid 1; sessions on this host are for uid 1000 and above",
        ),
        (order("x", "ann", Some("absent.sh")), "initFile \"absent.sh\" does not exist on this host"),
    ];
    let mut autorun = order("x", "ann", None);
    autorun.autorun_file = Some("../x".into());
    cases.push((autorun, "autorunFile \"../x\" must be a relative path without .."));
    for (order, expected) in cases {
        assert_eq!(refused(backend.create(&order).await), expected);
    }
    backend.create(&order("a", "ann", Some("plain.sh"))).await.unwrap();
    let second = backend.create(&order("a2", "ann", Some("plain.sh"))).await;
    assert_eq!(refused(second), "ann has 1 sessions on this host, as many as one may");
    backend.create(&order("b", "bob", Some("plain.sh"))).await.unwrap();
    let third = backend.create(&order("a3", "ann", Some("plain.sh"))).await;
    assert_eq!(refused(third), "the host runs 2 sessions, as many as it may");
    backend.close("a").await.unwrap();
    backend.create(&order("a2", "ann", Some("plain.sh"))).await.unwrap();
    for id in ["a2", "b"] {
        backend.close(id).await.unwrap();
    }
}

/// An X server as far as the session host sees one: it has a display and a socket, and greets nobody.
const MUTE_DESKTOP: &str = r#"exec /usr/bin/python3 -c '
import os, socket, sys, time
argument = lambda name: sys.argv[sys.argv.index(name) + 1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(argument("-rfbunixpath"))
listener.listen(16)
os.write(int(argument("-displayfd")), b"4711\n")
time.sleep(1000)
' "$@""#;

#[tokio::test]
async fn a_desktop_that_greets_nobody_is_never_ready() {
    let mut host = TestHost::new();
    host.program("mute-desktop", MUTE_DESKTOP);
    host.settings.x_server = host.folder.path().join("mute-desktop");
    host.settings.create_timeout = Duration::from_secs(4);
    let backend = Arc::new(host.open().await);
    let create = tokio::spawn({
        let (backend, order) = (backend.clone(), order("one", "ann", Some("plain.sh")));
        async move { backend.create(&order).await }
    });
    // Its programs run, and so the session host takes it to be up.
    until("the session host is content", async || {
        fs::read_to_string(host.session("one").join("host.json")).is_ok_and(|text| text.contains("\"ready\""))
    })
    .await;
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Preparing);
    let reason = failed(create.await.unwrap());
    assert_eq!(reason, "the desktop was not up after 4 s: the desktop has not greeted yet");
    host.assert_empty("failed");
}
