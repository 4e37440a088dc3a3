//! The file that names other authorization servers.
//!
//! Read once, at the start. What would make a token of somebody else's good, or a public key usable as a password, is
//! refused here: every issuer says who it is and for whom its tokens are, and signs with a private key.

use std::path::Path;
use std::path::PathBuf;

use http::Uri;
use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use serde::Deserialize;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It, or a file it names, cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not of the documented form.
    #[error("{path} is no list of authorization servers")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// One of its issuers is not complete.
    #[error("the authorization server {url}: {fault}")]
    Issuer {
        /// Its address.
        url: String,
        /// What is wrong.
        fault: &'static str,
    },
    /// Its keys cannot be fetched, whatever it answers.
    #[error("the authorization server {url}: no client for it can be made")]
    Client {
        /// Its address.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    issuer: Vec<IssuerConfig>,
}

/// One authorization server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IssuerConfig {
    /// Where its keys are: the address of a JWK set.
    pub url: String,
    /// What its tokens say in `iss`.
    pub issuer: String,
    /// Algorithms its tokens may be signed with.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// What a token must have in `aud`.
    pub audience: Option<String>,
    /// What a token must have among its scopes.
    pub scope: Option<String>,
    /// The claim with the scopes; absent: `scope`, else `scp`.
    pub scope_claim: Option<String>,
    /// The claim that tells clients apart.
    #[serde(default = "default_client_claim")]
    pub client_claim: String,
    /// The tenant of all its clients.
    pub namespace: Option<String>,
    /// The claim that names the tenant of a client.
    pub namespace_claim: Option<String>,
    /// The scope of clients of all namespaces; absent: none is.
    pub all_namespaces_scope: Option<String>,
    /// The scope of clients that open and close servers; absent: none does.
    pub manage_servers_scope: Option<String>,
    /// Authorities of its certificate, in PEM; absent: those of the system.
    pub ca_file: Option<PathBuf>,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256]
}

fn default_client_claim() -> String {
    "sub".to_owned()
}

impl IssuerConfig {
    /// Why this issuer would let in the wrong ones, or nobody.
    fn fault(&self) -> Option<&'static str> {
        let uri = self.url.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let is_https = uri.is_some_and(|uri| uri.scheme_str() == Some("https"));
        let is_empty = |text: &Option<String>| text.as_deref() == Some("");
        let texts = [&self.audience, &self.scope, &self.namespace, &self.namespace_claim, &self.scope_claim];
        if !is_https {
            Some("url must be an https address")
        } else if self.issuer.is_empty() {
            Some("issuer must not be empty")
        } else if self.client_claim.is_empty() || texts.into_iter().any(is_empty) {
            Some("a setting is empty")
        } else if self.algorithms.is_empty() {
            Some("algorithms must not be empty")
        } else if self.algorithms.iter().any(|algorithm| algorithm.family() == AlgorithmFamily::Hmac) {
            Some("algorithms with a shared secret are not possible: its keys are public")
        } else if self.audience.is_none() && self.scope.is_none() {
            Some("audience or scope is needed, or tokens for its other services would be good here")
        } else if self.namespace.is_some() == self.namespace_claim.is_some() {
            Some("one of namespace and namespace-claim is needed")
        } else if self.namespace.as_deref().is_some_and(|namespace| !is_namespace(namespace)) {
            Some("namespace is not the name of a namespace")
        } else {
            None
        }
    }
}

/// Whether the text can be the name of a namespace: a label of RFC 1123.
pub fn is_namespace(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// The issuers that a file names.
pub fn read(path: &Path) -> Result<Vec<IssuerConfig>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let File { issuer } = toml::from_str(&text)
        .map_err(|source| ConfigError::Form { path: path.to_owned(), source: Box::new(source) })?;
    for one in &issuer {
        if let Some(fault) = one.fault() {
            return Err(ConfigError::Issuer { url: one.url.clone(), fault });
        }
    }
    Ok(issuer)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const LEAST: &str = "[[issuer]]\nurl = 'https://login.example/jwks.json'\nissuer = 'https://login.example'\n";

    fn read_text(text: &str) -> Result<Vec<IssuerConfig>, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn the_example_of_the_documentation_is_read() {
        let page = include_str!("../../../../docs/operations.md");
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let issuers = read_text(example).unwrap();
        assert_eq!(issuers.len(), 2);
        assert_eq!(issuers[0].scope.as_deref(), Some("dcv-session-manager/sm_scope"));
        assert_eq!(issuers[1].algorithms, [Algorithm::RS256, Algorithm::ES256]);
    }

    #[test]
    fn what_is_not_said_has_safe_defaults() {
        let issuers = read_text(&format!("{LEAST}audience = 'dcv'\nnamespace = 'team-a'\n")).unwrap();
        let expected = IssuerConfig {
            url: "https://login.example/jwks.json".into(),
            issuer: "https://login.example".into(),
            algorithms: vec![Algorithm::RS256],
            audience: Some("dcv".into()),
            scope: None,
            scope_claim: None,
            client_claim: "sub".into(),
            namespace: Some("team-a".into()),
            namespace_claim: None,
            all_namespaces_scope: None,
            manage_servers_scope: None,
            ca_file: None,
        };
        assert_eq!(issuers, [expected]);
    }

    #[test]
    fn an_issuer_that_would_let_in_the_wrong_ones_is_refused_with_the_reason() {
        let good = format!("{LEAST}audience = 'dcv'\nnamespace = 'team-a'\n");
        for (changed, words) in [
            (good.replace("https://login.example/jwks", "http://login.example/jwks"), "https"),
            (good.replace("https://login.example/jwks.json", "nonsense"), "https"),
            (good.replace("issuer = 'https://login.example'", "issuer = ''"), "issuer must not be empty"),
            (good.replace("'dcv'", "''"), "empty"),
            (format!("{good}algorithms = []\n"), "algorithms must not be empty"),
            (format!("{good}algorithms = ['RS256', 'HS256']\n"), "shared secret"),
            (good.replace("audience = 'dcv'\n", ""), "audience or scope"),
            (good.replace("namespace = 'team-a'\n", ""), "one of namespace and namespace-claim"),
            (format!("{good}namespace-claim = 'team'\n"), "one of namespace and namespace-claim"),
            (good.replace("team-a", "Team A"), "not the name of a namespace"),
        ] {
            let error = read_text(&changed).unwrap_err();
            assert!(error.to_string().contains(words), "{changed}: {error}");
        }
        for (text, words) in [
            (format!("{good}algorithms = ['none']\n"), "none"),
            (format!("{good}audiences = 'x'\n"), "audiences"),
            ("[[issuer]]\nurl = 'https://a'\n".to_owned(), "issuer"),
            (String::new(), "issuer"),
        ] {
            let error = read_text(&text).unwrap_err();
            assert!(error.source().unwrap().to_string().contains(words), "{text}: {error:?}");
        }
        assert!(matches!(read(Path::new("/nonexistent")), Err(ConfigError::Read { .. })));
    }
}
