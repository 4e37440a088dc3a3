//! A page of headless Chromium, driven by `browser/drive.mjs`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdin;
use tokio::process::ChildStdout;
use tokio::process::Command;

use crate::seconds;
use crate::stand::root;

/// A browser with one page.
pub struct Browser {
    process: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What the page shows.
#[derive(Clone, Debug, Deserialize)]
pub struct Look {
    /// Size of the desktop, 0 when there is none.
    pub width: u32,
    /// Size of the desktop, 0 when there is none.
    pub height: u32,
    /// How many colours the desktop has, at most 10000.
    pub colours: u32,
    /// Which part of its pixels is not black, 0 to 1.
    pub painted: f64,
    /// Text of the page that can be seen.
    pub text: String,
    /// Id of the element that keys go to, or what it is.
    pub focus: String,
    /// Whether the page has the whole screen.
    pub full: bool,
    /// Size at which the desktop is drawn, in pixels of the page.
    pub drawn: (f64, f64),
    /// Address of the page.
    pub url: String,
    /// Its sockets.
    pub sockets: Sockets,
    /// Requests of all pages so far.
    pub requests: u32,
    /// Errors of scripts and of the console, such as a broken content policy.
    pub complaints: Vec<String>,
}

/// Web sockets of all pages so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sockets {
    /// How many were opened.
    pub opened: u32,
    /// How many are open.
    pub open: u32,
}

/// An answer that is a text.
#[derive(Deserialize)]
struct Text {
    text: String,
}

/// A page that was loaded.
#[derive(Clone, Debug, Deserialize)]
pub struct Loaded {
    /// HTTP status, after redirects.
    pub status: u16,
    /// Address, after redirects.
    pub url: String,
}

impl Browser {
    /// Starts one, with a profile of its own.
    pub fn start() -> Self {
        let mut process = Command::new("node")
            .arg(root().join("e2e/browser/drive.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node can be run");
        let commands = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it is a pipe")).lines();
        Self { process, commands, answers }
    }

    /// As [`Browser::start`], with a clock that [`Browser::pass`] can put forward.
    pub async fn start_with_clock() -> Self {
        let mut browser = Self::start();
        let _: Value = browser.ask(json!({"command": "install_clock"})).await;
        browser
    }

    /// Puts the page's clock forward: everything it has put off until then happens now.
    pub async fn pass(&mut self, seconds: u32) {
        let _: Value = self.ask(json!({"command": "pass", "seconds": seconds})).await;
    }

    /// Opens `url` and waits for the page, not for the desktop.
    pub async fn open(&mut self, url: &str) -> Loaded {
        self.ask(json!({"command": "open", "url": url})).await
    }

    /// Opens `url` by a link on a page of another site, as portals do.
    pub async fn follow(&mut self, url: &str) -> Loaded {
        self.ask(json!({"command": "follow", "url": url})).await
    }

    /// Loads the page again.
    pub async fn reload(&mut self) -> Loaded {
        self.ask(json!({"command": "reload"})).await
    }

    /// What the page shows now.
    pub async fn look(&mut self) -> Look {
        self.ask(json!({"command": "look"})).await
    }

    /// Waits until the page looks as `wanted` says, and returns it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Look) -> bool) -> Look {
        match self.until_answer(&json!({"command": "look"}), seconds(30), wanted).await {
            Ok(look) => look,
            Err(last) => {
                let picture = self.screenshot("gave-up").await;
                panic!("the page does not show {what} after 30 s ({}): {last:?}", picture.display());
            }
        }
    }

    /// Waits until the text field `id` holds `text`.
    pub async fn until_value(&mut self, id: &str, text: &str) {
        self.until_text(json!({"command": "value", "id": id}), text).await;
    }

    /// Clicks there, in pixels of the page.
    pub async fn click(&mut self, x: u32, y: u32) {
        let _: Value = self.ask(json!({"command": "click", "x": x, "y": y})).await;
    }

    /// Presses a key or several at once, as in `Control+Alt+Shift`.
    pub async fn press(&mut self, key: &str) {
        let _: Value = self.ask(json!({"command": "press", "key": key})).await;
    }

    /// Gives the window another size.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let _: Value = self.ask(json!({"command": "resize", "width": width, "height": height})).await;
    }

    /// Lets pages use the clipboard, as people are asked to.
    pub async fn allow_clipboard(&mut self) {
        let _: Value = self.ask(json!({"command": "allow_clipboard"})).await;
    }

    /// Waits until the browser's clipboard holds `text`.
    pub async fn until_clipboard(&mut self, text: &str) {
        self.until_text(json!({"command": "read_clipboard"}), text).await;
    }

    async fn until_text(&mut self, command: Value, text: &str) {
        let is_it = |answer: &Text| answer.text == text;
        if let Err(last) = self.until_answer(&command, seconds(15), is_it).await {
            panic!("{command} does not answer {text:?} in 15 s, but {:?}", last.text);
        }
    }

    /// Asks until the answer is as `wanted` says, and returns it; after `limit` the last one is an error.
    async fn until_answer<T: DeserializeOwned>(
        &mut self,
        command: &Value,
        limit: Duration,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T, T> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.ask(command.clone()).await;
            if wanted(&answer) {
                return Ok(answer);
            }
            if Instant::now() >= end {
                return Err(answer);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Content of the text field `id`.
    pub async fn value(&mut self, id: &str) -> String {
        let answer: Text = self.ask(json!({"command": "value", "id": id})).await;
        answer.text
    }

    /// Types `text`, which must be on a US keyboard.
    pub async fn type_text(&mut self, text: &str) {
        let _: Value = self.ask(json!({"command": "type", "text": text})).await;
    }

    /// Types `text`, which must be on a US keyboard, and Enter.
    pub async fn type_line(&mut self, text: &str) {
        self.type_text(text).await;
        self.press("Enter").await;
    }

    /// Stores a picture of the page as `target/e2e/<name>.png`.
    pub async fn screenshot(&mut self, name: &str) -> PathBuf {
        let folder = root().join("target/e2e");
        std::fs::create_dir_all(&folder).expect("target/e2e can be made");
        let path = folder.join(format!("{name}.png"));
        let _: Value = self.ask(json!({"command": "screenshot", "path": path})).await;
        path
    }

    /// Ends it.
    pub async fn close(mut self) {
        // The driver ends with its input.
        self.commands = None;
        let _ = tokio::time::timeout(seconds(10), self.process.wait()).await;
    }

    async fn ask<T: DeserializeOwned>(&mut self, command: Value) -> T {
        let line = format!("{command}\n");
        let commands = self.commands.as_mut().expect("only close takes it");
        commands.write_all(line.as_bytes()).await.expect("the driver takes commands");
        let answer = tokio::time::timeout(seconds(60), self.answers.next_line()).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {command} in 60 s"));
        let answer = answer.expect("answers are text").expect("the driver runs");
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{command} answered {answer}"));
        assert!(answer.get("error").is_none(), "{command}: {}", answer["error"]);
        serde_json::from_value(answer.clone()).unwrap_or_else(|error| panic!("{command} answered {answer}: {error}"))
    }
}
