//! Placing on a large fleet of made-up servers, against the test's own idea of which of them each requirement means.
//!
//! `hack/test --long` runs it with 1,000 servers and 2,000 sessions.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use dcv_operator::api::server::DcvServer;
use dcv_operator::api::server::Host;
use dcv_operator::api::session::DcvSession;
use e2e::Stand;
use e2e::eventually;
use e2e::seconds;
use e2e::session::Sessions;
use e2e::session::condition;
use e2e::session::is_ready;
use e2e::session::state_reason;
use futures::StreamExt;
use futures::stream;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;

const WISHES: usize = 50;
/// For each wish one session on so many servers.
const SERVERS_FOR_A_SESSION: usize = 25;
/// Writes of the test on their way at once.
const AT_ONCE: usize = 16;

/// One comparison: as text, and as what it means.
struct Term {
    text: &'static str,
    holds: fn(&DcvServer) -> bool,
}

fn host(server: &DcvServer) -> &Host {
    server.status.as_ref().and_then(|status| status.host.as_ref()).expect("a made-up server has reported its facts")
}

fn tag(server: &DcvServer, key: &str) -> Option<String> {
    server.status.as_ref().expect("a made-up server has reported").tags.get(key).cloned()
}

fn os(server: &DcvServer) -> (&str, &str, &str) {
    let os = host(server).os.as_ref().expect("a made-up server has an operating system");
    (&os.family, &os.name, &os.version)
}

const TERMS: [Term; 11] = [
    Term { text: "tag:pool = 'render'", holds: |it| tag(it, "pool").as_deref() == Some("render") },
    Term { text: "tag:pool != 'office'", holds: |it| tag(it, "pool").is_some_and(|pool| pool != "office") },
    Term { text: "tag:zone = 'a'", holds: |it| tag(it, "zone").as_deref() == Some("a") },
    Term { text: "tag:gpu := 'rtx'", holds: |it| tag(it, "gpu").is_some_and(|gpu| gpu.contains("rtx")) },
    Term {
        text: "server:Host.Memory.TotalBytes >= 6.4E10",
        holds: |it| host(it).memory.as_ref().is_some_and(|memory| memory.total_bytes >= 64_000_000_000),
    },
    Term {
        text: "server:Host.CpuInfo.PhysicalCoresPerCpu > 8",
        holds: |it| host(it).cpu_info.as_ref().is_some_and(|cpu| cpu.physical_cores_per_cpu > 8),
    },
    Term { text: "server:Host.Os.Family = 'windows'", holds: |it| os(it).0 == "windows" },
    Term { text: "server:Host.Os.Name := 'Linux'", holds: |it| os(it).1.contains("Linux") },
    Term { text: "server:Host.Os.Version = '9.4'", holds: |it| os(it).2 == "9.4" },
    Term { text: "server:Host.Gpus.Count >= 1", holds: |it| !host(it).gpus.is_empty() },
    Term {
        text: "server:Host.Aws.Ec2InstanceType = 'g4dn.xlarge'",
        holds: |it| host(it).aws.as_ref().is_some_and(|aws| aws.ec2_instance_type == "g4dn.xlarge"),
    },
];

/// A requirement of two terms.
struct Wish {
    first: &'static Term,
    second: &'static Term,
    /// 0: both, 1: one of them, 2: the first without the second.
    form: usize,
}

/// A part that must hold: as text, and as what it means.
type Clause<'a> = (String, Box<dyn Fn(&DcvServer) -> bool + 'a>);

/// Fifty different ones.
fn wishes() -> Vec<Wish> {
    let pairs =
        TERMS.iter().enumerate().flat_map(|(at, first)| TERMS[at + 1..].iter().map(move |second| (first, second)));
    pairs.take(WISHES).enumerate().map(|(at, (first, second))| Wish { first, second, form: at % 3 }).collect()
}

impl Wish {
    fn text(&self) -> String {
        format!("{} {} {}", self.first.text, ["and", "or", "and not"][self.form], self.second.text)
    }

    /// What must hold, one after the other.
    fn clauses(&self) -> Vec<Clause<'_>> {
        let (first, second) = (self.first, self.second);
        match self.form {
            0 => vec![(first.text.into(), Box::new(first.holds)), (second.text.into(), Box::new(second.holds))],
            1 => vec![(self.text(), Box::new(|it| (first.holds)(it) || (second.holds)(it)))],
            _ => vec![
                (first.text.into(), Box::new(first.holds)),
                (format!("not {}", second.text), Box::new(|it| !(second.holds)(it))),
            ],
        }
    }

    /// Names of the servers that may have such a VIRTUAL session.
    fn servers(&self, servers: &[DcvServer]) -> BTreeSet<String> {
        let suits = |it: &&DcvServer| os(it).0 == "linux" && self.clauses().iter().all(|(_, holds)| holds(it));
        servers.iter().filter(suits).map(ResourceExt::name_any).collect()
    }

    /// How many servers turn such a session down, and why, each for its first reason.
    fn refutations(&self, servers: &[DcvServer]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for server in servers {
            let reason = if os(server).0 == "windows" {
                Some("without VIRTUAL sessions".to_owned())
            } else {
                self.clauses().into_iter().find(|(_, holds)| !holds(server)).map(|(text, _)| format!("lack {text}"))
            };
            if let Some(reason) = reason {
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts
    }
}

/// The counts of a text such as `0 of 7 servers fit: 4 full, 2 closed; …`.
fn told_counts(text: &str) -> BTreeMap<String, usize> {
    let counts = text.split_once(": ").map_or("", |(_, rest)| rest.split(';').next().unwrap_or_default());
    let count = |part: &str| {
        let (number, reason) = part.trim().split_once(' ').expect("a number and a reason");
        (reason.to_owned(), number.parse().expect("a number"))
    };
    counts.split(", ").map(count).collect()
}

async fn create_all(sessions: &Sessions, specs: impl IntoIterator<Item = (String, Value)>) {
    let creates = specs.into_iter().map(async |(name, spec)| drop(sessions.create(&name, &spec).await));
    stream::iter(creates).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// All sessions of the namespace, once each is as `settled` says.
async fn until_all(sessions: &Sessions, what: &str, settled: impl Fn(&DcvSession) -> bool) -> Vec<DcvSession> {
    eventually(what, seconds(180), async || {
        let all = sessions.api.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let open = all.iter().filter(|session| !settled(session)).count();
        match all.iter().find(|session| !settled(session)) {
            None => Ok(all),
            Some(one) => Err(format!("{open} of {} are not, one is {:?}", all.len(), one.status)),
        }
    })
    .await
}

fn server_of(session: &DcvSession) -> String {
    session.server_name().unwrap_or_default().to_owned()
}

fn is_told_why_not(session: &DcvSession) -> bool {
    condition(session, "Scheduled") == "False/NoServerFits"
}

async fn explain(stand: &Stand, args: &[&str], manifest: &str) -> Value {
    let answer = stand.plugin(&[&["explain", "--output", "json"], args].concat(), manifest).await;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
    assert_eq!(answer["items"][0]["fits"], json!(false), "{answer}");
    answer["items"][0]["report"].clone()
}

#[tokio::test]
async fn every_session_lands_where_its_requirement_says_or_is_told_why_it_cannot() {
    let stand = Stand::fleet().await;
    let servers = stand.servers().list(&ListParams::default()).await.expect("servers can be listed").items;
    assert_eq!(servers.len(), e2e::servers());
    all_land_where_they_may(&stand, &servers).await;
    spread_and_pack_do_what_they_say(&stand).await;
    what_is_proposed_helps(&stand, &servers).await;
    stand.down().await;
}

async fn all_land_where_they_may(stand: &Stand, servers: &[DcvServer]) {
    let sessions = stand.namespace("wishes").await;
    let wishes = wishes();
    assert_eq!(wishes.iter().map(Wish::text).collect::<BTreeSet<_>>().len(), WISHES);
    let of_a_wish = servers.len() / SERVERS_FOR_A_SESSION;
    let specs = wishes.iter().enumerate().flat_map(|(number, wish)| {
        (0..of_a_wish).map(move |index| {
            let owner = format!("user-{}", index % 8);
            (format!("wish-{number}-{index}"), json!({"owner": owner, "requirements": wish.text()}))
        })
    });
    create_all(&sessions, specs).await;
    let all = until_all(&sessions, "all sessions to be placed or told why not", |session| {
        is_ready(session) || is_told_why_not(session)
    })
    .await;
    assert_eq!(all.len(), WISHES * of_a_wish);
    let mut placed = 0;
    for session in &all {
        let name = session.name_any();
        let number: usize = name.split('-').nth(1).and_then(|it| it.parse().ok()).expect("our names have numbers");
        let wish = &wishes[number];
        let may = wish.servers(servers);
        if is_ready(session) {
            placed += 1;
            assert!(may.contains(&server_of(session)), "{} is on {}", wish.text(), server_of(session));
        } else {
            assert_eq!(may.len(), 0, "{} fits {} servers: {}", wish.text(), may.len(), state_reason(session));
            let counts = told_counts(state_reason(session));
            assert_eq!(counts, wish.refutations(servers), "{}: {}", wish.text(), state_reason(session));
            assert_eq!(counts.values().sum::<usize>(), servers.len());
        }
    }
    let unplaceable = all.len() - placed;
    eprintln!("{placed} sessions placed, {unplaceable} told why not");
    assert!(placed >= all.len() / 2 && unplaceable >= all.len() / 20, "a mix of both is what this test is for");
    sessions.delete_namespace().await;
    eventually("the fleet to be empty", seconds(180), async || match stand.all_sessions().await.len() {
        0 => Ok(()),
        left => Err(format!("{left} sessions are left")),
    })
    .await;
}

async fn spread_and_pack_do_what_they_say(stand: &Stand) {
    for (policy, servers) in [("Spread", 20), ("Pack", 2)] {
        let sessions = stand.namespace("policy").await;
        // Every eighth server, with room for ten each.
        let spec = json!({"requirements": "server:Host.Os.Version = '12'", "placementPolicy": policy});
        let specs = (0..20).map(|index| (format!("desk-{index}"), spec.clone()));
        create_all(&sessions, specs).await;
        let all = until_all(&sessions, "20 READY sessions", is_ready).await;
        let used: BTreeSet<_> = all.iter().map(server_of).collect();
        assert_eq!(used.len(), servers, "{policy}");
        sessions.delete_namespace().await;
        eventually("the fleet to be empty", seconds(60), async || match stand.all_sessions().await.len() {
            0 => Ok(()),
            left => Err(format!("{left} sessions are left")),
        })
        .await;
    }
}

async fn what_is_proposed_helps(stand: &Stand, servers: &[DcvServer]) {
    let sessions = stand.namespace("explain").await;
    let namespace = sessions.namespace.clone();
    let in_namespace = ["--namespace", &namespace];

    // Another requirement, said of a manifest and of an object alike.
    let wanted = "tag:pool = 'render' and server:Host.Aws.Region = 'eu-west-1'";
    let manifest = json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
        "metadata": {"name": "dry", "namespace": namespace},
        "spec": {"owner": "ann", "type": "VIRTUAL", "requirements": wanted}});
    let dry = explain(stand, &[&in_namespace[..], &["--filename", "-"]].concat(), &manifest.to_string()).await;
    sessions.create("wet", &json!({"requirements": wanted})).await;
    let waiting = sessions.until("wet", "told why not", is_told_why_not).await;
    let wet = explain(stand, &[&["wet"][..], &in_namespace].concat(), "").await;
    for verdict in [&dry, &wet] {
        let reasons = verdict["reasons"].as_array().expect("reasons");
        let count = |reason: &Value| reason["servers"].as_u64().expect("a count");
        assert_eq!(reasons.iter().map(count).sum::<u64>(), servers.len() as u64, "{verdict}");
        let summary = verdict["summary"].as_str().expect("a summary");
        assert!(state_reason(&waiting).starts_with(summary), "{summary:?} and {:?}", state_reason(&waiting));
    }
    let proposal = &dry["proposals"][0];
    let better = proposal["requirements"].as_str().unwrap_or_else(|| panic!("no other requirement: {dry}"));
    sessions.create("better", &json!({"requirements": better})).await;
    sessions.until_ready("better").await;

    // An administrator's help.
    let cloud: Vec<_> = servers.iter().filter(|it| tag(it, "pool").as_deref() == Some("cloud")).collect();
    assert_eq!(cloud.len(), servers.len() / 8);
    let placement = async |server: &DcvServer, placement: Value| {
        let patch = Patch::Merge(json!({"spec": {"placement": placement}}));
        stand.servers().patch(&server.name_any(), &PatchParams::default(), &patch).await.expect("it can be patched");
    };
    stream::iter(&cloud).for_each_concurrent(AT_ONCE, |server| placement(server, json!("Closed"))).await;
    let spec = json!({"requirements": "tag:pool = 'cloud'"});
    sessions.create("closed-out", &spec).await;
    sessions.until("closed-out", "told why not", is_told_why_not).await;
    let verdict = explain(stand, &[&["closed-out"][..], &in_namespace].concat(), "").await;
    let opened = json!({"changes": [{"change": "open"}], "servers": cloud.len()});
    let proposals = verdict["proposals"].as_array().expect("proposals");
    assert!(proposals.contains(&opened), "{verdict}");
    placement(cloud[0], Value::Null).await;
    let session = sessions.until_ready("closed-out").await;
    assert_eq!(server_of(&session), cloud[0].name_any());
    stream::iter(&cloud).for_each_concurrent(AT_ONCE, |server| placement(server, Value::Null)).await;
    sessions.delete_namespace().await;
}
