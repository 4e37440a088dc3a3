//! Decides whether a connection token opens a session of this server, and whether a broker may ask something about one.
//!
//! Offline: from the published keys and the sessions the agent watches. Knows no HTTP.

use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;

use crate::api::DcvSession;
use crate::token::AgentClaims;
use crate::token::ConnectionClaims;
use crate::token::agent;
use crate::token::agent::Refusal;
use crate::token::verifier;
use crate::token::verifier::Denial;
use crate::token::verifier::Instance;

/// What the gate looks at; the agent keeps it current.
pub trait View: Send + Sync + 'static {
    /// Public keys of connection tokens.
    fn keys(&self) -> Arc<JwkSet>;
    /// Public keys of brokers' tokens for agents.
    fn agent_keys(&self) -> Arc<JwkSet>;
    /// The session of this id on the host, if it is bound to this server.
    fn session(&self, id: &str) -> Option<Arc<DcvSession>>;
    /// Uid of this server, empty before it is registered.
    fn server_uid(&self) -> String;
    /// The time.
    fn now(&self) -> Timestamp;
    /// Whether it knows all there is to know: what is refused before may be let in later.
    fn is_whole(&self) -> bool {
        true
    }
}

/// Checks `token`; with `session_id`, also that it is for that session. Returns what the token says.
///
/// # Errors
/// The first reason to let nobody in.
pub fn admit(view: &dyn View, token: &str, session_id: Option<&str>) -> Result<ConnectionClaims, Denial> {
    let claims = verifier::read(token, session_id, &view.keys(), view.now())?;
    let session = view.session(&claims.session_id).ok_or(Denial::Unavailable)?;
    let instance = Instance {
        server_uid: &view.server_uid(),
        attempt: session.attempt(),
        is_open: session.is_open(),
        tokens_valid_from: session.spec.tokens_valid_from.as_ref().map(|time| time.0),
    };
    instance.admit(&claims).map(|()| claims)
}

/// Checks a broker's token. Returns what it allows.
///
/// # Errors
/// The first reason to refuse.
pub fn admit_broker(view: &dyn View, token: &str) -> Result<AgentClaims, Refusal> {
    agent::admit(token, &view.server_uid(), &view.agent_keys(), view.now())
}

/// Whether the session that a broker asks about is here, open, and of the bind that it knows.
pub fn is_current(view: &dyn View, claims: &AgentClaims) -> bool {
    let session = view.session(&claims.session_id);
    session.is_some_and(|session| session.is_open() && session.attempt() == claims.attempt)
}
