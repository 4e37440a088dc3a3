//! The processors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::shortened;
use super::text_of;
use crate::api::server::CpuInfo;

/// Longest texts the schema takes.
const MAX_VENDOR: usize = 128;
const MAX_MODEL: usize = 256;

/// Who makes Arm processors, by the number in `CPU implementer`. Source: the table of lscpu(1).
const IMPLEMENTERS: [(u32, &str); 10] = [
    (0x41, "ARM"),
    (0x42, "Broadcom"),
    (0x43, "Cavium"),
    (0x46, "FUJITSU"),
    (0x48, "HiSilicon"),
    (0x4e, "NVIDIA"),
    (0x51, "Qualcomm"),
    (0x61, "Apple"),
    (0x6d, "Microsoft"),
    (0xc0, "Ampere"),
];

/// Arm processors that servers and workstations have, by implementer and `CPU part`. Source: as above.
const PARTS: [(u32, u32, &str); 20] = [
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4a, "Neoverse-E1"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd83, "Neoverse-V3"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x43, 0x0a1, "ThunderX-88XX"),
    (0x43, 0x0af, "ThunderX2-99xx"),
    (0x46, 0x001, "A64FX"),
    (0x48, 0xd01, "TaiShan-v110"),
    (0x4e, 0x004, "Carmel"),
    (0x51, 0x001, "Oryon"),
    (0xc0, 0xac3, "Ampere-1"),
    (0xc0, 0xac4, "Ampere-1a"),
];

/// Reads the processors of the machine whose files are in `root`.
pub fn read(root: &Path, architecture: String) -> CpuInfo {
    parse(&text_of(&root.join("proc/cpuinfo")), &topology(root), architecture)
}

/// Socket and core of each logical processor, as the kernel has them. Arm processors tell them nowhere else.
fn topology(root: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(root.join("sys/devices/system/cpu")).into_iter().flatten().flatten();
    let processors = entries.filter(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let places = processors.map(|entry| {
        let value = |name: &str| text_of(&entry.path().join("topology").join(name)).trim().to_owned();
        (value("physical_package_id"), value("core_id"))
    });
    places.filter(|(socket, core)| !socket.is_empty() && !core.is_empty()).collect()
}

/// Reads `/proc/cpuinfo`: one paragraph a logical processor. On x86 each names its socket and how many cores that has;
/// elsewhere `topology` counts them, and where that is unknown too, there is one socket with a core for each processor.
fn parse(text: &str, topology: &[(String, String)], architecture: String) -> CpuInfo {
    let values = |key: &'static str| {
        text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim())
        })
    };
    let first = |key| values(key).find(|value| !value.is_empty());
    let number = |key| first(key).and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    let implementer = number("CPU implementer");
    let part = implementer.zip(number("CPU part"));
    let (number_of_cpus, physical_cores_per_cpu) = match values("physical id").collect::<BTreeSet<_>>().len() {
        0 => by_topology(topology).unwrap_or((1, values("processor").count())),
        sockets => {
            let told = first("cpu cores").and_then(|cores| cores.parse().ok());
            (sockets, told.unwrap_or_else(|| values("processor").count() / sockets))
        }
    };
    CpuInfo {
        vendor: shortened(&first("vendor_id").map_or_else(|| vendor(implementer), str::to_owned), MAX_VENDOR),
        model_name: shortened(&first("model name").map_or_else(|| model(part), str::to_owned), MAX_MODEL),
        architecture,
        number_of_cpus: count(number_of_cpus),
        physical_cores_per_cpu: count(physical_cores_per_cpu),
    }
}

/// Sockets, and cores of each.
fn by_topology(topology: &[(String, String)]) -> Option<(usize, usize)> {
    let sockets = topology.iter().map(|(socket, _)| socket).collect::<BTreeSet<_>>().len();
    let cores = topology.iter().collect::<BTreeSet<_>>().len();
    (sockets > 0).then(|| (sockets, cores / sockets))
}

fn vendor(implementer: Option<u32>) -> String {
    let Some(implementer) = implementer else { return String::new() };
    let named = IMPLEMENTERS.iter().find(|(number, _)| *number == implementer);
    named.map_or_else(|| format!("{implementer:#04x}"), |(_, name)| (*name).to_owned())
}

fn model(part: Option<(u32, u32)>) -> String {
    let Some((implementer, part)) = part else { return String::new() };
    let named = PARTS.iter().find(|(by, number, _)| (*by, *number) == (implementer, part));
    named.map_or_else(|| format!("{part:#05x}"), |(_, _, name)| (*name).to_owned())
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testdata::machine;
    use super::*;

    #[test]
    fn each_machine_has_its_processors_counted_as_sockets_and_cores() {
        for (name, vendor, model, sockets, cores) in [
            ("two-sockets", "GenuineIntel", "Intel(R) Xeon(R) Bronze 3104 CPU @ 1.70GHz", 2, 6),
            ("arm", "ARM", "Neoverse-N1", 1, 4),
            ("no-gpu", "GenuineIntel", "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 1, 1),
            ("two-gpus", "AuthenticAMD", "AMD EPYC 7232P 8-Core Processor", 1, 8),
            ("container", "GenuineIntel", "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 1, 2),
        ] {
            let expected = CpuInfo {
                vendor: vendor.into(),
                model_name: model.into(),
                architecture: "any".into(),
                number_of_cpus: sockets,
                physical_cores_per_cpu: cores,
            };
            assert_eq!(read(&machine(name), "any".into()), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_told_is_counted_or_left_out() {
        let arm = "processor\t: 0\nCPU implementer\t: 0x99\nCPU part\t: 0x123\n\nprocessor\t: 1\n";
        let cpu = parse(arm, &[], "aarch64".into());
        assert_eq!((cpu.number_of_cpus, cpu.physical_cores_per_cpu), (1, 2));
        assert_eq!((cpu.vendor.as_str(), cpu.model_name.as_str()), ("0x99", "0x123"));
        let virtual_machine = "processor : 0\nphysical id : 0\n\nprocessor : 1\nphysical id : 1\n";
        let cpu = parse(virtual_machine, &[], "x86_64".into());
        assert_eq!((cpu.number_of_cpus, cpu.physical_cores_per_cpu), (2, 1));
        assert_eq!(parse("", &[], String::new()), CpuInfo { number_of_cpus: 1, ..CpuInfo::default() });
        let place = |socket: &str, core: &str| (socket.to_owned(), core.to_owned());
        let threads = [place("0", "0"), place("0", "0"), place("1", "0"), place("1", "0")];
        assert_eq!(by_topology(&threads), Some((2, 1)));
    }
}
