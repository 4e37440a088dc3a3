//! Owners and other local accounts are not trusted: what they can reach, and what the agent does with what is theirs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::Phase;

use crate::host::ANN;
use crate::host::BOB;
use crate::host::TestHost;
use crate::host::WHOLE;
use crate::host::check_accounts;
use crate::host::find;
use crate::host::order;
use crate::host::run_as;
use crate::host::screen;

/// Inodes of a process's sockets.
fn sockets_of(pid: i32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)).collect()
}

#[tokio::test]
async fn nobody_but_the_owner_opens_the_display_or_reaches_the_files() {
    check_accounts();
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", None)).await.unwrap();
    let folder = host.session("one");
    let xauth = folder.join("s/xauth");
    let environment = |xauth: &Path| {
        vec![("DISPLAY", format!(":{}", host.display("one"))), ("XAUTHORITY", xauth.display().to_string())]
    };
    let open = ["xterm", "-e", "true"];
    assert!(run_as(ANN, &environment(&xauth), &open), "the owner does");
    assert!(!run_as(ANN, &environment(Path::new("/dev/null")), &open), "not without the cookie");
    assert!(!run_as(BOB, &environment(&xauth), &open));
    for (uid, path, expected) in [
        (ANN, "s/rfb.sock", true),
        (ANN, "state.json", false),
        (ANN, "host.json", false),
        (ANN, "control", false),
        (BOB, "s", false),
        (BOB, "s/xauth", false),
        (BOB, "state.json", false),
    ] {
        let path = folder.join(path);
        assert_eq!(run_as(uid, &[], &["test", "-r", path.to_str().unwrap()]), expected, "{uid} {}", path.display());
    }
    let processes = host.processes();
    assert!(processes.len() >= 4, "session host, X server, window manager, terminal: {processes:?}");
    let inodes: BTreeSet<String> = processes.iter().flat_map(|process| sockets_of(process.pid)).collect();
    assert!(!inodes.is_empty());
    for table in ["/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap();
        let inode = |line: &str| line.split_ascii_whitespace().nth(9).map(str::to_owned);
        assert!(!text.lines().filter_map(inode).any(|inode| inodes.contains(&inode)), "a port in {table}");
    }
    backend.close("one").await.unwrap();
}

#[tokio::test]
async fn a_socket_that_the_owner_has_replaced_gets_nothing() {
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    let target = host.folder.path().join("for-root-only.sock");
    let listener = std::os::unix::net::UnixListener::bind(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    let socket = host.session("one").join("s/rfb.sock");
    let script = format!("rm {0} && ln -s {1} {0}", socket.display(), target.display());
    assert!(run_as(ANN, &[], &["sh", "-c", &script]));
    let error = backend.screenshot("one", WHOLE).await.unwrap_err();
    assert!(error.message.contains("is not that of the session's X server"), "{}", error.message);
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut got).unwrap();
    assert_eq!(got, [0_u8; 0]);
    assert_eq!(find(&backend, "one").await.unwrap().phase, Phase::Running, "the desktop itself goes on");
    backend.close("one").await.unwrap();
    assert!(target.exists(), "links are not followed");
    assert_eq!(host.processes(), []);
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out() {
    let host = TestHost::new();
    let backend = host.open().await;
    backend.create(&order("one", "ann", Some("plain.sh"))).await.unwrap();
    let mut open = Vec::new();
    for number in 0..12 {
        let mut stream = std::os::unix::net::UnixStream::connect(host.session("one").join("s/rfb.sock")).unwrap();
        std::io::Read::read_exact(&mut stream, &mut [0; 12]).unwrap();
        if number % 2 == 0 {
            open.push(stream);
        }
    }
    assert_eq!(screen(&backend, "one").await.dimensions(), (640, 480));
    backend.close("one").await.unwrap();
}
