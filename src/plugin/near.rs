//! What somebody may have meant by a name that is not there.

use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ListParams;

use super::error::Error;
use crate::api::DcvServer;
use crate::api::DcvSession;

/// The most names that are offered.
const MOST: usize = 3;

/// A session of this name, which may stand behind a kind as `kubectl get -o name` prints it. When there is none, the error
/// says what there is instead, as far as one may know.
pub(super) async fn session(client: &Client, namespace: &str, name: &str) -> Result<DcvSession, Error> {
    let name = bare(name);
    match Api::<DcvSession>::namespaced(client.clone(), namespace).get(name).await {
        Err(error) if is_not_found(&error) => Err(no_session(client, namespace, name, error).await),
        other => Ok(other?),
    }
}

/// A server of this name; when there is none, the error says what there is instead.
pub(super) async fn server(client: &Client, name: &str) -> Result<DcvServer, Error> {
    let name = bare(name);
    match Api::<DcvServer>::all(client.clone()).get(name).await {
        Err(error) if is_not_found(&error) => Err(no_server(client, name, error).await),
        other => Ok(other?),
    }
}

/// The error for a session that is not there.
pub(super) async fn no_session(client: &Client, namespace: &str, name: &str, error: kube::Error) -> Error {
    let api = Api::<DcvSession>::all(client.clone());
    let elsewhere = ListParams::default().fields(&format!("metadata.name={name}"));
    // Whoever may not look into other namespaces is told of none.
    let elsewhere = api.list_metadata(&elsewhere).await.map(|found| found.items).unwrap_or_default();
    if let Some(other) = elsewhere.first().and_then(ResourceExt::namespace) {
        return with_hint(error, format!("there is one in namespace {other}: -n {other}"));
    }
    let api = Api::<DcvSession>::namespaced(client.clone(), namespace);
    let names = api.list_metadata(&ListParams::default()).await.map(|found| found.items).unwrap_or_default();
    let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
    suggest(error, name, &names)
}

/// The error for a server that is not there.
pub(super) async fn no_server(client: &Client, name: &str, error: kube::Error) -> Error {
    let api = Api::<DcvServer>::all(client.clone());
    let names = api.list_metadata(&ListParams::default()).await.map(|found| found.items).unwrap_or_default();
    let names: Vec<_> = names.iter().map(ResourceExt::name_any).collect();
    suggest(error, name, &names)
}

/// A name without the kind that may stand before it.
pub(super) fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

fn suggest(error: kube::Error, name: &str, names: &[String]) -> Error {
    match nearest(name, names).as_slice() {
        [] => error.into(),
        near => with_hint(error, format!("did you mean {}?", near.join(" or "))),
    }
}

fn with_hint(error: kube::Error, hint: String) -> Error {
    match error {
        kube::Error::Api(status) => Error::Hint { status, hint },
        error => error.into(),
    }
}

/// The names that are like this one, the likest first.
fn nearest<'a>(name: &str, names: &'a [String]) -> Vec<&'a str> {
    let limit = name.chars().count().div_ceil(3).max(1);
    let rank = |other: &str| match distance(name, other) {
        steps if steps <= limit => Some(steps),
        // The rest of a longer name was left away.
        _ if name.len() >= 3 && other.contains(name) => Some(limit + 1),
        _ => None,
    };
    let mut ranked: Vec<_> = names.iter().filter_map(|other| Some((rank(other)?, other.as_str()))).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(MOST).map(|(_, other)| other).collect()
}

/// How many characters must be put in, taken out, replaced or swapped with the next to get from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::super::error::words;
    use super::super::mock;
    use super::*;

    #[test]
    fn names_that_are_like_it_are_offered_and_no_others() {
        let names = ["desk", "desktop", "render-1", "render-2", "render-3", "render-4", "x"].map(str::to_owned);
        for (name, near) in [
            ("dekstop", &["desktop"][..]),
            ("desc", &["desk"]),
            ("render", &["render-1", "render-2", "render-3"]),
            ("render-9", &["render-1", "render-2", "render-3"]),
            ("portal", &[]),
            ("", &["x"]),
        ] {
            assert_eq!(nearest(name, &names), near, "{name}");
        }
        assert_eq!([distance("", "ab"), distance("ab", "ba"), distance("kitten", "sitting")], [2, 1, 3]);
    }

    /// What is said of the session `dekstop` of namespace `a` where there are sessions of these names and namespaces.
    async fn said(sessions: &'static [(&'static str, &'static str)]) -> String {
        let client = mock::full_client(move |call| {
            let (path, query) = (call.path.as_str(), call.query.as_str());
            if path.ends_with("/dekstop") {
                return mock::not_found("dcvsessions.dcv-operator.io \"dekstop\" not found");
            }
            let of = |space: &str, name: &str| {
                (path.contains("/namespaces/") || query.contains("metadata.name%3Ddekstop") && name == "dekstop")
                    && (!path.contains("/namespaces/") || space == "a")
            };
            let found = sessions.iter().filter(|(space, name)| of(space, name));
            let items: Vec<Value> =
                found.map(|(space, name)| json!({"metadata": {"name": name, "namespace": space}})).collect();
            (
                200,
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items}),
            )
        });
        words(&session(&client, "a", "dcvsession.dcv-operator.io/dekstop").await.unwrap_err())
    }

    #[tokio::test]
    async fn an_unknown_session_is_told_with_what_was_meant() {
        let first = "Error from server (NotFound): dcvsessions.dcv-operator.io \"dekstop\" not found";
        assert_eq!(said(&[("a", "desktop"), ("b", "desktop")]).await, format!("{first}; did you mean desktop?"));
        assert_eq!(
            said(&[("a", "desktop"), ("b", "dekstop")]).await,
            format!("{first}; there is one in namespace b: -n b")
        );
        assert_eq!(said(&[("a", "other")]).await, first);
    }
}
