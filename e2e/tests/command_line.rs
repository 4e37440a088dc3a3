//! The documented command line against real brokers: `kubectl dcv` as scripts call it.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use e2e::Stand;
use e2e::eventually;
use e2e::seconds;
use e2e::stand::root;
use serde_json::Value;
use serde_json::json;

/// How a command went.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    /// What it printed; null when that is no JSON.
    answer: Value,
    complaint: String,
}

impl Outcome {
    /// The answer of a command that went well.
    fn good(self) -> Value {
        assert_eq!((self.code, self.complaint.as_str()), (Some(0), ""), "{:?}", self.answer);
        self.answer
    }
}

/// A folder with a configuration file of the stand's client.
struct Person {
    folder: PathBuf,
}

impl Person {
    fn of(stand: &Stand) -> Self {
        let person = Self { folder: stand.folder().join("command-line") };
        fs::create_dir_all(&person.folder).expect("the stand's folder can be written to");
        person.configure(stand, stand.setting("CLIENT_SECRET"));
        person
    }

    fn configure(&self, stand: &Stand, password: &str) {
        let (url, ca, id) = (stand.setting("BROKER_URL"), stand.setting("BROKER_CA"), stand.setting("CLIENT_ID"));
        self.write(&format!(
            "[output]\noutput-format = json\n[security]\nca-bundle = {ca}\n[authentication]\n\
             auth-server-url = {url}/oauth2/token?grant_type=client_credentials\nclient-id = {id}\n\
             client-password = {password}\n[broker]\nurl = {url}\n"
        ));
    }

    fn write(&self, configuration: &str) {
        fs::write(self.folder.join("dcvsmcli.conf"), configuration).expect("the stand's folder can be written to");
    }

    async fn dcv(&self, arguments: &[&str]) -> Outcome {
        let output = tokio::process::Command::new(root().join("target/debug/kubectl-dcv"))
            .args(arguments)
            .env_clear()
            .env("XDG_CONFIG_HOME", &self.folder)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("the plugin is built");
        Outcome {
            code: output.status.code(),
            answer: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The session as describe-sessions shows it.
    async fn described(&self, id: &str) -> Option<Value> {
        let answer = self.dcv(&["describe-sessions", "--session-ids", id]).await.good();
        answer["Sessions"].as_array().expect("a list").first().cloned()
    }

    /// Creates a session and waits until it is READY.
    async fn ready(&self, name: &str) -> String {
        let answer = self.dcv(&["create-session", "--name", name, "--owner", "ann", "--type", "Virtual"]).await.good();
        let made = &answer["SuccessfulList"][0];
        assert_eq!(
            (&made["Name"], &made["Type"], &made["State"]),
            (&json!(name), &json!("VIRTUAL"), &json!("CREATING"))
        );
        let id = made["Id"].as_str().expect("an id").to_owned();
        eventually("the session to be READY", seconds(30), async || match self.described(&id).await {
            Some(session) if session["State"] == "READY" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        id
    }
}

#[tokio::test]
async fn a_session_lives_by_the_documented_commands() {
    let stand = Stand::fake().await;
    let person = Person::of(&stand);
    let rest = stand.rest().log_in().await.expect("the client logs in");
    let id = person.ready("by command").await;
    assert_eq!(person.described(&id).await, rest.describe(&id).await, "the answer is the API's");
    let of_ann = person.dcv(&["describe-sessions", "--owner", "ann"]).await.good();
    assert_eq!(of_ann["Sessions"].as_array().map(Vec::len), Some(1), "{of_ann}");
    let of_bob = person.dcv(&["describe-sessions", "--owner", "bob", "--max-results", "5"]).await.good();
    assert_eq!(of_bob["Sessions"], json!([]));

    let mut servers = Vec::new();
    let mut page = person.dcv(&["describe-servers", "--max-results", "15"]).await.good();
    loop {
        servers.extend(page["Servers"].as_array().expect("a list").iter().map(|server| server["Id"].clone()));
        let Some(token) = page["NextToken"].as_str().map(str::to_owned) else { break };
        page = person.dcv(&["describe-servers", "--max-results", "15", "--next-token", &token]).await.good();
    }
    assert_eq!(servers.len(), 20);
    let one = servers[0].as_str().expect("an id");
    let found = person.dcv(&["describe-servers", "--server-ids", one]).await.good();
    assert_eq!((&found["Servers"][0]["Id"], found["Servers"].as_array().map(Vec::len)), (&servers[0], Some(1)));

    let data = person.dcv(&["get-session-connection-data", "--session-id", &id, "--user", "bob"]).await.good();
    assert_eq!(data["Session"]["Id"], json!(id));
    assert_eq!(data["ConnectionToken"].as_str().map(|token| token.split('.').count()), Some(3));

    let delete = |owner| ["delete-session", "--session-id", &id, "--owner", owner];
    let refused = person.dcv(&delete("bob")).await;
    assert_eq!((refused.code, &refused.answer["UnsuccessfulList"][0]["SessionId"]), (Some(254), &json!(id)));
    let deleted = person.dcv(&delete("ann")).await.good();
    assert_eq!(deleted["SuccessfulList"], json!([{"SessionId": id, "State": "DELETING"}]));
    eventually("the session to be gone", seconds(30), async || {
        person.described(&id).await.map_or(Ok(()), |session| Err(session.to_string()))
    })
    .await;
}

#[tokio::test]
async fn permissions_pictures_and_servers_have_their_commands() {
    let stand = Stand::fake().await;
    let person = Person::of(&stand);
    let id = person.ready("shared by command").await;
    let file = person.folder.join("shared.perm");
    fs::write(&file, "[permissions]\n%owner% allow builtin\nbob allow display\n")
        .expect("the folder can be written to");
    let file = file.to_str().expect("a plain name");
    let update = |owner| {
        let options = ["--session-id", &id, "--owner", owner, "--permission-file", file];
        [&["update-session-permissions"], &options[..]].concat()
    };
    let updated = person.dcv(&update("ann")).await.good();
    assert_eq!((&updated["SuccessfulList"], &updated["UnsuccessfulList"]), (&json!([{"SessionId": id}]), &json!([])));
    assert_eq!(person.dcv(&update("bob")).await.code, Some(254), "of another owner");
    let object = stand.all_sessions().await.into_iter().find(|session| session.id() == id).expect("it is there");
    assert!(object.spec.permissions.is_some_and(|text| text.contains("bob allow display")));

    let picture = ["get-session-screenshots", "--session-ids", &id, "--max-width", "64", "--max-height", "48"];
    let taken = person.dcv(&picture).await.good();
    let shot = &taken["SuccessfulList"][0]["SessionScreenshot"];
    assert_eq!((&shot["SessionId"], &shot["Images"][0]["Format"]), (&json!(id), &json!("png")));
    let mut two = picture;
    let ids = format!("{id},unknown");
    two[2] = &ids;
    let outcome = person.dcv(&two).await;
    assert_eq!(outcome.code, Some(254), "{outcome:?}");
    assert_eq!(outcome.answer["UnsuccessfulList"][0]["FailureReason"], json!("Dcv session not found."));

    let session = person.described(&id).await.expect("it is listed");
    let server = session["Server"]["Id"].as_str().expect("it has a server");
    let outcome = person.dcv(&["close-servers", "--server-ids", server]).await;
    assert_eq!(outcome.code, Some(254), "{outcome:?}");
    assert_eq!(outcome.answer["UnsuccessfulList"][0]["FailureCode"], json!("DCV_SERVER_HAS_SESSIONS"));
    let availability = async || {
        let answer = person.dcv(&["describe-servers", "--server-ids", server]).await.good();
        answer["Servers"][0]["UnavailabilityReason"].clone()
    };
    let closed = person.dcv(&["close-servers", "--server-ids", server, "--force"]).await.good();
    assert_eq!(closed["SuccessfulList"], json!([{"ServerId": server}]));
    eventually("the server to be shown closed", seconds(5), async || match availability().await {
        Value::String(reason) if reason == "SERVER_CLOSED" => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let opened = person.dcv(&["open-servers", "--server-ids", server]).await.good();
    assert_eq!(opened["SuccessfulList"], json!([{"ServerId": server}]));
    person.dcv(&["delete-session", "--session-id", &id, "--owner", "ann"]).await.good();
}

#[tokio::test]
async fn what_goes_wrong_is_told_by_the_documented_exit_codes() {
    let stand = Stand::fake().await;
    let person = Person::of(&stand);
    let nowhere =
        ["create-session", "--name", "n", "--owner", "ann", "--type", "virtual", "--requirements", "tag:no = 1"];
    let outcome = person.dcv(&nowhere).await;
    assert_eq!(outcome.code, Some(254), "{outcome:?}");
    let reason = outcome.answer["UnsuccessfulList"][0]["FailureReason"].as_str().expect("a reason");
    assert!(reason.contains("No DCV server found"), "{reason}");

    let outcome = person.dcv(&["get-session-connection-data", "--session-id", "unknown", "--user", "ann"]).await;
    assert_eq!((outcome.code, &outcome.answer), (Some(254), &Value::Null));
    assert!(outcome.complaint.contains("The requested dcvSession does not exist"), "{outcome:?}");
    let outcome = person.dcv(&["describe-sessions", "--next-token", "nonsense"]).await;
    assert!(outcome.code == Some(254) && outcome.complaint.contains("NextToken"), "{outcome:?}");
    for (arguments, code) in [
        (&["describe-sessions", "--sort"][..], 2),
        (&["create-session", "--name", "n", "--owner", "ann", "--type", "Desktop"], 252),
        (&["describe-sessions", "--conf", "/nonexistent"], 1),
    ] {
        let outcome = person.dcv(arguments).await;
        assert_eq!((outcome.code, &outcome.answer), (Some(code), &Value::Null), "{outcome:?}");
    }

    person.configure(&stand, "wrong");
    let outcome = person.dcv(&["describe-sessions"]).await;
    assert!(outcome.code == Some(254) && outcome.complaint.contains("invalid_client"), "{outcome:?}");
    person.write(&format!("[broker]\nurl = {}\n", stand.setting("BROKER_URL")));
    assert_eq!(person.dcv(&["describe-sessions"]).await.code, Some(253), "no credentials");
    person.write("[broker\n");
    assert_eq!(person.dcv(&["describe-sessions"]).await.code, Some(1), "a broken file");
}
