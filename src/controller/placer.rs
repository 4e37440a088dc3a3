//! The one task that gives waiting sessions their servers.
//!
//! One, because placing is about all sessions at once. It decides on its ledger and its view of the waiting sessions, and
//! leaves the writes to tasks of their own, so that no decision waits for one. Invariants: a session has at most one write
//! on its way; a place is taken before the bind is sent and given back only when it is known to have come to nothing.

use std::collections::HashMap;
use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::ResourceExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Context;
use super::adoption;
use super::adoption::Adoption;
use super::session::draft::Draft;
use super::waiting;
use super::waiting::Verdict;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions::Reason;
use crate::api::names;
use crate::cluster;
use crate::cluster::Change;
use crate::cluster::Error;
use crate::placement;
use crate::placement::Candidate;
use crate::placement::GroupId;
use crate::placement::Ledger;
use crate::placement::Rejection;
use crate::placement::Request;

/// Binds on their way at the same time.
const BINDS: usize = 32;
/// Other writes on their way at the same time.
const WORDS: usize = 8;
/// Changes taken in before the next decisions.
const BATCH: usize = 1024;
/// First and longest pause between two tries to learn what became of a bind.
const SETTLE_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Pause after a write that was overtaken, and after one that failed.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];
/// Most groups of sessions for which it is kept which servers suit them, when fewer wait. One that was forgotten is
/// worked out again.
const GROUPS_MAX: usize = 1000;

/// How soon after a write the line is looked at again.
const AFTER_WRITES: Duration = Duration::from_millis(50);

/// Something that may concern placing.
enum Input {
    Session(Change<DcvSession>),
    Server(Change<DcvServer>),
    Namespace,
    Node(Change<Node>),
    Silent(Vec<String>),
}

/// Runs for as long as we lead.
pub(super) async fn run(context: Arc<Context>) {
    let caches = &context.caches;
    let inputs = stream::select_all([
        caches.sessions.subscribe().map(Input::Session).boxed(),
        caches.servers.subscribe().map(Input::Server).boxed(),
        caches.namespaces.subscribe().map(|_| Input::Namespace).boxed(),
        caches.nodes.subscribe().map(Input::Node).boxed(),
        context.liveness.changes().map(Input::Silent).boxed(),
    ]);
    let mut inputs = pin!(inputs.ready_chunks(BATCH));
    let mut placer = Placer::new(Arc::clone(&context));
    loop {
        let wake = placer.wake.map(tokio::time::Instant::from_std);
        tokio::select! {
            batch = inputs.next() => match batch {
                Some(batch) => batch.into_iter().for_each(|input| placer.take_in(input)),
                None => return,
            },
            Some(done) = placer.tasks.join_next() => match done {
                Ok(done) => placer.settle(done),
                // A fault in a write's task: its place must not be held for ever, and memory cannot be trusted.
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "A write of the placer ended in a fault");
                    return;
                }
            },
            () = async { match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }} => placer.dirty = true,
        }
        placer.decide();
    }
}

/// Why nothing fits, for sessions that the same servers fit: the same group, namespace and owner.
type Nowhere = HashMap<(GroupId, String, String), String>;

/// A session in the line.
struct Waiting {
    session: Arc<DcvSession>,
    /// A write of it is on its way.
    busy: bool,
    /// When its text was written last, or it was first seen.
    told: Instant,
    /// No decision before then.
    not_before: Option<Instant>,
}

/// What became of a write.
struct Done {
    uid: String,
    result: Written,
}

enum Written {
    /// The bind is there.
    Bound(Arc<DcvSession>),
    /// The bind of this attempt has come to nothing; this is how the session is now, if it is known.
    NotBound(i32, Option<Arc<DcvSession>>, Option<Error>),
    /// The session is gone; this attempt has come to nothing.
    Gone(Option<i32>),
    /// The status is there.
    Told(Arc<DcvSession>),
    /// It is not.
    NotTold(Error),
}

struct Placer {
    context: Arc<Context>,
    ledger: Ledger,
    /// What could be taken over.
    others: adoption::Others,
    line: HashMap<String, Waiting>,
    tasks: JoinSet<Done>,
    binds: Arc<Semaphore>,
    words: Arc<Semaphore>,
    /// Whether a decision could differ from the last one.
    dirty: bool,
    /// When to decide without a change.
    wake: Option<Instant>,
    /// No decisions before then, so that a long line and many changes do not take a whole processor.
    rest_until: Instant,
}

impl Placer {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            ledger: Ledger::default(),
            others: adoption::Others::new(),
            line: HashMap::new(),
            tasks: JoinSet::new(),
            binds: Arc::new(Semaphore::new(BINDS)),
            words: Arc::new(Semaphore::new(WORDS)),
            dirty: false,
            wake: None,
            rest_until: Instant::now(),
        }
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Session(Change::Applied(session)) => self.see(session),
            Input::Session(Change::Deleted(session)) => {
                let uid = session.uid().unwrap_or_default();
                self.line.remove(&uid);
                self.dirty |= self.ledger.forget(&uid);
            }
            Input::Session(Change::Listed) => {
                let sessions = self.context.caches.sessions.all();
                let present: HashSet<String> = sessions.iter().filter_map(|session| session.uid()).collect();
                self.ledger.retain_sessions(|uid| present.contains(uid));
                self.line.retain(|uid, _| present.contains(uid));
                for session in sessions {
                    self.see(session);
                }
                self.dirty = true;
            }
            Input::Server(Change::Applied(server)) => self.set_server(&server),
            Input::Server(Change::Deleted(server)) => {
                self.others.remove(&server.name_any());
                self.dirty |= self.ledger.remove_server(&server.name_any());
            }
            // Nodes count only through their servers.
            Input::Server(Change::Listed) | Input::Node(Change::Listed) => {
                let servers = self.context.caches.servers.all();
                let present: HashSet<String> = servers.iter().map(|server| server.name_any()).collect();
                self.ledger.retain_servers(|name| present.contains(name));
                self.others.retain(|name, _| present.contains(name));
                for server in &servers {
                    self.set_server(server);
                }
                self.dirty = true;
            }
            Input::Node(Change::Applied(node) | Change::Deleted(node)) => self.refresh(&node.name_any()),
            Input::Silent(names) => names.iter().for_each(|name| self.refresh(name)),
            Input::Namespace => self.dirty = true,
        }
    }

    fn refresh(&mut self, server: &str) {
        if let Some(server) = self.context.caches.servers.find("", server) {
            self.set_server(&server);
        }
    }

    fn set_server(&mut self, server: &DcvServer) {
        let name = server.name_any();
        let reachable = self.context.liveness.lapse(&name).is_none();
        let node = self.context.caches.nodes.find("", &name);
        let cordoned = node.and_then(|node| node.spec.as_ref()?.unschedulable).unwrap_or(false);
        let candidate = Candidate::of(server, reachable, cordoned, self.context.settings.new_servers);
        self.dirty |= self.ledger.set_server(candidate);
        let others = server.status.as_ref().map(|status| status.other_sessions.clone()).unwrap_or_default();
        self.dirty |= if others.is_empty() {
            self.others.remove(&name).is_some()
        } else {
            self.others.insert(name, others.clone()).as_ref() != Some(&others)
        };
    }

    /// Takes note of a session as it was read.
    fn see(&mut self, session: Arc<DcvSession>) {
        self.dirty |= self.ledger.see(&session);
        let Some(uid) = session.uid() else { return };
        if !waiting::is_waiting(&session) {
            self.line.remove(&uid);
            return;
        }
        if let Some(waiting) = self.line.get_mut(&uid) {
            self.dirty |= waiting.session.metadata.generation != session.metadata.generation
                || waiting.session.attempt() != session.attempt();
            waiting.session = session;
        } else {
            self.dirty = true;
            self.line.insert(uid, Waiting { session, busy: false, told: Instant::now(), not_before: None });
        }
    }

    /// Takes note of what became of a write.
    fn settle(&mut self, done: Done) {
        let Done { uid, result } = done;
        // Many come at once; one look at the line serves them all.
        self.wake_at(Instant::now() + AFTER_WRITES);
        if let Some(waiting) = self.line.get_mut(&uid) {
            waiting.busy = false;
        }
        match result {
            Written::Bound(session) => {
                self.context.metrics.bound("bound");
                self.see(session);
            }
            Written::NotBound(attempt, session, error) => {
                self.context.metrics.bound("not_bound");
                self.dirty |= self.ledger.give_back(&uid, attempt);
                if let Some(session) = session {
                    self.see(session);
                }
                self.pause(&uid, error);
            }
            Written::Gone(attempt) => {
                if let Some(attempt) = attempt {
                    self.dirty |= self.ledger.give_back(&uid, attempt);
                }
                self.line.remove(&uid);
            }
            Written::Told(session) => self.see(session),
            Written::NotTold(error) => self.pause(&uid, Some(error)),
        }
    }

    /// Leaves a session alone for a while after a write of it failed.
    fn pause(&mut self, uid: &str, error: Option<Error>) {
        let Some(waiting) = self.line.get_mut(uid) else { return };
        let overtaken = error.as_ref().is_none_or(Error::is_conflict);
        waiting.not_before = Some(Instant::now() + PAUSES[usize::from(!overtaken)]);
        if let Some(error) = error
            && !overtaken
        {
            self.context.metrics.failed("placer");
            let session = waiting.session.name_any();
            tracing::warn!(session, error = &error as &dyn std::error::Error, "Write of a waiting session failed");
        }
    }

    /// Decides on every waiting session, in the order of the line.
    fn decide(&mut self) {
        if !self.dirty {
            return;
        }
        let (at, now) = ((self.context.clock)(), Instant::now());
        if now < self.rest_until {
            self.wake_at(self.rest_until);
            return;
        }
        self.dirty = false;
        self.context.metrics.waiting(self.line.len());
        let mut line: Vec<(waiting::Rank, String)> = self
            .line
            .iter()
            // One that has a place already waits only in an old view of it.
            .filter(|(uid, waiting)| !waiting.busy && !self.ledger.has_place(uid))
            .map(|(uid, waiting)| (waiting::rank(&waiting.session), uid.clone()))
            .collect();
        line.sort();
        self.wake = None;
        // What fits nowhere fits nowhere for the next one like it either: places are only taken in this pass.
        let mut nowhere: Nowhere = HashMap::new();
        for (_, uid) in line {
            let Some(waiting) = self.line.get(&uid) else { continue };
            if let Some(time) = waiting.not_before.filter(|time| *time > now) {
                self.wake_at(time);
                continue;
            }
            let session = Arc::clone(&waiting.session);
            let Some(verdict) = self.verdict(&session, at, &mut nowhere) else { continue };
            match verdict {
                Verdict::Bind(server) => self.bind(&uid, session, &server, None),
                Verdict::Adopt(Adoption { server, session_id }) => self.bind(&uid, session, &server, Some(session_id)),
                Verdict::Fail(reason, text) => {
                    let status = Draft::of(&session, at).failed(reason, &text);
                    self.tell(&uid, session, status, Some((reason, text)));
                }
                Verdict::Pause(end) => self.wake_at(now + until(end, at)),
                Verdict::Wait(text, end) => {
                    if let Some(end) = end {
                        self.wake_at(now + until(end, at));
                    }
                    self.say(&uid, session, &text, at, now);
                }
            }
        }
        if self.ledger.groups() > GROUPS_MAX.max(2 * nowhere.len()) {
            let waiting: HashSet<GroupId> = nowhere.into_keys().map(|(group, ..)| group).collect();
            self.ledger.retain_groups(|group| waiting.contains(&group));
        }
        self.rest_until = Instant::now() + now.elapsed();
    }

    /// `None`: nothing can be said yet.
    fn verdict(&mut self, session: &DcvSession, at: Timestamp, nowhere: &mut Nowhere) -> Option<Verdict> {
        let namespace = session.namespace().unwrap_or_default();
        // Without its labels no selector can be answered; it comes in a moment.
        let labels = self.context.caches.namespaces.find("", &namespace)?;
        let mut request = match Request::of(&session.spec, &namespace, labels.labels(), self.context.settings.dialect) {
            Ok(request) => request,
            Err(reason) => return Some(Verdict::Fail(Reason::InvalidRequirements, reason.to_string())),
        };
        match adoption::of(session, &self.others) {
            Ok(Some(adoption)) if self.answers(&adoption.server) => return Some(Verdict::Adopt(adoption)),
            Ok(Some(Adoption { server, .. })) => {
                let text = format!("server {server}, whose desktop is to be taken over, does not answer");
                return Some(waiting::decide(session, Err(text), at));
            }
            Err(text) => return Some(waiting::decide(session, Err(text), at)),
            Ok(None) => {}
        }
        request.avoid = waiting::avoided(session, at);
        let alike = (self.ledger.group(&request), namespace, request.owner.clone());
        let placed = match nowhere.get(&alike) {
            Some(explanation) => Err(explanation.clone()),
            None => placement::place(&mut self.ledger, &request, self.context.settings.placement_policy)
                .map_err(|explanation| explanation.to_string())
                .inspect_err(|explanation| drop(nowhere.insert(alike, explanation.clone()))),
        };
        Some(waiting::decide(session, placed, at))
    }

    /// Whether a server's agent can be given a session; that the server is full or closed does not matter to one that is
    /// there already.
    fn answers(&self, server: &str) -> bool {
        self.ledger.server(server).is_some_and(|candidate| candidate.shut != Some(Rejection::Unreachable))
    }

    /// Writes why the session waits, unless that is said, or something was said a moment ago.
    fn say(&mut self, uid: &str, session: Arc<DcvSession>, text: &str, at: Timestamp, now: Instant) {
        if waiting::is_said(&session, text) {
            return;
        }
        let period = waiting::text_period(self.line.len());
        let due = self.line.get(uid).map(|waiting| waiting.told + period);
        if let Some(due) = due.filter(|due| waiting::is_told(&session) && *due > now) {
            self.wake_at(due);
            return;
        }
        let status = Draft::of(&session, at).waiting(text);
        self.tell(uid, session, status, None);
    }

    fn wake_at(&mut self, time: Instant) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// Takes the place, then sends the bind; `session_id` is that of a desktop to take over.
    fn bind(&mut self, uid: &str, session: Arc<DcvSession>, server: &str, session_id: Option<String>) {
        let Some(server) = self.ledger.server(server) else { return };
        let (name, server_uid) = (server.name.to_string(), server.uid.clone());
        let attempt = session.attempt().saturating_add(1);
        self.ledger.reserve(uid, attempt, &name, &session.spec.owner, session.spec.type_);
        self.occupy(uid);
        let (context, permits, uid) = (Arc::clone(&self.context), Arc::clone(&self.binds), uid.to_owned());
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await.expect("never closed");
            Done { uid, result: bind(&context, &session, &name, &server_uid, session_id).await }
        });
    }

    /// Sends a status; for a failure the event goes with it.
    fn tell(
        &mut self,
        uid: &str,
        session: Arc<DcvSession>,
        status: DcvSessionStatus,
        failure: Option<(Reason, String)>,
    ) {
        self.occupy(uid);
        let (context, permits, uid) = (Arc::clone(&self.context), Arc::clone(&self.words), uid.to_owned());
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await.expect("never closed");
            let result = tell(&context, &session, &status).await;
            if let (Written::Told(_), Some((reason, text))) = (&result, failure) {
                context.events.warn(session.as_ref(), "PlaceSession", &reason.as_string(), &text).await;
            }
            Done { uid, result }
        });
    }

    fn occupy(&mut self, uid: &str) {
        if let Some(waiting) = self.line.get_mut(uid) {
            waiting.busy = true;
            waiting.told = Instant::now();
        }
    }
}

fn until(end: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(at)).unwrap_or_default().max(Duration::from_millis(20))
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
        Err(error) if error.is_not_found() => Written::Gone(None),
        Err(error) => Written::NotTold(error),
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
        Err(error) if error.is_not_found() => return Written::Gone(Some(attempt)),
        // Nothing was bound, whatever became of this call; the cache will show it.
        Err(error) => return Written::NotBound(attempt, None, Some(error)),
    };
    let status = Draft::of(&session, (context.clock)()).bound(server, server_uid, session_id);
    let old = session.status.clone().unwrap_or_default();
    let patch = cluster::merge_patch(&old, &status).expect("the attempt differs");
    let [mut pause, longest] = SETTLE_PAUSES;
    loop {
        let error = match cluster::patch_status(&api, &session, names::CONTROLLER, &patch).await {
            Ok(session) => return Written::Bound(Arc::new(session)),
            Err(error) if error.is_not_found() => return Written::Gone(Some(attempt)),
            Err(error) if error.is_refusal() => return Written::NotBound(attempt, None, Some(error)),
            Err(error) => error,
        };
        // The answer was lost, or is a conflict that may be with our own success. As long as the object is as it was,
        // the call may still land, and then only once: it is sent again. Once it has moved on, it cannot land any more.
        loop {
            match api.get_opt(&session.name_any()).await {
                Ok(Some(now)) if now.uid() != session.uid() => return Written::Gone(Some(attempt)),
                Ok(Some(now)) if now.attempt() >= attempt && now.server_name() == Some(server) => {
                    return Written::Bound(Arc::new(now));
                }
                Ok(Some(now)) if now.resource_version() == session.resource_version() => break,
                Ok(Some(now)) => {
                    let error = error.is_conflict().then_some(error);
                    return Written::NotBound(attempt, Some(Arc::new(now)), error);
                }
                Ok(None) => return Written::Gone(Some(attempt)),
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
