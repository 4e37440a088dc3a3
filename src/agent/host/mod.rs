//! Facts of the machine the agent runs on.
//!
//! Never fails: what cannot be read is left out. [`read`] is a few small files and is done at every report; [`slow`] has the
//! facts that others are asked for, each read by a task of its own, so that none of them delays anything. In a container
//! CPU, memory, swap and load are the host's; the rest is read below a folder that has the host's files.

mod address;
mod aws;
mod cpu;
mod dns;
mod gpu;
mod os;
pub mod slow;
#[cfg(test)]
mod testdata;
mod users;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use sysinfo::MemoryRefreshKind;
use sysinfo::RefreshKind;
use sysinfo::System;

use crate::api::server::CpuLoadAverage;
use crate::api::server::Host;
use crate::api::server::Memory;

pub use address::AddressError;
pub use address::own_address;
pub use gpu::Card;
pub use gpu::cards;

/// Where an instance of EC2 finds its metadata.
pub const EC2_METADATA_ENDPOINT: &str = "http://169.254.169.254";

/// How the host is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Folder that has the host's files: `/`, or where a container has them.
    pub root: PathBuf,
    /// Words before commands that look names up, as in `chroot /host`.
    pub command_prefix: Vec<String>,
    /// Interface whose address clients are told. Absent: the first that is not a loopback one.
    pub preferred_network_interface: Option<String>,
    /// Whether it is told who is logged in; otherwise the list holds `unknown`, as documented.
    pub enable_query_logged_in_users: bool,
    /// Where EC2 metadata are asked for. Absent: nobody is asked.
    pub ec2_metadata_endpoint: Option<String>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            root: "/".into(),
            command_prefix: Vec::new(),
            preferred_network_interface: None,
            enable_query_logged_in_users: true,
            ec2_metadata_endpoint: None,
        }
    }
}

/// The machine, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Name it calls itself by.
    pub hostname: String,
    /// Id of its boot.
    pub boot_id: String,
    /// What `DcvServer.status.host` says, without the slow facts.
    pub host: Host,
}

/// Reads the machine whose files are in `root`. Blocks for the length of a few small reads.
pub fn read(root: &Path) -> Machine {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(memory).ok();
    let bytes = |total: u64, used: u64| Memory { total_bytes: signed(total), used_bytes: signed(used) };
    Machine {
        hostname: hostname(root),
        boot_id: text_of(Path::new("/proc/sys/kernel/random/boot_id")).trim().to_owned(),
        host: Host {
            os: Some(os::parse(&os::release(root), System::kernel_version().ok())),
            memory: system.as_ref().map(|system| bytes(system.total_memory(), system.used_memory())),
            swap: system.as_ref().map(|system| bytes(system.total_swap(), system.used_swap())),
            cpu_info: Some(cpu::read(root, System::cpu_arch())),
            cpu_load_average: System::load_average().ok().map(|load| CpuLoadAverage {
                one_minute: load.one,
                five_minutes: load.five,
                fifteen_minutes: load.fifteen,
            }),
            ..Host::default()
        },
    }
}

/// The name the machine has for itself. A container is asked for the host's, not for its own.
pub fn hostname(root: &Path) -> String {
    let own = || System::host_name().unwrap_or_default();
    if root == Path::new("/") {
        return own();
    }
    let named = text_of(&root.join("etc/hostname")).trim().to_owned();
    if named.is_empty() { own() } else { named }
}

/// Text of a small file; empty when it cannot be read. Bytes that are no text do not hide the rest.
fn text_of(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// At most `max` characters, which is what the schema takes.
fn shortened(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_boot_id_and_memory() {
        let machine = read(Path::new("/"));
        assert!(!machine.boot_id.is_empty());
        assert!(machine.host.memory.unwrap().total_bytes > 0);
        assert!(machine.host.cpu_info.unwrap().number_of_cpus > 0);
    }

    #[test]
    fn a_host_is_told_from_the_container_the_agent_is_in() {
        let container = testdata::machine("container");
        assert_eq!(hostname(&container), "gpu-node-4");
        assert_eq!(read(&container).host.os.unwrap().name, "Alpine Linux");
    }
}
