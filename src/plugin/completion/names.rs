//! Names of objects, of the cluster that the words so far speak of.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::config::Kubeconfig;

use super::Candidate;
use super::words::Kind;
use crate::api::ApiClient;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::plugin::args::ConnectionArgs;
use crate::plugin::connection;

/// How long somebody waits who has pressed a key.
const LIMIT: Duration = Duration::from_secs(3);
/// The most names that are of use.
const MOST: u32 = 500;

/// The names of a kind, each with `before` before it. None when they cannot be had.
pub(super) fn of(kind: Kind, before: &str, words: &[String]) -> Vec<Candidate> {
    let connection = connection_of(words);
    let found = if kind == Kind::Context {
        contexts(&connection)
    } else {
        // An error only when there is one already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.ok().and_then(|runtime| {
            let found = runtime.block_on(async { tokio::time::timeout(LIMIT, listed(kind, &connection)).await.ok() });
            runtime.shutdown_background();
            found.flatten()
        })
    };
    let found = found.unwrap_or_default();
    found.into_iter().map(|it| Candidate::new(format!("{before}{}", it.word), it.what)).collect()
}

/// The flags that say which cluster, as far as they are complete.
fn connection_of(words: &[String]) -> ConnectionArgs {
    let before = words.split_last().map_or(&[][..], |(_, before)| before);
    let value = |long: &str, short: Option<&str>| {
        before.iter().enumerate().rev().find_map(|(at, word)| {
            if word == long || Some(word.as_str()) == short {
                return before.get(at + 1).cloned();
            }
            let rest = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('='));
            rest.or_else(|| word.strip_prefix(short?)).map(str::to_owned)
        })
    };
    ConnectionArgs {
        kubeconfig: value("--kubeconfig", None).map(PathBuf::from),
        context: value("--context", None),
        namespace: value("--namespace", Some("-n")),
        request_timeout: LIMIT,
    }
}

fn contexts(connection: &ConnectionArgs) -> Option<Vec<Candidate>> {
    let file = match &connection.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let contexts = file.ok()?.contexts;
    Some(contexts.into_iter().map(|named| Candidate::new(named.name, "")).collect())
}

async fn listed(kind: Kind, connection: &ConnectionArgs) -> Option<Vec<Candidate>> {
    let (client, namespace) = connection::client(connection).await.ok()?;
    names(kind, client, &namespace).await
}

async fn names(kind: Kind, client: Client, namespace: &str) -> Option<Vec<Candidate>> {
    match kind {
        Kind::Session => {
            let found = Api::<DcvSession>::namespaced(client, namespace).list(&most()).await.ok()?;
            let what = |session: &DcvSession| format!("{} of {}", session.shown_state().as_str(), session.spec.owner);
            Some(found.iter().map(|session| Candidate::new(session.name_any(), what(session))).collect())
        }
        Kind::Server => {
            let found = Api::<DcvServer>::all(client).list(&most()).await.ok()?;
            let what = |server: &DcvServer| server.status.as_ref().map_or("", |status| status.availability.as_str());
            Some(found.iter().map(|server| Candidate::new(server.name_any(), what(server))).collect())
        }
        Kind::Client => {
            let found = Api::<ApiClient>::namespaced(client, namespace).list(&most()).await.ok()?;
            let what = |client: &ApiClient| client.spec.display_name.clone().unwrap_or_default();
            Some(found.iter().map(|client| Candidate::new(client.name_any(), what(client))).collect())
        }
        Kind::Namespace => {
            let found = Api::<Namespace>::all(client).list_metadata(&most()).await.ok()?;
            Some(
                found
                    .iter()
                    .map(|namespace| Candidate::new(namespace.meta().name.clone().unwrap_or_default(), ""))
                    .collect(),
            )
        }
        Kind::Context => None,
    }
}

fn most() -> ListParams {
    ListParams::default().limit(MOST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::mock;

    #[test]
    fn the_cluster_is_the_one_that_the_words_speak_of() {
        let of = |words: &[&str]| connection_of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let read = of(&["sessions", "-n", "a", "--context=b", "--kubeconfig", "c", ""]);
        assert_eq!((read.namespace.as_deref(), read.context.as_deref()), (Some("a"), Some("b")));
        assert_eq!(read.kubeconfig, Some("c".into()));
        assert_eq!(of(&["-nteam", ""]).namespace.as_deref(), Some("team"));
        assert_eq!(of(&["--namespace", "x", ""]).namespace.as_deref(), Some("x"));
        assert_eq!(of(&["sessions", ""]).namespace, None);
    }

    #[tokio::test]
    async fn names_come_with_what_they_are_and_a_refusal_is_silent() {
        let client = mock::client(|_, path, _| {
            assert_eq!(path, "/apis/dcv-operator.io/v1alpha1/namespaces/team/dcvsessions");
            let desk = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession", "metadata": {"name": "desk"},
                "spec": {"owner": "ann", "type": "VIRTUAL"}, "status": {"state": "READY"}});
            mock::list(&[desk])
        });
        let found = names(Kind::Session, client, "team").await;
        assert_eq!(found, Some(vec![Candidate::new("desk", "READY of ann")]));
        let client = mock::client(|_, _, _| mock::forbidden("no"));
        assert_eq!(names(Kind::Server, client, "team").await, None);
    }
}
