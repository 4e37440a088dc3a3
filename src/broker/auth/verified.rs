//! Access tokens whose signature was found good before.
//!
//! A client shows one token for an hour, and checking its signature is a good part of a small call. What is kept says only
//! that our keys have signed these claims: that they have not ended, and that their client may still come in, is asked on
//! every call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use jiff::Timestamp;
use sha2::Digest;
use sha2::Sha256;

use super::super::store::Keys;
use crate::token::AccessClaims;

/// Most tokens that are kept: under a megabyte.
const TOKENS_MAX: usize = 1024;

/// The tokens, by their digest, so that no token stays in memory.
#[derive(Default)]
pub struct Verified(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The keys that have signed them. Others: none of the tokens is known any more.
    keys: Option<Arc<Keys>>,
    claims: HashMap<[u8; 32], Arc<AccessClaims>>,
}

impl Known {
    /// Forgets all when the keys are not those of before.
    fn follow(&mut self, keys: &Arc<Keys>) {
        if !self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys)) {
            self.claims.clear();
            self.keys = Some(Arc::clone(keys));
        }
    }

    /// Makes room for one more: those that have ended go first, and if none has, all.
    fn make_room(&mut self, now: Timestamp) {
        if self.claims.len() >= TOKENS_MAX {
            self.claims.retain(|_, claims| claims.exp > now.as_second());
        }
        if self.claims.len() >= TOKENS_MAX {
            self.claims.clear();
        }
    }
}

impl Verified {
    /// The claims of `token` under `keys`, checked by `verify` if it was not seen before. One that has ended by `now` is
    /// left to `verify` too.
    ///
    /// # Errors
    /// What `verify` says.
    pub fn claims<E>(
        &self,
        token: &str,
        keys: &Arc<Keys>,
        now: Timestamp,
        verify: impl FnOnce() -> Result<AccessClaims, E>,
    ) -> Result<Arc<AccessClaims>, E> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.follow(keys);
            known.claims.get(&digest).filter(|claims| claims.exp > now.as_second()).map(Arc::clone)
        };
        if let Some(claims) = known {
            return Ok(claims);
        }
        let claims = Arc::new(verify()?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.follow(keys);
        known.make_room(now);
        known.claims.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::KeySet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn keys() -> Arc<Keys> {
        Arc::new(Keys::new(KeySet::generate(at(0))))
    }

    fn claims(exp: i64) -> AccessClaims {
        AccessClaims {
            sub: "uid".into(),
            client_id: "id".into(),
            namespace: "team".into(),
            credential: "hash".into(),
            iat: 0,
            exp,
            jti: "token".into(),
            aud: "broker".into(),
        }
    }

    fn unverified() -> Result<AccessClaims, &'static str> {
        Err("has to be verified")
    }

    #[test]
    fn a_token_is_verified_once_under_the_same_keys_and_until_it_ends() {
        let (verified, keys) = (Verified::default(), keys());
        assert_eq!(verified.claims("a", &keys, at(1), unverified), Err("has to be verified"));
        let good = || Ok::<_, &str>(claims(10));
        assert_eq!(*verified.claims("a", &keys, at(1), good).unwrap(), claims(10));
        assert_eq!(*verified.claims("a", &keys, at(9), unverified).unwrap(), claims(10));
        assert!(verified.claims("a", &keys, at(10), unverified).is_err(), "it has ended");
        assert!(verified.claims("b", &keys, at(1), unverified).is_err(), "another token");
    }

    #[test]
    fn new_keys_end_what_is_known() {
        let verified = Verified::default();
        let (old, new) = (keys(), keys());
        let good = || Ok::<_, &str>(claims(10));
        verified.claims("a", &old, at(1), good).unwrap();
        assert!(verified.claims("a", &new, at(1), unverified).is_err());
        // One that was being verified under the old keys does not stay known under the new.
        verified.claims("b", &old, at(1), good).unwrap();
        assert!(verified.claims("b", &new, at(1), unverified).is_err());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_has_ended_goes_first() {
        let (verified, keys) = (Verified::default(), keys());
        let kept = || verified.0.lock().unwrap().claims.len();
        verified.claims("long", &keys, at(1), || Ok::<_, &str>(claims(100))).unwrap();
        for number in 0..TOKENS_MAX - 1 {
            verified.claims(&number.to_string(), &keys, at(1), || Ok::<_, &str>(claims(10))).unwrap();
        }
        assert_eq!(kept(), TOKENS_MAX);
        verified.claims("new", &keys, at(50), || Ok::<_, &str>(claims(100))).unwrap();
        assert_eq!(kept(), 2);
        assert!(verified.claims("long", &keys, at(50), unverified).is_ok());
    }
}
