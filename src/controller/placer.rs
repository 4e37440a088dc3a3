//! The one task that gives waiting sessions their servers.
//!
//! One, because placing is about all sessions at once. What is done is decided in [`placing`](super::placing); this brings
//! it what happens and carries its commands out, each in a task of its own, so that no decision waits for a write.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::Resource;
use kube::ResourceExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Context;
use super::events;
use super::placing;
use super::placing::Command;
use super::placing::Hitch;
use super::placing::Placing;
use super::placing::Settled;
use super::placing::Step;
use super::placing::Written;
use super::session::draft::Draft;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::names;
use crate::cluster;
use crate::cluster::Change;
use crate::cluster::Error;
use crate::placement::Candidate;
use crate::telemetry::traces;

/// Binds on their way at the same time.
const BINDS: usize = 32;
/// Other writes on their way at the same time.
const WORDS: usize = 8;
/// Changes taken in before the next decisions.
const BATCH: usize = 1024;
/// First and longest pause between two tries to learn what became of a bind.
const SETTLE_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Shortest wait for something that is due by the clock: a clock may stand still, the processor must not be kept busy.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// Something that may concern placing.
enum Input {
    Session(Change<DcvSession>),
    Server(Change<DcvServer>),
    Namespace(Change<Namespace>),
    Node(Change<Node>),
    Silent(Vec<String>),
}

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let caches = &context.caches;
    let inputs = stream::select_all([
        caches.sessions.subscribe().map(Input::Session).boxed(),
        caches.servers.subscribe().map(Input::Server).boxed(),
        caches.namespaces.subscribe().map(Input::Namespace).boxed(),
        caches.nodes.subscribe().map(Input::Node).boxed(),
        context.liveness.changes().map(Input::Silent).boxed(),
    ]);
    let mut inputs = pin!(inputs.ready_chunks(BATCH));
    let mut placer = Placer::new(Arc::clone(&context));
    placer.take_in_all();
    loop {
        placer.decide();
        let due = placer.due();
        tokio::select! {
            batch = inputs.next() => match batch {
                Some(batch) => batch.into_iter().for_each(|input| placer.take_in(input)),
                None => return,
            },
            Some(done) = placer.tasks.join_next() => match done {
                Ok((uid, written)) => placer.settle(&uid, written),
                // A fault in a write's task: its place must not be held for ever, and memory cannot be trusted.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "A write of the placer ended in a fault");
                    return;
                }
            },
            () = async { match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }} => {}
        }
    }
}

struct Placer {
    context: Arc<Context>,
    placing: Placing,
    tasks: JoinSet<(Arc<str>, Written)>,
    binds: Arc<Semaphore>,
    words: Arc<Semaphore>,
}

impl Placer {
    fn new(context: Arc<Context>) -> Self {
        Self {
            placing: Placing::new(context.settings.placement_policy, context.settings.dialect),
            context,
            tasks: JoinSet::new(),
            binds: Arc::new(Semaphore::new(BINDS)),
            words: Arc::new(Semaphore::new(WORDS)),
        }
    }

    fn now(&self) -> Timestamp {
        (self.context.clock)()
    }

    /// Everything the caches hold, before the first decision: on half of it nothing fits.
    fn take_in_all(&mut self) {
        self.take_in(Input::Namespace(Change::Listed));
        self.take_in(Input::Server(Change::Listed));
        self.take_in(Input::Session(Change::Listed));
    }

    fn take_in(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Session(Change::Applied(session)) => self.placing.see(session, now),
            Input::Session(Change::Deleted(session)) => self.placing.forget(&session.uid().unwrap_or_default()),
            Input::Session(Change::Listed) => {
                let sessions = self.context.caches.sessions.all();
                let present: HashSet<String> = sessions.iter().filter_map(|session| session.uid()).collect();
                self.placing.retain_sessions(|uid| present.contains(uid));
                for session in sessions {
                    self.placing.see(session, now);
                }
            }
            Input::Server(Change::Applied(server)) => self.set_server(&server),
            Input::Server(Change::Deleted(server)) => self.placing.remove_server(&server.name_any(), now),
            // Nodes count only through their servers.
            Input::Server(Change::Listed) | Input::Node(Change::Listed) => {
                let servers = self.context.caches.servers.all();
                let present: HashSet<String> = servers.iter().map(|server| server.name_any()).collect();
                self.placing.retain_servers(|name| present.contains(name), now);
                for server in &servers {
                    self.set_server(server);
                }
            }
            Input::Node(Change::Applied(node) | Change::Deleted(node)) => self.refresh(&node.name_any()),
            Input::Silent(names) => names.iter().for_each(|name| self.refresh(name)),
            Input::Namespace(Change::Applied(namespace)) => self.set_namespace(&namespace),
            // Its sessions go with it.
            Input::Namespace(Change::Deleted(_)) => {}
            Input::Namespace(Change::Listed) => {
                let namespaces = self.context.caches.namespaces.all();
                let present: HashSet<String> = namespaces.iter().map(|namespace| namespace.name_any()).collect();
                self.placing.retain_namespaces(|name| present.contains(name));
                for namespace in &namespaces {
                    self.set_namespace(namespace);
                }
            }
        }
    }

    fn set_namespace(&mut self, namespace: &Namespace) {
        self.placing.set_namespace(&namespace.name_any(), namespace.labels(), self.now());
    }

    fn refresh(&mut self, server: &str) {
        if let Some(server) = self.context.caches.servers.find("", server) {
            self.set_server(&server);
        }
    }

    fn set_server(&mut self, server: &DcvServer) {
        let name = server.name_any();
        if !self.context.knows(&name) {
            return self.placing.remove_server(&name, self.now());
        }
        let reachable = self.context.liveness.lapse(&name).is_none();
        let node = self.context.caches.nodes.find("", &name);
        let is_cordoned = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        // Where there is no Node the label is an administrator's.
        let cordoned = node.map_or_else(|| server.is_cordoned(), |node| is_cordoned(&node));
        let candidate = Candidate::of(server, reachable, cordoned, self.context.settings.new_servers);
        let others = server.status.as_ref().map_or(&[][..], |status| &status.other_sessions);
        self.placing.set_server(candidate, others, self.now());
    }

    /// How long until something is due by the clock.
    fn due(&self) -> Option<Duration> {
        let wait = self.placing.next_look()?.duration_since(self.now());
        Some(Duration::try_from(wait).unwrap_or_default().max(SHORTEST_WAIT))
    }

    fn settle(&mut self, uid: &str, written: Written) {
        match &written {
            Written::Bound(_) => self.context.metrics.bound("bound"),
            Written::NotBound(..) => self.context.metrics.bound("not_bound"),
            Written::Told(_) | Written::NotTold(_) | Written::Gone => {}
        }
        self.placing.settle(uid, written, self.now());
    }

    fn decide(&mut self) {
        let begun = Instant::now();
        let commands = self.placing.decide(self.now());
        self.context.metrics.decided(begun.elapsed());
        for command in commands {
            self.send(command);
        }
        self.context.metrics.waiting(self.placing.waiting());
    }

    fn send(&mut self, command: Command) {
        let Command { uid, session, step } = command;
        let context = Arc::clone(&self.context);
        match step {
            Step::Bind { server, server_uid, session_id } => {
                let permits = Arc::clone(&self.binds);
                self.tasks.spawn(async move {
                    let _permit = permits.acquire().await.expect("never closed");
                    let step = traces::Step::of(session.traceparent(), "bind").note("dcv.session", &session.name_any());
                    let mut step = step.note("dcv.server", &server);
                    let written = bind(&context, &session, &server, &server_uid, session_id).await;
                    if !matches!(written, Written::Bound(_)) {
                        step.fail("not bound");
                    }
                    (uid, written)
                });
            }
            Step::Tell(status, failure) => {
                let permits = Arc::clone(&self.words);
                self.tasks.spawn(async move {
                    let _permit = permits.acquire().await.expect("never closed");
                    let written = tell(&context, &session, &status).await;
                    if let (Written::Told(_), Some((reason, text))) = (&written, failure) {
                        events::tell(&context, &session.object_ref(&()), "PlaceSession", reason, &text).await;
                    }
                    (uid, written)
                });
            }
        }
    }
}

/// What a write that failed comes to; a failure that is not a conflict is logged here.
fn hitch(context: &Context, session: &DcvSession, error: &Error) -> Hitch {
    if error.is_conflict() {
        return Hitch::Overtaken;
    }
    context.metrics.failed("placer", error.retry());
    let session = session.name_any();
    tracing::warn!(session, error = error as &dyn std::error::Error, "Write of a waiting session failed");
    Hitch::Failed
}

fn sessions(context: &Context, session: &DcvSession) -> Api<DcvSession> {
    Api::namespaced(context.client.clone(), &session.namespace().unwrap_or_default())
}

async fn tell(context: &Context, session: &DcvSession, status: &DcvSessionStatus) -> Written {
    let Some(patch) = cluster::merge_patch(&session.status.clone().unwrap_or_default(), status) else {
        return Written::Told(Arc::new(session.clone()));
    };
    match cluster::patch_status(&sessions(context, session), session, names::CONTROLLER, &patch).await {
        Ok(session) => Written::Told(Arc::new(session)),
        Err(error) if error.is_not_found() => Written::Gone,
        Err(error) => Written::NotTold(hitch(context, session, &error)),
    }
}

/// Adds the finalizer where it is missing, then binds, and does not return before it is known what came of it.
async fn bind(
    context: &Context,
    session: &DcvSession,
    server: &str,
    server_uid: &str,
    session_id: Option<String>,
) -> Written {
    let attempt = session.attempt().saturating_add(1);
    let api = sessions(context, session);
    // The finalizer first: once an agent may have created the desktop, the object must not vanish unseen.
    let session = match cluster::add_finalizer(&api, session, names::CONTROLLER, names::SESSION_FINALIZER).await {
        Ok(session) => session,
        Err(error) if error.is_not_found() => return Written::Gone,
        // Nothing was bound, whatever became of this call; the cache will show it.
        Err(error) => return Written::NotBound(attempt, None, hitch(context, session, &error)),
    };
    let status = Draft::of(&session, (context.clock)()).bound(server, server_uid, session_id);
    let old = session.status.clone().unwrap_or_default();
    let patch = cluster::merge_patch(&old, &status).expect("the attempt differs");
    let [mut pause, longest] = SETTLE_PAUSES;
    loop {
        match cluster::patch_status(&api, &session, names::CONTROLLER, &patch).await {
            Ok(session) => return Written::Bound(Arc::new(session)),
            Err(error) if error.is_not_found() => return Written::Gone,
            Err(error) if error.is_refusal() => {
                return Written::NotBound(attempt, None, hitch(context, &session, &error));
            }
            Err(_) => {}
        }
        // The answer was lost, or is a conflict: only a read can tell.
        loop {
            match api.get_opt(&session.name_any()).await {
                Ok(now) => match (placing::settled(&session, server, now.as_ref()), now) {
                    (Settled::Bound, Some(now)) => return Written::Bound(Arc::new(now)),
                    (Settled::Unmoved, _) => break,
                    (Settled::Overtaken, now) => {
                        return Written::NotBound(attempt, now.map(Arc::new), Hitch::Overtaken);
                    }
                    (Settled::Bound | Settled::Gone, _) => return Written::Gone,
                },
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(session = session.name_any(), error, "Nobody knows yet whether the bind is there");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests;
