//! An agent of its own: the backend in a process that can be killed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dcv_operator::agent::backend::Backend;
use dcv_operator::agent::backend::Order;
use dcv_operator::agent::backend::Phase;
use dcv_operator::agent::backend::vnc::VncBackend;
use dcv_operator::agent::fault;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::Child;
use tokio::process::Command;

use crate::host::NoView;
use crate::host::TestHost;
use crate::host::settings;

/// Name of the test that is no test, in the command of each agent.
pub const AGENT_PROCESS: &str = "agents::agent_process";
/// What the harness is told to be it.
const ARGUMENTS: [&str; 3] = ["--exact", AGENT_PROCESS, "--nocapture"];
/// Variable that tells it the host's folder.
const FOLDER: &str = "VNC_TEST_HOST";
/// Where an agent talks with its test, and where points are named, in the host's folder.
const SOCKET: &str = "agent.sock";
const FAULTS: &str = "faults";
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(45);

#[derive(Serialize, Deserialize)]
enum Request {
    Create(Box<Order>),
    Announce(String),
    Close(String),
    List,
}

/// What `list` says of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub id: String,
    pub is_running: bool,
    pub is_announced: bool,
    /// Why it is over, if it is.
    pub ended: Option<String>,
}

/// A running agent, as its test talks with it.
pub struct Agent {
    /// Absent where somebody else has started it.
    process: Option<Child>,
    answers: Lines<BufReader<OwnedReadHalf>>,
    requests: OwnedWriteHalf,
}

/// Where the agents of a host call.
pub struct AgentListener(UnixListener);

impl AgentListener {
    /// Listens in the host's folder.
    pub fn bind(host: &TestHost) -> Self {
        let folder = host.folder.path();
        let _ = fs::create_dir(folder.join(FAULTS));
        let _ = fs::remove_file(folder.join(SOCKET));
        Self(UnixListener::bind(folder.join(SOCKET)).unwrap())
    }

    /// Adds the words that make an agent of `host`.
    pub fn add_command(command: &mut Command, host: &TestHost) {
        command.arg(std::env::current_exe().unwrap()).args(ARGUMENTS).env(FOLDER, host.folder.path());
    }

    /// The next agent that calls, and its pid.
    pub async fn accept(&self) -> (Agent, i32) {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.0.accept()).await.expect("an agent starts").unwrap();
        let pid = stream.peer_cred().unwrap().pid().unwrap();
        let (answers, requests) = stream.into_split();
        (Agent { process: None, answers: BufReader::new(answers).lines(), requests }, pid)
    }
}

/// Not a test: the process that [`Agent::start`] runs. By itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_process() {
    #[expect(clippy::disallowed_methods, reason = "the command line is the test harness's")]
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    fault::set_folder(folder.join(FAULTS));
    let (answers, mut requests) = UnixStream::connect(folder.join(SOCKET)).await.unwrap().into_split();
    let mut lines = BufReader::new(answers).lines();
    let backend = VncBackend::open(settings(folder), Arc::new(NoView)).await.unwrap();
    let mut answer = r#""opened""#.to_owned();
    loop {
        requests.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        let Some(line) = lines.next_line().await.unwrap() else { return };
        answer = match serde_json::from_str(&line).unwrap() {
            Request::Create(order) => json(&backend.create(&order).await.map_err(|error| error.to_string())),
            Request::Announce(id) => json(&backend.announce(&id).await.map_err(|error| error.to_string())),
            Request::Close(id) => json(&backend.close(&id).await.map_err(|error| error.to_string())),
            Request::List => json(&list(&backend).await),
        };
    }
}

async fn list(backend: &VncBackend) -> Vec<Listed> {
    let sessions = backend.list().await.unwrap().into_iter();
    let listed = sessions.map(|session| Listed {
        id: session.id,
        is_running: session.phase == Phase::Running,
        is_announced: session.announced,
        ended: if let Phase::Ended(reason) = session.phase { Some(reason) } else { None },
    });
    listed.collect()
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

impl Agent {
    /// Starts one on the host. It may still be looking at what is there.
    pub async fn start(host: &TestHost) -> Self {
        let listener = AgentListener::bind(host);
        let process = Command::new(std::env::current_exe().unwrap())
            .args(ARGUMENTS)
            .env(FOLDER, host.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (agent, _) = listener.accept().await;
        Self { process: Some(process), ..agent }
    }

    /// Waits until it has looked at what is there.
    pub async fn opened(mut self) -> Self {
        let opened: String = self.answer().await;
        assert_eq!(opened, "opened");
        self
    }

    /// Asks for a session; the answer is to be waited for.
    pub async fn ask_create(&mut self, order: &Order) {
        self.ask(&Request::Create(Box::new(order.clone()))).await;
    }

    pub async fn ask_announce(&mut self, id: &str) {
        self.ask(&Request::Announce(id.to_owned())).await;
    }

    pub async fn ask_close(&mut self, id: &str) {
        self.ask(&Request::Close(id.to_owned())).await;
    }

    /// What became of what was asked for.
    pub async fn outcome(&mut self) -> Result<(), String> {
        self.answer().await
    }

    pub async fn create(&mut self, order: &Order) -> Result<(), String> {
        self.ask_create(order).await;
        self.outcome().await
    }

    pub async fn announce(&mut self, id: &str) -> Result<(), String> {
        self.ask_announce(id).await;
        self.outcome().await
    }

    pub async fn close(&mut self, id: &str) -> Result<(), String> {
        self.ask_close(id).await;
        self.outcome().await
    }

    pub async fn list(&mut self) -> Vec<Listed> {
        self.ask(&Request::List).await;
        self.answer().await
    }

    /// Ends it with SIGKILL, and returns once it is gone.
    pub async fn kill(mut self) {
        self.process.as_mut().expect("its test has started it").kill().await.unwrap();
    }

    async fn ask(&mut self, request: &Request) {
        self.requests.write_all(format!("{}\n", json(request)).as_bytes()).await.unwrap();
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> T {
        let line = tokio::time::timeout(PATIENCE, self.answers.next_line()).await.expect("the agent answers");
        serde_json::from_str(&line.unwrap().expect("the agent lives")).unwrap()
    }
}

/// The points of a host's agents and session hosts.
impl TestHost {
    /// Whoever comes to `point` next stands still there.
    pub fn stop_at(&self, point: fault::Point) {
        fs::write(point.file(&self.faults()), "").unwrap();
    }

    /// Whether somebody stands at `point`.
    pub fn is_reached(&self, point: fault::Point) -> bool {
        point.reached(&self.faults()).exists()
    }

    /// Lets whoever stands at `point` go on.
    pub fn let_go(&self, point: fault::Point) {
        fs::remove_file(point.reached(&self.faults())).unwrap();
    }

    fn faults(&self) -> std::path::PathBuf {
        self.folder.path().join(FAULTS)
    }
}
