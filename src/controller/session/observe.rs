//! Reads what a decision on a session needs, from the caches.

use k8s_openapi::api::core::v1::Node;

use super::decide::Host;
use super::decide::World;
use crate::api::DcvSession;
use crate::api::names::HOST_PREFIX;
use crate::controller::Context;
use crate::controller::liveness::Lapse;

/// Taint by which an administrator or a cloud states that a Node is down for good. Source: "Non-graceful node shutdown
/// handling" in the Kubernetes documentation.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub(super) fn observe(context: &Context, session: &DcvSession) -> World {
    let settings = &context.settings;
    World {
        host: session.server_name().map_or(Host::Alive, |name| host(context, name)),
        now: (context.clock)(),
        retries: settings.retries,
        delete_timeout: settings.delete_timeout,
    }
}

fn host(context: &Context, name: &str) -> Host {
    let caches = &context.caches;
    let has_server = caches.servers.find("", name).is_some();
    judge(name, caches.nodes.find("", name).as_deref(), has_server, context.liveness.lapse(name))
}

/// What is known of the host of this name. A missing object proves something only while the Lease is silent as well: a
/// live agent makes its server anew.
fn judge(name: &str, node: Option<&Node>, has_server: bool, lapse: Option<Lapse>) -> Host {
    if node.is_some_and(is_out_of_service) {
        return Host::Dead("its Node is out of service");
    }
    let Some(lapse) = lapse else { return Host::Alive };
    if !has_server {
        return Host::Dead("its DcvServer was deleted");
    }
    if node.is_none() && !name.starts_with(HOST_PREFIX) {
        return Host::Dead("its Node was deleted");
    }
    if lapse.held { Host::Alive } else { Host::Unreachable { since: lapse.since, judged: lapse.judged } }
}

pub(super) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn death_is_proved_by_a_taint_or_by_what_is_missing_while_the_agent_is_silent() {
        let node = |taint: &str| -> Node {
            let taints = json!([{"key": taint, "effect": "NoExecute"}]);
            serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}})).unwrap()
        };
        let (well, down) = (node("other"), node(OUT_OF_SERVICE));
        let since = Timestamp::UNIX_EPOCH;
        let lapse = |held| Some(Lapse { since, held, judged: false });
        let silent = || Host::Unreachable { since, judged: false };
        let cases = [
            ("well", "n", Some(&well), true, None, Host::Alive),
            ("out of service", "n", Some(&down), true, None, Host::Dead("its Node is out of service")),
            ("Node gone, agent alive", "n", None, true, None, Host::Alive),
            ("server gone, agent alive", "n", Some(&well), false, None, Host::Alive),
            ("silent", "n", Some(&well), true, lapse(false), silent()),
            ("silent, and held back", "n", Some(&well), true, lapse(true), Host::Alive),
            ("Node gone and silent", "n", None, true, lapse(true), Host::Dead("its Node was deleted")),
            ("a host outside has no Node", "host-n", None, true, lapse(false), silent()),
            ("server gone and silent", "host-n", None, false, lapse(true), Host::Dead("its DcvServer was deleted")),
        ];
        for (case, name, node, has_server, lapse, expected) in cases {
            assert_eq!(judge(name, node, has_server, lapse), expected, "{case}");
        }
    }
}
