//! Creating a session, from the order to a desktop that answers, and taking one away.

use std::sync::Arc;

use rand::TryRngCore;
use rand::rngs::OsRng;

use super::Inner;
use super::account;
use super::launch;
use super::launch::Folders;
use super::session::Life;
use super::session::Session;
use super::session::read_boot_id;
use super::state;
use super::state::Folder;
use super::state::State;
use super::x11;
use crate::agent::backend::CreateError;
use crate::agent::backend::Order;
use crate::agent::fault;
use crate::agent::fault::Point;
use crate::api::session::SessionType;
use crate::permissions::Permissions;

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    OsRng.try_fill_bytes(&mut bytes).expect("the system has randomness");
    hex::encode(bytes)
}

impl Inner {
    /// Creates what `order` says, or leaves nothing of it.
    pub(super) async fn create(self: Arc<Self>, order: Order) -> Result<(), CreateError> {
        let state = self.prepare(&order).await?;
        fault::reach(Point::OrderChecked);
        let admission = self.admission.lock().await;
        if let Some(existing) = self.session(&order.id) {
            if existing.is_ended() {
                self.remove(&existing).await.map_err(CreateError::Failed)?;
            } else {
                drop(admission);
                return self.join(&existing, &order).await;
            }
        }
        self.check_room(&order.owner)?;
        if self.stop.is_cancelled() {
            return Err(CreateError::Failed("the agent is going down".into()));
        }
        let folder = Folder(self.folder.join(&order.id));
        let failed =
            |error: std::io::Error| CreateError::Failed(format!("the session's folder cannot be made: {error}"));
        folder.create(&state).map_err(failed)?;
        fault::reach(Point::FolderMade);
        let session = Arc::new(Session::new(folder, state));
        self.sessions().insert(order.id.clone(), session.clone());
        drop(admission);
        let outcome = match session.start_host(&self.settings.program).await {
            Ok(stream) => {
                self.follow(session.clone(), Some(stream));
                self.wait_until_up(&session).await
            }
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => {
                fault::reach(Point::Created);
                Ok(())
            }
            // It is the next agent's.
            Err(reason) if self.stop.is_cancelled() => Err(CreateError::Failed(reason)),
            Err(reason) => match self.remove(&session).await {
                Ok(()) => Err(CreateError::Failed(reason)),
                Err(left) => {
                    // Told by `list` until a `close` has ended it.
                    session.life.send_replace(Life::Ended(format!("{reason}; {left}")));
                    Err(CreateError::Failed(format!("{reason}; {left}")))
                }
            },
        }
    }

    /// Checks what can be checked before anything is made.
    async fn prepare(&self, order: &Order) -> Result<State, CreateError> {
        let refused = |reason: &dyn std::fmt::Display| CreateError::Refused(reason.to_string());
        if !state::is_id(&order.id) {
            return Err(refused(&format!("{:?} is no session id", order.id)));
        }
        if order.type_ == SessionType::Console {
            return Err(refused(&"the vnc backend runs no CONSOLE sessions"));
        }
        if order.dcv_gl_enabled == Some(true) {
            return Err(refused(&"the vnc backend has no OpenGL on a GPU: leave dcvGlEnabled out or set it to false"));
        }
        Permissions::parse(order.permissions.as_deref()).map_err(|error| refused(&format!("permissions: {error}")))?;
        account::check_name(&order.owner, self.settings.owner_pattern.as_ref()).map_err(|error| refused(&error))?;
        let account = match self.names.account(&order.owner).await {
            Ok(Some(account)) => account,
            Ok(None) => return Err(refused(&account::OwnerRefusal::Unknown(order.owner.clone()))),
            Err(error) => return Err(CreateError::Failed(error.to_string())),
        };
        let agent_uid = nix::unistd::geteuid().as_raw();
        account::check_account(&account, self.settings.min_uid, agent_uid).map_err(|error| refused(&error))?;
        if let Some(reason) = x11::find_fault(&self.settings.x_server) {
            return Err(CreateError::Failed(reason));
        }
        let folders = Folders {
            init: &self.settings.init_folder,
            autorun: &self.settings.autorun_folder,
            desktop_command: &self.settings.desktop_command,
            x_server: &self.settings.x_server,
            geometry: &self.settings.geometry,
        };
        Ok(State {
            instance: random_hex::<16>(),
            boot_id: read_boot_id(),
            creation_time: self.view.now(),
            launch: launch::plan(order, &account, &folders).map_err(|error| refused(&error))?,
            order: order.clone(),
            account,
            cookie: random_hex::<16>(),
            connections: 0,
            last_disconnection_time: None,
            announced: false,
        })
    }

    /// Whether one more session of this owner fits. The caller has the admission.
    fn check_room(&self, owner: &str) -> Result<(), CreateError> {
        let sessions = self.sessions();
        let running = sessions.values().filter(|session| !session.is_ended());
        let owners: Vec<String> = running.map(|session| session.state().order.owner).collect();
        let (all, own) = (owners.len(), owners.iter().filter(|other| *other == owner).count());
        let full = |limit: i32, count: usize| usize::try_from(limit).is_ok_and(|limit| count >= limit);
        if full(self.settings.max_virtual_sessions, all) {
            return Err(CreateError::Refused(format!("the host runs {all} sessions, as many as it may")));
        }
        if full(self.settings.max_concurrent_sessions_per_user, own) {
            return Err(CreateError::Refused(format!("{owner} has {own} sessions on this host, as many as one may")));
        }
        Ok(())
    }

    /// A session of this id runs or is being started: it becomes the order's.
    async fn join(&self, session: &Arc<Session>, order: &Order) -> Result<(), CreateError> {
        if session.state().order.owner != order.owner {
            return Err(CreateError::Refused("a session of this id and of another owner runs on this host".into()));
        }
        session
            .update(|state| state.order.marker = order.marker.clone())
            .map_err(|error| CreateError::Failed(format!("the session could not be marked: {error}")))?;
        match self.wait_until_up(session).await {
            Ok(()) => Ok(()),
            Err(reason) if self.stop.is_cancelled() => Err(CreateError::Failed(reason)),
            Err(reason) => {
                self.remove(session).await.map_err(CreateError::Failed)?;
                Err(CreateError::Failed(reason))
            }
        }
    }

    /// Waits until the desktop is up and answers clients.
    async fn wait_until_up(&self, session: &Session) -> Result<(), String> {
        let limit = self.settings.create_timeout;
        let mut life = session.life.subscribe();
        let up = async { life.wait_for(|life| *life != Life::Starting).await.map(|life| life.clone()) };
        let up = tokio::select! {
            () = self.stop.cancelled() => return Err("the agent is going down".into()),
            up = tokio::time::timeout(limit, up) => up,
        };
        match up {
            Err(_) => {
                let obstacle = session.obstacle().map(|obstacle| format!(": {obstacle}")).unwrap_or_default();
                return Err(format!("the desktop was not up after {} s{obstacle}", limit.as_secs()));
            }
            // The sender is the session's own.
            Ok(Err(_)) => return Err("the session is gone".into()),
            Ok(Ok(Life::Ended(reason))) => return Err(reason),
            Ok(Ok(_)) => {}
        }
        fault::reach(Point::UpHeard);
        Ok(())
    }

    /// Ends a session, takes its files away and forgets it.
    pub(super) async fn remove(&self, session: &Arc<Session>) -> Result<(), String> {
        let _turn = session.turn.lock().await;
        session.end().await?;
        let mut sessions = self.sessions();
        if sessions.get(&session.id).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&session.id);
        }
        drop(sessions);
        self.bump();
        Ok(())
    }
}
