//! `kubectl dcv connect`: the address it prints, and a native viewer on a real desktop.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::session::Sessions;
use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;
use tokio::process::Child;
use tokio::process::Command;

/// Somebody with a READY desktop `desk`, and a client of the broker.
struct Person {
    stand: Stand,
    sessions: Sessions,
    credentials: [(&'static str, String); 2],
}

impl Person {
    async fn with_desktop(word: &str) -> Self {
        let stand = Stand::vnc().await;
        let sessions = stand.namespace(word).await;
        sessions.create("desk", &json!({"initFile": "script.sh", "autorunFile": "script.sh"})).await;
        sessions.until_ready("desk").await;
        let register = ["clients", "register", "person", "-n", &sessions.namespace, "-o", "json"];
        let (code, printed, said) = stand.kubectl_dcv(&register).await;
        assert_eq!(code, Some(0), "{said}");
        let made: Value = serde_json::from_str(&printed).expect("it is JSON");
        let text = |name: &str| made[name].as_str().expect("it is text").to_owned();
        let credentials = [("DCV_SM_CLIENT_ID", text("clientId")), ("DCV_SM_CLIENT_PASSWORD", text("clientPassword"))];
        let person = Self { stand, sessions, credentials };
        eventually("the client to be accepted", seconds(20), async || {
            let output = person.connect(&[]).output().await.map_err(|error| error.to_string())?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        })
        .await;
        person
    }

    /// `kubectl dcv connect desk` with these flags, yet to be run.
    fn connect(&self, flags: &[&str]) -> Command {
        let namespace = &self.sessions.namespace;
        let (broker, ca) = (self.stand.setting("BROKER_URL"), self.stand.setting("BROKER_CA"));
        let words = ["connect", "desk", "-n", namespace, "--broker", broker, "--ca-bundle", ca];
        let mut command = self.stand.dcv_command(&[&words, flags].concat());
        command.envs(self.credentials.clone()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn until_connected(&self, number: i32) {
        let is_so = |session: &DcvSession| {
            session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(number))
        };
        self.sessions.until("desk", format!("used by {number}"), is_so).await;
    }
}

/// Folders of viewers' sockets.
fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).expect("it can be read").flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("kubectl-dcv-"));
    ours.map(|entry| entry.path()).collect()
}

/// An X server for the viewer's window.
struct Screen {
    _server: Child,
    display: String,
}

impl Screen {
    async fn start() -> Self {
        // One that nobody has: those of sessions are found from 0 on.
        let display = format!(":{}", 7000 + std::process::id() % 1000);
        let server = Command::new("Xtigervnc")
            .args([&display, "-rfbport", "-1", "-SecurityTypes", "None", "-geometry", "1024x768", "-nolisten", "tcp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Xtigervnc is installed");
        let socket = Path::new("/tmp/.X11-unix").join(display.replace(':', "X"));
        eventually("the screen to be there", seconds(20), async || {
            if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) }
        })
        .await;
        Self { _server: server, display }
    }

    /// How many colours are on it.
    async fn colours(&self) -> u32 {
        let output = Command::new("import")
            .args(["-display", &self.display, "-window", "root", "-format", "%k", "info:-"])
            .output()
            .await
            .expect("ImageMagick is installed");
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    }
}

#[tokio::test]
async fn the_address_that_is_printed_lets_its_holder_in() {
    let person = Person::with_desktop("address").await;
    let output = person.connect(&[]).output().await.expect("the plugin is built");
    let printed = String::from_utf8(output.stdout).expect("it is text");
    let id = person.sessions.api.get("desk").await.expect("it is there").id().to_owned();
    assert!(printed.starts_with("https://127.0.0.1:") && printed.ends_with(&format!("#{id}\n")), "{printed}");
    let http = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let answer = http.get(printed.trim()).send().await.expect("the agent answers");
    assert_eq!(answer.status().as_u16(), 303);

    // Somebody whom the permissions do not name has an address, and is not let in: that is the session's business.
    let output = person.connect(&["--user", "bob", "--viewer=/bin/true"]).output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    // Not found in the cluster, and no broker asked.
    let (code, _, said) = person.stand.kubectl_dcv(&["connect", "absent", "-n", &person.sessions.namespace]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("\"absent\" not found"), "{said}");
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_native_viewer_shows_the_desktop_and_leaves_nothing_behind() {
    let person = Person::with_desktop("viewer").await;
    let screen = Screen::start().await;
    let before = folders();
    let mut viewing = person.connect(&["--viewer"]).env("DISPLAY", &screen.display).spawn().expect("it runs");
    person.until_connected(1).await;
    eventually("the viewer to show the desktop", seconds(30), async || match screen.colours().await {
        colours if colours >= 16 => Ok(()),
        colours => Err(format!("{colours} colours")),
    })
    .await;
    let made: Vec<_> = folders().into_iter().filter(|folder| !before.contains(folder)).collect();
    let [folder] = made.as_slice() else { panic!("one folder for the socket: {made:?}") };
    let socket = folder.join("vnc.sock").display().to_string();
    let viewers = host::processes_of(&socket);
    assert_eq!(viewers.len(), 1, "{viewers:?}");
    assert!(!viewers[0].command.contains("ey"), "the token is in the viewer's arguments: {viewers:?}");
    let rights = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder).expect("it is there").permissions());
    assert_eq!(rights & 0o777, 0o700);

    let pid = viewing.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    host::signal(pid, Signal::SIGINT);
    let ended = tokio::time::timeout(seconds(15), viewing.wait()).await.expect("it ends").expect("it is ours");
    assert_eq!(ended.code(), Some(130));
    assert!(!folder.exists() && host::processes_of(&socket).is_empty());
    person.until_connected(0).await;
    let left = person.sessions.api.get("desk").await.expect("it is there").status.expect("it has one");
    assert!(left.last_disconnection_time.is_some());
    person.sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_viewer_is_told_when_its_session_ends() {
    let person = Person::with_desktop("ended").await;
    let screen = Screen::start().await;
    let viewing = person.connect(&["--viewer"]).env("DISPLAY", &screen.display).spawn().expect("it runs");
    person.until_connected(1).await;
    let (pid, desk) = (viewing.id(), person.sessions.api.get("desk").await.expect("it is there"));
    person.sessions.delete("desk").await;
    assert_eq!(host::remains_of(&person.stand.server(1), desk.id()), Vec::<String>::new());
    // A viewer may keep its window open to say so: then the person closes it.
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).expect("it was started");
    tokio::time::sleep(seconds(2)).await;
    host::signal(pid, Signal::SIGINT);
    let output = tokio::time::timeout(seconds(15), viewing.wait_with_output()).await.expect("it ends");
    let said = String::from_utf8_lossy(&output.expect("it is ours").stderr).into_owned();
    assert!(said.contains("the session has ended"), "{said}");
    person.sessions.delete_namespace().await;
}
