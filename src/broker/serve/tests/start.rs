//! A broker that starts is unready first, and ready when it knows everything.

use std::collections::HashSet;
use std::sync::Mutex;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Full;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use super::super::super::memory::now;
use super::*;
use crate::cluster::Scope;
use crate::token::KEYS_ENTRY;
use crate::token::KeySet;

/// What a broker reads before it serves anybody: resources, and Secrets by name.
fn parts() -> Vec<&'static str> {
    let secrets = Kind::ALL.map(Kind::secret_name);
    ["dcvsessions", "dcvservers", "apiclients", "namespaces"].into_iter().chain(secrets).collect()
}

/// An API server that lists everything but one part, until it is let.
#[derive(Clone)]
struct Server {
    withheld: watch::Receiver<Option<&'static str>>,
    listed: Arc<Mutex<HashSet<&'static str>>>,
}

impl Server {
    fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let mut this = this.clone();
            async move {
                let uri = request.uri().to_string();
                let part = *parts().iter().rfind(|part| uri.contains(*part)).expect("a broker reads nothing else");
                if uri.contains("watch=true") {
                    std::future::pending::<()>().await;
                }
                this.withheld.wait_for(|withheld| *withheld != Some(part)).await?;
                this.listed.lock().unwrap().insert(part);
                let body = Full::<Bytes>::from(list(part).to_string());
                Ok::<_, tower::BoxError>(Response::new(body))
            }
        });
        Client::new(service, "default")
    }
}

fn list(part: &str) -> Value {
    let mut items = Vec::new();
    if Kind::ALL.iter().any(|kind| kind.secret_name() == part) {
        let keys = serde_json::to_vec(&KeySet::generate(now())).unwrap();
        let mut secret = Secret { data: Some([(KEYS_ENTRY.to_owned(), ByteString(keys))].into()), ..Secret::default() };
        secret.metadata.name = Some(part.to_owned());
        secret.metadata.namespace = Some("dcv-system".to_owned());
        items.push(secret);
    }
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
}

async fn ask(routes: &Router, path: &str) -> StatusCode {
    routes.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status()
}

/// What the kubelet and what a load balancer is told.
async fn answers(routes: &[(Router, &str)]) -> Vec<StatusCode> {
    let mut answers = Vec::new();
    for (routes, path) in routes {
        answers.push(ask(routes, path).await);
    }
    answers
}

async fn starts_unready_without(part: &'static str) {
    let (let_go, withheld) = watch::channel(Some(part));
    let server = Server { withheld, listed: Arc::default() };
    let store = Arc::new(KubeStore::new(server.client(), "dcv-system", Scope::All));
    let (tell_ready, ready) = watch::channel(false);
    let health = health::router(ready, Arc::default(), Duration::MAX);
    let api = router(Arc::new(App::plain(Arc::clone(&store) as _, Rules::default(), now)));
    let routes = [(health, "/readyz"), (api, "/health")];
    let unready = [StatusCode::SERVICE_UNAVAILABLE; 2];
    assert_eq!(answers(&routes).await, unready, "before anything is read");

    let _task = AbortOnDropHandle::new(tokio::spawn(async move {
        let ending = AtomicBool::new(false);
        tokio::join!(store.follow(), watch_readiness(&store, &tell_ready, &ending));
    }));
    let all_but_one = async {
        while server.listed.lock().unwrap().len() < parts().len() - 1 {
            tokio::time::sleep(READINESS_INTERVAL).await;
        }
    };
    tokio::time::timeout(SOON, all_but_one).await.expect("the others are read");
    // Time to take them in, and to look.
    for _ in 0..6 {
        assert_eq!(answers(&routes).await, unready, "without {part}");
        tokio::time::sleep(READINESS_INTERVAL).await;
    }
    let_go.send_replace(None);
    let ready = async {
        while answers(&routes).await != [StatusCode::OK; 2] {
            tokio::time::sleep(READINESS_INTERVAL).await;
        }
    };
    tokio::time::timeout(SOON, ready).await.unwrap_or_else(|_| panic!("ready when {part} is there"));
}

#[tokio::test]
async fn a_broker_is_unready_until_it_knows_all_there_is_to_know() {
    join_all(parts().into_iter().map(starts_unready_without)).await;
}

#[tokio::test]
async fn a_broker_that_ends_before_it_was_ready_never_says_it_is() {
    let (_let_go, withheld) = watch::channel(None);
    let server = Server { withheld, listed: Arc::default() };
    let store = KubeStore::new(server.client(), "dcv-system", Scope::All);
    let (tell_ready, ready) = watch::channel(false);
    let filled = async {
        while !store.is_ready() {
            tokio::time::sleep(READINESS_INTERVAL).await;
        }
        tokio::time::sleep(READINESS_INTERVAL * 4).await;
    };
    let ending = AtomicBool::new(true);
    let told = async { tokio::join!(store.follow(), watch_readiness(&store, &tell_ready, &ending)) };
    let begun = tokio::time::timeout(SOON, async {
        tokio::select! { () = filled => {}, _ = told => {} }
    });
    begun.await.expect("the caches are filled");
    assert!(!*ready.borrow());
}
