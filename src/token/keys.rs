//! Sets of signing keys and their rotation.
//!
//! Rotation is a pure function of the set, the time and the settings: deciding twice gives the same set.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::jwk::JwkSet;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;

use super::OldKeys;

/// The keys of one kind of token, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<SigningKey>,
}

/// One key pair.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningKey {
    /// Id of the key in token headers.
    pub kid: String,
    /// From when on it signs; before that it is only published.
    pub signs_from: Timestamp,
    /// The Ed25519 private key, PKCS #8 in base64.
    private: String,
}

// The private half must not reach a log.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("signs_from", &self.signs_from)
            .finish_non_exhaustive()
    }
}

/// How keys of a kind follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// How long one key signs.
    pub period: SignedDuration,
    /// How long a key is published before it signs, so that every verifier knows it by then.
    pub lead: SignedDuration,
    /// The longest life of a token: for so long an old key stays published.
    pub token_lifetime: SignedDuration,
}

/// How far the clocks of those who sign may be behind ours.
const CLOCK_LEEWAY: SignedDuration = SignedDuration::from_mins(1);

/// DER header of an Ed25519 private key; the 32 bytes of the key follow. Source: RFC 8410, section 7.
const ED25519_PKCS8_HEADER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

impl SigningKey {
    fn generate(signs_from: Timestamp) -> Self {
        let mut der = ED25519_PKCS8_HEADER.to_vec();
        let mut secret = [0; 32];
        OsRng.try_fill_bytes(&mut secret).expect("the system has randomness");
        der.extend(secret);
        let mut key = Self { kid: String::new(), signs_from, private: STANDARD.encode(der) };
        let public = serde_json::to_vec(&key.public().algorithm).expect("a public key is plain data");
        key.kid = hex::encode(&Sha256::digest(public)[..16]);
        key
    }

    pub(super) fn encoding(&self) -> EncodingKey {
        EncodingKey::from_ed_der(&STANDARD.decode(&self.private).unwrap_or_default())
    }

    /// What only holders of the private half know, for other uses than signing.
    pub(super) fn secret(&self) -> &[u8] {
        self.private.as_bytes()
    }

    fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.encoding(), Algorithm::EdDSA).expect("keys are made by generate");
        jwk.common.key_id = Some(self.kid.clone());
        jwk
    }
}

impl KeySet {
    /// A set of one key that signs from `now` on.
    pub fn generate(now: Timestamp) -> Self {
        Self { keys: vec![SigningKey::generate(now)] }
    }

    /// Reads a set from the text of its Secret.
    ///
    /// # Errors
    /// When the text is not a key set, or a key in it is unusable.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let set: Self = serde_json::from_slice(text)?;
        let unusable = set.keys.iter().find(|key| Jwk::from_encoding_key(&key.encoding(), Algorithm::EdDSA).is_err());
        match unusable {
            Some(key) => Err(serde::de::Error::custom(format!("key {} is unusable", key.kid))),
            None => Ok(set),
        }
    }

    /// The key that signs at `now`: the newest whose time has come.
    pub fn signer(&self, now: Timestamp) -> Option<&SigningKey> {
        self.keys.iter().filter(|key| key.signs_from <= now).max_by_key(|key| key.signs_from)
    }

    /// The public halves, as verifiers need them.
    pub fn public(&self) -> JwkSet {
        JwkSet { keys: self.keys.iter().map(SigningKey::public).collect() }
    }

    /// The set with a new key that signs from `now` on, before its time and without having been published before.
    #[must_use]
    pub fn renewed(&self, now: Timestamp, old_keys: OldKeys) -> Self {
        match old_keys {
            // Without those that were to sign next: they are as old as the one that is not wanted any more.
            OldKeys::Kept => {
                let mut keys: Vec<_> = self.keys.iter().filter(|key| key.signs_from < now).cloned().collect();
                keys.push(SigningKey::generate(now));
                Self { keys }
            }
            // Its signers' clocks may be behind, and there is no other key.
            OldKeys::Revoked => Self::generate(now - CLOCK_LEEWAY),
        }
    }

    /// The set as it should be at `now`: with a key that signs, with the next one published in time, without those
    /// whose last token has ended.
    #[must_use]
    pub fn rotated(&self, now: Timestamp, rotation: Rotation) -> Self {
        let mut set = self.clone();
        if set.signer(now).is_none() {
            set.keys.push(SigningKey::generate(now));
        }
        set.keys.sort_by_key(|key| key.signs_from);
        if let Some(newest) = set.keys.last()
            && newest.signs_from + rotation.period <= now + rotation.lead
        {
            let due = newest.signs_from + rotation.period;
            set.keys.push(SigningKey::generate(due.max(now + rotation.lead)));
        }
        let ends: Vec<_> = set.keys.iter().skip(1).map(|next| next.signs_from + rotation.token_lifetime).collect();
        let ended = ends.iter().take_while(|end| **end < now).count();
        set.keys.drain(..ended);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROTATION: Rotation = Rotation {
        period: SignedDuration::from_hours(24 * 30),
        lead: SignedDuration::from_hours(24),
        token_lifetime: SignedDuration::from_hours(1),
    };

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3600).unwrap()
    }

    #[test]
    fn the_next_key_is_published_a_day_before_it_signs_and_the_old_one_outlives_its_tokens() {
        let first = KeySet::default().rotated(hour(0), ROTATION);
        assert_eq!(first.keys.len(), 1);
        assert_eq!(first.rotated(hour(24 * 29 - 1), ROTATION), first);
        let both = first.rotated(hour(24 * 29), ROTATION);
        assert_eq!(both.keys.len(), 2);
        assert_eq!(both.rotated(hour(24 * 29), ROTATION), both);
        assert_eq!(both.signer(hour(24 * 30 - 1)), Some(&first.keys[0]));
        assert_eq!(both.signer(hour(24 * 30)), Some(&both.keys[1]));
        assert_eq!(both.rotated(hour(24 * 30 + 1), ROTATION), both);
        assert_eq!(both.rotated(hour(24 * 30 + 2), ROTATION).keys, both.keys[1..]);
    }

    #[test]
    fn a_key_that_is_asked_for_signs_at_once_and_the_old_ones_end_as_always_or_now() {
        let first = KeySet::default().rotated(hour(0), ROTATION);
        let both = first.rotated(hour(24 * 29), ROTATION);
        let kept = both.renewed(hour(24 * 29), OldKeys::Kept);
        assert_eq!((kept.keys.len(), &kept.keys[0]), (2, &first.keys[0]));
        assert_eq!(kept.signer(hour(24 * 29)), Some(&kept.keys[1]));
        assert!(!both.keys.contains(&kept.keys[1]));
        assert_eq!(kept.rotated(hour(24 * 29), ROTATION), kept);
        assert_eq!(kept.rotated(hour(24 * 29 + 2), ROTATION).keys, kept.keys[1..]);
        let revoked = both.renewed(hour(24 * 29), OldKeys::Revoked);
        assert_eq!(revoked.keys.len(), 1);
        assert!(!both.keys.contains(&revoked.keys[0]));
        assert!(revoked.signer(hour(24 * 29) - SignedDuration::from_secs(30)).is_some());
        assert_eq!(revoked.rotated(hour(24 * 29), ROTATION), revoked);
    }

    #[test]
    fn a_set_survives_its_secret() {
        let set = KeySet::generate(hour(0));
        assert_eq!(KeySet::parse(&serde_json::to_vec(&set).unwrap()).unwrap(), set);
        assert!(
            KeySet::parse(b"{\"keys\":[{\"kid\":\"a\",\"signsFrom\":\"2026-01-01T00:00:00Z\",\"private\":\"AA\"}]}")
                .is_err()
        );
    }
}
