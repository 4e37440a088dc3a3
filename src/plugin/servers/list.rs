//! `kubectl dcv servers`: what servers there are, and one of them whole.

use std::future::Future;

use clap::Args;
use clap::ValueEnum;
use jiff::Timestamp;
use kube::Api;
use kube::Client;
use kube::ResourceExt;

use crate::api::DcvServer;
use crate::api::server::Availability;
use crate::api::server::Memory;
use crate::cluster::Clock;
use crate::plugin::Answer;
use crate::plugin::age;
use crate::plugin::args::ListFormat;
use crate::plugin::error::Error;
use crate::plugin::listing;
use crate::plugin::listing::Column;
use crate::plugin::listing::Listed;
use crate::plugin::listing::Query;
use crate::plugin::listing::Shown;
use crate::plugin::near;
use crate::plugin::table;
use crate::plugin::voice::Voice;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
SESSIONS counts virtual sessions of every origin and LIMIT says how many there may be (-: no limit), both as the agent told \
last, half a minute ago at most. It takes the right to list dcvservers, and with -w to watch them too.

Exit code: 0 done; 1 it failed; 130 interrupted, as -w always ends.

Examples:
  kubectl dcv servers
  kubectl dcv servers -o wide --available=false
  kubectl dcv servers -l team=render -w
  kubectl dcv servers gpu-7";

/// Which servers, and how they are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct Servers {
    /// Name of one DcvServer, to tell everything of
    #[arg(value_name = "SERVER", conflicts_with_all = ["selector", "field_selector", "available"])]
    pub server: Option<String>,
    /// Only those that take sessions, or only those that do not
    #[arg(long, value_enum, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub available: Option<Answered>,
    #[command(flatten)]
    pub(in crate::plugin) shown: Shown,
}

/// Yes or no.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum Answered {
    True,
    False,
}

impl Listed for DcvServer {
    const COLUMNS: &'static [Column] = &[
        Column::new("NAME"),
        Column::new("AVAILABILITY"),
        Column::new("REASON"),
        Column::new("SESSIONS"),
        Column::new("LIMIT"),
        Column::new("LOAD"),
        Column::new("OS"),
        Column::new("AGENT"),
        Column::clock("AGE"),
        Column::wide("PLACEMENT"),
        Column::wide("CONSOLE"),
        Column::wide("PER-USER"),
        Column::wide("MEMORY"),
        Column::wide("GPUS"),
        Column::wide("BACKEND"),
        Column::wide("VERSION"),
        Column::wide("ADDRESS"),
    ];
    const STATE: usize = 1;

    fn cells(&self, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let host = status.host.clone().unwrap_or_default();
        let limits = self.limits();
        let count = |count: Option<i32>| count.map(|count| count.to_string()).unwrap_or_default();
        vec![
            self.name_any(),
            status.availability.as_str().to_owned(),
            status.unavailability_reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
            count(status.virtual_session_count),
            limit(limits.max_virtual_sessions),
            host.cpu_load_average.map(|load| format!("{:.2}", load.one_minute)).unwrap_or_default(),
            operating_system(self),
            status.agent.map(|agent| agent.version).unwrap_or_default(),
            age::since(self.metadata.creation_timestamp.as_ref(), now),
            placement(self),
            count(status.console_session_count),
            limit(limits.max_concurrent_sessions_per_user),
            host.memory.as_ref().map(memory).unwrap_or_default(),
            host.gpus.len().to_string(),
            status.backend,
            status.version,
            status.ip,
        ]
    }
}

/// Shows servers, or one of them.
pub(super) async fn show(
    client: &Client,
    wanted: &Servers,
    voice: &mut Voice<'_>,
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let name = wanted.server.as_deref().map(near::bare);
    if let Some(name) = name
        && !wanted.shown.watch
    {
        return one(client, name, wanted.shown.output, clock).await;
    }
    let only = |server: &DcvServer| {
        let is_available = server.status.as_ref().is_some_and(|it| it.availability == Availability::Available);
        wanted.available.is_none_or(|wanted| (wanted == Answered::True) == is_available)
    };
    let query = Query {
        command: "servers",
        namespace: None,
        with_namespace: false,
        name,
        fields: Vec::new(),
        only: &only,
        shown: &wanted.shown,
    };
    listing::list(client, &query, voice, clock, stop).await
}

async fn one(client: &Client, name: &str, output: Option<ListFormat>, clock: Clock) -> Result<Answer, Error> {
    let server = near::server(client, name).await?;
    let Some(format) = output.filter(|format| *format != ListFormat::Wide) else {
        return Ok(Answer { data: text(&server, clock()), ..Answer::default() });
    };
    let api = Api::all_with(client.clone(), &listing::resource::<DcvServer>());
    let data = listing::as_data::<DcvServer>(&api.get(name).await?, format)?;
    Ok(Answer { data, ..Answer::default() })
}

/// A limit for people.
fn limit(limit: Option<i32>) -> String {
    match limit {
        None => String::new(),
        Some(-1) => "-".to_owned(),
        Some(limit) => limit.to_string(),
    }
}

/// Bytes in use of all there are.
pub(super) fn memory(memory: &Memory) -> String {
    format!("{}/{}", bytes(memory.used_bytes), bytes(memory.total_bytes))
}

/// Bytes with kubectl's units.
fn bytes(bytes: i64) -> String {
    let mebibytes = bytes / (1 << 20);
    match mebibytes {
        ..10_240 => format!("{mebibytes}Mi"),
        10_240..10_485_760 => format!("{}Gi", mebibytes / 1024),
        _ => format!("{}Ti", mebibytes / (1 << 20)),
    }
}

fn operating_system(server: &DcvServer) -> String {
    let host = server.status.as_ref().and_then(|status| status.host.as_ref());
    let os = host.and_then(|host| host.os.clone()).unwrap_or_default();
    let words = [if os.name.is_empty() { os.family } else { os.name }, os.version];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What its administrator says, and the Node.
fn placement(server: &DcvServer) -> String {
    let placement = server.spec.placement.map_or_else(|| "Open".to_owned(), |placement| format!("{placement:?}"));
    if server.is_cordoned() { format!("{placement},NodeCordoned") } else { placement }
}

/// The server as text.
fn text(server: &DcvServer, now: Timestamp) -> String {
    let status = server.status.clone().unwrap_or_default();
    let host = status.host.clone().unwrap_or_default();
    let limits = server.limits();
    let mut lines = Vec::new();
    let mut line = |title: &str, text: String| {
        if !text.is_empty() {
            lines.push(vec![format!("{title}:"), plain(&text)]);
        }
    };
    let reason = status.unavailability_reason.map(|reason| format!(", {}", reason.as_str())).unwrap_or_default();
    line("Name", server.name_any());
    line("Created", server.metadata.creation_timestamp.as_ref().map(|it| it.0.to_string()).unwrap_or_default());
    line("Availability", format!("{}{reason}", status.availability.as_str()));
    line("Placement", placement(server));
    line("Sessions ended", server.drain_end(now).map(|end| end.to_string()).unwrap_or_default());
    line("Virtual sessions", of(status.virtual_session_count, limits.max_virtual_sessions));
    line("Console sessions", status.console_session_count.map(|count| count.to_string()).unwrap_or_default());
    line("Of one owner", of(None, limits.max_concurrent_sessions_per_user));
    line("Without an object", ids(server));
    line("Host name", status.hostname.clone());
    line("Address", status.ip.clone());
    line("OS", operating_system(server));
    line("Load", host.cpu_load_average.map(load).unwrap_or_default());
    line("Memory", host.memory.as_ref().map(memory).unwrap_or_default());
    line("Swap", host.swap.as_ref().map(memory).unwrap_or_default());
    let cards: Vec<_> = host.gpus.iter().map(|card| format!("{} {}", card.vendor, card.model_name)).collect();
    line("GPUs", cards.join(", "));
    line("Backend", format!("{} {}", status.backend, status.version).trim().to_owned());
    line("Agent", status.agent.map(|agent| format!("{} at {}", agent.version, agent.url)).unwrap_or_default());
    let tags: Vec<_> = status.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    line("Tags", tags.join(", "));
    let title = ["  TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"].map(str::to_owned).to_vec();
    let conditions = server.conditions().iter().map(|it| {
        let since = age::short(now.duration_since(it.last_transition_time.0));
        vec![format!("  {}", it.type_), it.status.clone(), it.reason.clone(), since, plain(&it.message)]
    });
    let conditions: Vec<_> = std::iter::once(title).chain(conditions).collect();
    format!("{}Conditions:\n{}", table::aligned(&lines), table::aligned(&conditions))
}

/// A count and its limit.
fn of(count: Option<i32>, limit: Option<i32>) -> String {
    let limit = match limit {
        None => None,
        Some(-1) => Some("no limit".to_owned()),
        Some(limit) => Some(format!("at most {limit}")),
    };
    count.map(|count| count.to_string()).into_iter().chain(limit).collect::<Vec<_>>().join(", ")
}

fn load(load: crate::api::server::CpuLoadAverage) -> String {
    format!("{:.2}, {:.2}, {:.2}", load.one_minute, load.five_minutes, load.fifteen_minutes)
}

/// Of the desktops that no session stands for.
fn ids(server: &DcvServer) -> String {
    let others = server.status.as_ref().map_or(&[][..], |status| &status.other_sessions);
    others.iter().map(|other| format!("{} of {}", other.id, other.owner)).collect::<Vec<_>>().join(", ")
}

/// Without what a terminal would obey: hosts tell these texts.
fn plain(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::plugin::error::words;
    use crate::plugin::mock;

    fn now() -> Timestamp {
        "2026-11-28T04:00:00Z".parse().unwrap()
    }

    fn server(name: &str, changes: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-11-28T03:00:00Z"}, "spec": {},
            "status": {
                "availability": "AVAILABLE", "virtualSessionCount": 3, "consoleSessionCount": 0, "backend": "vnc",
                "version": "1.12", "ip": "10.0.0.7", "tags": {"pool": "render"},
                "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": -1, "maxConcurrentSessionsPerUser": 2},
                "agent": {"url": "https://10.0.0.7:8444", "certificateFingerprint": "", "version": "0.1.0"},
                "host": {"os": {"family": "linux", "name": "Debian GNU/Linux", "version": "12"},
                    "memory": {"totalBytes": 68_719_476_736_i64, "usedBytes": 5_368_709_120_i64},
                    "cpuLoadAverage": {"oneMinute": 0.514, "fiveMinutes": 0.4, "fifteenMinutes": 0.3},
                    "gpus": [{"vendor": "NVIDIA", "modelName": "A10"}]}},
        });
        mock::merge(&mut object, changes);
        object
    }

    fn closed() -> Value {
        json!({"spec": {"placement": "Closed", "limits": {"maxVirtualSessions": 4}},
            "status": {"availability": "UNAVAILABLE", "unavailabilityReason": "SERVER_CLOSED", "host": null, "agent": null}})
    }

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        servers: Servers,
    }

    async fn run(words: &[&str], items: Vec<Value>) -> Result<Answer, Error> {
        let client = mock::client(move |_, path, _| match path.rsplit('/').next() {
            Some("dcvservers") => mock::list(&items),
            name => {
                let found = items.iter().find(|item| item["metadata"]["name"].as_str() == name);
                found.map_or_else(|| mock::not_found("no such server"), |found| (200, found.clone()))
            }
        });
        let wanted = Cli::try_parse_from(["servers"].iter().chain(words)).unwrap().servers;
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        show(&client, &wanted, &mut voice, now, std::future::pending()).await
    }

    #[tokio::test]
    async fn servers_are_listed_with_room_and_load() {
        let items = vec![server("gpu-7", &json!({})), server("gpu-8", &closed())];
        let expected = "\
NAME    AVAILABILITY   REASON          SESSIONS   LIMIT   LOAD     OS                    AGENT    AGE
gpu-7   AVAILABLE      <none>          3          -       0.51     Debian GNU/Linux 12   0.1.0    60m
gpu-8   UNAVAILABLE    SERVER_CLOSED   3          4       <none>   <none>                <none>   60m
";
        assert_eq!(run(&[], items.clone()).await.unwrap().data, expected);
        let wide = run(&["-owide", "--available"], items.clone()).await.unwrap().data;
        let line: Vec<_> = wide.lines().nth(1).unwrap().split_whitespace().skip(10).collect();
        assert_eq!(line, ["60m", "Open", "0", "2", "5120Mi/64Gi", "1", "vnc", "1.12", "10.0.0.7"]);
        let closed = run(&["--available=false", "-oname"], items).await.unwrap().data;
        assert_eq!(closed, "dcvserver.dcv-operator.io/gpu-8\n");
    }

    #[tokio::test]
    async fn one_server_is_told_whole_and_an_unknown_one_with_its_likes() {
        let console = json!({"status": {"otherSessions": [
            {"id": "console", "owner": "bob", "type": "CONSOLE", "origin": "Manual"}]}});
        let items = vec![server("gpu-7", &console)];
        let told = run(&["gpu-7"], items.clone()).await.unwrap().data;
        for line in [
            "Availability:        AVAILABLE",
            "Virtual sessions:    3, no limit",
            "Of one owner:        at most 2",
            "Without an object:   console of bob",
            "Load:                0.51, 0.40, 0.30",
            "GPUs:                NVIDIA A10",
            "Agent:               0.1.0 at https://10.0.0.7:8444",
            "Tags:                pool=render",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} in\n{told}");
        }
        let unknown = run(&["gpu-77"], items).await.unwrap_err();
        assert_eq!(words(&unknown), "Error from server (NotFound): no such server; did you mean gpu-7?");
    }

    #[test]
    fn bytes_have_few_figures() {
        assert_eq!([0, 5 << 30, 64 << 30, 20 << 40].map(bytes), ["0Mi", "5120Mi", "64Gi", "20Ti"]);
    }
}
