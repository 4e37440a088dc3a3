//! `kubectl dcv clients`: who may use the REST API.
//!
//! The password is made here and only its hash leaves this process, so it can be shown just once.

mod args;
mod change;

use std::future::Future;

use jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::PostParams;
use kube::api::Preconditions;
use serde::Serialize;

use crate::api::ApiClient;
use crate::api::ApiClientSpec;
use crate::api::client::Credential;
use crate::api::conditions;
use crate::api::conditions::ClientCondition;
use crate::api::names;
use crate::cluster::Clock;
use crate::token::Password;

use super::Answer;
use super::age;
use super::args::DataFormat;
use super::error::Error;
use super::error::needs;
use super::listing;
use super::listing::Column;
use super::listing::Listed;
use super::listing::Query;
use super::near;
use super::print::json;
use super::print::yaml;
use super::voice::Voice;
pub use args::Command;
use args::Departing;
use args::Registration;
use args::Selection;

/// Does what `command` says.
pub(super) async fn run(
    client: Client,
    namespace: &str,
    command: &Command,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    match command {
        Command::Register(wanted) => register(client, namespace, wanted).await,
        Command::Rotate(wanted) => change::rotate(&client, namespace, wanted, clock()).await,
        Command::List(wanted) => list(&client, namespace, wanted, voice, clock, stop).await,
        Command::Suspend(which) => change::suspend(&client, namespace, which, true).await,
        Command::Resume(which) => change::suspend(&client, namespace, which, false).await,
        Command::Unregister(which) => unregister(client, namespace, which).await,
    }
}

/// Makes the client and answers with its id and password.
async fn register(client: Client, namespace: &str, wanted: &Registration) -> Result<Answer, Error> {
    let api = Api::<ApiClient>::namespaced(client, namespace);
    let password = Password::generate();
    let object = ApiClient::new(
        &wanted.name,
        ApiClientSpec {
            display_name: wanted.display_name.clone(),
            client_id: wanted.client_id.clone(),
            credentials: vec![Credential { hash: password.hash(), expire_time: None }],
            suspended: false,
            token_lifetime_seconds: wanted.token_lifetime_seconds,
            all_namespaces: wanted.all_namespaces,
            manage_servers: wanted.manage_servers,
        },
    );
    let parameters = PostParams { field_manager: Some(names::PLUGIN.to_owned()), ..PostParams::default() };
    let created = match api.create(&parameters, &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            // The client repeats a create whose answer was lost: then the object with our hash is ours.
            let found = api.get_opt(&wanted.name).await?;
            found.filter(|found| found.spec.credentials == object.spec.credentials).ok_or(kube::Error::Api(status))?
        }
        Err(error) => {
            return Err(needs("clients register", format!("create apiclients in namespace {namespace}"), error));
        }
        Ok(created) => created,
    };
    Ok(Answer {
        data: credentials(&created, &password, wanted.output)?,
        talk: format!(
            "{} registered in namespace {namespace}; the password cannot be shown again\n",
            qualified(&created.name_any())
        ),
        ..Answer::default()
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credentials<'a> {
    client_id: String,
    client_password: &'a str,
}

fn credentials(client: &ApiClient, password: &Password, format: Option<DataFormat>) -> Result<String, Error> {
    let credentials = Credentials { client_id: client.client_id(), client_password: password.reveal() };
    match format {
        None => Ok(format!("client-id: {}\nclient-password: {}\n", credentials.client_id, credentials.client_password)),
        Some(DataFormat::Json) => json(&credentials),
        Some(DataFormat::Yaml) => yaml(&credentials),
    }
}

impl Listed for ApiClient {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("CLIENT-ID"),
        Column::new("DISPLAY-NAME"),
        Column::new("READY"),
        Column::new("REASON"),
        Column::clock("AGE"),
        Column::wide("PASSWORDS"),
        Column::wide("SUSPENDED"),
        Column::wide("ALL-NAMESPACES"),
        Column::wide("MANAGE-SERVERS"),
    ];
    const STATE: usize = 3;

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let ready = conditions::find(&status.conditions, ClientCondition::Ready);
        let spec = &self.spec;
        vec![
            self.name_any(),
            self.client_id(),
            spec.display_name.clone().unwrap_or_default(),
            ready.map(|ready| ready.status.clone()).unwrap_or_default(),
            ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
            age::since(self.metadata.creation_timestamp.as_ref(), now),
            spec.credentials.len().to_string(),
            spec.suspended.to_string(),
            spec.all_namespaces.to_string(),
            spec.manage_servers.to_string(),
        ]
    }
}

/// Shows the clients of `namespace`, or of all.
async fn list(
    client: &Client,
    namespace: &str,
    wanted: &Selection,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let query = Query {
        command: "clients list",
        namespace: (!wanted.all_namespaces).then_some(namespace),
        with_namespace: wanted.all_namespaces,
        name: None,
        fields: Vec::new(),
        only: &|_: &ApiClient| true,
        shown: &wanted.shown,
    };
    listing::list(client, &query, voice, clock, stop).await
}

/// Deletes the client.
async fn unregister(client: Client, namespace: &str, which: &Departing) -> Result<Answer, Error> {
    let api = Api::<ApiClient>::namespaced(client, namespace);
    let mut parameters = DeleteParams::default();
    let name = match (&which.name, &which.client_id) {
        (Some(name), _) => near::bare(name).to_owned(),
        (None, client_id) => {
            let client_id = client_id.clone().unwrap_or_default();
            let clients = api.list(&ListParams::default()).await?;
            let Some(found) = clients.into_iter().find(|item| item.client_id() == client_id) else {
                return Err(Error::NoSuchId { client_id, namespace: namespace.to_owned() });
            };
            // Another one may get the name in the meantime.
            parameters.preconditions = Some(Preconditions { uid: found.uid(), resource_version: None });
            found.name_any()
        }
    };
    let deleted = api.delete(&name, &parameters).await;
    deleted
        .map_err(|error| needs("clients unregister", format!("delete apiclients in namespace {namespace}"), error))?;
    Ok(Answer { data: format!("{} deleted from {namespace} namespace\n", qualified(&name)), ..Answer::default() })
}

const RESOURCE: &str = "apiclient.dcv-operator.io";

fn qualified(name: &str) -> String {
    format!("{RESOURCE} \"{name}\"")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use serde_json::Value;
    use serde_json::json;

    use super::super::mock::client;
    use super::*;

    fn already_exists() -> (u16, Value) {
        (
            409,
            json!({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "taken", "status": "Failure"}),
        )
    }

    const CLIENTS: &str = "/apis/dcv-operator.io/v1alpha1/namespaces/n/apiclients";

    #[tokio::test]
    async fn register_sends_the_hash_and_shows_the_password() {
        let sent = Arc::new(Mutex::new(Value::Null));
        let seen = Arc::clone(&sent);
        let client = client(move |method, path, mut body| {
            assert_eq!((method, path), ("POST", CLIENTS));
            *seen.lock().unwrap() = body.clone();
            body["metadata"]["uid"] = "the-uid".into();
            (201, body)
        });
        let wanted = Registration { name: "portal".into(), manage_servers: true, ..Registration::default() };
        let answer = register(client, "n", &wanted).await.unwrap();

        let password = answer.data.strip_prefix("client-id: the-uid\nclient-password: ").unwrap().trim_end().to_owned();
        let sent = sent.lock().unwrap().clone();
        let hash = sent["spec"]["credentials"][0]["hash"].as_str().unwrap().to_owned();
        assert_eq!(crate::token::verify_password(&password, [hash.as_str()]), Some(hash.as_str()));
        assert_eq!(sent["spec"]["manageServers"], json!(true));
        assert!(!sent.to_string().contains(&password) && !answer.talk.contains(&password));
    }

    #[tokio::test]
    async fn a_repeated_create_finds_its_own_object_and_no_other() {
        for ours in [true, false] {
            let stored = Mutex::new(Value::Null);
            let client = client(move |method, _, mut body| {
                if method == "POST" {
                    body["metadata"]["uid"] = "the-uid".into();
                    if !ours {
                        body["spec"]["credentials"] = json!([]);
                    }
                    *stored.lock().unwrap() = body;
                    return already_exists();
                }
                (200, stored.lock().unwrap().clone())
            });
            let wanted = Registration { name: "portal".into(), ..Registration::default() };
            let answer = register(client, "n", &wanted).await;
            assert_eq!(answer.is_ok(), ours, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn unregister_by_id_deletes_just_the_object_it_found() {
        let object = |name: &str, uid: &str, id: Option<&str>| {
            json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "ApiClient", "metadata": {"name": name, "uid": uid},
                "spec": {"clientId": id}})
        };
        let calls = move |method: &str, path: &str, body: Value| {
            if method == "GET" {
                let items = [object("a", "1", Some("x")), object("b", "2", None)];
                return (200, json!({"apiVersion": "v1", "kind": "ApiClientList", "metadata": {}, "items": items}));
            }
            assert_eq!((method, path), ("DELETE", format!("{CLIENTS}/b").as_str()));
            assert_eq!(body["preconditions"]["uid"], "2");
            (200, json!({"kind": "Status", "status": "Success", "code": 200}))
        };
        let by_id = |id: &str| Departing { name: None, client_id: Some(id.into()) };
        let answer = unregister(client(calls), "n", &by_id("2")).await.unwrap();
        assert_eq!(answer.data, "apiclient.dcv-operator.io \"b\" deleted from n namespace\n");
        let error = unregister(client(calls), "n", &by_id("1")).await.unwrap_err();
        assert!(matches!(error, Error::NoSuchId { .. }), "{error:?}");
    }
}
