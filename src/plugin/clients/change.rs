//! Changes of clients that are there: further passwords, and shutting them out.

use std::fmt::Write;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::Client;
use serde_json::Value;
use serde_json::json;

use super::args::Rotation;
use super::args::Which;
use super::credentials;
use crate::api::ApiClient;
use crate::api::client::Credential;
use crate::plugin::Answer;
use crate::plugin::change;
use crate::plugin::change::Changed;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::listing::qualified;
use crate::plugin::near;
use crate::token::Password;

/// How many passwords an object has room for.
const MOST_CREDENTIALS: usize = 4;

/// Gives a client a new password, ends its older ones, or both.
pub(super) async fn rotate(
    client: &Client,
    namespace: &str,
    wanted: &Rotation,
    now: Timestamp,
) -> Result<Answer, Error> {
    let name = near::bare(&wanted.name);
    let password = (!wanted.no_new_password).then(Password::generate);
    let hash = password.as_ref().map(Password::hash);
    let end = wanted.expire_old.map(|left| end_of(left, now));
    let changed = changed(client, namespace, name, |object| {
        let credentials = rotated(&object.spec.credentials, hash.as_deref(), end, now)?;
        Ok((credentials != object.spec.credentials).then(|| json!({"credentials": credentials})))
    });
    let changed = changed.await?;
    let is_changed = changed.after.is_some();
    let object = changed.now();
    let mut talk = match (&password, is_changed) {
        (Some(_), _) => format!("{} has a new password, which cannot be shown again\n", qualified::<ApiClient>(name)),
        (None, true) => String::new(),
        (None, false) => "nothing to end: it has one password\n".to_owned(),
    };
    talk += &older(&object, name, now);
    let data = match &password {
        Some(password) => credentials(&object, password, wanted.output)?,
        None if is_changed => format!("{} older passwords end\n", qualified::<ApiClient>(name)),
        None => format!("{} unchanged\n", qualified::<ApiClient>(name)),
    };
    Ok(Answer { data, talk, ..Answer::default() })
}

/// In whole seconds, as the API has times.
fn end_of(left: Duration, now: Timestamp) -> Timestamp {
    let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
    let end = now.checked_add(left).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(end.as_second()).unwrap_or(end)
}

/// The credentials with a new one last, and the older ones ended; those that have ended go.
fn rotated(
    credentials: &[Credential],
    hash: Option<&str>,
    end: Option<Timestamp>,
    now: Timestamp,
) -> Result<Vec<Credential>, Error> {
    // The client repeats a change whose answer was lost.
    if hash.is_some_and(|hash| credentials.iter().any(|credential| credential.hash == hash)) {
        return Ok(credentials.to_vec());
    }
    let mut kept: Vec<_> = credentials.iter().filter(|credential| is_good(credential, now)).cloned().collect();
    let newest = kept.len().saturating_sub(usize::from(hash.is_none()));
    if let Some(end) = end {
        for credential in &mut kept[..newest] {
            let sooner = credential.expire_time.as_ref().is_none_or(|time| time.0 > end);
            if sooner {
                credential.expire_time = Some(Time(end));
            }
        }
    }
    // What ends now need not be kept.
    kept.retain(|credential| is_good(credential, now));
    if let Some(hash) = hash {
        if kept.len() >= MOST_CREDENTIALS {
            return Err(Error::Told(format!(
                "it has {MOST_CREDENTIALS} passwords, and room for no more; --expire-old ends the older ones"
            )));
        }
        kept.push(Credential { hash: hash.to_owned(), expire_time: None });
    }
    Ok(kept)
}

fn is_good(credential: &Credential, now: Timestamp) -> bool {
    credential.expire_time.as_ref().is_none_or(|time| time.0 > now)
}

/// What is to be said of the older passwords that are good.
fn older(object: &ApiClient, name: &str, now: Timestamp) -> String {
    let good: Vec<_> = object.spec.credentials.iter().filter(|credential| is_good(credential, now)).collect();
    let Some((_, older)) = good.split_last() else { return String::new() };
    let endless = older.iter().filter(|credential| credential.expire_time.is_none()).count();
    match older.iter().filter_map(|credential| credential.expire_time.as_ref()).map(|time| time.0).max() {
        _ if older.is_empty() => String::new(),
        _ if endless > 0 => format!(
            "{endless} older stay good; kubectl dcv clients rotate {name} --no-new-password --expire-old ends them\n"
        ),
        Some(end) => format!("older ones are good until {end}\n"),
        None => String::new(),
    }
}

/// Shuts clients out, or lets them in.
pub(super) async fn suspend(client: &Client, namespace: &str, which: &Which, suspended: bool) -> Result<Answer, Error> {
    let mut data = String::new();
    for name in &which.names {
        let name = near::bare(name);
        let changed = changed(client, namespace, name, |object| {
            Ok((object.spec.suspended != suspended).then(|| json!({"suspended": suspended})))
        });
        let already = if changed.await?.after.is_some() { "" } else { "already " };
        let done = if suspended { "suspended" } else { "resumed" };
        let _ = writeln!(data, "{} {already}{done}", qualified::<ApiClient>(name));
    }
    Ok(Answer { data, ..Answer::default() })
}

async fn changed(
    client: &Client,
    namespace: &str,
    name: &str,
    wanted: impl Fn(&ApiClient) -> Result<Option<Value>, Error>,
) -> Result<Changed<ApiClient>, Error> {
    let api = Api::<ApiClient>::namespaced(client.clone(), namespace);
    change::change(&api, name, wanted).await.map_err(|error| match error {
        Error::Request(source) => {
            needs("clients", format!("get and patch apiclients in namespace {namespace}"), *source)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;
    use crate::plugin::error::words;
    use crate::plugin::mock;

    fn now() -> Timestamp {
        "2026-11-28T04:00:00Z".parse().unwrap()
    }

    fn credential(hash: &str, end: Option<&str>) -> Credential {
        Credential { hash: hash.to_owned(), expire_time: end.map(|end| Time(end.parse().unwrap())) }
    }

    #[test]
    fn older_passwords_go_on_until_they_are_ended() {
        let (a, b) = (credential("a", None), credential("b", Some("2026-11-28T05:00:00Z")));
        let ended = credential("x", Some("2026-11-28T03:59:59Z"));
        let there = [ended, a.clone(), b.clone()];
        let new = credential("n", None);
        let rotated =
            |hash, end: Option<&str>| rotated(&there, hash, end.map(|end| end.parse().unwrap()), now()).unwrap();
        assert_eq!(rotated(Some("n"), None), [a.clone(), b.clone(), new.clone()]);
        // One that ends sooner by itself is not given more time.
        let tomorrow = "2026-11-29T04:00:00Z";
        assert_eq!(rotated(Some("n"), Some(tomorrow)), [credential("a", Some(tomorrow)), b.clone(), new.clone()]);
        assert_eq!(rotated(Some("n"), Some("2026-11-28T04:00:00Z")), [new]);
        assert_eq!(rotated(None, Some("2026-11-28T04:00:00Z")), [b]);
        assert_eq!(rotated(Some("a"), None), there, "repeated");
    }

    #[test]
    fn there_is_room_for_four() {
        let four: Vec<_> = ["a", "b", "c", "d"].iter().map(|hash| credential(hash, None)).collect();
        let error = rotated(&four, Some("n"), None, now()).unwrap_err();
        assert!(words(&error).contains("room for no more"), "{error}");
        assert_eq!(rotated(&four, Some("n"), Some(now()), now()).unwrap().len(), 1);
    }

    fn object(spec: &Value) -> Value {
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient",
            "metadata": {"name": "portal", "namespace": "n", "uid": "the-uid", "resourceVersion": "7"}, "spec": spec})
    }

    #[tokio::test]
    async fn rotate_sends_a_hash_more_and_shows_the_password() {
        let (client, patches) = mock::server(object(&json!({"credentials": [{"hash": "sha256:old"}]})));
        let wanted = Rotation { name: "portal".into(), ..Rotation::default() };
        let answer = rotate(&client, "n", &wanted, now()).await.unwrap();
        let password = answer.data.strip_prefix("client-id: the-uid\nclient-password: ").unwrap().trim_end();
        let sent = patches.lock().unwrap()[0]["spec"]["credentials"].clone();
        assert_eq!(sent[0], json!({"hash": "sha256:old"}));
        let hash = sent[1]["hash"].as_str().unwrap();
        assert_eq!(crate::token::verify_password(password, [hash]), Some(hash));
        assert!(!answer.talk.contains(password) && !sent.to_string().contains(password));
        let said = "1 older stay good; kubectl dcv clients rotate portal --no-new-password --expire-old ends them\n";
        assert!(answer.talk.ends_with(said), "{}", answer.talk);
    }

    #[tokio::test]
    async fn a_rotation_that_somebody_else_was_faster_than_is_made_again_on_what_is_there_then() {
        let stored = Arc::new(Mutex::new(json!([{"hash": "sha256:old"}])));
        let seen = Arc::clone(&stored);
        let mut patches = 0;
        let client = mock::client(move |method, _, body| {
            let mut stored = seen.lock().unwrap();
            if method == "PATCH" {
                patches += 1;
                if patches == 1 {
                    *stored = json!([{"hash": "sha256:theirs"}]);
                    return mock::conflict();
                }
                *stored = body["spec"]["credentials"].clone();
            }
            (200, object(&json!({"credentials": stored.clone()})))
        });
        let wanted = Rotation { name: "portal".into(), ..Rotation::default() };
        rotate(&client, "n", &wanted, now()).await.unwrap();
        assert_eq!(stored.lock().unwrap()[0], json!({"hash": "sha256:theirs"}));
        assert_eq!(stored.lock().unwrap().as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn clients_are_suspended_and_resumed_once() {
        let which = Which { names: vec!["portal".into()] };
        for (is_now, wanted, sent, word) in [
            (false, true, vec![json!({"suspended": true})], "suspended"),
            (true, true, vec![], "already suspended"),
            (true, false, vec![json!({"suspended": false})], "resumed"),
        ] {
            let (client, patches) = mock::server(object(&json!({"suspended": is_now})));
            let answer = suspend(&client, "n", &which, wanted).await.unwrap();
            let patches: Vec<_> = patches.lock().unwrap().iter().map(|patch| patch["spec"].clone()).collect();
            assert_eq!((answer.data, patches), (format!("apiclient.dcv-operator.io/portal {word}\n"), sent));
        }
    }
}
