//! A desktop in a browser, as several tests use it.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::browser::Look;
use crate::rest::LoggedIn;
use crate::session::Sessions;
use crate::stand::Stand;
use crate::unique;

/// Whether a desktop is there and painted: a window manager and a terminal have many colours and much that is not black.
pub fn is_painted(look: &Look) -> bool {
    look.width >= 640 && look.height >= 480 && look.colours >= 16 && look.painted > 0.2
}

/// Clicks into the terminal, types a command that makes a file in ann's home, and waits for the file.
///
/// # Panics
/// When it does not appear.
pub async fn type_a_file(browser: &mut Browser) {
    for _ in 0..10 {
        // The terminal is near the left upper corner.
        browser.click(240, 200).await;
        if is_heard(browser).await {
            return;
        }
        // What is typed before the terminal has its shell is lost: again.
    }
    let picture = browser.screenshot("not-typed").await;
    panic!("what was typed made no file ({})", picture.display());
}

/// Types a command that makes a file in ann's home, without a click. Whether the file appears within two seconds.
pub async fn is_heard(browser: &mut Browser) -> bool {
    let word = unique("typed");
    let file = Path::new("/home/ann").join(&word);
    browser.type_line(&format!("echo {word} | tee {word}")).await;
    for _ in 0..40 {
        if std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == word) {
            std::fs::remove_file(&file).expect("the file can be removed");
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// A READY desktop with a terminal, its id, and a client that may connect to it.
pub async fn desktop(stand: &Stand, word: &str) -> (Sessions, String, LoggedIn) {
    let sessions = stand.namespace(word).await;
    sessions.create("desk", &json!({"initFile": "script.sh", "autorunFile": "script.sh"})).await;
    let id = sessions.until_ready("desk").await.id().to_owned();
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    (sessions, id, rest)
}
