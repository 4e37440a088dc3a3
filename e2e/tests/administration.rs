//! What administrators do with one server: cordon, drain and open it, and end what no session stands for; and what is seen of
//! it by users and portals.

use std::process::Stdio;

use dcv_operator::api::server::Availability;
use dcv_operator::api::server::DcvServer;
use dcv_operator::api::server::UnavailabilityReason;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::session::condition;
use e2e::session::is_ready;
use e2e::session::state_reason;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;

/// Waits until the server is as `reason` says; `None`: AVAILABLE.
async fn until(stand: &Stand, server: &str, reason: Option<UnavailabilityReason>) -> DcvServer {
    eventually(&format!("{server} to be {reason:?}"), seconds(30), async || {
        let found = stand.servers().get(server).await.map_err(|error| error.to_string())?;
        let status = found.status.clone().unwrap_or_default();
        let is_open = status.availability == Availability::Available;
        if status.unavailability_reason == reason && is_open == reason.is_none() {
            Ok(found)
        } else {
            Err(format!("{:?} {:?}", status.availability, status.unavailability_reason))
        }
    })
    .await
}

#[tokio::test]
async fn a_drained_server_says_what_it_waits_for_and_ends_it_after_the_grace() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("drain").await;
    sessions.create("desk", &json!({})).await;
    let desk = sessions.until_ready("desk").await;
    let server = desk.server_name().expect("it has a server").to_owned();
    stand.fake_host().set_connections(desk.id(), 2).await;
    let used = |session: &dcv_operator::api::session::DcvSession| {
        session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(2))
    };
    sessions.until("desk", "used by two", used).await;

    let (code, printed, _) = stand.kubectl_dcv(&["drain", &server, "--dry-run", "-o", "json"]).await;
    let shown: Value = serde_json::from_str(&printed).expect("it is JSON");
    assert_eq!((code, shown.get("placement"), &shown["drained"]), (Some(0), None, &json!(false)));
    until(&stand, &server, None).await;

    // Without a grace the session goes on, and the server takes no others.
    let (code, printed, said) = stand.kubectl_dcv(&["drain", &server, "--timeout", "2s"]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.starts_with(&format!("dcvserver.dcv-operator.io/{server} draining\nNAMESPACE")), "{printed}");
    let line = printed.lines().find(|line| line.contains(" desk ")).expect("it is shown").split_whitespace();
    let expected = [sessions.namespace.as_str(), "desk", "ann", "READY", "2", "<none>", desk.id()];
    assert_eq!(line.collect::<Vec<_>>(), expected);
    assert!(said.contains(&format!("error: 1 session is still on {server}")), "{said}");
    until(&stand, &server, Some(UnavailabilityReason::ServerClosed)).await;
    assert!(is_ready(&sessions.api.get("desk").await.expect("it is there")));

    // Somebody who waits for it can be interrupted: nothing is taken back by that.
    let mut waiting = stand.dcv_command(&["drain", &server]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let waiting = waiting.as_mut().expect("the plugin is built");
    let pid = waiting.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    // It has begun to listen for the signal when it says the first word.
    let mut out = tokio::io::BufReader::new(waiting.stdout.take().expect("it is piped"));
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line).await.expect("it says something");
    assert_eq!(line, format!("dcvserver.dcv-operator.io/{server} already draining\n"));
    tokio::time::sleep(seconds(1)).await;
    host::signal(pid, Signal::SIGINT);
    let ended = tokio::time::timeout(seconds(10), waiting.wait()).await.expect("it ends").expect("it is ours");
    assert_eq!(ended.code(), Some(130));
    until(&stand, &server, Some(UnavailabilityReason::ServerClosed)).await;

    let drained = stand.kubectl_dcv(&["drain", &server, "--grace-period", "1s", "--timeout", "60s"]).await;
    let (code, printed, said) = drained;
    assert_eq!(code, Some(0), "{printed}{said}");
    assert!(printed.contains(&format!("session {}/desk is gone\n", sessions.namespace)), "{printed}");
    assert!(printed.ends_with(&format!("dcvserver.dcv-operator.io/{server} drained\n")), "{printed}");
    let over = sessions.until_finished("desk").await;
    assert_eq!(condition(&over, "Finished"), "True/Expired");
    assert_eq!(state_reason(&over), "the session was closed: its server is drained");
    assert!(!stand.fake_host().sessions().await.contains_key(desk.id()));

    let (code, printed, _) = stand.kubectl_dcv(&["open", &server]).await;
    assert_eq!((code, printed), (Some(0), format!("dcvserver.dcv-operator.io/{server} opened\n")));
    let open = until(&stand, &server, None).await;
    assert_eq!((open.spec.placement, open.spec.drain_grace_seconds), (None, None));
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn what_was_started_by_hand_holds_a_drain_up_and_ends_only_when_it_is_named() {
    let stand = Stand::fake().await;
    let server = stand.server(1);
    stand.fake_host().start_by_hand(&server, "by-hand", "bob").await;
    eventually("it to be listed", seconds(30), async || {
        let found = stand.servers().get(&server).await.map_err(|error| error.to_string())?;
        let others = found.status.map(|status| status.other_sessions).unwrap_or_default();
        if others.iter().any(|other| other.id == "by-hand") { Ok(()) } else { Err(format!("{others:?}")) }
    })
    .await;
    let (code, _, said) = stand.kubectl_dcv(&["drain", &server, "--grace-period", "0", "--timeout", "2s"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("kubectl dcv end {server} 'by-hand' does")), "{said}");
    let (code, printed, _) =
        stand.kubectl_dcv(&["drain", &server, "--ignore-other-sessions", "--timeout", "20s"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(stand.fake_host().sessions().await.contains_key("by-hand"));

    let (code, _, said) = stand.kubectl_dcv(&["end", &server, "absent"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("tells of no session absent"), "{said}");
    let (code, printed, said) = stand.kubectl_dcv(&["end", &server, "by-hand", "--timeout", "30s"]).await;
    assert_eq!((code, printed), (Some(0), format!("session by-hand on {server} ended\n")), "{said}");
    assert!(!stand.fake_host().sessions().await.contains_key("by-hand"));
    let found = stand.servers().get(&server).await.expect("the server is there");
    assert_eq!(found.spec.end_sessions, Vec::<String>::new());
    stand.open_all_servers().await;
}

#[tokio::test]
async fn a_server_whose_node_is_cordoned_is_closed_to_everybody() {
    let stand = Stand::fake().await;
    let server = stand.server(2);
    let nodes = Api::<Node>::all(stand.client());
    let node = json!({"metadata": {"name": server}, "spec": {"unschedulable": true}});
    let node: Node = serde_json::from_value(node).expect("a node is a name");
    nodes.create(&PostParams::default(), &node).await.expect("an administrator makes nodes");
    until(&stand, &server, Some(UnavailabilityReason::ServerClosed)).await;
    let rest = stand.rest().log_in().await.expect("the client of hack/up logs in");
    let shown = rest.post("/describeServers", &json!({})).await;
    let shown = shown.list("Servers").iter().find(|shown| shown["Hostname"] == server.as_str()).cloned();
    let shown = shown.expect("the client sees the server");
    let said = (&shown["Availability"], &shown["UnavailabilityReason"]);
    assert_eq!(said, (&json!("UNAVAILABLE"), &json!("SERVER_CLOSED")));
    let id = shown["Id"].as_str().expect("a server has an id");
    let asked =
        json!([{"Name": "n", "Owner": "ann", "Type": "VIRTUAL", "Requirements": format!("server:Id = '{id}'")}]);
    let refused = rest.post("/createSessions", &asked).await;
    assert_eq!(refused.unsuccessful().len(), 1, "{refused:?}");
    let (_, _, said) = stand.kubectl_dcv(&["uncordon", &server]).await;
    assert!(said.contains(&format!("kubectl uncordon {server}")), "{said}");

    let open = Patch::Merge(json!({"spec": {"unschedulable": null}}));
    nodes.patch(&server, &PatchParams::default(), &open).await.expect("an administrator changes nodes");
    until(&stand, &server, None).await;
    nodes.delete(&server, &DeleteParams::default()).await.expect("an administrator deletes nodes");
}
