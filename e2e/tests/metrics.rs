//! What the parts of a running stand tell of themselves.

use std::collections::BTreeMap;
use std::fs;

use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::stand::root;
use nix::sys::signal::Signal;
use serde_json::json;

/// The roles, and one process of each.
const ROLES: [(&str, &str); 3] = [("controller", "controller-1"), ("broker", "broker-1"), ("agent", "agent-1")];

/// Where the health of a part is served.
fn health(stand: &Stand, label: &str) -> String {
    let port = fs::read_to_string(stand.folder().join("ports").join(format!("{label}.health"))).unwrap();
    format!("http://127.0.0.1:{}", port.trim())
}

async fn fetch(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn scrape(stand: &Stand, label: &str) -> String {
    let (status, text) = fetch(&format!("{}/metrics", health(stand, label))).await;
    assert_eq!(status, 200, "{label}");
    text
}

/// The value of a metric with these words in its labels, added up.
fn value(text: &str, metric: &str, words: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && words.iter().all(|word| line.contains(word))
    });
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// The metrics of the page, and which roles have each.
fn documented() -> BTreeMap<String, String> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |row: &str, number: usize| row.split('|').nth(number).unwrap().trim().trim_matches('`').to_owned();
    rows.map(|row| (cell(row, 1), cell(row, 4))).collect()
}

#[tokio::test]
async fn a_session_shows_in_the_metrics_of_each_role_and_the_page_lists_them_all() {
    let stand = Stand::fake().await;
    let sessions = stand.namespace("metrics").await;
    let owner = stand.setting("OWNER");
    let before = scrape(&stand, "controller-1").await;
    sessions.create("seen", &json!({"owner": owner, "type": "VIRTUAL"})).await;
    let seen = sessions.until_ready("seen").await;
    sessions.delete("seen").await;
    sessions.until_gone(&seen).await;
    let rest = stand.rest().at(&stand.broker_urls()[0]).log_in().await.unwrap();
    assert_eq!(rest.post("/describeSessions", &json!({})).await.status, 200);
    let more = |text: &str, metric: &str, words: &[&str]| value(text, metric, words) - value(&before, metric, words);
    let controller = eventually("the life to be counted", seconds(30), async || {
        let text = scrape(&stand, "controller-1").await;
        let is_ready = more(&text, "dcv_session_time_to_ready_seconds_count", &["VIRTUAL"]) >= 1.0;
        let is_over = more(&text, "dcv_sessions_ended_total", &["Deleted"]) >= 1.0;
        // What there is is counted every ten seconds.
        let is_counted = value(&text, "dcv_agents_connected", &[]) > 19.9;
        if is_ready && is_over && is_counted { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(more(&controller, "dcv_placement_binds_total", &["\"bound\""]) >= 1.0);
    assert!(more(&controller, "controller_runtime_reconcile_total", &["session", "success"]) >= 1.0);
    assert!(more(&controller, "workqueue_adds_total", &["session"]) >= 1.0);
    assert!((value(&controller, "leader_election_master_status", &[]) - 1.0).abs() < 0.1);
    assert!(value(&controller, "dcv_signing_key_rotation_timestamp_seconds", &["access"]) > 1.7e9);
    let broker = scrape(&stand, "broker-1").await;
    assert!(value(&broker, "http_request_duration_seconds_count", &["/describeSessions", "POST", "200"]) >= 1.0);
    assert!(value(&broker, "dcv_certificate_expiry_timestamp_seconds", &["broker"]) > 1.7e9);
    let agent = scrape(&stand, "agent-1").await;
    assert!(value(&agent, "dcv_agent_action_duration_seconds_count", &["create", "success"]) >= 1.0);
    assert!((value(&agent, "dcv_agent_backend_healthy", &[]) - 20.0).abs() < 0.1, "{agent}");

    let documented = documented();
    for (role, text) in [("controller", controller), ("broker", broker), ("agent", agent)] {
        assert!(value(&text, "rest_client_requests_total", &["\"200\"", "GET"]) >= 1.0, "{role}");
        assert!(value(&text, "process_resident_memory_bytes", &[]) > 1e6, "{role}");
        assert!(text.contains("dcv_watch_silence_seconds{resource=\"dcvsessions\"}"), "{role}: {text}");
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" {
                "_total"
            } else if kind == "info" {
                "_info"
            } else {
                ""
            };
            let roles =
                documented.get(&format!("{name}{suffix}")).unwrap_or_else(|| panic!("{name} is not documented"));
            assert!(roles.split(' ').any(|it| it == role), "{name} is served by {role} as well");
        }
    }
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn what_is_logged_is_changed_while_a_part_runs() {
    let stand = Stand::fake().await;
    let client = reqwest::Client::new();
    for (role, label) in ROLES {
        let url = format!("{}/loglevel", health(&stand, label));
        let put = async |level: &'static str| {
            let answer = client.put(&url).body(level).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(fetch(&url).await, (200, "info\n".to_owned()), "{role}");
        assert_eq!(put("info,dcv_operator=debug").await, (200, "info,dcv_operator=debug\n".to_owned()), "{role}");
        assert_eq!(put("no=such=level").await.0, 400, "{role}");
        assert_eq!(fetch(&url).await.1, "info,dcv_operator=debug\n", "{role}");
        assert_eq!(put("info").await.0, 200, "{role}");
        assert!(stand.role(label).log().contains("Log level changed"), "{role}");
    }
    // One that is told off as debug, and shows while that is on.
    let url = format!("{}/loglevel", health(&stand, "broker-1"));
    client.put(&url).body("access=debug,info").send().await.unwrap();
    let broker = stand.rest().at(&stand.broker_urls()[0]);
    broker.text("/health").await;
    client.put(&url).body("info").send().await.unwrap();
    assert!(stand.role("broker-1").log().contains(r#""operation":"/health""#));
}

#[tokio::test]
async fn a_part_is_live_and_ready_and_one_that_ends_is_neither() {
    let stand = Stand::fake().await;
    for (role, label) in ROLES {
        for path in ["livez", "readyz"] {
            assert_eq!(fetch(&format!("{}/{path}", health(&stand, label))).await, (200, "ok\n".to_owned()), "{role}");
        }
    }
    let twin = stand.role("controller-1").start_twin("controller-2", &[("--health-address", "127.0.0.1:18099")]).await;
    eventually("a standby to be ready", seconds(20), async || {
        match reqwest::get("http://127.0.0.1:18099/readyz").await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let text = reqwest::get("http://127.0.0.1:18099/metrics").await.unwrap().text().await.unwrap();
    assert!(value(&text, "leader_election_master_status", &[]).abs() < 0.1);
    host::signal(twin.pid(), Signal::SIGTERM);
    eventually("it to be unready", seconds(10), async || match reqwest::get("http://127.0.0.1:18099/readyz").await {
        Ok(answer) if answer.status() == 200 => Err("it is ready".to_owned()),
        _ => Ok(()),
    })
    .await;
    eventually(
        "it to end",
        seconds(10),
        async || {
            if host::is_alive(twin.pid()) { Err("it lives".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    fs::remove_file(stand.folder().join("pids/controller-2.pid")).unwrap();
}
