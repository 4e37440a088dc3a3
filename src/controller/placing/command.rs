//! What is to be written, and what becomes of it.

use std::sync::Arc;

use kube::ResourceExt;

use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions::Reason;

/// A write to be made.
#[derive(Debug)]
pub struct Command {
    /// Uid of the session.
    pub uid: Arc<str>,
    /// The session as it was decided on.
    pub session: Arc<DcvSession>,
    /// What to write.
    pub step: Step,
}

/// What to write.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bind it, in the attempt after its last.
    Bind {
        /// Name of the server.
        server: String,
        /// Its uid.
        server_uid: String,
        /// Id of the desktop to take over there; `None`: it gets a new one.
        session_id: Option<String>,
    },
    /// Give it this status, and tell people why it failed, if so.
    Tell(Box<DcvSessionStatus>, Option<(Reason, String)>),
}

/// What became of a write.
#[derive(Debug)]
pub enum Written {
    /// The bind is there.
    Bound(Arc<DcvSession>),
    /// The bind of this attempt has come to nothing, and cannot land any more; this is how the session is now, if known.
    NotBound(i32, Option<Arc<DcvSession>>, Hitch),
    /// The status is there.
    Told(Arc<DcvSession>),
    /// It is not.
    NotTold(Hitch),
    /// The session is gone, and so is whatever was to be written.
    Gone,
}

/// Why a write is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hitch {
    /// The session was written by somebody else meanwhile.
    Overtaken,
    /// The call failed.
    Failed,
}

/// What a read tells of a bind whose answer was lost, or was a conflict that may be with its own success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The bind is there.
    Bound,
    /// The session is as it was: the call may still land, and then only once, so it is sent again.
    Unmoved,
    /// The session has moved on: the call cannot land any more.
    Overtaken,
    /// The session is gone.
    Gone,
}

/// What has become of the bind of `sent` to `server`, now that the session is `now`.
pub fn settled(sent: &DcvSession, server: &str, now: Option<&DcvSession>) -> Settled {
    match now {
        None => Settled::Gone,
        Some(now) if now.uid() != sent.uid() => Settled::Gone,
        Some(now) if now.attempt() > sent.attempt() && now.server_name() == Some(server) => Settled::Bound,
        Some(now) if now.resource_version() == sent.resource_version() => Settled::Unmoved,
        Some(_) => Settled::Overtaken,
    }
}
