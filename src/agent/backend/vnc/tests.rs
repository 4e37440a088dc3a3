//! Tests of the backend without an X server: what it serves, against a desktop that is made up.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::HeaderName;
use axum::http::HeaderValue;
use axum::http::Request;
use axum::http::Response;
use axum::http::StatusCode;
use futures::SinkExt;
use futures::StreamExt;
use http_body_util::BodyExt;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower::ServiceExt;

mod door;

use super::process::ProcessId;
use super::session::read_boot_id;
use super::state::HostState;
use super::state::Stage;
use super::state::State;
use super::*;
use crate::agent::backend::Marker;
use crate::agent::backend::Phase;
use crate::api::DcvSession;
use crate::token;
use crate::token::AgentClaims;
use crate::token::ConnectionClaims;
use crate::token::KeySet;

pub(super) fn marker(owner: &str) -> Marker {
    Marker {
        cluster_uid: "c".into(),
        namespace: "default".into(),
        name: "a".into(),
        uid: "u".into(),
        attempt: 1,
        owner: owner.into(),
        boot_id: "b".into(),
    }
}

pub(super) fn order(id: &str, owner: &str) -> Order {
    Order {
        id: id.into(),
        marker: marker(owner),
        type_: SessionType::Virtual,
        display_name: "A session".into(),
        owner: owner.into(),
        init_file: None,
        autorun_file: None,
        autorun_file_arguments: Vec::new(),
        max_concurrent_clients: None,
        dcv_gl_enabled: None,
        permissions: None,
        storage_root: None,
        traceparent: None,
    }
}

pub(super) fn account(name: &str) -> account::Account {
    account::Account {
        name: name.into(),
        uid: 4_000_001,
        gid: 4_000_001,
        groups: vec![27],
        home: format!("/home/{name}").into(),
        shell: "/bin/bash".into(),
    }
}

pub(super) fn state(id: &str, owner: &str) -> State {
    State {
        instance: format!("instance-of-{id}"),
        boot_id: read_boot_id(),
        creation_time: jiff::Timestamp::UNIX_EPOCH,
        order: order(id, owner),
        account: account(owner),
        launch: state::Launch {
            x_server: "/usr/bin/Xtigervnc".into(),
            geometry: "800x600".into(),
            desktop: vec!["xterm".into()],
            autorun: None,
            storage_root: None,
        },
        cookie: "00".repeat(16),
        connections: 0,
        last_disconnection_time: None,
        announced: false,
    }
}

/// A cluster with the sessions `one` and `two` of ann.
struct Cluster {
    keys: KeySet,
    is_whole: AtomicBool,
}

impl Cluster {
    fn new(keys: KeySet) -> Self {
        Self { keys, is_whole: AtomicBool::new(true) }
    }
}

const NOW: i64 = 1_800_000_000;
const SERVER_UID: &str = "server-uid";

impl View for Cluster {
    fn keys(&self) -> Arc<JwkSet> {
        Arc::new(self.keys.public())
    }

    fn agent_keys(&self) -> Arc<JwkSet> {
        self.keys()
    }

    fn session(&self, id: &str) -> Option<Arc<DcvSession>> {
        let session = json!({
            "apiVersion": "dcv-operator.io/v1alpha1",
            "kind": "DcvSession",
            "metadata": {"name": id, "uid": id},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
            "status": {"state": "READY", "attempt": 1, "conditions": [{
                "type": "Created", "status": "True", "reason": "Created", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        ["one", "two"].contains(&id).then(|| Arc::new(serde_json::from_value(session).unwrap()))
    }

    fn server_uid(&self) -> String {
        SERVER_UID.into()
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }
}

/// A backend that serves on a port, with the session `one` behind which a desktop is made up.
struct Served {
    _folder: tempfile::TempDir,
    cluster: Arc<Cluster>,
    backend: VncBackend,
    session: Arc<Session>,
    address: SocketAddr,
    desktops: UnixListener,
}

async fn serve(change: impl FnOnce(&mut State)) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::new(KeySet::generate(Timestamp::from_second(NOW).unwrap())));
    let mut settings = VncSettings::new("test", "/absent");
    settings.state_folder = folder.path().to_owned();
    // Nobody has an account or a group.
    settings.host_command_prefix = vec!["sh".into(), "-c".into(), "exit 2".into()];
    let backend = VncBackend::open(settings, cluster.clone()).await.unwrap();
    let mut state = state("one", "ann");
    state.account.uid = nix::unistd::geteuid().as_raw();
    change(&mut state);
    let files = Folder(backend.inner.folder.join("one"));
    files.create(&state).unwrap();
    fs::create_dir(files.owned()).unwrap();
    let desktops = UnixListener::bind(files.rfb()).unwrap();
    let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    let session = Arc::new(Session::new(files, state));
    session.life.send_replace(Life::Running(HostState {
        instance: "instance-of-one".into(),
        host: own,
        x_server: Some(own),
        programs: Vec::new(),
        display: Some(1),
        stage: Stage::Ready,
    }));
    backend.inner.sessions().insert("one".into(), session.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = backend.routes();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Served { _folder: folder, cluster, backend, session, address, desktops }
}

const INIT: [u8; 28] =
    [3, 32, 2, 88, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4, b'd', b'e', b's', b'k'];

type Socket = WebSocketStream<TcpStream>;

impl Served {
    fn token(&self, session: &str, user: &str) -> String {
        self.sign(&claims(session, user))
    }

    fn sign<C: token::Claims>(&self, claims: &C) -> String {
        token::sign(claims, self.cluster.keys.signer(self.cluster.now()).unwrap()).unwrap()
    }

    async fn request(&self, path: &str, headers: &[(&str, &str)]) -> Response<String> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.backend.routes().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8_lossy(&body).into_owned())
    }

    /// Opens the WebSocket of a session with a token in the cookie.
    async fn upgrade(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, StatusCode> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("binary"));
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, HeaderValue::try_from(*value).unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(response.status()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn visit(&self, user: &str) -> Socket {
        let cookie = format!("dcv-token={}", self.token("one", user));
        self.upgrade("/s/one/ws", &[("cookie", &cookie)]).await.unwrap()
    }

    /// The made-up desktop takes its next client and does the handshake.
    async fn accept(&self) -> UnixStream {
        let (mut stream, _) = self.desktops.accept().await.unwrap();
        stream.write_all(rfb::VERSION).await.unwrap();
        expect(&mut stream, rfb::VERSION).await;
        stream.write_all(&[1, 1]).await.unwrap();
        expect(&mut stream, &[1]).await;
        stream.write_all(&[0; 4]).await.unwrap();
        expect(&mut stream, &[1]).await;
        stream.write_all(&INIT).await.unwrap();
        stream
    }

    /// A client that has got through the handshake, with the desktop's end.
    async fn connected(&self, user: &str) -> (Socket, UnixStream) {
        let mut socket = self.visit(user).await;
        let desktop = self.accept().await;
        hear(&mut socket, rfb::VERSION).await;
        // In two pieces: where messages are cut is the client's business.
        say(&mut socket, &rfb::VERSION[..5]).await;
        say(&mut socket, &rfb::VERSION[5..]).await;
        hear(&mut socket, &[1, 1]).await;
        say(&mut socket, &[1]).await;
        hear(&mut socket, &[0; 4]).await;
        say(&mut socket, &[0]).await;
        hear(&mut socket, &INIT).await;
        (socket, desktop)
    }

    async fn until_connected(&self, count: i32) {
        while self.backend.list().await.unwrap()[0].num_of_connections != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn claims(session: &str, user: &str) -> ConnectionClaims {
    ConnectionClaims {
        session_id: session.into(),
        session_owner: "ann".into(),
        session_user: user.into(),
        server_uid: SERVER_UID.into(),
        attempt: 1,
        client_uid: None,
        iat: NOW - 10,
        exp: NOW + 60,
        jti: "j".into(),
        aud: token::Kind::Connection.audience().into(),
    }
}

async fn expect(stream: &mut UnixStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

async fn say(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).await.unwrap();
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("a message");
        match message.expect("not closed").unwrap() {
            Message::Ping(_) => {}
            other => return other,
        }
    }
}

async fn hear(socket: &mut Socket, bytes: &[u8]) {
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        match next(socket).await {
            Message::Binary(more) => got.extend_from_slice(&more),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, bytes);
}

async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match next(socket).await {
            Message::Close(frame) => return frame.unwrap().code.into(),
            Message::Binary(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 0x61];
const KEY_RELEASE: [u8; 8] = [4, 0, 0, 0, 0, 0, 0, 0x61];
const CLICK: [u8; 6] = [5, 1, 0, 9, 0, 9];
const REFRESH: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 9, 0, 9];
const COPIED: [u8; 11] = [3, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'];

#[tokio::test]
async fn rights_that_change_act_on_a_connection_at_once() {
    let served = serve(|state| state.order.permissions = Some("[permissions]\nbob allow display".into())).await;
    let (mut socket, mut desktop) = served.connected("bob").await;
    say(&mut socket, &[&KEY[..], &CLICK, &REFRESH].concat()).await;
    expect(&mut desktop, &REFRESH).await;
    desktop.write_all(&[&COPIED[..], &[2]].concat()).await.unwrap();
    hear(&mut socket, &[2]).await;

    served.backend.set_permissions("one", Some("[permissions]\nbob allow builtin")).await.unwrap();
    say(&mut socket, &KEY).await;
    expect(&mut desktop, &KEY).await;
    desktop.write_all(&COPIED).await.unwrap();
    hear(&mut socket, &COPIED).await;

    served.backend.set_permissions("one", Some("[permissions]\nbob allow display mouse")).await.unwrap();
    expect(&mut desktop, &KEY_RELEASE).await;
    say(&mut socket, &[&KEY[..], &CLICK].concat()).await;
    expect(&mut desktop, &CLICK).await;

    let error = served.backend.set_permissions("one", Some("[permissions]\nbob may display")).await.unwrap_err();
    assert!(error.message.starts_with("line 2"), "{}", error.message);
    served.backend.set_permissions("one", None).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4403);
    served.until_connected(0).await;
    assert_eq!(close_code(&mut served.visit("bob").await).await, 4403, "a new one hears why");
    let kept: State = served.session.folder.read_state().unwrap();
    assert_eq!(kept.order.permissions, None);
}

#[tokio::test]
async fn clients_are_counted_limited_and_their_end_is_kept() {
    let served = serve(|state| state.order.max_concurrent_clients = Some(1)).await;
    let mut changes = served.backend.changes();
    let (first, _desktop) = served.connected("ann").await;
    changes.changed().await.unwrap();
    served.until_connected(1).await;
    assert_eq!(served.session.folder.read_state().unwrap().connections, 1);
    assert_eq!(close_code(&mut served.visit("ann").await).await, 4429);
    assert_eq!(served.backend.list().await.unwrap()[0].num_of_connections, 1, "who was refused was no client");
    drop(first);
    served.until_connected(0).await;
    let kept = served.session.folder.read_state().unwrap();
    assert_eq!((kept.connections, kept.last_disconnection_time), (0, Some(served.cluster.now())));
    served.connected("ann").await;
}

#[tokio::test]
async fn the_end_of_a_connection_says_why() {
    let served = serve(|_| ()).await;
    let (mut socket, _desktop) = served.connected("ann").await;
    say(&mut socket, &[99]).await;
    assert_eq!(close_code(&mut socket).await, 4400);
    let (mut socket, _desktop) = served.connected("ann").await;
    socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 4400);
    let (mut socket, _desktop) = served.connected("ann").await;
    served.session.table().close();
    assert_eq!(close_code(&mut socket).await, 4410);
    assert_eq!(close_code(&mut served.visit("ann").await).await, 4410);
    let token = served.token("two", "ann");
    let mut other = served.upgrade(&format!("/s/two/ws?authToken={token}"), &[]).await.unwrap();
    assert_eq!(close_code(&mut other).await, 4410, "known to the cluster only");
}

#[tokio::test]
async fn a_restart_tells_clients_to_come_back() {
    let served = serve(|_| ()).await;
    let (mut socket, _desktop) = served.connected("ann").await;
    drop(served.backend);
    assert_eq!(close_code(&mut socket).await, 1012);
    assert!(!served.session.is_ended());
}

#[tokio::test]
async fn nothing_is_sent_to_a_socket_that_is_not_the_x_servers() {
    let served = serve(|_| ()).await;
    let Life::Running(mut host) = served.session.life.borrow().clone() else { unreachable!() };
    // The listener is ours; the X server would be somebody else.
    host.x_server = ProcessId::of(nix::unistd::getppid().as_raw());
    served.session.life.send_replace(Life::Running(host));
    let mut socket = served.visit("ann").await;
    let (mut stream, _) = served.desktops.accept().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, [0_u8; 0]);
    assert_eq!(close_code(&mut socket).await, 1011);
}

#[tokio::test]
async fn a_client_that_only_greets_in_another_version_is_refused() {
    let served = serve(|_| ()).await;
    let mut socket = served.visit("ann").await;
    let _desktop = served.accept().await;
    say(&mut socket, b"RFB 003.003\n").await;
    assert_eq!(close_code(&mut socket).await, 4400);
}

#[tokio::test]
async fn an_order_this_backend_cannot_serve_is_refused_before_anything_is_made() {
    let served = serve(|_| ()).await;
    let create = async |change: fn(&mut Order)| {
        let mut order = order("three", "ann");
        change(&mut order);
        match served.backend.create(&order).await {
            Err(CreateError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(create(|_| ()).await, "Specified user is not a local user: ann");
    assert_eq!(create(|order| order.type_ = SessionType::Console).await, "the vnc backend runs no CONSOLE sessions");
    assert!(create(|order| order.dcv_gl_enabled = Some(true)).await.contains("OpenGL"));
    assert_eq!(create(|order| order.id = "../x".into()).await, "\"../x\" is no session id");
    assert!(create(|order| order.owner = "-x".into()).await.contains("starts with a hyphen"));
    assert!(create(|order| order.permissions = Some("x".into())).await.starts_with("permissions: line 1"));
    assert_eq!(fs::read_dir(&served.backend.inner.folder).unwrap().count(), 1, "only the session that was there");
}

#[tokio::test]
async fn what_an_agent_before_left_is_adopted_ended_or_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::new(KeySet::default()));
    let mut settings = VncSettings::new("test", "/absent");
    settings.state_folder = folder.path().to_owned();
    let sessions = state::server_folder(&settings.state_folder, "test");
    make_folder(&sessions).unwrap();
    let keep = |state: &State| Folder(sessions.join(&state.order.id)).create(state).unwrap();
    let mut with_clients = state("clients", "ann");
    with_clients.connections = 2;
    keep(&with_clients);
    let dead = ProcessId { pid: 1, start_time: u64::MAX };
    let host = HostState { host: dead, ..HostState::unknown("instance-of-clients") };
    state::write_json(&Folder(sessions.join("clients")).host(), &host).unwrap();
    // An agent that was killed before it could start the session host.
    keep(&state("begun", "ann"));
    let mut of_another_boot = state("boot", "ann");
    of_another_boot.boot_id = "another".into();
    keep(&of_another_boot);
    fs::create_dir(sessions.join(".new-x")).unwrap();
    fs::create_dir_all(sessions.join(".gone-x/s")).unwrap();
    fs::create_dir(sessions.join("strange")).unwrap();
    fs::create_dir(sessions.parent().unwrap().join("other-server")).unwrap();

    let backend = VncBackend::open(settings, cluster.clone()).await.unwrap();
    let listed = backend.list().await.unwrap();
    let phases: Vec<_> = listed.iter().map(|session| (session.id.as_str(), session.phase.clone())).collect();
    assert_eq!(
        phases,
        [
            ("boot", Phase::Ended("the host was restarted".into())),
            ("clients", Phase::Ended("the session host was killed".into())),
        ]
    );
    assert_eq!(listed[1].last_disconnection_time, Some(cluster.now()), "they went with the agent");
    for id in ["boot", "clients"] {
        backend.close(id).await.unwrap();
    }
    assert_eq!(backend.list().await.unwrap(), []);
    let mut left: Vec<_> = fs::read_dir(&sessions).unwrap().flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["strange"]);
    assert!(sessions.parent().unwrap().join("other-server").exists());
}
