//! What made-up hosts are: by a fleet file, or without one by a fixed mix.
//!
//! Both depend on nothing but the server's name, so a fleet looks the same after every restart. `docs/fleet.md` shows the
//! file and the mix.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;

use super::api::Latency;
use crate::api::server::Aws;
use crate::api::server::Capacity;
use crate::api::server::CpuInfo;
use crate::api::server::CpuLoadAverage;
use crate::api::server::Gpu;
use crate::api::server::Host;
use crate::api::server::Memory;
use crate::api::server::Os;
use crate::api::session::SessionType;

/// A fleet: which hosts there are. The default one is the fixed mix.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fleet {
    /// Kinds of host. The first whose name fits a server's describes it; a server that none fits is of the fixed mix.
    #[serde(default)]
    servers: Vec<Kind>,
}

/// Hosts that are alike.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kind {
    /// A server's name, or a pattern in which `{n}` stands for a number.
    name: String,
    /// The first number. Default 1.
    #[serde(default = "first")]
    from: u64,
    /// How many numbers. Absent: all.
    #[serde(default)]
    count: Option<u64>,
    /// Tags.
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Facts, as in `DcvServer.status.host`. Absent: those of the fixed mix.
    #[serde(default)]
    host: Option<Host>,
    /// Kinds of session it runs.
    #[serde(default)]
    session_types: Option<Vec<SessionType>>,
    /// Most virtual sessions; -1: no limit.
    #[serde(default)]
    max_virtual_sessions: Option<i32>,
    /// Most virtual sessions of one owner; -1: no limit.
    #[serde(default)]
    max_concurrent_sessions_per_user: Option<i32>,
    /// Whether virtual sessions can use a GPU.
    #[serde(default)]
    gl: Option<bool>,
    /// How long calls take.
    #[serde(default)]
    latency: Latency,
}

fn first() -> u64 {
    1
}

/// Why a fleet file is no good.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// It cannot be read.
    #[error("failed to read fleet file {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no fleet.
    #[error("failed to parse fleet file {path}")]
    Parse {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
}

/// What one host is when it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    pub capacity: Capacity,
    pub host: Host,
    pub tags: BTreeMap<String, String>,
    pub latency: Latency,
}

impl Fleet {
    /// Reads a fleet file.
    ///
    /// # Errors
    /// When it cannot be read or is no fleet.
    pub fn read(path: &Path) -> Result<Self, FleetError> {
        let shown = || path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| FleetError::Read { path: shown(), source })?;
        serde_saphyr::from_str(&text).map_err(|source| FleetError::Parse { path: shown(), source: Box::new(source) })
    }

    /// What the host of this server is.
    pub fn blueprint(&self, server: &str) -> Blueprint {
        let mix = mix(index(server));
        let Some(kind) = self.servers.iter().find(|kind| kind.fits(server)) else { return mix };
        let capacity = Capacity {
            session_types: kind.session_types.clone().unwrap_or(mix.capacity.session_types),
            max_virtual_sessions: kind.max_virtual_sessions.unwrap_or(mix.capacity.max_virtual_sessions),
            max_concurrent_sessions_per_user: kind
                .max_concurrent_sessions_per_user
                .unwrap_or(mix.capacity.max_concurrent_sessions_per_user),
            gl: kind.gl.unwrap_or(mix.capacity.gl),
        };
        let host = kind.host.clone().unwrap_or(mix.host);
        Blueprint { capacity, host, tags: kind.tags.clone(), latency: kind.latency }
    }
}

impl Kind {
    fn fits(&self, server: &str) -> bool {
        let Some((before, after)) = self.name.split_once("{n}") else { return self.name == server };
        let number = server.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        let number = number.and_then(|number| number.parse::<u64>().ok());
        number
            .and_then(|number| number.checked_sub(self.from))
            .is_some_and(|n| self.count.is_none_or(|count| n < count))
    }
}

/// The number a name ends with; of a name without one, a number that is its own.
fn index(server: &str) -> u64 {
    let digits = server.len() - server.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    server[server.len() - digits..].parse().unwrap_or_else(|_| u64::from(Sha256::digest(server)[0]))
}

/// One row of the fixed mix.
struct Row {
    os: (&'static str, &'static str, &'static str),
    /// Kernel release, or build number of Windows.
    release: &'static str,
    pool: &'static str,
    /// Processors, cores of each, memory in GiB.
    size: (i32, i32, i64),
    gpu: Option<(&'static str, &'static str)>,
    instance_type: Option<&'static str>,
    session_types: &'static [SessionType],
    /// Most virtual sessions, in all and of one owner.
    limits: (i32, i32),
}

const VIRTUAL: &[SessionType] = &[SessionType::Virtual];
const CONSOLE: &[SessionType] = &[SessionType::Console];
const BOTH: &[SessionType] = &[SessionType::Virtual, SessionType::Console];
const A10: Option<(&str, &str)> = Some(("NVIDIA", "A10"));
const T4: Option<(&str, &str)> = Some(("NVIDIA", "T4"));
const RTX: Option<(&str, &str)> = Some(("NVIDIA", "RTX A6000"));

/// The fixed mix: the row is the number of the server modulo 8. `docs/fleet.md` prints this table.
const MIX: [Row; 8] = [
    Row {
        os: ("linux", "SLES", "15.6"),
        release: "6.4.0-150600.23-default",
        pool: "render",
        size: (4, 16, 512),
        gpu: RTX,
        instance_type: None,
        session_types: VIRTUAL,
        limits: (40, -1),
    },
    Row {
        os: ("linux", "Debian GNU/Linux", "12"),
        release: "6.1.0-28-amd64",
        pool: "office",
        size: (1, 8, 32),
        gpu: None,
        instance_type: None,
        session_types: VIRTUAL,
        limits: (10, 10),
    },
    Row {
        os: ("linux", "Ubuntu", "24.04"),
        release: "6.8.0-48-generic",
        pool: "office",
        size: (1, 16, 64),
        gpu: None,
        instance_type: None,
        session_types: VIRTUAL,
        limits: (20, 10),
    },
    Row {
        os: ("linux", "Red Hat Enterprise Linux", "9.4"),
        release: "5.14.0-427.el9.x86_64",
        pool: "render",
        size: (2, 16, 128),
        gpu: A10,
        instance_type: None,
        session_types: BOTH,
        limits: (10, 10),
    },
    Row {
        os: ("linux", "Amazon Linux", "2023"),
        release: "6.1.112-122.189.amzn2023.x86_64",
        pool: "cloud",
        size: (1, 2, 16),
        gpu: T4,
        instance_type: Some("g4dn.xlarge"),
        session_types: VIRTUAL,
        limits: (10, 10),
    },
    Row {
        os: ("windows", "Microsoft Windows Server 2022 Datacenter", "10.0.20348"),
        release: "20348",
        pool: "windows",
        size: (1, 8, 32),
        gpu: None,
        instance_type: None,
        session_types: CONSOLE,
        limits: (0, 0),
    },
    Row {
        os: ("linux", "Rocky Linux", "9.4"),
        release: "5.14.0-427.el9.x86_64",
        pool: "office",
        size: (2, 8, 96),
        gpu: None,
        instance_type: None,
        session_types: BOTH,
        limits: (30, 10),
    },
    Row {
        os: ("windows", "Microsoft Windows 11 Pro", "10.0.22631"),
        release: "22631",
        pool: "windows",
        size: (1, 16, 64),
        gpu: A10,
        instance_type: None,
        session_types: CONSOLE,
        limits: (0, 0),
    },
];

fn mix(index: u64) -> Blueprint {
    let nth = |modulus: u64| usize::try_from(index % modulus).expect("a small number");
    let row = &MIX[nth(8)];
    let (family, name, version) = row.os;
    let is_windows = family == "windows";
    let total = row.size.2 << 30;
    let tenths = |modulus: u64| f64::from(u32::try_from(index % modulus).expect("a small number")) / 10.0;
    let mut tags = BTreeMap::from([
        ("pool".to_owned(), row.pool.to_owned()),
        ("zone".to_owned(), ["a", "b", "c"][nth(3)].to_owned()),
    ]);
    if let Some((_, model)) = row.gpu {
        tags.insert("gpu".to_owned(), model.to_lowercase());
    }
    let host = Host {
        os: Some(Os {
            family: family.into(),
            name: name.into(),
            version: version.into(),
            kernel_version: (!is_windows).then(|| row.release.into()),
            build_number: is_windows.then(|| row.release.into()),
        }),
        memory: Some(Memory { total_bytes: total, used_bytes: total / 4 }),
        swap: Some(Memory { total_bytes: total / 8, used_bytes: 0 }),
        aws: row.instance_type.map(|instance_type| Aws {
            region: "eu-west-1".into(),
            ec2_instance_type: instance_type.into(),
            ec2_instance_id: format!("i-{index:017x}"),
            ec2_image_id: "ami-0123456789abcdef0".into(),
        }),
        cpu_info: Some(CpuInfo {
            vendor: "GenuineIntel".into(),
            model_name: "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz".into(),
            architecture: "x86_64".into(),
            number_of_cpus: row.size.0,
            physical_cores_per_cpu: row.size.1,
        }),
        cpu_load_average: Some(CpuLoadAverage {
            one_minute: tenths(17),
            five_minutes: tenths(13),
            fifteen_minutes: tenths(11),
        }),
        gpus: row
            .gpu
            .iter()
            .map(|(vendor, model)| Gpu { vendor: (*vendor).into(), model_name: (*model).into() })
            .collect(),
        logged_in_users: Vec::new(),
    };
    let capacity = Capacity {
        session_types: row.session_types.to_vec(),
        max_virtual_sessions: row.limits.0,
        max_concurrent_sessions_per_user: row.limits.1,
        gl: row.gpu.is_some() && !is_windows,
    };
    Blueprint { capacity, host, tags, latency: Latency::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = "
servers:
- name: host-dev-{n}
  from: 2
  count: 2
  tags: {pool: big}
  sessionTypes: [CONSOLE]
  maxVirtualSessions: 0
  host: {os: {family: windows, name: Windows, buildNumber: '20348'}, loggedInUsers: [eve]}
  latency: {createMilliseconds: 20}
- name: special
  tags: {pool: special}
";

    #[test]
    fn the_first_kind_that_fits_describes_a_host() {
        let fleet: Fleet = serde_saphyr::from_str(FLEET).unwrap();
        let pool = |server: &str| fleet.blueprint(server).tags["pool"].clone();
        assert_eq!(
            ["host-dev-1", "host-dev-2", "host-dev-3", "host-dev-4", "special"].map(pool),
            ["office", "big", "big", "cloud", "special"]
        );
        let blueprint = fleet.blueprint("host-dev-2");
        assert_eq!(blueprint.capacity.session_types, CONSOLE);
        assert_eq!(blueprint.latency.create_milliseconds, 20);
        assert_eq!(blueprint.host.os.unwrap().build_number.as_deref(), Some("20348"));
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        assert!(serde_saphyr::from_str::<Fleet>("servers: [{name: a, tag: {}}]").is_err());
    }

    #[test]
    fn the_documented_table_is_the_mix() {
        let documented = include_str!("../../../../docs/fleet.md");
        for (index, row) in MIX.iter().enumerate() {
            let (sockets, cores, memory) = row.size;
            let gpu = row.gpu.map_or("none".to_owned(), |(vendor, model)| format!("{vendor} {model}"));
            let types: Vec<_> = row.session_types.iter().map(|type_| type_.as_str()).collect();
            let line = format!(
                "| {index} | {} {} | {} | {sockets} x {cores}, {memory} GiB | {gpu} | {} | {} / {} |",
                row.os.1,
                row.os.2,
                row.pool,
                types.join(", "),
                row.limits.0,
                row.limits.1
            );
            assert!(documented.lines().any(|documented| documented == line), "docs/fleet.md lacks: {line}");
        }
    }

    #[test]
    fn the_documented_file_is_a_fleet() {
        let documented = include_str!("../../../../docs/fleet.md");
        let file = documented.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let fleet: Fleet = serde_saphyr::from_str(file).unwrap();
        assert_eq!(fleet.servers.len(), 2);
    }

    #[test]
    fn the_mix_depends_on_nothing_but_the_name() {
        let fleet = Fleet::default();
        assert_eq!(fleet.blueprint("host-x-11"), fleet.blueprint("host-x-11"));
        let kinds: Vec<_> = (1..=8).map(|n| fleet.blueprint(&format!("host-x-{n}")).host.os.unwrap().name).collect();
        assert_eq!(kinds[0], "Debian GNU/Linux");
        assert_eq!(kinds.iter().collect::<std::collections::BTreeSet<_>>().len(), 8);
        assert_eq!(fleet.blueprint("no-number"), fleet.blueprint("no-number"));
    }
}
