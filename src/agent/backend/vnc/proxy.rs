//! Carries RFB between a browser's WebSocket and a session's socket, within the rights of the person.
//!
//! The only way into a session. The table here is the truth about who is connected; rights and the end of a session act
//! on a connection at once, through its watch.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::ws::CloseFrame;
use axum::extract::ws::Message;
use axum::extract::ws::WebSocket;
use futures::SinkExt;
use futures::StreamExt;
use futures::stream::SplitSink;
use futures::stream::SplitStream;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;

use super::rfb;
use super::rfb::ClientFilter;
use super::rfb::Rights;
use super::rfb::ServerFilter;

/// Time for each side's part of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Between two pings of a client; two that go unanswered end the connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time one message may take to leave: a client that vanished fills its buffers first.
const SEND_LIMIT: Duration = Duration::from_mins(1);
/// Time for the goodbye.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to find out whether a desktop that closed a connection is gone.
const VERDICT_LIMIT: Duration = Duration::from_secs(4);
/// Bytes read from the desktop at once, hence the size of a WebSocket message.
const CHUNK_BYTES: usize = 64 << 10;

/// Why a connection ends, as its close code says. A page reconnects by itself after the codes below 4000 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client went.
    Left,
    /// The agent is going down; the session stays.
    Restart,
    /// The desktop's side broke or did what it should not.
    Desktop(&'static str),
    /// The client broke the protocol.
    Protocol(&'static str),
    /// Not, or no longer, permitted.
    NotPermitted,
    /// The session is over.
    SessionEnded,
    /// As many clients as may be are connected.
    TooManyClients,
}

impl End {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Left => (1000, ""),
            Self::Restart => (1012, "the server is restarting"),
            Self::Desktop(reason) => (1011, reason),
            Self::Protocol(reason) => (4400, reason),
            Self::NotPermitted => (4403, "you may not see this session"),
            Self::SessionEnded => (4410, "the session has ended"),
            Self::TooManyClients => (4429, "too many clients are connected"),
        };
        CloseFrame { code, reason: reason.into() }
    }
}

/// What a connection may do now, or that it is over.
pub(super) type Access = Result<Rights, End>;

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    /// Who it is.
    pub user: String,
    access: watch::Sender<Access>,
}

impl Connection {
    /// Changes what it may do, at once.
    pub fn set(&self, access: Access) {
        self.access.send_if_modified(|old| {
            // What is over stays over.
            let changes = old.is_ok() && *old != access;
            if changes {
                *old = access;
            }
            changes
        });
    }
}

/// Who is connected to a session. Check and insert happen under the one lock it is kept in.
#[derive(Debug, Default)]
pub(super) struct Table {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    closed: bool,
}

impl Table {
    /// Lets `user` in, with no rights yet, unless the session is over or full.
    pub fn admit(&mut self, user: &str, most: Option<i32>) -> Result<(u64, watch::Receiver<Access>), End> {
        if self.closed {
            return Err(End::SessionEnded);
        }
        if most.is_some_and(|most| self.count() >= most) {
            return Err(End::TooManyClients);
        }
        let id = self.next;
        self.next += 1;
        let (access, receiver) = watch::channel(Ok(Rights::default()));
        self.connections.insert(id, Connection { user: user.to_owned(), access });
        Ok((id, receiver))
    }

    /// Takes one out.
    pub fn leave(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Ends all, and lets nobody in any more.
    pub fn close(&mut self) {
        self.closed = true;
        for connection in self.connections.values() {
            connection.set(Err(End::SessionEnded));
        }
    }

    /// How many are connected.
    pub fn count(&self) -> i32 {
        i32::try_from(self.connections.len()).unwrap_or(i32::MAX)
    }

    /// The connection of this number.
    pub fn connection(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Everyone connected.
    pub fn users(&self) -> Vec<(u64, String)> {
        self.connections.iter().map(|(id, connection)| (*id, connection.user.clone())).collect()
    }
}

/// Bytes of RFB that one connection has carried.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    to_client: AtomicU64,
    to_desktop: AtomicU64,
}

impl Traffic {
    /// How many went to the client, and how many to the desktop.
    pub fn bytes(&self) -> (u64, u64) {
        (self.to_client.load(Ordering::Relaxed), self.to_desktop.load(Ordering::Relaxed))
    }
}

fn count_bytes(counter: &AtomicU64, bytes: &[u8]) {
    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
}

/// Accepts a connection only to say why it ends.
pub(super) async fn refuse(mut socket: WebSocket, end: End) {
    let goodbye = async {
        socket.send(Message::Close(Some(end.frame()))).await?;
        // Until the client has said goodbye too: a socket that is dropped early may lose what was said.
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
        Ok::<_, axum::Error>(())
    };
    let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
}

/// Carries one client's connection from the handshake to its end.
pub(super) async fn carry(
    socket: WebSocket,
    desktop: UnixStream,
    traffic: &Traffic,
    mut access: watch::Receiver<Access>,
    stop: impl Future<Output = ()>,
) {
    let (mut sink, stream) = socket.split();
    let mut client = Client { stream, buffer: Vec::new(), last_seen: Instant::now() };
    let end = tokio::select! {
        () = stop => End::Restart,
        end = ended(access.clone()) => end,
        end = exchange(&mut sink, &mut client, desktop, traffic, &mut access) => end,
    };
    let end = match end {
        // The desktop's socket closes a little before it is known that the session is over.
        End::Desktop(_) => tokio::time::timeout(VERDICT_LIMIT, ended(access)).await.unwrap_or(end),
        end => end,
    };
    let goodbye = async {
        if end != End::Left {
            sink.send(Message::Close(Some(end.frame()))).await?;
            while let Some(Ok(message)) = client.stream.next().await {
                if matches!(message, Message::Close(_)) {
                    break;
                }
            }
        }
        Ok::<_, axum::Error>(())
    };
    let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
}

/// Waits until the connection is no longer allowed.
async fn ended(mut access: watch::Receiver<Access>) -> End {
    match access.wait_for(Result::is_err).await.map(|access| *access) {
        Ok(Err(end)) => end,
        // The table dropped it: its session is gone.
        _ => End::SessionEnded,
    }
}

/// The client's side, as bytes.
struct Client {
    stream: SplitStream<WebSocket>,
    buffer: Vec<u8>,
    last_seen: Instant,
}

impl Client {
    /// The bytes of the next message that has some.
    async fn read(&mut self) -> Result<Bytes, End> {
        loop {
            match self.stream.next().await {
                None | Some(Err(_) | Ok(Message::Close(_))) => return Err(End::Left),
                Some(Ok(Message::Text(_))) => return Err(End::Protocol("text is not spoken here")),
                Some(Ok(Message::Binary(bytes))) => {
                    self.last_seen = Instant::now();
                    return Ok(bytes);
                }
                Some(Ok(_)) => self.last_seen = Instant::now(),
            }
        }
    }

    /// Exactly `count` bytes, for the handshake.
    async fn take(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < count {
            let more = self.read().await?;
            self.buffer.extend_from_slice(&more);
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }
}

type Sink = SplitSink<WebSocket, Message>;

async fn send(sink: &mut Sink, message: Message) -> Result<(), End> {
    match tokio::time::timeout(SEND_LIMIT, sink.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(End::Left),
    }
}

async fn exchange(
    sink: &mut Sink,
    client: &mut Client,
    mut desktop: UnixStream,
    traffic: &Traffic,
    access: &mut watch::Receiver<Access>,
) -> End {
    // The desktop first, so that what the client hears is what there is.
    let init = match tokio::time::timeout(HANDSHAKE_LIMIT, rfb::connect(&mut desktop)).await {
        Ok(Ok(init)) => init,
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the desktop did not greet a client");
            return End::Desktop("the desktop does not answer");
        }
        Err(_) => return End::Desktop("the desktop does not answer"),
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, greet(sink, client, init.message)).await {
        Ok(Ok(())) => {}
        Ok(Err(end)) => return end,
        Err(_) => return End::Protocol("the handshake took too long"),
    }
    let (reader, writer) = desktop.into_split();
    let last_seen = watch::Sender::new(client.last_seen);
    let down = to_client(reader, sink, traffic, access.clone(), last_seen.subscribe());
    let up = to_desktop(client, writer, traffic, access, &last_seen);
    tokio::select! {
        end = down => end,
        end = up => end,
    }
}

/// The server's half of the handshake.
async fn greet(sink: &mut Sink, client: &mut Client, init: Vec<u8>) -> Result<(), End> {
    send(sink, Message::Binary(Bytes::from_static(rfb::VERSION))).await?;
    if client.take(12).await? != rfb::VERSION {
        return Err(End::Protocol("only RFB 3.8 is spoken here"));
    }
    send(sink, Message::Binary(Bytes::from_static(&[1, rfb::SECURITY_NONE]))).await?;
    if client.take(1).await? != [rfb::SECURITY_NONE] {
        return Err(End::Protocol("unknown security type"));
    }
    send(sink, Message::Binary(Bytes::from_static(&[0; 4]))).await?;
    // The shared flag: sharing is not the client's choice.
    client.take(1).await?;
    send(sink, Message::Binary(init.into())).await
}

fn rights(access: &watch::Receiver<Access>) -> Rights {
    access.borrow().unwrap_or_default()
}

/// From the desktop to the client, until one of them ends.
async fn to_client(
    mut desktop: OwnedReadHalf,
    sink: &mut Sink,
    traffic: &Traffic,
    access: watch::Receiver<Access>,
    last_seen: watch::Receiver<Instant>,
) -> End {
    let mut filter = ServerFilter::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut ping = tokio::time::interval(PING_INTERVAL);
    loop {
        let message = tokio::select! {
            read = desktop.read(&mut buffer) => {
                let Ok(count @ 1..) = read else { return End::Desktop("the desktop closed the connection") };
                let mut out = Vec::with_capacity(count);
                if let Err(violation) = filter.push(&buffer[..count], rights(&access), &mut out) {
                    return End::Desktop(violation.0);
                }
                if out.is_empty() {
                    continue;
                }
                count_bytes(&traffic.to_client, &out);
                Message::Binary(out.into())
            }
            _ = ping.tick() => {
                if last_seen.borrow().elapsed() > 2 * PING_INTERVAL {
                    return End::Left;
                }
                Message::Ping(Bytes::new())
            }
        };
        if let Err(end) = send(sink, message).await {
            return end;
        }
    }
}

/// From the client to the desktop, until one of them ends. Keys and buttons that are down are let go when the right to
/// them is.
async fn to_desktop(
    client: &mut Client,
    mut desktop: OwnedWriteHalf,
    traffic: &Traffic,
    access: &mut watch::Receiver<Access>,
    last_seen: &watch::Sender<Instant>,
) -> End {
    let mut filter = ClientFilter::default();
    let mut out = Vec::new();
    let mut input = Bytes::from(std::mem::take(&mut client.buffer));
    loop {
        let now = rights(access);
        let outcome = filter.push(&input, now, &mut out);
        filter.release(now, &mut out);
        count_bytes(&traffic.to_desktop, &out);
        if !out.is_empty() && desktop.write_all(&out).await.is_err() {
            return End::Desktop("the desktop closed the connection");
        }
        out.clear();
        if let Err(violation) = outcome {
            return End::Protocol(violation.0);
        }
        input = tokio::select! {
            read = client.read() => match read {
                Ok(bytes) => bytes,
                Err(end) => return end,
            },
            _ = access.changed() => Bytes::new(),
        };
        last_seen.send_replace(client.last_seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_limits_and_closes() {
        let mut table = Table::default();
        let (first, access) = table.admit("ann", Some(1)).unwrap();
        assert_eq!(table.admit("bob", Some(1)).unwrap_err(), End::TooManyClients);
        let (second, _) = table.admit("bob", None).unwrap();
        assert_eq!((table.count(), table.users()), (2, vec![(first, "ann".into()), (second, "bob".into())]));
        table.leave(second);
        assert_eq!(table.count(), 1);
        table.close();
        assert_eq!(*access.borrow(), Err(End::SessionEnded));
        table.connection(first).unwrap().set(Ok(Rights::default()));
        assert_eq!(*access.borrow(), Err(End::SessionEnded), "what is over stays over");
        assert_eq!(table.admit("ann", None).unwrap_err(), End::SessionEnded);
    }

    #[test]
    fn close_codes_are_the_documented_ones() {
        let code = |end: End| end.frame().code;
        assert_eq!(
            [End::Protocol(""), End::NotPermitted, End::SessionEnded, End::TooManyClients, End::Restart].map(code),
            [4400, 4403, 4410, 4429, 1012]
        );
    }
}
