//! `kubectl dcv drain`: closes a server and waits until nothing is on it, saying what it waits for.
//!
//! That nothing is on it is told only once its agent has said that it knows: from then on it begins nothing, and what was
//! bound to it meanwhile is in the list that is read afterwards.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::pin::pin;

use jiff::SignedDuration;
use jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::LOOK_INTERVAL;
use super::args::Drain;
use super::change;
use super::qualified;
use crate::api::DcvServer;
use crate::api::DcvSession;
use crate::api::conditions;
use crate::api::conditions::Reason;
use crate::api::conditions::SessionCondition;
use crate::api::server::OtherSession;
use crate::api::server::Placement;
use crate::api::server::SessionOrigin;
use crate::plugin::Answer;
use crate::plugin::args::DataFormat;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::near;
use crate::plugin::print;
use crate::plugin::table;
use crate::plugin::voice::Voice;

/// What is on a server that is being drained.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    /// Name of the server.
    server: String,
    /// Whether it takes sessions; absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    /// Seconds from the start of draining until its sessions are ended; absent: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_grace_seconds: Option<i32>,
    /// Whether its agent is silent: then nobody knows when sessions end.
    silent: bool,
    /// Whether nothing is waited for any more.
    drained: bool,
    /// What is on it.
    sessions: Vec<Occupant>,
}

/// A desktop on the server.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Occupant {
    /// Its id on the host.
    id: String,
    /// Namespace of its object; absent: it was started by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Name of its object; absent: it was started by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its owner.
    owner: String,
    /// State of its object, or where it comes from when it has none: Manual, Unclaimed.
    state: &'static str,
    /// Clients connected to it.
    num_of_connections: i32,
    /// When it ends at the latest; absent: when its owner ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Timestamp>,
    /// Whether the drain waits for it.
    awaited: bool,
}

impl Occupant {
    /// What people call it.
    fn title(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) if self.has_object() => format!("session {namespace}/{name}"),
            _ => format!("session {}", self.id),
        }
    }

    fn has_object(&self) -> bool {
        ![MANUAL, UNCLAIMED].contains(&self.state)
    }
}

const MANUAL: &str = "Manual";
const UNCLAIMED: &str = "Unclaimed";

/// Drains a server, or only looks at it.
#[expect(clippy::disallowed_methods, reason = "the one place where this command takes the time")]
pub(super) async fn drain(
    client: Client,
    wanted: &Drain,
    voice: &mut Voice<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let name = &wanted.which.server;
    let look = async || {
        let server = near::server(&client, name).await?;
        // After the server: see the top of the file.
        let here = ListParams::default().fields(&format!("status.serverName={name}"));
        let sessions = Api::<DcvSession>::all(client.clone()).list(&here).await;
        let sessions = sessions.map_err(|error| needs("drain", "list dcvsessions in all namespaces", error))?;
        Ok::<_, Error>(progress(&server, &sessions.items, wanted, Timestamp::now()))
    };
    let mut stop = pin!(stop);
    // Before anything is changed: whoever may not look could not wait.
    let mut progress = tokio::select! {
        () = &mut stop => return Err(Error::Interrupted),
        progress = look() => progress?,
    };
    if !wanted.dry_run {
        let (_, changed) = change("drain", &client, name, |now| begin(now, wanted)).await?;
        if wanted.output.is_none() {
            let already = if changed { "" } else { "already " };
            voice.say(&format!("{} {already}draining", qualified(name)))?;
        }
        let before = progress;
        progress = look().await?;
        if wanted.output.is_none() {
            // Draining can be quicker than we are.
            tell(&before, &progress, voice)?;
        }
    }
    if wanted.output.is_none() {
        show(&progress, voice, Timestamp::now())?;
    }
    let is_over =
        if wanted.dry_run || !wanted.wait { Ok(()) } else { wait(&mut progress, wanted, voice, stop, look).await };
    let data = match wanted.output {
        Some(DataFormat::Json) => print::json(&progress)?,
        Some(DataFormat::Yaml) => print::yaml(&progress)?,
        None if progress.drained && wanted.wait && !wanted.dry_run => format!("{} drained\n", qualified(name)),
        None => String::new(),
    };
    write!(voice.out, "{data}").map_err(Error::Output)?;
    is_over.map(|()| Answer::default())
}

/// The change that has `now` drained as wanted; `None`: it is so already.
fn begin(now: &DcvServer, wanted: &Drain) -> Option<serde_json::Value> {
    let is_draining = now.spec.placement == Some(Placement::Draining);
    match wanted.grace_period {
        None if is_draining => None,
        grace if is_draining && now.spec.drain_grace_seconds == grace => None,
        grace => Some(json!({"placement": Placement::Draining, "drainGraceSeconds": grace})),
    }
}

/// Looks again and again, and says what has gone and come, until nothing is left.
async fn wait(
    progress: &mut Progress,
    wanted: &Drain,
    voice: &mut Voice<'_>,
    mut stop: Pin<&mut impl Future<Output = ()>>,
    look: impl AsyncFn() -> Result<Progress, Error>,
) -> Result<(), Error> {
    let server = progress.server.clone();
    let end = (!wanted.timeout.is_zero()).then(|| Instant::now() + wanted.timeout);
    while !progress.drained {
        if progress.placement != Some(Placement::Draining) {
            return Err(Error::DrainTakenBack { server });
        }
        let left = progress.sessions.iter().filter(|session| session.awaited).count();
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(Error::NotDrained { server, left });
        }
        let next = async {
            tokio::time::sleep(LOOK_INTERVAL).await;
            look().await
        };
        let next = tokio::select! {
            () = &mut stop => {
                voice.remark(&format!("{server} stays Draining; kubectl dcv open {server} takes that back"))?;
                return Err(Error::Interrupted);
            }
            next = next => next?,
        };
        if wanted.output.is_none() {
            tell(progress, &next, voice)?;
        }
        *progress = next;
    }
    Ok(())
}

/// What is on the server, the next to end first.
fn progress(server: &DcvServer, sessions: &[DcvSession], wanted: &Drain, now: Timestamp) -> Progress {
    let drain_end = if wanted.dry_run { planned_end(server, wanted, now) } else { server.drain_end(now) };
    let others = server.status.as_ref().map_or(&[][..], |status| &status.other_sessions);
    let occupants = sessions.iter().filter(|session| may_be_on_host(session)).map(|it| of_session(it, drain_end));
    let others = others.iter().map(|other| of_other(other, !wanted.ignore_other_sessions));
    let mut sessions: Vec<_> = occupants.chain(others).collect();
    sessions.sort_by_key(|session| (session.end_time.is_none(), session.end_time, session.title()));
    let observed = server.status.as_ref().and_then(|status| status.observed_generation);
    let is_known = server.is_silent() || observed >= server.metadata.generation;
    let is_draining = server.spec.placement == Some(Placement::Draining);
    Progress {
        server: server.name_any(),
        placement: server.spec.placement,
        drain_grace_seconds: server.spec.drain_grace_seconds,
        silent: server.is_silent(),
        drained: is_draining && is_known && !sessions.iter().any(|session| session.awaited),
        sessions,
    }
}

/// When sessions would be ended.
fn planned_end(server: &DcvServer, wanted: &Drain, now: Timestamp) -> Option<Timestamp> {
    match wanted.grace_period {
        Some(_) if server.spec.placement == Some(Placement::Draining) => {
            let mut planned = server.clone();
            planned.spec.drain_grace_seconds = wanted.grace_period;
            planned.drain_end(now)
        }
        Some(grace) => Some(now + SignedDuration::from_secs(grace.into())),
        None => server.drain_end(now),
    }
}

/// Whether its desktop may still be there. One that was closed by force is, until its agent has been back.
fn may_be_on_host(session: &DcvSession) -> bool {
    let was_forced = conditions::is(session.conditions(), SessionCondition::Finished, Some(true), Reason::ForceClosed);
    !session.is_finished() || was_forced && session.has_finalizer()
}

fn of_session(session: &DcvSession, drain_end: Option<Timestamp>) -> Occupant {
    let status = session.status.as_ref();
    let connections = status.and_then(|status| status.num_of_connections).unwrap_or(0);
    let left = status.and_then(|status| status.last_disconnection_time.as_ref()).map(|time| time.0);
    let own = session.time_limits(connections, left).into_iter().map(|(time, _)| time);
    Occupant {
        id: session.id().to_owned(),
        namespace: session.namespace(),
        name: Some(session.name_any()),
        owner: session.spec.owner.clone(),
        state: session.shown_state().as_str(),
        num_of_connections: connections,
        end_time: own.chain(drain_end).min(),
        awaited: true,
    }
}

fn of_other(other: &OtherSession, awaited: bool) -> Occupant {
    Occupant {
        id: other.id.clone(),
        namespace: other.namespace.clone(),
        name: other.session_name.clone(),
        owner: other.owner.clone(),
        state: match other.origin {
            SessionOrigin::Manual => MANUAL,
            SessionOrigin::Unclaimed => UNCLAIMED,
        },
        num_of_connections: other.num_of_connections,
        end_time: None,
        awaited,
    }
}

/// Shows what is on the server, and what could be done about it.
fn show(progress: &Progress, voice: &mut Voice<'_>, now: Timestamp) -> Result<(), Error> {
    if progress.silent {
        voice.remark("its agent does not answer: what is on the server ends when it is back")?;
    }
    if progress.sessions.is_empty() {
        return Ok(());
    }
    let title = ["NAMESPACE", "NAME", "OWNER", "STATE", "CONNECTIONS", "ENDS", "ID"].map(str::to_owned).to_vec();
    let lines = progress.sessions.iter().map(|session| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "<none>".to_owned());
        vec![
            text(&session.namespace),
            text(&session.name),
            session.owner.clone(),
            session.state.to_owned(),
            session.num_of_connections.to_string(),
            session.end_time.map_or_else(|| "<none>".to_owned(), |end| from_now(end, now)),
            session.id.clone(),
        ]
    });
    let lines: Vec<_> = std::iter::once(title).chain(lines).collect();
    write!(voice.out, "{}", table::aligned(&lines)).map_err(Error::Output)?;
    if progress.sessions.iter().any(|session| session.has_object() && session.end_time.is_none()) {
        voice.remark("sessions without a time end when their owners end them; --grace-period TIME ends them all")?;
    }
    if let Some(other) = progress.sessions.iter().find(|session| !session.has_object()) {
        let (server, id) = (&progress.server, &other.id);
        voice.remark(&format!("no drain ends what no session stands for; kubectl dcv end {server} '{id}' does"))?;
    }
    Ok(())
}

/// Says what has gone and come between two looks.
fn tell(before: &Progress, after: &Progress, voice: &mut Voice<'_>) -> Result<(), Error> {
    let by_id = |progress: &Progress| {
        progress.sessions.iter().map(|session| (session.id.clone(), session.title())).collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (by_id(before), by_id(after));
    for (_, title) in old.iter().filter(|(id, _)| !new.contains_key(*id)) {
        voice.say(&format!("{title} is gone"))?;
    }
    for (_, title) in new.iter().filter(|(id, _)| !old.contains_key(*id)) {
        voice.say(&format!("{title} is there"))?;
    }
    if after.silent && !before.silent {
        voice.remark("its agent does not answer any more: what is on the server ends when it is back")?;
    }
    Ok(())
}

/// How long until then, roughly, as kubectl tells ages.
fn from_now(end: Timestamp, now: Timestamp) -> String {
    let seconds = end.duration_since(now).as_secs();
    match seconds {
        ..=0 => "now".to_owned(),
        1..=119 => format!("in {seconds}s"),
        120..=7199 => format!("in {}m", seconds / 60),
        7200..=172_799 => format!("in {}h", seconds / 3600),
        _ => format!("in {}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::time::Duration;

    use serde_json::Value;

    use super::super::args::One;
    use super::*;
    use crate::plugin::mock;

    const NOW: &str = "2026-11-28T04:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn server(changes: &Value) -> DcvServer {
        let draining = json!({"type": "Draining", "status": "True", "reason": "DrainRequested", "message": "",
            "lastTransitionTime": "2026-11-28T03:50:00Z"});
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": "gpu-7", "uid": "u", "generation": 2, "resourceVersion": "7"},
            "spec": {"placement": "Draining", "drainGraceSeconds": 1200},
            "status": {"observedGeneration": 2, "conditions": [draining]},
        });
        mock::merge(&mut object, changes);
        serde_json::from_value(object).unwrap()
    }

    fn session(name: &str, changes: &Value) -> DcvSession {
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": name, "namespace": "team", "uid": name, "finalizers": ["dcv-operator.io/session-cleanup"]},
            "spec": {"owner": "ann", "type": "VIRTUAL"},
            "status": {"serverName": "gpu-7", "state": "READY", "numOfConnections": 1, "conditions": [
                {"type": "Created", "status": "True", "reason": "Created", "message": "",
                 "lastTransitionTime": "2026-11-28T03:00:00Z"}]},
        });
        mock::merge(&mut object, changes);
        serde_json::from_value(object).unwrap()
    }

    fn finished(reason: &str) -> Value {
        json!({"status": {"state": "DELETED", "conditions": [
            {"type": "Finished", "status": "True", "reason": reason, "message": "", "lastTransitionTime": NOW}]}})
    }

    fn wanted(grace_period: Option<i32>) -> Drain {
        Drain { which: One { server: "gpu-7".into() }, grace_period, ..Drain::default() }
    }

    #[test]
    fn it_shows_each_desktop_and_when_it_ends() {
        let others = json!({"status": {"otherSessions": [
            {"id": "console", "owner": "bob", "type": "CONSOLE", "origin": "Manual"},
            {"id": "old", "owner": "cid", "type": "VIRTUAL", "origin": "Unclaimed", "namespace": "team", "sessionName": "old"}]}});
        let sessions = [
            session("desk", &json!({})),
            session("short", &json!({"spec": {"maxDurationSeconds": 3660}})),
            session("closing", &json!({"metadata": {"deletionTimestamp": NOW}})),
            session("over", &finished("Closed")),
            session("forced", &finished("ForceClosed")),
        ];
        let progress = progress(&server(&others), &sessions, &wanted(None), now());
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        show(&progress, &mut Voice { out: &mut out, talk: &mut talk }, now()).unwrap();
        let expected = "\
NAMESPACE   NAME      OWNER   STATE       CONNECTIONS   ENDS     ID
team        short     ann     READY       1             in 60s   short
team        closing   ann     DELETING    1             in 10m   closing
team        desk      ann     READY       1             in 10m   desk
team        forced    ann     DELETED     1             in 10m   forced
<none>      <none>    bob     Manual      0             <none>   console
team        old       cid     Unclaimed   0             <none>   old
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let hint = "no drain ends what no session stands for; kubectl dcv end gpu-7 'console' does\n";
        assert_eq!(String::from_utf8(talk).unwrap(), hint);
        assert!(!progress.drained);
    }

    #[test]
    fn it_is_drained_once_its_agent_knows_and_nothing_is_left() {
        let other = json!({"status": {"otherSessions": [
            {"id": "console", "owner": "bob", "type": "CONSOLE", "origin": "Manual"}]}});
        let lapsed = json!({"type": "AgentConnected", "status": "False", "reason": "LeaseExpired", "message": "",
            "lastTransitionTime": NOW});
        let silent = json!({"status": {"observedGeneration": 1, "conditions": [lapsed]}});
        let ignoring = Drain { ignore_other_sessions: true, ..wanted(None) };
        let over = [session("over", &finished("Closed"))];
        for (changes, sessions, wanted, drained) in [
            (json!({}), &over[..], wanted(None), true),
            (json!({"metadata": {"generation": 3}}), &[], wanted(None), false),
            (silent, &[], wanted(None), true),
            (other.clone(), &[], wanted(None), false),
            (other, &[], ignoring, true),
            (json!({"spec": {"placement": "Closed", "drainGraceSeconds": null}}), &[], wanted(None), false),
        ] {
            assert_eq!(progress(&server(&changes), sessions, &wanted, now()).drained, drained, "{changes}");
        }
    }

    #[test]
    fn a_drain_that_goes_on_is_changed_only_by_another_grace() {
        let set = |grace: Option<i32>| Some(json!({"placement": "Draining", "drainGraceSeconds": grace}));
        let open = server(&json!({"spec": {"placement": null, "drainGraceSeconds": null}}));
        assert_eq!(begin(&open, &wanted(None)), set(None));
        assert_eq!(begin(&open, &wanted(Some(60))), set(Some(60)));
        assert_eq!(begin(&server(&json!({})), &wanted(None)), None);
        assert_eq!(begin(&server(&json!({})), &wanted(Some(1200))), None);
        assert_eq!(begin(&server(&json!({})), &wanted(Some(0))), set(Some(0)));
        let dry = Drain { dry_run: true, ..wanted(Some(60)) };
        assert_eq!(planned_end(&open, &dry, now()), Some("2026-11-28T04:01:00Z".parse().unwrap()));
        assert_eq!(planned_end(&server(&json!({})), &dry, now()), Some("2026-11-28T03:51:00Z".parse().unwrap()));
        assert_eq!(planned_end(&open, &wanted(None), now()), None);
    }

    /// How a drain goes on an API server whose answers to `GET` of the server and the list of sessions are these, the last
    /// for ever; what it printed and sent.
    async fn run(
        wanted: &Drain,
        looks: Vec<(DcvServer, Vec<DcvSession>)>,
        stop: impl Future<Output = ()>,
    ) -> (Result<Answer, Error>, [String; 2], Vec<Value>) {
        let sent: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (seen, mut lists) = (Arc::clone(&sent), 0);
        let client = mock::client(move |method, path, body| {
            let (server, sessions) = &looks[lists.min(looks.len() - 1)];
            if method == "PATCH" {
                seen.lock().unwrap().push(body["spec"].clone());
            }
            if path.ends_with("/dcvsessions") {
                lists += 1;
                let list = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSessionList", "metadata": {},
                    "items": sessions});
                return (200, list);
            }
            let mut server = serde_json::to_value(server).unwrap();
            seen.lock().unwrap().iter().for_each(|spec| mock::merge(&mut server["spec"], spec));
            (200, server)
        });
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let answer = drain(client, wanted, &mut Voice { out: &mut out, talk: &mut talk }, stop).await;
        let sent = sent.lock().unwrap().clone();
        (answer, [out, talk].map(|text| String::from_utf8(text).unwrap()), sent)
    }

    #[tokio::test]
    async fn it_says_what_goes_and_ends_when_all_has_gone() {
        let open = server(&json!({"spec": {"placement": null, "drainGraceSeconds": null}}));
        let desk = || session("desk", &json!({}));
        let looks = vec![
            (open.clone(), vec![desk()]),
            (open, vec![desk()]),
            (server(&json!({})), vec![desk(), session("late", &json!({}))]),
            (server(&json!({})), vec![]),
        ];
        let (answer, [printed, _], sent) = run(&wanted(Some(1200)), looks, std::future::pending()).await;
        assert_eq!(answer.unwrap(), Answer::default());
        assert_eq!(sent, [json!({"placement": "Draining", "drainGraceSeconds": 1200})]);
        let lines: Vec<_> = printed.lines().filter(|line| !line.starts_with(['N', 't'])).collect();
        let expected = [
            "dcvserver.dcv-operator.io/gpu-7 draining",
            "session team/late is there",
            "session team/desk is gone",
            "session team/late is gone",
            "dcvserver.dcv-operator.io/gpu-7 drained",
        ];
        assert_eq!(lines, expected);
    }

    #[tokio::test]
    async fn out_of_time_or_interrupted_it_says_that_the_server_stays_draining() {
        let looks = || vec![(server(&json!({})), vec![session("desk", &json!({}))])];
        let hurried = Drain { timeout: Duration::from_millis(50), ..wanted(None) };
        let (answer, _, sent) = run(&hurried, looks(), std::future::pending()).await;
        assert!(matches!(answer, Err(Error::NotDrained { left: 1, .. })), "{answer:?}");
        assert_eq!(sent, [Value::Null; 0]);
        let stop = tokio::time::sleep(Duration::from_millis(50));
        let (answer, [_, talk], _) = run(&wanted(None), looks(), stop).await;
        assert!(matches!(answer, Err(Error::Interrupted)), "{answer:?}");
        assert!(talk.contains("gpu-7 stays Draining; kubectl dcv open gpu-7"), "{talk}");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_that_the_drain_was_taken_back() {
        let desk = || vec![session("desk", &json!({}))];
        let open = server(&json!({"spec": {"placement": null, "drainGraceSeconds": null}}));
        let looks = vec![(server(&json!({})), desk()), (server(&json!({})), desk()), (open, desk())];
        let (answer, _, sent) = run(&wanted(None), looks, std::future::pending()).await;
        assert!(matches!(answer, Err(Error::DrainTakenBack { .. })), "{answer:?}");
        assert_eq!(sent, [Value::Null; 0]);
    }

    #[tokio::test]
    async fn as_data_it_is_one_document_and_a_dry_run_changes_nothing() {
        let open = server(&json!({"spec": {"placement": null, "drainGraceSeconds": null}}));
        let dry = Drain { dry_run: true, output: Some(DataFormat::Json), ..wanted(Some(60)) };
        let (answer, [printed, _], sent) =
            run(&dry, vec![(open, vec![session("desk", &json!({}))])], std::future::pending()).await;
        assert!(answer.is_ok() && sent.is_empty());
        let data: Value = serde_json::from_str(&printed).unwrap();
        assert_eq!((&data["server"], &data["drained"], data.get("placement")), (&json!("gpu-7"), &json!(false), None));
        let shown = &data["sessions"][0];
        assert_eq!((&shown["owner"], &shown["name"], &shown["awaited"]), (&json!("ann"), &json!("desk"), &json!(true)));
        assert!(shown["endTime"].is_string(), "{shown}");
    }
}
