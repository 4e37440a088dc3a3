//! `kubectl dcv top`: what servers have to do.

use std::cmp::Reverse;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;

use super::list::memory;
use crate::api::DcvServer;
use crate::api::server::Memory;
use crate::plugin::Answer;
use crate::plugin::args::DataFormat;
use crate::plugin::args::duration;
use crate::plugin::error::Error;
use crate::plugin::error::needs;
use crate::plugin::near;
use crate::plugin::print;
use crate::plugin::table;
use crate::plugin::voice::Voice;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
LOAD is the load average of a minute; LOAD% and MEMORY% are parts of all cores and of all memory. How busy a GPU is no agent \
tells. The figures are those that agents told last, half a minute ago at most.

With -w the table is drawn again and again, in a terminal in its place, else below.

Exit code: 0 done; 1 it failed; 130 interrupted, as -w always ends.

Examples:
  kubectl dcv top
  kubectl dcv top --sort-by memory -w
  kubectl dcv top -l team=render -o json";

/// Which servers, and how they are shown.
#[derive(Args, Clone, Debug)]
pub struct Top {
    /// Name of one DcvServer
    #[arg(value_name = "SERVER", conflicts_with = "selector")]
    pub server: Option<String>,
    /// Only those with these labels, such as team=a
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    pub sort_by: Order,
    /// Go on until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// How often it is looked, with --watch
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub interval: Duration,
    /// No line of titles
    #[arg(long)]
    pub no_headers: bool,
    /// Print as this instead of a table
    #[arg(short, long, value_enum, conflicts_with = "watch")]
    pub output: Option<DataFormat>,
}

/// The order of servers.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
pub enum Order {
    /// By name
    #[default]
    Name,
    /// The most load for its cores first
    Load,
    /// The fullest memory first
    Memory,
    /// The most sessions first
    Sessions,
}

/// A server with what it has to do. What is absent its agent does not tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    name: String,
    availability: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cores: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Memory>,
    virtual_sessions: i32,
    console_sessions: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_virtual_sessions: Option<i32>,
    logged_in_users: usize,
    gpus: Vec<String>,
}

/// All of them.
#[derive(Serialize)]
struct Uses {
    items: Vec<Use>,
}

impl Use {
    fn of(server: &DcvServer) -> Self {
        let status = server.status.clone().unwrap_or_default();
        let host = status.host.unwrap_or_default();
        let cores = host.cpu_info.map(|cpu| cpu.number_of_cpus * cpu.physical_cores_per_cpu);
        Self {
            name: server.name_any(),
            availability: status.availability.as_str(),
            load: host.cpu_load_average.map(|load| load.one_minute),
            cores: cores.filter(|cores| *cores > 0),
            memory: host.memory,
            swap: host.swap.filter(|swap| swap.total_bytes > 0),
            virtual_sessions: status.virtual_session_count.unwrap_or(0),
            console_sessions: status.console_session_count.unwrap_or(0),
            max_virtual_sessions: server.limits().max_virtual_sessions,
            logged_in_users: host.logged_in_users.len(),
            gpus: host.gpus.into_iter().map(|card| card.model_name).collect(),
        }
    }

    /// In thousandths, so that it can be compared.
    fn load_share(&self) -> Option<i64> {
        #[expect(clippy::cast_possible_truncation, reason = "a load is small")]
        Some((self.load? * 1000.0 / f64::from(self.cores?)) as i64)
    }

    fn memory_share(&self) -> Option<i64> {
        self.memory.filter(|memory| memory.total_bytes > 0).map(|memory| memory.used_bytes * 1000 / memory.total_bytes)
    }

    fn sessions(&self) -> i32 {
        self.virtual_sessions + self.console_sessions
    }

    fn cells(&self) -> Vec<String> {
        let percent = |share: Option<i64>| share.map_or_else(unknown, |share| format!("{}%", share / 10));
        let limit = match self.max_virtual_sessions {
            None | Some(-1) => String::new(),
            Some(limit) => format!("/{limit}"),
        };
        vec![
            self.name.clone(),
            self.load.map_or_else(unknown, |load| format!("{load:.2}")),
            percent(self.load_share()),
            self.memory.as_ref().map_or_else(unknown, memory),
            percent(self.memory_share()),
            self.swap.as_ref().map_or_else(|| "-".to_owned(), memory),
            format!("{}{limit}", self.virtual_sessions),
            self.console_sessions.to_string(),
            self.logged_in_users.to_string(),
            cards(&self.gpus),
        ]
    }
}

fn unknown() -> String {
    "<unknown>".to_owned()
}

/// Cards of the same model are counted.
fn cards(models: &[String]) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for model in models {
        match counted.iter_mut().find(|(known, _)| known == model) {
            Some((_, count)) => *count += 1,
            None => counted.push((model, 1)),
        }
    }
    let words = counted
        .into_iter()
        .map(|(model, count)| if count == 1 { model.to_owned() } else { format!("{count}x {model}") });
    let words: Vec<_> = words.collect();
    let text: String = words.join(", ").chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

const TITLES: [&str; 10] =
    ["NAME", "LOAD", "LOAD%", "MEMORY", "MEMORY%", "SWAP", "VIRTUAL", "CONSOLE", "USERS", "GPUS"];

/// Puts the cursor into the corner of an empty terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows them once, or until `stop`.
pub(super) async fn top(
    client: &Client,
    wanted: &Top,
    voice: &mut Voice<'_>,
    is_terminal: bool,
    stop: impl Future<Output = ()>,
) -> Result<Answer, Error> {
    let mut stop = pin!(stop);
    if !wanted.watch {
        let uses = tokio::select! {
            () = &mut stop => return Err(Error::Interrupted),
            uses = look(client, wanted) => uses?,
        };
        return answer(uses, wanted);
    }
    let mut is_first = true;
    loop {
        let uses = tokio::select! {
            () = &mut stop => return Err(Error::Stopped),
            uses = look(client, wanted) => uses?,
        };
        let between = match (is_terminal, std::mem::take(&mut is_first)) {
            (true, _) => CLEAR,
            (false, true) => "",
            (false, false) => "\n",
        };
        voice.print(&format!("{between}{}", drawn(&uses, wanted)))?;
        tokio::select! {
            () = &mut stop => return Err(Error::Stopped),
            () = tokio::time::sleep(wanted.interval) => {}
        }
    }
}

fn answer(items: Vec<Use>, wanted: &Top) -> Result<Answer, Error> {
    let is_empty = items.is_empty();
    let data = match wanted.output {
        Some(DataFormat::Json) => print::json(&Uses { items })?,
        Some(DataFormat::Yaml) => print::yaml(&Uses { items })?,
        None if is_empty => return Ok(Answer { talk: "No resources found.\n".to_owned(), ..Answer::default() }),
        None => drawn(&items, wanted),
    };
    Ok(Answer { data, ..Answer::default() })
}

async fn look(client: &Client, wanted: &Top) -> Result<Vec<Use>, Error> {
    let servers = if let Some(name) = &wanted.server {
        vec![near::server(client, name).await?]
    } else {
        let parameters = ListParams { label_selector: wanted.selector.clone(), ..ListParams::default() };
        let found = Api::<DcvServer>::all(client.clone()).list(&parameters).await;
        found.map_err(|error| needs("top", "list dcvservers", error))?.items
    };
    let mut uses: Vec<_> = servers.iter().map(Use::of).collect();
    match wanted.sort_by {
        Order::Name => uses.sort_by(|a, b| a.name.cmp(&b.name)),
        Order::Load => uses.sort_by_key(|it| (Reverse(it.load_share()), it.name.clone())),
        Order::Memory => uses.sort_by_key(|it| (Reverse(it.memory_share()), it.name.clone())),
        Order::Sessions => uses.sort_by_key(|it| (Reverse(it.sessions()), it.name.clone())),
    }
    Ok(uses)
}

fn drawn(uses: &[Use], wanted: &Top) -> String {
    let titles = (!wanted.no_headers).then(|| TITLES.map(str::to_owned).to_vec());
    let lines: Vec<_> = titles.into_iter().chain(uses.iter().map(Use::cells)).collect();
    table::aligned(&lines)
}

/// A time that leaves the API server in peace.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_secs(1) { Err("it is less than a second".to_owned()) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::plugin::mock;

    fn server(name: &str, load: f64, used: i64, sessions: i32) -> Value {
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": name}, "spec": {},
            "status": {"availability": "AVAILABLE", "virtualSessionCount": sessions, "consoleSessionCount": 0,
                "capacity": {"maxVirtualSessions": 10, "maxConcurrentSessionsPerUser": 1},
                "host": {"cpuLoadAverage": {"oneMinute": load, "fiveMinutes": 0.0, "fifteenMinutes": 0.0},
                    "cpuInfo": {"numberOfCpus": 1, "physicalCoresPerCpu": 4}, "loggedInUsers": ["ann", "bob"],
                    "memory": {"totalBytes": 1_i64 << 33, "usedBytes": used << 30},
                    "gpus": [{"vendor": "NVIDIA", "modelName": "A10"}, {"vendor": "NVIDIA", "modelName": "A10"}]}}})
    }

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        top: Top,
    }

    fn parse(words: &[&str]) -> Top {
        Cli::try_parse_from(["top"].iter().chain(words)).unwrap().top
    }

    async fn run(words: &[&str], is_terminal: bool) -> (Result<Answer, Error>, String) {
        let items = [
            server("a", 1.0, 4, 1),
            server("b", 3.0, 2, 0),
            json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer", "metadata": {"name": "c"}, "spec": {}}),
        ];
        let client = mock::client(move |_, _, _| mock::list(&items));
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        let mut voice = Voice { out: &mut out, talk: &mut talk };
        let stop = tokio::time::sleep(Duration::from_millis(1200));
        let answer = top(&client, &parse(words), &mut voice, is_terminal, stop).await;
        (answer, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn what_servers_have_to_do_is_told_in_the_order_that_is_asked_for() {
        let expected = "\
NAME   LOAD        LOAD%       MEMORY          MEMORY%     SWAP   VIRTUAL   CONSOLE   USERS   GPUS
a      1.00        25%         4096Mi/8192Mi   50%         -      1/10      0         2       2x A10
b      3.00        75%         2048Mi/8192Mi   25%         -      0/10      0         2       2x A10
c      <unknown>   <unknown>   <unknown>       <unknown>   -      0         0         0       -
";
        assert_eq!(run(&[], false).await.0.unwrap().data, expected);
        let order = async |by: &str| {
            let data = run(&["--sort-by", by, "--no-headers"], false).await.0.unwrap().data;
            data.lines().filter_map(|line| line.chars().next()).collect::<String>()
        };
        assert_eq!([order("load").await, order("memory").await, order("sessions").await], ["bac", "abc", "abc"]);
        let data: Value = serde_json::from_str(&run(&["-ojson"], false).await.0.unwrap().data).unwrap();
        assert_eq!((&data["items"][0]["load"], &data["items"][2].get("load")), (&json!(1.0), &None));
    }

    #[tokio::test]
    async fn it_is_drawn_in_place_in_a_terminal_and_nowhere_else() {
        let words = ["-w", "--interval", "1s", "--no-headers"];
        let (ended, printed) = run(&words, false).await;
        assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
        assert!(!printed.contains('\u{1b}') && printed.matches("\na ").count() == 1, "{printed}");
        assert_eq!(run(&words, true).await.1.matches(CLEAR).count(), 2);
        assert!(Cli::try_parse_from(["top", "--interval", "100ms"]).is_err());
        assert!(Cli::try_parse_from(["top", "-w", "-ojson"]).is_err());
    }
}
