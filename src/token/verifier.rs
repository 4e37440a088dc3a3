//! Whether a connection token lets a person into a session, and the documented protocol by which a desktop server asks.
//!
//! The one check of every verifier: agents for their own server, brokers for all. Pure: sessions, keys and the clock are
//! the callers'. Invariant: no text of an answer or a denial holds anything of the token but its user.
//!
//! Source of the protocol: "Using external authentication" in the Amazon DCV Administrator Guide.

use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;

use super::ConnectionClaims;
use super::TokenError;
use super::verify;
use super::verify_issued;

/// Path of the verifier.
pub const PATH: &str = "/agent/validate-authentication-token";

/// Largest question worth reading: a token is some hundred bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Content type of the answers, which are HTTP 200 in either case.
pub const ANSWER_TYPE: &str = "text/xml";

/// The documented form. Its `clientAddress` is not defined well enough to decide anything by it.
#[derive(Deserialize)]
pub struct Question {
    /// The session somebody wants to enter.
    #[serde(rename = "sessionId")]
    pub session_id: String,
    /// The token they present.
    #[serde(rename = "authenticationToken")]
    pub token: String,
}

/// Why nobody is let in. The texts are for logs and for the desktop server, which shows them to the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Not the documented form.
    #[error("malformed request")]
    Malformed,
    /// The token itself is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A token for another session than the one asked for.
    #[error("token is for another session")]
    OtherSession,
    /// A token for a session of another server, or an earlier bind of this one.
    #[error("token is for another instance of the session")]
    OtherInstance,
    /// The session is not there, not ready or being closed.
    #[error("session is not available")]
    Unavailable,
    /// Revoked by `tokensValidFrom`.
    #[error("token was revoked")]
    Revoked,
}

/// A session as it is now, as far as tokens go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instance<'a> {
    /// Uid of the `DcvServer` it is on.
    pub server_uid: &'a str,
    /// The number of its bind.
    pub attempt: i32,
    /// Whether its desktop lets clients in.
    pub is_open: bool,
    /// Tokens issued before are revoked.
    pub tokens_valid_from: Option<Timestamp>,
}

/// What the token says, if it is one of ours, its time is not over and, with `session_id`, it is for that session.
///
/// # Errors
/// The first reason to let nobody in.
pub fn read(token: &str, session_id: Option<&str>, keys: &JwkSet, now: Timestamp) -> Result<ConnectionClaims, Denial> {
    let claims: ConnectionClaims = verify(token, keys, now)?;
    verify_issued(claims.iat, now)?;
    if session_id.is_some_and(|id| id != claims.session_id) {
        return Err(Denial::OtherSession);
    }
    Ok(claims)
}

impl Instance<'_> {
    /// Whether a token that says `claims` opens this instance of its session.
    ///
    /// # Errors
    /// The first reason to let nobody in.
    pub fn admit(&self, claims: &ConnectionClaims) -> Result<(), Denial> {
        if claims.server_uid != self.server_uid || claims.attempt != self.attempt {
            return Err(Denial::OtherInstance);
        }
        if !self.is_open {
            return Err(Denial::Unavailable);
        }
        if self.tokens_valid_from.is_some_and(|from| claims.iat < from.as_second()) {
            return Err(Denial::Revoked);
        }
        Ok(())
    }
}

/// The documented answer: the name of the user that is let in, or why nobody is.
pub fn answer(verdict: Result<&str, Denial>) -> String {
    match verdict {
        Ok(user) => format!("<auth result=\"yes\"><username>{}</username></auth>", escaped(user)),
        Err(denial) => {
            format!("<auth result=\"no\"><message>{}</message></auth>", escaped(&denial.to_string()))
        }
    }
}

/// Control characters have no place in XML, escaped or not.
fn escaped(text: &str) -> String {
    let text: String = text.chars().filter(|character| !character.is_control()).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::KeySet;
    use super::super::Kind;
    use super::super::sign;
    use super::*;

    const OPEN: Instance<'_> = Instance { server_uid: "u", attempt: 2, is_open: true, tokens_valid_from: None };

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn claims() -> ConnectionClaims {
        let iat = now().as_second();
        ConnectionClaims {
            session_id: "s".into(),
            session_owner: "ann".into(),
            session_user: "bob".into(),
            server_uid: "u".into(),
            attempt: 2,
            client_uid: None,
            iat,
            exp: iat + 60,
            jti: "j".into(),
            aud: Kind::Connection.audience().into(),
        }
    }

    #[test]
    fn a_token_is_read_for_its_own_session_and_not_before_it_was_issued() {
        let keys = KeySet::generate(now());
        let token = |claims: &ConnectionClaims| sign(claims, keys.signer(now()).unwrap()).unwrap();
        let read = |token: &str, id: Option<&str>| super::read(token, id, &keys.public(), now());
        let good = token(&claims());
        assert_eq!(read(&good, Some("s")), Ok(claims()));
        assert_eq!(read(&good, None), Ok(claims()));
        assert_eq!(read(&good, Some("t")), Err(Denial::OtherSession));
        assert_eq!(read("nonsense", Some("s")), Err(Denial::Token(TokenError::Malformed)));
        let early = ConnectionClaims { iat: claims().iat + 3600, exp: claims().exp + 3600, ..claims() };
        assert_eq!(read(&token(&early), Some("s")), Err(Denial::Token(TokenError::NotYetValid)));
    }

    #[test]
    fn only_this_instance_is_entered_while_it_is_open_and_the_token_is_not_revoked() {
        let issued = now();
        for (instance, expected) in [
            (OPEN, Ok(())),
            (Instance { server_uid: "v", ..OPEN }, Err(Denial::OtherInstance)),
            (Instance { attempt: 1, ..OPEN }, Err(Denial::OtherInstance)),
            (Instance { attempt: 3, ..OPEN }, Err(Denial::OtherInstance)),
            (Instance { is_open: false, ..OPEN }, Err(Denial::Unavailable)),
            (Instance { tokens_valid_from: Some(issued), ..OPEN }, Ok(())),
            (
                Instance { tokens_valid_from: Timestamp::from_second(issued.as_second() + 1).ok(), ..OPEN },
                Err(Denial::Revoked),
            ),
        ] {
            assert_eq!(instance.admit(&claims()), expected, "{instance:?}");
        }
    }

    #[test]
    fn answers_are_the_documented_ones_with_names_escaped() {
        assert_eq!(answer(Ok("ann")), "<auth result=\"yes\"><username>ann</username></auth>");
        assert_eq!(answer(Ok("a<b>&\u{7}c")), "<auth result=\"yes\"><username>a&lt;b&gt;&amp;c</username></auth>");
        assert_eq!(
            answer(Err(Denial::Token(TokenError::Expired))),
            "<auth result=\"no\"><message>token expired</message></auth>"
        );
    }
}
