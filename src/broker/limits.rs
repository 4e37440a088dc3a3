//! How many requests a caller may make in a second.
//!
//! One bucket of tokens for each caller: it holds as many as may come in a second, and fills at that rate. A bucket is
//! kept as the time when it is full again (the generic cell rate algorithm), and a full one need not be kept. By hand, as
//! it is a page: `governor` decides the same way, but its map grows until it is told to shrink, and `tower_governor` asks
//! before it is known who calls.
//!
//! A request that proves to be a client's counts against that client, any other against the address it comes from. So
//! nobody is held up by a hostile caller at the same address or behind the same balancer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::Extensions;
use http::HeaderMap;
use jiff::SignedDuration;
use jiff::Timestamp;

use super::Rules;
use crate::api::ApiClient;

/// How many callers have a bucket of their own: some megabytes. Those beyond share one until others are idle.
const CALLERS_MAX: usize = 50_000;

/// How long a bucket takes to fill.
const BURST: SignedDuration = SignedDuration::from_secs(1);

/// Least time between two looks for idle callers.
const SWEEP_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Whom a request counts against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The client of this uid.
    Client(String),
    /// An address, or the network of one host.
    Address(IpAddr),
    /// All beyond those who have a bucket of their own.
    Rest,
}

impl Source {
    /// A client.
    pub fn of_client(client: &ApiClient) -> Self {
        Self::Client(client.metadata.uid.clone().unwrap_or_default())
    }

    /// An address. Of an IPv6 one the network: a host has 2^64 of them.
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self::Address((address.to_bits() >> 64 << 64).to_be_bytes().into()),
            address @ IpAddr::V4(_) => Self::Address(address),
        }
    }
}

/// The buckets.
pub struct Limits {
    /// Time between two requests at the highest rate.
    interval: SignedDuration,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    full_at: HashMap<Source, Timestamp>,
    swept: Option<Timestamp>,
}

impl Buckets {
    /// Whose bucket to use, after idle ones were forgotten when there are too many.
    fn place(&mut self, source: Source, now: Timestamp) -> Source {
        if self.full_at.contains_key(&source) || self.full_at.len() < CALLERS_MAX {
            return source;
        }
        if self.swept.is_none_or(|swept| now.duration_since(swept).abs() >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < CALLERS_MAX { source } else { Source::Rest }
    }
}

impl Limits {
    /// Limits of `requests_per_second` for each caller.
    pub fn new(requests_per_second: u32) -> Self {
        let interval = SignedDuration::from_nanos(1_000_000_000 / i64::from(requests_per_second.max(1)));
        Self { interval, buckets: Mutex::default() }
    }

    /// Counts a request at `now`.
    ///
    /// # Errors
    /// How long to wait, when the bucket is empty; then the request does not count.
    pub fn admit(&self, source: Source, now: Timestamp) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let source = buckets.place(source, now);
        let full_at = buckets.full_at.entry(source).or_insert(now);
        // No bucket takes longer to fill: one that seems to was used before the clock was set back.
        let next = (*full_at).clamp(now, now + BURST) + self.interval;
        match Duration::try_from(next.duration_since(now + BURST)) {
            Err(_) | Ok(Duration::ZERO) => {
                *full_at = next;
                Ok(())
            }
            Ok(wait) => Err(wait),
        }
    }
}

/// Header in which proxies say for whom they call.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Where a request comes from: the peer of its connection or, where that is a proxy of ours, the address it names.
///
/// A proxy appends the address of its own peer to what it was sent. So only the last entry is its word; all before it is
/// what the caller claims.
pub fn caller_address(headers: &HeaderMap, extensions: &Extensions, rules: &Rules) -> IpAddr {
    let forwarded = || {
        let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
        last.parse().ok().or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    let peer = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let named = if rules.enable_throttling_forwarded_for_header { forwarded() } else { None };
    named.or_else(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Source {
        Source::Client(name.to_owned())
    }

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_as_fast_as_the_bucket_fills() {
        let limits = Limits::new(4);
        let start = start();
        let at = |after: u64| limits.admit(client("a"), start + milliseconds(after));
        assert_eq!([at(0), at(0), at(0), at(0)], [Ok(()); 4]);
        assert_eq!(at(0), Err(milliseconds(250)));
        assert_eq!(at(100), Err(milliseconds(150)), "a refused request costs nothing");
        assert_eq!([at(250), at(250)], [Ok(()), Err(milliseconds(250))]);
        assert_eq!(limits.admit(client("b"), start), Ok(()), "nobody pays for another");
        assert_eq!((0..5).filter(|_| at(60_000).is_ok()).count(), 4, "a long rest saves up no more");
        assert_eq!(at(0), Err(milliseconds(250)), "a clock that is set back stops nobody for longer");
    }

    #[test]
    fn one_a_second_is_one_a_second() {
        let limits = Limits::new(1);
        let start = start();
        assert_eq!(limits.admit(client("a"), start), Ok(()));
        assert_eq!(limits.admit(client("a"), start), Err(Duration::from_secs(1)));
        assert_eq!(limits.admit(client("a"), start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn idle_callers_are_forgotten_and_too_many_busy_ones_share_a_bucket() {
        let limits = Limits::new(1);
        let start = start();
        let address = |number: usize| Source::Address(Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into());
        for number in 0..CALLERS_MAX {
            limits.admit(address(number), start).unwrap();
        }
        assert_eq!(limits.admit(address(CALLERS_MAX), start), Ok(()), "of the shared bucket");
        assert!(limits.admit(address(CALLERS_MAX + 1), start).is_err(), "which is empty now");
        assert!(limits.admit(address(7), start).is_err(), "who has a bucket keeps it");
        assert_eq!(limits.buckets.lock().unwrap().full_at.len(), CALLERS_MAX + 1);
        assert_eq!(limits.admit(address(CALLERS_MAX + 1), start + milliseconds(1500)), Ok(()));
        assert_eq!(limits.buckets.lock().unwrap().full_at.len(), 1);
    }

    #[test]
    fn hosts_are_told_apart_not_their_addresses() {
        let source = |text: &str| Source::of_address(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn a_proxy_is_believed_only_where_told_and_only_its_own_entry() {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo::<SocketAddr>("192.0.2.9:1000".parse().unwrap()));
        let trusting = Rules { enable_throttling_forwarded_for_header: true, ..Rules::default() };
        let address = |values: &[&str], rules: &Rules| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            caller_address(&headers, &extensions, rules).to_string()
        };
        assert_eq!(address(&["198.51.100.1"], &Rules::default()), "192.0.2.9");
        for (values, expected) in [
            (&["198.51.100.1"][..], "198.51.100.1"),
            (&["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
            (&["203.0.113.5", " 198.51.100.1:4711"], "198.51.100.1"),
            (&["[2001:db8::1]:80"], "2001:db8::1"),
            (&["198.51.100.1, unknown"], "192.0.2.9"),
            (&[""], "192.0.2.9"),
            (&[], "192.0.2.9"),
        ] {
            assert_eq!(address(values, &trusting), expected, "{values:?}");
        }
    }
}
