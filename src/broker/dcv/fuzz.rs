//! Damaged requests and tokens, as many as time allows: each is answered, as the caller's fault.
//!
//! `FUZZ_SECONDS` says for how long each part runs; absent, three seconds.

use std::time::Duration;
use std::time::Instant;

use axum::body::Body;
use http::Request;
use http::StatusCode;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use serde_json::json;

use super::super::Rules;
use super::super::memory::ready_on;
use super::tests::Broker;
use super::tests::call;

#[expect(clippy::disallowed_methods, reason = "tests have no settings")]
fn end() -> Instant {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(3, |text| text.parse().expect("FUZZ_SECONDS is a number"));
    Instant::now() + Duration::from_secs(seconds)
}

/// Good requests of every operation.
fn seeds() -> Vec<(&'static str, &'static str, Value)> {
    let create = json!([{"Name": "n", "Owner": "ann", "Type": "VIRTUAL", "DcvGlEnabled": true, "MaxConcurrentClients": 3,
        "InitFile": "dcv/script.sh", "AutorunFile": "a.sh", "AutorunFileArguments": ["x", "y"],
        "PermissionsFile": "W3Blcm1pc3Npb25zXQo=", "Requirements": "tag:pool = 's1'", "EnqueueRequest": true,
        "DisableRetryOnFailure": false, "StorageRoot": "%home%"}]);
    let describe = json!({"SessionIds": ["a"], "Filters": [{"Key": "owner", "Value": "ann"}], "MaxResults": 5,
        "NextToken": "e30"});
    let session = json!([{"SessionId": "a", "Owner": "ann", "Force": true, "PermissionsFile": "W3Blcm1pc3Npb25zXQo=",
        "MaxWidth": 10, "MaxHeight": null}]);
    let server = json!([{"ServerId": "uid-s1", "Force": false}]);
    vec![
        ("POST", "/createSessions", create.clone()),
        ("POST", "/createSessions?dryRun=true", create),
        ("POST", "/describeSessions", describe),
        ("POST", "/describeServers", json!({"ServerIds": ["uid-s1"], "MaxResults": 1, "NextToken": ""})),
        ("POST", "/deleteSessions", session.clone()),
        ("PUT", "/sessionPermissions", session.clone()),
        ("POST", "/getSessionScreenshots", session),
        ("POST", "/openServers", server.clone()),
        ("POST", "/closeServers", server),
        ("GET", "/sessionConnectionData/a/ann", Value::Null),
    ]
}

/// Something that may stand anywhere in a body.
fn anything(random: &mut StdRng) -> Value {
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random::<f64>() * 1e300),
        4 => json!(""),
        5 => json!("x".repeat(random.random_range(0..5000))),
        6 => json!(char::from_u32(random.random_range(0..0x11_0000)).unwrap_or('\0').to_string().repeat(3)),
        7 => json!([]),
        8 => json!({}),
        9 => json!("VIRTUAL"),
        10 => json!([[[[{"Name": null}]]]]),
        _ => json!(["tag:a = 'b' and (", "../../etc", "console", -1]),
    }
}

/// Changes one place of `value`, wherever it is.
fn change(random: &mut StdRng, value: &mut Value) {
    let goes_deeper = random.random_range(0..4) > 0;
    match value {
        Value::Array(items) if !items.is_empty() && goes_deeper => {
            let at = random.random_range(0..items.len());
            change(random, &mut items[at]);
        }
        Value::Object(fields) if !fields.is_empty() && goes_deeper => {
            let key = fields.keys().nth(random.random_range(0..fields.len())).expect("it is below the length").clone();
            match random.random_range(0..6) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert(key.to_uppercase(), anything(random))),
                _ => change(random, fields.get_mut(&key).expect("it is one of its keys")),
            }
        }
        Value::Array(items) if random.random() => items.push(anything(random)),
        other => *other = anything(random),
    }
}

/// `text` with some bytes changed, cut out or doubled.
fn damaged(random: &mut StdRng, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 => bytes.extend_from_within(at..),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => {}
        }
    }
    bytes
}

fn is_answered(status: StatusCode, answer: &Value) -> bool {
    let is_callers_fault = status.is_client_error() && answer["error"].as_str().is_some_and(|text| !text.is_empty());
    status == StatusCode::OK || is_callers_fault
}

#[tokio::test]
async fn damaged_requests_are_all_answered() {
    let broker = Broker::new(Rules { max_api_requests_per_second: 1_000_000_000, ..Rules::default() }).await;
    broker.put_server("s1", json!({}), json!({}));
    let (mut random, seeds, end) = (StdRng::seed_from_u64(rand::random()), seeds(), end());
    let (mut good, mut bad) = (0, 0);
    while Instant::now() < end {
        broker.put_session("a", ready_on("s1"));
        let (method, path, mut body) = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(0..4) {
            change(&mut random, &mut body);
        }
        let mut bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let mut path = path.to_owned();
        if random.random_range(0..4) == 0 {
            bytes = damaged(&mut random, &bytes);
        }
        if random.random_range(0..8) == 0 {
            path.push_str(&String::from_utf8_lossy(&damaged(&mut random, b"%2F?dryRun=true&x=%zz")));
        }
        let Ok(request) = Request::builder()
            .method(method)
            .uri(&path)
            .header("authorization", format!("Bearer {}", broker.token))
            .body(Body::from(bytes.clone()))
        else {
            continue;
        };
        let (status, answer) = call(&broker.router, request).await;
        assert!(
            is_answered(status, &answer),
            "{status} {answer} to {method} {path} {:?}",
            String::from_utf8_lossy(&bytes)
        );
        if status.is_success() { good += 1 } else { bad += 1 }
    }
    assert!(good > 100 && bad > 100, "{good} were good and {bad} not: the damage is not what it was meant to be");
}

#[tokio::test]
async fn damaged_tokens_open_nothing() {
    let broker = Broker::new(Rules { max_api_requests_per_second: 1_000_000_000, ..Rules::default() }).await;
    let (mut random, end) = (StdRng::seed_from_u64(rand::random()), end());
    let good = format!("Bearer {}", broker.token);
    let mut tried = 0;
    while Instant::now() < end {
        let header = damaged(&mut random, good.as_bytes());
        // Blanks around it and the letter case of the scheme do not count.
        let is_same =
            String::from_utf8_lossy(&header).trim().get(7..).is_some_and(|token| token.trim() == broker.token);
        let request = Request::post("/describeSessions").header("authorization", header.clone()).body(Body::empty());
        let Ok(request) = request else { continue };
        let (status, answer) = call(&broker.router, request).await;
        assert!(
            is_same || status == StatusCode::UNAUTHORIZED,
            "{status} {answer}: {}",
            String::from_utf8_lossy(&header)
        );
        tried += 1;
    }
    assert!(tried > 100);
}
