//! How brokers call agents: path, body and format of the one call there is, and whether a token allows it.
//!
//! The words of both sides, and the check of one. Pure: keys, sessions and the clock are the callers'. The session is
//! named by the token alone, so that no call can name another one.

use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde::Serialize;

use super::AgentClaims;
use super::TokenError;
use super::verify;
use super::verify_issued;

/// Path of a picture of a session's screen: `POST` with a [`ScreenshotOrder`], answered with the image.
pub const SCREENSHOT_PATH: &str = "/agent/screenshot";

/// What a token allows its bearer to have the agent do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Take one picture of the session's screen.
    Screenshot,
}

/// Format of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
}

impl ImageFormat {
    /// The documented word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
        }
    }

    /// Content type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }
}

/// The picture to take. Never larger than the screen; the ratio is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScreenshotOrder {
    /// Most pixels in width.
    pub max_width: u32,
    /// Most pixels in height.
    pub max_height: u32,
    /// Format of the answer.
    pub format: ImageFormat,
}

/// Why a call is refused. For logs: the caller learns only that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error("no token")]
    Missing,
    /// The token itself is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A token for the agent of another server.
    #[error("token is for another server")]
    OtherServer,
}

/// What the token allows on the server of this uid.
///
/// # Errors
/// The first reason to do nothing.
pub fn admit(token: &str, server_uid: &str, keys: &JwkSet, now: Timestamp) -> Result<AgentClaims, Refusal> {
    let claims: AgentClaims = verify(token, keys, now)?;
    verify_issued(claims.iat, now)?;
    if claims.server_uid != server_uid {
        return Err(Refusal::OtherServer);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::super::KeySet;
    use super::super::Kind;
    use super::super::sign;
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn claims() -> AgentClaims {
        let iat = now().as_second();
        AgentClaims {
            action: Action::Screenshot,
            server_uid: "u".into(),
            session_id: "s".into(),
            attempt: 2,
            client_uid: "c".into(),
            iat,
            exp: iat + 60,
            jti: "j".into(),
            aud: Kind::Agent.audience().into(),
        }
    }

    #[test]
    fn a_token_is_good_for_its_own_server_and_time() {
        let (keys, strange) = (KeySet::generate(now()), KeySet::generate(now()));
        let token = |claims: &AgentClaims| sign(claims, keys.signer(now()).unwrap()).unwrap();
        let admit = |token: &str, server: &str| super::admit(token, server, &keys.public(), now());
        let good = token(&claims());
        assert_eq!(admit(&good, "u"), Ok(claims()));
        assert_eq!(admit(&good, "v"), Err(Refusal::OtherServer));
        assert_eq!(admit(&good, ""), Err(Refusal::OtherServer), "an agent that is not registered yet");
        assert_eq!(admit("nonsense", "u"), Err(Refusal::Token(TokenError::Malformed)));
        for (changed, error) in [
            (AgentClaims { exp: claims().iat, ..claims() }, TokenError::Expired),
            (AgentClaims { iat: claims().iat + 60, exp: claims().exp + 60, ..claims() }, TokenError::NotYetValid),
            (AgentClaims { aud: Kind::Connection.audience().into(), ..claims() }, TokenError::Malformed),
        ] {
            assert_eq!(admit(&token(&changed), "u"), Err(Refusal::Token(error)), "{changed:?}");
        }
        let forged = sign(&claims(), strange.signer(now()).unwrap()).unwrap();
        assert_eq!(admit(&forged, "u"), Err(Refusal::Token(TokenError::UnknownKey)));
    }

    #[test]
    fn both_sides_use_the_same_words() {
        let order = ScreenshotOrder { max_width: 160, max_height: 100, format: ImageFormat::Jpeg };
        let text = serde_json::json!({"maxWidth": 160, "maxHeight": 100, "format": "jpeg"});
        assert_eq!(serde_json::to_value(order).unwrap(), text);
        let claims = serde_json::to_value(claims()).unwrap();
        assert_eq!(claims["action"], "screenshot");
        assert_eq!(
            (&claims["serverUid"], &claims["sessionId"], &claims["clientUid"]),
            (&"u".into(), &"s".into(), &"c".into())
        );
    }
}
