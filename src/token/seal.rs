//! Texts that we hand out and must know again: sealed with what only holders of the private keys can make.
//!
//! A seal is no token: it lets nobody in. It is an HMAC under the private half of a signing key, over a text that says
//! what it is for, so a seal is never taken for a signature or for a seal of another purpose.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto;

use super::KeySet;
use super::keys::SigningKey;

const ALGORITHM: Algorithm = Algorithm::HS256;

impl KeySet {
    /// `content` in a form that can stand in a URL, with the seal of the key that signs at `now`. It can be read by all.
    pub fn seal(&self, purpose: &str, content: &[u8], now: Timestamp) -> Option<String> {
        let content = URL_SAFE_NO_PAD.encode(content);
        let key = EncodingKey::from_secret(self.signer(now)?.secret());
        let seal = crypto::sign(&message(purpose, &content), &key, ALGORITHM).ok()?;
        Some(format!("{content}.{seal}"))
    }

    /// The content of a sealed text, if a key of this set has sealed it for this purpose.
    pub fn unseal(&self, purpose: &str, sealed: &str) -> Option<Vec<u8>> {
        let (content, seal) = sealed.split_once('.')?;
        let message = message(purpose, content);
        let is_by = |key: &SigningKey| {
            crypto::verify(seal, &message, &DecodingKey::from_secret(key.secret()), ALGORITHM).unwrap_or(false)
        };
        if self.keys.iter().any(is_by) { URL_SAFE_NO_PAD.decode(content).ok() } else { None }
    }
}

/// What is sealed. A line end is in no purpose and in no content.
fn message(purpose: &str, content: &str) -> Vec<u8> {
    format!("dcv-operator.io/{purpose}\n{content}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_sealed_text_is_known_again_by_purpose_and_key_and_only_unchanged() {
        let keys = KeySet::generate(now());
        let sealed = keys.seal("page", b"content", now()).unwrap();
        assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{sealed}");
        assert_eq!(keys.unseal("page", &sealed), Some(b"content".to_vec()));
        assert_eq!(keys.unseal("other", &sealed), None);
        assert_eq!(KeySet::generate(now()).unseal("page", &sealed), None);
        let copy = KeySet::parse(&serde_json::to_vec(&keys).unwrap()).unwrap();
        assert!(copy.unseal("page", &sealed).is_some(), "by every process that has the keys");
        let next = KeySet { keys: [copy.keys, KeySet::generate(now()).keys].concat() };
        assert!(next.unseal("page", &sealed).is_some(), "by an older key");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of a seal has bits that mean nothing.
            let means_the_same = place == sealed.len() - 1;
            assert!(means_the_same || keys.unseal("page", &changed).is_none(), "{changed}");
        }
        for nonsense in ["", ".", "a", "a.b", &sealed[..sealed.len() - 2], &format!("{sealed}.{sealed}")] {
            assert_eq!(keys.unseal("page", nonsense), None, "{nonsense}");
        }
    }
}
