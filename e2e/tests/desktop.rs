//! From a manifest or a REST call to a real desktop in a browser, and what the browser sees when parts end.

use std::collections::BTreeSet;
use std::path::Path;

use e2e::Stand;
use e2e::browser::Browser;
use e2e::desktop::desktop;
use e2e::desktop::is_painted;
use e2e::desktop::type_a_file;
use e2e::eventually;
use e2e::host;
use e2e::seconds;
use e2e::stand::root;
use e2e::unique;
use serde_json::json;

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
    let connections = async |count: i32| {
        let status = sessions.until("desk", format!("used by {count}"), |session| {
            session.status.as_ref().is_some_and(|status| status.num_of_connections == Some(count))
        });
        let last = status.await.status.and_then(|status| status.last_disconnection_time);
        let told = eventually("the broker to know", seconds(10), async || {
            let told = rest.describe(&id).await.ok_or("no session")?;
            if told["NumOfConnections"] == json!(count) { Ok(told) } else { Err(told.to_string()) }
        });
        assert_eq!(told.await["LastDisconnectionTime"].is_string(), last.is_some());
        last
    };
    assert_eq!(connections(0).await, None);
    let mut browser = Browser::start();
    browser.open(&rest.connection_url(&id, "bob").await).await;
    let before = browser.until("a painted desktop", is_painted).await;
    assert_eq!(connections(1).await, None);
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
    let out = browser.until("that the guest is out", |look| look.text.contains("No access")).await;
    assert_eq!(out.sockets.open, 0, "{out:?}");
    browser.screenshot("no-access").await;
    let left = connections(0).await.expect("the time of the disconnection");
    browser.close().await;

    let mut owner = Browser::start();
    owner.open(&rest.connection_url(&id, "ann").await).await;
    owner.until("a painted desktop", is_painted).await;
    assert_eq!(connections(1).await, Some(left.clone()), "it is that of the last one who left");
    owner.close().await;
    assert!(connections(0).await.is_some_and(|last| last.0 >= left.0));
    sessions.delete_namespace().await;
}

/// Ports on which the processes listen, on whatever address.
fn ports_of(pids: &[i32]) -> BTreeSet<u16> {
    let listing = std::process::Command::new("ss").args(["-Hltnp"]).output().expect("ss can be run");
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let of_them = |line: &&str| pids.iter().any(|pid| line.contains(&format!("pid={pid},")));
    let port = |line: &str| line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok();
    listing.lines().filter(of_them).filter_map(port).collect()
}

#[tokio::test]
async fn a_host_listens_on_nothing_but_the_agents_ports() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "ports").await;
    let url = rest.connection_url(&id, "ann").await;
    let port = url.split('/').nth(2).and_then(|host| host.rsplit_once(':')).expect("an address has a port").1;
    let desktop: Vec<i32> = host::processes_of(&id).iter().map(|process| process.pid).collect();
    assert!(desktop.len() >= 4, "{desktop:?}");
    assert_eq!(ports_of(&desktop), BTreeSet::new(), "of the session");
    let ports = ports_of(&[stand.role("agent-1").pid()]);
    assert!(ports.contains(&port.parse().expect("a port is a number")), "{ports:?} without {port}");
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_link_on_a_page_of_another_site_opens_the_desktop() {
    let stand = Stand::vnc().await;
    let (sessions, id, rest) = desktop(&stand, "portal").await;
    let mut browser = Browser::start();
    let page = browser.follow(&rest.connection_url(&id, "ann").await).await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(!page.url.contains("authToken"), "{page:?}");
    browser.until("a painted desktop", is_painted).await;
    browser.close().await;
    sessions.delete_namespace().await;
}
