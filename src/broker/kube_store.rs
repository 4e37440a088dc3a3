//! The store over a real cluster: caches fed by watches, writes to the API server.

mod writes;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use kube::api::Preconditions;
use kube::core::DeserializeGuard;
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::runtime::watcher::DefaultBackoff;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access_log;
use super::availability::Load;
use super::cache::Cache;
use super::cache::Change;
use super::cache::World;
use super::cache::tenant;
use super::cache::version;
use super::promise::Reservation;
use super::promise::Shortage;
use super::store::Keys;
use super::store::Located;
use super::store::OtherView;
use super::store::Position;
use super::store::ServerView;
use super::store::SessionView;
use super::store::Store;
use super::store::StoreError;
use super::trial::Trial;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::names;
use crate::api::session::DesiredState;
use crate::cluster::Scope;
use crate::cluster::Source;
use crate::cluster::merge;
use crate::telemetry::watches;
use crate::token::KEYS_ENTRY;
use crate::token::KeySet;
use crate::token::Kind;

/// Longest wait for the API server before an id is called unknown.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// What the watch gets to show an id before the API server is asked: it is nearly always faster than a list.
const WATCH_GRACE: Duration = Duration::from_millis(25);

/// Least time between two lists made for unknown ids, whatever clients ask for.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(200);

/// A cluster, as the broker reads and writes it.
pub struct KubeStore {
    cache: Cache,
    client: Client,
    namespace: String,
    /// Whose sessions and clients are ours.
    scope: Scope,
    lists_begun: AtomicU64,
    last_list: Mutex<Listed>,
}

/// The last list made for unknown ids.
#[derive(Default)]
struct Listed {
    number: u64,
    begun: Option<Instant>,
    /// Namespace and name of every session, by uid.
    sessions: Arc<HashMap<String, (String, String)>>,
}

impl KubeStore {
    /// A store that knows nothing before [`Self::follow`] runs.
    pub fn new(client: Client, namespace: &str, scope: Scope) -> Self {
        Self {
            scope,
            cache: Cache::default(),
            client,
            namespace: namespace.to_owned(),
            lists_begun: AtomicU64::new(0),
            last_list: Mutex::default(),
        }
    }

    /// Keeps the caches current. Does not end.
    pub async fn follow(&self) {
        let (scope, client, all) = (&self.scope, &self.client, watcher::Config::default());
        // Where another installation may have servers too, ours are those that our controller says are.
        let ours = format!("{}={}", names::INSTALLATION, self.namespace);
        let servers = if scope.is_limited() { all.clone().labels(&ours) } else { all.clone() };
        tokio::join!(
            self.follow_kind(scope.sources(client, &all), World::apply_session),
            self.follow_kind(vec![(Api::all(client.clone()), servers)], World::apply_server),
            self.follow_kind::<ApiClient>(scope.sources(client, &all), |world, change| world.clients.apply(change)),
            self.follow_kind::<Namespace>(scope.namespaces(client), |world, change| world.namespaces.apply(change)),
            join_all(Kind::ALL.map(|kind| self.follow_keys(kind))),
        );
    }

    /// Each kind has its own back-off; an object that cannot be read is skipped, or it would stall the kind.
    async fn follow_kind<K>(&self, sources: Vec<Source<K>>, apply: fn(&mut World, Change<K>))
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let events = merge::events(sources, DefaultBackoff::default);
        let mut events = events.modify(|object| object.managed_fields_mut().clear()).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if let Some(change) = change(event) {
                        apply(&mut self.cache.write(), change);
                    }
                }
                Err(error) => warn_of_watch(&K::kind(&()), &error),
            }
        }
    }

    /// Watches one Secret by name: nobody needs a right on more.
    async fn follow_keys(&self, kind: Kind) {
        let name = kind.secret_name();
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let fields = format!("metadata.name={name}");
        let _following = watches::follow(api.resource_url(), Some(&fields));
        let config = watcher::Config::default().fields(&fields);
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let secret = match event {
                Ok(Event::Apply(secret) | Event::InitApply(secret)) => secret,
                // The keys stay in use until there are new ones.
                Ok(Event::Delete(_) | Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    warn_of_watch(name, &error);
                    continue;
                }
            };
            let data = secret.data.unwrap_or_default();
            match data.get(KEYS_ENTRY).map(|text| KeySet::parse(&text.0)) {
                Some(Ok(keys)) => self.cache.set_keys(kind, Keys::new(keys)),
                Some(Err(error)) => {
                    tracing::warn!(secret = name, error = &error as &dyn std::error::Error, "unreadable keys");
                }
                None => tracing::warn!(secret = name, "no {KEYS_ENTRY} in the Secret"),
            }
        }
    }

    fn sessions_of(&self, namespace: &str) -> Api<DcvSession> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits until the cache shows those of `ids` that exist in the namespaces of `client`, in all without one.
    async fn await_ids(&self, client: Option<&ApiClient>, ids: &[&str]) -> Result<(), StoreError> {
        let unknown = || -> Vec<_> { ids.iter().copied().filter(|id| self.cache.may_be_new(id)).collect() };
        if unknown().is_empty() {
            return Ok(());
        }
        tokio::time::sleep(WATCH_GRACE).await;
        let unknown = unknown();
        if unknown.is_empty() {
            return Ok(());
        }
        let caught_up = tokio::time::timeout(CATCH_UP_TIMEOUT, self.catch_up(client, &unknown)).await;
        caught_up.unwrap_or(Err(StoreError::Late("a list of sessions")))
    }

    /// Asks the API server for `ids` that the cache does not show, and shows those that exist.
    async fn catch_up(&self, client: Option<&ApiClient>, ids: &[&str]) -> Result<(), StoreError> {
        let listed = self.list_sessions().await?;
        let is_shown =
            |namespace: &str| client.is_none_or(|client| client.spec.all_namespaces || namespace == tenant(client));
        for id in ids {
            let Some((namespace, name)) = listed.get(*id).filter(|(namespace, _)| is_shown(namespace)) else {
                continue;
            };
            if let Some(session) = self.fetch(namespace, name).await? {
                self.cache.assume_session(session);
            }
        }
        self.cache.note_unknown(ids.iter().filter(|id| !listed.contains_key(**id)).copied());
        Ok(())
    }

    /// Uids and names of all sessions as the API server knows them now. One list serves all who wait for it: those who
    /// came before it began.
    async fn list_sessions(&self) -> Result<Arc<HashMap<String, (String, String)>>, StoreError> {
        let seen = self.lists_begun.load(Ordering::SeqCst);
        let mut latest = self.last_list.lock().await;
        if latest.number > seen {
            return Ok(Arc::clone(&latest.sessions));
        }
        if let Some(begun) = latest.begun {
            tokio::time::sleep_until(begun + CATCH_UP_INTERVAL).await;
        }
        latest.begun = Some(Instant::now());
        let number = self.lists_begun.fetch_add(1, Ordering::SeqCst) + 1;
        let entry = |meta: kube::core::ObjectMeta| Some((meta.uid?, (meta.namespace?, meta.name?)));
        let mut sessions = HashMap::new();
        for api in self.scope.apis::<DcvSession>(&self.client) {
            let list = api.list_metadata(&ListParams::default()).await;
            let list = list.map_err(|error| failed("list", "sessions".to_owned(), error))?;
            sessions.extend(list.items.into_iter().filter_map(|item| entry(item.metadata)));
        }
        latest.sessions = Arc::new(sessions);
        latest.number = number;
        Ok(Arc::clone(&latest.sessions))
    }

    async fn fetch(&self, namespace: &str, name: &str) -> Result<Option<DcvSession>, StoreError> {
        let session = self.sessions_of(namespace).get_opt(name).await;
        session.map_err(|error| failed("read", format!("session {namespace}/{name}"), error))
    }

    async fn find(&self, client: &ApiClient, ids: &[String]) -> Result<Vec<SessionView>, StoreError> {
        let texts: Vec<_> = ids.iter().map(String::as_str).collect();
        self.await_ids(Some(client), &texts).await?;
        Ok(ids.iter().flat_map(|id| self.cache.sessions_of_id(client, id)).collect())
    }

    async fn make(&self, client: &ApiClient, mut session: DcvSession) -> Result<Arc<DcvSession>, StoreError> {
        let (namespace, name) = (tenant(client), session.name_any());
        session.metadata.namespace = Some(namespace.to_owned());
        let parameters = PostParams { field_manager: Some(names::BROKER.to_owned()), ..PostParams::default() };
        let made = match self.sessions_of(namespace).create(&parameters, &session).await {
            Ok(made) => {
                access_log::audit("session created", &made);
                made
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let object = format!("session {namespace}/{name}");
                self.fetch(namespace, &name).await?.ok_or(StoreError::NotFound(object))?
            }
            Err(error) => return Err(failed("create", format!("session {namespace}/{name}"), error)),
        };
        Ok(self.cache.assume_session(made))
    }

    async fn order(&self, session: &DcvSession, desired_state: DesiredState) -> Result<(), StoreError> {
        let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
        // The uid keeps the order from a later session of the same name.
        let mut patch = json!({"metadata": {"uid": session.metadata.uid}, "spec": {"desiredState": desired_state}});
        note_request(&mut patch);
        let parameters = PatchParams { field_manager: Some(names::BROKER.to_owned()), ..PatchParams::default() };
        let patched = match self.sessions_of(&namespace).patch(&name, &parameters, &Patch::Merge(&patch)).await {
            // Nothing in a finished session can be changed: it ended meanwhile, as it was to.
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                let now = self.fetch(&namespace, &name).await?.filter(DcvSession::is_finished);
                now.ok_or_else(|| StoreError::Refused(words(&status)))?
            }
            patched => {
                let patched = patched.map_err(|error| self.failed_write("close", session, error))?;
                access_log::audit("session told to close", &patched);
                patched
            }
        };
        self.cache.assume_session(patched);
        Ok(())
    }

    async fn remove(&self, session: &DcvSession) -> Result<(), StoreError> {
        let (namespace, name) = (session.namespace().unwrap_or_default(), session.name_any());
        let preconditions = Preconditions { uid: session.uid(), resource_version: None };
        let parameters = DeleteParams::default().preconditions(preconditions);
        let deleted = self.sessions_of(&namespace).delete(&name, &parameters).await;
        let deleted = deleted.map_err(|error| self.failed_write("delete", session, error))?;
        access_log::audit("session deleted", session);
        match deleted.left() {
            // It stays until the agent has closed the desktop.
            Some(marked) if !marked.finalizers().is_empty() => drop(self.cache.assume_session(marked)),
            _ => self.cache.assume_session_gone(session),
        }
        Ok(())
    }

    fn failed_write(&self, action: &'static str, session: &DcvSession, error: kube::Error) -> StoreError {
        let object = full_name(session);
        match error {
            kube::Error::Api(status) if status.is_not_found() => {
                self.cache.assume_session_gone(session);
                StoreError::NotFound(object)
            }
            error => failed(action, object, error),
        }
    }

    async fn read_clients(&self, namespace: &str) {
        if !self.scope.covers(namespace) {
            return;
        }
        let api = Api::<ApiClient>::namespaced(self.client.clone(), namespace);
        let list = tokio::time::timeout(CATCH_UP_TIMEOUT, api.list(&ListParams::default())).await;
        match list {
            Ok(Ok(list)) => {
                let mut world = self.cache.write();
                list.items.into_iter().for_each(|client| drop(world.clients.assume(client)));
            }
            Ok(Err(error)) => {
                tracing::warn!(namespace, error = &error as &dyn std::error::Error, "failed to list clients");
            }
            Err(_) => tracing::warn!(namespace, "no answer in time to a list of clients"),
        }
    }
}

/// Makes a patch say which request it is of.
fn note_request(patch: &mut Value) {
    if let Some(id) = access_log::request_id() {
        patch["metadata"]["annotations"][names::REQUEST_ID] = id.into();
    }
}

fn warn_of_watch(what: &str, error: &watcher::Error) {
    tracing::warn!(kind = what, error = error as &dyn std::error::Error, "watch failed, trying again");
}

fn change<K: Resource<DynamicType = ()>>(event: Event<DeserializeGuard<K>>) -> Option<Change<K>> {
    let readable = |object: DeserializeGuard<K>| match object.0 {
        Ok(object) => Some(object),
        Err(error) => {
            let name = error.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(kind = %K::kind(&()), name, error = %error, "unreadable object skipped");
            None
        }
    };
    match event {
        Event::Init => Some(Change::ListBegins),
        Event::InitApply(object) => readable(object).map(Change::Listed),
        Event::InitDone => Some(Change::ListEnds),
        Event::Apply(object) => readable(object).map(Change::Put),
        Event::Delete(object) => {
            let version = version(&object);
            object.meta().uid.clone().map(|uid| Change::Gone { uid, version })
        }
    }
}

/// What a failed call means. What the API server refuses for a reason in the object is the client's to read; that we
/// lack a right is not.
fn failed(action: &'static str, object: String, error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.is_invalid() || is_denied(&status) => StoreError::Refused(words(&status)),
        error => StoreError::Api { action, object, source: Box::new(error) },
    }
}

/// What an admission policy's own words follow.
const DENIED: &str = "denied request: ";

/// By an admission policy, a quota or a namespace that ends. That we lack a right reads `cannot create resource "x"`.
fn is_denied(status: &Status) -> bool {
    status.is_forbidden() && (status.message.contains(DENIED) || !status.message.contains(" resource \""))
}

fn full_name(session: &DcvSession) -> String {
    format!("session {}/{}", session.namespace().unwrap_or_default(), session.name_any())
}

/// The causes without the object's name, which the client does not know; else the whole message.
fn words(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<_> = causes
        .map(|cause| match (cause.message.split_once(DENIED), cause.field.as_str()) {
            (Some((_, words)), _) => words.to_owned(),
            (None, "") => cause.message.clone(),
            (None, field) => format!("{field}: {}", cause.message),
        })
        .collect();
    if causes.is_empty() { status.message.clone() } else { causes.join("; ") }
}

impl Store for KubeStore {
    fn is_ready(&self) -> bool {
        self.cache.is_ready()
    }

    fn keys(&self, kind: Kind) -> Option<Arc<Keys>> {
        self.cache.keys(kind)
    }

    fn client(&self, uid: &str) -> Option<Arc<ApiClient>> {
        self.cache.client(uid)
    }

    fn client_by_id(&self, client_id: &str) -> Option<Arc<ApiClient>> {
        self.cache.client_by_id(client_id)
    }

    fn refresh_clients<'a>(&'a self, namespace: &'a str) -> BoxFuture<'a, ()> {
        self.read_clients(namespace).boxed()
    }

    fn sessions(
        &self,
        client: &ApiClient,
        after: Option<&Position>,
        limit: usize,
        keep: &dyn Fn(&SessionView) -> bool,
    ) -> Vec<SessionView> {
        self.cache.sessions(client, after, limit, keep)
    }

    fn find_sessions<'a>(
        &'a self,
        client: &'a ApiClient,
        ids: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<SessionView>, StoreError>> {
        self.find(client, ids).boxed()
    }

    fn locate<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Vec<Located>, StoreError>> {
        async move {
            self.await_ids(None, &[id]).await?;
            Ok(self.cache.locate(id))
        }
        .boxed()
    }

    fn session_named<'a>(
        &'a self,
        client: &'a ApiClient,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<DcvSession>>, StoreError>> {
        async move {
            match self.cache.session_named(client, name) {
                Some(session) => Ok(Some(session)),
                None => Ok(self.fetch(tenant(client), name).await?.map(|session| self.cache.assume_session(session))),
            }
        }
        .boxed()
    }

    fn servers(&self, client: &ApiClient) -> Vec<ServerView> {
        self.cache.servers(client)
    }

    fn load(&self, server: &DcvServer) -> Load {
        self.cache.load(server)
    }

    fn others(&self, client: &ApiClient, ids: &[String]) -> Vec<OtherView> {
        self.cache.others(client, ids)
    }

    fn reserve(&self, client: &ApiClient, session: &DcvSession, queue_size: usize) -> Result<Reservation, Shortage> {
        self.cache.reserve(client, session, queue_size)
    }

    fn trial(&self, client: &ApiClient) -> Trial {
        self.cache.trial(client)
    }

    fn rehearse<'a>(&'a self, client: &'a ApiClient, session: DcvSession) -> BoxFuture<'a, Result<(), StoreError>> {
        self.try_make(client, session).boxed()
    }

    fn create<'a>(
        &'a self,
        client: &'a ApiClient,
        session: DcvSession,
    ) -> BoxFuture<'a, Result<Arc<DcvSession>, StoreError>> {
        self.make(client, session).boxed()
    }

    fn set_desired_state<'a>(
        &'a self,
        _client: &'a ApiClient,
        session: &'a DcvSession,
        desired_state: DesiredState,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.order(session, desired_state).boxed()
    }

    fn delete<'a>(&'a self, _client: &'a ApiClient, session: &'a DcvSession) -> BoxFuture<'a, Result<(), StoreError>> {
        self.remove(session).boxed()
    }

    fn set_permissions<'a>(
        &'a self,
        _client: &'a ApiClient,
        session: &'a DcvSession,
        text: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.permit(session, text).boxed()
    }

    fn open_server<'a>(
        &'a self,
        _client: &'a ApiClient,
        server: &'a DcvServer,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.open(server).boxed()
    }

    fn close_server<'a>(
        &'a self,
        _client: &'a ApiClient,
        server: &'a DcvServer,
        force: bool,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.close(server, force).boxed()
    }
}

#[cfg(test)]
mod tests;
