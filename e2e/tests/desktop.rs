//! From a manifest or a REST call to a real desktop in a browser, and what the browser sees when parts end.

use std::path::Path;
use std::time::Duration;

use e2e::Stand;
use e2e::browser::Browser;
use e2e::browser::Look;
use e2e::eventually;
use e2e::host;
use e2e::rest::LoggedIn;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::stand::root;
use e2e::unique;
use serde_json::json;

/// Whether a desktop is there and painted: a window manager and a terminal have many colours and much that is not black.
fn is_painted(look: &Look) -> bool {
    look.width >= 640 && look.height >= 480 && look.colours >= 16 && look.painted > 0.2
}

/// Clicks into the terminal, types a command that makes a file in ann's home, and waits for the file.
async fn type_a_file(browser: &mut Browser) {
    let word = unique("typed");
    let file = Path::new("/home/ann").join(&word);
    for _ in 0..10 {
        // The terminal is near the left upper corner.
        browser.click(240, 200).await;
        browser.type_line(&format!("echo {word} | tee {word}")).await;
        for _ in 0..40 {
            if std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == word) {
                std::fs::remove_file(&file).expect("the file can be removed");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What is typed before the terminal has its shell is lost: again.
    }
    let picture = browser.screenshot("not-typed").await;
    panic!("{} did not appear ({})", file.display(), picture.display());
}

/// A READY desktop with a terminal, its id, and a client that may connect to it.
async fn desktop(stand: &Stand, word: &str) -> (Sessions, String, LoggedIn) {
    let sessions = stand.namespace(word).await;
    sessions.create("desk", &json!({"initFile": "script.sh", "autorunFile": "script.sh"})).await;
    let id = sessions.until_ready("desk").await.id();
    let rest = stand.rest_client(&sessions.namespace, json!({})).await.log_in().await.expect("the client logs in");
    (sessions, id, rest)
}

#[tokio::test]
async fn the_demo_prints_an_address_that_opens_a_desktop_one_can_type_into() {
    let stand = Stand::vnc().await;
    let demo = tokio::process::Command::new(root().join("hack/demo")).args(["--name", "e2e-vnc"]).output();
    let demo = demo.await.expect("hack/demo can be run");
    let printed = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{printed}\n{}", String::from_utf8_lossy(&demo.stderr));
    let url = printed.lines().map(str::trim).find(|line| line.starts_with("https://"));
    let url = url.unwrap_or_else(|| panic!("no address in: {printed}"));

    let mut browser = Browser::start();
    let page = browser.open(url).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(!page.url.contains("authToken"), "the token stays in the address: {page:?}");
    let look = browser.until("a painted desktop", is_painted).await;
    assert!(look.complaints.is_empty(), "{look:?}");
    type_a_file(&mut browser).await;
    browser.screenshot("demo").await;
    browser.close().await;
    drop(stand);
}

#[tokio::test]
async fn a_session_by_kubectl_opens_in_a_browser_and_a_reload_needs_no_token() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "kubectl").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "ann").await).await;
    browser.until("a painted desktop", is_painted).await;
    type_a_file(&mut browser).await;
    browser.screenshot("kubectl").await;
    sessions
        .until("desk", "used by one client", |session| {
            session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(1))
        })
        .await;

    let page = browser.reload().await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(!page.url.contains("authToken"), "{page:?}");
    browser.until("a painted desktop after a reload", |look| is_painted(look) && look.sockets.open == 1).await;
    type_a_file(&mut browser).await;
    browser.close().await;
    sessions
        .until("desk", "left by its client", |session| {
            let status = session.status.as_ref();
            status
                .is_some_and(|status| status.num_of_connections == Some(0) && status.last_disconnection_time.is_some())
        })
        .await;
    sessions.delete("desk").await;
    assert_eq!(host::remains_of(&stand.server(1), &id), Vec::<String>::new());
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_session_by_the_steps_of_the_guide_opens_in_a_browser() {
    let stand = Stand::vnc().await;
    let rest = stand.rest().log_in().await.expect("the client of hack/up logs in");
    let asked = json!({"Name": "My desktop", "Owner": "ann", "Type": "VIRTUAL", "InitFile": "script.sh",
        "AutorunFile": "script.sh", "AutorunFileArguments": ["-title", "from REST"], "MaxConcurrentClients": 1});
    let answer = rest.post("/createSessions", &json!([asked])).await;
    assert_eq!((answer.status, answer.unsuccessful().len()), (200, 0), "{answer:?}");
    let made = &answer.successful()[0];
    let id = made["Id"].as_str().expect("a session has an id").to_owned();
    assert_eq!((&made["State"], &made["Substate"]), (&json!("CREATING"), &json!("SESSION_PLACING")), "{made}");

    let ready = rest.until_state(&id, "READY").await;
    assert_eq!(
        (&ready["Name"], &ready["Owner"], &ready["Type"], &ready["NumOfConnections"]),
        (&json!("My desktop"), &json!("ann"), &json!("VIRTUAL"), &json!(0)),
        "{ready}"
    );
    let mut browser = Browser::start();
    let page = browser.open(&rest.connection_url(&id, "ann").await).await;
    assert_eq!(page.status, 200, "{page:?}");
    browser.until("a painted desktop", is_painted).await;
    type_a_file(&mut browser).await;
    browser.screenshot("rest").await;

    // The one place for clients is taken: the page of a second one says so.
    let mut second = Browser::start();
    second.open(&rest.connection_url(&id, "ann").await).await;
    let look = second.until("why it is not let in", |look| look.text.contains("The session is full")).await;
    assert!(!is_painted(&look), "{look:?}");
    second.screenshot("too-many-clients").await;
    second.close().await;

    rest.delete(&id, "ann").await;
    rest.until_state(&id, "DELETED").await;
    eventually("nothing to be left", seconds(10), async || {
        let remains = host::remains_of(&stand.server(1), &id);
        if remains.is_empty() { Ok(()) } else { Err(format!("{remains:?}")) }
    })
    .await;
    browser.close().await;
}

#[tokio::test]
async fn a_page_finds_its_desktop_again_after_the_agent_was_killed() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "reconnect").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "ann").await).await;
    let before = browser.until("a painted desktop", is_painted).await;
    let server = host::x_servers_of(&id);
    assert_eq!(server.len(), 1, "{server:?}");

    let killed = stand.role("agent-1").kill().await;
    browser.until("that it lost its connection", |look| look.sockets.open == 0).await;
    browser.screenshot("agent-killed").await;
    killed.restart().await;
    browser
        .until("the desktop again", |look| {
            is_painted(look) && look.sockets.open == 1 && look.sockets.opened > before.sockets.opened
        })
        .await;
    type_a_file(&mut browser).await;
    browser.screenshot("agent-back").await;
    assert_eq!(host::x_servers_of(&id), server, "the desktop is another one");
    browser.close().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_page_says_that_its_session_ended_and_stays_away() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "ended").await;
    let mut browser = Browser::start_with_clock().await;
    let url = rest.connection_url(&id, "ann").await;
    browser.open(&url).await;
    browser.until("a painted desktop", is_painted).await;
    sessions.delete("desk").await;
    let ended = browser.until("that the session ended", |look| look.text.to_lowercase().contains("ended")).await;
    browser.screenshot("session-ended").await;
    browser.pass(120).await;
    let later = browser.look().await;
    assert_eq!((later.sockets, later.requests), (ended.sockets, ended.requests), "it tried again: {later:?}");
    assert_eq!(browser.reload().await.status, 403);
    assert_eq!(browser.open(&url).await.status, 403, "the token outlived its session");
    browser.close().await;
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn permissions_changed_by_rest_act_at_once_on_a_guest_who_stays_connected() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "permissions").await;
    let permit = async |guest: &str| {
        rest.permit(&id, "ann", &format!("[permissions]\n%owner% allow builtin\n{guest}")).await;
        sessions
            .until("desk", "under the new permissions", |session| {
                let seen = session.status.as_ref().and_then(|status| status.observed_generation);
                seen == session.metadata.generation
            })
            .await;
    };
    permit("bob allow builtin").await;
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "bob").await).await;
    let before = browser.until("a painted desktop", is_painted).await;
    type_a_file(&mut browser).await;

    permit("bob allow display").await;
    let word = unique("unheard");
    browser.click(240, 200).await;
    browser.type_line(&format!("echo {word} | tee {word}")).await;
    permit("bob allow builtin").await;
    // What is typed now comes after what was typed before.
    type_a_file(&mut browser).await;
    assert!(!Path::new("/home/ann").join(&word).exists(), "who may only look has typed");
    let after = browser.look().await;
    assert!(is_painted(&after), "{after:?}");
    assert_eq!(after.sockets, before.sockets, "the guest was disconnected");
    browser.screenshot("permissions").await;

    permit("").await;
    browser.until("that the guest is out", |look| look.sockets.open == 0).await;
    browser.close().await;
    sessions.delete_namespace().await;
}
