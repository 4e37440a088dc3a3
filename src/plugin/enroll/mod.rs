//! `kubectl dcv enroll`: an account for a host outside the cluster, and what the host needs to use it.
//!
//! A token goes where it was asked for, a file that nobody else can read or a pipe, and nowhere else. Each step can be
//! repeated: whatever is there already stays.

mod args;
mod files;
mod reach;
mod revoke;

use std::fs;
use std::future::Future;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::Config;
use kube::api::PostParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Answer;
use super::error::Error;
use super::error::needs;
use super::voice::Voice;
use crate::api::names;
pub(super) use args::Enroll;
pub(super) use args::HELP;
use files::Host;

/// The command, for errors.
const COMMAND: &str = "enroll";

/// Enrolls a host, or shuts it out.
pub(super) async fn enroll(
    client: &Client,
    config: &Config,
    wanted: &Enroll,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let work = async {
        if wanted.revoke {
            revoke::revoke(client, wanted, voice).await
        } else {
            add(client, config, wanted, voice).await
        }
    };
    tokio::select! {
        () = stop => Err(Error::Interrupted),
        done = work => done,
    }
}

async fn add(client: &Client, config: &Config, wanted: &Enroll, voice: &mut Voice<'_>) -> Result<Answer, Error> {
    // Before anything is made: a host that cannot be told where the API server is has no use for an account.
    let reach = reach::find(client, config, wanted).await?;
    reach.remarks.iter().try_for_each(|remark| voice.remark(remark))?;
    let host = Host {
        server: wanted.server(),
        hosts_namespace: wanted.hosts_namespace.clone(),
        operator_namespace: wanted.operator_namespace.clone(),
        api_server: reach.address,
        tls_server_name: reach.tls_server_name,
        authorities: reach.authorities,
        folder: wanted.folder.clone(),
        program: wanted.program.clone(),
        backend: wanted.backend,
        agent_args: wanted.agent_args.clone(),
    };
    let is_new = make_account(client, &host, voice).await?;
    if wanted.out.is_none() && !wanted.with_token {
        voice.remark(&without_token(wanted, &host))?;
        return Ok(Answer { data: host.script_with_files(None), ..Answer::default() });
    }
    let (token, end) = request_token(client, &host.server, wanted).await?;
    let again = if is_new { "" } else { "; earlier ones stay good until they end" };
    voice.remark(&format!("a token was made, good until {end}: start the agent before{again}"))?;
    let data = match &wanted.out {
        None => host.script_with_files(Some(&token)),
        Some(folder) => {
            write(folder, &host, &token)?;
            steps(folder, &wanted.host)
        }
    };
    Ok(Answer { data, ..Answer::default() })
}

/// The account and the Secret that its tokens are bound to. Whether the Secret is new, so that no token is older.
async fn make_account(client: &Client, host: &Host, voice: &mut Voice<'_>) -> Result<bool, Error> {
    let Host { server, hosts_namespace: namespace, .. } = host;
    let metadata = json!({"name": server, "labels": {"app.kubernetes.io/part-of": "dcv-operator"}});
    // No pod runs with it.
    let account = json!({"metadata": metadata, "automountServiceAccountToken": false});
    let is_new = make::<ServiceAccount>(client, namespace, "serviceaccounts", &account).await?;
    let done = |is_new| if is_new { "created" } else { "unchanged" };
    voice.remark(&format!("serviceaccount/{server} {}", done(is_new)))?;
    let is_new = make::<Secret>(client, namespace, "secrets", &json!({"metadata": metadata})).await?;
    voice.remark(&format!("secret/{server} {}", done(is_new)))?;
    Ok(is_new)
}

/// Whether it was not there.
async fn make<K>(client: &Client, namespace: &str, plural: &str, object: &serde_json::Value) -> Result<bool, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object: K = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let parameters = PostParams { field_manager: Some(names::PLUGIN.to_owned()), ..PostParams::default() };
    match Api::<K>::namespaced(client.clone(), namespace).create(&parameters, &object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let hint = "is the operator installed in this cluster? Its chart and manifests make that namespace; --hosts-namespace names another".to_owned();
            Err(Error::Hint { status, hint })
        }
        Err(error) => Err(needs(COMMAND, format!("create {plural} in namespace {namespace}"), error)),
    }
}

/// A token bound to the Secret, and when it ends.
async fn request_token(client: &Client, server: &str, wanted: &Enroll) -> Result<(String, String), Error> {
    let namespace = &wanted.hosts_namespace;
    let secret = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: Some(server.to_owned()),
        uid: None,
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(secret),
        expiration_seconds: i64::try_from(wanted.token_lifetime.as_secs()).ok(),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = accounts.create_token_request(server, &PostParams::default(), &request).await;
    let right = format!("create serviceaccounts/token in namespace {namespace}");
    let status = answer.map_err(|error| needs(COMMAND, right, error))?.status;
    let status = status.ok_or_else(|| Error::Told("the API server answered without a token".to_owned()))?;
    Ok((status.token, status.expiration_timestamp.0.to_string()))
}

fn without_token(wanted: &Enroll, host: &Host) -> String {
    let (name, server, namespace) = (&wanted.host, &host.server, &host.hosts_namespace);
    let (seconds, folder) = (wanted.token_lifetime.as_secs(), &host.folder);
    format!(
        "the script on standard output lacks the token, which goes into {folder}/{} on the host. Get one by\n  \
         kubectl create token {server} -n {namespace} --duration {seconds}s --bound-object-kind Secret --bound-object-name \
         {server}\nor have it in the script (kubectl dcv enroll {name} --with-token) or in files (--out DIR)",
        files::TOKEN,
    )
}

/// What to do with the files.
fn steps(folder: &Path, host: &str) -> String {
    let path = folder.display();
    let name = folder.file_name().map_or_else(|| ".".into(), |name| name.to_string_lossy().into_owned());
    format!(
        "# What {host} needs is in {path}. Put it there, and start the agent; then take the files away here.\n\
         scp -rp {path} root@{host}:\n\
         ssh root@{host} sh {name}/{}\n\
         rm -r {path}\n",
        files::SCRIPT,
    )
}

/// The files, for nobody else to read.
fn write(folder: &Path, host: &Host, token: &str) -> Result<(), Error> {
    let cannot = |file: &Path| {
        let file = file.display().to_string();
        move |source: io::Error| Error::Told(format!("cannot write {file}: {source}"))
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot(folder))?;
    let texts = host.files().into_iter().map(|file| (file.name, file.text));
    // Without a line end, which would be taken for a part of it.
    let token = (files::TOKEN, token.to_owned());
    for (name, text) in texts.chain([token, (files::SCRIPT, host.script_beside_files())]) {
        let path = folder.join(name);
        replace(&path, &text).map_err(cannot(&path))?;
    }
    Ok(())
}

/// One that is there may be readable to others, or a link: it is not written to, but replaced.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests;
