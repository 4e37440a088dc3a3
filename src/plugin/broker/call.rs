//! Asking the broker, with an access token that is got for the one call and forgotten.

use std::io;
use std::io::Write;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use reqwest::Certificate;
use reqwest::Client;
use reqwest::Response;
use reqwest::Url;
use reqwest::redirect::Policy;
use serde_json::Value;

use super::config::Login;
use super::config::Secret;
use super::config::Settings;
use super::config::Trust;
use super::error::Error;
use super::request::Request;
use crate::api::names;

const BROKER: &str = "the broker";
const AUTH_SERVER: &str = "the authentication server";

/// Longest text of an error that is shown.
const TEXT_MAX_CHARACTERS: usize = 2000;

/// One person's way to one broker.
pub struct Caller<'a> {
    http: Client,
    settings: &'a Settings,
    limit: Option<Duration>,
}

impl<'a> Caller<'a> {
    /// Reads whose certificates count. `limit` is for each answer.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(settings: &'a Settings, limit: Option<Duration>) -> Result<Self, Error> {
        // No redirects: they would carry the token to somebody else.
        let mut builder = Client::builder().redirect(Policy::none()).user_agent(format!(
            "{}/{}",
            names::PLUGIN,
            env!("CARGO_PKG_VERSION")
        ));
        if let Some(limit) = limit {
            builder = builder.timeout(limit);
        }
        builder = match &settings.trust {
            Trust::System => builder,
            Trust::Bundle(path) => {
                let wrong = |fault: String| Error::Environment(format!("the CA bundle {}: {fault}", path.display()));
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(causes(error)))?;
                if authorities.is_empty() {
                    return Err(wrong("it has no certificate in PEM".to_owned()));
                }
                builder.tls_certs_only(authorities)
            }
            Trust::Anyone => builder.tls_danger_accept_invalid_certs(true),
        };
        let http = builder.build().map_err(|error| Error::Environment(causes(error)))?;
        Ok(Self { http, settings, limit })
    }

    /// The broker's answer, which is JSON.
    ///
    /// # Errors
    /// When there is none, or it is an error.
    pub async fn ask(&self, request: &Request) -> Result<String, Error> {
        let token = match &self.settings.login {
            Login::Token(token) => token.clone(),
            Login::Client { auth_server, id, password } => self.log_in(auth_server, id, password).await?,
        };
        let url = join(&self.settings.broker, &request.path);
        let mut call = self.http.request(request.method.clone(), url.clone()).bearer_auth(token.reveal());
        if let Some(body) = &request.body {
            call = call.json(body);
        }
        self.tell(&format!("{} {url}", request.method));
        self.receive(BROKER, call.send().await).await
    }

    /// The documented request: everything but the credentials is in the query.
    async fn log_in(&self, auth_server: &Url, id: &str, password: &Secret) -> Result<Secret, Error> {
        let call = self
            .http
            .post(auth_server.clone())
            .basic_auth(id, Some(password.reveal()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut shown = auth_server.clone();
        shown.set_query(None);
        self.tell(&format!("POST {shown} as client {id}"));
        let answer = self.receive(AUTH_SERVER, call.send().await).await?;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        let token = answer["access_token"].as_str().map(|token| Secret::from(token.to_owned()));
        token.ok_or_else(|| Error::Other(format!("{AUTH_SERVER} answered without an access token")))
    }

    async fn receive(&self, who: &'static str, sent: Result<Response, reqwest::Error>) -> Result<String, Error> {
        let fault = |error: reqwest::Error| match self.limit {
            Some(limit) if error.is_timeout() => Error::Late { who, limit },
            _ => Error::Other(format!("cannot ask {who}: {}", causes(error))),
        };
        let response = sent.map_err(fault)?;
        let status = response.status();
        let id = response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or("unknown");
        self.tell(&format!("{who} answered {status}, request id {id}"));
        let text = response.text().await.map_err(fault)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(Error::Refused { who, status: status.as_u16(), text: error_text(&text) })
    }

    fn tell(&self, line: &str) {
        if self.settings.is_debug {
            // There is nobody else to tell.
            let _ = writeln!(io::stderr(), "debug: {line}");
        }
    }
}

/// The path below the broker's own, each part encoded.
fn join(broker: &Url, path: &[String]) -> Url {
    let mut url = broker.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(path);
    }
    url
}

/// What an answer that is an error says: the text the API has for it, else what there is.
fn error_text(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    let parts = ["error", "error_description"].map(|name| parsed[name].as_str());
    let text = match parts {
        [None, None] => body.trim().to_owned(),
        parts => parts.into_iter().flatten().collect::<Vec<_>>().join(": "),
    };
    // It is shown in a terminal.
    text.chars().filter(|c| !c.is_control()).take(TEXT_MAX_CHARACTERS).collect()
}

/// What went wrong, without the address: that of the authentication server may hold a secret.
fn causes(error: reqwest::Error) -> String {
    super::super::error::causes(&error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(broker: &str, path: &[&str]) -> String {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        join(&Url::parse(broker).unwrap(), &path).to_string()
    }

    #[test]
    fn paths_are_encoded_part_by_part() {
        assert_eq!(joined("https://b", &["describeSessions"]), "https://b/describeSessions");
        assert_eq!(joined("https://b:8443/dcv/?x=1", &["a"]), "https://b:8443/dcv/a");
        assert_eq!(
            joined("https://b/", &["sessionConnectionData", "a/b?", r"DOMAIN\eve ä%"]),
            "https://b/sessionConnectionData/a%2Fb%3F/DOMAIN%5Ceve%20%C3%A4%25"
        );
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        assert_eq!(error_text(r#"{"error": "No authorization header"}"#), "No authorization header");
        assert_eq!(error_text(r#"{"error": "invalid_scope", "error_description": "x"}"#), "invalid_scope: x");
        assert_eq!(error_text("<html>\u{1b}[2Jbad gateway\n"), "<html>[2Jbad gateway");
    }
}
