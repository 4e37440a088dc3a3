//! The page of a session in a real browser: by keyboard alone, clipboard, sizes, and when it tries again.

use std::process::Stdio;

use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::browser::Browser;
use e2e::browser::Look;
use e2e::desktop::desktop;
use e2e::desktop::is_heard;
use e2e::desktop::is_painted;
use e2e::desktop::type_a_file;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::unique;
use tokio::process::Command;

/// A command of ann's on the display of session `id`.
fn on_display(stand: &Stand, id: &str, program: &[&str]) -> Command {
    let folder = host::session_folder(&stand.server(1), id);
    let state = std::fs::read(folder.join("host.json")).expect("the session host has its file");
    let state: serde_json::Value = serde_json::from_slice(&state).expect("it is JSON");
    let mut command = Command::new("runuser");
    command.args(["-u", "ann", "--"]).args(program);
    command.env("DISPLAY", format!(":{}", state["display"])).env("XAUTHORITY", folder.join("s/xauth"));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// What the clipboard of the desktop holds.
async fn clipboard_of(stand: &Stand, id: &str) -> String {
    let output = on_display(stand, id, &["xclip", "-o", "-selection", "clipboard"]).output().await;
    String::from_utf8_lossy(&output.expect("xclip can be run").stdout).into_owned()
}

/// Copies `text` in the desktop.
async fn copy_in(stand: &Stand, id: &str, text: &str) {
    let script = r#"printf %s "$1" | xclip -i -selection clipboard"#;
    let mut command = on_display(stand, id, &["sh", "-c", script, "copy", text]);
    assert!(command.stdout(Stdio::null()).status().await.expect("xclip can be run").success());
}

#[tokio::test]
async fn everything_is_reached_by_keyboard_alone() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "keyboard").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "ann").await).await;
    let look = browser.until("a desktop that has the keys", |look| is_painted(look) && look.focus == "canvas").await;
    assert!(look.text.contains("Ctrl+Alt+Shift"), "how to leave is said: {look:?}");
    browser.screenshot("page-greeting").await;
    // The window manager has given the keys to the terminal once, by a click; from here on there is none.
    type_a_file(&mut browser).await;

    browser.press("Control+Alt+Shift").await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(browser.look().await.focus);
        browser.press("Tab").await;
    }
    assert_eq!(order, ["fit", "clipboard", "keys", "full"]);
    browser.press("Control+Alt+Shift").await;
    assert_eq!(browser.look().await.focus, "fit", "it leads there from anywhere");
    browser.screenshot("page-bar").await;
    browser.press("Escape").await;
    assert_eq!(browser.look().await.focus, "canvas");
    assert!(is_heard(&mut browser).await, "no modifier is stuck in the desktop");

    browser.press("Control+Alt+Shift").await;
    browser.press("Tab").await;
    browser.press("Enter").await;
    browser.until("the dialog", |look| look.text.contains("Text copied in the desktop")).await;
    browser.screenshot("page-clipboard").await;
    browser.press("Escape").await;
    browser.until("the desktop has the keys again", |look| look.focus == "canvas").await;

    for full in [true, false] {
        browser.press("Control+Alt+Shift").await;
        for _ in 0..3 {
            browser.press("Tab").await;
        }
        browser.press("Enter").await;
        browser.until("the whole screen, or the window", |look| look.full == full && look.focus == "canvas").await;
    }
    assert!(is_heard(&mut browser).await);
    assert!(browser.look().await.complaints.is_empty());
    browser.close().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn the_desktop_fits_the_window_or_is_scaled_to_it() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "size").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "ann").await).await;
    browser.until("a desktop of the window's size", |look| (look.width, look.height) == (1280, 800)).await;
    browser.resize(1000, 700).await;
    browser.until("a desktop that follows the window", |look| (look.width, look.height) == (1000, 700)).await;
    browser.press("Control+Alt+Shift").await;
    browser.press("Enter").await;
    browser.resize(800, 400).await;
    let is_scaled = |look: &Look| (look.drawn.1 - 400.0).abs() < 2.0 && (look.drawn.0 - 400.0 * 10.0 / 7.0).abs() < 2.0;
    let look = browser.until("a picture of it in the smaller window", is_scaled).await;
    assert_eq!((look.width, look.height), (1000, 700), "the desktop itself stays");
    browser.screenshot("page-scaled").await;
    browser.close().await;

    // Who may only look does not change the size of what others see.
    let file = "[permissions]\n%owner% allow builtin\nbob allow display";
    rest.permit(&id, "ann", file).await;
    let mut guest = Browser::start();
    guest.open(&rest.connection_url(&id, "bob").await).await;
    let look = guest.until("a painted desktop", is_painted).await;
    assert_eq!((look.width, look.height), (1000, 700));
    guest.close().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn text_is_exchanged_both_ways_as_far_as_the_rights_go() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "clipboard").await;
    let mut owner = Browser::start();
    owner.allow_clipboard().await;
    owner.open(&rest.connection_url(&id, "ann").await).await;
    owner.until("a painted desktop", is_painted).await;
    let words = unique("grüße-世界");
    copy_in(&stand, &id, &words).await;
    owner.until_value("words", &words).await;
    owner.until_clipboard(&words).await;
    // By the dialog, as where a browser keeps its clipboard to itself.
    owner.press("Control+Alt+Shift").await;
    owner.press("Tab").await;
    owner.press("Enter").await;
    let back = unique("written-here");
    owner.press("Control+a").await;
    owner.type_text(&back).await;
    owner.press("Tab").await;
    owner.press("Enter").await;
    eventually("what was written in the desktop", seconds(10), async || {
        let found = clipboard_of(&stand, &id).await;
        if found == back { Ok(()) } else { Err(found) }
    })
    .await;

    let allow = async |features: &str| {
        let file = format!("[permissions]\n%owner% allow builtin\nbob allow display mouse keyboard {features}");
        rest.permit(&id, "ann", &file).await;
        let seen = |session: &DcvSession| {
            session.status.as_ref().and_then(|status| status.observed_generation) == session.metadata.generation
        };
        sessions.until("desk", "under the new permissions", seen).await;
    };
    allow("").await;
    let mut guest = Browser::start();
    guest.open(&rest.connection_url(&id, "bob").await).await;
    guest.until("a painted desktop", is_painted).await;
    type_a_file(&mut guest).await;
    let send = async |guest: &mut Browser, text: &str| {
        guest.press("Control+Alt+Shift").await;
        guest.press("Tab").await;
        guest.press("Enter").await;
        guest.press("Control+a").await;
        guest.type_text(text).await;
        guest.press("Tab").await;
        guest.press("Enter").await;
        guest.until("the desktop has the keys again", |look| look.focus == "canvas").await;
    };
    let kept = unique("kept");
    copy_in(&stand, &id, &kept).await;
    send(&mut guest, &unique("smuggled-in")).await;
    // What is typed arrives after what was sent before it.
    assert!(is_heard(&mut guest).await, "the guest's keys");
    assert_eq!(clipboard_of(&stand, &id).await, kept, "taken away or replaced by who may not paste");
    let secret = unique("secret");
    copy_in(&stand, &id, &secret).await;
    // The owner has it, so it has been sent out to everybody who may have it.
    owner.until_value("words", &secret).await;
    assert!(is_painted(&guest.look().await));
    assert_ne!(guest.value("words").await, secret);
    // To copy takes no more than its own right.
    allow("clipboard-copy").await;
    let shown = unique("shown");
    copy_in(&stand, &id, &shown).await;
    guest.until_value("words", &shown).await;

    // The same connection, with the rights.
    allow("clipboard-copy clipboard-paste").await;
    let late = unique("for-all");
    copy_in(&stand, &id, &late).await;
    guest.until_value("words", &late).await;
    let given = unique("given");
    send(&mut guest, &given).await;
    eventually("what the guest has given", seconds(10), async || {
        let found = clipboard_of(&stand, &id).await;
        if found == given { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(guest.look().await.sockets.opened, 1);
    guest.close().await;
    owner.close().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_page_that_lost_its_agent_asks_ever_less_often_and_says_what_it_does() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "backoff").await;
    let mut browser = Browser::start_with_clock().await;
    browser.open(&rest.connection_url(&id, "ann").await).await;
    browser.until("a painted desktop", is_painted).await;
    let killed = stand.role("agent-1").kill().await;
    let lost = browser.until("that it lost its connection", |look| look.text.contains("Connection lost")).await;
    assert_eq!(lost.focus, "again", "what can be done has the keys: {lost:?}");
    // By the page's clock two minutes, second by second.
    let mut asked = vec![lost.requests];
    for _ in 0..4 {
        for _ in 0..30 {
            browser.pass(1).await;
        }
        asked.push(browser.look().await.requests);
    }
    let asked: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((3..=12).contains(&asked[0]), "{asked:?}");
    assert!(asked[1..].iter().all(|count| (1..=5).contains(count)), "ever less often, and never no more: {asked:?}");
    browser.screenshot("page-lost").await;
    killed.restart().await;
    // Somebody who does not want to wait.
    browser.press("Enter").await;
    browser.until("the desktop again", |look| is_painted(look) && look.sockets.open == 1).await;
    type_a_file(&mut browser).await;
    browser.close().await;
    sessions.delete_namespace().await;
}
