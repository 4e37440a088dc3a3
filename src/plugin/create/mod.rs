//! `kubectl dcv create`: makes sessions, and waits until one can get in.
//!
//! What is made is what a manifest would say. A name makes it repeatable: a session that is there and asks for the same is as
//! good as one that was created.

mod args;
mod labels;
mod wait;

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;

use http::Uri;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::ResourceExt;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::Value;
use serde_json::json;

use super::Answer;
use super::error::Error;
use super::error::needs;
use super::listing;
use super::manifest;
use super::near;
use super::print;
use super::voice::Voice;
use crate::api::DcvSession;
use crate::api::names;
use crate::permissions::Permissions;

pub(super) use args::Create;
use args::DryRun;
pub(super) use args::HELP;
use args::Output;

/// A session to be.
struct Wanted {
    namespace: String,
    /// As it is sent.
    object: Value,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Created,
    Unchanged,
}

/// Creates sessions, and waits for them if told to.
pub(super) async fn create(
    client: &Client,
    namespace: &str,
    wanted: &Create,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let sessions = read(namespace, wanted, voice)?;
    let mut stop = pin!(stop);
    let mut made = Vec::new();
    for session in sessions {
        let (object, outcome) = if wanted.dry_run == DryRun::Client {
            (session.object, Outcome::Created)
        } else {
            tokio::select! {
                () = &mut stop => return Err(Error::Interrupted),
                done = make(client, &session, wanted.dry_run == DryRun::Server) => done?,
            }
        };
        match wanted.output {
            None => voice.say(&said(&name_of(&object), outcome, wanted.dry_run))?,
            Some(Output::Name) => voice.say(&name_of(&object))?,
            // When it is what it is to be.
            Some(Output::Json | Output::Yaml) => {}
        }
        made.push(object);
    }
    let outcome = match wanted.wait {
        Some(limit) => wait::wait(client, &names_of(&made), limit, voice, stop).await,
        None => Ok(()),
    };
    if let Some(format @ (Output::Json | Output::Yaml)) = wanted.output {
        if wanted.wait.is_some() {
            for object in &mut made {
                *object = look_again(client, object).await?;
            }
        }
        voice.print(&data(made, format)?)?;
    }
    outcome.map(|()| Answer::default())
}

/// What is to be made: of flags or of files.
fn read(namespace: &str, wanted: &Create, voice: &mut Voice<'_>) -> Result<Vec<Wanted>, Error> {
    if wanted.filename.is_empty() {
        return Ok(vec![Wanted { namespace: namespace.to_owned(), object: of_flags(namespace, wanted)? }]);
    }
    let found = manifest::read(&wanted.filename, namespace)?;
    found.remarks.iter().try_for_each(|remark| voice.remark(remark))?;
    Ok(found.sessions.into_iter().map(|it| Wanted { namespace: it.namespace, object: it.object }).collect())
}

fn of_flags(namespace: &str, wanted: &Create) -> Result<Value, Error> {
    let permissions = wanted.spec.permissions.as_deref().map(permissions).transpose()?;
    let spec = wanted.spec.build(permissions);
    let mut metadata = match &wanted.name {
        Some(name) => json!({"name": near::bare(name), "namespace": namespace}),
        None => json!({"generateName": format!("{}-", slug(&spec.owner)), "namespace": namespace}),
    };
    if !wanted.labels.is_empty() {
        metadata["labels"] = wanted.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    }
    Ok(json!({
        "apiVersion": DcvSession::api_version(&()), "kind": DcvSession::kind(&()), "metadata": metadata,
        "spec": serde_json::to_value(&spec).map_err(kube::Error::SerdeError)?,
    }))
}

/// What can begin the name of an object: an owner may be `DOMAIN\ann`.
fn slug(owner: &str) -> String {
    const LONGEST: usize = 40;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = owner.chars().map(plain).take(LONGEST).collect();
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "session".to_owned() } else { slug.to_owned() }
}

/// The text of a permissions file that can be used.
fn permissions(file: &Path) -> Result<String, Error> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|source| Error::Read { file: name.clone(), source })?;
    match Permissions::parse(Some(&text)) {
        Ok(_) => Ok(text),
        Err(error) => Err(Error::Told(format!("{name} cannot be used: {error}"))),
    }
}

/// Sends it. When there is one of its name already, that is looked at.
async fn make(client: &Client, wanted: &Wanted, is_dry: bool) -> Result<(Value, Outcome), Error> {
    let api = Api::<DcvSession>::namespaced(client.clone(), &wanted.namespace);
    let parameters = PostParams { dry_run: is_dry, field_manager: Some(names::PLUGIN.to_owned()) };
    let body = serde_json::to_vec(&wanted.object).map_err(kube::Error::SerdeError)?;
    let request = Request::new(api.resource_url()).create(&parameters, body).map_err(kube::Error::BuildRequest)?;
    match client.request::<Value>(strict(request)).await {
        Ok(object) => Ok((object, Outcome::Created)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
            let there = api.get(name).await?;
            compare(&there, &wanted.object).map_err(Error::Told)?;
            let object = serde_json::to_value(there).map_err(kube::Error::SerdeError)?;
            Ok((object, Outcome::Unchanged))
        }
        Err(error) => Err(needs("create", format!("create dcvsessions in namespace {}", wanted.namespace), error)),
    }
}

/// A field that nobody knows is an error, as with kubectl.
fn strict(mut request: http::Request<Vec<u8>>) -> http::Request<Vec<u8>> {
    let address = request.uri().to_string();
    let mark = if address.contains('?') { '&' } else { '?' };
    if let Ok(uri) = format!("{address}{mark}fieldValidation=Strict").parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// Whether the session that is there is the one that is wanted; else what is in the way.
fn compare(there: &DcvSession, wanted: &Value) -> Result<(), String> {
    let name = there.name_any();
    if there.metadata.deletion_timestamp.is_some() {
        return Err(format!("session {name} is there and being deleted; try again when it is gone"));
    }
    if there.is_finished() {
        let state = there.shown_state().as_str();
        return Err(format!("session {name} is there and over ({state}); delete it first: kubectl delete dcvs {name}"));
    }
    let found = serde_json::to_value(&there.spec).map_err(|error| error.to_string())?;
    // By way of our types, so that what is left out is what it is by default.
    let wanted: DcvSession = serde_json::from_value(wanted.clone()).map_err(|error| error.to_string())?;
    let wanted = serde_json::to_value(&wanted.spec).map_err(|error| error.to_string())?;
    let keys = |value: &Value| value.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut fields = [keys(&found), keys(&wanted)].concat();
    fields.retain(|field| found.get(field) != wanted.get(field));
    fields.sort_unstable();
    fields.dedup();
    match fields.as_slice() {
        [] => Ok(()),
        [field] => Err(format!("session {name} is there and asks for something else: {field} differs")),
        fields => Err(format!("session {name} is there and asks for something else: {} differ", fields.join(", "))),
    }
}

async fn look_again(client: &Client, object: &Value) -> Result<Value, Error> {
    let metadata = &object["metadata"];
    let [namespace, name] = ["namespace", "name"].map(|key| metadata[key].as_str().unwrap_or_default());
    let found = Api::<DcvSession>::namespaced(client.clone(), namespace).get_opt(name).await?;
    // One that is gone is shown as it was.
    Ok(found.and_then(|found| serde_json::to_value(found).ok()).unwrap_or_else(|| object.clone()))
}

/// Namespace and name of each.
fn names_of(objects: &[Value]) -> Vec<(String, String)> {
    let text = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    objects.iter().map(|object| (text(object, "namespace"), text(object, "name"))).collect()
}

fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().map(str::to_owned);
    let name = name.or_else(|| metadata["generateName"].as_str().map(|start| format!("{start}…")));
    listing::qualified::<DcvSession>(&name.unwrap_or_default())
}

fn said(name: &str, outcome: Outcome, dry_run: DryRun) -> String {
    let done = if outcome == Outcome::Created { "created" } else { "unchanged" };
    match dry_run {
        DryRun::None => format!("{name} {done}"),
        DryRun::Client => format!("{name} {done} (dry run)"),
        DryRun::Server => format!("{name} {done} (server dry run)"),
    }
}

/// The objects as data: one alone, several as kubectl's list.
fn data(mut objects: Vec<Value>, format: Output) -> Result<String, Error> {
    for object in &mut objects {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
    }
    let whole = match objects.len() {
        1 => objects.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}),
    };
    if format == Output::Yaml { print::yaml(&whole) } else { print::json(&whole) }
}

#[cfg(test)]
mod tests;
