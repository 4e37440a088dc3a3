//! Creates sessions on the DCV server, and ends them.
//!
//! The marker first, the command second: whatever is cut off between the two, an agent that comes back knows whose it is.
//! That the command was content means only that the server has begun: what counts is that the session is there and stays.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::arguments;
use super::arguments::NewSession;
use super::marker::Note;
use super::marker::Stage;
use super::marker::is_id;
use super::parse::Told;
use super::private::PrivateFile;
use super::private::Reader;
use super::private::wrapper;
use super::words::create_failure;
use crate::agent::backend::BackendError;
use crate::agent::backend::CreateError;
use crate::agent::backend::Order;
use crate::agent::backend::account;
use crate::agent::backend::account::Account;
use crate::agent::backend::account::OwnerRefusal;
use crate::agent::backend::files::program_below;
use crate::agent::backend::files::storage_root;
use crate::agent::command::Limits;
use crate::agent::command::plain;
use crate::api::session::SessionType;
use crate::permissions::Permissions;

/// What a change on the server may take.
pub(super) const CHANGE: Limits = Limits { time: Duration::from_secs(40), answer_bytes: 1 << 20 };
/// What making a folder may take: it may be on a server for files.
const MAKE_FOLDER: Limits = Limits { time: Duration::from_secs(20), answer_bytes: 64 << 10 };
/// Between two looks at whether a session has come or gone.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long one call waits until a session is gone.
const CLOSE_LIMIT: Duration = Duration::from_secs(45);
/// Wait before a session that is still there is closed again.
const CLOSE_AGAIN: Duration = Duration::from_secs(10);
/// Wait before a host that cannot be asked is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// What an order becomes on this host.
struct Prepared {
    account: Account,
    init: Option<String>,
    autorun: Option<Vec<String>>,
    storage_root: Option<String>,
}

/// What is made for a create. The permissions go with it.
struct Made {
    permissions: Option<PrivateFile>,
    init: Option<String>,
}

fn failed(reason: impl std::fmt::Display) -> CreateError {
    CreateError::Failed(plain(reason))
}

fn refused(reason: impl std::fmt::Display) -> CreateError {
    CreateError::Refused(plain(reason))
}

impl Inner {
    /// Creates a session, and returns once it is there and stays. After an error nothing of it is left.
    pub async fn create(&self, order: &Order) -> Result<(), CreateError> {
        let prepared = self.prepare(order).await?;
        let is_there = self.look_before(order).await?;
        self.note(order)?;
        let outcome = if is_there { self.until_it_stays(order).await } else { self.begin(order, &prepared).await };
        let noted = outcome.and_then(|()| {
            let created = self.notes.update(&order.id, |note| note.stage = Stage::Created);
            created.map_err(|error| failed(format!("the session could not be marked: {error}")))
        });
        let Err(error) = noted else { return Ok(()) };
        // As long as something of it may be there nobody is told that it failed; the caller's patience is the limit.
        while let Err(left) = self.close(&order.id).await {
            tracing::warn!(session = order.id, %left, reason = %error, "not cleared after a failed create");
            tokio::time::sleep(RETRY).await;
        }
        Err(error)
    }

    /// Checks what can be checked before anything is made.
    async fn prepare(&self, order: &Order) -> Result<Prepared, CreateError> {
        let settings = &self.settings;
        if !is_id(&order.id) {
            return Err(refused(format!("{:?} is no session id", order.id)));
        }
        if order.type_ == SessionType::Console {
            let only_virtual = [
                (order.init_file.is_some(), "initFile"),
                (order.autorun_file.is_some(), "autorunFile"),
                (order.dcv_gl_enabled == Some(true), "dcvGlEnabled"),
            ];
            if let Some((_, field)) = only_virtual.iter().find(|(is_set, _)| *is_set) {
                return Err(refused(format!("a CONSOLE session on Linux takes no {field}")));
            }
        }
        Permissions::parse(order.permissions.as_deref()).map_err(|error| refused(format!("permissions: {error}")))?;
        account::check_name(&order.owner, settings.owner_pattern.as_ref()).map_err(refused)?;
        let account = match self.names.account(&order.owner).await {
            Ok(Some(account)) => account,
            Ok(None) => return Err(refused(OwnerRefusal::Unknown(order.owner.clone()))),
            Err(error) => return Err(failed(error)),
        };
        let agent_uid = nix::unistd::geteuid().as_raw();
        account::check_account(&account, settings.min_uid, agent_uid).map_err(refused)?;
        let program = |folder: &Path, file: &str, what| self.program(folder, file, what, &account);
        let init =
            order.init_file.as_deref().map(|file| program(&settings.init_folder, file, "initFile")).transpose()?;
        let autorun = order.autorun_file.as_deref();
        let autorun = autorun.map(|file| program(&settings.autorun_folder, file, "autorunFile")).transpose()?;
        let autorun =
            autorun.map(|file| [std::slice::from_ref(&file), order.autorun_file_arguments.as_slice()].concat());
        if autorun.iter().flatten().any(|word| word.contains('\0')) {
            return Err(refused("an argument of autorunFile contains a NUL"));
        }
        if autorun.is_some() && !self.private.are_executable() {
            let folder = settings.files_folder.display();
            return Err(refused(format!("autorunFile cannot be started: {folder} is mounted noexec on this host")));
        }
        let storage = order.storage_root.as_deref().map(|text| storage_root(text, &account.home));
        let storage = storage.transpose().map_err(refused)?.map(|path| path.to_string_lossy().into_owned());
        Ok(Prepared { account, init, autorun, storage_root: storage })
    }

    /// Path on the host of a program that a session names.
    fn program(&self, folder: &Path, file: &str, what: &'static str, account: &Account) -> Result<String, CreateError> {
        let program = program_below(&self.here(folder), file, what, account).map_err(refused)?;
        let root = std::fs::canonicalize(&self.settings.host_root).map_err(failed)?;
        // What is below the folder is below the root that the folder is seen in.
        let below = Path::new(&program).strip_prefix(&root).map_err(failed)?;
        Ok(Path::new("/").join(below).to_string_lossy().into_owned())
    }

    /// Whether the session is there already; an error when it may not be made beside what is there.
    async fn look_before(&self, order: &Order) -> Result<bool, CreateError> {
        let note = self.notes.read(&order.id);
        let note = note.map_err(|error| failed(format!("the session's marker cannot be read: {error}")))?;
        let told = loop {
            match self.look().await {
                Ok(told) => break told,
                Err(error) if note.is_none() => {
                    return Err(failed(format!("the DCV server cannot be asked: {error}")));
                }
                // Something of it may run, so nobody may be told that it failed.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        if let Some(told) = told.iter().find(|told| told.id == order.id) {
            if told.owner != order.owner || note.is_none_or(|note| note.marker.owner != told.owner) {
                return Err(refused("the DCV server already runs another session of this id"));
            }
            return Ok(true);
        }
        // Source: "Introduction to Amazon DCV sessions" in the Administrator Guide: never both kinds at the same time.
        let is_other = |told: &&Told| told.kind().unwrap_or(SessionType::Virtual) != order.type_;
        if let Some(other) = told.iter().find(is_other) {
            let reason = format!(
                "a DCV server runs either CONSOLE or VIRTUAL sessions at a time, and this one runs the session {}",
                other.id
            );
            return Err(refused(reason));
        }
        if order.type_ == SessionType::Console && !told.is_empty() {
            return Err(refused("the DCV server already runs a CONSOLE session"));
        }
        Ok(false)
    }

    /// The marker goes onto the host before anything else does.
    fn note(&self, order: &Order) -> Result<(), CreateError> {
        let before = self.notes.read(&order.id).ok().flatten();
        let note = Note {
            marker: order.marker.clone(),
            type_: order.type_,
            creation_time: before.as_ref().map_or_else(self.settings.clock, |note| note.creation_time),
            stage: match before.as_ref().map(|note| &note.stage) {
                Some(Stage::Created) => Stage::Created,
                _ => Stage::Creating,
            },
            announced: before.is_some_and(|note| note.announced),
        };
        self.notes.write(&order.id, &note).map_err(|error| failed(format!("the marker cannot be written: {error}")))
    }

    /// Tells the server to create it.
    async fn begin(&self, order: &Order, prepared: &Prepared) -> Result<(), CreateError> {
        if let Some(folder) = &prepared.storage_root {
            self.make_storage(folder, &prepared.account).await?;
        }
        let made = self.make_files(order, prepared).await?;
        let words = arguments::create(&NewSession {
            id: &order.id,
            type_: order.type_,
            name: &order.display_name,
            owner: &order.owner,
            // Only root may create for others; the rest creates for itself.
            user: nix::unistd::geteuid().is_root().then_some(order.owner.as_str()),
            permissions_file: made.permissions.as_ref().map(PrivateFile::path),
            storage_root: prepared.storage_root.as_deref(),
            gl: order.dcv_gl_enabled,
            max_concurrent_clients: order.max_concurrent_clients,
            init: made.init.as_deref(),
            disables_login_monitor: self.settings.disables_login_monitor,
        });
        let answer = {
            let _turn = self.creates.acquire().await.map_err(failed)?;
            self.dcv(&words, CHANGE).await
        };
        self.changed();
        match answer {
            Ok(answer) if answer.is_success() => {
                self.licence_given();
                self.until_it_stays(order).await
            }
            Ok(answer) => {
                let meaning = create_failure(&answer.words(), &order.owner);
                if meaning.lacks_licence {
                    self.licence_denied(&answer.words());
                }
                // An earlier command of ours may have been heard after all.
                match self.look().await {
                    Ok(told) if told.iter().any(|told| told.id == order.id) => self.until_it_stays(order).await,
                    _ => Err(meaning.error),
                }
            }
            // It may have been heard all the same.
            Err(error) => self.until_it_stays(order).await.map_err(|_| failed(error)),
        }
    }

    async fn make_files(&self, order: &Order, prepared: &Prepared) -> Result<Made, CreateError> {
        let unmade = |what: &str, error| failed(format!("the file of {what} could not be made: {error}"));
        let permissions = match &order.permissions {
            Some(text) => {
                let file = self.private.make(&order.id, text, Reader::Group(self.server_group().await));
                Some(file.map_err(|error| unmade("the session's permissions", error))?)
            }
            None => None,
        };
        let Some(autorun) = &prepared.autorun else {
            return Ok(Made { permissions, init: prepared.init.clone() });
        };
        let default = self.settings.default_init();
        let text = wrapper(prepared.init.as_deref().unwrap_or(&default), autorun);
        let reader = Reader::Account { uid: prepared.account.uid, gid: prepared.account.gid };
        let file = self.private.make(&order.id, &text, reader).map_err(|error| unmade("autorunFile", error))?;
        let init = Some(file.path().to_owned());
        // Needed for as long as the session may still be starting.
        file.keep();
        Ok(Made { permissions, init })
    }

    /// The group that the server's process reads files by.
    pub(super) async fn server_group(&self) -> Option<u32> {
        let account = self.names.account(&self.settings.server_account).await.ok().flatten();
        account.map(|account| account.gid)
    }

    /// Makes the folder as the account it is for, so that nothing is made that the account could not make itself. Without a
    /// folder the server leaves file storage out and says nothing.
    async fn make_storage(&self, folder: &str, account: &Account) -> Result<(), CreateError> {
        let numbers = [format!("--reuid={}", account.uid), format!("--regid={}", account.gid)];
        let groups: Vec<_> = account.groups.iter().map(u32::to_string).collect();
        let groups = if groups.is_empty() { "--clear-groups".into() } else { format!("--groups={}", groups.join(",")) };
        let mut words = vec!["mkdir", "-p", "--", folder];
        if nix::unistd::geteuid().is_root() {
            let become_account = ["setpriv", numbers[0].as_str(), numbers[1].as_str(), groups.as_str(), "--"];
            words = [become_account.as_slice(), words.as_slice()].concat();
        }
        let reason = match self.commands.run(&words, MAKE_FOLDER).await {
            Ok(answer) if answer.is_success() => return Ok(()),
            Ok(answer) => answer.words(),
            Err(error) => error.to_string(),
        };
        Err(failed(format!("the storage folder could not be made: {reason}")))
    }

    /// Waits until the session is there and has stayed.
    async fn until_it_stays(&self, order: &Order) -> Result<(), CreateError> {
        let begin = Instant::now();
        let mut up_since: Option<Instant> = None;
        let mut was_there = false;
        loop {
            // As long as the server cannot be asked nothing is known; the caller's patience is the limit.
            if let Ok(told) = self.look().await {
                match told.iter().find(|told| told.id == order.id) {
                    Some(told) if told.owner != order.owner => {
                        return Err(refused("the DCV server runs another session of this id"));
                    }
                    Some(told) => {
                        was_there = true;
                        if !is_up(told, order.type_) {
                            up_since = None;
                        } else if up_since.get_or_insert_with(Instant::now).elapsed() >= self.settings.settle_time {
                            return Ok(());
                        }
                    }
                    None if was_there => return Err(failed(died(order))),
                    None if begin.elapsed() >= self.settings.appear_timeout => {
                        return Err(failed(format!(
                            "the session did not appear on the DCV server, or {}",
                            died(order)
                        )));
                    }
                    None => {}
                }
            }
            if begin.elapsed() >= self.settings.create_timeout {
                let seconds = self.settings.create_timeout.as_secs();
                return Err(failed(format!("the session did not accept clients within {seconds} seconds")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends a session, and returns once nothing of it is left. One that is not there is success.
    pub async fn close(&self, id: &str) -> Result<(), BackendError> {
        let unclosed = |message: String| BackendError { action: "close the session", message };
        let note = self.notes.read(id).map_err(|error| unclosed(format!("its marker cannot be read: {error}")))?;
        self.end(id, note.as_ref()).await.map_err(unclosed)?;
        self.private.remove_of(id).map_err(|error| unclosed(error.to_string()))?;
        // The last of it: until now somebody who comes back knows whose it is.
        self.notes.remove(id).map_err(|error| unclosed(error.to_string()))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Has the server close a session until it is not there any more.
    async fn end(&self, id: &str, note: Option<&Note>) -> Result<(), String> {
        // A command to create it may still be on its way to the server: then it has to stay away for a while.
        let may_come = note.is_some_and(|note| note.stage == Stage::Creating);
        // Another's of the same id is not what is to end.
        let is_it = |told: &Told| told.id == id && note.is_none_or(|note| note.marker.owner == told.owner);
        let begin = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut is_accepted = false;
        let mut away_since: Option<Instant> = None;
        let mut words = "the session is still there".to_owned();
        loop {
            match self.look().await {
                Ok(told) if told.iter().any(is_it) => {
                    away_since = None;
                    if asked.is_none_or(|asked| asked.elapsed() >= CLOSE_AGAIN) {
                        match self.dcv(&arguments::close(id), CHANGE).await {
                            Ok(answer) if answer.is_success() => is_accepted = true,
                            Ok(answer) => words = answer.words(),
                            Err(error) => words = error.to_string(),
                        }
                        self.changed();
                        asked = Some(Instant::now());
                        continue;
                    }
                }
                Ok(_) => {
                    let away_since = away_since.get_or_insert_with(Instant::now);
                    if !may_come || away_since.elapsed() >= self.settings.settle_time {
                        return Ok(());
                    }
                }
                // Some servers stop with their last session: closed as told, and nothing left that could run it.
                Err(_) if is_accepted && self.is_server_stopped() => return Ok(()),
                Err(error) if asked.is_none() => return Err(error),
                Err(error) => words = error,
            }
            if begin.elapsed() >= CLOSE_LIMIT {
                return Err(words);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Whether clients are accepted: a virtual session has its display then, where the version tells of displays.
fn is_up(told: &Told, type_: SessionType) -> bool {
    type_ == SessionType::Console || told.display.as_ref().is_none_or(|display| !display.is_empty())
}

fn died(order: &Order) -> String {
    let script = if order.init_file.is_some() { "its init script" } else { "its desktop" };
    format!(
        "the session ended right after it was created: {script} has ended or could not be started; the host's \
         /var/log/dcv/dcv-session.{}.{}.log may tell more",
        order.owner, order.id
    )
}
