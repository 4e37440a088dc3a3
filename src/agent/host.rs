//! Facts of the machine the agent runs on, as far as they are cheap to read.
//!
//! Reads `/proc` and `/etc/os-release`; never fails: what cannot be read is left out. In a container CPU, memory, swap and
//! load are the host's.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use sysinfo::MemoryRefreshKind;
use sysinfo::RefreshKind;
use sysinfo::System;

use crate::api::server::CpuInfo;
use crate::api::server::CpuLoadAverage;
use crate::api::server::Host;
use crate::api::server::Memory;
use crate::api::server::Os;

/// The machine, read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Name it calls itself by.
    pub hostname: String,
    /// Id of its boot.
    pub boot_id: String,
    /// What `DcvServer.status.host` says.
    pub host: Host,
}

/// Reads the machine. Blocks for the length of a few small reads.
pub fn read() -> Machine {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(memory).ok();
    let bytes = |total: u64, used: u64| Memory { total_bytes: signed(total), used_bytes: signed(used) };
    Machine {
        hostname: System::host_name().unwrap_or_default(),
        boot_id: read_text("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        host: Host {
            os: Some(parse_os(&read_text("/etc/os-release"), System::kernel_version().ok())),
            memory: system.as_ref().map(|system| bytes(system.total_memory(), system.used_memory())),
            swap: system.as_ref().map(|system| bytes(system.total_swap(), system.used_swap())),
            cpu_info: Some(parse_cpu(&read_text("/proc/cpuinfo"), System::cpu_arch())),
            cpu_load_average: System::load_average().ok().map(|load| CpuLoadAverage {
                one_minute: load.one,
                five_minutes: load.five,
                fifteen_minutes: load.fifteen,
            }),
            ..Host::default()
        },
    }
}

/// The address others reach the machine by: the first that is not a loopback or link-local one, IPv4 before IPv6.
pub fn first_address() -> IpAddr {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    let mut usable: Vec<IpAddr> = addresses.filter(|address| !is_local(address)).collect();
    usable.sort_by_key(IpAddr::is_ipv6);
    usable.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn is_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

fn read_text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads `/etc/os-release`: `KEY=value` lines, values perhaps in quotes. Source: os-release(5).
fn parse_os(text: &str, kernel_version: Option<String>) -> Os {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    Os { family: "linux".into(), name: value("NAME"), version: value("VERSION_ID"), kernel_version, build_number: None }
}

/// Reads `/proc/cpuinfo`: one paragraph a logical processor, each naming its socket (`physical id`). Machines that name
/// none, such as Arm ones, count as one socket with a core for each paragraph.
fn parse_cpu(text: &str, architecture: String) -> CpuInfo {
    let values = |key: &str| {
        let key = key.to_owned();
        text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let sockets = values("physical id").collect::<BTreeSet<_>>().len().max(1);
    let cores = values("cpu cores").find_map(|value| value.parse().ok());
    CpuInfo {
        vendor: values("vendor_id").next().unwrap_or_default(),
        model_name: values("model name").next().unwrap_or_default(),
        architecture,
        number_of_cpus: count(sockets),
        physical_cores_per_cpu: cores.unwrap_or_else(|| count(values("processor").count())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let os = parse_os(text, Some("6.1.0".into()));
        assert_eq!((os.name.as_str(), os.version.as_str()), ("Debian GNU/Linux", "12"));
        assert_eq!(parse_os("NAME=Fedora\n", None).name, "Fedora");
    }

    #[test]
    fn sockets_and_cores_are_counted_not_threads() {
        let thread = |socket: u32| {
            format!(
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nphysical id\t: {socket}\ncpu cores\t: 8\n\n"
            )
        };
        let text: String = [0, 0, 1, 1].map(thread).concat();
        let cpu = parse_cpu(&text, "x86_64".into());
        assert_eq!((cpu.number_of_cpus, cpu.physical_cores_per_cpu, cpu.vendor.as_str()), (2, 8, "GenuineIntel"));
        let arm = parse_cpu("processor\t: 0\n\nprocessor\t: 1\n", "aarch64".into());
        assert_eq!((arm.number_of_cpus, arm.physical_cores_per_cpu), (1, 2));
    }

    #[test]
    fn this_machine_has_a_boot_id_and_memory() {
        let machine = read();
        assert!(!machine.boot_id.is_empty());
        assert!(machine.host.memory.unwrap().total_bytes > 0);
    }
}
