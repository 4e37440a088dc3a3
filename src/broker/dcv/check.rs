//! From a request to what a session is to be: the checks that need no server.
//!
//! Every text goes to the client as `FailureReason`, so it names the property as the API file does.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

use super::super::Rules;
use crate::api::DcvSessionSpec;
use crate::api::session::DesiredState;
use crate::api::session::RestartPolicy;
use crate::api::session::SessionType;
use crate::permissions::Permissions;
use crate::requirement::Requirement;
use crate::wire::CreateSessionRequestData;

// Bounds of the objects.
const NAME_MAX_CHARACTERS: usize = 256;
const PATH_MAX_CHARACTERS: usize = 1024;
const PERMISSIONS_MAX_CHARACTERS: usize = 65_536;
const CLIENTS_MAX: i32 = 10_000;
const SECONDS_MAX: u32 = 31_536_000;

/// Least time an ended session's object is kept where it is kept at all, so that watchers see how it ended.
const TTL_MIN_SECONDS: u32 = 300;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the session is to be.
///
/// # Errors
/// What is wrong with the request, for the client.
pub fn session_spec(request: &CreateSessionRequestData, rules: &Rules) -> Result<DcvSessionSpec, String> {
    let name = required("Name", request.name.as_deref(), NAME_MAX_CHARACTERS)?;
    let owner = required("Owner", request.owner.as_deref(), NAME_MAX_CHARACTERS)?;
    if owner.starts_with('-') || owner.chars().any(char::is_control) {
        return Err("Owner must not start with - and must not contain control characters".to_owned());
    }
    let type_ = session_type(request)?;
    let enqueue_request = request.enqueue_request.unwrap_or(false);
    Ok(DcvSessionSpec {
        display_name: Some(name),
        owner,
        type_,
        requirements: requirements(request, rules)?,
        server_selector: None,
        init_file: init_file(request, type_)?,
        autorun_file: path("AutorunFile", request.autorun_file.as_deref())?,
        autorun_file_arguments: autorun_file_arguments(request, type_, rules)?,
        max_concurrent_clients: max_concurrent_clients(request)?,
        dcv_gl_enabled: dcv_gl_enabled(request, type_)?,
        permissions: permissions(request.permissions_file.as_deref())?,
        storage_root: storage_root(request)?,
        enqueue_request,
        disable_retry_on_failure: request.disable_retry_on_failure.unwrap_or(false),
        priority: 0,
        placement_policy: None,
        queue_timeout_seconds: enqueue_request.then(|| seconds(rules.create_sessions_queue_max_time_seconds.max(1))),
        desired_state: DesiredState::Running,
        restart_policy: RestartPolicy::Never,
        max_duration_seconds: None,
        disconnect_timeout_seconds: None,
        ttl_seconds_after_finished: Some(seconds(rules.delete_session_duration_seconds.max(TTL_MIN_SECONDS))),
        tokens_valid_from: None,
        adopt: None,
    })
}

fn seconds(seconds: u32) -> i32 {
    i32::try_from(seconds.min(SECONDS_MAX)).unwrap_or(i32::MAX)
}

/// Generated clients send empty text for what is not set.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn bounded(property: &str, text: &str, max_characters: usize) -> Result<String, String> {
    if text.chars().count() > max_characters {
        return Err(format!("{property} must be at most {max_characters} characters"));
    }
    Ok(text.to_owned())
}

fn required(property: &str, text: Option<&str>, max_characters: usize) -> Result<String, String> {
    bounded(property, given(text).ok_or_else(|| format!("{property} is required"))?, max_characters)
}

fn session_type(request: &CreateSessionRequestData) -> Result<SessionType, String> {
    let text = given(request.type_.as_deref()).ok_or("Type is required")?;
    [SessionType::Console, SessionType::Virtual]
        .into_iter()
        .find(|type_| type_.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("Type must be CONSOLE or VIRTUAL, not {text:?}"))
}

/// Without blanks around, and none when it is blank; the error is the one that a manifest would get.
fn requirements(request: &CreateSessionRequestData, rules: &Rules) -> Result<Option<String>, String> {
    let Some(text) = request.requirements.as_deref() else { return Ok(None) };
    let parsed = Requirement::parse(text, rules.dialect).map_err(|error| error.to_string())?;
    Ok(parsed.map(|_| text.trim().to_owned()))
}

/// A path below a folder of the host.
fn path(property: &str, text: Option<&str>) -> Result<Option<String>, String> {
    let Some(text) = given(text) else { return Ok(None) };
    if text.starts_with('/') || text.split('/').any(|part| part == "..") || text.chars().any(char::is_control) {
        return Err(format!("{property} must be a relative path without .."));
    }
    bounded(property, text, PATH_MAX_CHARACTERS).map(Some)
}

fn init_file(request: &CreateSessionRequestData, type_: SessionType) -> Result<Option<String>, String> {
    // The deprecated property was an absolute path once; it is taken below the init folder.
    let deprecated = request.init_file_path.as_deref().map(|path| path.trim_start_matches('/'));
    let file = match given(request.init_file.as_deref()) {
        Some(file) => path("InitFile", Some(file))?,
        None => path("InitFilePath", deprecated)?,
    };
    if file.is_some() && type_ == SessionType::Console {
        return Err("InitFile is not supported with CONSOLE sessions".to_owned());
    }
    Ok(file)
}

fn autorun_file_arguments(
    request: &CreateSessionRequestData,
    type_: SessionType,
    rules: &Rules,
) -> Result<Vec<String>, String> {
    let arguments = request.autorun_file_arguments.clone().unwrap_or_default();
    if arguments.is_empty() {
        return Ok(arguments);
    }
    if given(request.autorun_file.as_deref()).is_none() {
        return Err("AutorunFileArguments must come with AutorunFile".to_owned());
    }
    if type_ == SessionType::Console {
        return Err("AutorunFileArguments are not supported with CONSOLE sessions".to_owned());
    }
    let most = rules.autorun_file_arguments_max_size;
    if arguments.len() > most {
        return Err(format!("AutorunFileArguments must be at most {most} arguments"));
    }
    let longest = rules.autorun_file_arguments_max_argument_length;
    if arguments.iter().any(|argument| argument.chars().count() > longest) {
        return Err(format!("AutorunFileArguments must be at most {longest} characters each"));
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err("AutorunFileArguments must not contain NUL".to_owned());
    }
    Ok(arguments)
}

fn max_concurrent_clients(request: &CreateSessionRequestData) -> Result<Option<i32>, String> {
    let Some(number) = request.max_concurrent_clients else { return Ok(None) };
    let number = i32::try_from(number).ok().filter(|number| (1..=CLIENTS_MAX).contains(number));
    number.map(Some).ok_or_else(|| format!("MaxConcurrentClients must be from 1 to {CLIENTS_MAX}"))
}

fn dcv_gl_enabled(request: &CreateSessionRequestData, type_: SessionType) -> Result<Option<bool>, String> {
    match (type_, request.dcv_gl_enabled) {
        (SessionType::Console, Some(true)) => Err("DcvGlEnabled is not supported with CONSOLE sessions".to_owned()),
        (SessionType::Console, _) => Ok(None),
        (SessionType::Virtual, enabled) => Ok(enabled),
    }
}

/// The text of a permissions file. `None`: none is given.
///
/// # Errors
/// What is wrong with it, for the client: a host would refuse it in the same words.
pub fn permissions(encoded: Option<&str>) -> Result<Option<String>, String> {
    let Some(encoded) = given(encoded) else { return Ok(None) };
    // Some encoders break lines.
    let encoded: Vec<_> = encoded.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let bytes =
        BASE64.decode(encoded).map_err(|_| "PermissionsFile must be the base64 of the file's text, not a path")?;
    let text = String::from_utf8(bytes).map_err(|_| "PermissionsFile must be the base64 of UTF-8 text")?;
    let text = bounded("PermissionsFile", &text, PERMISSIONS_MAX_CHARACTERS)?;
    Permissions::parse(Some(&text)).map_err(|error| format!("PermissionsFile: {error}"))?;
    Ok(Some(text))
}

fn storage_root(request: &CreateSessionRequestData) -> Result<Option<String>, String> {
    let Some(root) = given(request.storage_root.as_deref()) else { return Ok(None) };
    if root.chars().any(char::is_control) {
        return Err("StorageRoot must not contain control characters".to_owned());
    }
    bounded("StorageRoot", root, PATH_MAX_CHARACTERS).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use serde_json::json;

    use super::*;

    fn check(changes: &Value) -> Result<DcvSessionSpec, String> {
        let mut request = json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"});
        request.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        session_spec(&serde_json::from_value(request).unwrap(), &Rules::default())
    }

    #[test]
    fn a_plain_request_becomes_the_documented_defaults() {
        let spec = serde_json::to_value(check(&json!({})).unwrap()).unwrap();
        let expected = json!({
            "displayName": "n", "owner": "ann", "type": "VIRTUAL", "enqueueRequest": false,
            "disableRetryOnFailure": false, "priority": 0, "desiredState": "Running", "restartPolicy": "Never",
            "ttlSecondsAfterFinished": 3600,
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn every_property_arrives() {
        let spec = check(&json!({
            "Type": "virtual", "InitFile": "a/b.sh", "AutorunFile": "c.sh", "AutorunFileArguments": ["-x", ""],
            "MaxConcurrentClients": 2, "DcvGlEnabled": false, "EnqueueRequest": true,
            "PermissionsFile": "W3Blcm1pc3Npb25zXQolb3du\nZXIlIGFsbG93IGJ1aWx0aW4=",
            "DisableRetryOnFailure": true, "StorageRoot": "%home%/x", "Requirements": " \n",
        }));
        let spec = serde_json::to_value(spec.unwrap()).unwrap();
        let expected = json!({
            "displayName": "n", "owner": "ann", "type": "VIRTUAL", "initFile": "a/b.sh", "autorunFile": "c.sh",
            "autorunFileArguments": ["-x", ""], "maxConcurrentClients": 2, "dcvGlEnabled": false,
            "permissions": "[permissions]\n%owner% allow builtin", "storageRoot": "%home%/x", "enqueueRequest": true,
            "queueTimeoutSeconds": 1800, "disableRetryOnFailure": true, "priority": 0, "desiredState": "Running",
            "restartPolicy": "Never", "ttlSecondsAfterFinished": 3600,
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn a_wrong_value_is_named() {
        let long = |characters: usize| "ä".repeat(characters);
        for (changes, text) in [
            (json!({"Name": null}), "Name is required"),
            (json!({"Name": long(257)}), "Name must be at most 256 characters"),
            (json!({"Owner": ""}), "Owner is required"),
            (json!({"Owner": "-x"}), "Owner must not start with -"),
            (json!({"Owner": "a\nb"}), "Owner must not start with -"),
            (json!({"Type": null}), "Type is required"),
            (json!({"Type": "DESKTOP"}), "Type must be CONSOLE or VIRTUAL, not \"DESKTOP\""),
            (json!({"InitFile": "/a"}), "InitFile must be a relative path without .."),
            (json!({"InitFile": "a/../b"}), "InitFile must be a relative path without .."),
            (json!({"InitFilePath": "/../b"}), "InitFilePath must be a relative path without .."),
            (json!({"InitFile": "a", "Type": "CONSOLE"}), "InitFile is not supported with CONSOLE"),
            (json!({"InitFile": long(1025)}), "InitFile must be at most 1024 characters"),
            (json!({"AutorunFile": ".."}), "AutorunFile must be a relative path without .."),
            (json!({"AutorunFileArguments": ["a"]}), "AutorunFileArguments must come with AutorunFile"),
            (
                json!({"AutorunFile": "a", "AutorunFileArguments": ["a"], "Type": "CONSOLE"}),
                "AutorunFileArguments are not supported with CONSOLE",
            ),
            (json!({"AutorunFile": "a", "AutorunFileArguments": vec!["a"; 51]}), "at most 50 arguments"),
            (json!({"AutorunFile": "a", "AutorunFileArguments": [long(151)]}), "at most 150 characters each"),
            (json!({"MaxConcurrentClients": 0}), "MaxConcurrentClients must be from 1 to 10000"),
            (json!({"MaxConcurrentClients": -1}), "MaxConcurrentClients must be from 1 to 10000"),
            (json!({"MaxConcurrentClients": i64::MAX}), "MaxConcurrentClients must be from 1 to 10000"),
            (json!({"DcvGlEnabled": true, "Type": "CONSOLE"}), "DcvGlEnabled is not supported with CONSOLE"),
            (json!({"PermissionsFile": "/dcv/permissions.file"}), "PermissionsFile must be the base64"),
            (json!({"PermissionsFile": "/w=="}), "PermissionsFile must be the base64 of UTF-8 text"),
            (
                json!({"PermissionsFile": "W3Blcm1pc3Npb25zXQpib2IgbWF5IGZseQ=="}),
                "PermissionsFile: line 2: expected an actor",
            ),
            (json!({"PermissionsFile": "ICAg".repeat(22_000)}), "PermissionsFile must be at most 65536 characters"),
            (json!({"StorageRoot": "a\u{7}"}), "StorageRoot must not contain control characters"),
            (json!({"Requirements": "tag:a = 1 and"}), "requirements: at character 14: "),
        ] {
            let reason = check(&changes).expect_err(&changes.to_string());
            assert!(reason.contains(text), "{changes}: {reason}");
        }
    }

    #[test]
    fn what_does_no_harm_is_accepted() {
        for changes in [
            json!({"Name": "ä".repeat(256)}),
            json!({"Owner": "DOMAIN\\eve"}),
            json!({"Owner": "an owner 1890"}),
            json!({"Type": "Console", "DcvGlEnabled": false, "AutorunFile": "a"}),
            json!({"InitFile": "", "AutorunFile": "", "AutorunFileArguments": [], "PermissionsFile": "", "StorageRoot": ""}),
            json!({"AutorunFile": "a", "AutorunFileArguments": vec!["ä".repeat(150); 50]}),
            json!({"MaxConcurrentClients": 1}),
        ] {
            assert!(check(&changes).is_ok(), "{changes}");
        }
        let init = |changes: Value| check(&changes).unwrap().init_file;
        assert_eq!(init(json!({"InitFilePath": "/dcv/script.sh"})).as_deref(), Some("dcv/script.sh"));
        assert_eq!(init(json!({"InitFilePath": "/a", "InitFile": "b"})).as_deref(), Some("b"));
    }
}
