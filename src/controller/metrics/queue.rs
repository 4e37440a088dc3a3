//! What waits to be looked at, and what is being looked at: the `workqueue_*` metrics of client-go.
//!
//! The runtime keeps its queue to itself, so what goes into it is noted here, and taken out when its pass begins. As in
//! client-go an object that waits is counted once, however often it was triggered, and one that is to be looked at later
//! does not wait before its time.

use std::collections::HashMap;
use std::fmt;
use std::future::Ready;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use futures::Stream;
use futures::StreamExt;
use kube::Resource;
use kube::runtime::controller;
use kube::runtime::reflector::Lookup;
use kube::runtime::reflector::ObjectRef;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Labels;

/// The queue of one controller.
#[derive(Debug)]
pub struct Queue {
    name: &'static str,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    /// Since when objects wait, by namespace and name.
    waiting: HashMap<String, Instant>,
    /// Since when passes run, by number.
    running: HashMap<u64, Instant>,
    begun: u64,
}

impl Queue {
    /// Nothing in it.
    pub fn new(name: &'static str) -> Self {
        Self { name, work: Mutex::default() }
    }

    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object is to be looked at. Whether it did not wait already.
    pub fn add(&self, key: String, now: Instant) -> bool {
        let mut work = self.work();
        let before = work.waiting.len();
        work.waiting.entry(key).or_insert(now);
        work.waiting.len() > before
    }

    /// A pass begins: its number, and how long its object waited, if it did.
    pub fn begin(&self, key: &str, now: Instant) -> (u64, Option<Duration>) {
        let mut work = self.work();
        let since = work.waiting.remove(key);
        work.begun += 1;
        let number = work.begun;
        work.running.insert(number, now);
        (number, since.map(|since| now.duration_since(since)))
    }

    /// A pass has ended: how long it took.
    pub fn end(&self, number: u64, now: Instant) -> Duration {
        self.work().running.remove(&number).map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// There is no pass for an object that is gone.
    pub fn forget(&self, key: &str) {
        self.work().waiting.remove(key);
    }

    /// A term is over: nothing waits, nothing runs.
    pub fn clear(&self) {
        let mut work = self.work();
        work.waiting.clear();
        work.running.clear();
    }
}

/// The name of an object in a queue.
pub fn key(namespace: Option<&str>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

impl super::Metrics {
    /// Notes what a stream sends to a controller.
    pub fn queued<K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>>(
        &self,
        controller: &'static str,
        references: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    ) -> impl Stream<Item = ObjectRef<K>> + Send + 'static {
        let this = self.clone();
        references.inspect(move |reference| {
            let queue = this.queue(controller);
            if queue.add(key(reference.namespace.as_deref(), &reference.name), Instant::now()) {
                this.added(controller);
            }
        })
    }

    /// Notes what a controller said of a pass: that there was none, as the object is gone.
    pub fn passed<E: std::error::Error + 'static, Q: std::error::Error + 'static, T>(
        &self,
        controller: &'static str,
        result: Result<T, controller::Error<E, Q>>,
    ) -> Ready<()> {
        if let Err(controller::Error::ObjectNotFound(reference)) = result {
            self.queue(controller).forget(&key(reference.namespace.as_deref(), &reference.name));
        }
        std::future::ready(())
    }
}

/// What a scrape asks of the queues.
#[derive(Debug)]
pub struct Scraped(pub Arc<[Queue]>);

/// A gauge: name, help, and its value for a queue.
type Scrape<'a> = (&'a str, &'a str, &'a dyn Fn(&Queue) -> f64);

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = Instant::now();
        let ages = |queue: &Queue| -> Vec<f64> {
            queue.work().running.values().map(|since| now.duration_since(*since).as_secs_f64()).collect()
        };
        let counted = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let gauges: [Scrape<'_>; 4] = [
            ("workqueue_depth", "Objects that wait for a pass", &|queue| counted(queue.work().waiting.len())),
            ("workqueue_unfinished_work_seconds", "Age of all passes under way", &|queue| ages(queue).iter().sum()),
            ("workqueue_longest_running_processor_seconds", "Age of the oldest pass under way", &|queue| {
                ages(queue).into_iter().fold(0.0, f64::max)
            }),
            ("controller_runtime_active_workers", "Passes under way", &|queue| counted(queue.work().running.len())),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for queue in &*self.0 {
                let both: Labels<2> = [("name", queue.name), ("controller", queue.name)];
                let one: Labels<1> = [("controller", queue.name)];
                let gauge = ConstGauge::new(value(queue));
                if name.starts_with("workqueue") {
                    gauge.encode(family.encode_family(&both)?)?;
                } else {
                    gauge.encode(family.encode_family(&one)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_waits_once_and_leaves_when_its_pass_begins_or_it_is_gone() {
        let queue = Queue::new("test");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(queue.add("ns/a".into(), at(0)));
        assert!(!queue.add("ns/a".into(), at(1)), "it waits already");
        assert!(queue.add("ns/b".into(), at(1)));
        let (number, waited) = queue.begin("ns/a", at(3));
        assert_eq!(waited, Some(Duration::from_secs(3)));
        assert!(queue.add("ns/a".into(), at(4)), "changed while it is looked at");
        assert_eq!(queue.end(number, at(5)), Duration::from_secs(2));
        assert_eq!(queue.begin("ns/c", at(5)).1, None, "due by the clock");
        queue.forget("ns/b");
        assert_eq!(queue.work().waiting.len(), 1);
        queue.clear();
        assert!(queue.work().waiting.is_empty() && queue.work().running.is_empty());
    }
}
