//! What an instance of EC2 knows of itself.
//!
//! By version 2 of the instance metadata service: a token first, then the identity document with it. Version 1 is not used:
//! what answers without a token may be anything. Source: "Use the Instance Metadata Service" and "Instance identity
//! documents" in the Amazon EC2 User Guide.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::body::to_bytes;
use http::Method;
use http::Request;
use http::StatusCode;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::shortened;
use super::text_of;
use crate::api::server::Aws;

/// Time for both calls. The service is on the same machine: what takes longer is not there.
const LIMIT: Duration = Duration::from_secs(2);
/// Most that is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long the token is good; one document is read with it.
const TOKEN_SECONDS: &str = "60";
/// Longest text the schema takes.
const MAX_TEXT: usize = 64;
/// Times a machine that may be none of EC2 is asked: the network may come up after the agent.
const ATTEMPTS_ANYWHERE: u32 = 4;

/// Why there are no EC2 facts.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Nobody is there, as on every machine outside EC2; or a container is too far away by the service's hop limit.
    #[error("the metadata service does not answer")]
    Silent,
    /// Somebody is there and it is not the service.
    #[error("the metadata service answers {0}")]
    Refused(StatusCode),
    /// The document cannot be read.
    #[error("the identity document cannot be read: {0}")]
    Unreadable(String),
}

/// The parts of the identity document that are told.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    region: String,
    instance_type: String,
    instance_id: String,
    image_id: String,
}

/// Asks the service at `endpoint`.
///
/// # Errors
/// Why it cannot be known.
pub async fn read(endpoint: &str) -> Result<Aws, MetadataError> {
    read_within(LIMIT, endpoint).await
}

async fn read_within(limit: Duration, endpoint: &str) -> Result<Aws, MetadataError> {
    tokio::time::timeout(limit, ask(endpoint)).await.unwrap_or(Err(MetadataError::Silent))
}

async fn ask(endpoint: &str) -> Result<Aws, MetadataError> {
    let endpoint = endpoint.trim_end_matches('/');
    // No proxy setting is followed: the address is this machine's own.
    let client = Client::builder(TokioExecutor::new()).build_http();
    let token = Request::builder()
        .method(Method::PUT)
        .uri(format!("{endpoint}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
    let token = fetch(&client, token).await?;
    let document = Request::builder()
        .uri(format!("{endpoint}/latest/dynamic/instance-identity/document"))
        .header("x-aws-ec2-metadata-token", token.trim());
    parse(&fetch(&client, document).await?)
}

async fn fetch(client: &Client<HttpConnector, Body>, request: http::request::Builder) -> Result<String, MetadataError> {
    let unreadable = |error: &dyn std::fmt::Display| MetadataError::Unreadable(error.to_string());
    let request = request.body(Body::empty()).map_err(|error| unreadable(&error))?;
    let answer = client.request(request).await.map_err(|_| MetadataError::Silent)?;
    if answer.status() != StatusCode::OK {
        return Err(MetadataError::Refused(answer.status()));
    }
    let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await.map_err(|error| unreadable(&error))?;
    String::from_utf8(body.to_vec()).map_err(|error| unreadable(&error))
}

fn parse(text: &str) -> Result<Aws, MetadataError> {
    let document: Document =
        serde_json::from_str(text).map_err(|error| MetadataError::Unreadable(error.to_string()))?;
    if document.instance_id.is_empty() {
        return Err(MetadataError::Unreadable("it names no instance".into()));
    }
    Ok(Aws {
        region: shortened(&document.region, MAX_TEXT),
        ec2_instance_type: shortened(&document.instance_type, MAX_TEXT),
        ec2_instance_id: shortened(&document.instance_id, MAX_TEXT),
        ec2_image_id: shortened(&document.image_id, MAX_TEXT),
    })
}

/// Whether the machine says that it is one of EC2. Bare metal and most virtual machines of it do; a no is no proof.
/// Source: "Detect whether a host is an EC2 instance" in the Amazon EC2 User Guide.
pub fn is_instance(root: &Path) -> bool {
    let vendor = text_of(&root.join("sys/class/dmi/id/sys_vendor"));
    let hypervisor = text_of(&root.join("sys/hypervisor/uuid"));
    vendor.trim() == "Amazon EC2" || hypervisor.to_ascii_lowercase().starts_with("ec2")
}

/// How long to wait before asking once more after this many failures; absent: never again.
pub fn next_attempt(failures: u32, is_instance: bool) -> Option<Duration> {
    if failures < ATTEMPTS_ANYWHERE {
        return Some(Duration::from_secs(5) * 4_u32.pow(failures.saturating_sub(1)));
    }
    is_instance.then_some(Duration::from_mins(5))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use axum::routing::put;
    use tokio::net::TcpListener;

    use super::super::testdata::machine;
    use super::*;

    const DOCUMENT: &str = include_str!("testdata/no-gpu/identity-document.json");

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        endpoint
    }

    /// A service that gives the document only for the token it gave, as the real one does.
    fn service(document: &'static str) -> Router {
        let token = async |headers: HeaderMap| match headers.get("x-aws-ec2-metadata-token-ttl-seconds") {
            Some(_) => (StatusCode::OK, "AQAEA-token=="),
            None => (StatusCode::BAD_REQUEST, ""),
        };
        let identity = async move |headers: HeaderMap| match headers.get("x-aws-ec2-metadata-token") {
            Some(token) if token == "AQAEA-token==" => (StatusCode::OK, document),
            _ => (StatusCode::UNAUTHORIZED, ""),
        };
        Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/dynamic/instance-identity/document", get(identity))
    }

    #[tokio::test]
    async fn an_instance_knows_what_it_is() {
        let expected = Aws {
            region: "eu-west-1".into(),
            ec2_instance_type: "m5.large".into(),
            ec2_instance_id: "i-0a1b2c3d4e5f60718".into(),
            ec2_image_id: "ami-0fedcba9876543210".into(),
        };
        assert_eq!(read(&serve(service(DOCUMENT)).await).await.unwrap(), expected);
        let with_slash = format!("{}/", serve(service(DOCUMENT)).await);
        assert_eq!(read(&with_slash).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn other_answers_are_no_facts() {
        let refused = read(&serve(Router::new()).await).await.unwrap_err();
        assert!(matches!(refused, MetadataError::Refused(StatusCode::NOT_FOUND)), "{refused}");
        for document in ["<html>", "{}", "[]", r#"{"instanceId": 7}"#] {
            let unreadable = read(&serve(service(document)).await).await.unwrap_err();
            assert!(matches!(unreadable, MetadataError::Unreadable(_)), "{document}: {unreadable}");
        }
        let silent = read("http://127.0.0.1:1").await.unwrap_err();
        assert!(matches!(silent, MetadataError::Silent), "{silent}");
    }

    #[tokio::test]
    async fn a_service_that_never_answers_is_not_waited_for() {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answer = read_within(Duration::from_millis(50), &endpoint).await;
        assert!(matches!(answer, Err(MetadataError::Silent)), "{answer:?}");
    }

    #[test]
    fn an_instance_is_asked_on_and_others_a_few_times() {
        assert!(is_instance(&machine("no-gpu")) && is_instance(&machine("arm")));
        assert!(!is_instance(&machine("two-sockets")) && !is_instance(&machine("container")));
        let waits: Vec<_> = (1..=5).map(|failures| next_attempt(failures, false).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(5), Some(20), Some(80), None, None]);
        assert_eq!(next_attempt(4, true), Some(Duration::from_mins(5)));
    }
}
