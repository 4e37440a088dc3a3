//! Passwords of API clients: random text whose SHA-256 is kept.
//!
//! The hash is fast and unsalted on purpose: 256 random bits leave nothing to guess, and a slow hash would be a lever for
//! overload.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A new password. Shown once, never stored.
pub struct Password(String);

impl Password {
    /// 256 random bits.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        OsRng.try_fill_bytes(&mut bytes).expect("the system has randomness");
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The text to hand to the client.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What an `ApiClient` keeps of it: `sha256:` and 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        hash(&self.0)
    }
}

fn hash(password: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(password)))
}

/// Which of `hashes` belongs to `password`. Takes the same time whichever it is, and for an unknown client too when it is
/// called with no hashes.
pub fn verify_password<'a>(password: &str, hashes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = hash(password);
    let mut found = None;
    for stored in hashes {
        if bool::from(stored.as_bytes().ct_eq(given.as_bytes())) {
            found = Some(stored);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let (one, two) = (Password::generate(), Password::generate());
        let hashes = [one.hash(), two.hash()];
        assert_eq!(verify_password(two.reveal(), hashes.iter().map(String::as_str)), Some(hashes[1].as_str()));
        assert_eq!(verify_password("", hashes.iter().map(String::as_str)), None);
        assert_eq!(hashes[0].len(), 71);
    }
}
