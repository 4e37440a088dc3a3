//! Slow and hostile clients on real connections, and those beside them that must not notice.

mod start;

use std::time::Duration;

use axum_server::accept::DefaultAcceptor;
use http::StatusCode;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::Rules;
use super::super::memory::Memory;
use super::super::memory::now;
use super::*;
use crate::api::ApiClient;
use crate::token;
use crate::token::AccessClaims;
use crate::token::Kind;
use crate::token::Password;

/// How soon a good client must be answered, whatever others do. Debug builds on busy machines are slow.
const SOON: Duration = Duration::from_secs(5);

/// A broker that is served without TLS, so that clients can do to it what no library does.
struct Served {
    address: SocketAddr,
    token: String,
    connections: Arc<Connections>,
    handle: Handle<SocketAddr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn client(password: &Password) -> ApiClient {
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
        "metadata": {"name": "red", "namespace": "red", "uid": "uid-red"},
        "spec": {"credentials": [{"hash": password.hash()}]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-11-21T10:00:00Z"}]},
    }))
    .unwrap()
}

fn serve(max_connections: usize) -> Served {
    let memory = Arc::new(Memory::new());
    let password = Password::generate();
    memory.put_client(client(&password));
    let claims = AccessClaims {
        sub: "uid-red".into(),
        client_id: "uid-red".into(),
        namespace: "red".into(),
        credential: password.hash(),
        iat: now().as_second(),
        exp: now().as_second() + 60,
        jti: "j".into(),
        aud: Kind::Access.audience().into(),
    };
    let keys = memory.cache.keys(Kind::Access).unwrap();
    let token = token::sign(&claims, keys.private.signer(now()).unwrap()).unwrap();
    let app = Arc::new(App::plain(memory, Rules::default(), now));
    let connections = Arc::new(Connections::new(max_connections));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Handle::new();
    let server: Server<SocketAddr, DefaultAcceptor> = axum_server::from_tcp(listener).unwrap().handle(handle.clone());
    tokio::spawn(bounded(server, &connections).serve(with_peer(router(app))));
    Served { address, token, connections, handle }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which `text` was sent.
    async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// The head of a POST with the good client's token.
    fn head(&self, path: &str, more: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {}\r\n{more}\r\n", self.token)
    }

    /// What a good client is answered, which must be soon.
    async fn describe(&self) {
        let text = self.head("/describeSessions", "Content-Length: 2\r\nConnection: close\r\n") + "{}";
        let answer = tokio::time::timeout(SOON, async { read_all(self.sent(&text).await).await });
        let answer = answer.await.expect("a good client is answered soon");
        assert_eq!(status(&answer), StatusCode::OK, "{answer}");
    }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A server that closes early resets the connection; what came before counts.
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> StatusCode {
    let word = answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}"));
    word.parse().unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test]
async fn more_connections_than_there_is_room_for_hold_up_nobody_whatever_they_wait_with() {
    let served = serve(20);
    let token_head = "POST /oauth2/token HTTP/1.1\r\nHost: b\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let openings = [
        String::new(),
        "POST /describeSessions HTTP/1.1\r\nHo".to_owned(),
        format!("{token_head}Content-Length: 1000\r\n\r\ngrant"),
        format!("{token_head}Transfer-Encoding: chunked\r\n\r\n5\r\ngrant\r\n"),
        served.head("/createSessions", "Content-Length: 1000\r\n") + "[",
        "GET /health HTTP/1.1\r\nHost: b\r\n\r\n".to_owned(),
        // What begins as HTTP/2 does, and goes no further.
        "PRI * HTTP/2.0\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    let mut hostile = Vec::new();
    for _ in 0..12 {
        for opening in &openings {
            hostile.push(served.sent(opening).await);
        }
        served.describe().await;
    }
    assert_eq!(hostile.len(), 96);
    // The first are closed by now, those that wait last are not.
    let mut byte = [0];
    let first = tokio::time::timeout(SOON, hostile[0].read(&mut byte)).await.expect("it is closed");
    assert!(matches!(first, Ok(0) | Err(_)), "{first:?}");
    let last = &hostile[hostile.len() - 2];
    assert!(last.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn a_head_that_does_not_end_is_waited_for_only_so_long() {
    let served = serve(20);
    let mut slow = served.sent("POST /describeSessions HTTP/1.1\r\n").await;
    let ended = async {
        // A byte now and then does not help.
        while slow.write_all(b"x: y\r\n").await.is_ok() && !read_is_over(&mut slow) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(HEADER_TIMEOUT + SOON, ended).await.expect("it is closed");
    served.describe().await;
}

fn read_is_over(stream: &mut TcpStream) -> bool {
    loop {
        match stream.try_read(&mut [0; 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test]
async fn heads_and_bodies_that_are_too_large_are_refused_before_they_are_kept() {
    let served = serve(20);
    let large = "x".repeat(HEAD_MAX_BYTES + 1);
    for head in [
        format!("GET /health HTTP/1.1\r\nHost: b\r\nX: {large}\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: b\r\n{}\r\n", "a: b\r\n".repeat(200)),
    ] {
        let answer = read_all(served.sent(&head).await).await;
        assert_eq!(status(&answer), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{answer}");
    }
    let target = read_all(served.sent(&format!("GET /{large} HTTP/1.1\r\nHost: b\r\n\r\n")).await).await;
    assert!(target.is_empty() || status(&target).is_client_error(), "{target}");

    // Sent for as long as it is read: far less than all of it.
    let flood = async |head: String| {
        let mut stream = served.sent(&head).await;
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 64 << 20, "all of it was taken");
    };
    flood(served.head("/createSessions", "Transfer-Encoding: chunked\r\n")).await;
    flood("POST /createSessions HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()).await;
    let announced = served.head("/createSessions", "Content-Length: 99999999\r\nConnection: close\r\n");
    let answer = read_all(served.sent(&(announced + "[")).await).await;
    assert_eq!(status(&answer), StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    let stranger = "POST /createSessions HTTP/1.1\r\nHost: b\r\nContent-Length: 99999999\r\nConnection: close\r\n\r\n[";
    assert_eq!(status(&read_all(served.sent(stranger).await).await), StatusCode::UNAUTHORIZED);
    served.describe().await;
}

#[tokio::test]
async fn a_flood_of_requests_whose_answers_nobody_reads_holds_up_nobody() {
    let served = serve(20);
    let mut floods = Vec::new();
    for _ in 0..5 {
        let mut stream = served.connect().await;
        floods.push(tokio::spawn(async move {
            let requests = "GET /health HTTP/1.1\r\nHost: b\r\n\r\n".repeat(1000);
            while stream.write_all(requests.as_bytes()).await.is_ok() {}
        }));
    }
    for _ in 0..20 {
        served.describe().await;
    }
    floods.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_connection_that_is_gone_leaves_no_trace() {
    let served = serve(20);
    for _ in 0..50 {
        drop(served.sent("GET /health HTTP/1.1\r\n").await);
    }
    let gone = async {
        while served.connections.count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("all are forgotten");
}
