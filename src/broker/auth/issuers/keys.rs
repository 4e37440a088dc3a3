//! The public keys of one issuer: fetched now and then, and when a token names an unknown one.
//!
//! What was fetched last stays in use until the issuer answers with something usable. Invariant: whatever tokens name,
//! the issuer is asked at most once in [`ASK_INTERVAL`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::KeyAlgorithm;
use jsonwebtoken::jwk::PublicKeyUse;
use reqwest::Certificate;
use reqwest::redirect;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::ConfigError;
use super::config::IssuerConfig;

/// Least time between two questions to the issuer.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// How old keys may get: a key that was taken away is good for no longer.
const REFRESH_INTERVAL: Duration = Duration::from_mins(10);

/// Longest time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer worth reading: a set has a few keys, each with a certificate chain at most.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// Most keys kept of it.
const KEYS_MAX: usize = 100;

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The issuer cannot be reached, or does not answer in time.
    #[error("no answer")]
    Unanswered(#[from] reqwest::Error),
    /// The issuer answers with something else.
    #[error("the answer has status {0}")]
    Status(u16),
    /// It answers with too much.
    #[error("the answer has more than {ANSWER_MAX_BYTES} bytes")]
    TooLarge,
    /// It answers with no JWK set.
    #[error("the answer is no JWK set")]
    NoSet(#[source] serde_json::Error),
    /// None of the keys can be used.
    #[error("the answer has no key that can verify a signature")]
    NoKey,
}

/// Where the text of a set comes from.
pub trait Source: Send + Sync {
    /// The text as it is now.
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>>;
}

/// A set at an address.
pub struct Remote {
    http: reqwest::Client,
    url: String,
}

impl Remote {
    /// The set of an issuer. Only over HTTPS, and only from where it is said to be.
    pub fn new(config: &IssuerConfig) -> Result<Self, ConfigError> {
        let client = |source| ConfigError::Client { url: config.url.clone(), source };
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT)
            .pool_max_idle_per_host(0);
        if let Some(path) = &config.ca_file {
            let text = std::fs::read(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(&text).map_err(client)?);
        }
        Ok(Self { http: builder.build().map_err(client)?, url: config.url.clone() })
    }

    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self.http.get(&self.url).send().await?;
        if response.status().as_u16() != 200 {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if text.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}

impl Source for Remote {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
        self.get().boxed()
    }
}

/// A key that can verify signatures.
#[derive(Clone)]
struct Verifying {
    jwk: Jwk,
    key: DecodingKey,
}

impl Verifying {
    /// Keys of other kinds, for other uses, and those that we cannot read are no concern of ours.
    fn new(jwk: Jwk) -> Option<Self> {
        let is_for_signatures =
            jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        // One that everybody can read cannot be a shared secret.
        (is_for_signatures && key.family() != AlgorithmFamily::Hmac).then_some(Self { jwk, key })
    }

    /// Whether a token of this algorithm may be signed with it. The key says what it is for, not the token.
    fn fits(&self, algorithm: Algorithm) -> bool {
        let named = self.jwk.common.key_algorithm;
        let is_named = named.is_none_or(|named: KeyAlgorithm| format!("{named:?}") == format!("{algorithm:?}"));
        is_named && self.key.family() == algorithm.family()
    }

    fn has_id(&self, id: &str) -> bool {
        self.jwk.common.key_id.as_deref() == Some(id)
    }
}

/// The keys of an issuer.
pub struct Keys {
    issuer: String,
    source: Box<dyn Source>,
    known: ArcSwap<Vec<Verifying>>,
    asked: Mutex<Option<Instant>>,
}

impl Keys {
    /// None yet, for an issuer of this name.
    pub fn new(issuer: &str, source: Box<dyn Source>) -> Self {
        Self { issuer: issuer.to_owned(), source, known: ArcSwap::default(), asked: Mutex::default() }
    }

    /// The key of this id, for tokens of this algorithm. Without an id the only one there is for it. The issuer is asked
    /// for one that is not known.
    pub async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        if let Some(known) = self.known(id, algorithm) {
            return Some(known);
        }
        self.refresh().await;
        self.known(id, algorithm)
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
        let known = self.known.load();
        let mut fitting = known.iter().filter(|key| key.fits(algorithm) && id.is_none_or(|id| key.has_id(id)));
        let first = fitting.next()?;
        fitting.next().is_none().then(|| first.key.clone())
    }

    /// Keeps the keys current. Does not end.
    pub async fn follow(&self) {
        loop {
            self.refresh().await;
            // An issuer that is away at the start is asked soon again; later a token that needs a key sees to that.
            let pause = if self.known.load().is_empty() { ASK_INTERVAL } else { REFRESH_INTERVAL };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks the issuer, unless that was done a moment ago. Those who come meanwhile wait for the same answer.
    async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        let now = Instant::now();
        if asked.is_some_and(|asked| now < asked + ASK_INTERVAL) {
            return;
        }
        *asked = Some(now);
        match self.source.fetch().await.and_then(|text| parse(&text)) {
            Ok(keys) => self.known.store(Arc::new(keys)),
            Err(error) => tracing::warn!(
                issuer = self.issuer,
                error = &error as &dyn std::error::Error,
                "no new keys of an authorization server, those known stay in use"
            ),
        }
    }
}

fn parse(text: &[u8]) -> Result<Vec<Verifying>, FetchError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let Set { keys } = serde_json::from_slice(text).map_err(FetchError::NoSet)?;
    // One by one: a set may hold keys of kinds that we do not know.
    let keys = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok().and_then(Verifying::new));
    let keys: Vec<_> = keys.take(KEYS_MAX).collect();
    if keys.is_empty() { Err(FetchError::NoKey) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::token::KeySet;

    /// An issuer that answers as told, and counts how often it is asked.
    #[derive(Clone)]
    struct Told {
        answer: Arc<std::sync::Mutex<Option<Value>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Source for Told {
        fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, FetchError>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().as_ref().map(|set| set.to_string().into_bytes());
            async {
                // Long enough for others to come.
                tokio::task::yield_now().await;
                answer.ok_or(FetchError::Status(503))
            }
            .boxed()
        }
    }

    impl Told {
        fn new(answer: Option<Value>) -> (Self, Keys) {
            let told = Self { answer: Arc::new(std::sync::Mutex::new(answer)), asked: Arc::default() };
            (told.clone(), Keys::new("test", Box::new(told)))
        }

        fn answer(&self, answer: Option<Value>) {
            *self.answer.lock().unwrap() = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    fn key(id: &str) -> Value {
        let mut key = serde_json::to_value(&KeySet::generate(Timestamp::UNIX_EPOCH).public().keys[0]).unwrap();
        key["kid"] = json!(id);
        key
    }

    fn set(keys: &[Value]) -> Value {
        json!({"keys": keys})
    }

    /// Lets the issuer be asked again, as after a while.
    async fn pass_time(keys: &Keys) {
        *keys.asked.lock().await = None;
    }

    async fn knows(keys: &Keys, id: &str) -> bool {
        keys.find(Some(id), Algorithm::EdDSA).await.is_some()
    }

    #[tokio::test]
    async fn unknown_keys_are_asked_for_at_most_twice_a_minute_whatever_is_sent() {
        let (told, keys) = Told::new(Some(set(&[key("a")])));
        let ids: Vec<_> = (0..100).map(|number| format!("x{number}")).collect();
        assert!(!futures::future::join_all(ids.iter().map(|id| knows(&keys, id))).await.contains(&true));
        assert_eq!(told.asked(), 1, "a hundred who come at once share one answer");
        assert!(knows(&keys, "a").await);
        told.answer(Some(set(&[key("a"), key("b")])));
        assert!(!knows(&keys, "b").await);
        assert_eq!(told.asked(), 1);
        pass_time(&keys).await;
        assert!(knows(&keys, "b").await);
        assert_eq!(told.asked(), 2);
    }

    #[tokio::test]
    async fn the_last_good_keys_stay_while_the_issuer_is_away_or_talks_nonsense() {
        let (told, keys) = Told::new(None);
        assert!(!knows(&keys, "a").await, "it is away at the start");
        told.answer(Some(set(&[key("a")])));
        assert!(!knows(&keys, "a").await, "it was asked a moment ago");
        pass_time(&keys).await;
        assert!(knows(&keys, "a").await);
        for nonsense in [None, Some(json!("nonsense")), Some(set(&[])), Some(set(&[json!({"kty": "oct", "k": "AA"})]))]
        {
            told.answer(nonsense.clone());
            pass_time(&keys).await;
            keys.refresh().await;
            assert!(knows(&keys, "a").await, "{nonsense:?}");
        }
        assert_eq!(told.asked(), 6);
        told.answer(Some(set(&[key("b")])));
        pass_time(&keys).await;
        keys.refresh().await;
        assert!(!knows(&keys, "a").await, "a key that was taken away is good no more");
        assert!(knows(&keys, "b").await);
    }

    #[test]
    fn keys_of_unknown_kinds_and_for_other_uses_are_passed_over() {
        let mut encryption = key("b");
        encryption["use"] = json!("enc");
        let mut other = key("c");
        other["alg"] = json!("ES256");
        let text = json!({"keys": [{"kty": "new"}, 1, key("a"), encryption, other]}).to_string();
        let keys = parse(text.as_bytes()).unwrap_or_default();
        let fitting: Vec<_> = keys.iter().filter(|key| key.fits(Algorithm::EdDSA)).collect();
        assert!(fitting.len() == 1 && fitting[0].has_id("a"));
        assert!(!fitting[0].fits(Algorithm::RS256) && !fitting[0].fits(Algorithm::HS256));
    }

    #[tokio::test]
    async fn a_token_without_a_key_id_is_for_an_issuer_with_one_key() {
        let (_, one) = Told::new(Some(set(&[key("a")])));
        assert!(one.find(None, Algorithm::EdDSA).await.is_some());
        let (_, two) = Told::new(Some(set(&[key("a"), key("b")])));
        assert!(two.find(None, Algorithm::EdDSA).await.is_none());
    }
}
