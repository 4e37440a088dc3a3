//! The server process: holds the sessions, answers the command, lets clients in or not.
//!
//! It listens on `FOLDER/server.sock` for the command and for tests' orders, one JSON line each, and on the web port of
//! `FOLDER/dcv.conf` for clients, on its one listening endpoint, else on loopback. Its end is the end of its sessions.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::DynamicImage;
use image::ImageFormat;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::options;
use crate::options::Command;
use crate::output;
use crate::output::Style;
use crate::session;
use crate::session::Connection;
use crate::session::Session;
use crate::verifier;

/// What a test tells the server.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Goes wrong with commands to come.
    Fault(Fault),
    /// Goes wrong no more.
    Behave,
    /// What becomes of the next session.
    Next(Next),
    /// How it prints.
    Style(Style),
    /// A session ends by itself.
    End(String),
    /// The text of a session's permissions.
    Permissions(String),
    /// Everything that was asked, word by word.
    History,
    /// Stops when its last session has gone.
    StopWithLast(bool),
    /// Of each session the process of its desktop and the numbers of its connections.
    Standing,
}

/// What goes wrong.
#[derive(Clone, Deserialize)]
struct Fault {
    /// The command.
    on: String,
    what: Wrong,
    /// What is printed.
    #[serde(default)]
    text: String,
    /// For how long.
    #[serde(default)]
    milliseconds: u64,
    /// How often.
    #[serde(default = "once")]
    times: u32,
}

fn once() -> u32 {
    1
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wrong {
    /// Not done, and told.
    Fail,
    /// Done, and `text` printed.
    Garbage,
    /// Done later.
    Delay,
    /// Neither done nor answered.
    Hang,
    /// Done, and not answered.
    Lose,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Next {
    /// Ends so long after its creation.
    dies: Option<u64>,
    /// Is listed so long after its creation.
    appears: u64,
    /// Has its display so long after its creation.
    shows: u64,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Session>,
    faults: Vec<Fault>,
    next: Next,
    style: Style,
    stops_with_last: bool,
    displays: u32,
    connections: u64,
    history: Vec<Vec<String>>,
}

struct Server {
    state: Mutex<State>,
    configuration: PathBuf,
}

/// What a command prints and how it ends.
type Printed = Result<String, String>;

/// Serves the server of `folder` until it is told to stop.
pub fn run(folder: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(serve(folder))
}

async fn serve(folder: &Path) -> Result<(), String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let fault = |error: std::io::Error| error.to_string();
    let configuration = folder.join("dcv.conf");
    let settings = verifier::read_configuration(&configuration);
    let port = settings.get("connectivity/web-port").and_then(|port| port.parse::<u16>().ok()).unwrap_or(8443);
    // The real one listens everywhere unless told otherwise; tests stay on loopback.
    let address = settings.get("connectivity/web-listen-endpoints").map(|list| list.trim_matches(['[', ']', '\'']));
    let address = address.and_then(|address| address.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let clients = TcpListener::bind((address, port)).await.map_err(fault)?;
    let socket = folder.join("server.sock");
    let _ = fs::remove_file(&socket);
    let commands = UnixListener::bind(&socket).map_err(fault)?;
    let server = Arc::new(Server { state: Mutex::default(), configuration });
    let mut term = signal(SignalKind::terminate()).map_err(fault)?;
    loop {
        tokio::select! {
            _ = term.recv() => {
                server.state().sessions.values_mut().for_each(Session::end);
                return Ok(());
            }
            accepted = commands.accept() => {
                let (stream, _) = accepted.map_err(fault)?;
                tokio::spawn(server.clone().answer(stream));
            }
            accepted = clients.accept() => {
                let (stream, address) = accepted.map_err(fault)?;
                tokio::spawn(server.clone().serve_client(stream, address.to_string()));
            }
        }
    }
}

impl Server {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is held")
    }

    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        if BufReader::new(reader).read_line(&mut line).await.is_err() {
            return;
        }
        let Ok(question) = serde_json::from_str::<Value>(&line) else { return };
        let answer = if let Some(order) = question.get("order") {
            match serde_json::from_value(order.clone()) {
                Ok(order) => self.obey(order),
                Err(error) => json!({"error": error.to_string()}),
            }
        } else {
            let words = question["command"].as_array().into_iter().flatten();
            let words: Vec<String> = words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
            match self.perform(&words).await {
                Some(Ok(text)) => json!({"exit": 0, "stdout": text}),
                Some(Err(text)) => json!({"exit": 1, "stderr": format!("{text}\n")}),
                // Until whoever asked goes away.
                None => return std::future::pending().await,
            }
        };
        let _ = writer.write_all(format!("{answer}\n").as_bytes()).await;
        self.stop_if_done(&question);
    }

    fn obey(self: &Arc<Self>, order: Order) -> Value {
        let mut state = self.state();
        match order {
            Order::Fault(fault) => state.faults.push(fault),
            Order::Behave => {
                state.faults.clear();
                state.next = Next::default();
                state.style = Style::default();
            }
            Order::Next(next) => state.next = next,
            Order::Style(style) => state.style = style,
            Order::End(id) => {
                if let Some(mut session) = state.sessions.remove(&id) {
                    session.end();
                }
            }
            Order::Permissions(id) => {
                return json!(state.sessions.get(&id).and_then(|session| session.permissions.clone()));
            }
            Order::History => return json!(state.history),
            Order::StopWithLast(stops) => state.stops_with_last = stops,
            Order::Standing => {
                let sessions = state.sessions.iter().map(|(id, session)| (id.clone(), session.standing()));
                return Value::Object(sessions.collect());
            }
        }
        json!({})
    }

    /// Some servers stop with their last session.
    fn stop_if_done(&self, question: &Value) {
        let state = self.state();
        let has_closed = question["command"][0] == "close-session" || question["order"].get("end").is_some();
        if state.stops_with_last && has_closed && state.sessions.is_empty() {
            std::process::exit(0);
        }
    }

    /// `None`: there is no answer.
    async fn perform(self: &Arc<Self>, words: &[String]) -> Option<Printed> {
        let fault = {
            let mut state = self.state();
            state.history.push(words.to_vec());
            let at = state.faults.iter().position(|fault| words.first() == Some(&fault.on));
            at.map(|at| {
                let fault = state.faults[at].clone();
                state.faults[at].times -= 1;
                if state.faults[at].times == 0 {
                    state.faults.remove(at);
                }
                fault
            })
        };
        let Some(fault) = fault else { return Some(self.obeyed(words)) };
        tokio::time::sleep(Duration::from_millis(fault.milliseconds)).await;
        match fault.what {
            Wrong::Fail => Some(Err(fault.text)),
            Wrong::Hang => None,
            Wrong::Delay => Some(self.obeyed(words)),
            Wrong::Garbage => self.obeyed(words).map(|_| fault.text).into(),
            Wrong::Lose => {
                let _ = self.obeyed(words);
                None
            }
        }
    }

    fn obeyed(self: &Arc<Self>, words: &[String]) -> Printed {
        let command = options::parse(words)?;
        match command.name.as_str() {
            "create-session" => self.create(&command),
            "close-session" => self.with(&command.id, |state, id| {
                if let Some(mut session) = state.sessions.remove(id) {
                    session.end();
                }
                Ok(String::new())
            }),
            "list-sessions" => {
                let state = self.state();
                let listed: Vec<&Session> = state.sessions.values().filter(|session| session.is_listed()).collect();
                Ok(output::sessions(&listed, state.style, command.has("json")))
            }
            "describe-session" => self.with(&command.id, |state, id| {
                Ok(output::printed(&output::described(&state.sessions[id], state.style)))
            }),
            "list-connections" => self.with(&command.id, |state, id| Ok(output::connections(&state.sessions[id]))),
            "set-permissions" => self.set_permissions(&command),
            "get-screenshot" => self.with(&command.id, |_, _| screenshot(&command)),
            _ if command.has("json") => Ok(output::printed(&json!({"version": "2024.0.19030"}))),
            _ => Ok("Amazon DCV 2024.0 (r19030)\n".to_owned()),
        }
    }

    fn with(&self, id: &str, act: impl FnOnce(&mut State, &str) -> Printed) -> Printed {
        let mut state = self.state();
        if !state.sessions.get(id).is_some_and(Session::is_listed) {
            return Err(format!("Session {id} not found"));
        }
        act(&mut state, id)
    }

    fn create(self: &Arc<Self>, command: &Command) -> Printed {
        let refused = |reason: &str| Err(format!("Could not create session. {reason}"));
        let is_console = match command.option("type") {
            Some("console") => true,
            None | Some("virtual") => false,
            Some(other) => return refused(&format!("Unknown type {other}")),
        };
        if is_console && ["user", "gl", "init"].iter().any(|option| command.has(option)) {
            return refused("An option is for virtual sessions only");
        }
        if command.option("gl").is_some_and(|value| !["on", "off"].contains(&value)) {
            return refused("--gl is on or off");
        }
        let name = command.option("name").unwrap_or_default();
        if name.chars().count() > 256 {
            return refused("The name is too long");
        }
        let owner = command.option("owner").unwrap_or("root");
        let user = if is_console { "dcv" } else { command.option("user").unwrap_or("root") };
        let runs_as = if is_console { owner } else { user };
        let Some(account) = session::account(runs_as) else { return refused("Specified user is not a local user") };
        let permissions = match command.option("permissions-file").map(fs::read_to_string).transpose() {
            Ok(permissions) => permissions,
            Err(error) => return refused(&format!("The permissions file cannot be read: {error}")),
        };
        let max_clients = match command.option("max-concurrent-clients").map(str::parse::<i64>).transpose() {
            Ok(limit) => limit.and_then(|limit| usize::try_from(limit).ok()),
            Err(_) => return refused("--max-concurrent-clients is a number"),
        };
        let mut state = self.state();
        if state.sessions.contains_key(&command.id) {
            return refused("A session of this id already exists");
        }
        if state.sessions.values().any(|other| other.is_console || is_console) {
            return refused("Console and virtual sessions cannot be mixed");
        }
        let display = if is_console { String::new() } else { format!(":{}", state.displays + 1) };
        let init = command.option("init");
        if init.is_some_and(|init| !fs::metadata(init).is_ok_and(|file| file.permissions().mode() & 0o111 != 0)) {
            return refused("The init script cannot be executed");
        }
        let desktop = init.map(|init| session::start_desktop(init, user, &account, &display)).transpose();
        let desktop = match desktop {
            Ok(desktop) => desktop,
            Err(error) => return refused(&format!("The init script cannot be started: {error}")),
        };
        state.displays += 1;
        let serial = state.displays;
        let next = std::mem::take(&mut state.next);
        // A folder that is not there disables storage, and nobody is told.
        let storage = command.option("storage-root").unwrap_or_default().replace("%home%", &account.home);
        let group = desktop.as_ref().and_then(tokio::process::Child::id).and_then(|id| i32::try_from(id).ok());
        let session = Session {
            serial,
            id: command.id.clone(),
            owner: owner.to_owned(),
            user: user.to_owned(),
            uid: account.uid,
            name: name.to_owned(),
            is_console,
            storage_root: if Path::new(&storage).is_dir() { storage } else { String::new() },
            permissions,
            max_clients,
            creation_time: now(),
            last_disconnection_time: None,
            connections: BTreeMap::new(),
            display,
            appears: session::after(next.appears),
            has_display: session::after(next.shows),
            desktop: group.map(nix::unistd::Pid::from_raw),
        };
        state.sessions.insert(command.id.clone(), session);
        drop(state);
        self.follow(command.id.clone(), serial, desktop, next.dies);
        Ok(String::new())
    }

    /// A session ends with its desktop, or when it is to.
    fn follow(self: &Arc<Self>, id: String, serial: u32, desktop: Option<tokio::process::Child>, dies: Option<u64>) {
        let server = self.clone();
        tokio::spawn(async move {
            let dies = async {
                match dies {
                    Some(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
                    None => std::future::pending().await,
                }
            };
            let ends = async {
                match desktop {
                    Some(mut desktop) => drop(desktop.wait().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = dies => {}
                () = ends => {}
            }
            let mut state = server.state();
            // It may have been closed, and another made under its id.
            if state.sessions.get(&id).is_some_and(|session| session.serial == serial)
                && let Some(mut session) = state.sessions.remove(&id)
            {
                session.end();
            }
        });
    }

    fn set_permissions(&self, command: &Command) -> Printed {
        let id = command.option("session").ok_or("Missing --session")?;
        let text = match (command.option("file"), command.has("none"), command.has("reset-builtin")) {
            (Some(file), false, false) => {
                Some(fs::read_to_string(file).map_err(|error| format!("The file cannot be read: {error}"))?)
            }
            (None, true, false) => Some(String::new()),
            (None, false, true) => None,
            _ => return Err("One of --file, --none and --reset-builtin is needed".to_owned()),
        };
        self.with(id, |state, id| {
            if let Some(session) = state.sessions.get_mut(id) {
                session.permissions = text;
            }
            Ok(String::new())
        })
    }

    /// One client: who it is, whether it may in, and its stay.
    async fn serve_client(self: Arc<Self>, stream: TcpStream, address: String) {
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), reader.read_line(&mut line)).await;
        let Ok(question) = serde_json::from_str::<Value>(&line) else { return drop(read) };
        let text = |key: &str| question[key].as_str().unwrap_or_default().to_owned();
        let (id, token) = (text("sessionId"), text("authToken"));
        let connected = self.connect(&id, &token, &address).await;
        let answer = match &connected {
            Ok((_, user)) => json!({"user": user}),
            Err(reason) => json!({"refused": reason}),
        };
        let _ = writer.write_all(format!("{answer}\n").as_bytes()).await;
        let Ok((number, _)) = connected else { return };
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        if let Some(session) = self.state().sessions.get_mut(&id)
            && session.connections.remove(&number).is_some()
        {
            session.last_disconnection_time = Some(now());
        }
    }

    async fn connect(&self, id: &str, token: &str, address: &str) -> Result<(u64, String), String> {
        if !self.state().sessions.contains_key(id) {
            return Err(format!("The sessionId {id} is not available"));
        }
        let configuration = verifier::read_configuration(&self.configuration);
        let user = verifier::ask(&configuration, id, token, address).await?;
        let mut state = self.state();
        state.connections += 1;
        let number = state.connections;
        let session = state.sessions.get_mut(id).ok_or("The session has ended")?;
        if !session.admits(&user) {
            return Err(format!("{user} has no permission to see this session"));
        }
        if session.max_clients.is_some_and(|most| session.connections.len() >= most) {
            return Err("The session has as many clients as it may".to_owned());
        }
        let connection = Connection { user: user.clone(), address: address.to_owned(), time: now() };
        session.connections.insert(number, connection);
        Ok((number, user))
    }
}

#[expect(clippy::disallowed_methods, reason = "a server has no context to take the time from")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A picture of two screens side by side, or of the first. Its ratio is kept only when one bound is given.
fn screenshot(command: &Command) -> Printed {
    let format = match command.option("format").map(str::to_ascii_uppercase).as_deref() {
        None | Some("PNG") => ImageFormat::Png,
        Some("JPEG") => ImageFormat::Jpeg,
        Some(other) => return Err(format!("Unknown format {other}")),
    };
    let (full_width, full_height) = (if command.has("primary") { 960 } else { 1920 }, 540);
    let bound = |name: &str, full: u32| match command.option(name).map(str::parse::<u32>) {
        None => Ok(None),
        Some(Ok(0) | Err(_)) => Err(format!("--{name} is a number")),
        Some(Ok(pixels)) => Ok((pixels < full).then_some(pixels)),
    };
    let (width, height) = match (bound("max-width", full_width)?, bound("max-height", full_height)?) {
        (Some(width), None) => (width, (full_height * width / full_width).max(1)),
        (None, Some(height)) => ((full_width * height / full_height).max(1), height),
        (width, height) => (width.unwrap_or(full_width), height.unwrap_or(full_height)),
    };
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        let part = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap_or(u8::MAX);
        image::Rgb([part(x, width), part(y, height), 90])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture).write_to(&mut bytes, format).map_err(|error| error.to_string())?;
    if !command.has("json") {
        return Err("Only --json is offered".to_owned());
    }
    let word = if format == ImageFormat::Png { "png" } else { "jpeg" };
    Ok(output::printed(&json!({"format": word, "base64": STANDARD.encode(bytes.into_inner())})))
}
