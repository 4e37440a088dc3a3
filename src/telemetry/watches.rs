//! Whether the watches of a process are heard of.
//!
//! A watch whose connection died without a word looks like one of a quiet cluster: what it feeds grows old and nobody
//! notices. But an API server sends a bookmark about every minute, even when nothing happens. So each watch that a role
//! lives by is followed here; the client notes every word it hears of it, cuts one that is silent for [`CUT_AFTER`], so
//! that it is begun anew, and a process one of whose watches is silent for [`DEAF_AFTER`] is not ready.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Silence after which a watch is begun anew: longer than the minute between two bookmarks, with room for a slow server.
pub const CUT_AFTER: Duration = Duration::from_secs(90);

/// Silence after which a process is not ready: time to begin a watch anew after it was cut.
pub const DEAF_AFTER: Duration = Duration::from_mins(2);

/// A watch that somebody lives by.
#[derive(Debug)]
pub struct Watch {
    resource: String,
    heard: Mutex<Instant>,
}

/// Follows a watch for as long as it is kept.
#[derive(Debug)]
pub struct Following {
    watch: Arc<Watch>,
}

impl Following {
    /// A word was heard that is none of the watch itself, such as that it is not for us.
    pub fn hear(&self) {
        self.watch.hear();
    }
}

static WATCHES: LazyLock<Mutex<HashMap<String, Weak<Watch>>>> = LazyLock::new(Mutex::default);

impl Watch {
    /// The kind of its objects, in plural, as in addresses.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// A word was heard of it.
    pub fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long nothing was heard of it.
    pub fn silence(&self) -> Duration {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Follows the watch of `path` with these selectors, from now on.
pub fn follow(path: &str, fields: Option<&str>) -> Following {
    let key = key(path, fields);
    let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    watches.retain(|_, watch| watch.strong_count() > 0);
    if let Some(watch) = watches.get(&key).and_then(Weak::upgrade) {
        return Following { watch };
    }
    let resource = path.rsplit('/').next().unwrap_or_default().to_owned();
    let watch = Arc::new(Watch { resource, heard: Mutex::new(Instant::now()) });
    watches.insert(key, Arc::downgrade(&watch));
    Following { watch }
}

/// The watch of `path`, if it is followed.
pub fn find(path: &str, fields: Option<&str>) -> Option<Arc<Watch>> {
    WATCHES.lock().unwrap_or_else(PoisonError::into_inner).get(&key(path, fields)).and_then(Weak::upgrade)
}

fn key(path: &str, fields: Option<&str>) -> String {
    format!("{path}?{}", fields.unwrap_or_default())
}

/// The longest silence of each kind of object, sorted by name.
pub fn silences() -> Vec<(String, Duration)> {
    let mut silences: HashMap<String, Duration> = HashMap::new();
    let watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    for watch in watches.values().filter_map(Weak::upgrade) {
        let silence = watch.silence();
        let longest = silences.entry(watch.resource.clone()).or_default();
        *longest = silence.max(*longest);
    }
    let mut silences: Vec<_> = silences.into_iter().collect();
    silences.sort();
    silences
}

/// The kinds of objects of which nothing was heard for longer than `limit`, usually [`DEAF_AFTER`], and for how long.
pub fn deaf(limit: Duration) -> Vec<(String, Duration)> {
    silences().into_iter().filter(|(_, silence)| *silence > limit).collect()
}

/// Metric of the silences.
#[derive(Debug)]
pub struct Silence;

impl Collector for Silence {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let silences = silences();
        if silences.is_empty() {
            return Ok(());
        }
        let help = "Time since a watch of these objects was last heard of";
        let mut gauges = encoder.encode_descriptor("dcv_watch_silence_seconds", help, None, MetricType::Gauge)?;
        for (resource, silence) in silences {
            let labels = [("resource", resource.as_str())];
            ConstGauge::new(silence.as_secs_f64()).encode(gauges.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_is_silent_is_seen_and_one_that_is_given_up_is_not() {
        let mine = |of: Vec<(String, Duration)>| of.into_iter().find(|(resource, _)| resource == "things");
        let followed = follow("/apis/a/v1/things", Some("x=y"));
        assert!(find("/apis/a/v1/things", None).is_none());
        assert!(mine(deaf(Duration::ZERO)).is_some() && mine(deaf(DEAF_AFTER)).is_none());
        let before = mine(silences()).unwrap().1;
        find("/apis/a/v1/things", Some("x=y")).unwrap().hear();
        assert!(mine(silences()).unwrap().1 < before + Duration::from_secs(1));
        drop(followed);
        assert_eq!(mine(silences()), None);
        assert!(find("/apis/a/v1/things", Some("x=y")).is_none());
    }
}
