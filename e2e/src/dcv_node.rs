//! A DCV server's double on the host of a node, outside every pod.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::process::Child;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use serde_json::json;

use crate::dcv_host::DcvServerDouble;
use crate::eventually;
use crate::host::signal;
use crate::nodes::Nodes;
use crate::seconds;
use crate::stand::root;

/// Where it is on the host: below a folder that each node has for itself.
pub const FOLDER: &str = "/var/lib/dcv-operator/double";

/// A node's DCV server.
pub struct DcvNode {
    /// The server.
    pub server: DcvServerDouble,
    process: Child,
}

impl DcvNode {
    /// Installs the double on the node's host, and starts its server there.
    pub async fn start(nodes: &Nodes, node: u32) -> Self {
        let folder = nodes.host_files(node).join(FOLDER.trim_start_matches('/'));
        fs::create_dir_all(folder.join("bin")).expect("the folder can be made");
        for link in ["dcv", "dcvserver"] {
            symlink(root().join("target/debug/dcv-double"), folder.join("bin").join(link)).expect("a link can be made");
        }
        let init = folder.join("dcvsessioninit");
        fs::write(&init, "#!/bin/sh\nexec sleep infinity\n").expect("it can be written");
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let configuration = "[session-management]\ncreate-session=false\n\n[connectivity]\nweb-port=8443\n\
            web-listen-endpoints=['0.0.0.0']\nenable-quic-frontend=false\n\n[security]\n\
            auth-token-verifier=\"https://127.0.0.1:945/agent/validate-authentication-token\"\n\
            ca-file=\"/var/lib/dcv-operator/verifier/ca.pem\"\n";
        fs::write(folder.join("dcv.conf"), configuration).expect("it can be written");
        let program = format!("{FOLDER}/bin/dcvserver");
        let process = nodes.on_node(node, &[&program]).stdin(Stdio::null()).spawn().expect("it can be run");
        let server = DcvServerDouble::new(&folder);
        eventually("the double to answer", seconds(20), async || {
            if folder.join("server.sock").exists() { Ok(()) } else { Err("no socket".into()) }
        })
        .await;
        Self { server, process }
    }

    /// What stays the same for as long as nothing ends: the server's process, each desktop's, the connections of each.
    pub fn standing(&mut self) -> Value {
        let ended = self.process.try_wait().expect("it is our child");
        assert_eq!(ended, None, "the server runs");
        json!({"server": self.process.id(), "sessions": self.server.order(&json!("standing"))})
    }
}

impl Drop for DcvNode {
    fn drop(&mut self) {
        // It ends its sessions with it.
        signal(i32::try_from(self.process.id()).expect("a process id"), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}
