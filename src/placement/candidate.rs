//! What placing knows of a server, and what a requirement can ask of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt;

use super::Labels;
use super::Occupancy;
use super::Rejection;
use super::texts::Texts;
use crate::api::DcvServer;
use crate::api::server::Availability;
use crate::api::server::CpuLoadAverage;
use crate::api::server::DcvServerStatus;
use crate::api::server::Limits;
use crate::api::server::Placement;
use crate::api::server::UnavailabilityReason;
use crate::api::session::SessionType;
use crate::requirement::Facts;
use crate::requirement::Property;
use crate::requirement::Value;

/// Which namespaces a server without `allowedNamespaces` takes sessions of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewServers {
    /// All.
    #[default]
    Open,
    /// None, until an administrator says which.
    Closed,
}

/// What placing looks at in a server, apart from who is on it.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Candidate {
    /// Name of the `DcvServer`.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Why it takes nobody, if so.
    pub shut: Option<Rejection>,
    /// Namespaces it admits; `None`: none.
    pub namespaces: Option<Labels>,
    /// Whether its host can run console sessions.
    pub console: bool,
    /// Whether its host can run virtual sessions.
    pub virtual_: bool,
    /// Most virtual sessions; negative: no limit.
    pub max_virtual: i32,
    /// Most virtual sessions of one owner; negative: no limit.
    pub max_per_owner: i32,
    /// Whether the host runs Linux.
    pub linux: bool,
    /// Whether virtual sessions can have its GPU for OpenGL, as its agent reports.
    pub gl: bool,
    /// Sessions on the host that no object here stands for.
    pub others: Occupancy,
    /// What only requirements ask for.
    description: Description,
    /// The same, of what changes all the time.
    moving: Moving,
}

/// Facts that hardly ever change.
#[derive(Clone, Debug, PartialEq)]
struct Description {
    /// In order. They are few, and so nearer to each other than in a map.
    tags: Box<[(Arc<str>, Arc<str>)]>,
    /// Properties that are texts, in order, as far as they are reported.
    texts: Box<[(Property, Arc<str>)]>,
    memory_total: Option<i64>,
    swap_total: Option<i64>,
    /// Number of processors, and of cores of each.
    cpu: Option<(i32, i32)>,
    gpu_models: Box<[String]>,
    gpu_vendors: Box<[String]>,
}

/// The properties of a server that are texts, its uid apart. What a host does not report is empty in the object.
fn texts(status: &DcvServerStatus) -> Box<[(Property, Arc<str>)]> {
    let agent = status.agent.as_ref();
    let host = status.host.as_ref();
    let os = host.and_then(|host| host.os.as_ref());
    let aws = host.and_then(|host| host.aws.as_ref());
    let cpu = host.and_then(|host| host.cpu_info.as_ref());
    let texts = [
        (Property::Hostname, Some(&status.hostname)),
        (Property::Version, Some(&status.version)),
        (Property::SessionManagerAgentVersion, agent.map(|agent| &agent.version)),
        (Property::HostOsBuildNumber, os.and_then(|os| os.build_number.as_ref())),
        (Property::HostOsFamily, os.map(|os| &os.family)),
        (Property::HostOsKernelVersion, os.and_then(|os| os.kernel_version.as_ref())),
        (Property::HostOsName, os.map(|os| &os.name)),
        (Property::HostOsVersion, os.map(|os| &os.version)),
        (Property::HostAwsEc2InstanceId, aws.map(|aws| &aws.ec2_instance_id)),
        (Property::HostAwsEc2InstanceType, aws.map(|aws| &aws.ec2_instance_type)),
        (Property::HostAwsRegion, aws.map(|aws| &aws.region)),
        (Property::HostAwsEc2ImageId, aws.map(|aws| &aws.ec2_image_id)),
        (Property::HostCpuInfoArchitecture, cpu.map(|cpu| &cpu.architecture)),
        (Property::HostCpuInfoModelName, cpu.map(|cpu| &cpu.model_name)),
        (Property::HostCpuInfoVendor, cpu.map(|cpu| &cpu.vendor)),
    ];
    let reported = texts.into_iter().filter_map(|(property, text)| Some((property, text?)));
    reported.filter(|(_, text)| !text.is_empty()).map(|(property, text)| (property, text.as_str().into())).collect()
}

/// Facts that are different in each report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Moving {
    memory_used: Option<i64>,
    swap_used: Option<i64>,
    load: Option<CpuLoadAverage>,
}

/// What a new report of a server changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    Nothing,
    /// How many sessions are on it.
    Sessions,
    /// What is different in each report.
    Report,
    /// Something that decides what fits.
    Whole,
}

impl Candidate {
    /// The facts of `server`.
    ///
    /// `reachable` is false when the caller knows better than the status that the agent is silent, `cordoned` is what the
    /// Node of that name says.
    pub fn of(server: &DcvServer, reachable: bool, cordoned: bool, new_servers: NewServers) -> Self {
        let status = server.status.clone().unwrap_or_default();
        let texts = texts(&status);
        let Limits { max_virtual_sessions, max_concurrent_sessions_per_user } = server.limits();
        let host = status.host.unwrap_or_default();
        let mut others = Occupancy::default();
        for other in &status.other_sessions {
            others.add(&other.owner.as_str().into(), other.type_);
        }
        let capacity = status.capacity.unwrap_or_default();
        let linux = host.os.as_ref().is_none_or(|os| os.family.eq_ignore_ascii_case("linux"));
        let (gpu_models, gpu_vendors): (Vec<_>, Vec<_>) =
            host.gpus.into_iter().map(|gpu| (gpu.model_name, gpu.vendor)).unzip();
        Self {
            name: server.name_any().into(),
            uid: server.uid().unwrap_or_default(),
            labels: server.labels().clone(),
            shut: shut(server, reachable, cordoned),
            namespaces: admitted(server, new_servers),
            console: capacity.session_types.contains(&SessionType::Console),
            // They exist on Linux only. Source: "Amazon DCV sessions" in the DCV Administrator Guide.
            virtual_: linux && capacity.session_types.contains(&SessionType::Virtual),
            max_virtual: max_virtual_sessions.unwrap_or(0),
            max_per_owner: max_concurrent_sessions_per_user.unwrap_or(-1),
            linux,
            gl: capacity.gl,
            others,
            description: Description {
                tags: status.tags.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
                texts,
                memory_total: host.memory.map(|memory| memory.total_bytes),
                swap_total: host.swap.map(|swap| swap.total_bytes),
                cpu: host.cpu_info.map(|cpu| (cpu.number_of_cpus, cpu.physical_cores_per_cpu)),
                gpu_models: gpu_models.into(),
                gpu_vendors: gpu_vendors.into(),
            },
            moving: Moving {
                memory_used: host.memory.map(|memory| memory.used_bytes),
                swap_used: host.swap.map(|swap| swap.used_bytes),
                load: host.cpu_load_average,
            },
        }
    }

    /// Load of the host over one minute, in thousandths of a processor.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is small, and `as` saturates")]
    pub(super) fn load(&self) -> u32 {
        (self.moving.load.map_or(0.0, |load| load.one_minute) * 1000.0) as u32
    }

    /// Has the texts that others have too from `texts`.
    pub(super) fn share(&mut self, texts: &mut Texts) {
        let Description { tags, texts: properties, .. } = &mut self.description;
        for (key, value) in tags {
            texts.share(key);
            texts.share(value);
        }
        properties.iter_mut().for_each(|(_, text)| texts.share(text));
    }

    /// Becomes `new`. What is different.
    pub(super) fn replace(&mut self, new: Self) -> Difference {
        let moved = self.moving != new.moving;
        self.moving = new.moving;
        if *self != new {
            *self = new;
            return Difference::Whole;
        }
        if moved { Difference::Report } else { Difference::Nothing }
    }
}

/// What shuts the server as a whole. Whether it is full, or closed, is not taken from the status, which lags: the counts
/// and the spec say it exactly.
fn shut(server: &DcvServer, reachable: bool, cordoned: bool) -> Option<Rejection> {
    let status = server.status.as_ref();
    let reported = match (status.map(|it| it.availability), status.and_then(|it| it.unavailability_reason)) {
        (Some(Availability::Available), _)
        | (_, Some(UnavailabilityReason::ServerFull | UnavailabilityReason::ServerClosed)) => None,
        (_, Some(UnavailabilityReason::UnreachableAgent)) => Some(Rejection::Unreachable),
        (_, Some(UnavailabilityReason::UnhealthyDcvServer)) => Some(Rejection::Unhealthy),
        (_, Some(UnavailabilityReason::ExistingLoggedInUser)) => Some(Rejection::LoggedIn),
        (_, Some(UnavailabilityReason::Unknown) | None) => Some(Rejection::NotReady),
    };
    let closed = match server.spec.placement {
        None | Some(Placement::Open) => cordoned.then_some(Rejection::Cordoned),
        Some(Placement::Closed) => Some(Rejection::Closed),
        Some(Placement::Draining) => Some(Rejection::Draining),
    };
    // `Rejection` is ordered by what counts more.
    reported.into_iter().chain(closed).chain((!reachable).then_some(Rejection::Unreachable)).min()
}

/// The namespaces the server admits. A selector that makes no sense admits none.
fn admitted(server: &DcvServer, new_servers: NewServers) -> Option<Labels> {
    match &server.spec.allowed_namespaces {
        Some(selector) => selector.clone().try_into().ok(),
        None => (new_servers == NewServers::Open).then(Labels::default),
    }
}

/// A server with who is on it.
#[derive(Clone, Copy, Debug)]
pub struct Occupied<'a> {
    /// The server.
    pub candidate: &'a Candidate,
    /// Who is on it, sessions without an object apart.
    pub occupancy: &'a Occupancy,
}

impl<'a> Occupied<'a> {
    /// Console and virtual sessions of every origin.
    pub fn sessions(self) -> (i64, i64) {
        let Self { candidate: Candidate { others, .. }, occupancy } = self;
        let sum = |a, b| i64::from(a) + i64::from(b);
        (sum(occupancy.console, others.console), sum(occupancy.virtual_, others.virtual_))
    }

    /// Virtual sessions of `owner`, of every origin.
    pub fn sessions_of(self, owner: &str) -> i64 {
        i64::from(self.occupancy.of_owner(owner)) + i64::from(self.candidate.others.of_owner(owner))
    }

    fn text(self, property: Property) -> Option<&'a str> {
        let Candidate { uid, description, .. } = self.candidate;
        if property == Property::Id {
            return (!uid.is_empty()).then_some(uid);
        }
        description.texts.iter().find(|(it, _)| *it == property).map(|(_, text)| &**text)
    }

    #[expect(clippy::cast_precision_loss, reason = "what is beyond 2^53 bytes need not be exact")]
    fn number(self, property: Property) -> Option<f64> {
        let Candidate { description, moving, .. } = self.candidate;
        let bytes = |bytes: Option<i64>| bytes.map(|bytes| bytes as f64);
        match property {
            Property::HostMemoryTotalBytes => bytes(description.memory_total),
            Property::HostMemoryUsedBytes => bytes(moving.memory_used),
            Property::HostSwapTotalBytes => bytes(description.swap_total),
            Property::HostSwapUsedBytes => bytes(moving.swap_used),
            Property::HostCpuLoadAverageOneMinute => Some(moving.load?.one_minute),
            Property::HostCpuLoadAverageFiveMinutes => Some(moving.load?.five_minutes),
            Property::HostCpuLoadAverageFifteenMinutes => Some(moving.load?.fifteen_minutes),
            Property::HostCpuInfoNumberOfCpus => Some(description.cpu?.0.into()),
            Property::HostCpuInfoPhysicalCoresPerCpu => Some(description.cpu?.1.into()),
            Property::HostGpusCount => Some(description.gpu_models.len() as f64),
            Property::VirtualSessionCount => Some(self.sessions().1 as f64),
            Property::ConsoleSessionCount => Some(self.sessions().0 as f64),
            _ => None,
        }
    }
}

impl Facts for Occupied<'_> {
    fn tag(&self, key: &str) -> Option<&str> {
        self.candidate.description.tags.iter().find(|(it, _)| **it == *key).map(|(_, value)| &**value)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.candidate.labels.get(key).map(String::as_str)
    }

    fn property(&self, property: Property) -> Option<Value<'_>> {
        let description = &self.candidate.description;
        match property {
            Property::HostGpusModelName => Some(Value::Texts(&description.gpu_models)),
            Property::HostGpusVendor => Some(Value::Texts(&description.gpu_vendors)),
            _ => self.text(property).map(Value::Text).or_else(|| self.number(property).map(Value::Number)),
        }
    }
}

/// Properties that are different in each report.
pub(super) const REPORTED: [Property; 5] = [
    Property::HostMemoryUsedBytes,
    Property::HostSwapUsedBytes,
    Property::HostCpuLoadAverageOneMinute,
    Property::HostCpuLoadAverageFiveMinutes,
    Property::HostCpuLoadAverageFifteenMinutes,
];

/// Properties that change with each session.
pub(super) const COUNTED: [Property; 2] = [Property::VirtualSessionCount, Property::ConsoleSessionCount];
