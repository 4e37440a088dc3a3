//! Reads what the `dcv` command prints. Pure; no text panics.
//!
//! Only JSON is read for what is true, never prose. What older versions leave out is `None`, what is unknown is ignored;
//! what is no such answer at all is an error, and never "nothing is there".
//!
//! Source: "Viewing sessions" in the Amazon DCV Administrator Guide, and outputs that public scripts and collectors parse.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Map;
use serde_json::Value;

use crate::agent::backend::ImageFormat;
use crate::agent::command::plain;
use crate::api::session::SessionType;

/// What was printed is not the documented answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be understood: {0}")]
pub(super) struct ReadError(String);

/// A session as the DCV server tells of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// Its id.
    pub id: String,
    /// Its owner.
    pub owner: String,
    /// Its kind; versions of 2019 do not say.
    pub type_: Option<SessionType>,
    /// Clients connected; old versions do not say.
    pub connections: Option<i32>,
    /// When a client left last.
    pub last_disconnection_time: Option<Timestamp>,
    /// When it was created.
    pub creation_time: Option<Timestamp>,
    /// X display of a virtual session, empty before there is one; absent: the version does not say.
    pub display: Option<String>,
    /// Licences it holds or asked for.
    pub licences: Vec<Licence>,
}

/// A licence of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Licence {
    /// `dcv` or `dcv-gl`.
    pub product: String,
    /// `licensed`, or what is wrong, in small letters.
    pub status: String,
}

impl Told {
    /// Its kind where it can be told: by its word, else by its having a display of its own.
    pub fn kind(&self) -> Option<SessionType> {
        let has_display = self.display.as_ref().is_some_and(|display| !display.is_empty());
        self.type_.or(has_display.then_some(SessionType::Virtual))
    }
}

/// Reads `list-sessions --json`: one entry per session, in printed order. No text at all and `[]` both mean none.
pub(super) fn parse_sessions(text: &str) -> Result<Vec<Told>, ReadError> {
    let sessions: Vec<Told> = objects(text)?.iter().map(told).collect::<Result<_, _>>()?;
    let mut seen = std::collections::BTreeSet::new();
    match sessions.iter().find(|session| !seen.insert(session.id.as_str())) {
        Some(twice) => Err(ReadError(format!("the session {} stands in it twice", plain(&twice.id)))),
        None => Ok(sessions),
    }
}

/// Reads `describe-session --json`.
pub(super) fn parse_session(text: &str) -> Result<Told, ReadError> {
    match json(text)? {
        Value::Object(session) => told(&session),
        other => Err(ReadError(format!("it is {} instead of an object", kind_of(&other)))),
    }
}

/// Reads `list-connections --json`: how many there are.
pub(super) fn parse_connections(text: &str) -> Result<i32, ReadError> {
    Ok(i32::try_from(objects(text)?.len()).unwrap_or(i32::MAX))
}

/// Reads `get-screenshot --json`: a picture that begins as those of `format` do.
pub(super) fn parse_screenshot(text: &str, format: ImageFormat) -> Result<Vec<u8>, ReadError> {
    let answer = json(text)?;
    let encoded = answer.get("base64").and_then(Value::as_str);
    let encoded = encoded.ok_or_else(|| ReadError("it holds no picture".into()))?;
    let encoded: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let picture = STANDARD.decode(encoded).map_err(|error| ReadError(format!("the picture is broken: {error}")))?;
    let beginning: &[u8] = match format {
        ImageFormat::Png => b"\x89PNG\r\n\x1a\n",
        ImageFormat::Jpeg => b"\xff\xd8\xff",
    };
    if picture.starts_with(beginning) { Ok(picture) } else { Err(ReadError("the picture is of another format".into())) }
}

/// Reads `version`, as text or JSON of whatever shape: the first number with a dot in it.
pub(super) fn parse_version(text: &str) -> Option<String> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    let is_version = |word: &&str| word.contains('.') && !word.contains("..") && word.len() <= 40;
    words.filter(|word| !word.is_empty()).find(is_version).map(str::to_owned)
}

/// A JSON array of objects. Some versions print nothing where they mean `[]`.
fn objects(text: &str) -> Result<Vec<Map<String, Value>>, ReadError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let Value::Array(entries) = json(text)? else {
        return Err(ReadError(format!("it is no list: {}", beginning(text))));
    };
    let object = |entry| match entry {
        Value::Object(object) => Ok(object),
        other => Err(ReadError(format!("an entry is {} instead of an object", kind_of(&other)))),
    };
    entries.into_iter().map(object).collect()
}

fn json(text: &str) -> Result<Value, ReadError> {
    serde_json::from_str(text).map_err(|error| ReadError(format!("{error} in {}", beginning(text))))
}

fn beginning(text: &str) -> String {
    let start: String = plain(text.chars().take(80).collect::<String>());
    format!("{start:?}")
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn told(session: &Map<String, Value>) -> Result<Told, ReadError> {
    let text = |key: &str| session.get(key).and_then(Value::as_str);
    let needed = |key: &str| {
        let value = text(key).filter(|value| !value.is_empty());
        value.map(str::to_owned).ok_or_else(|| ReadError(format!("a session has no {key}")))
    };
    let connections = session.get("num-of-connections").and_then(Value::as_i64);
    Ok(Told {
        id: needed("id")?,
        owner: needed("owner")?,
        type_: text("type").and_then(session_type),
        connections: connections.and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0),
        last_disconnection_time: text("last-disconnection-time").and_then(time),
        creation_time: text("creation-time").and_then(time),
        display: text("x11-display").map(str::to_owned),
        licences: session.get("licenses").and_then(Value::as_array).map_or_else(Vec::new, |list| licences(list)),
    })
}

fn session_type(word: &str) -> Option<SessionType> {
    match word.to_ascii_lowercase().as_str() {
        "virtual" => Some(SessionType::Virtual),
        "console" => Some(SessionType::Console),
        _ => None,
    }
}

/// Empty and absent: never.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn licences(list: &[Value]) -> Vec<Licence> {
    let word = |licence: &Value, key| plain(licence.get(key).and_then(Value::as_str).unwrap_or_default());
    let licences = list.iter().map(|licence| Licence {
        product: word(licence, "product"),
        status: word(licence, "status").to_ascii_lowercase(),
    });
    licences.filter(|licence| !licence.status.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The documented list, as versions of 2023 and later print it.
    const SESSIONS: &str = r#"[
  {
    "id" : "4f6e2b8a-3a51-4c58-9d5e-0c1b1f7a9f10",
    "owner" : "ann",
    "user" : "ann",
    "name" : "CAD",
    "num-of-connections" : 1,
    "creation-time" : "2025-03-04T08:15:30.120045Z",
    "last-disconnection-time" : "",
    "licenses" : [ ],
    "licensing-mode" : "demo",
    "storage-root" : "/home/ann",
    "type" : "virtual",
    "status" : "running",
    "x11-display" : ":1",
    "x11-authority" : "/run/user/1001/dcv/4f6e2b8a-3a51-4c58-9d5e-0c1b1f7a9f10.xauth"
  }
]
"#;

    /// The documented description of a console session.
    const CONSOLE: &str = r#"{
  "id" : "console",
  "owner" : "ann",
  "user" : "dcv",
  "name" : "",
  "num-of-connections" : 0,
  "creation-time" : "2025-03-04T08:15:30.120045Z",
  "last-disconnection-time" : "2025-03-04T09:00:00Z",
  "licenses" : [
    {
      "product" : "dcv",
      "status" : "licensed",
      "check-timestamp" : "2025-03-04T08:15:31.000211Z",
      "expiration-date" : "2025-04-03T00:00:00Z"
    }
  ],
  "licensing-mode" : "demo",
  "storage-root" : "",
  "type" : "console",
  "status" : "created",
  "x11-display" : "",
  "x11-authority" : "",
  "display-layout" : [
    { "width" : 1920, "height" : 1080, "x" : 0, "y" : 0 }
  ]
}
"#;

    /// What a version of 2019 says of a session: no type, no status, no number of connections, licences in capitals.
    const OLD: &str = r#"{
  "id" : "build-17",
  "owner" : "bob",
  "licenses" : [ { "product" : "dcv", "status" : "LICENSED" }, { "product" : "dcv-gl", "status" : "EXPIRED" } ],
  "licensing-mode" : "DEMO",
  "x11-display" : ":4",
  "x11-authority" : "/run/user/1002/dcv/build-17.xauth"
}
"#;

    const CONNECTIONS: &str = r#"[
  {
    "id" : 12,
    "username" : "ann",
    "user-agent" : "dcv-client/2025.0",
    "client-mode" : "classic",
    "client-address" : "192.0.2.7:51234",
    "connection-time" : "2025-03-04T08:20:00.000100Z",
    "last-interaction-time" : "2025-03-04T08:41:12.500000Z",
    "first-frame-time" : "2025-03-04T08:20:01.250000Z",
    "transport" : "quic"
  },
  { "id" : 13, "transport" : "WEBSOCKET", "something-new" : { } }
]
"#;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_is_read() {
        let expected = Told {
            id: "4f6e2b8a-3a51-4c58-9d5e-0c1b1f7a9f10".into(),
            owner: "ann".into(),
            type_: Some(SessionType::Virtual),
            connections: Some(1),
            last_disconnection_time: None,
            creation_time: Some(at("2025-03-04T08:15:30.120045Z")),
            display: Some(":1".into()),
            licences: Vec::new(),
        };
        assert_eq!(parse_sessions(SESSIONS).unwrap(), [expected]);
    }

    #[test]
    fn a_console_session_is_read() {
        let expected = Told {
            id: "console".into(),
            owner: "ann".into(),
            type_: Some(SessionType::Console),
            connections: Some(0),
            last_disconnection_time: Some(at("2025-03-04T09:00:00Z")),
            creation_time: Some(at("2025-03-04T08:15:30.120045Z")),
            display: Some(String::new()),
            licences: vec![Licence { product: "dcv".into(), status: "licensed".into() }],
        };
        assert_eq!(parse_session(CONSOLE).unwrap(), expected);
    }

    #[test]
    fn what_old_versions_leave_out_is_unknown() {
        let told = parse_session(OLD).unwrap();
        assert_eq!((told.type_, told.kind()), (None, Some(SessionType::Virtual)));
        assert_eq!((told.connections, told.creation_time, told.last_disconnection_time), (None, None, None));
        let statuses: Vec<_> = told.licences.iter().map(|licence| licence.status.as_str()).collect();
        assert_eq!(statuses, ["licensed", "expired"]);
        let bare = parse_sessions(r#"[{"id":"a","owner":"b"}]"#).unwrap();
        assert_eq!((bare[0].kind(), bare[0].display.as_deref()), (None, None));
    }

    #[test]
    fn no_text_and_an_empty_list_both_mean_none() {
        for text in ["", "\n", "[]", "[ ]\n"] {
            assert_eq!(parse_sessions(text), Ok(Vec::new()), "{text:?}");
            assert_eq!(parse_connections(text), Ok(0), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_no_answer_and_not_an_empty_one() {
        let text = "Session: 'build-17' (owner:ann type:virtual)\nSession: console (owner:Administrator type:console name:'CAD')\n";
        let half = &SESSIONS[..SESSIONS.len() / 2];
        for bad in
            [text, half, "{}", "null", "[1]", "[[]]", "[{}]", r#"[{"id":"a"}]"#, r#"[{"id":"","owner":"b"}]"#, "[]x"]
        {
            assert!(parse_sessions(bad).is_err(), "{bad}");
        }
        assert!(parse_sessions(r#"[{"id":"a","owner":"b"},{"id":"a","owner":"c"}]"#).is_err(), "one id twice");
        for bad in ["", "[]", "Session 'x' not found\n", "3"] {
            assert!(parse_session(bad).is_err(), "{bad}");
        }
        let error = parse_sessions("No DCV server\u{1b}[0m found").unwrap_err();
        assert!(error.to_string().ends_with(r#" in "No DCV server [0m found""#), "{error}");
    }

    #[test]
    fn values_of_a_wrong_kind_are_unknown() {
        let odd = r#"[{"id":"a","owner":"b","num-of-connections":-3,"creation-time":"yesterday","type":7,
            "last-disconnection-time":null,"licenses":{},"x11-display":1}]"#;
        let told = parse_sessions(odd).unwrap().remove(0);
        assert_eq!((told.connections, told.creation_time, told.type_, told.display), (None, None, None, None));
    }

    #[test]
    fn connections_are_counted() {
        assert_eq!(parse_connections(CONNECTIONS), Ok(2));
        assert!(parse_connections("{}").is_err());
    }

    #[test]
    fn a_picture_is_of_the_format_that_was_asked_for() {
        let png = STANDARD.encode(b"\x89PNG\r\n\x1a\nrest");
        let text = format!("{{\n  \"format\" : \"png\",\n  \"base64\" : \"{png}\"\n}}\n");
        assert_eq!(parse_screenshot(&text, ImageFormat::Png).unwrap(), b"\x89PNG\r\n\x1a\nrest");
        assert!(parse_screenshot(&text, ImageFormat::Jpeg).is_err());
        let folded = text.replace(&png, &format!("{}\\n{}", &png[..4], &png[4..]));
        assert!(parse_screenshot(&folded, ImageFormat::Png).is_ok());
        for bad in ["", "{}", r#"{"base64":"%%"}"#, r#"{"base64":""}"#] {
            assert!(parse_screenshot(bad, ImageFormat::Png).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_is_the_first_number_with_a_dot() {
        for (text, version) in [
            ("Amazon DCV 2025.0 (r20103)\nCopyright (C) 2010-2025 NICE s.r.l.\n", Some("2025.0")),
            ("NICE DCV 2023.1-16388", Some("2023.1")),
            (r#"{ "version" : "2024.0.19030", "build" : 3 }"#, Some("2024.0.19030")),
            ("Amazon DCV.", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text).as_deref(), version, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = (parse_sessions(&text), parse_session(&text), parse_connections(&text), parse_version(&text));
            let _ = parse_screenshot(&text, ImageFormat::Png);
        }

        #[test]
        fn damaged_answers_do_not_panic_and_are_never_empty(at in 0..700usize, byte in any::<u8>(), cut in any::<bool>()) {
            let mut bytes = SESSIONS.as_bytes().to_vec();
            let at = at % (bytes.len() - 3);
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(sessions) = parse_sessions(&text) {
                prop_assert!(sessions.len() == 1 || text.trim().is_empty());
            }
            let _ = (parse_session(&text), parse_connections(&text));
        }
    }
}
