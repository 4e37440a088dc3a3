//! Leases: who leads, and which servers' agents are alive.
//!
//! The rules of client-go's leader election: writes are guarded by `resourceVersion`, a record has expired when it has not
//! changed for its duration *on the reader's own clock*, and a leader stops before anybody else may start. Invariant: no
//! two candidates hold one Lease at the same time, whatever calls are lost or late.

use std::time::Duration;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::ObjectMeta;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::Error;

/// Life of the leader's Lease. It stops acting after two thirds of it, and renews every sixth.
pub const LEADER_TTL: Duration = Duration::from_secs(9);

/// A candidate for a Lease.
pub struct Candidacy {
    /// Where the Lease is.
    pub api: Api<Lease>,
    /// Its name.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// [`LEADER_TTL`], but for tests.
    pub ttl: Duration,
    /// Where the times in the record come from. Nothing is decided by them.
    pub clock: Clock,
}

impl Candidacy {
    /// Runs for the Lease until `stop`, then gives it up if it is held, so that another need not wait.
    ///
    /// `leading` is the time of the last renewal while the Lease is held, else `None`. Who acts on it must have stopped
    /// before `stop` is called.
    pub async fn run(self, leading: watch::Sender<Option<Instant>>, stop: CancellationToken) {
        let (period, deadline) = (self.ttl / 6, self.ttl * 2 / 3);
        let mut election = Election::new(&self.identity, self.ttl);
        loop {
            let started = Instant::now();
            // Counted from before the call: others count from after it.
            let left = leading.borrow().map(|renewed| (renewed + deadline).saturating_duration_since(started));
            let outcome = tokio::select! {
                outcome = tokio::time::timeout(patience(period, left), self.step(&mut election)) => outcome,
                () = stop.cancelled() => break,
            };
            match outcome {
                Ok(Ok(true)) => drop(leading.send_replace(Some(started))),
                Ok(Ok(false)) => drop(leading.send_replace(None)),
                Ok(Err(error)) if error.is_conflict() => {}
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(lease = self.name, error, "Leader election: call failed");
                }
                Err(_) => tracing::warn!(lease = self.name, "Leader election: no answer"),
            }
            let renewed = *leading.borrow();
            if renewed.is_some_and(|renewed| renewed.elapsed() >= deadline) {
                leading.send_replace(None);
            }
            let next = started + period;
            let next = leading.borrow().map_or(next, |renewed| next.min(renewed + deadline));
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = stop.cancelled() => break,
            }
        }
        let held = leading.send_replace(None).is_some();
        if held && let Err(error) = self.release().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(lease = self.name, error, "Leader election: Lease not given up, it will expire");
        }
    }

    /// One try. Whether the Lease is held now.
    async fn step(&self, election: &mut Election) -> Result<bool, Error> {
        let object = || format!("Lease {}", self.name);
        let lease = self.api.get_opt(&self.name).await.map_err(Error::api("read", object()))?;
        let Some(spec) =
            election.next(lease.as_ref().and_then(|lease| lease.spec.as_ref()), Instant::now(), (self.clock)())
        else {
            return Ok(false);
        };
        let params = PostParams::default();
        if let Some(mut lease) = lease {
            lease.spec = Some(spec);
            self.api.replace(&self.name, &params, &lease).await.map_err(Error::api("take", object()))?;
        } else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec) };
            self.api.create(&params, &lease).await.map_err(Error::api("create", object()))?;
        }
        Ok(true)
    }

    async fn release(&self) -> Result<(), Error> {
        let object = || format!("Lease {}", self.name);
        let lease = self.api.get_opt(&self.name).await.map_err(Error::api("read", object()))?;
        let Some(mut lease) = lease else { return Ok(()) };
        let Some(spec) = &mut lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(Error::api("give up", object()))?;
        Ok(())
    }
}

/// How long a try may take that begins with so much time left to renew what is held. An API server that answers slowly is
/// waited for, as giving up would only ask it more; one that does not answer at all leaves time for another try.
fn patience(period: Duration, left: Option<Duration>) -> Duration {
    left.map_or(period, |left| left.min(period.max(left / 2)))
}

/// What one candidate has seen of a Lease, and what follows.
struct Election {
    identity: String,
    ttl: Duration,
    /// The record as last seen, and since when it is like that.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    fn new(identity: &str, ttl: Duration) -> Self {
        Self { identity: identity.to_owned(), ttl, seen: None }
    }

    /// The record to write over `stored` in order to hold the Lease, or `None` while somebody else does.
    fn next(&mut self, stored: Option<&LeaseSpec>, now: Instant, wall: Timestamp) -> Option<LeaseSpec> {
        let stored = stored.cloned().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != stored) {
            self.seen = Some((stored.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let ours = stored.holder_identity.as_deref() == Some(self.identity.as_str());
        let free = stored.holder_identity.as_deref().is_none_or(str::is_empty);
        let duration = Duration::from_secs(stored.lease_duration_seconds.unwrap_or(0).try_into().unwrap_or(0));
        if !ours && !free && now.duration_since(since) < duration {
            return None;
        }
        let changes = stored.lease_transitions.unwrap_or(0);
        Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.ttl)),
            acquire_time: stored.acquire_time.filter(|_| ours).or(Some(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if ours { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        })
    }
}

/// Rounded up: others must never wait less than we count on.
fn whole_seconds(ttl: Duration) -> i32 {
    i32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Life of a server's Lease.
pub const SERVER_LEASE_TTL: Duration = Duration::from_secs(40);
/// How often an agent renews it.
const SERVER_LEASE_PERIOD: Duration = Duration::from_secs(10);
/// How soon an agent tries again after a failure; doubles with each, up to the period. An API server that has too much to do
/// must not get more to do by it.
const SERVER_LEASE_RETRY: Duration = Duration::from_secs(2);
/// Which part of a pause is left to chance, so that a thousand agents that start together do not renew together for ever.
const SERVER_LEASE_JITTER: f64 = 0.2;

/// The Lease by which an agent shows that it lives. Cheap to clone.
#[derive(Clone)]
pub struct ServerLease {
    renewed: watch::Receiver<Option<Renewal>>,
}

/// A renewal that succeeded.
#[derive(Clone, Copy)]
struct Renewal {
    begun: Instant,
    /// What it showed of our clock.
    clock_skew_seconds: Option<i32>,
}

impl ServerLease {
    /// The Lease of `server`, and the work that renews it for as long as it is polled. `holder` is for people.
    pub fn new(
        api: Api<Lease>,
        server: &str,
        holder: &str,
        clock: Clock,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, renewed) = watch::channel(None);
        let (server, holder) = (server.to_owned(), holder.to_owned());
        let work = async move {
            let mut failures = 0;
            loop {
                let (begun, begun_at) = (Instant::now(), clock());
                let renewal = renew(&api, &server, &holder, begun_at);
                match tokio::time::timeout(SERVER_LEASE_PERIOD, renewal).await {
                    Ok(Ok(lease)) => {
                        let clock_skew_seconds = clock_skew_seconds(&lease, begun_at, clock());
                        sender.send_replace(Some(Renewal { begun, clock_skew_seconds }));
                        failures = 0;
                    }
                    Ok(Err(error)) => {
                        let is_unauthorized = error.is_unauthorized();
                        let error = &error as &dyn std::error::Error;
                        if is_unauthorized {
                            tracing::error!(
                                server,
                                error,
                                "the API server does not accept our token: it was revoked, or has ended. On a host outside the cluster, \
                                 kubectl dcv enroll makes a new one"
                            );
                        } else {
                            tracing::warn!(server, error, "Lease not renewed, trying again");
                        }
                        failures += 1;
                    }
                    Err(_) => failures += 1,
                }
                let pause = server_lease_pause(failures, rand::random());
                // A renewal counts from its beginning, a failure from its end.
                tokio::time::sleep(if failures == 0 { pause.saturating_sub(begun.elapsed()) } else { pause }).await;
            }
        };
        (Self { renewed }, work)
    }

    /// When the last renewal that succeeded was begun.
    pub fn last_renewed(&self) -> Option<Instant> {
        self.renewed.borrow().map(|renewal| renewal.begun)
    }

    /// Seconds by which our clock was ahead of the API server's at the last renewal, negative when behind; 0 when no
    /// difference could be seen, absent when the API server does not tell its time.
    pub fn clock_skew_seconds(&self) -> Option<i32> {
        self.renewed.borrow().and_then(|renewal| renewal.clock_skew_seconds)
    }

    /// Whether the agent may write: its Lease was renewed within two thirds of its life.
    pub fn is_current(&self) -> bool {
        self.last_renewed().is_some_and(|renewed| renewed.elapsed() < SERVER_LEASE_TTL * 2 / 3)
    }

    /// Returns at the next renewal.
    pub async fn renewed(&mut self) {
        let _ = self.renewed.changed().await;
    }
}

/// The pause after so many failures in a row; `chance` is from 0 to 1.
fn server_lease_pause(failures: u32, chance: f64) -> Duration {
    let full = match failures.checked_sub(1) {
        None => SERVER_LEASE_PERIOD,
        Some(doublings) => (SERVER_LEASE_RETRY * 2_u32.saturating_pow(doublings.min(8))).min(SERVER_LEASE_PERIOD),
    };
    full.mul_f64(1.0 - SERVER_LEASE_JITTER * chance)
}

/// Seconds by which our clock is ahead of that of the API server, which notes in whole seconds when it wrote `lease`. By our
/// clock that was between `begun` and `answered`; a difference that may come of this is none.
fn clock_skew_seconds(lease: &Lease, begun: Timestamp, answered: Timestamp) -> Option<i32> {
    let entries = lease.metadata.managed_fields.iter().flatten();
    let written = entries.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()?;
    let ahead = begun.duration_since(written).as_secs().max(0);
    let behind = written.duration_since(answered).as_secs_f64().ceil().max(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "a cast from float stops at the ends of the range")]
    Some(i32::try_from(ahead).unwrap_or(i32::MAX).saturating_sub(behind as i32))
}

async fn renew(api: &Api<Lease>, server: &str, holder: &str, now: Timestamp) -> Result<Lease, Error> {
    let object = || format!("Lease {server}");
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(whole_seconds(SERVER_LEASE_TTL)),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    };
    let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
    match api.patch(server, &PatchParams::default(), &patch).await.map_err(Error::api("renew", object())) {
        Err(error) if error.is_not_found() => {}
        other => return other,
    }
    let metadata = ObjectMeta { name: Some(server.to_owned()), ..ObjectMeta::default() };
    let lease = Lease { metadata, spec: Some(spec) };
    api.create(&PostParams::default(), &lease).await.map_err(Error::api("create", object()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::cluster::mock;

    #[test]
    fn failed_renewals_are_tried_again_less_and_less_often_and_never_all_at_once() {
        let seconds = |failures, chance| server_lease_pause(failures, chance).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 99].map(|failures| seconds(failures, 0.0)), [10, 2, 4, 8, 10, 10]);
        assert_eq!(seconds(0, 1.0), 8);
    }

    #[test]
    fn a_leader_waits_for_slow_answers_and_has_time_for_another_try() {
        let milliseconds =
            |left: Option<u64>| patience(Duration::from_millis(1500), left.map(Duration::from_millis)).as_millis();
        assert_eq!(milliseconds(None), 1500, "who does not lead loses nothing");
        assert_eq!([4500, 2250, 1000, 0].map(|left| milliseconds(Some(left))), [2250, 1500, 1000, 0]);
    }

    fn wall() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// A Lease on a server: the record, and its version.
    #[derive(Default)]
    struct Store {
        spec: Option<LeaseSpec>,
        version: u32,
    }

    /// A candidate whose calls take time and may be lost.
    struct Node {
        election: Election,
        renewed: Option<Instant>,
        /// A write on its way: version it was decided on, record, when it was begun.
        writing: Option<(u32, LeaseSpec, Instant)>,
    }

    proptest! {
        /// Two candidates, calls that land late or never, answers that are lost: never two leaders.
        #[test]
        fn two_never_lead_at_once(steps in proptest::collection::vec((0..2_usize, 0..5_u8, 0..40_u64), 1..300)) {
            const TTL: Duration = Duration::from_secs(9);
            let start = Instant::now();
            let mut now = start;
            let mut tick = 0;
            let mut store = Store::default();
            let mut nodes = ["a", "b"].map(|id| Node { election: Election::new(id, TTL), renewed: None, writing: None });
            for (which, step, pause) in steps {
                now += Duration::from_millis(pause * 100);
                tick += 1;
                let node = &mut nodes[which];
                match step {
                    // Reads, and begins to write.
                    0 | 1 => {
                        let time = wall() + jiff::SignedDuration::from_secs(tick);
                        if let Some(spec) = node.election.next(store.spec.as_ref(), now, time) {
                            node.writing = Some((store.version, spec, now));
                        } else {
                            node.renewed = None;
                        }
                    }
                    // The write lands, and its answer arrives (or not).
                    2 | 3 => if let Some((version, spec, begun)) = node.writing.take()
                        && version == store.version
                    {
                        store = Store { spec: Some(spec), version: version + 1 };
                        if step == 2 {
                            node.renewed = Some(begun);
                        }
                    },
                    _ => node.writing = None,
                }
                let leading = nodes.iter().filter(|it| it.renewed.is_some_and(|at| now.duration_since(at) < TTL * 2 / 3));
                prop_assert!(leading.count() < 2);
            }
        }
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once() {
        let mut election = Election::new("b", Duration::from_secs(9));
        let held = LeaseSpec {
            holder_identity: Some("a".into()),
            lease_duration_seconds: Some(9),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let now = Instant::now();
        assert_eq!(election.next(Some(&held), now, wall()), None);
        assert_eq!(election.next(Some(&held), now + Duration::from_millis(8999), wall()), None);
        let taken = election.next(Some(&held), now + Duration::from_secs(9), wall()).unwrap();
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(4)));
        let free = LeaseSpec { holder_identity: Some(String::new()), ..held };
        assert!(election.next(Some(&free), now, wall()).is_some());
    }

    /// An API server that holds one Lease and can be cut off.
    fn server(store: &Arc<Mutex<(Option<Value>, u32)>>, cut: &Arc<Mutex<bool>>) -> Api<Lease> {
        let (store, cut) = (Arc::clone(store), Arc::clone(cut));
        let client = mock::client(move |method, _, body| {
            if *cut.lock().unwrap() {
                return (0, Value::Null);
            }
            let (stored, version) = &mut *store.lock().unwrap();
            let expected = body["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            match (method, &stored) {
                ("GET", Some(lease)) => (200, lease.clone()),
                ("GET", None) => (404, mock::failure(404, "NotFound")),
                ("PUT", Some(_)) if expected != Some(version.to_string()) => (409, mock::failure(409, "Conflict")),
                ("POST", Some(_)) => (409, mock::failure(409, "AlreadyExists")),
                _ => {
                    *version += 1;
                    let mut lease = body.clone();
                    lease["metadata"]["resourceVersion"] = version.to_string().into();
                    *stored = Some(lease.clone());
                    (200, lease)
                }
            }
        });
        Api::namespaced(client, "ns")
    }

    #[tokio::test]
    async fn a_leader_that_is_cut_off_stops_in_time_and_one_that_stops_hands_over() {
        // Whole seconds are what a Lease can say; the loop's own times follow from them.
        const TTL: Duration = Duration::from_secs(1);
        let store = Arc::new(Mutex::new((None, 0)));
        let run = |id: &str, cut: &Arc<Mutex<bool>>| {
            let api = server(&store, cut);
            let candidacy = Candidacy { api, name: "l".into(), identity: id.into(), ttl: TTL, clock: wall };
            let (sender, receiver) = watch::channel(None);
            let stop = CancellationToken::new();
            let task = tokio::spawn(candidacy.run(sender, stop.clone()));
            (receiver, stop, task)
        };
        let (cut, whole) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(false)));
        let (mut first, _stop, _task) = run("a", &cut);
        first.wait_for(Option::is_some).await.unwrap();
        let (mut second, stop, task) = run("b", &whole);
        *cut.lock().unwrap() = true;
        let gone = Instant::now();
        first.wait_for(Option::is_none).await.unwrap();
        assert!(second.borrow().is_none(), "the second must wait for the first to stop");
        assert!(gone.elapsed() < TTL, "stopped before the Lease could expire");
        second.wait_for(Option::is_some).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        let holder = store.lock().unwrap().0.clone().unwrap()["spec"]["holderIdentity"].clone();
        assert_eq!(holder, "", "given up at the end");
    }

    #[test]
    fn a_clock_is_off_by_what_whole_seconds_and_the_time_of_a_call_cannot_explain() {
        let at = |seconds: f64| wall() + jiff::SignedDuration::from_secs_f64(seconds);
        let written = |seconds: f64| -> Lease {
            let entry = |time: f64| serde_json::json!({"manager": "agent", "time": at(time).to_string()});
            serde_json::from_value(serde_json::json!({"metadata": {"managedFields": [entry(-90.0), entry(seconds)]}}))
                .unwrap()
        };
        let skew = |begun: f64, answered: f64| clock_skew_seconds(&written(0.0), at(begun), at(answered));
        for (begun, answered, expected) in [
            (0.0, 0.0, 0),
            (0.9, 0.95, 0),
            (-3.0, 0.1, 0),
            (1.0, 1.1, 1),
            (40.7, 40.8, 40),
            (-0.2, -0.1, -1),
            (-33.0, -32.0, -32),
        ] {
            assert_eq!(skew(begun, answered), Some(expected), "from {begun} to {answered}");
        }
        assert_eq!(clock_skew_seconds(&Lease::default(), at(0.0), at(9.0)), None, "it does not tell");
    }

    #[tokio::test]
    async fn a_server_lease_is_created_once_and_then_renewed() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&calls);
        let client = mock::client(move |method, path, body| {
            log.lock().unwrap().push(format!("{method} {path}"));
            match method {
                "PATCH" => (404, mock::failure(404, "NotFound")),
                _ => (201, body.clone()),
            }
        });
        let (mut lease, work) = ServerLease::new(Api::namespaced(client, "ns"), "host-1", "me", wall);
        assert!(!lease.is_current());
        let task = tokio::spawn(work);
        lease.renewed().await;
        assert!(lease.is_current());
        task.abort();
        let base = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
        assert_eq!(*calls.lock().unwrap(), [format!("PATCH {base}/host-1?"), format!("POST {base}?")]);
    }
}
