//! Signed tokens, the keys they are signed with, and hashes of clients' passwords.
//!
//! Three kinds of token, each with its own key set, `typ` and audience, so that one is never taken for another. This
//! module knows signatures and times; what has become of a token's session or client is told by its callers.
//! Tokens are never stored and never logged.

pub mod agent;
mod keys;
mod password;
mod renewal;
mod seal;
pub mod verifier;

use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::Header;
use jsonwebtoken::Validation;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use keys::KeySet;
pub use keys::Rotation;
pub use keys::SigningKey;
pub use password::Password;
pub use password::verify_password;
pub use renewal::NotARenewal;
pub use renewal::OldKeys;
pub use renewal::Renewal;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's right to call the REST API.
    Access,
    /// A person's right to connect to one session.
    Connection,
    /// A broker's right to call one agent.
    Agent,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Access, Self::Connection, Self::Agent];

    /// The `typ` of the token's header.
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Connection => "dcv-connection+jwt",
            Self::Agent => "dcv-agent+jwt",
        }
    }

    /// The audience of the token.
    pub fn audience(self) -> &'static str {
        match self {
            Self::Access => "dcv-operator.io/broker",
            Self::Connection => "dcv-operator.io/session",
            Self::Agent => "dcv-operator.io/agent",
        }
    }

    /// Name of the Secret with the private keys, in the release namespace; its one entry is [`KEYS_ENTRY`].
    pub fn secret_name(self) -> &'static str {
        match self {
            Self::Access => "dcv-access-token-keys",
            Self::Connection => "dcv-connection-token-keys",
            Self::Agent => "dcv-agent-token-keys",
        }
    }

    /// Entry of the `ConfigMap` of public keys that holds the JWK set of this kind.
    pub fn public_entry(self) -> &'static str {
        match self {
            Self::Access => "access.jwks.json",
            Self::Connection => "connection.jwks.json",
            Self::Agent => "agent.jwks.json",
        }
    }
}

/// Entry of a Secret of private keys: a [`KeySet`] as JSON.
pub const KEYS_ENTRY: &str = "keys.json";

/// Claims of one kind of token.
pub trait Claims: Serialize + DeserializeOwned {
    /// What a token with these claims is for.
    const KIND: Kind;
    /// When the token ends, in seconds since 1970.
    fn expires(&self) -> i64;
}

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Uid of the `ApiClient`.
    pub sub: String,
    /// Id the client logged in with.
    pub client_id: String,
    /// Namespace of the `ApiClient`.
    pub namespace: String,
    /// Hash of the credential it logged in with, as in the `ApiClient`: the token ends with the credential.
    pub credential: String,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Id of the token.
    pub jti: String,
    /// Audience.
    pub aud: String,
}

impl Claims for AccessClaims {
    const KIND: Kind = Kind::Access;
    fn expires(&self) -> i64 {
        self.exp
    }
}

/// What a connection token says: the documented claims, and ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionClaims {
    /// Id of the session on the host.
    #[serde(rename = "dcvSessionId")]
    pub session_id: String,
    /// Owner of the session.
    #[serde(rename = "dcvSessionOwner")]
    pub session_owner: String,
    /// The person who connects.
    #[serde(rename = "dcvSessionUser")]
    pub session_user: String,
    /// Uid of the `DcvServer` the session is bound to.
    #[serde(rename = "serverUid")]
    pub server_uid: String,
    /// The session's attempt.
    pub attempt: i32,
    /// Uid of the `ApiClient` the token was given to; absent when it was not asked for by one.
    #[serde(rename = "clientUid", default, skip_serializing_if = "Option::is_none")]
    pub client_uid: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Id of the token.
    pub jti: String,
    /// Audience.
    pub aud: String,
}

impl Claims for ConnectionClaims {
    const KIND: Kind = Kind::Connection;
    fn expires(&self) -> i64 {
        self.exp
    }
}

/// What a broker's token for an agent says: one action on one session, for the time it takes to ask for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentClaims {
    /// What it allows.
    pub action: agent::Action,
    /// Uid of the `DcvServer` whose agent is called.
    #[serde(rename = "serverUid")]
    pub server_uid: String,
    /// Id of the session on the host.
    #[serde(rename = "sessionId")]
    pub session_id: String,
    /// The session's attempt.
    pub attempt: i32,
    /// Uid of the `ApiClient` that asked the broker.
    #[serde(rename = "clientUid")]
    pub client_uid: String,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Id of the token.
    pub jti: String,
    /// Audience.
    pub aud: String,
}

impl Claims for AgentClaims {
    const KIND: Kind = Kind::Agent;
    fn expires(&self) -> i64 {
        self.exp
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or of another kind.
    #[error("malformed token")]
    Malformed,
    /// Signed with a key we do not know.
    #[error("token signed with an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("bad signature")]
    BadSignature,
    /// Its time is over.
    #[error("token expired")]
    Expired,
    /// Not yet valid: its issuer's clock is ahead of ours.
    #[error("token issued in the future")]
    NotYetValid,
    /// Signing failed.
    #[error("the token could not be signed")]
    Signing,
}

/// Seconds an issuer's clock may be ahead of ours. The end of a token has no such leeway.
const CLOCK_LEEWAY_SECONDS: i64 = 30;

/// Signs `claims`.
///
/// # Errors
/// [`TokenError::Signing`] when the key is unusable.
pub fn sign<C: Claims>(claims: &C, key: &SigningKey) -> Result<String, TokenError> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(C::KIND.typ().to_owned());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.encoding()).map_err(|_| TokenError::Signing)
}

/// Checks kind, key, signature, audience and times of `token`, and returns its claims.
///
/// # Errors
/// The first check that fails.
pub fn verify<C: Claims>(token: &str, keys: &JwkSet, now: Timestamp) -> Result<C, TokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(C::KIND.typ()) {
        return Err(TokenError::Malformed);
    }
    let jwk = header.kid.as_deref().and_then(|kid| keys.find(kid)).ok_or(TokenError::UnknownKey)?;
    let key = DecodingKey::from_jwk(jwk).map_err(|_| TokenError::UnknownKey)?;
    let claims = jsonwebtoken::decode::<C>(token, &key, &validation(C::KIND))
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })?
        .claims;
    if claims.expires() <= now.as_second() {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

/// Times are checked by us, against the caller's clock.
fn validation(kind: Kind) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_audience(&[kind.audience()]);
    validation.set_required_spec_claims(&["exp", "aud"]);
    validation
}

/// Refuses what was issued in the future, beyond the leeway for clocks.
///
/// # Errors
/// [`TokenError::NotYetValid`].
pub fn verify_issued(iat: i64, now: Timestamp) -> Result<(), TokenError> {
    if iat > now.as_second() + CLOCK_LEEWAY_SECONDS { Err(TokenError::NotYetValid) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn connection(exp: i64) -> ConnectionClaims {
        ConnectionClaims {
            session_id: "s".into(),
            session_owner: "ann".into(),
            session_user: "bob".into(),
            server_uid: "u".into(),
            attempt: 1,
            client_uid: None,
            iat: exp - 60,
            exp,
            jti: "j".into(),
            aud: Kind::Connection.audience().into(),
        }
    }

    #[test]
    fn a_token_is_read_back_until_its_very_end() {
        let keys = KeySet::generate(now());
        let claims = connection(now().as_second() + 1);
        let token = sign(&claims, keys.signer(now()).unwrap()).unwrap();
        assert_eq!(verify::<ConnectionClaims>(&token, &keys.public(), now()).unwrap(), claims);
        let later = Timestamp::from_second(claims.exp).unwrap();
        assert_eq!(verify::<ConnectionClaims>(&token, &keys.public(), later), Err(TokenError::Expired));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "no escaping in a URL");
    }

    #[test]
    fn a_token_of_another_kind_key_or_signature_is_refused() {
        let keys = KeySet::generate(now());
        let signer = keys.signer(now()).unwrap();
        let token = sign(&connection(now().as_second() + 60), signer).unwrap();
        assert_eq!(verify::<AgentClaims>(&token, &keys.public(), now()), Err(TokenError::Malformed));
        let other = KeySet::generate(now());
        assert_eq!(verify::<ConnectionClaims>(&token, &other.public(), now()), Err(TokenError::UnknownKey));
        let (body, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{body}.{}{}", if signature.starts_with('A') { "B" } else { "A" }, &signature[1..]);
        assert_eq!(verify::<ConnectionClaims>(&forged, &keys.public(), now()), Err(TokenError::BadSignature));
        assert_eq!(verify::<ConnectionClaims>("nonsense", &keys.public(), now()), Err(TokenError::Malformed));
        let wrong_audience =
            ConnectionClaims { aud: Kind::Access.audience().into(), ..connection(now().as_second() + 60) };
        let token = sign(&wrong_audience, signer).unwrap();
        assert_eq!(verify::<ConnectionClaims>(&token, &keys.public(), now()), Err(TokenError::Malformed));
    }
}
