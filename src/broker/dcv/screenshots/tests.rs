//! Screenshots as clients see them, from agents without sockets.

use std::time::Duration;

use image::ExtendedColorType;
use image::ImageEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use serde_json::Value;
use serde_json::json;

use super::super::super::agents::Agents;
use super::super::super::agents::Limits;
use super::super::super::agents::mock::Mock;
use super::super::super::agents::mock::Reply;
use super::super::super::memory::merge;
use super::super::super::memory::now;
use super::super::super::memory::ready_on;
use super::super::tests::Broker;
use super::*;
use crate::token;
use crate::token::agent;

const TIME: &str = "2026-11-21T10:00:00.000Z";

/// A broker, agents that answer as told, and the servers s1 and s2, each with a READY session: a1 and a2.
async fn broker(rules: Rules) -> (Broker, Mock) {
    let mock = Mock::default();
    // What hangs in tests is not waited for.
    let limits = Limits { call: Duration::from_millis(200), patience: Duration::from_millis(500), ..Limits::default() };
    let broker = Broker::with_agents(rules, Agents::new(mock.clone(), limits)).await;
    for (server, session) in [("s1", "a1"), ("s2", "a2")] {
        let agent = json!({"url": format!("https://{server}:8444"), "certificateFingerprint": "f0", "version": "1"});
        broker.put_server(server, json!({}), json!({"agent": agent}));
        broker.put_session(session, ready_on(server));
        mock.set(&format!("uid-{server}"), Reply::Bytes(png(160, 90)));
    }
    (broker, mock)
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels = vec![7; (width * height * 3) as usize];
    PngEncoder::new(&mut bytes).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels = vec![7; (width * height * 3) as usize];
    JpegEncoder::new(&mut bytes).write_image(&pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

impl Broker {
    async fn shoot(&self, items: Value) -> Value {
        let answer = self.ask("/getSessionScreenshots", items).await;
        let keys: Vec<_> = answer.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["RequestId", "SuccessfulList", "UnsuccessfulList"]);
        answer
    }

    /// The reason why the only item failed.
    async fn reason(&self, item: Value) -> String {
        let answer = self.shoot(json!([item])).await;
        assert_eq!(answer["SuccessfulList"], json!([]), "{item}");
        let failed = &answer["UnsuccessfulList"][0];
        assert_eq!(failed["GetSessionScreenshotRequestData"], item, "the request is echoed as it was sent");
        failed["FailureReason"].as_str().unwrap().to_owned()
    }
}

fn ordered(mock: &Mock) -> ScreenshotOrder {
    serde_json::from_slice(&mock.last().1.body).unwrap()
}

#[tokio::test]
async fn a_screenshot_is_one_primary_image_of_the_usual_size() {
    let (broker, mock) = broker(Rules::default()).await;
    let answer = broker.shoot(json!([{"SessionId": "a1"}])).await;
    let image = json!({"Format": "png", "Data": STANDARD.encode(png(160, 90)), "CreationTime": TIME, "Primary": true});
    let expected = json!([{"SessionScreenshot": {"SessionId": "a1", "Images": [image]}}]);
    assert_eq!((&answer["SuccessfulList"], &answer["UnsuccessfulList"]), (&expected, &json!([])));
    assert!(uuid::Uuid::try_parse(answer["RequestId"].as_str().unwrap()).is_ok());

    let (address, call) = mock.last();
    let expected = Address { server_uid: "uid-s1".into(), url: "https://s1:8444".into(), fingerprint: "f0".into() };
    assert_eq!((address, call.path), (expected, "/agent/screenshot"));
    let keys = broker.memory.cache.keys(Kind::Agent).unwrap();
    let claims = agent::admit(&call.token, "uid-s1", &keys.public, now()).unwrap();
    let iat = now().as_second();
    let expected = AgentClaims {
        action: Action::Screenshot,
        server_uid: "uid-s1".into(),
        session_id: "a1".into(),
        attempt: 1,
        client_uid: "uid-red".into(),
        iat,
        exp: iat + 60,
        jti: claims.jti.clone(),
        aud: Kind::Agent.audience().into(),
    };
    assert_eq!(claims, expected);
    for kind in [Kind::Access, Kind::Connection] {
        let keys = broker.memory.cache.keys(kind).unwrap();
        assert!(token::verify::<AgentClaims>(&call.token, &keys.public, now()).is_err(), "{kind:?}");
    }
}

#[tokio::test]
async fn sizes_and_format_are_the_settings_where_the_request_is_silent() {
    let rules = Rules {
        session_screenshot_max_width: 320,
        session_screenshot_max_height: 200,
        session_screenshot_format: ImageFormat::Jpeg,
        ..Rules::default()
    };
    let (broker, mock) = broker(rules).await;
    mock.set("uid-s1", Reply::Bytes(jpeg(9, 9)));
    for (sizes, expected) in [
        (json!({}), (320, 200)),
        (json!({"MaxWidth": null, "MaxHeight": null}), (320, 200)),
        (json!({"MaxWidth": 1000}), (1000, 200)),
        (json!({"MaxHeight": 10}), (320, 10)),
        (json!({"MaxWidth": 9, "MaxHeight": i64::MAX}), (9, u32::MAX)),
    ] {
        let mut item = json!({"SessionId": "a1"});
        merge(&mut item, sizes);
        let answer = broker.shoot(json!([item])).await;
        assert_eq!(answer["SuccessfulList"][0]["SessionScreenshot"]["Images"][0]["Format"], "jpeg", "{item} {answer}");
        let order = ordered(&mock);
        assert_eq!((order.max_width, order.max_height), expected, "{item}");
        assert_eq!(order.format, ImageFormat::Jpeg);
    }
}

#[tokio::test]
async fn a_wrong_value_fails_its_item_alone() {
    let (broker, mock) = broker(Rules::default()).await;
    assert_eq!(broker.reason(json!({})).await, "SessionId is required");
    assert_eq!(broker.reason(json!({"SessionId": ""})).await, "SessionId is required");
    for wrong in [0, -1, i64::MIN] {
        let item = json!({"SessionId": "a1", "MaxWidth": wrong, "MaxHeight": 1});
        assert_eq!(broker.reason(item).await, "MaxWidth must be greater than 0");
        let item = json!({"SessionId": "a1", "MaxHeight": wrong});
        assert_eq!(broker.reason(item).await, "MaxHeight must be greater than 0");
    }
    assert_eq!(mock.calls(), 0);
    let answer = broker.shoot(json!([{"SessionId": "a1", "MaxWidth": 0}, {"SessionId": "a2"}])).await;
    let lengths = ["SuccessfulList", "UnsuccessfulList"].map(|list| answer[list].as_array().unwrap().len());
    assert_eq!(lengths, [1, 1]);
}

#[tokio::test]
async fn an_unknown_id_and_another_tenants_are_told_in_the_documented_words() {
    let (broker, mock) = broker(Rules::default()).await;
    let mut theirs = ready_on("s1");
    merge(&mut theirs, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("b1", theirs);
    for id in ["b1", "nobody", "7f8a2c1e-0000-4000-8000-000000000009"] {
        assert_eq!(broker.reason(json!({"SessionId": id})).await, "Dcv session not found.", "{id}");
    }
    assert_eq!(mock.calls(), 0);
}

#[tokio::test]
async fn only_a_ready_session_has_a_screen() {
    let (broker, mock) = broker(Rules::default()).await;
    for changes in [
        json!({"status": {"state": "CREATING"}}),
        json!({"status": {"state": "UNKNOWN"}}),
        json!({"spec": {"desiredState": "Closed"}}),
    ] {
        let mut session = ready_on("s1");
        merge(&mut session, changes.clone());
        broker.put_session("a3", session);
        assert_eq!(broker.reason(json!({"SessionId": "a3"})).await, "Session a3 is not in READY state", "{changes}");
    }
    broker.put_session("a4", json!({}));
    assert_eq!(broker.reason(json!({"SessionId": "a4"})).await, "Session a4 is not in READY state");
    assert_eq!(mock.calls(), 0);
    // Of two with one id the one with a screen is meant.
    let mut console = ready_on("s2");
    merge(&mut console, json!({"status": {"sessionId": "console"}}));
    broker.put_session("a5", json!({"status": {"sessionId": "console"}}));
    broker.put_session("a6", console);
    let answer = broker.shoot(json!([{"SessionId": "console"}])).await;
    assert_eq!(answer["SuccessfulList"][0]["SessionScreenshot"]["SessionId"], "console", "{answer}");
}

#[tokio::test]
async fn whatever_an_agent_does_is_a_failure_of_its_items_alone() {
    const NOT_TAKEN: &str = "The screenshot could not be taken, try again";
    const NO_IMAGE: &str = "The agent of the session's server did not send an image";
    let (broker, mock) = broker(Rules::default()).await;
    for (reply, reason) in [
        (Reply::Gone, "The agent of the session's server cannot be reached"),
        (Reply::Never, "The screenshot was not taken in time, try again"),
        (Reply::Status(401), NOT_TAKEN),
        (Reply::Status(404), NOT_TAKEN),
        (Reply::Status(503), NOT_TAKEN),
        (Reply::Bytes(Vec::new()), NO_IMAGE),
        (Reply::Bytes(b"<html>".to_vec()), NO_IMAGE),
        (Reply::Bytes(png(9, 9)[..20].to_vec()), NO_IMAGE),
        (Reply::Bytes(jpeg(9, 9)), NO_IMAGE),
        (Reply::Bytes(png(161, 9)), NO_IMAGE),
        (Reply::Bytes(png(9, 101)), NO_IMAGE),
    ] {
        mock.set("uid-s1", reply.clone());
        let answer = broker.shoot(json!([{"SessionId": "a1"}, {"SessionId": "a2"}])).await;
        assert_eq!(answer["UnsuccessfulList"].as_array().unwrap().len(), 1, "{reply:?}");
        assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], reason, "{reply:?}");
        assert_eq!(answer["SuccessfulList"][0]["SessionScreenshot"]["SessionId"], "a2", "{reply:?}");
    }
}

#[tokio::test]
async fn an_agent_that_is_silent_or_not_known_is_not_tried() {
    let (broker, mock) = broker(Rules::default()).await;
    let silent = json!([{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired", "message": "",
        "lastTransitionTime": TIME}]);
    let agent = json!({"url": "https://s1:8444", "certificateFingerprint": "f0", "version": "1"});
    for (name, status) in [("s1", json!({"agent": agent, "conditions": silent})), ("s2", json!({}))] {
        broker.put_server(name, json!({}), status);
    }
    broker.put_session("a3", ready_on("s3"));
    for id in ["a1", "a2", "a3"] {
        let reason = broker.reason(json!({"SessionId": id})).await;
        assert_eq!(reason, "The agent of the session's server cannot be reached", "{id}");
    }
    assert_eq!(mock.calls(), 0);
}

#[tokio::test]
async fn never_more_than_five_at_once_at_one_agent_and_the_lists_keep_the_order() {
    let (broker, mock) = broker(Rules::default()).await;
    let items: Vec<_> = (0..30).flat_map(|_| [json!({"SessionId": "a1"}), json!({"SessionId": "a2"})]).collect();
    let (one, two) = tokio::join!(broker.shoot(json!(items)), broker.shoot(json!(items)));
    for answer in [one, two] {
        let list = answer["SuccessfulList"].as_array().unwrap();
        let ids: Vec<_> =
            list.iter().map(|item| json!({"SessionId": item["SessionScreenshot"]["SessionId"]})).collect();
        assert_eq!(ids, items);
    }
    assert_eq!((mock.most("uid-s1"), mock.most("uid-s2"), mock.calls()), (5, 5, 120));
}

#[tokio::test]
async fn an_answer_that_would_be_too_large_is_cut_item_by_item() {
    let (broker, mock) = broker(Rules::default()).await;
    // The rest of the file is not looked at.
    let mut large = png(9, 9);
    large.resize(IMAGE_MAX_BYTES, 0);
    mock.set("uid-s1", Reply::Bytes(large));
    let item = json!({"SessionId": "a1", "MaxWidth": 9999, "MaxHeight": 9999});
    let answer = broker.shoot(json!([item, item, item])).await;
    let lengths = ["SuccessfulList", "UnsuccessfulList"].map(|list| answer[list].as_array().unwrap().len());
    assert_eq!(lengths, [2, 1]);
    assert_eq!(answer["UnsuccessfulList"][0]["FailureReason"], TOO_MUCH);
}

#[test]
fn an_agent_may_send_what_was_asked_for_and_no_more() {
    let order = |max_width, max_height| ScreenshotOrder { max_width, max_height, format: ImageFormat::Png };
    assert_eq!(answer_max_bytes(&order(160, 100)), 160 * 100 * 4 + IMAGE_HEAD_BYTES);
    assert_eq!(answer_max_bytes(&order(u32::MAX, u32::MAX)), IMAGE_MAX_BYTES);
}
