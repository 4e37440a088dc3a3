//! Tokens of other authorization servers, and which clients their holders are.
//!
//! The file names the issuers; a token names one in `iss`. Such a client is no object of the cluster: it is made up from
//! the token, of the tenant that the token or the file names, and may no more than the file lets it.

mod config;
mod keys;

use std::path::Path;

use futures::future::join_all;
use jiff::Timestamp;
use jsonwebtoken::Header;
use jsonwebtoken::Validation;
use jsonwebtoken::dangerous;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

pub use self::config::ConfigError;

use self::config::IssuerConfig;
use self::keys::Keys;
use self::keys::Remote;
use super::EXPIRED_TOKEN;
use super::INVALID_TOKEN;
use super::made_up;
use crate::api::ApiClient;
use crate::token;

const NO_SCOPE: &str = "The access token does not have the scope";
const NO_NAMESPACE: &str = "The access token does not name a namespace";

/// Longest name of a client, in characters.
const CLIENT_MAX_CHARACTERS: usize = 256;

type Claims = Map<String, Value>;

/// The other authorization servers.
#[derive(Default)]
pub struct Issuers(Vec<Issuer>);

struct Issuer {
    config: IssuerConfig,
    keys: Keys,
}

impl Issuers {
    /// Those that a file names; without one none. None of them is asked for anything yet.
    ///
    /// # Errors
    /// When the file, or one that it names, cannot be used.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let configs = file.map_or(Ok(Vec::new()), config::read)?;
        let issuers = configs.into_iter().map(|config| {
            let keys = Keys::new(&config.issuer, Box::new(Remote::new(&config)?));
            Ok(Issuer { config, keys })
        });
        issuers.collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the keys of all current. Does not end.
    pub async fn follow(&self) {
        join_all(self.0.iter().map(|issuer| issuer.keys.follow())).await;
        std::future::pending::<()>().await;
    }

    /// The client that holds `token`.
    ///
    /// # Errors
    /// Why it is not let in, for the caller to read.
    pub async fn identify(&self, token: &str, now: Timestamp) -> Result<ApiClient, &'static str> {
        #[derive(Deserialize)]
        struct Issued {
            iss: String,
        }
        // It only says whose key to try.
        let Issued { iss } = dangerous::insecure_decode_claims(token).map_err(|_| INVALID_TOKEN)?;
        let mut refusal = INVALID_TOKEN;
        for issuer in self.0.iter().filter(|issuer| issuer.config.issuer == iss) {
            match issuer.identify(token, now).await {
                Ok(client) => return Ok(client),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }
}

impl Issuer {
    async fn identify(&self, token: &str, now: Timestamp) -> Result<ApiClient, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| INVALID_TOKEN)?;
        let claims = self.verify(token, &header).await.ok_or(INVALID_TOKEN)?;
        check_times(&claims, now)?;
        let scopes = self.scopes(&claims);
        if self.config.scope.as_deref().is_some_and(|scope| !scopes.contains(&scope)) {
            return Err(NO_SCOPE);
        }
        self.client(&claims, &scopes)
    }

    /// The claims of a token that this issuer has signed for us.
    async fn verify(&self, token: &str, header: &Header) -> Option<Claims> {
        // What must be understood is not: RFC 7515, section 4.1.11.
        if !self.config.algorithms.contains(&header.alg) || header.crit.is_some() {
            return None;
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        // Times are checked by us, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["iss", "exp"]);
        match &self.config.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        jsonwebtoken::decode::<Claims>(token, &key, &validation).ok().map(|token| token.claims)
    }

    /// A list, or a text of words.
    fn scopes<'a>(&self, claims: &'a Claims) -> Vec<&'a str> {
        let claim = match &self.config.scope_claim {
            Some(name) => claims.get(name),
            None => claims.get("scope").or_else(|| claims.get("scp")),
        };
        match claim {
            Some(Value::String(words)) => words.split_whitespace().collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn client(&self, claims: &Claims, scopes: &[&str]) -> Result<ApiClient, &'static str> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let name = text(&self.config.client_claim).filter(|name| {
            (1..=CLIENT_MAX_CHARACTERS).contains(&name.chars().count()) && !name.chars().any(char::is_control)
        });
        let name = name.ok_or("The access token does not name a client")?;
        let namespace = match (&self.config.namespace, &self.config.namespace_claim) {
            (Some(namespace), _) => namespace,
            (None, claim) => claim
                .as_deref()
                .and_then(text)
                .filter(|namespace| config::is_namespace(namespace))
                .ok_or(NO_NAMESPACE)?,
        };
        let has = |scope: &Option<String>| scope.as_deref().is_some_and(|scope| scopes.contains(&scope));
        let mut client = made_up(name, namespace, &[&self.config.issuer, name, namespace]);
        client.spec.all_namespaces = has(&self.config.all_namespaces_scope);
        client.spec.manage_servers = has(&self.config.manage_servers_scope);
        Ok(client)
    }
}

/// `exp` must be there, `nbf` and `iat` need not. As for our own tokens, the end has no leeway, the beginning a little.
fn check_times(claims: &Claims, now: Timestamp) -> Result<(), &'static str> {
    // Some issuers write fractions.
    #[expect(clippy::cast_possible_truncation, reason = "a time beyond all times is as good as the last")]
    let seconds = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
    let end = claims.get("exp").and_then(seconds).ok_or(INVALID_TOKEN)?;
    if end <= now.as_second() {
        return Err(EXPIRED_TOKEN);
    }
    for name in ["nbf", "iat"] {
        if let Some(value) = claims.get(name) {
            let begin = seconds(value).ok_or(INVALID_TOKEN)?;
            token::verify_issued(begin, now).map_err(|_| "The access token is not valid yet")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
