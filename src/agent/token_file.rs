//! Keeps the token of a host outside the cluster alive.
//!
//! Such a host has a `ServiceAccount` of its own and a kubeconfig that names a token file. The agent asks for a new token
//! for itself, bound to the Secret of its name (whoever deletes that Secret shuts the host out), and writes it into the
//! file, from where the client reads it. Does nothing where the kubeconfig names no token file.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use serde::Deserialize;

use crate::cluster::Clock;

/// Seconds a token lives: the most that the admission policy grants.
const LIFETIME_SECONDS: i64 = 24 * 3600;
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// Longest sleep, so that a clock that was set is noticed.
const MAX_SLEEP: Duration = Duration::from_mins(10);

/// Why a token was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read or written.
    #[error("failed to {action} token file {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is not a token of a service account.
    #[error("token file {0} holds no token of a service account")]
    NotAToken(String),
    /// The API server did not issue one.
    #[error("failed to request a token for service account {account}")]
    Request {
        /// Whose.
        account: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What of a service account's token matters here.
#[derive(Debug, PartialEq, Deserialize)]
struct Claims {
    sub: String,
    iat: i64,
    exp: i64,
}

/// The token file that a kubeconfig's current user refers to, if any.
pub fn of_kubeconfig(path: &Path) -> Option<PathBuf> {
    let config = Kubeconfig::read_from(path).ok()?;
    let context = config.current_context.as_ref()?;
    let named = config.contexts.into_iter().find(|named| named.name == *context)?;
    let user = named.context?.user?;
    let auth = config.auth_infos.into_iter().find(|auth| auth.name == user)?.auth_info?;
    let file = auth.token_file.filter(|_| auth.token.is_none())?;
    Some(path.parent().map_or_else(|| file.clone().into(), |folder| folder.join(&file)))
}

/// Renews the token for ever.
pub async fn keep(client: Client, path: PathBuf, clock: Clock) {
    loop {
        let wait = match step(&client, &path, clock()).await {
            Ok(wait) => wait.min(MAX_SLEEP),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "token not renewed");
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Renews the token if it is due. Returns how long the one in the file is good enough.
async fn step(client: &Client, path: &Path, now: Timestamp) -> Result<Duration, TokenFileError> {
    let fault = |action| {
        let path = path.display().to_string();
        move |source| TokenFileError::File { action, path, source }
    };
    let not_a_token = || TokenFileError::NotAToken(path.display().to_string());
    let text = fs::read_to_string(path).map_err(fault("read"))?;
    let claims = parse(&text).ok_or_else(not_a_token)?;
    if text.trim() != text {
        // The client takes the file as it is, and an editor's line end for a part of the token.
        replace(path, text.trim()).map_err(fault("write"))?;
    }
    let wait = wait(&claims, now);
    if !wait.is_zero() {
        return Ok(wait);
    }
    let account = claims.sub.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let (namespace, name) = account.ok_or_else(not_a_token)?;
    let token = request(client, namespace, name).await.map_err(|source| TokenFileError::Request {
        account: format!("{namespace}/{name}"),
        source: Box::new(source),
    })?;
    let renewed = parse(&token).ok_or_else(not_a_token)?;
    replace(path, &token).map_err(fault("write"))?;
    tracing::info!(account = name, "token renewed");
    Ok(self::wait(&renewed, now).max(RETRY))
}

/// Half of its life: time enough to fail many times.
fn wait(claims: &Claims, now: Timestamp) -> Duration {
    let due = claims.iat + (claims.exp - claims.iat) / 2;
    Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0))
}

/// Reads the claims without checking the signature: the API server does that.
fn parse(token: &str) -> Option<Claims> {
    let payload = token.trim().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

async fn request(client: &Client, namespace: &str, name: &str) -> kube::Result<String> {
    let secret = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Secret".into()),
        name: Some(name.to_owned()),
        uid: None,
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(secret),
        expiration_seconds: Some(LIFETIME_SECONDS),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

/// Replaces the file in one step: a reader finds the old token or the new one, never a part.
fn replace(path: &Path, token: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::agent::mock;

    fn token(iat: i64, exp: i64) -> String {
        let claims = json!({"sub": "system:serviceaccount:dcv-hosts:host-1", "iat": iat, "exp": exp});
        format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_is_due_after_half_of_its_life() {
        let now = mock::clock();
        let start = now.as_second();
        let due = |iat, exp| wait(&parse(&token(iat, exp)).unwrap(), now);
        assert_eq!(due(start, start + 86_400), Duration::from_hours(12));
        assert_eq!(due(start - 50, start + 50), Duration::ZERO);
        assert_eq!(due(start - 500, start - 50), Duration::ZERO);
        assert_eq!(parse("nonsense"), None);
    }

    #[tokio::test]
    async fn a_due_token_is_replaced_by_one_bound_to_the_secret_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let now = mock::clock();
        let start = now.as_second();
        fs::write(&path, token(start - 60, start + 30)).unwrap();
        let new = token(start, start + 86_400);
        let answer = new.clone();
        let (client, calls) = mock::client(move |_, _, body| {
            let mut body = body.clone();
            body["status"] = json!({"token": answer, "expirationTimestamp": "2027-01-16T08:00:00Z"});
            (201, body)
        });
        let wait = step(&client, &path, now).await.unwrap();
        assert_eq!(wait, Duration::from_hours(12));
        assert_eq!(fs::read_to_string(&path).unwrap(), new);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let call = calls.take().remove(0);
        assert!(call.path.starts_with("/api/v1/namespaces/dcv-hosts/serviceaccounts/host-1/token"));
        assert_eq!(call.body["spec"]["expirationSeconds"], 86_400);
        assert_eq!(
            call.body["spec"]["boundObjectRef"],
            json!({"apiVersion": "v1", "kind": "Secret", "name": "host-1"})
        );
        assert_eq!(step(&client, &path, now).await.unwrap(), Duration::from_hours(12));
        assert_eq!(calls.take(), [], "a good token is left alone");
    }

    #[tokio::test]
    async fn a_line_end_is_no_part_of_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let now = mock::clock();
        let good = token(now.as_second(), now.as_second() + 86_400);
        fs::write(&path, format!("{good}\n")).unwrap();
        let (client, calls) = mock::client(|_, _, _| panic!("a good token is left alone"));
        step(&client, &path, now).await.unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap(), calls.take().len()), (good, 0));
    }

    #[test]
    fn only_a_kubeconfig_with_a_token_file_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host-1.kubeconfig");
        let config = |user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: []\n\
                 contexts:\n- name: c\n  context: {{cluster: k, user: u}}\nusers:\n- name: u\n  user: {user}\n"
            )
        };
        fs::write(&path, config("{tokenFile: host-1.token}")).unwrap();
        assert_eq!(of_kubeconfig(&path), Some(folder.path().join("host-1.token")));
        fs::write(&path, config("{token: abc}")).unwrap();
        assert_eq!(of_kubeconfig(&path), None);
    }
}
