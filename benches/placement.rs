//! How long placing takes over 10,000 servers, 1,000 distinct requirements and live updates; prints JSON.
//!
//! For comparison the same rules as CEL expressions and as a plain look at every server, over the same fleet. Times are
//! processor time of one thread, but for `decision_p99_us`, which is by the clock; `ledger_bytes_per_server` is what the resident memory of the process grows by.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;

use cel::Context;
use cel::Program;
use cel::Value;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSessionSpec;
use dcv_operator::api::server::Host;
use dcv_operator::api::server::Placement;
use dcv_operator::api::session::PlacementPolicy;
use dcv_operator::api::session::SessionType;
use dcv_operator::placement::Candidate;
use dcv_operator::placement::Explanation;
use dcv_operator::placement::Ledger;
use dcv_operator::placement::NewServers;
use dcv_operator::placement::Occupied;
use dcv_operator::placement::Request;
use dcv_operator::requirement::Dialect;
use dcv_operator::requirement::Requirement;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

const SERVERS: usize = 10_000;
const REQUIREMENTS: usize = 1_000;
const OWNERS: usize = 500;
const SETTLING: usize = 300_000;
const DECISIONS: usize = 1_000_000;
/// Sessions at once: about two thirds of the room.
const SESSIONS: usize = 50_000;
/// How often a server reports: each at most every 30 seconds.
const BETWEEN_REPORTS: Duration = Duration::from_millis(3);
/// How often a tag changes, or a server opens or closes.
const BETWEEN_CHANGES: Duration = Duration::from_millis(20);
const SLOW_DECISIONS: usize = 40;
/// Enough for a clock that goes in steps of milliseconds.
const PARSED: usize = 500_000;
const NEW_REQUIREMENTS: usize = 200;

const GPUS: [&str; 4] = ["t4", "a10", "l4", "v100"];
const INSTANCES: [&str; 5] = ["m5.xlarge", "m5.4xlarge", "g4dn.xlarge", "g5.2xlarge", "c6i.8xlarge"];

/// A fleet of five kinds of host in twenty pools, some Windows, some closed.
fn server(index: usize) -> DcvServer {
    let kind = index % INSTANCES.len();
    let mut tags = json!({
        "pool": format!("pool-{}", index % 20), "tier": (index / 7) % 4, "rack": format!("r{}", index % 97),
        "dcv:version": "2024.0", "image": format!("v{}", index % 13),
    });
    tags["tier"] = tags["tier"].to_string().into();
    if kind == 2 || kind == 3 {
        tags["gpu"] = GPUS[(index / 5) % GPUS.len()].into();
    }
    let is_windows = index % 10 == 9;
    let cpus = 1 << (kind + 1);
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
        "metadata": {"name": format!("host-{index}"), "uid": format!("uid-{index}"), "labels": {
            "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": format!("zone-{}", index % 3)}},
        "spec": if index % 50 == 1 { json!({"placement": "Closed"}) } else { json!({}) },
        "status": {
            "availability": "AVAILABLE", "version": "2024.0.17979", "hostname": format!("ip-10-0-{index}"), "tags": tags,
            "agent": {"url": "https://h:8444", "certificateFingerprint": "", "version": "0.1.0"},
            "capacity": {
                "sessionTypes": if is_windows { json!(["CONSOLE"]) } else { json!(["CONSOLE", "VIRTUAL"]) },
                "maxVirtualSessions": if is_windows { 0 } else { 4 + index % 9 },
                "maxConcurrentSessionsPerUser": 2, "gl": kind == 2,
            },
            "host": {
                "os": {"family": if is_windows { "windows" } else { "linux" }, "name": "Debian GNU/Linux", "version": "12"},
                "memory": {"totalBytes": (8_i64 << kind) << 30, "usedBytes": 1 << 30},
                "swap": {"totalBytes": 1 << 30, "usedBytes": 0},
                "aws": {"region": "eu-west-1", "ec2InstanceType": INSTANCES[kind], "ec2InstanceId": format!("i-{index:017}"),
                    "ec2ImageId": "ami-0123456789abcdef0"},
                "cpuInfo": {"vendor": "GenuineIntel", "modelName": "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
                    "architecture": "x86_64", "numberOfCpus": cpus, "physicalCoresPerCpu": 1},
                "cpuLoadAverage": {"oneMinute": 0.01 * (index % 100) as f64, "fiveMinutes": 0.5, "fifteenMinutes": 0.5},
                "gpus": if kind == 2 || kind == 3 { json!([{"vendor": "NVIDIA", "modelName": "Tesla T4"}]) } else { json!([]) },
            },
        },
    }))
    .expect("the server is well-formed")
}

/// A requirement, and the same in CEL. Distinct for each index.
fn rule(index: usize) -> (String, String) {
    let (pool, tier, gpu) = (index % 20, index % 4, GPUS[index % GPUS.len()]);
    // Distinct, and not so that it changes the answer.
    let least = format!("{}.{index}", index % 7);
    let cpus = format!("server:Host.CpuInfo.NumberOfCpus >= {least}");
    let cel_cpus = format!("cpus >= {least}");
    match index % 6 {
        0 => (
            format!("tag:pool = 'pool-{pool}' and {cpus}"),
            format!("has(tags.pool) && tags.pool == 'pool-{pool}' && {cel_cpus}"),
        ),
        1 => (
            format!("(tag:gpu = '{gpu}' or tag:gpu = 'l4') and {cpus} and server:Host.Os.Family = 'linux'"),
            format!("(has(tags.gpu) && (tags.gpu == '{gpu}' || tags.gpu == 'l4')) && {cel_cpus} && family == 'linux'"),
        ),
        2 => (
            format!("server:Host.Memory.TotalBytes > 16E9 and not tag:tier = '{tier}' and {cpus}"),
            format!("memory > 16000000000.0 && !(has(tags.tier) && tags.tier == '{tier}') && {cel_cpus}"),
        ),
        3 => (
            format!("server:Host.Aws.Ec2InstanceType := 'g4dn' and {cpus} and tag:tier = '{tier}'"),
            format!("instance.contains('g4dn') && {cel_cpus} && has(tags.tier) && tags.tier == '{tier}'"),
        ),
        4 => (format!("server:Host.CpuLoadAverage.OneMinute < 0.6 and {cpus}"), format!("load < 0.6 && {cel_cpus}")),
        _ => (
            format!("tag:image != 'v1' and (tag:pool = 'pool-{pool}' or tag:pool = 'pool-{tier}') and {cpus}"),
            format!(
                "has(tags.image) && tags.image != 'v1' && has(tags.pool) && (tags.pool == 'pool-{pool}' || tags.pool == 'pool-{tier}') && {cel_cpus}"
            ),
        ),
    }
}

fn request(requirements: &str, owner: usize) -> Request {
    let spec: DcvSessionSpec = serde_json::from_value(
        json!({"owner": format!("owner-{owner}"), "type": "VIRTUAL", "requirements": requirements}),
    )
    .expect("the session is well-formed");
    let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "demo".to_owned())]);
    Request::of(&spec, "demo", &labels, Dialect::Extended).expect("the session can be placed")
}

fn candidate(server: &DcvServer) -> Candidate {
    Candidate::of(server, true, false, NewServers::Open)
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("every process has some");
    let kilobytes: f64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of kB");
    kilobytes * 1024.0
}

/// Time that this thread has had a processor, so that the load of the machine does not count.
fn processor_time() -> Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = schedule.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number of nanoseconds"))
}

/// Nanoseconds of processor time since `start`, for each of `count`.
fn nanoseconds_since(start: Duration, count: usize) -> f64 {
    processor_time().saturating_sub(start).as_nanos() as f64 / count as f64
}

/// Sessions that come and go, servers that report and change.
struct World {
    ledger: Ledger,
    servers: Vec<DcvServer>,
    requests: Vec<Request>,
    present: VecDeque<String>,
    came: usize,
    random: StdRng,
    next_report: Instant,
    next_change: Instant,
}

impl World {
    /// Places one session and lets the world move on. How long the decision took.
    fn step(&mut self) -> Duration {
        let request = &self.requests[self.random.random_range(0..self.requests.len())];
        let start = Instant::now();
        let server = self.ledger.choose(request, PlacementPolicy::Spread);
        let took = start.elapsed();
        self.came += 1;
        if let Some(server) = server {
            let uid = format!("session-{}", self.came);
            self.ledger.reserve(&uid, 1, &server, &request.owner, SessionType::Virtual);
            self.present.push_back(uid);
        }
        if self.present.len() > SESSIONS {
            let leaves = self.random.random_range(0..self.present.len());
            self.ledger.forget(&self.present.swap_remove_back(leaves).expect("it is one of them"));
        }
        let index = self.random.random_range(0..self.servers.len());
        let server = &mut self.servers[index];
        if start >= self.next_report {
            self.next_report = start + BETWEEN_REPORTS;
            let load =
                server.status.as_mut().and_then(|it| it.host.as_mut()?.cpu_load_average.as_mut()).expect("reported");
            load.one_minute = self.random.random_range(0.0..1.0);
            self.ledger.set_server(candidate(server));
        }
        if start >= self.next_change {
            self.next_change = start + BETWEEN_CHANGES;
            let tags = &mut server.status.as_mut().expect("reported").tags;
            tags.insert("pool".to_owned(), format!("pool-{}", self.random.random_range(0..20)));
            let is_open = server.is_open();
            server.spec.placement = (is_open && index % 50 == 1).then_some(Placement::Closed);
            self.ledger.set_server(candidate(server));
            black_box(self.ledger.take_woken());
        }
        took
    }
}

/// Open, and with room for one virtual session more.
fn has_room(server: Occupied<'_>) -> bool {
    let Candidate { shut, max_virtual, virtual_: has_virtual, .. } = server.candidate;
    let (console, virtual_) = server.sessions();
    shut.is_none() && console == 0 && virtual_ < (*max_virtual).into() && *has_virtual
}

/// The sessions on the emptiest server that `suits` accepts: the same decision by looking at each.
fn by_looking_at_all<'a>(
    servers: impl Iterator<Item = Occupied<'a>>,
    suits: impl Fn(usize, Occupied<'_>) -> bool,
) -> Option<i64> {
    let fitting = servers.enumerate().filter(|(at, server)| has_room(*server) && suits(*at, *server));
    fitting.map(|(_, server)| (server.sessions().1, &*server.candidate.name)).min().map(|(sessions, _)| sessions)
}

/// The facts of a server for CEL.
fn cel_context<'a>(root: &'a Context<'a>, server: &DcvServer) -> Context<'a> {
    let status = server.status.as_ref().expect("reported");
    let Host { os, memory, aws, cpu_info, cpu_load_average, .. } = status.host.clone().expect("reported");
    let mut context = root.new_inner_scope();
    context.add_variable_from_value("tags", status.tags.clone().into_iter().collect::<HashMap<_, _>>());
    context.add_variable_from_value("family", os.expect("reported").family);
    context.add_variable_from_value("instance", aws.expect("reported").ec2_instance_type);
    context.add_variable_from_value("memory", memory.expect("reported").total_bytes as f64);
    context.add_variable_from_value("cpus", f64::from(cpu_info.expect("reported").number_of_cpus));
    context.add_variable_from_value("load", cpu_load_average.expect("reported").one_minute);
    context
}

/// Nanoseconds that a clause takes.
fn clause_time(ledger: &Ledger, requests: &[Request]) -> f64 {
    // Few servers, many times: what is measured is the evaluation, not how far away memory is.
    let few: Vec<Occupied<'_>> = ledger.servers().take(64).collect();
    let (mut clauses, mut held) = (0, 0);
    let start = processor_time();
    for request in requests.iter().cycle().take(20 * REQUIREMENTS) {
        for clause in request.wants.requirement.iter().flat_map(|it| it.clauses()) {
            held += few.iter().filter(|server| clause.matches(*server)).count();
            clauses += few.len();
        }
    }
    let clause_ns = nanoseconds_since(start, clauses);
    black_box(held);
    clause_ns
}

fn main() {
    let rules: Vec<(String, String)> = (0..REQUIREMENTS).map(rule).collect();
    let requests: Vec<Request> = rules.iter().enumerate().map(|(at, (text, _))| request(text, at % OWNERS)).collect();

    // First, while nothing has been freed that could be used again.
    let before = resident_bytes();
    let mut ledger = Ledger::default();
    for index in 0..SERVERS {
        ledger.set_server(candidate(&server(index)));
    }
    for request in &requests {
        ledger.group(request);
    }
    let ledger_bytes_per_server = (resident_bytes() - before) / SERVERS as f64;

    let start = processor_time();
    for (text, _) in rules.iter().cycle().take(PARSED) {
        black_box(Requirement::parse(black_box(text), Dialect::Extended).expect("it is well-formed"));
    }
    let parse_ns = nanoseconds_since(start, PARSED);

    let servers: Vec<DcvServer> = (0..SERVERS).map(server).collect();
    let mut world = World {
        ledger,
        servers,
        requests,
        present: VecDeque::new(),
        came: 0,
        random: StdRng::seed_from_u64(1),
        next_report: Instant::now(),
        next_change: Instant::now(),
    };
    // Until the fleet is as full as it gets and every requirement has been asked for many times.
    for _ in 0..SETTLING {
        world.step();
    }
    let start = processor_time();
    let mut times: Vec<Duration> = (0..DECISIONS).map(|_| world.step()).collect();
    let decisions_per_second = 1e9 / nanoseconds_since(start, DECISIONS);
    times.sort_unstable();
    let decision_p99_us = times[DECISIONS * 99 / 100].as_nanos() as f64 / 1e3;
    let World { mut ledger, servers, requests, .. } = world;

    let clause_ns = clause_time(&ledger, &requests);

    let start = processor_time();
    for index in 0..NEW_REQUIREMENTS {
        black_box(ledger.choose(&request(&rule(REQUIREMENTS + index).0, index), PlacementPolicy::Spread));
    }
    let first_seen_ms = nanoseconds_since(start, NEW_REQUIREMENTS) / 1e6;

    let start = processor_time();
    for request in requests.iter().take(SLOW_DECISIONS) {
        black_box(Explanation::of(&ledger, request));
    }
    let explanation_ms = nanoseconds_since(start, SLOW_DECISIONS) / 1e6;

    let asked = &requests[..SLOW_DECISIONS];
    let start = processor_time();
    let scanned: Vec<_> = asked
        .iter()
        .map(|request| {
            let requirement = request.wants.requirement.as_ref().expect("each has one");
            by_looking_at_all(ledger.servers(), |_, server| requirement.matches(&server))
        })
        .collect();
    let scan_decisions_per_second = 1e9 / nanoseconds_since(start, SLOW_DECISIONS);

    let root = Context::default();
    let by_name: BTreeMap<&str, &DcvServer> =
        servers.iter().map(|server| (server.metadata.name.as_deref().expect("named"), server)).collect();
    let contexts: Vec<Context<'_>> =
        ledger.servers().map(|server| cel_context(&root, by_name[&*server.candidate.name])).collect();
    let programs: Vec<Program> =
        rules[..SLOW_DECISIONS].iter().map(|(_, cel)| Program::compile(cel).expect("it is well-formed")).collect();
    let start = processor_time();
    let by_cel: Vec<_> = programs
        .iter()
        .map(|program| {
            let suits = |at: usize| matches!(program.execute(&contexts[at]), Ok(Value::Bool(true)));
            by_looking_at_all(ledger.servers(), |at, _| suits(at))
        })
        .collect();
    let cel_decisions_per_second = 1e9 / nanoseconds_since(start, SLOW_DECISIONS);

    // The comparison is of equals only if all say the same. Whether its owner has too many there, only the ledger asks.
    assert_eq!(by_cel, scanned, "CEL decides otherwise");
    for (request, expected) in asked.iter().zip(scanned) {
        let anybody = Request { owner: "nobody".to_owned(), ..request.clone() };
        let chosen = ledger.choose(&anybody, PlacementPolicy::Spread);
        let sessions = chosen.map(|name| i64::from(ledger.occupancy(&name).sessions()));
        assert_eq!(sessions, expected, "the ledger decides otherwise");
    }

    let rounded = |figure: f64| (figure * 1000.0).round() / 1000.0;
    let figures = json!({
        "parse_ns": parse_ns.round(),
        "clause_ns": rounded(clause_ns),
        "decisions_per_second": decisions_per_second.round(),
        "decision_p99_us": rounded(decision_p99_us),
        "first_seen_ms": rounded(first_seen_ms),
        "explanation_ms": rounded(explanation_ms),
        "ledger_bytes_per_server": ledger_bytes_per_server.round(),
        "cel_decisions_per_second": rounded(cel_decisions_per_second),
        "scan_decisions_per_second": rounded(scan_decisions_per_second),
    });
    println!("{figures}");
}
