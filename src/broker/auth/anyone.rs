//! Closed networks, where a call needs no token.

use super::made_up;
use crate::api::ApiClient;

/// Who every caller is: a client of the tenant `namespace`, which may also open and close servers, for who runs without
/// authorization has no other client that could.
pub fn client(namespace: &str) -> ApiClient {
    let mut client = made_up("anyone", namespace, &["anyone", namespace]);
    client.spec.manage_servers = true;
    client
}
