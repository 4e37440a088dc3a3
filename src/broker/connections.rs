//! How many connections a port has, and which one goes when there are too many.
//!
//! A connection either waits for its client (to shake hands, to send a request, to send all of it, to read the answer) or
//! is being worked for. Waiting costs a client nothing, so a hostile one can have many connections wait: when there is no
//! room for a new one, the one that has waited longest is closed. So new clients always get in, and no request is lost
//! that was read whole. One that has waited very long is closed in any case: its client may be gone without a word.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum_server::accept::Accept;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::Service;

/// How long a connection may wait for its client: longer than balancers keep theirs between two requests.
const WAIT_MAX: Duration = Duration::from_mins(2);

/// How often that is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The connections of one port.
pub struct Connections {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    slots: HashMap<u64, Arc<Slot>>,
    last: u64,
}

/// A connection.
struct Slot {
    number: u64,
    state: Mutex<State>,
    end: CancellationToken,
}

struct State {
    /// Requests that were read whole and are not answered.
    working: usize,
    waiting_since: Instant,
}

impl Connections {
    /// Room for `max` connections.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lock().slots.len()
    }

    /// Room for one more, if need be that of the one that has waited longest. None when all are being worked for.
    fn enter(self: &Arc<Self>) -> Option<Entered> {
        let mut open = self.lock();
        if open.slots.len() >= self.max {
            let waiting = open.slots.values().filter_map(|slot| Some((slot.waiting_since()?, Arc::clone(slot))));
            let (_, longest) = waiting.min_by_key(|(since, _)| *since)?;
            open.close(&longest);
        }
        open.last += 1;
        let slot = Arc::new(Slot {
            number: open.last,
            state: Mutex::new(State { working: 0, waiting_since: Instant::now() }),
            end: CancellationToken::new(),
        });
        open.slots.insert(slot.number, Arc::clone(&slot));
        Some(Entered { connections: Arc::clone(self), slot })
    }

    /// Closes what has waited too long. Does not end.
    pub async fn follow(&self) {
        self.follow_every(SWEEP_INTERVAL, WAIT_MAX).await;
    }

    async fn follow_every(&self, interval: Duration, wait_max: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let now = Instant::now();
            let mut open = self.lock();
            let is_late = |slot: &&Arc<Slot>| slot.waiting_since().is_some_and(|since| since + wait_max < now);
            let late: Vec<_> = open.slots.values().filter(is_late).cloned().collect();
            for slot in late {
                open.close(&slot);
            }
        }
    }
}

impl Open {
    fn close(&mut self, slot: &Slot) {
        self.slots.remove(&slot.number);
        slot.end.cancel();
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it has waited, if it does.
    fn waiting_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.working == 0).then_some(state.waiting_since)
    }
}

/// The room of one connection, until it is dropped.
struct Entered {
    connections: Arc<Connections>,
    slot: Arc<Slot>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.lock().slots.remove(&self.slot.number);
    }
}

/// Lets connections in before `inner` does anything with them.
#[derive(Clone)]
pub struct Entrance<A> {
    inner: A,
    connections: Arc<Connections>,
}

impl<A> Entrance<A> {
    /// Lets `inner` have as many connections as there is room for.
    pub fn new(inner: A, connections: Arc<Connections>) -> Self {
        Self { inner, connections }
    }
}

impl<A, S> Accept<TcpStream, S> for Entrance<A>
where
    A: Accept<Stream, Counted<S>>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = BoxFuture<'static, io::Result<(A::Stream, A::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Some(entered) = self.connections.enter() else {
            return async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed();
        };
        // Else the end of a long answer waits until the client acknowledges what came before: 40 ms with most.
        if let Err(error) = stream.set_nodelay(true) {
            return async { Err(error) }.boxed();
        }
        let service = Counted { inner: service, slot: Arc::clone(&entered.slot) };
        let ended = Box::pin(entered.slot.end.clone().cancelled_owned());
        self.inner.accept(Stream { inner: stream, ended, entered }, service).boxed()
    }
}

/// A connection's bytes, until it is closed by us.
pub struct Stream {
    inner: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    entered: Entered,
}

impl Stream {
    /// Fails once the connection is closed, and wakes whoever waits for its bytes when it is.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.entered.slot.end.is_cancelled() || self.ended.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A service that says when its connection is being worked for.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    slot: Arc<Slot>,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    B: Body,
    S: Service<Request<Received<B>>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let work = Arc::new(Work { slot: Arc::clone(&self.slot), has_begun: AtomicBool::new(false) });
        let body_work = Arc::clone(&work);
        let answering = self.inner.call(request.map(|body| Received::new(body, body_work)));
        async move {
            let answer = answering.await;
            drop(work);
            answer
        }
        .boxed()
    }
}

/// The work for one request; over when it is dropped.
struct Work {
    slot: Arc<Slot>,
    has_begun: AtomicBool,
}

impl Work {
    fn begin(&self) {
        if !self.has_begun.swap(true, Ordering::Relaxed) {
            self.slot.state().working += 1;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.slot.state();
        state.working -= usize::from(*self.has_begun.get_mut());
        state.waiting_since = Instant::now();
    }
}

/// The body of a request, whose end is the beginning of the work for it.
pub struct Received<B> {
    inner: Pin<Box<B>>,
    work: Arc<Work>,
}

impl<B: Body> Received<B> {
    fn new(inner: B, work: Arc<Work>) -> Self {
        if inner.is_end_stream() {
            work.begin();
        }
        Self { inner: Box::pin(inner), work }
    }
}

impl<B: Body<Data = Bytes>> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = self.inner.as_mut().poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.work.begin();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Duration {
        Duration::from_millis(1)
    }

    fn work(entered: &Entered) -> Work {
        let work = Work { slot: Arc::clone(&entered.slot), has_begun: AtomicBool::new(false) };
        work.begin();
        work
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_makes_room_and_none_that_is_worked_for() {
        let connections = Arc::new(Connections::new(3));
        let mut entered = Vec::new();
        for _ in 0..3 {
            entered.push(connections.enter().unwrap());
            tokio::time::sleep(later()).await;
        }
        let ended =
            |entered: &[Entered]| -> Vec<_> { entered.iter().map(|entered| entered.slot.end.is_cancelled()).collect() };
        let first = work(&entered[0]);
        entered.push(connections.enter().unwrap());
        assert_eq!(ended(&entered), [false, true, false, false]);
        let (third, fourth) = (work(&entered[2]), work(&entered[3]));
        assert!(connections.enter().is_none(), "every one is being worked for");
        drop(third);
        tokio::time::sleep(later()).await;
        drop(first);
        entered.push(connections.enter().unwrap());
        assert_eq!(ended(&entered), [false, true, true, false, false], "it waits since its answer");
        drop(fourth);
        drop(entered);
        assert!(connections.lock().slots.is_empty());
    }

    #[tokio::test]
    async fn what_waits_too_long_is_closed_and_long_work_is_not() {
        let connections = Arc::new(Connections::new(9));
        let (idle, busy) = (connections.enter().unwrap(), connections.enter().unwrap());
        let _work = work(&busy);
        let interval = Duration::from_millis(5);
        let ended = async {
            tokio::select! {
                () = connections.follow_every(interval, interval) => {}
                () = idle.slot.end.cancelled() => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it is closed");
        assert!(!busy.slot.end.is_cancelled());
    }
}
