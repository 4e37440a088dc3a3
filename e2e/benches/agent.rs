//! How fast an agent makes desktops, what it takes, and what its proxy costs, with real desktops; prints JSON.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

mod pipe;

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::host::processor_percent;
use e2e::host::resident_mib;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::is_ready;
use futures::future::join_all;
use serde_json::Value;
use serde_json::json;

use self::pipe::Desktop;

/// Desktops made one after the other.
const SINGLE: usize = 20;
/// Desktops made at once.
const AT_ONCE: usize = 50;
const SCREENSHOTS: usize = 50;
/// How long the agent is looked at while it has nothing to do.
const REST: Duration = seconds(30);
/// More colours than an empty screen has.
const COLOURS: usize = 8;

/// The encoded bytes of one screenshot, at most 800x450; or why there is none, as a replica may see READY a moment later.
async fn screenshot(rest: &LoggedIn, id: &str) -> Result<Vec<u8>, String> {
    let item = json!([{"SessionId": id, "MaxWidth": 800, "MaxHeight": 450}]);
    let answer = rest.post("/getSessionScreenshots", &item).await;
    let taken = answer.successful().first().ok_or_else(|| format!("{:?}", answer.unsuccessful()))?;
    let data = taken["SessionScreenshot"]["Images"][0]["Data"].as_str().expect("an image");
    Ok(STANDARD.decode(data).expect("it is base64"))
}

async fn painted(rest: &LoggedIn, id: &str) -> Result<(), String> {
    let picture = image::load_from_memory(&screenshot(rest, id).await?).expect("it is an image").into_rgb8();
    let colours: BTreeSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
    if colours.len() > COLOURS { Ok(()) } else { Err(format!("{} colours", colours.len())) }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Milliseconds from the create call until READY is seen, and until the screen shows a desktop.
async fn create_one(sessions: &Sessions, rest: &LoggedIn, name: &str) -> (f64, f64) {
    let start = Instant::now();
    sessions.create(name, &json!({})).await;
    let session = sessions.until_ready(name).await;
    let ready = milliseconds(start);
    let id = session.id();
    eventually("a desktop to be painted", seconds(20), async || painted(rest, id).await).await;
    let painted = milliseconds(start);
    sessions.delete(name).await;
    (ready, painted)
}

async fn create_many(sessions: &Sessions) -> (Vec<DcvSession>, Duration) {
    let start = Instant::now();
    let made = (0..AT_ONCE).map(async |number| {
        let name = format!("many-{number}");
        sessions.create(&name, &json!({"owner": if number % 2 == 0 { "ann" } else { "bob" }})).await;
        sessions.until_within(&name, seconds(120), "READY", is_ready).await
    });
    (join_all(made).await, start.elapsed())
}

/// Where the desktop of a session listens on the host.
fn socket(stand: &Stand, id: &str) -> PathBuf {
    Path::new("/run/dcv-operator/vnc").join(stand.server(1)).join(id).join("s/rfb.sock")
}

/// What the proxy takes off the bytes a second that a plain pipe of TCP to the desktop's socket carries, in percent.
async fn proxy_overhead(stand: &Stand, rest: &LoggedIn, session: &DcvSession) -> f64 {
    let id = session.id();
    let answer = rest.connection_data(id, "ann").await;
    let token = answer.body["ConnectionToken"].as_str().expect("a token").to_owned();
    let url = rest.connection_url(id, "ann").await;
    let origin = url.split("/?").next().expect("an address");
    let address = pipe::plain(socket(stand, id)).await;
    let (mut through, mut plain) = (0.0, 0.0);
    // One after the other, several times, so that what changes on the machine meanwhile does not favour one.
    for _ in 0..3 {
        through += Desktop::by_proxy(origin, id, &token).await.bytes_per_second().await;
        plain += Desktop::plain(address).await.bytes_per_second().await;
    }
    (1.0 - through / plain) * 100.0
}

async fn measure() -> Value {
    let stand = Stand::bench_desktops().await;
    let sessions = stand.namespace("bench").await;
    let client = stand.rest_client(&sessions.namespace, json!({})).await;
    let rest = client.log_in().await.expect("the client logs in");
    let agent = stand.role("agent-1").pid();

    let cpu_rest_percent = processor_percent(agent, REST).await;
    let rss_rest_mib = resident_mib(agent);

    let (mut ready, mut painted) = (Vec::new(), Vec::new());
    for number in 0..SINGLE {
        let (until_ready, until_painted) = create_one(&sessions, &rest, &format!("one-{number}")).await;
        ready.push(until_ready);
        painted.push(until_painted);
    }

    let (many, create_50) = create_many(&sessions).await;
    let rss_50_mib = resident_mib(agent);
    let mut shots = Vec::new();
    for session in many.iter().cycle().take(SCREENSHOTS) {
        let start = Instant::now();
        screenshot(&rest, session.id()).await.expect("a desktop that runs is seen");
        shots.push(milliseconds(start));
    }
    let (one, others) = many.split_first().expect("there are some");
    join_all(others.iter().map(async |session| {
        sessions.delete(session.metadata.name.as_deref().expect("a session has a name")).await;
    }))
    .await;
    let proxy_overhead_percent = proxy_overhead(&stand, &rest, one).await;

    stand.down().await;
    let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
    json!({
        "create_to_ready_p50_ms": rounded(median(ready)),
        "create_to_painted_p50_ms": rounded(median(painted)),
        "create_50_seconds": rounded(create_50.as_secs_f64()),
        "rss_rest_mib": rounded(rss_rest_mib),
        "rss_50_mib": rounded(rss_50_mib),
        "cpu_rest_percent": rounded(cpu_rest_percent),
        "screenshot_p50_ms": rounded(median(shots)),
        "proxy_overhead_percent": rounded(proxy_overhead_percent),
    })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!("{}", runtime.block_on(measure()));
    runtime.shutdown_timeout(Duration::from_secs(1));
}
