//! Somebody who looks on while other things happen: at every version of some sessions, and at what a broker says of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::api::session::DcvSession;
use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::rest::LoggedIn;
use crate::session::Sessions;
use crate::session::is_ready;

/// What must not change of a session.
pub type Facts = BTreeMap<String, String>;

/// What was seen that should not be.
#[derive(Clone, Default)]
struct Troubles(Arc<Mutex<Vec<String>>>);

impl Troubles {
    fn note(&self, trouble: String) {
        self.0.lock().expect("no panic while it is held").push(trouble);
    }
}

/// Looks on until it is asked what it saw.
pub struct Witness {
    troubles: Troubles,
    answers: Arc<Mutex<Answers>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Answers {
    count: u32,
    longest: Duration,
}

/// Of each session: that it is READY and used by one client, and what tells this desktop from another one.
pub fn facts(sessions: &[DcvSession]) -> Facts {
    sessions.iter().map(|session| (session.name_any(), told(session))).collect()
}

fn told(session: &DcvSession) -> String {
    let status = session.status.clone().unwrap_or_default();
    json!({
        "uid": session.metadata.uid, "generation": session.metadata.generation, "isReady": is_ready(session),
        "id": session.id(), "server": status.server_name, "attempt": status.attempt,
        "connections": status.num_of_connections,
    })
    .to_string()
}

impl Witness {
    /// Looks at these sessions, which are as `facts` says, and asks the broker of `rest` about them again and again.
    pub fn of(sessions: &Sessions, facts: Facts, rest: LoggedIn) -> Self {
        let (troubles, answers) = (Troubles::default(), Arc::<Mutex<Answers>>::default());
        let count = facts.len();
        let watching = tokio::spawn(watch(sessions.api.clone(), facts, troubles.clone()));
        let asking = tokio::spawn(ask(rest, count, troubles.clone(), Arc::clone(&answers)));
        Self { troubles, answers, tasks: [watching, asking] }
    }

    /// What was seen so far; panics when something was that should not be.
    pub fn swear(&self) -> String {
        let troubles = self.troubles.0.lock().expect("no panic while it is held");
        assert!(
            troubles.is_empty(),
            "{} troubles: {:#?}",
            troubles.len(),
            troubles.iter().take(10).collect::<Vec<_>>()
        );
        assert!(!self.tasks.iter().any(JoinHandle::is_finished), "it looks on");
        let answers = self.answers.lock().expect("no panic while it is held");
        assert!(answers.count > 0, "the broker was asked");
        format!("{} answers, the longest after {:?}", answers.count, answers.longest)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn watch(api: kube::Api<DcvSession>, facts: Facts, troubles: Troubles) {
    let mut versions = watcher(api, watcher::Config::default()).touched_objects().boxed();
    while let Some(version) = versions.next().await {
        match version {
            Ok(session) if session.metadata.deletion_timestamp.is_some() => {
                troubles.note(format!("{} is being deleted", session.name_any()));
            }
            Ok(session) => {
                let (name, now) = (session.name_any(), told(&session));
                if let Some(before) = facts.get(&name).filter(|before| **before != now) {
                    troubles.note(format!("{name} was {before} and is {now}: {:?}", session.status));
                }
            }
            Err(error) => troubles.note(format!("the watch: {error}")),
        }
    }
}

async fn ask(rest: LoggedIn, count: usize, troubles: Troubles, answers: Arc<Mutex<Answers>>) {
    loop {
        let begun = Instant::now();
        match rest.try_post("/describeSessions", &json!({})).await {
            Ok(answer) if answer.status == 200 => {
                let ready = answer.list("Sessions").iter().filter(|session| session["State"] == "READY").count();
                if ready != count {
                    troubles.note(format!("{ready} of {count} READY: {answer:?}"));
                }
            }
            other => troubles.note(format!("the broker: {other:?}")),
        }
        {
            let mut answers = answers.lock().expect("no panic while it is held");
            answers.count += 1;
            answers.longest = answers.longest.max(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
