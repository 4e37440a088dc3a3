//! Every command and every spelling of its options, and the request it becomes.

use clap::Parser;
use serde_json::json;

use super::super::Options;
use super::*;

/// The nine commands behind the options, as in the whole command line.
#[derive(Parser, Debug)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    call: Call,
}

fn parse(line: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(["dcv"].iter().chain(line))
}

/// The only file there is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path == Path::new("a.perm") { Ok(b"[permissions]\n".to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Method, path and body.
fn request(line: &[&str]) -> (String, String, Value) {
    let call = parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}")).call;
    let request = Request::of(&call, read).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    (request.method.to_string(), request.path.join(" "), request.body.unwrap_or_default())
}

const CREATE: [&str; 7] = ["create-session", "--name", "n", "--owner", "ann", "--type", "Virtual"];

/// The one item of createSessions with these options.
fn created(more: &[&str]) -> Value {
    let (method, path, body) = request(&[&CREATE[..], more].concat());
    assert_eq!((method.as_str(), path.as_str()), ("POST", "createSessions"));
    assert_eq!(body.as_array().map(Vec::len), Some(1), "{body}");
    body[0].clone()
}

#[test]
fn each_command_is_one_request() {
    const PERMISSIONS: &str = "W3Blcm1pc3Npb25zXQo=";
    for (line, method, path, body) in [
        (&CREATE[..], "POST", "createSessions", json!([{"Name": "n", "Owner": "ann", "Type": "VIRTUAL"}])),
        (&["describe-sessions"], "POST", "describeSessions", json!({})),
        (
            &["describe-sessions", "--session-ids", "a, b,,c", "--session-ids=d", "--owner", "ann"],
            "POST",
            "describeSessions",
            json!({"SessionIds": ["a", "b", "c", "d"], "Filters": [{"Key": "owner", "Value": "ann"}]}),
        ),
        (
            &["describe-sessions", "--max-results", "2", "--next-token", "t"],
            "POST",
            "describeSessions",
            json!({"MaxResults": 2, "NextToken": "t"}),
        ),
        (&["describe-servers"], "POST", "describeServers", json!({})),
        (
            &["describe-servers", "--server-ids", "a,b", "--max-results=1000", "--next-token=-t"],
            "POST",
            "describeServers",
            json!({"ServerIds": ["a", "b"], "MaxResults": 1000, "NextToken": "-t"}),
        ),
        (
            &["delete-session", "--session-id", "a", "--owner", "ann"],
            "POST",
            "deleteSessions",
            json!([{"SessionId": "a", "Owner": "ann"}]),
        ),
        (
            &["delete-session", "--force", "--session-id", "a", "--owner", "ann"],
            "POST",
            "deleteSessions",
            json!([{"SessionId": "a", "Owner": "ann", "Force": true}]),
        ),
        (
            &["open-servers", "--server-ids", "a,b"],
            "POST",
            "openServers",
            json!([{"ServerId": "a"}, {"ServerId": "b"}]),
        ),
        (&["close-servers", "--server-ids", "a"], "POST", "closeServers", json!([{"ServerId": "a"}])),
        (
            &["close-servers", "--server-ids", "a", "--force"],
            "POST",
            "closeServers",
            json!([{"ServerId": "a", "Force": true}]),
        ),
        (
            &["get-session-screenshots", "--session-ids", "a,b"],
            "POST",
            "getSessionScreenshots",
            json!([{"SessionId": "a"}, {"SessionId": "b"}]),
        ),
        (
            &["get-session-screenshots", "--session-ids", "a", "--max-width", "640", "--max-height", "480"],
            "POST",
            "getSessionScreenshots",
            json!([{"SessionId": "a", "MaxWidth": 640, "MaxHeight": 480}]),
        ),
        (
            &["get-session-connection-data", "--session-id", "a", "--user", r"DOMAIN\eve"],
            "GET",
            r"sessionConnectionData a DOMAIN\eve",
            Value::Null,
        ),
        (
            &["update-session-permissions", "--session-id", "a", "--owner", "ann", "--permission-file", "a.perm"],
            "PUT",
            "sessionPermissions",
            json!([{"SessionId": "a", "Owner": "ann", "PermissionsFile": PERMISSIONS}]),
        ),
        (
            &["update-session-permissions", "--session-id", "a", "--owner", "ann", "--permissions-file", "a.perm"],
            "PUT",
            "sessionPermissions",
            json!([{"SessionId": "a", "Owner": "ann", "PermissionsFile": PERMISSIONS}]),
        ),
    ] {
        assert_eq!(request(line), (method.to_owned(), path.to_owned(), body), "{line:?}");
    }
}

#[test]
fn a_session_has_what_its_options_say_in_every_spelling() {
    for (options, properties) in [
        (&["--init-file-path", "dcv/script.sh"][..], json!({"InitFilePath": "dcv/script.sh"})),
        (
            &["--autorun-file", "a.sh", "--autorun-file-arguments", r"-x,a b,c\,d,"],
            json!({"AutorunFile": "a.sh", "AutorunFileArguments": ["-x", "a b", "c,d", ""]}),
        ),
        (
            &["--autorun-file-arguments", "a", "--autorun-file-arguments", "b"],
            json!({"AutorunFileArguments": ["a", "b"]}),
        ),
        (&["--max-concurrent-clients", "1"], json!({"MaxConcurrentClients": 1})),
        (&["--max-concurrents-clients", "2"], json!({"MaxConcurrentClients": 2})),
        (&["--max_concurrent-clients", "3"], json!({"MaxConcurrentClients": 3})),
        (&["--max_concurrent_clients=100"], json!({"MaxConcurrentClients": 100})),
        (&["--dcv-gl-enabled"], json!({"DcvGlEnabled": true})),
        (&["--dcv-gl-enabled", "false"], json!({"DcvGlEnabled": false})),
        (&["--permissions-file", "a.perm"], json!({"PermissionsFile": "W3Blcm1pc3Npb25zXQo="})),
        (
            &["--requirements", "server:Host.Os.Family = 'linux'"],
            json!({"Requirements": "server:Host.Os.Family = 'linux'"}),
        ),
        (&["--storage-root", "%home%/x"], json!({"StorageRoot": "%home%/x"})),
        (&["--enqueue-request"], json!({"EnqueueRequest": true})),
        (&["--enqueue-request", "True"], json!({"EnqueueRequest": true})),
        (&["--enqueue-request=false"], json!({"EnqueueRequest": false})),
        (&["--enqueue-request", "--storage-root", "a"], json!({"EnqueueRequest": true, "StorageRoot": "a"})),
    ] {
        let mut expected = json!({"Name": "n", "Owner": "ann", "Type": "VIRTUAL"});
        expected.as_object_mut().unwrap().extend(properties.as_object().unwrap().clone());
        assert_eq!(created(options), expected, "{options:?}");
    }
    for type_ in ["Console", "CONSOLE", "console", "cOnSoLe"] {
        let line = ["create-session", "--name", "n", "--owner", "ann", "--type", type_];
        assert_eq!(request(&line).2[0]["Type"], "CONSOLE", "{type_}");
    }
}

#[test]
fn a_value_that_cannot_be_right_is_not_asked_for() {
    for line in [
        &["create-session", "--name", "n", "--owner", "ann", "--type", "Desktop"][..],
        &[&CREATE[..], &["--max-concurrent-clients", "0"]].concat(),
        &[&CREATE[..], &["--max-concurrent-clients", "101"]].concat(),
        &[&CREATE[..], &["--permissions-file", "missing"]].concat(),
        &["describe-sessions", "--max-results", "0"],
        &["describe-servers", "--max-results", "1001"],
        &["open-servers", "--server-ids", " ,"],
        &["get-session-screenshots", "--session-ids", "a", "--max-width", "-1"],
        &["get-session-screenshots", "--session-ids", "a", "--max-height", "0"],
        &["update-session-permissions", "--session-id", "a", "--owner", "ann", "--permission-file", "missing"],
    ] {
        let call = parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}")).call;
        let error = Request::of(&call, read).unwrap_err();
        assert_eq!(error.exit_code(), 252, "{line:?}: {error}");
        let option = line.iter().rfind(|word| word.starts_with("--")).unwrap();
        assert!(error.to_string().contains(option), "{line:?}: {error}");
    }
}

#[test]
fn what_is_not_understood_is_told_by_the_parser() {
    for line in [
        &["create-session", "--name", "n", "--owner", "ann"][..],
        &["create-session", "--name", "n", "--owner", "ann", "--type", "Virtual", "--colour", "red"],
        &["describe-sessions", "--max-results", "many"],
        &["describe-sessions", "extra"],
        &["delete-session", "--session-id", "a"],
        &["open-servers"],
        &["open-servers", "--server-ids", "a", "--force"],
        &["get-session-connection-data", "--session-id", "a"],
        &["update-session-permissions", "--session-id", "a", "--owner", "ann"],
        &["describe-sessions", "--client-password", "x"],
        &["describe-session"],
    ] {
        assert_eq!(parse(line).map_err(|error| error.exit_code()).err(), Some(2), "{line:?}");
    }
}

#[test]
fn options_stand_before_the_command_or_behind_it() {
    let options = |line: &[&str]| parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}")).options;
    let before = options(&["--debug", "--broker-url", "https://b", "--no-verify-ssl", "describe-sessions"]);
    let behind = options(&["describe-sessions", "--broker=https://b", "--debug=true", "--no-verify-ssl"]);
    for found in [before, behind] {
        assert_eq!(found.broker.as_deref(), Some("https://b"));
        assert_eq!((found.debug, found.no_verify_ssl), (Some(true), Some(true)));
    }
    let others =
        options(&["describe-servers", "--conf", "c", "--ca-bundle", "b", "--auth-server", "a", "--output-format=json"]);
    assert_eq!(others.conf.as_deref(), Some(Path::new("c")));
    assert_eq!(others.ca_bundle.as_deref(), Some(Path::new("b")));
    assert_eq!(others.auth_server_url.as_deref(), Some("a"));
    assert_eq!(others.output_format.as_deref(), Some("json"));
}
