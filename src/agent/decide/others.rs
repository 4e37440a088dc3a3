//! What becomes of sessions on the host that no bound object stands for.
//!
//! Nothing that anybody may use is ended here, unless an administrator, its own object or the deletion of that says so.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::OrphanPolicy;
use super::Pass;
use crate::agent::backend::HostSession;
use crate::agent::backend::Marker;
use crate::agent::backend::Phase;
use crate::agent::report;
use crate::api::DcvSession;
use crate::api::server::OtherSession;
use crate::api::server::SessionOrigin;

/// What became of an object that is not bound here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// There is none of this uid.
    Gone,
    /// It waits for a server: the controller may bind it to what we have.
    Waiting,
    /// It is on its way to us: our watch is behind.
    Ours,
    /// It has another server, or is over: what we have is an instance that nobody wants.
    Elsewhere,
}

impl Pass<'_> {
    /// A session on the host that no object here stands for is listed and left alone, unless an administrator ends it,
    /// its object says that it is wanted no more, or was deleted before our finalizer could stand in for it.
    pub(super) fn decide_other(&mut self, instance: &HostSession) {
        if self.claimed.contains(instance.id.as_str()) {
            return;
        }
        let stranger = instance.marker.as_ref().map(|marker| self.stranger(marker));
        let has_ended = matches!(instance.phase, Phase::Ended(_));
        match stranger {
            Some(Some(Stranger::Elsewhere)) => return self.close(&instance.id),
            // Nothing runs any more; closing only clears the host's memory of it.
            Some(Some(Stranger::Gone)) if has_ended => return self.close(&instance.id),
            Some(Some(Stranger::Gone)) if self.is_of_a_late_finalizer(instance) => return self.close(&instance.id),
            // Not known yet, or known to be on its way: touch nothing, tell nothing.
            Some(None | Some(Stranger::Ours)) => return,
            _ if has_ended => return,
            Some(Some(Stranger::Gone | Stranger::Waiting)) | None => {}
        }
        let is_asked_for = self.world.server.spec.end_sessions.contains(&instance.id);
        if is_asked_for || stranger == Some(Some(Stranger::Gone)) && self.is_idle_orphan(instance) {
            self.close(&instance.id);
        }
        self.plan.other_sessions.push(OtherSession {
            id: instance.id.clone(),
            owner: instance.owner.clone(),
            type_: instance.type_,
            origin: if instance.marker.is_some() { SessionOrigin::Unclaimed } else { SessionOrigin::Manual },
            namespace: instance.marker.as_ref().map(|marker| marker.namespace.clone()),
            session_name: instance.marker.as_ref().map(|marker| marker.name.clone()),
            creation_time: instance.creation_time.map(|time| Time(report::seconds(time))),
            num_of_connections: instance.num_of_connections,
        });
    }

    /// Whether its object, which is gone, was deleted by somebody although our finalizer was on it: a delete that the API
    /// server began before the finalizer was there takes the object away, bound or not. That was so if the object was seen
    /// to vanish like that. And nothing is lost where nobody can have heard of the session: its object was of this cluster
    /// and not known to be READY, and nobody was ever connected.
    fn is_of_a_late_finalizer(&self, instance: &HostSession) -> bool {
        let Some(marker) = &instance.marker else { return false };
        let never_used = instance.num_of_connections == 0 && instance.last_disconnection_time.is_none();
        let is_unheard_of = !instance.announced && never_used;
        let was_torn_off = self.world.ledger.torn_off.contains(&marker.uid);
        (is_unheard_of || was_torn_off) && marker.cluster_uid == self.world.me.cluster_uid
    }

    /// Whether the setting closes a desktop whose object is gone: nobody is connected to it and nobody was for so long, and
    /// for as long it could have been taken over. One of another cluster is never closed so: that its object is not here
    /// says nothing.
    fn is_idle_orphan(&mut self, instance: &HostSession) -> bool {
        let OrphanPolicy::CloseWhenIdle(limit) = self.world.orphan_policy else { return false };
        let is_of_this_cluster =
            instance.marker.as_ref().is_some_and(|marker| marker.cluster_uid == self.world.me.cluster_uid);
        if !is_of_this_cluster || instance.num_of_connections > 0 {
            return false;
        }
        let found = self.world.ledger.unclaimed.get(&instance.id).copied().unwrap_or(self.world.now);
        let idle_since = instance.last_disconnection_time.map_or(found, |left| report::seconds(left).max(found));
        let end = idle_since + limit;
        self.look_again(end);
        end <= self.world.now
    }

    /// What became of the object of a session that no bound object stands for; `None`: not known.
    fn stranger(&self, marker: &Marker) -> Option<Stranger> {
        if self.bound_uids.contains(marker.uid.as_str()) {
            return Some(Stranger::Elsewhere); // its object runs here under another id
        }
        self.world.strangers.get(&marker.uid).copied()
    }
}

/// Markers on the host whose objects are not bound here: somebody has to ask what became of them.
pub fn unbound_markers<'a>(host: &'a [HostSession], sessions: &[Arc<DcvSession>]) -> Vec<&'a Marker> {
    let is_bound = |uid: &str| sessions.iter().any(|session| session.uid().as_deref() == Some(uid));
    host.iter().filter_map(|instance| instance.marker.as_ref()).filter(|marker| !is_bound(&marker.uid)).collect()
}

/// What an object that exists, or not, means for an instance made for it.
pub fn stranger(object: Option<&DcvSession>, uid: &str, server_name: &str) -> Stranger {
    match object.filter(|session| session.uid().as_deref() == Some(uid)) {
        None => Stranger::Gone,
        Some(session) => match session.server_name() {
            Some(name) if name == server_name => Stranger::Ours,
            Some(_) => Stranger::Elsewhere,
            None if session.is_finished() || session.is_closing() => Stranger::Elsewhere,
            None => Stranger::Waiting,
        },
    }
}

/// Whether an object that vanished was taken away by a delete that had begun before our finalizer was on it.
pub fn was_torn_off(vanished: &DcvSession) -> bool {
    vanished.has_finalizer() && vanished.metadata.deletion_timestamp.is_none()
}
