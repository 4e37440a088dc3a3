//! The desktops that servers report besides our sessions, to be found in order and by id.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::store::Position;
use crate::api::DcvServer;
use crate::api::server::OtherSession;

/// One of them.
pub struct Other {
    /// What the host says of it.
    pub session: OtherSession,
    /// Its server.
    pub server: Arc<DcvServer>,
}

/// All of them.
#[derive(Default)]
pub struct Others {
    ordered: BTreeMap<Position, Other>,
    by_id: HashMap<String, BTreeSet<Position>>,
}

fn others_of(server: &DcvServer) -> &[OtherSession] {
    server.status.as_ref().map_or(&[], |status| status.other_sessions.as_slice())
}

/// By creation as our sessions, then server: two hosts may give the same id. A slash is in no uid.
fn position(server: &DcvServer, other: &OtherSession) -> Position {
    Position {
        created: other.creation_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        uid: format!("{}/{}", server.metadata.uid.as_deref().unwrap_or_default(), other.id),
    }
}

impl Others {
    /// Adds those of a server.
    pub fn insert(&mut self, server: &Arc<DcvServer>) {
        for session in others_of(server) {
            let position = position(server, session);
            self.by_id.entry(session.id.clone()).or_default().insert(position.clone());
            self.ordered.insert(position, Other { session: session.clone(), server: Arc::clone(server) });
        }
    }

    /// Takes those of a server out that were added from it in this form.
    pub fn remove(&mut self, server: &DcvServer) {
        for other in others_of(server) {
            let position = position(server, other);
            self.ordered.remove(&position);
            if let Some(positions) = self.by_id.get_mut(&other.id) {
                positions.remove(&position);
                if positions.is_empty() {
                    self.by_id.remove(&other.id);
                }
            }
        }
    }

    /// Those of these ids, of all without any, in order.
    pub fn of_ids(&self, ids: &[String]) -> Box<dyn Iterator<Item = (&Position, &Other)> + '_> {
        if ids.is_empty() {
            return Box::new(self.ordered.iter());
        }
        let positions: BTreeSet<_> = ids.iter().filter_map(|id| self.by_id.get(id)).flatten().collect();
        Box::new(positions.into_iter().filter_map(|position| self.ordered.get_key_value(position)))
    }
}
