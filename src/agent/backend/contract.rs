//! What every backend promises, as one test that runs against each: `holds`.
//!
//! In the library and not beside one backend's tests, so that tests of a backend that needs real programs can use it too.

use std::time::Duration;

use image::GenericImageView;
use image::ImageFormat as Encoding;

use super::Backend;
use super::CreateError;
use super::ImageFormat;
use super::Marker;
use super::Order;
use super::Phase;
use super::ScreenshotRequest;
use crate::api::session::SessionType;

/// Longest wait for what the host does by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the test needs of a host.
pub struct Fixture<'a, B> {
    /// The backend.
    pub backend: &'a B,
    /// An account that may have sessions.
    pub owner: String,
    /// An account that may not, or is not there.
    pub refused_owner: String,
    /// Program that keeps a session alive; absent: the host's own.
    pub init_file: Option<String>,
}

/// An order for a virtual session.
pub fn order(id: &str, owner: &str) -> Order {
    Order {
        id: id.to_owned(),
        marker: Marker {
            cluster_uid: "cluster".into(),
            namespace: "default".into(),
            name: format!("session-{id}"),
            uid: id.to_owned(),
            attempt: 1,
            owner: owner.to_owned(),
            boot_id: "boot".into(),
        },
        type_: SessionType::Virtual,
        display_name: "Contract".into(),
        owner: owner.to_owned(),
        init_file: None,
        autorun_file: None,
        autorun_file_arguments: Vec::new(),
        max_concurrent_clients: None,
        dcv_gl_enabled: None,
        permissions: None,
        storage_root: None,
        traceparent: None,
    }
}

/// Runs the contract on an empty host, and leaves it empty. `end` makes the session of an id end by itself.
///
/// # Panics
/// When the backend breaks a promise.
pub async fn holds<B: Backend>(fixture: &Fixture<'_, B>, end: impl AsyncFn(&str)) {
    let backend = fixture.backend;
    assert_eq!(backend.list().await.expect("list answers"), [], "the host is empty");
    let described = backend.describe().await.expect("describe answers");
    assert!(described.capacity.session_types.contains(&SessionType::Virtual), "it runs virtual sessions");
    lives(fixture).await;
    refusal_leaves_nothing(fixture).await;
    many_at_once(fixture).await;
    ends_by_itself(fixture, end).await;
    assert_eq!(backend.list().await.expect("list answers"), [], "nothing is left");
}

fn ordered<B>(fixture: &Fixture<'_, B>, id: &str) -> Order {
    Order { init_file: fixture.init_file.clone(), ..order(id, &fixture.owner) }
}

async fn lives<B: Backend>(fixture: &Fixture<'_, B>) {
    let backend = fixture.backend;
    let order = ordered(fixture, "contract-1");
    backend.create(&order).await.expect("a session is created");
    let listed = backend.list().await.expect("list answers");
    assert_eq!(listed.len(), 1, "one session");
    let session = &listed[0];
    assert_eq!((session.id.as_str(), &session.phase), ("contract-1", &Phase::Running));
    assert_eq!((&session.owner, session.type_), (&fixture.owner, SessionType::Virtual));
    assert_eq!(session.marker.as_ref(), Some(&order.marker), "the marker is on the host");
    assert_eq!((session.num_of_connections, session.last_disconnection_time), (0, None));
    assert!(!session.announced, "nobody knows of it yet");
    backend.announce("contract-1").await.expect("an announcement is noted");
    assert!(backend.list().await.expect("list answers")[0].announced, "and told from then on");

    backend.create(&order).await.expect("creating what runs already is success");
    assert_eq!(backend.list().await.expect("list answers").len(), 1, "and makes no second one");

    let permissions = "[permissions]\n%owner% allow builtin\n";
    backend.set_permissions("contract-1", Some(permissions)).await.expect("permissions are set");
    backend.set_permissions("contract-1", None).await.expect("permissions are taken back");

    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        screenshot(backend, "contract-1", format).await;
    }
    backend.close("contract-1").await.expect("it is closed");
    assert_eq!(backend.list().await.expect("list answers"), [], "it is gone");
    backend.close("contract-1").await.expect("closing what is gone is success");
    let request = ScreenshotRequest { max_width: 160, max_height: 100, format: ImageFormat::Png };
    backend.screenshot("contract-1", request).await.expect_err("there is nothing to see");
}

async fn screenshot<B: Backend>(backend: &B, id: &str, format: ImageFormat) {
    let full = ScreenshotRequest { max_width: 10_000, max_height: 10_000, format };
    let (width, height) = size(&backend.screenshot(id, full).await.expect("a screenshot is taken"), format);
    let small = ScreenshotRequest { max_width: 160, max_height: 100, format };
    let (small_width, small_height) =
        size(&backend.screenshot(id, small).await.expect("a screenshot is taken"), format);
    assert!(small_width <= 160 && small_height <= 100, "it fits: {small_width}x{small_height}");
    assert!(small_width == 160 || small_height == 100, "and is no smaller than it has to be");
    let (ratio, small_ratio) = (f64::from(width) / f64::from(height), f64::from(small_width) / f64::from(small_height));
    assert!((ratio - small_ratio).abs() < 0.05, "the ratio is kept: {ratio} and {small_ratio}");
}

fn size(bytes: &[u8], format: ImageFormat) -> (u32, u32) {
    let encoding = match format {
        ImageFormat::Png => Encoding::Png,
        ImageFormat::Jpeg => Encoding::Jpeg,
    };
    image::load_from_memory_with_format(bytes, encoding).expect("it is an image of the format").dimensions()
}

async fn refusal_leaves_nothing<B: Backend>(fixture: &Fixture<'_, B>) {
    let order = Order { owner: fixture.refused_owner.clone(), ..ordered(fixture, "contract-2") };
    let error = fixture.backend.create(&order).await.expect_err("the owner is refused");
    assert!(matches!(error, CreateError::Refused(_)), "and not as a failure: {error:?}");
    assert_eq!(fixture.backend.list().await.expect("list answers"), [], "nothing of it is left");
}

async fn many_at_once<B: Backend>(fixture: &Fixture<'_, B>) {
    let backend = fixture.backend;
    let ids: Vec<String> = (0..5).map(|n| format!("contract-many-{n}")).collect();
    let creates = ids.iter().map(|id| {
        let order = ordered(fixture, id);
        async move { backend.create(&order).await }
    });
    for result in futures::future::join_all(creates).await {
        result.expect("creates of different ids do not disturb each other");
    }
    let mut listed: Vec<_> =
        backend.list().await.expect("list answers").into_iter().map(|session| session.id).collect();
    listed.sort();
    assert_eq!(listed, ids);
    for result in futures::future::join_all(ids.iter().map(|id| backend.close(id))).await {
        result.expect("nor do closes");
    }
}

async fn ends_by_itself<B: Backend>(fixture: &Fixture<'_, B>, end: impl AsyncFn(&str)) {
    let backend = fixture.backend;
    backend.create(&ordered(fixture, "contract-3")).await.expect("a session is created");
    let mut changes = backend.changes();
    changes.mark_unchanged();
    end("contract-3").await;
    let ended = async {
        loop {
            let listed = backend.list().await.expect("list answers");
            match listed.iter().find(|session| session.id == "contract-3").map(|session| &session.phase) {
                Some(Phase::Running | Phase::Preparing) => changes.changed().await.expect("changes are told"),
                Some(Phase::Ended(reason)) => break assert!(!reason.is_empty(), "the reason is told"),
                None => break,
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("a session that ends by itself is noticed");
    backend.close("contract-3").await.expect("what has ended can be closed");
}
