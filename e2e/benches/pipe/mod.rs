//! Two ways to a desktop, and how many bytes a second come out of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use e2e::seconds;
use futures::SinkExt;
use futures::StreamExt;
use reqwest::Client;
use reqwest::StatusCode;
use reqwest::Upgraded;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

const VERSION: &[u8] = b"RFB 003.008\n";

/// How long screens are fetched for one figure.
const LENGTH: std::time::Duration = seconds(5);

/// Carries bytes between clients of the address it returns and the socket, for ever.
pub async fn plain(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut desktop = UnixStream::connect(&socket).await.expect("the desktop listens");
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut desktop).await.map(drop) });
        }
    });
    address
}

/// What carries the bytes.
enum Way {
    Proxy(Box<WebSocketStream<Upgraded>>),
    Plain(TcpStream),
}

/// A client of a desktop, which reads whole screens without any compression.
pub struct Desktop {
    way: Way,
    buffer: Vec<u8>,
    read: u64,
    size: (u16, u16),
}

impl Desktop {
    /// By the agent: TLS, a WebSocket, and the rights of the token.
    pub async fn by_proxy(origin: &str, id: &str, token: &str) -> Self {
        // The agent's certificate is its own; a browser's user is asked.
        let client = Client::builder().tls_danger_accept_invalid_certs(true).http1_only().build().expect("a client");
        let request = client
            .get(format!("{origin}/s/{id}/ws"))
            .header("cookie", format!("dcv-token={token}"))
            .header("origin", origin)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")
            .header("sec-websocket-protocol", "binary");
        let response = request.send().await.expect("the agent answers");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "ann may connect");
        let stream = response.upgrade().await.expect("it is a WebSocket");
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        Self::open(Way::Proxy(Box::new(socket))).await
    }

    /// By a pipe that knows nothing of what it carries.
    pub async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the pipe listens");
        stream.set_nodelay(true).expect("it is TCP");
        Self::open(Way::Plain(stream)).await
    }

    /// Source of all lengths here: RFC 6143.
    async fn open(way: Way) -> Self {
        let mut desktop = Self { way, buffer: Vec::new(), read: 0, size: (0, 0) };
        desktop.take(12).await;
        desktop.send(VERSION).await;
        let types = desktop.take(1).await[0];
        desktop.take(types.into()).await;
        desktop.send(&[1]).await;
        desktop.take(4).await;
        desktop.send(&[1]).await;
        let init = desktop.take(24).await;
        desktop.size = (u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]]));
        let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]);
        desktop.take(name as usize).await;
        // Only Raw.
        desktop.send(&[2, 0, 0, 1, 0, 0, 0, 0]).await;
        desktop
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.way {
            Way::Proxy(socket) => socket.send(Message::binary(bytes.to_vec())).await.expect("it is open"),
            Way::Plain(stream) => stream.write_all(bytes).await.expect("it is open"),
        }
    }

    /// The next `count` bytes.
    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.fill().await;
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Passes over the next `count` bytes.
    async fn skip(&mut self, mut count: usize) {
        loop {
            if self.buffer.len() > count {
                self.buffer.drain(..count);
                return;
            }
            count -= self.buffer.len();
            self.buffer.clear();
            if count == 0 {
                return;
            }
            self.fill().await;
        }
    }

    async fn fill(&mut self) {
        let before = self.buffer.len();
        match &mut self.way {
            Way::Proxy(socket) => match socket.next().await.expect("it is open").expect("it is open") {
                Message::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("the agent sent {other:?}"),
            },
            Way::Plain(stream) => {
                self.buffer.reserve(64 << 10);
                let count = stream.read_buf(&mut self.buffer).await.expect("it is open");
                assert!(count > 0, "the desktop closed");
            }
        }
        self.read += (self.buffer.len() - before) as u64;
    }

    /// Asks for the whole screen again and again.
    pub async fn bytes_per_second(mut self) -> f64 {
        let (width, height) = self.size;
        let (start, before) = (Instant::now(), self.read);
        while start.elapsed() < LENGTH {
            let mut request = vec![3, 0, 0, 0, 0, 0];
            request.extend(width.to_be_bytes());
            request.extend(height.to_be_bytes());
            self.send(&request).await;
            self.pass_update().await;
        }
        (self.read - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// Reads messages until one has been a screen.
    async fn pass_update(&mut self) {
        loop {
            match self.take(1).await[0] {
                0 => break,
                2 => {}
                3 => {
                    let head = self.take(7).await;
                    self.skip(u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize).await;
                }
                other => panic!("message {other} was not asked for"),
            }
        }
        let head = self.take(3).await;
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            let area = self.take(12).await;
            let side = |at: usize| usize::from(u16::from_be_bytes([area[at], area[at + 1]]));
            // 32 bits a pixel, as the desktop has them by itself.
            self.skip(side(4) * side(6) * 4).await;
        }
    }
}
