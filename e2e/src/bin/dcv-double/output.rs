//! What the command prints, in the forms that versions were seen to use.

use std::io;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use serde_json::ser::Formatter;
use serde_json::ser::PrettyFormatter;

use crate::session::Session;

/// A way of printing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Versions of 2023 and later.
    #[default]
    Modern,
    /// Versions of 2019: fewer fields, licences in capitals, no text at all for an empty list.
    Old,
}

/// The tool's JSON: two blanks of indent, and one before the colon.
struct Spaced<'a>(PrettyFormatter<'a>);

impl Formatter for Spaced<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }
    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b" : ")
    }
    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// JSON as the tool prints it.
pub fn printed(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced(PrettyFormatter::new()));
    value.serialize(&mut serializer).expect("a value can be printed");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is text")
}

/// `list-sessions`.
pub fn sessions(all: &[&Session], style: Style, json: bool) -> String {
    if json {
        if all.is_empty() && style == Style::Old {
            return String::new();
        }
        return printed(&all.iter().map(|session| described(session, style)).collect());
    }
    let line = |session: &&Session| match style {
        Style::Modern => format!(
            "Session: '{}' (owner:{} type:{} name:'{}')\n",
            session.id,
            session.owner,
            session.kind(),
            session.name
        ),
        Style::Old => format!("Session: {} (owner:{} type:{})\n", session.id, session.owner, session.kind()),
    };
    all.iter().map(line).collect()
}

/// The JSON of one session.
pub fn described(session: &Session, style: Style) -> Value {
    let display = session.shown_display();
    let authority =
        if display.is_empty() { String::new() } else { format!("/run/user/{}/dcv/{}.xauth", session.uid, session.id) };
    let licences = |status: &str| json!([{"product": "dcv", "status": status}]);
    if style == Style::Old {
        return json!({
            "id": session.id, "owner": session.owner, "licenses": licences("LICENSED"), "licensing-mode": "DEMO",
            "x11-display": display, "x11-authority": authority,
        });
    }
    let time = |time: Option<jiff::Timestamp>| time.map_or_else(String::new, |time| format!("{time:.6}"));
    json!({
        "id": session.id, "owner": session.owner, "user": session.user, "name": session.name,
        "num-of-connections": session.connections.len(),
        "creation-time": time(Some(session.creation_time)),
        "last-disconnection-time": time(session.last_disconnection_time),
        "licenses": licences("licensed"), "licensing-mode": "demo",
        "storage-root": session.storage_root, "type": session.kind(),
        "status": if session.is_console { "created" } else { "running" },
        "x11-display": display, "x11-authority": authority,
        "display-layout": [{"width": 1920, "height": 1080, "x": 0, "y": 0}],
    })
}

/// `list-connections --json`.
pub fn connections(session: &Session) -> String {
    let one = |(id, connection): (&u64, &crate::session::Connection)| {
        json!({
            "id": id, "username": connection.user, "user-agent": "dcv-double", "client-mode": "classic",
            "client-address": connection.address, "connection-time": format!("{:.6}", connection.time),
            "transport": "websocket",
        })
    };
    printed(&session.connections.iter().map(one).collect())
}
