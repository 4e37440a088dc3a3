//! Asks the DCV server what it has. Changes nothing on it.
//!
//! Invariant: a command that fails, is late or prints something else is "cannot tell", never "nothing is there".

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Inner;
use super::arguments;
use super::marker::Note;
use super::marker::Stage;
use super::parse;
use super::parse::Told;
use crate::agent::backend::BackendError;
use crate::agent::backend::HostSession;
use crate::agent::backend::Phase;
use crate::agent::command::Answer;
use crate::agent::command::CommandError;
use crate::agent::command::Limits;
use crate::api::session::SessionType;

/// What a question may take: less than the agent waits for the host, so that our words are heard.
const QUESTION: Limits = Limits { time: Duration::from_secs(8), answer_bytes: 8 << 20 };
/// What the version may take, which is asked on the way.
const VERSION: Limits = Limits { time: Duration::from_secs(3), answer_bytes: 64 << 10 };
/// Questions asked at once about sessions one by one.
const QUESTIONS_AT_ONCE: usize = 8;
/// How long an answer serves all who ask: each question is a process on the host.
const FRESH: Duration = Duration::from_millis(200);
/// How long a version is taken as known, and how long one that could not be found out is left alone.
const VERSION_KNOWN: Duration = Duration::from_mins(10);
const VERSION_RETRY: Duration = Duration::from_secs(30);

/// Said of a session that was there and is not any more.
const IS_GONE: &str = "the session is no longer on the DCV server: it ended by itself, or the server was restarted";

/// The last answer to "which sessions are there".
#[derive(Debug)]
pub(super) struct Look {
    ended: Instant,
    /// Number of our last change before the question.
    generation: u64,
    told: Result<Arc<Vec<Told>>, String>,
}

/// Why there is no list.
enum Fault {
    /// The server cannot tell, or contradicts itself.
    All(String),
    /// It does not tell of one session that it has just listed.
    One(String),
}

impl Inner {
    /// Runs the `dcv` command.
    pub async fn dcv(&self, arguments: &[String], limits: Limits) -> Result<Answer, CommandError> {
        let mut words = vec![self.settings.command.as_str()];
        words.extend(arguments.iter().map(String::as_str));
        self.commands.run(&words, limits).await
    }

    /// The server's sessions now; never from before our own last change.
    pub async fn look(&self) -> Result<Arc<Vec<Told>>, String> {
        let mut last = self.look.lock().await;
        if let Some(look) = &*last
            && look.generation == self.generation.load(Ordering::SeqCst)
            && look.ended.elapsed() < FRESH
        {
            return look.told.clone();
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let told = self.ask_sessions().await.map(Arc::new);
        if let Ok(told) = &told {
            self.note_licences(told);
        }
        *last = Some(Look { ended: Instant::now(), generation, told: told.clone() });
        told
    }

    async fn ask_sessions(&self) -> Result<Vec<Told>, String> {
        let answer = self.dcv(&arguments::list_sessions(), QUESTION).await.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            let hint = if self.is_server_stopped() {
                format!("; {} does not run", self.settings.server_process)
            } else {
                String::new()
            };
            return Err(format!("{}{hint}", answer.words()));
        }
        parse::parse_sessions(&answer.text()).map_err(|error| error.to_string())
    }

    /// Every session, ours or not.
    pub async fn list(&self) -> Result<Vec<HostSession>, BackendError> {
        let listed = match self.list_once().await {
            // It may have ended since it was listed.
            Err(Fault::One(_)) => {
                self.changed();
                self.list_once().await
            }
            other => other,
        };
        let failed = |message| BackendError { action: "list the sessions of the DCV server", message };
        listed.map_err(|(Fault::All(message) | Fault::One(message))| failed(message))
    }

    async fn list_once(&self) -> Result<Vec<HostSession>, Fault> {
        let unread = |error| Fault::All(format!("the markers cannot be read: {error}"));
        // A marker is there before its session and until after it, so one of the two looks at markers finds it.
        let before = self.notes.all().map_err(unread)?;
        let told = self.look().await.map_err(Fault::All)?;
        let after = self.notes.all().map_err(unread)?;
        let is_missing = |id: &str| !told.iter().any(|told| told.id == id);
        let was_created = |note: Option<&Note>| note.is_some_and(|note| note.stage == Stage::Created);
        let is_lost = |id: &str| is_missing(id) && was_created(before.get(id)) && was_created(after.get(id));
        let lost: Vec<&str> = after.keys().map(String::as_str).filter(|id| is_lost(id)).collect();
        self.confirm_gone(&lost).await.map_err(Fault::All)?;
        let mut sessions = Vec::new();
        for told in told.iter() {
            let note = after.get(&told.id).or_else(|| before.get(&told.id));
            sessions.push(self.describe_one(told, note).await.map_err(Fault::One)?);
        }
        for (id, note) in after.iter().filter(|(id, _)| is_missing(id)) {
            let phase = match &note.stage {
                Stage::Creating => Phase::Preparing,
                Stage::Ended(reason) => Phase::Ended(reason.clone()),
                // Created and noted since the server was asked.
                Stage::Created if !lost.contains(&id.as_str()) => Phase::Running,
                Stage::Created => {
                    let ended = |note: &mut Note| note.stage = Stage::Ended(IS_GONE.to_owned());
                    self.notes.update(id, ended).map_err(|error| Fault::All(error.to_string()))?;
                    Phase::Ended(IS_GONE.to_owned())
                }
            };
            sessions.push(of_note(id, note, phase));
        }
        Ok(sessions)
    }

    async fn describe_one(&self, told: &Told, note: Option<&Note>) -> Result<HostSession, String> {
        // Another's of the same id is none of ours.
        let note = note.filter(|note| note.marker.owner == told.owner);
        let phase = match note.map(|note| &note.stage) {
            Some(Stage::Creating) => Phase::Preparing,
            Some(Stage::Ended(_)) => {
                self.notes.update(&told.id, |note| note.stage = Stage::Created).map_err(|error| error.to_string())?;
                Phase::Running
            }
            Some(Stage::Created) | None => Phase::Running,
        };
        let type_ = match told.kind().or(note.map(|note| note.type_)) {
            Some(type_) => type_,
            None => self.ask_kind(&told.id).await,
        };
        let num_of_connections = match told.connections {
            Some(number) => number,
            None => self.ask_connections(&told.id).await?,
        };
        Ok(HostSession {
            id: told.id.clone(),
            owner: told.owner.clone(),
            type_,
            marker: note.map(|note| note.marker.clone()),
            phase,
            announced: note.is_none_or(|note| note.announced),
            num_of_connections,
            last_disconnection_time: told.last_disconnection_time,
            creation_time: told.creation_time.or(note.map(|note| note.creation_time)),
        })
    }

    /// The kind of a session that the list does not tell.
    async fn ask_kind(&self, id: &str) -> SessionType {
        let answer = self.dcv(&arguments::describe(id), QUESTION).await;
        let told = answer.ok().filter(Answer::is_success).and_then(|answer| parse::parse_session(&answer.text()).ok());
        // The default on Linux.
        told.and_then(|told| told.kind()).unwrap_or(SessionType::Virtual)
    }

    async fn ask_connections(&self, id: &str) -> Result<i32, String> {
        let answer = self.dcv(&arguments::list_connections(id), QUESTION).await.map_err(|error| error.to_string())?;
        if !answer.is_success() {
            return Err(answer.words());
        }
        parse::parse_connections(&answer.text()).map_err(|error| error.to_string())
    }

    /// Makes sure that sessions that the list leaves out are gone: the server denies each that it is asked for by name, and
    /// then leaves them out once more. Anything else is an error.
    async fn confirm_gone(&self, ids: &[&str]) -> Result<(), String> {
        for some in ids.chunks(QUESTIONS_AT_ONCE) {
            futures::future::try_join_all(some.iter().map(|id| self.confirm_denied(id))).await?;
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.changed();
        let told = self.look().await?;
        match told.iter().find(|told| ids.contains(&told.id.as_str())) {
            Some(told) => Err(format!("the server leaves out the session {} now and then", told.id)),
            None => Ok(()),
        }
    }

    async fn confirm_denied(&self, id: &str) -> Result<(), String> {
        let answer = self.dcv(&arguments::describe(id), QUESTION).await.map_err(|error| error.to_string())?;
        if answer.is_success() || answer.status.code().is_none() {
            return Err(format!("the server leaves out the session {id} and yet describes it"));
        }
        Ok(())
    }

    /// Version of the server; empty while it is not known.
    pub async fn version(&self) -> String {
        let mut known = self.version.lock().await;
        if let Some((version, since)) = &*known {
            let limit = if version.is_empty() { VERSION_RETRY } else { VERSION_KNOWN };
            if since.elapsed() < limit {
                return version.clone();
            }
        }
        let answer = self.dcv(&arguments::version(), VERSION).await.ok().filter(Answer::is_success);
        let before = known.take().map(|(version, _)| version);
        let version = answer.and_then(|answer| parse::parse_version(&answer.text())).or(before).unwrap_or_default();
        *known = Some((version.clone(), Instant::now()));
        version
    }

    /// Whether the server's process surely does not run: the host's processes can be seen, and it is not among them.
    pub fn is_server_stopped(&self) -> bool {
        is_absent(&self.here(Path::new("/proc")), &self.settings.server_process)
    }

    /// What is known of the server's sessions is old.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Looks again and again, and tells when there is something new.
    pub async fn follow(self: Arc<Self>) {
        let mut before: Option<Seen> = None;
        loop {
            let seen = self.look().await.ok().map(|told| summary(&told));
            if before.as_ref() != Some(&seen) {
                before = Some(seen);
                self.changes.send_modify(|count| *count += 1);
            }
            tokio::time::sleep(self.settings.poll_interval).await;
        }
    }
}

/// What of the sessions is worth waking the agent for; `None`: the server could not be asked.
type Seen = Option<Vec<(String, Option<i32>, Option<Timestamp>)>>;

fn summary(told: &[Told]) -> Vec<(String, Option<i32>, Option<Timestamp>)> {
    told.iter().map(|told| (told.id.clone(), told.connections, told.last_disconnection_time)).collect()
}

fn of_note(id: &str, note: &Note, phase: Phase) -> HostSession {
    HostSession {
        id: id.to_owned(),
        owner: note.marker.owner.clone(),
        type_: note.type_,
        marker: Some(note.marker.clone()),
        phase,
        announced: note.announced,
        num_of_connections: 0,
        last_disconnection_time: None,
        creation_time: Some(note.creation_time),
    }
}

/// Whether no process of this name runs, as `processes`, a `/proc`, shows them. What cannot be seen is not absent.
fn is_absent(processes: &Path, name: &str) -> bool {
    /// Longest name of a process. Source: proc(5).
    const NAME_BYTES_MAX: usize = 15;
    let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
    let Ok(entries) = fs::read_dir(processes) else { return false };
    let mut has_first = false;
    for entry in entries {
        let Ok(entry) = entry else { return false };
        let file_name = entry.file_name();
        if !file_name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        has_first |= file_name == "1";
        // One that cannot be read has ended since.
        if fs::read(entry.path().join("stat")).is_ok_and(|stat| runs_as(&stat, name)) {
            return false;
        }
    }
    has_first
}

/// Whether a `/proc/<pid>/stat` is of a process of this name that has not ended. Source: proc(5).
fn runs_as(stat: &[u8], name: &[u8]) -> bool {
    let after = |byte| stat.iter().position(|other| *other == byte).map(|at| at + 1);
    let (Some(begin), Some(end)) = (after(b'('), stat.iter().rposition(|byte| *byte == b')')) else { return false };
    let has_ended = stat.get(end + 2).is_some_and(|state| matches!(state, b'Z' | b'X' | b'x'));
    stat.get(begin..end) == Some(name) && !has_ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_absent_only_where_all_can_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let process = |pid: &str, name: &str| {
            fs::create_dir_all(folder.path().join(pid)).unwrap();
            fs::write(folder.path().join(pid).join("stat"), format!("{pid} ({name} 1 2 3\n")).unwrap();
        };
        assert!(!is_absent(&folder.path().join("none"), "dcvserver"));
        assert!(!is_absent(folder.path(), "dcvserver"), "without a first process nothing is seen");
        process("1", "systemd) S");
        process("self", "dcvserver) S");
        process("76", "dcvserver) Z");
        process("75", "a (dcvserver) b) S");
        assert!(is_absent(folder.path(), "dcvserver"));
        process("77", "dcvserver) S");
        assert!(!is_absent(folder.path(), "dcvserver"));
        process("78", "a-very-long-nam) S");
        assert!(!is_absent(folder.path(), "a-very-long-name"));
    }
}
