//! What an agent tells of this machine, and its tags while their files change.

use std::fs;
use std::path::PathBuf;

use dcv_operator::api::DcvServer;
use dcv_operator::api::conditions;
use dcv_operator::api::conditions::ServerCondition;
use e2e::Stand;
use e2e::eventually;
use e2e::seconds;
use serde_json::Value;
use serde_json::json;

/// Folder of the tag files of the stand's server, as `hack/up` makes it.
fn tags_folder() -> PathBuf {
    PathBuf::from("/var/lib/dcv-operator/dev/e2e-vnc/tags")
}

/// Waits until the server is so.
async fn server_that(stand: &Stand, what: &str, is_so: impl Fn(&DcvServer) -> bool) -> DcvServer {
    eventually(what, seconds(20), async || {
        let server = stand.servers().get(&stand.server(1)).await.map_err(|error| error.to_string())?;
        if is_so(&server) { Ok(server) } else { Err(format!("{:?}", server.status)) }
    })
    .await
}

fn tag<'a>(server: &'a DcvServer, key: &str) -> Option<&'a str> {
    server.status.as_ref()?.tags.get(key).map(String::as_str)
}

fn condition(server: &DcvServer, type_: ServerCondition) -> (String, String) {
    let found = conditions::find(server.conditions(), type_);
    found.map(|condition| (condition.status.clone(), condition.message.clone())).unwrap_or_default()
}

#[tokio::test]
async fn every_documented_fact_of_this_machine_is_told() {
    let stand = Stand::vnc().await;
    server_that(&stand, "the slow facts", |server| {
        let host = server.status.as_ref().and_then(|status| status.host.as_ref());
        host.is_some() && !condition(server, ServerCondition::HostConfigured).0.is_empty()
    })
    .await;
    let sessions = stand.namespace("facts").await;
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    let answer = rest.try_post("/describeServers", &json!({})).await.expect("the broker answers");
    let server = &answer.list("Servers")[0];
    for field in
        ["Id", "Ip", "Hostname", "DefaultDnsName", "Port", "WebUrlPath", "SessionManagerAgentVersion", "Availability"]
    {
        assert!(server[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {server}");
    }
    let host = &server["Host"];
    let text = |path: &str| host.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |path: &str| host.pointer(path).and_then(Value::as_f64).unwrap_or(-1.0);
    assert_eq!(text("/Os/Family"), "linux");
    for path in ["/Os/Name", "/Os/KernelVersion", "/CpuInfo/Vendor", "/CpuInfo/ModelName", "/CpuInfo/Architecture"] {
        assert!(!text(path).is_empty(), "{path}: {host}");
    }
    for path in ["/Memory/TotalBytes", "/Memory/UsedBytes", "/CpuInfo/NumberOfCpus", "/CpuInfo/PhysicalCoresPerCpu"] {
        assert!(number(path) > 0.0, "{path}: {host}");
    }
    for path in ["/Swap/TotalBytes", "/CpuLoadAverage/OneMinute", "/CpuLoadAverage/FifteenMinutes"] {
        assert!(number(path) >= 0.0, "{path}: {host}");
    }
    assert!(host["Gpus"].is_array() && host["LoggedInUsers"].is_array(), "{host}");
    let tags = server["Tags"].as_array().expect("tags are a list");
    for key in ["dcv:os-family", "dcv:max-virtual-sessions", "dcv:max-concurrent-sessions-per-user"] {
        assert!(tags.iter().any(|tag| tag["Key"] == key), "{key}: {tags:?}");
    }
    let server = stand.servers().get(&stand.server(1)).await.expect("the server is there");
    let agent = server.status.and_then(|status| status.agent).expect("the agent told of itself");
    assert_eq!(agent.clock_skew_seconds, Some(0), "the API server runs on this machine");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn tags_follow_their_files_and_a_broken_file_is_told_and_changes_nothing() {
    let stand = Stand::vnc().await;
    let file = tags_folder().join("pool.toml");
    fs::write(&file, "pool = \"render\"\n").expect("the stand's folder can be written");
    let valid = |server: &DcvServer| condition(server, ServerCondition::TagsValid).0 == "True";
    server_that(&stand, "the new tag", |server| tag(server, "pool") == Some("render") && valid(server)).await;

    fs::write(&file, "# half a file\npool = ").expect("the stand's folder can be written");
    let broken = server_that(&stand, "the fault", |server| !valid(server)).await;
    assert_eq!(tag(&broken, "pool"), Some("render"));
    let (_, message) = condition(&broken, ServerCondition::TagsValid);
    assert!(message.contains("pool.toml, line 2"), "{message}");

    // An agent that never saw the good file keeps what the server was told with.
    stand.role("agent-1").kill_and_restart().await;
    let sessions = stand.namespace("tags").await;
    sessions.create("desk", &json!({"requirements": "tag:pool = 'render'"})).await;
    sessions.until_ready("desk").await;
    let after = stand.servers().get(&stand.server(1)).await.expect("the server is there");
    assert_eq!(tag(&after, "pool"), Some("render"));
    assert!(!valid(&after));
    sessions.delete("desk").await;

    fs::remove_file(&file).expect("the file can be removed");
    server_that(&stand, "no tag", |server| tag(server, "pool").is_none() && valid(server)).await;
    sessions.delete_namespace().await;
}
