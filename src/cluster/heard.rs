//! A layer of the client: counts calls, and hears whether watches are alive.
//!
//! A watch of which nothing is heard for longer than the API server's bookmarks take is ended, so that it is begun anew where
//! it was: a connection that died without a word would otherwise be waited on until the watch's own end, minutes later. That
//! is no failure. An API server whose etcd seldom tells of progress sends no bookmark either while no object of the kind
//! changes, and if the connection is dead, the new watch fails and says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use http::Response;
use http::Uri;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Sleep;
use tower::BoxError;
use tower::Layer;
use tower::Service;

use crate::telemetry::metrics;
use crate::telemetry::watches;
use crate::telemetry::watches::Watch;

/// Puts [`Heard`] around a client's service.
#[derive(Clone)]
pub struct HeardLayer {
    host: Arc<str>,
    cut_after: Duration,
}

impl HeardLayer {
    /// For calls of the API server at `url`.
    pub fn new(url: &Uri) -> Self {
        Self { host: url.authority().map_or("", |authority| authority.as_str()).into(), cut_after: watches::CUT_AFTER }
    }
}

impl<S> Layer<S> for HeardLayer {
    type Service = Heard<S>;

    fn layer(&self, inner: S) -> Heard<S> {
        Heard { inner, host: Arc::clone(&self.host), cut_after: self.cut_after }
    }
}

/// A service whose calls are counted, and whose watches are listened to.
#[derive(Clone)]
pub struct Heard<S> {
    inner: S,
    host: Arc<str>,
    cut_after: Duration,
}

impl<S, R, B> Service<Request<R>> for Heard<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<HeardBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let method = metrics::method_label(request.method());
        let watch = followed(request.uri());
        let (host, cut_after) = (Arc::clone(&self.host), self.cut_after);
        let begun = Instant::now();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            metrics::called(method, &host, code, begun.elapsed());
            let answer = answer?;
            let watch = watch.filter(|_| answer.status().is_success());
            Ok(answer.map(|body| HeardBody::new(body, watch, cut_after)))
        }
        .boxed()
    }
}

/// The followed watch that a call begins, if it does.
fn followed(uri: &Uri) -> Option<Arc<Watch>> {
    let query = uri.query()?;
    if !query.split('&').any(|part| part == "watch=true" || part == "watch=1") {
        return None;
    }
    let fields = query.split('&').find_map(|part| part.strip_prefix("fieldSelector="));
    watches::find(uri.path(), fields.map(decoded).as_deref())
}

/// A value of a query as it was before it was encoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.get(..2).and_then(|digits| hex::decode(digits).ok()).filter(|_| *first == b'%');
        if let Some(escaped) = escaped {
            bytes.extend(escaped);
            rest = &after[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A body that is listened to while it comes.
pub struct HeardBody {
    inner: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
    watch: Option<Listening>,
}

struct Listening {
    watch: Arc<Watch>,
    cut_after: Duration,
    cut: Pin<Box<Sleep>>,
}

impl HeardBody {
    fn new<B>(inner: B, watch: Option<Arc<Watch>>, cut_after: Duration) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = Box::pin(http_body_util::BodyExt::map_err(inner, Into::into));
        let watch = watch.map(|watch| {
            watch.hear();
            Listening { watch, cut_after, cut: Box::pin(tokio::time::sleep(cut_after)) }
        });
        Self { inner, watch }
    }
}

impl Body for HeardBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.inner.as_mut().poll_frame(context);
        let Some(listening) = &mut self.watch else { return frame };
        match &frame {
            Poll::Ready(Some(Ok(_))) => {
                listening.watch.hear();
                let next = tokio::time::Instant::now() + listening.cut_after;
                listening.cut.as_mut().reset(next);
                frame
            }
            Poll::Ready(_) => frame,
            Poll::Pending => {
                let cut = listening.cut.as_mut().poll(context);
                cut.map(|()| {
                    let resource = listening.watch.resource();
                    tracing::debug!(resource, "Nothing was heard of a watch, beginning it anew");
                    None
                })
            }
        }
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
    use std::convert::Infallible;
    use std::sync::Mutex;

    use futures::StreamExt;
    use futures::future::ready;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use http_body_util::StreamBody;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;
    use kube::Client;
    use kube::runtime::watcher;
    use serde_json::json;
    use tokio::sync::mpsc;
    use tower::ServiceExt;

    use super::*;
    use crate::cluster::Cache;
    use crate::telemetry::health;

    /// What a watch is told.
    type Words = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

    /// An API server whose watches say what is sent, and that can fall silent with all its connections open.
    #[derive(Clone, Default)]
    struct Server {
        silent: Arc<Mutex<bool>>,
        watches: Arc<Mutex<Vec<Words>>>,
    }

    impl Server {
        fn client(&self) -> Client {
            let this = self.clone();
            let service = tower::service_fn(move |request: Request<kube::client::Body>| {
                let this = this.clone();
                async move {
                    if *this.silent.lock().unwrap() {
                        std::future::pending::<()>().await;
                    }
                    let (sender, receiver) = mpsc::unbounded_channel();
                    if request.uri().query().unwrap_or_default().contains("watch=true") {
                        this.watches.lock().unwrap().push(sender);
                    } else {
                        let list = json!({
                            "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": [],
                        });
                        let _ = sender.send(Ok(Frame::data(list.to_string().into())));
                    }
                    let frames = futures::stream::unfold(receiver, async |mut receiver| {
                        receiver.recv().await.map(|frame| (frame, receiver))
                    });
                    Ok::<_, BoxError>(Response::new(StreamBody::new(Box::pin(frames))))
                }
            });
            let url = Uri::from_static("https://silent.example:6443");
            let layer = HeardLayer { cut_after: CUT_AFTER, ..HeardLayer::new(&url) };
            let limited = tower::timeout::TimeoutLayer::new(CUT_AFTER).layer(service);
            Client::new(layer.layer(limited), "default")
        }

        fn bookmark(&self) {
            let bookmark = json!({"type": "BOOKMARK", "object": {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "2"},
            }});
            for watch in &*self.watches.lock().unwrap() {
                let _ = watch.send(Ok(Frame::data(format!("{bookmark}\n").into())));
            }
        }
    }

    const CUT_AFTER: Duration = Duration::from_millis(400);
    const DEAF_AFTER: Duration = Duration::from_millis(1200);

    /// What a process with this watch answers to those who ask whether it is ready, if that is about this watch.
    async fn complaint() -> Option<String> {
        let (_tell, ready) = tokio::sync::watch::channel(true);
        let routes = health::router(ready, Arc::default(), DEAF_AFTER);
        let answer = routes.oneshot(Request::get("/readyz").body(String::new()).unwrap()).await.unwrap();
        let status = answer.status();
        let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
        // Other tests of this process have watches, too.
        let line = text.lines().find(|line| line.contains("configmaps"))?;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        Some(line.to_owned())
    }

    async fn wait_for(what: &str, condition: impl AsyncFn() -> bool) {
        let waited = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn a_process_whose_watch_died_silently_is_not_ready_until_it_is_heard_again() {
        let server = Server::default();
        let api = Api::namespaced(server.client(), "silent");
        let (cache, work) = Cache::<ConfigMap>::new(api, watcher::Config::default().fields("metadata.name=a"));
        let _task = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(work));
        cache.ready().await;
        // A quiet cluster: nothing but bookmarks, for longer than a silent watch is kept.
        let begun = Instant::now();
        while begun.elapsed() < CUT_AFTER * 3 {
            server.bookmark();
            tokio::time::sleep(CUT_AFTER / 8).await;
        }
        assert_eq!(complaint().await, None);
        assert_eq!(server.watches.lock().unwrap().len(), 1, "a quiet watch is not begun anew");
        // Connections stay open, nothing comes any more.
        *server.silent.lock().unwrap() = true;
        wait_for("the silence is noticed", async || complaint().await.is_some()).await;
        assert_eq!(complaint().await.unwrap(), "not ready: nothing was heard of configmaps for 1 seconds");
        *server.silent.lock().unwrap() = false;
        wait_for("it is heard again", async || complaint().await.is_none()).await;
        assert!(server.watches.lock().unwrap().len() >= 2);
    }

    #[tokio::test]
    async fn a_silent_watch_is_begun_anew_where_it_was_and_that_is_no_failure() {
        let server = Server::default();
        let api: Api<Secret> = Api::namespaced(server.client(), "quiet");
        let config = watcher::Config::default().fields("metadata.name=b");
        let _followed = watches::follow(api.resource_url(), Some("metadata.name=b"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let task = tokio::spawn(watcher(api, config).for_each(move |event| {
            heard.lock().unwrap().push(event.map(|_| ()));
            ready(())
        }));
        wait_for("it is begun anew twice", async || server.watches.lock().unwrap().len() >= 3).await;
        task.abort();
        let events = events.lock().unwrap();
        assert!(events.iter().all(Result::is_ok), "{events:?}");
        assert_eq!(events.len(), 2, "there is one list, at the beginning");
    }

    #[test]
    fn the_selector_of_a_watch_is_read_from_its_query() {
        assert_eq!(decoded("metadata.name%3Dhost-1%2Ca%21%3Db+c"), "metadata.name=host-1,a!=b c");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%C3%A4"), "ä");
    }
}
