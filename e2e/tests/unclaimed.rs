//! Restores: of etcd, and of objects that come again with other uids, in the same cluster and in a new one as `docs/backup.md`
//! tells it; and finalizers that were taken off by hand. No desktop ends by any of it, each is listed, and each can be taken over.

use std::fs;
use std::path::Path;

use dcv_operator::api::server::OtherSession;
use dcv_operator::api::server::SessionOrigin;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::document::Terminal;
use e2e::document::blocks_for;
use e2e::eventually;
use e2e::host;
use e2e::host::Process;
use e2e::rest::Rest;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::state_reason;
use e2e::stand::root;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::Patch;
use kube::api::PatchParams;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

/// A desktop that people use, and its X server.
struct Desktop {
    name: String,
    session: DcvSession,
    x_server: Process,
}

impl Desktop {
    /// A READY desktop; its host has noted that people know of it.
    async fn start(stand: &Stand, sessions: &Sessions, name: &str) -> Self {
        sessions.create(name, &json!({})).await;
        let session = sessions.until_ready(name).await;
        let state = host::session_folder(&stand.server(1), session.id()).join("state.json");
        eventually("the host to have noted that the session is READY", seconds(20), async || {
            let state: Value = serde_json::from_slice(&fs::read(&state).map_err(|error| error.to_string())?)
                .map_err(|error| error.to_string())?;
            if state["announced"] == true { Ok(()) } else { Err(state.to_string()) }
        })
        .await;
        let x_server = host::x_servers_of(session.id()).pop().expect("it has a desktop");
        Self { name: name.to_owned(), session, x_server }
    }

    fn id(&self) -> &str {
        self.session.id()
    }

    fn assert_lives(&self) {
        assert!(host::is_alive(self.x_server.pid), "the desktop of {} has ended", self.name);
    }

    /// Takes its object away as by hand: the finalizer first, then the object.
    async fn strip(&self, sessions: &Sessions) {
        let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        sessions.api.patch(&self.name, &PatchParams::default(), &bare).await.expect("an administrator does so");
        sessions.api.delete(&self.name, &DeleteParams::default()).await.expect("an administrator does so");
        sessions.until_gone(&self.session).await;
    }

    /// Waits until the server lists it as unclaimed.
    async fn until_listed(&self, stand: &Stand) -> OtherSession {
        let id = self.id();
        eventually(&format!("{} to be listed as unclaimed", self.name), seconds(90), async || {
            let server = stand.servers().get(&stand.server(1)).await.map_err(|error| error.to_string())?;
            let others = server.status.map(|status| status.other_sessions).unwrap_or_default();
            let found = others.iter().find(|other| other.id == id).cloned();
            found.ok_or_else(|| format!("{others:?}"))
        })
        .await
    }

    /// Its session is READY, and it is the desktop that it was.
    async fn until_claimed_by(&self, sessions: &Sessions, name: &str) -> DcvSession {
        let claimed = sessions.until_ready(name).await;
        assert_eq!(claimed.id(), self.id(), "{}", state_reason(&claimed));
        assert_eq!(host::x_servers_of(self.id()), std::slice::from_ref(&self.x_server), "it is another desktop");
        claimed
    }

    /// A new session takes it over, and ends it when it is deleted.
    async fn claim(&self, stand: &Stand, sessions: &Sessions, name: &str) {
        let other = self.until_listed(stand).await;
        assert_eq!((other.origin, other.owner.as_str()), (SessionOrigin::Unclaimed, "ann"));
        assert_eq!(other.session_name.as_deref(), Some(self.name.as_str()));
        let adopt = json!({"adopt": {"serverName": stand.server(1), "sessionId": self.id()}});
        sessions.create(name, &adopt).await;
        self.until_claimed_by(sessions, name).await;
        sessions.delete(name).await;
        eventually("nothing of it to be left", seconds(20), async || {
            let remains = host::remains_of(&stand.server(1), self.id());
            if remains.is_empty() { Ok(()) } else { Err(format!("{remains:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn desktops_whose_objects_are_restored_with_other_uids_live_and_can_be_claimed() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("restore").await;
    let desktops =
        [Desktop::start(&stand, &sessions, "restored").await, Desktop::start(&stand, &sessions, "lost").await];
    let agent = stand.role("agent-1").kill().await;
    for desktop in &desktops {
        desktop.strip(&sessions).await;
    }
    // As a restore does it: the same name and spec, another uid. The other one never comes back.
    let anew = sessions.create("restored", &json!({})).await;
    assert_ne!(anew.uid(), desktops[0].session.uid());
    agent.restart().await;
    // The new object gets a desktop of its own, beside the old one, which stays.
    let anew = sessions.until_ready("restored").await;
    assert_ne!(anew.id(), desktops[0].id());
    for desktop in &desktops {
        desktop.until_listed(&stand).await;
        desktop.assert_lives();
    }
    // Nor does a restart of the agent end any.
    stand.role("agent-1").kill_and_restart().await;
    for desktop in &desktops {
        desktop.until_listed(&stand).await;
        desktop.assert_lives();
    }
    for desktop in &desktops {
        desktop.claim(&stand, &sessions, "claim").await;
    }
    sessions.delete_namespace().await;
}

/// A terminal of an administrator.
fn terminal(stand: &Stand) -> Terminal {
    let programs = [stand.folder().join("cluster/bin"), root().join("target/debug")];
    Terminal::open(&programs, Path::new(stand.setting("KUBECONFIG")))
}

/// What the page tells to type, for one namespace.
fn backup_blocks(namespace: &str) -> Vec<String> {
    let blocks = blocks_for("docs/backup.md", "e2e/tests/unclaimed.rs").into_iter();
    blocks.map(|block| block.text.replace("--all-namespaces", &format!("--namespace {namespace}"))).collect()
}

#[tokio::test]
async fn after_a_restore_of_etcd_sessions_have_their_desktops_again() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("etcd").await;
    let kept = Desktop::start(&stand, &sessions, "kept").await;
    let closed = Desktop::start(&stand, &sessions, "closed").await;
    stand.save_etcd().await;
    sessions.delete("closed").await;
    sessions.until_gone(&closed.session).await;
    let later = Desktop::start(&stand, &sessions, "later").await;

    stand.restore_etcd().await;
    let again = kept.until_claimed_by(&sessions, "kept").await;
    assert_eq!((again.uid(), again.attempt()), (kept.session.uid(), 1));
    let ended = sessions.until_finished("closed").await;
    assert_eq!(condition(&ended, "Finished"), "True/EndedOnHost", "{}", state_reason(&ended));
    later.assert_lives();
    later.claim(&stand, &sessions, "claim").await;
    kept.assert_lives();
    sessions.delete_namespace().await;
}

#[tokio::test]
async fn a_new_cluster_ends_no_desktop_and_each_can_be_claimed_there() {
    let stand = Stand::vnc().await;
    let sessions = stand.namespace("old-cluster").await;
    let namespace = sessions.namespace.clone();
    let desktop = Desktop::start(&stand, &sessions, "desk").await;
    let by_command = Desktop::start(&stand, &sessions, "to-be-ended").await;
    let saved = Desktop::start(&stand, &sessions, "saved").await;
    let portal = stand.rest_client(&namespace, json!({})).await;
    let [save, restore] = &backup_blocks(&namespace)[..] else { panic!("one block saves, one restores") };
    let mut terminal = terminal(&stand);
    terminal.run(save).await;
    // The others are restored without their objects.
    terminal
        .run("jq 'select(.metadata.name == \"saved\")' sessions.json >saved.json; mv saved.json sessions.json")
        .await;
    stand.lose_cluster().await;
    desktop.assert_lives();

    let stand = Stand::vnc().await;
    let other = desktop.until_listed(&stand).await;
    assert_eq!(other.namespace.as_deref(), Some(namespace.as_str()), "where it was");
    desktop.assert_lives();
    // Nothing here has the name of that namespace; where it has, that is no claim either.
    let again = serde_json::from_value(json!({"metadata": {"name": namespace}})).expect("a namespace is a name");
    Api::<Namespace>::all(stand.client()).create(&PostParams::default(), &again).await.expect("it can be made");
    let old_sessions = Sessions::new(stand.client(), &namespace);
    fs::copy(stand.setting("KUBECONFIG"), terminal.folder().join("kubeconfig")).expect("the kubeconfig can be copied");
    terminal.run(restore).await;
    saved.until_claimed_by(&old_sessions, "saved").await;
    let authority = Path::new(stand.setting("BROKER_CA"));
    let portal = Rest::new(stand.setting("BROKER_URL"), authority, portal.id(), portal.password());
    let portal = eventually("the client to be accepted again", seconds(20), async || portal.log_in().await).await;
    assert!(portal.connection_url(saved.id(), "ann").await.contains(saved.id()), "under the id that it knows");
    old_sessions.delete("saved").await;
    let sessions = stand.namespace("new-cluster").await;
    desktop.claim(&stand, &sessions, "claim").await;

    // An administrator who does not want one ends it.
    by_command.until_listed(&stand).await;
    let (code, printed, said) =
        stand.kubectl_dcv(&["end", &stand.server(1), by_command.id(), "--timeout", "60s"]).await;
    assert_eq!(code, Some(0), "{printed}{said}");
    assert_eq!(printed, format!("session {} on {} ended\n", by_command.id(), stand.server(1)));
    assert!(said.contains(&format!("made for {namespace}/to-be-ended")), "{said}");
    assert_eq!(host::remains_of(&stand.server(1), by_command.id()), Vec::<String>::new());
    let server = stand.servers().get(&stand.server(1)).await.expect("the server is there");
    assert_eq!(server.spec.end_sessions, Vec::<String>::new(), "the request is gone with it");
    sessions.delete_namespace().await;
}
