//! Carries a plan out: at most one write, and the event that goes with it.

use std::time::Duration;

use kube::Api;
use kube::Resource;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::api::Preconditions;

use super::decide::Plan;
use super::decide::Step;
use super::decide::describe;
use crate::api::DcvSession;
use crate::api::DcvSessionStatus;
use crate::api::conditions;
use crate::api::conditions::SessionCondition;
use crate::api::names;
use crate::cluster;
use crate::cluster::Error;
use crate::controller::Context;
use crate::controller::events;

/// Returns when to look again, if so.
pub(super) async fn act(context: &Context, session: &DcvSession, plan: &Plan) -> Result<Option<Duration>, Error> {
    let Plan { step, notice, requeue_after } = plan;
    let api = Api::namespaced(context.client.clone(), &session.namespace().unwrap_or_default());
    match step {
        Step::Nothing => {}
        Step::Status(status) => report(&api, session, status).await?,
        Step::Unknown(status) => {
            if !context.unknown_pace.take() {
                return Ok(Some(super::turn(session)));
            }
            report(&api, session, status).await?;
        }
        Step::RemoveFinalizer => {
            cluster::remove_finalizer(&api, session, names::CONTROLLER, names::SESSION_FINALIZER).await?;
        }
        Step::Delete => delete(&api, session).await?,
    }
    // After the write: a write that is refused is decided on anew, and would tell it again. What is told of the end of a
    // session goes with no write of its own, so who was told is remembered.
    let ends = |status: &DcvSessionStatus| conditions::is_true(&status.conditions, SessionCondition::Finished);
    let is_end = session.is_finished() || matches!(step, Step::Status(status) if ends(status));
    if let Some(notice) = notice
        && (!is_end || context.tell_once(session))
    {
        events::tell(context, &session.object_ref(&()), notice.action, notice.reason, &notice.note).await;
    }
    Ok(*requeue_after)
}

async fn report(api: &Api<DcvSession>, session: &DcvSession, status: &DcvSessionStatus) -> Result<(), Error> {
    let Some(patch) = cluster::merge_patch(&session.status.clone().unwrap_or_default(), status) else { return Ok(()) };
    match cluster::patch_status(api, session, names::CONTROLLER, &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The version as well as the uid: a change of its time to live at the last moment must count.
async fn delete(api: &Api<DcvSession>, session: &DcvSession) -> Result<(), Error> {
    let exactly = Preconditions { uid: session.uid(), resource_version: session.resource_version() };
    let params = DeleteParams::default().preconditions(exactly);
    let object = || format!("DcvSession {}", describe(session));
    match api.delete(&session.name_any(), &params).await.map_err(Error::api("delete", object())) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
