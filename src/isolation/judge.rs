//! Asks the API server and holds its answers against the rules.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use http::Method;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewSpec;
use kube::Api;
use kube::Client;
use kube::api::PostParams;
use kube::core::Status;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::RwLock;

use super::actor::NODE_NAME;
use super::case::Case;
use super::case::Target;
use super::case::Verb;
use super::change;
use super::request;
use super::request::Layout;
use super::rules;
use super::scratch::Scratch;

/// How often a write is repeated when the object was changed meanwhile.
const CONFLICTS: usize = 5;
/// How often what differs is judged again, and after which time: the API server learns of new roles and namespaces from
/// watches.
const ROUNDS: usize = 5;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// It would be done.
    Allowed,
    /// It is refused.
    Refused {
        /// By what.
        by: Refuser,
        /// In which words.
        said: String,
    },
    /// The object is not there, so a policy had nothing to judge.
    Absent,
    /// No answer to the question.
    Broken {
        /// What came instead.
        said: String,
    },
}

/// What refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Refuser {
    /// The authorizer.
    Rights,
    /// A policy of this name.
    Policy(String),
    /// The definition of the kind, or another part of the API server.
    Server,
    /// Nobody, but nothing would be changed.
    NoEffect,
}

/// A case and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The case.
    #[serde(flatten)]
    pub case: Case,
    /// The rule that allows it; none: it must be refused.
    pub rule: Option<&'static str>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Verdict {
    /// Whether the API server answered otherwise than the rules say.
    pub fn differs(&self) -> bool {
        match self.outcome {
            Outcome::Allowed => self.rule.is_none(),
            Outcome::Refused { .. } => self.rule.is_some(),
            Outcome::Absent => false,
            Outcome::Broken { .. } => true,
        }
    }
}

/// The matrix, over the scratch objects of one run.
pub struct Matrix {
    client: Client,
    layout: Layout,
    parallel: usize,
    /// Objects as they are, so that not every write reads one. None: it is not there.
    stored: RwLock<HashMap<String, Option<Value>>>,
}

impl Matrix {
    /// A matrix that asks `parallel` questions at once.
    pub fn new(scratch: &Scratch, parallel: usize) -> Self {
        let (client, layout) = (scratch.client().clone(), scratch.layout().clone());
        Self { client, layout, parallel: parallel.max(1), stored: RwLock::default() }
    }

    /// Judges the cases, and those that differ again for a while. In the order of the cases.
    pub async fn judge_patiently(&self, cases: &[Case]) -> Vec<Verdict> {
        let mut verdicts = self.judge(cases).await;
        for _ in 1..ROUNDS {
            let at: Vec<_> = (0..verdicts.len()).filter(|at| verdicts[*at].differs()).collect();
            if at.is_empty() {
                break;
            }
            tokio::time::sleep(BETWEEN_ROUNDS).await;
            let again: Vec<_> = at.iter().map(|at| verdicts[*at].case).collect();
            for (at, verdict) in at.into_iter().zip(self.judge(&again).await) {
                verdicts[at] = verdict;
            }
        }
        verdicts
    }

    /// Judges each case once. In the order of the cases.
    pub async fn judge(&self, cases: &[Case]) -> Vec<Verdict> {
        stream::iter(cases.to_vec()).map(|case| self.judge_one(case)).buffered(self.parallel).collect().await
    }

    async fn judge_one(&self, case: Case) -> Verdict {
        let outcome = if case.is_dry_run() { self.attempt(case).await } else { self.ask(case).await };
        Verdict { case, rule: rules::allowing(case, &self.layout.installation).map(|rule| rule.name), outcome }
    }

    /// Asks the authorizer.
    async fn ask(&self, case: Case) -> Outcome {
        let identity = case.actor.identity(&self.layout.installation, &self.layout.id);
        let spec = SubjectAccessReviewSpec {
            user: Some(identity.user),
            groups: Some(identity.groups),
            extra: identity.node.map(|node| [(NODE_NAME.to_owned(), vec![node])].into()),
            resource_attributes: Some(self.layout.attributes(case)),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => Outcome::Allowed,
            Ok(answer) => Outcome::Refused {
                by: Refuser::Rights,
                said: answer.status.and_then(|status| status.reason).unwrap_or_default(),
            },
            Err(error) => Outcome::Broken { said: error.to_string() },
        }
    }

    /// Tries a write as a dry run.
    async fn attempt(&self, case: Case) -> Outcome {
        let mut outcome = Outcome::Absent;
        for _ in 0..CONFLICTS {
            let stored = if matches!(case.verb, Verb::Update | Verb::Patch) {
                match self.stored(case.target).await {
                    Ok(stored) => stored,
                    Err(error) => return Outcome::Broken { said: error.to_string() },
                }
            } else {
                None
            };
            let answer = self.client.request::<Value>(self.layout.dry_run(case, stored.as_ref())).await;
            match answer {
                Ok(object) => return self.effect(case, &object),
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
                    outcome = Outcome::Broken { said: status.message.clone() };
                    self.forget(case.target).await;
                }
                Err(kube::Error::Api(status)) => return judge_status(&status),
                Err(error) => return Outcome::Broken { said: error.to_string() },
            }
        }
        outcome
    }

    /// Whether what was answered has the change.
    fn effect(&self, case: Case, object: &Value) -> Outcome {
        let own_server = self.layout.own_server(case);
        // A deletion answers with a status, or with the object as it was.
        let is_write = matches!(case.verb, Verb::Create | Verb::Update | Verb::Patch);
        if is_write && !change::is_made(case.change, case.target.resource, own_server.as_deref(), object) {
            return Outcome::Refused { by: Refuser::NoEffect, said: "it is accepted and changes nothing".into() };
        }
        Outcome::Allowed
    }

    /// The object a write changes.
    async fn stored(&self, target: Target) -> kube::Result<Option<Value>> {
        let path = self.whole_path(target);
        if let Some(stored) = self.stored.read().await.get(&path) {
            return Ok(stored.clone());
        }
        let object = match self.client.request::<Value>(request::own(Method::GET, &path, &Value::Null)).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(error),
        };
        self.stored.write().await.insert(path, object.clone());
        Ok(object)
    }

    async fn forget(&self, target: Target) {
        self.stored.write().await.remove(&self.whole_path(target));
    }

    /// Path of the whole object, whichever part is meant.
    fn whole_path(&self, target: Target) -> String {
        let kind = request::collection(target.resource, &self.layout.namespace(target.place));
        format!("{kind}/{}", self.layout.name(target.object))
    }
}

/// What an error status says of who may do what.
fn judge_status(status: &Status) -> Outcome {
    let said = status.message.clone();
    let policy = said.split_once("ValidatingAdmissionPolicy '").and_then(|(_, rest)| rest.split('\'').next());
    match (status.code, policy) {
        // The caller's own right, not the actor's.
        _ if said.contains("cannot impersonate") => Outcome::Broken { said },
        (_, Some(_)) if said.contains("resulted in error") => Outcome::Broken { said },
        (_, Some(policy)) => Outcome::Refused { by: Refuser::Policy(policy.to_owned()), said },
        (403, None) if said.contains("is forbidden: User ") => Outcome::Refused { by: Refuser::Rights, said },
        (403 | 422, None) => Outcome::Refused { by: Refuser::Server, said },
        (404, None) => Outcome::Absent,
        // Nothing but that it is there already stood against it.
        (409, None) if status.reason == "AlreadyExists" => Outcome::Allowed,
        _ => Outcome::Broken { said: format!("{} {said}", status.code) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::actor::Actor;
    use super::super::case::Change;
    use super::super::case::Object;
    use super::super::case::Place;
    use super::super::case::Resource;
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> Status {
        Status::failure(message, reason).with_code(code)
    }

    #[test]
    fn it_is_told_apart_who_refused() {
        let denied = "dcvsessions.dcv-operator.io \"a\" is forbidden: ValidatingAdmissionPolicy 'dcv-agent-sessions' with \
            binding 'dcv-agent-sessions' denied request: an agent creates no sessions";
        let rights = "leases.coordination.k8s.io \"a\" is forbidden: User \"a\" cannot patch resource \"leases\"";
        let by = |code, reason: &str, message: &str| match judge_status(&status(code, reason, message)) {
            Outcome::Refused { by, .. } => by,
            other => panic!("{other:?}"),
        };
        assert_eq!(by(403, "Forbidden", denied), Refuser::Policy("dcv-agent-sessions".into()));
        assert_eq!(by(403, "Forbidden", rights), Refuser::Rights);
        assert_eq!(by(422, "Invalid", "spec.owner: Required value"), Refuser::Server);
        assert_eq!(judge_status(&status(409, "AlreadyExists", "a")), Outcome::Allowed);
        assert_eq!(judge_status(&status(404, "NotFound", "a")), Outcome::Absent);
    }

    #[test]
    fn what_is_no_answer_is_no_refusal() {
        for (code, message) in [
            (
                422,
                "ValidatingAdmissionPolicy 'a' with binding 'a' denied request: expression 'x' resulted in error: no such key",
            ),
            (403, "users \"a\" is forbidden: User \"me\" cannot impersonate resource \"users\""),
            (500, "etcd is away"),
            (400, "admission webhook does not support dry run"),
        ] {
            let outcome = judge_status(&status(code, "", message));
            assert!(matches!(outcome, Outcome::Broken { .. }), "{message}");
        }
    }

    #[test]
    fn a_verdict_differs_when_the_answer_is_not_the_rules() {
        let target = Target { resource: Resource::Servers, place: Place::Cluster, object: Object::OfNode };
        let case = Case { actor: Actor::PodAgent, verb: Verb::Delete, target, change: Change::Nothing };
        let differs = |rule, outcome| Verdict { case, rule, outcome }.differs();
        let refused = || Outcome::Refused { by: Refuser::Rights, said: String::new() };
        assert!(!differs(Some("a"), Outcome::Allowed) && differs(None, Outcome::Allowed));
        assert!(differs(Some("a"), refused()) && !differs(None, refused()));
        assert!(!differs(None, Outcome::Absent));
        assert!(differs(None, Outcome::Broken { said: String::new() }));
    }
}
