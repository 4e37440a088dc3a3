//! `kubectl dcv keys`: new signing keys before their time.
//!
//! Nobody needs a right on Secrets for it: the request is an annotation of the published keys, and the controller, which
//! has the private halves, makes the new ones and answers there.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::api::names;
use crate::token::Kind;
use crate::token::OldKeys;
use crate::token::Renewal;

use super::Answer;
use super::args::KeyKind;
use super::args::KeyRenewal;
use super::error::Error;

/// How often the controller's answer is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long it may take: a change of leader, and a pass.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Asks for new keys, and waits until they sign.
pub(super) async fn renew(client: Client, wanted: &KeyRenewal) -> Result<Answer, Error> {
    renew_within(ANSWER_TIMEOUT, client, wanted).await
}

async fn renew_within(timeout: Duration, client: Client, wanted: &KeyRenewal) -> Result<Answer, Error> {
    let api = Api::<ConfigMap>::namespaced(client, &wanted.operator_namespace);
    let renewal = Renewal {
        id: Uuid::new_v4().to_string(),
        kinds: wanted.kind.iter().map(|kind| token_kind(*kind)).collect(),
        old_keys: if wanted.revoke { OldKeys::Revoked } else { OldKeys::Kept },
    };
    let patch = json!({"metadata": {"annotations": {names::RENEW_KEYS: renewal.to_string()}}});
    let parameters = PatchParams { field_manager: Some(names::PLUGIN.to_owned()), ..PatchParams::default() };
    api.patch(names::PUBLIC_KEYS, &parameters, &Patch::Merge(&patch)).await?;
    let end = Instant::now() + timeout;
    while api.get(names::PUBLIC_KEYS).await?.annotations().get(names::RENEWED_KEYS) != Some(&renewal.id) {
        if Instant::now() >= end {
            return Err(Error::NoNewKeys);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(Answer { data: "Keys renewed.\n".to_owned(), ..Answer::default() })
}

fn token_kind(kind: KeyKind) -> Kind {
    match kind {
        KeyKind::Access => Kind::Access,
        KeyKind::Connection => Kind::Connection,
        KeyKind::Agent => Kind::Agent,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use serde_json::Value;

    use super::super::mock::client;
    use super::*;

    const PATH: &str = "/api/v1/namespaces/dcv-system/configmaps/dcv-public-keys";

    fn wanted() -> KeyRenewal {
        KeyRenewal { kind: vec![KeyKind::Access], revoke: true, operator_namespace: "dcv-system".into() }
    }

    #[tokio::test]
    async fn it_is_done_when_the_controller_says_so() {
        let asked: Arc<Mutex<(String, u32)>> = Arc::default();
        let seen = Arc::clone(&asked);
        let client = client(move |method, path, body| {
            assert_eq!(path, PATH);
            let mut asked = seen.lock().unwrap();
            if method == "PATCH" {
                body["metadata"]["annotations"][names::RENEW_KEYS].as_str().unwrap().clone_into(&mut asked.0);
            } else {
                asked.1 += 1;
            }
            // The controller answers an earlier request first.
            let id = if asked.1 < 3 { "earlier" } else { asked.0.split(' ').next().unwrap() };
            (200, json!({"metadata": {"annotations": {names::RENEWED_KEYS: id}}}))
        });
        let answer = renew(client, &wanted()).await.unwrap();
        assert_eq!(answer.data, "Keys renewed.\n", "as the documented command says");
        let (request, looks) = asked.lock().unwrap().clone();
        assert!(request.ends_with(" access revoke"), "{request}");
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    async fn without_a_controller_it_is_not_done() {
        let client = client(|_, _, _| (200, json!({"metadata": {"annotations": Value::Null}})));
        assert!(matches!(renew_within(LOOK_INTERVAL, client, &wanted()).await, Err(Error::NoNewKeys)));
    }
}
