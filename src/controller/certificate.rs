//! The brokers' certificate, where nobody else makes it: an authority that stays, and a certificate signed by it.
//!
//! Both are Secrets of the release namespace. Brokers get the certificate as files, which they read again when it changes;
//! clients trust the authority, so a renewal is no news to them. Keys are never logged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::api::PostParams;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;

use super::Context;
use super::metrics::Outcome;
use crate::api::names;
use crate::cluster::Error;

/// How often the Secrets are looked at. One that somebody deleted is made anew within this time.
const PERIOD: Duration = Duration::from_mins(1);
/// How soon after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Days the authority is good for. It is replaced by deleting its Secret.
const AUTHORITY_DAYS: u32 = 3650;
/// How long before now a certificate begins, for clocks that are behind.
const HEAD_START: SignedDuration = SignedDuration::from_hours(24);

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// What the certificate is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSettings {
    /// Names and addresses it is good for.
    pub names: Vec<String>,
    /// Days it is good for. It is renewed when two thirds are over.
    pub days: u32,
}

/// Runs for as long as we lead; without settings it does nothing.
pub(super) async fn run(context: Arc<Context>) {
    let Some(settings) = &context.settings.broker_certificate else { return std::future::pending().await };
    let keeper = Keeper::new(&context.client, &context.settings.namespace);
    loop {
        let pause = match keeper.pass((context.clock)(), settings).await {
            Ok(()) => {
                context.metrics.reconciled("certificate", Outcome::RequeueAfter);
                PERIOD
            }
            Err(error) => {
                context.failed("certificate", names::BROKER_CERTIFICATE, &error);
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Keeper {
    secrets: Api<Secret>,
}

impl Keeper {
    fn new(client: &Client, namespace: &str) -> Self {
        Self { secrets: Api::namespaced(client.clone(), namespace) }
    }

    /// Makes both what they should be at `now`.
    async fn pass(&self, now: Timestamp, settings: &CertificateSettings) -> Result<(), Error> {
        let authority = match self.read(names::BROKER_AUTHORITY).await? {
            Some(secret) if Authority::stored(&secret).is_some() => secret,
            stored => {
                self.store(stored, names::BROKER_AUTHORITY, "Opaque", new_authority(now), BTreeMap::new()).await?
            }
        };
        let authority = Authority::stored(&authority).expect("it was read or made just now");
        let stored = self.read(names::BROKER_CERTIFICATE).await?;
        if stored.as_ref().is_some_and(|secret| !is_due(secret, &authority, settings, now)) {
            return Ok(());
        }
        let notes = BTreeMap::from([
            (names::CERTIFICATE_NAMES.to_owned(), settings.names.join(",")),
            (names::RENEW_TIME.to_owned(), (now + days(settings.days) * 2 / 3).to_string()),
        ]);
        let data = new_certificate(&authority, settings, now);
        self.store(stored, names::BROKER_CERTIFICATE, "kubernetes.io/tls", data, notes).await?;
        tracing::info!(names = settings.names.join(","), "Made a certificate for the brokers");
        Ok(())
    }

    async fn read(&self, name: &str) -> Result<Option<Secret>, Error> {
        self.secrets.get_opt(name).await.map_err(Error::api("read", format!("Secret {name}")))
    }

    /// Refused when another process has written meanwhile; the next pass sees what that one has made.
    async fn store(
        &self,
        stored: Option<Secret>,
        name: &str,
        type_: &str,
        data: BTreeMap<String, ByteString>,
        notes: BTreeMap<String, String>,
    ) -> Result<Secret, Error> {
        let object = || format!("Secret {name}");
        let parameters = PostParams::default();
        if let Some(mut secret) = stored {
            secret.annotations_mut().extend(notes);
            let secret = Secret { data: Some(data), ..secret };
            return self.secrets.replace(name, &parameters, &secret).await.map_err(Error::api("update", object()));
        }
        let metadata = ObjectMeta { name: Some(name.to_owned()), annotations: Some(notes), ..ObjectMeta::default() };
        let secret = Secret { metadata, type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() };
        self.secrets.create(&parameters, &secret).await.map_err(Error::api("create", object()))
    }
}

/// The authority, as its Secret has it.
struct Authority {
    certificate: String,
    key: KeyPair,
}

impl Authority {
    fn stored(secret: &Secret) -> Option<Self> {
        let certificate = text(secret, CA_CERTIFICATE)?;
        let key = KeyPair::from_pem(&text(secret, CA_KEY)?).ok()?;
        Some(Self { certificate, key })
    }
}

fn text(secret: &Secret, entry: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(entry)?.0.clone()).ok()
}

/// Whether the certificate must be made anew: it is worn out, for other names, of another authority, or unreadable.
fn is_due(secret: &Secret, authority: &Authority, settings: &CertificateSettings, now: Timestamp) -> bool {
    let notes = secret.annotations();
    let renew_time = notes.get(names::RENEW_TIME).and_then(|text| text.parse::<Timestamp>().ok());
    let is_whole = [CERTIFICATE, KEY].iter().all(|entry| text(secret, entry).is_some());
    !is_whole
        || text(secret, CA_CERTIFICATE).as_ref() != Some(&authority.certificate)
        || notes.get(names::CERTIFICATE_NAMES) != Some(&settings.names.join(","))
        || renew_time.is_none_or(|time| time <= now)
}

fn days(count: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(count))
}

/// The parameters by which the authority signs, the same each time: who it is lies in its name and key.
fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "dcv-operator broker authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn set_life(parameters: &mut CertificateParams, now: Timestamp, count: u32) {
    let date = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        let small = |number: i8| u8::try_from(number).expect("months and days are positive");
        rcgen::date_time_ymd(date.year().into(), small(date.month()), small(date.day()))
    };
    parameters.not_before = date(now - HEAD_START);
    parameters.not_after = date(now + days(count));
}

const MADE: &str = "plain parameters can be signed";

fn new_authority(now: Timestamp) -> BTreeMap<String, ByteString> {
    let mut parameters = authority_parameters();
    set_life(&mut parameters, now, AUTHORITY_DAYS);
    let key = KeyPair::generate().expect(MADE);
    let certificate = parameters.self_signed(&key).expect(MADE).pem();
    entries([(CA_CERTIFICATE, certificate), (CA_KEY, key.serialize_pem())])
}

fn new_certificate(
    authority: &Authority,
    settings: &CertificateSettings,
    now: Timestamp,
) -> BTreeMap<String, ByteString> {
    let mut leaf = CertificateParams::new(settings.names.clone()).expect("the names were checked with the flags");
    set_life(&mut leaf, now, settings.days);
    leaf.distinguished_name.push(DnType::CommonName, "dcv-operator broker");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().expect(MADE);
    let certificate = leaf.signed_by(&key, &Issuer::new(authority_parameters(), &authority.key)).expect(MADE).pem();
    entries([(CERTIFICATE, certificate), (KEY, key.serialize_pem()), (CA_CERTIFICATE, authority.certificate.clone())])
}

fn entries<const N: usize>(texts: [(&str, String); N]) -> BTreeMap<String, ByteString> {
    texts.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::UnixTime;
    use rustls::pki_types::pem::PemObject;
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::cluster::mock;

    /// Secrets by name.
    type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

    fn api(objects: Objects) -> Client {
        mock::client(move |method, path, body| {
            let mut objects = objects.lock().unwrap();
            if method == "GET" {
                return match objects.get(path.rsplit('/').next().unwrap()) {
                    Some(object) => (200, object.clone()),
                    None => (404, mock::failure(404, "NotFound")),
                };
            }
            objects.insert(body["metadata"]["name"].as_str().unwrap().to_owned(), body.clone());
            (200, body.clone())
        })
    }

    fn settings(names: &[&str]) -> CertificateSettings {
        CertificateSettings { names: names.iter().map(|&name| name.to_owned()).collect(), days: 90 }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn secret(objects: &Objects, name: &str) -> Secret {
        serde_json::from_value(objects.lock().unwrap()[name].clone()).unwrap()
    }

    /// Whether who trusts the authority trusts the certificate for `name` at a time.
    fn is_trusted(objects: &Objects, name: &str, at: Timestamp) -> bool {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let der = |secret: &Secret, entry: &str| {
            CertificateDer::from_pem_slice(text(secret, entry).unwrap().as_bytes()).unwrap().into_owned()
        };
        let mut roots = RootCertStore::empty();
        roots.add(der(&secret(objects, names::BROKER_AUTHORITY), CA_CERTIFICATE)).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = der(&secret(objects, names::BROKER_CERTIFICATE), CERTIFICATE);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap()));
        verifier.verify_server_cert(&leaf, &[], &name.to_owned().try_into().unwrap(), &[], time).is_ok()
    }

    #[tokio::test]
    async fn the_authority_stays_and_the_certificate_is_renewed_in_time() {
        let objects = Objects::default();
        let keeper = Keeper::new(&api(Arc::clone(&objects)), "ns");
        let wanted = settings(&["broker.ns.svc", "10.0.0.1"]);
        keeper.pass(second(0), &wanted).await.unwrap();
        let day = 24 * 3600;
        assert!(is_trusted(&objects, "broker.ns.svc", second(0)));
        assert!(is_trusted(&objects, "10.0.0.1", second(89 * day)));
        assert!(!is_trusted(&objects, "broker.ns.svc", second(91 * day)));
        assert!(!is_trusted(&objects, "other", second(0)));
        let first = objects.lock().unwrap().clone();
        keeper.pass(second(59 * day), &wanted).await.unwrap();
        assert_eq!(*objects.lock().unwrap(), first, "nothing is due");
        keeper.pass(second(60 * day), &wanted).await.unwrap();
        let renewed = objects.lock().unwrap().clone();
        assert_ne!(renewed[names::BROKER_CERTIFICATE], first[names::BROKER_CERTIFICATE]);
        assert_eq!(renewed[names::BROKER_AUTHORITY], first[names::BROKER_AUTHORITY]);
        assert!(is_trusted(&objects, "broker.ns.svc", second(140 * day)));
    }

    #[tokio::test]
    async fn other_names_another_authority_and_broken_entries_make_a_new_one() {
        let objects = Objects::default();
        let keeper = Keeper::new(&api(Arc::clone(&objects)), "ns");
        keeper.pass(second(0), &settings(&["a"])).await.unwrap();
        keeper.pass(second(0), &settings(&["a", "b"])).await.unwrap();
        assert!(is_trusted(&objects, "b", second(0)));
        objects.lock().unwrap().remove(names::BROKER_AUTHORITY);
        keeper.pass(second(0), &settings(&["a", "b"])).await.unwrap();
        assert!(is_trusted(&objects, "b", second(0)), "the new authority has signed it");
        objects.lock().unwrap().get_mut(names::BROKER_CERTIFICATE).unwrap()["data"]["tls.key"] = json!(null);
        keeper.pass(second(0), &settings(&["a", "b"])).await.unwrap();
        assert!(text(&secret(&objects, names::BROKER_CERTIFICATE), KEY).is_some());
    }
}
