//! Programs of the host: run through a prefix, without a shell, for a limited time and with a limited answer.
//!
//! A command gets a small environment of its own and nothing of the agent's. One that takes too long, says too much or
//! is no longer waited for is killed, with everything it has started.

use std::fmt::Display;
use std::io;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::process::Command;

/// Where programs are looked for, on the host too.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most that is kept of what a command complains.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;
/// How long what is in the pipes is waited for once the command has ended: something it left behind may hold them open.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How programs of the host are run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    prefix: Vec<String>,
}

/// What one command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time until it has ended.
    pub time: Duration,
    /// Most bytes of its answer.
    pub answer_bytes: u64,
}

/// What a command that ended by itself has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub output: Vec<u8>,
    /// What it complained; the beginning, when that was much.
    pub complaint: Vec<u8>,
}

/// Why there is no answer. Says nothing of what the command has done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{program} could not be run: {source}")]
    NotRun { program: String, source: io::Error },
    #[error("{program} did not answer within {} s", .limit.as_secs())]
    TooSlow { program: String, limit: Duration },
    #[error("{program} answered more than {limit} bytes")]
    TooLong { program: String, limit: u64 },
}

impl Commands {
    /// Runs programs through `prefix`, as in `chroot /host`.
    pub fn new(prefix: Vec<String>) -> Self {
        Self { prefix }
    }

    /// Runs `words`, a program and its arguments as they are, to its end.
    pub async fn run<W: AsRef<str>>(&self, words: &[W], limits: Limits) -> Result<Answer, CommandError> {
        let program = words.first().map(|word| word.as_ref().to_owned()).unwrap_or_default();
        let mut all = self.prefix.iter().map(String::as_str).chain(words.iter().map(AsRef::as_ref));
        let mut command = Command::new(all.next().unwrap_or_default());
        command.args(all).env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        let not_run = |source| CommandError::NotRun { program: program.clone(), source };
        let mut running = Running::new(command.spawn().map_err(not_run)?);
        match tokio::time::timeout(limits.time, running.answer(limits.answer_bytes)).await {
            Ok(Ok(Some(answer))) => {
                running.group = None;
                Ok(answer)
            }
            Ok(Ok(None)) => Err(CommandError::TooLong { program, limit: limits.answer_bytes }),
            Ok(Err(error)) => Err(not_run(error)),
            Err(_) => Err(CommandError::TooSlow { program, limit: limits.time }),
        }
    }
}

/// A command at work. Dropping it kills its process group, which only it and what it started are in.
struct Running {
    child: Child,
    /// The group, until the command has ended by itself: after that its number may be another's.
    group: Option<Pid>,
}

impl Running {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, group }
    }

    /// What it says, once it has ended; `None`: more than may be.
    async fn answer(&mut self, bytes_max: u64) -> io::Result<Option<Answer>> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let (read, status) = {
            let reading =
                async { tokio::try_join!(read_all(stdout, bytes_max, &mut output), read_some(stderr, &mut complaint)) };
            tokio::pin!(reading);
            tokio::select! {
                read = &mut reading => (read, None),
                status = self.child.wait() => {
                    let rest = tokio::time::timeout(DRAIN_LIMIT, &mut reading).await;
                    (rest.unwrap_or(Ok(((), ()))), Some(status?))
                }
            }
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(None),
            other => other?,
        };
        let status = match status {
            Some(status) => status,
            None => self.child.wait().await?,
        };
        Ok(Some(Answer { status, output, complaint }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group.filter(|_| self.child.id().is_some()) {
            // The command itself is killed and collected by its own handle, should it be in no group any more.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Reads everything; that it is more than `bytes_max` bytes is an error, at once.
async fn read_all(pipe: Option<impl AsyncRead + Unpin>, bytes_max: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    // One byte more than may be, to tell a full answer from a longer one.
    pipe.take(bytes_max + 1).read_to_end(into).await?;
    if u64::try_from(into.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// Reads everything and keeps the beginning: who writes is never held up.
async fn read_some(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    (&mut pipe).take(COMPLAINT_BYTES_MAX).read_to_end(into).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(())
}

impl Answer {
    /// Whether it says that it did what it was told.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// What it printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    /// What it says of a failure, for people: its complaint, else what it printed, else how it ended.
    pub fn words(&self) -> String {
        let said = [&self.complaint, &self.output].map(|bytes| plain(String::from_utf8_lossy(bytes)));
        let said = said.into_iter().find(|text| !text.is_empty());
        said.unwrap_or_else(|| format!("it ended with {} and without a word", self.status))
    }
}

/// A text of the host as one line of bounded length, without control characters.
pub fn plain(text: impl Display) -> String {
    /// Longer than any message worth reading.
    const CHARS_MAX: usize = 400;
    let text = text.to_string();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > CHARS_MAX * 4 {
            break;
        }
    }
    if line.chars().count() > CHARS_MAX {
        line = line.chars().take(CHARS_MAX).chain(['…']).collect();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), answer_bytes: 1000 };

    async fn run(script: &str, limits: Limits) -> Result<Answer, CommandError> {
        Commands::default().run(&["sh", "-c", script], limits).await
    }

    #[tokio::test]
    async fn words_are_given_as_they_are_behind_the_prefix() {
        let commands = Commands::new(vec!["env".into(), "printf".into(), "%s|".into()]);
        let answer = commands.run(&["dcv", "a b", "$x;`id`", "%s"], LIMITS).await.unwrap();
        assert_eq!(answer.text(), "dcv|a b|$x;`id`|%s|");
        assert!(answer.is_success());
    }

    #[tokio::test]
    async fn a_command_sees_nothing_of_the_agents_environment() {
        let answer = run("env | cut -d= -f1 | sort | tr '\\n' ' '", LIMITS).await.unwrap();
        // The shell adds its own.
        let seen: Vec<String> = answer.text().split_whitespace().map(str::to_owned).collect();
        let others =
            seen.iter().filter(|name| !["LC_ALL", "PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name.as_str()));
        assert_eq!(others.count(), 0, "{seen:?}");
    }

    #[tokio::test]
    async fn a_failure_is_told_in_the_commands_words() {
        let words = async |script| run(script, LIMITS).await.unwrap().words();
        assert_eq!(words("echo out; echo 'no\u{1b} licenses\n' >&2; exit 1").await, "no licenses");
        assert_eq!(words("echo out; exit 1").await, "out");
        assert_eq!(words("exit 3").await, "it ended with exit status: 3 and without a word");
        assert_eq!(plain("x".repeat(1000)).chars().count(), 401);
    }

    /// A script that notes the pid of something it starts, and waits.
    fn leaves_a_child(folder: &std::path::Path) -> String {
        format!("sleep 600 & echo $! >{0}/part; mv {0}/part {0}/pid; wait", folder.display())
    }

    async fn until_killed(folder: &std::path::Path) {
        let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < end, "what the command started lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_slow_command_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let script = leaves_a_child(folder.path());
        let error = run(&script, Limits { time: Duration::from_millis(500), ..LIMITS }).await.unwrap_err();
        assert_eq!(error.to_string(), "sh did not answer within 0 s");
        until_killed(folder.path()).await;
    }

    #[tokio::test]
    async fn a_command_nobody_waits_for_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script = leaves_a_child(folder.path());
        let task = tokio::spawn(async move { run(&script, LIMITS).await });
        let end = Instant::now() + Duration::from_secs(10);
        while !folder.path().join("pid").exists() {
            assert!(Instant::now() < end, "it does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        task.abort();
        let _ = task.await;
        until_killed(folder.path()).await;
    }

    #[tokio::test]
    async fn an_endless_answer_is_an_error_and_an_endless_complaint_is_cut() {
        let error = run("yes", LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), "sh answered more than 1000 bytes");
        let full = run("head -c 1000 /dev/zero", LIMITS).await.unwrap();
        assert_eq!(full.output.len(), 1000);
        let loud = run("head -c 1000000 /dev/zero >&2; echo done", LIMITS).await.unwrap();
        assert_eq!((loud.text().as_str(), loud.complaint.len()), ("done\n", 16 << 10));
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_neither_holds_us_up_nor_is_killed() {
        let begin = Instant::now();
        let answer = run("sleep 30 & echo $!", LIMITS).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        let pid = answer.text().trim().parse().unwrap();
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_told() {
        let error = Commands::default().run(&["/no/such/dcv"], LIMITS).await.unwrap_err();
        assert_eq!(error.to_string(), "/no/such/dcv could not be run: No such file or directory (os error 2)");
    }
}
