//! Reads what a decision on a client needs, from the cache.

use kube::ResourceExt;

use super::decide::World;
use crate::api::ApiClient;
use crate::controller::Context;

pub(super) fn observe(context: &Context, client: &ApiClient) -> World {
    let id = client.client_id();
    let namesake = |other: &ApiClient| other.uid() != client.uid() && other.client_id() == id;
    World { namesakes: context.caches.clients.store().state_filter(namesake), now: (context.clock)() }
}
