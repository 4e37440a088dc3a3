//! Reads what a decision on a server needs, from the caches.

use kube::ResourceExt;

use super::decide::World;
use crate::api::DcvServer;
use crate::controller::Context;

pub(super) fn observe(context: &Context, server: &DcvServer) -> World {
    let name = server.name_any();
    let caches = &context.caches;
    let node = caches.nodes.find("", &name);
    let silent = context.liveness.lapse(&name).filter(|lapse| !lapse.held);
    World {
        silent_since: silent.map(|lapse| lapse.since),
        node_labels: node.as_ref().map(|node| node.labels().clone()),
        node_cordoned: node.is_some_and(|node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))),
        installation: context.settings.scope.is_limited().then(|| context.settings.namespace.clone()),
        copied: context.settings.copied_node_labels.clone(),
        // Looked for only when it matters: the search reads every session.
        in_use: silent.is_some()
            && caches.sessions.store().find(|it| it.server_name() == Some(&name) && !it.is_finished()).is_some(),
        purge_after: context.settings.purge_after,
        now: (context.clock)(),
    }
}
