//! From a command to the request that it stands for.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use crate::wire::CloseServerRequestData;
use crate::wire::CreateSessionRequestData;
use crate::wire::DeleteSessionRequestData;
use crate::wire::DescribeServersRequestData;
use crate::wire::DescribeSessionsRequestData;
use crate::wire::GetSessionScreenshotRequestData;
use crate::wire::KeyValuePair;
use crate::wire::OpenServerRequestData;
use crate::wire::UpdateSessionPermissionsRequestData;

use super::args::Call;
use super::args::CreateSession;
use super::args::DescribeSessions;
use super::args::Page;
use super::error::Error;

/// What is asked of the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Parts of the path, not encoded.
    pub path: Vec<String>,
    /// The body.
    pub body: Option<Value>,
}

impl Request {
    /// The request of a command. Files are read by `read`.
    ///
    /// # Errors
    /// When a value cannot be right, or a file cannot be read.
    pub fn of(call: &Call, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, Error> {
        match call {
            Call::CreateSession(session) => Ok(Self::post("createSessions", [create_session(session, read)?])),
            Call::DescribeSessions(which) => Ok(Self::post("describeSessions", describe_sessions(which)?)),
            Call::DescribeServers(which) => {
                let server_ids = Some(ids(&which.server_ids)).filter(|ids| !ids.is_empty());
                let (max_results, next_token) = page(&which.page)?;
                Ok(Self::post("describeServers", DescribeServersRequestData { server_ids, max_results, next_token }))
            }
            Call::DeleteSession(which) => {
                let session_id = Some(which.session_id.clone());
                let owner = Some(which.owner.clone());
                Ok(Self::post("deleteSessions", [DeleteSessionRequestData { session_id, owner, force: which.force }]))
            }
            Call::OpenServers(which) => {
                let item = |id| OpenServerRequestData { server_id: Some(id) };
                Ok(Self::post("openServers", items("server-ids", &which.server_ids, item)?))
            }
            Call::CloseServers(which) => {
                let item = |id| CloseServerRequestData { server_id: Some(id), force: which.force };
                Ok(Self::post("closeServers", items("server-ids", &which.server_ids, item)?))
            }
            Call::GetSessionScreenshots(which) => {
                let max_width = within("max-width", which.max_width, 1..=i64::MAX)?;
                let max_height = within("max-height", which.max_height, 1..=i64::MAX)?;
                let item = |id| GetSessionScreenshotRequestData { session_id: Some(id), max_width, max_height };
                Ok(Self::post("getSessionScreenshots", items("session-ids", &which.session_ids, item)?))
            }
            Call::GetSessionConnectionData(who) => Ok(Self {
                method: Method::GET,
                path: vec!["sessionConnectionData".to_owned(), who.session_id.clone(), who.user.clone()],
                body: None,
            }),
            Call::UpdateSessionPermissions(new) => {
                let item = UpdateSessionPermissionsRequestData {
                    session_id: Some(new.session_id.clone()),
                    owner: Some(new.owner.clone()),
                    permissions_file: Some(permissions("permission-file", &new.permission_file, read)?),
                };
                Ok(Self { method: Method::PUT, ..Self::post("sessionPermissions", [item]) })
            }
        }
    }

    fn post(path: &str, body: impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("requests are plain data");
        Self { method: Method::POST, path: vec![path.to_owned()], body: Some(body) }
    }
}

fn create_session(
    session: &CreateSession,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<CreateSessionRequestData, Error> {
    let type_ = session.type_.to_ascii_uppercase();
    if !["CONSOLE", "VIRTUAL"].contains(&type_.as_str()) {
        return Err(Error::Value(format!("--type: neither Console nor Virtual: {:?}", session.type_)));
    }
    let arguments: Vec<_> = session.autorun_file_arguments.iter().flat_map(|list| split(list)).collect();
    let permissions_file = match &session.permissions_file {
        Some(path) => Some(permissions("permissions-file", path, read)?),
        None => None,
    };
    Ok(CreateSessionRequestData {
        name: Some(session.name.clone()),
        owner: Some(session.owner.clone()),
        type_: Some(type_),
        dcv_gl_enabled: session.dcv_gl_enabled,
        max_concurrent_clients: within("max-concurrent-clients", session.max_concurrent_clients, 1..=100)?,
        // The deprecated property has the option's name, and may start with a slash.
        init_file_path: session.init_file_path.clone(),
        autorun_file: session.autorun_file.clone(),
        autorun_file_arguments: Some(arguments).filter(|arguments| !arguments.is_empty()),
        permissions_file,
        requirements: session.requirements.clone(),
        enqueue_request: session.enqueue_request,
        storage_root: session.storage_root.clone(),
        ..CreateSessionRequestData::default()
    })
}

fn describe_sessions(which: &DescribeSessions) -> Result<DescribeSessionsRequestData, Error> {
    let owner = which.owner.clone().map(|value| vec![KeyValuePair { key: "owner".into(), value: value.into() }]);
    let (max_results, next_token) = page(&which.page)?;
    let session_ids = Some(ids(&which.session_ids)).filter(|ids| !ids.is_empty());
    Ok(DescribeSessionsRequestData { session_ids, filters: owner, max_results, next_token })
}

fn page(page: &Page) -> Result<(Option<i64>, Option<String>), Error> {
    Ok((within("max-results", page.max_results, 1..=1000)?, page.next_token.clone()))
}

fn within(option: &str, number: Option<i64>, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Error> {
    match number {
        Some(number) if !range.contains(&number) && *range.end() == i64::MAX => {
            Err(Error::Value(format!("--{option}: must be at least {}, not {number}", range.start())))
        }
        Some(number) if !range.contains(&number) => {
            Err(Error::Value(format!("--{option}: must be from {} to {}, not {number}", range.start(), range.end())))
        }
        number => Ok(number),
    }
}

/// Ids as people write them: with blanks after the commas.
fn ids(list: &[String]) -> Vec<String> {
    list.iter().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).collect()
}

/// One item for each id, of which there must be one.
fn items<T>(option: &str, list: &[String], item: impl Fn(String) -> T) -> Result<Vec<T>, Error> {
    let items: Vec<_> = ids(list).into_iter().map(item).collect();
    if items.is_empty() { Err(Error::Value(format!("--{option}: there is no id"))) } else { Ok(items) }
}

/// The parts of a list with commas; `\,` is a comma inside a part.
fn split(list: &str) -> Vec<String> {
    // NUL can stand in for it: no argument of a program has one.
    list.replace(r"\,", "\0").split(',').map(|part| part.replace('\0', ",")).collect()
}

/// The file as the API takes it.
fn permissions(option: &str, path: &Path, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<String, Error> {
    let text = read(path).map_err(|error| Error::Value(format!("--{option}: {}: {error}", path.display())))?;
    Ok(STANDARD.encode(text))
}

#[cfg(test)]
mod tests;
