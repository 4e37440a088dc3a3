//! End-to-end tests of dcv-operator: the harness.
//!
//! A test asks for a [`Stand`]: a control plane, controller, brokers and agents, brought up by `hack/up` and shared by all
//! tests of its kind, one at a time. What a test cannot await as a condition of an object it asks for again and again
//! with [`eventually`]. Nothing here knows what is right: tests judge.

pub mod api_server;
pub mod audit;
pub mod browser;
pub mod clients;
pub mod contract;
pub mod dcv_client;
pub mod dcv_host;
pub mod dcv_node;
pub mod desktop;
pub mod document;
pub mod fake_host;
pub mod flux;
pub mod host;
pub mod nodes;
pub mod rest;
pub mod role;
pub mod session;
pub mod snapshot;
pub mod stand;
pub mod witness;

use std::env;
use std::future::Future;
use std::time::Duration;
use std::time::Instant;

pub use stand::Stand;

/// Asks `probe` every 50 ms until it answers with a value, and returns that.
///
/// # Panics
/// When `limit` is over, with `what` and the last answer.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + limit;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(why) if Instant::now() >= end => panic!("gave up waiting for {what} after {limit:?}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// `count` seconds: most limits of the tests are given so.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// How many made-up servers the test of placing has: `E2E_SERVERS`, or 200.
#[expect(clippy::disallowed_methods, reason = "tests have no command line of their own")]
pub fn servers() -> usize {
    env::var("E2E_SERVERS").map_or(200, |servers| servers.parse().expect("E2E_SERVERS is a number"))
}

/// How many rounds of faults to run: `usual`, times `E2E_ROUNDS` where that is set.
#[expect(clippy::disallowed_methods, reason = "tests have no command line of their own")]
pub fn rounds(usual: u32) -> u32 {
    let times = env::var("E2E_ROUNDS").map_or(1, |times| times.parse().expect("E2E_ROUNDS is a number"));
    usual * times
}

/// Whether files that show what the API server says are to be written anew instead of being compared: `E2E_REFRESH`.
pub fn is_refreshing() -> bool {
    env::var_os("E2E_REFRESH").is_some()
}

/// The time, for what tests sign and write themselves.
#[expect(clippy::disallowed_methods, reason = "tests have no context to take it from")]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A name nothing else has: `prefix`, a dash and eight random characters.
pub fn unique(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &random[..8])
}
