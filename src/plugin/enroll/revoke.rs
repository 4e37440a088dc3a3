//! Shutting a host out, and taking its objects away.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::Preconditions;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::COMMAND;
use super::args::Enroll;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::server::Placement;
use crate::plugin::Answer;
use crate::plugin::change;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::near;
use crate::plugin::voice::Voice;

/// How long API servers go on believing a token that they have checked: ten seconds, and some.
const FORGET: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(13) };
const LOOK_INTERVAL: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };

/// Deletes the Secret that the tokens are bound to; with `--purge` the rest too.
pub(super) async fn revoke(client: &Client, wanted: &Enroll, voice: &mut Voice<'_>) -> Result<Answer, Error> {
    let server = wanted.server();
    // Before the host is shut out: its agent could not end what is left.
    let found = if wanted.purge { empty_server(client, &server, voice).await? } else { None };
    let secrets = Api::<Secret>::namespaced(client.clone(), &wanted.hosts_namespace);
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &wanted.hosts_namespace);
    if remove(&secrets, &server, "secrets").await? {
        voice.say(&format!("secret/{server} deleted"))?;
        voice.remark("in some seconds no token of this host is good any more; what runs there goes on")?;
    } else if accounts.get_opt(&server).await.is_ok_and(|found| found.is_none()) && found.is_none() {
        return Err(Error::Told(format!("no host is enrolled as {server}")));
    } else {
        voice.say(&format!("secret/{server} already deleted"))?;
    }
    if !wanted.purge {
        return Ok(Answer::default());
    }
    if let Some(found) = found {
        purge(client, &found, voice).await?;
        voice.say(&format!("dcvserver.dcv-operator.io/{server} deleted"))?;
    }
    if remove(&accounts, &server, "serviceaccounts").await? {
        voice.say(&format!("serviceaccount/{server} deleted"))?;
    }
    // Nothing looks at it any more. Whoever may not delete it leaves it.
    let leases = Api::<Lease>::namespaced(client.clone(), &wanted.operator_namespace);
    if remove(&leases, &server, "leases").await.unwrap_or(false) {
        voice.say(&format!("lease/{server} deleted"))?;
    }
    Ok(Answer::default())
}

/// The server, closed and with nothing on it; `None`: there is none.
async fn empty_server(client: &Client, name: &str, voice: &mut Voice<'_>) -> Result<Option<DcvServer>, Error> {
    let servers = Api::<DcvServer>::all(client.clone());
    let close = |now: &DcvServer| Ok(now.is_open().then(|| json!({"placement": Placement::Closed})));
    let server = match change::change(&servers, name, close).await {
        Ok(changed) => {
            if changed.after.is_some() {
                voice.say(&format!("dcvserver.dcv-operator.io/{name} closed"))?;
            }
            changed.now()
        }
        Err(Error::Request(source)) if near::is_not_found(&source) => return Ok(None),
        Err(Error::Request(source)) => return Err(needs("enroll --purge", "get and patch dcvservers", *source)),
        Err(error) => return Err(error),
    };
    let here = ListParams::default().fields(&format!("status.serverName={name}"));
    let sessions = Api::<DcvSession>::all(client.clone()).list(&here).await;
    let sessions = sessions.map_err(|error| needs("enroll --purge", "list dcvsessions in all namespaces", error))?;
    // One that was closed by force keeps its finalizer until its desktop is gone.
    let bound = sessions.iter().filter(|session| !session.is_finished() || session.has_finalizer()).count();
    let others = server.status.as_ref().map_or(0, |status| status.other_sessions.len());
    if bound + others > 0 {
        return Err(Error::Told(format!(
            "{} on {name}, which is closed now: kubectl dcv drain {name} shows and ends them. Nothing was revoked",
            if bound + others == 1 { "1 desktop is".to_owned() } else { format!("{} desktops are", bound + others) }
        )));
    }
    Ok(Some(server))
}

/// Deletes the server for good: an agent whose token is still believed makes it anew.
async fn purge(client: &Client, server: &DcvServer, voice: &mut Voice<'_>) -> Result<(), Error> {
    let servers = Api::<DcvServer>::all(client.clone());
    let name = server.name_any();
    let refused = |error| needs("enroll --purge", "delete dcvservers", error);
    let only_this = Preconditions { uid: server.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match servers.delete(&name, &parameters).await {
        Err(error) if !near::is_not_found(&error) => return Err(refused(error)),
        _ => {}
    }
    if server.is_silent() {
        return Ok(());
    }
    voice.remark("waiting some seconds until its agent can write nothing more")?;
    let end = Instant::now() + FORGET;
    while Instant::now() < end {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if servers.get_opt(&name).await?.is_some() {
            match servers.delete(&name, &DeleteParams::default()).await {
                Err(error) if !near::is_not_found(&error) => return Err(refused(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Deletes an object, and tells whether it was there.
async fn remove<K>(api: &Api<K>, name: &str, plural: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(error) if near::is_not_found(&error) => Ok(false),
        Err(error) => {
            let place = api.namespace().unwrap_or_default();
            Err(needs(COMMAND, format!("delete {plural} in namespace {place}"), error))
        }
    }
}
