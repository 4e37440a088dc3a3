//! Decides whether a connection token opens a session of this server.
//!
//! Offline: from the published keys and the sessions the agent watches. Knows no HTTP.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;

use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::token;
use crate::token::ConnectionClaims;
use crate::token::TokenError;

/// What the gate looks at; the agent keeps it current.
pub trait View: Send + Sync + 'static {
    /// Public keys of connection tokens.
    fn keys(&self) -> Arc<JwkSet>;
    /// The session of this id on the host, if it is bound to this server.
    fn session(&self, id: &str) -> Option<Arc<DcvSession>>;
    /// Uid of this server, empty before it is registered.
    fn server_uid(&self) -> String;
    /// The time.
    fn now(&self) -> Timestamp;
}

/// Why nobody is let in. The texts are for logs and for the desktop server, which shows them to the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
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

/// Whom a token lets in where.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// What the token says.
    pub claims: ConnectionClaims,
}

/// Checks `token`; with `session_id`, also that it is for that session.
///
/// # Errors
/// The first reason to let nobody in.
pub fn admit(view: &dyn View, token: &str, session_id: Option<&str>) -> Result<Admission, Denial> {
    let now = view.now();
    let claims: ConnectionClaims = token::verify(token, &view.keys(), now)?;
    token::verify_issued(claims.iat, now)?;
    if session_id.is_some_and(|id| id != claims.session_id) {
        return Err(Denial::OtherSession);
    }
    let session = view.session(&claims.session_id).ok_or(Denial::Unavailable)?;
    if claims.server_uid != view.server_uid() || claims.attempt != session.attempt() {
        return Err(Denial::OtherInstance);
    }
    let open = conditions::is_true(session.conditions(), SessionCondition::Created)
        && !session.is_closing()
        && !session.is_finished();
    if !open {
        return Err(Denial::Unavailable);
    }
    match &session.spec.tokens_valid_from {
        Some(from) if claims.iat < from.0.as_second() => Err(Denial::Revoked),
        _ => Ok(Admission { claims }),
    }
}
