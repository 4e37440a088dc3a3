//! The properties of a server that a requirement can ask for.

macro_rules! properties {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A property of a server, named after `server:` in a requirement.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Property {
            $($(#[$doc])* $variant,)*
        }

        impl Property {
            /// All of them, the documented ones first.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name, such as `Host.Os.Family`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The property of this exact name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

properties! {
    /// Id of the server. Text.
    Id = "Id",
    /// Name of the host as it calls itself. Text.
    Hostname = "Hostname",
    /// Version of the desktop server. Text.
    Version = "Version",
    /// Version of the agent. Text.
    SessionManagerAgentVersion = "SessionManagerAgentVersion",
    /// Build number of the operating system; Windows only. Text.
    HostOsBuildNumber = "Host.Os.BuildNumber",
    /// linux, windows or macos. Text.
    HostOsFamily = "Host.Os.Family",
    /// Kernel release; Linux only. Text.
    HostOsKernelVersion = "Host.Os.KernelVersion",
    /// Name of the operating system. Text.
    HostOsName = "Host.Os.Name",
    /// Version of the operating system. Text.
    HostOsVersion = "Host.Os.Version",
    /// Memory, in bytes. Number.
    HostMemoryTotalBytes = "Host.Memory.TotalBytes",
    /// Memory in use, in bytes. Number.
    HostMemoryUsedBytes = "Host.Memory.UsedBytes",
    /// Swap space, in bytes. Number.
    HostSwapTotalBytes = "Host.Swap.TotalBytes",
    /// Swap space in use, in bytes. Number.
    HostSwapUsedBytes = "Host.Swap.UsedBytes",
    /// Load average over one minute. Number.
    HostCpuLoadAverageOneMinute = "Host.CpuLoadAverage.OneMinute",
    /// Load average over five minutes. Number.
    HostCpuLoadAverageFiveMinutes = "Host.CpuLoadAverage.FiveMinutes",
    /// Load average over fifteen minutes. Number.
    HostCpuLoadAverageFifteenMinutes = "Host.CpuLoadAverage.FifteenMinutes",
    /// EC2 instance id. Text.
    HostAwsEc2InstanceId = "Host.Aws.Ec2InstanceId",
    /// EC2 instance type. Text.
    HostAwsEc2InstanceType = "Host.Aws.Ec2InstanceType",
    /// AWS region. Text.
    HostAwsRegion = "Host.Aws.Region",
    /// EC2 image id. Text.
    HostAwsEc2ImageId = "Host.Aws.Ec2ImageId",
    /// Architecture of the processors. Text.
    HostCpuInfoArchitecture = "Host.CpuInfo.Architecture",
    /// Model of the processors. Text.
    HostCpuInfoModelName = "Host.CpuInfo.ModelName",
    /// Number of processors. Number.
    HostCpuInfoNumberOfCpus = "Host.CpuInfo.NumberOfCpus",
    /// Physical cores of each processor. Number.
    HostCpuInfoPhysicalCoresPerCpu = "Host.CpuInfo.PhysicalCoresPerCpu",
    /// Vendor of the processors. Text.
    HostCpuInfoVendor = "Host.CpuInfo.Vendor",
    /// Number of graphics cards, 0 on a host that reports none. Number. Ours.
    HostGpusCount = "Host.Gpus.Count",
    /// Models of the graphics cards. Several texts. Ours.
    HostGpusModelName = "Host.Gpus.ModelName",
    /// Vendors of the graphics cards. Several texts. Ours.
    HostGpusVendor = "Host.Gpus.Vendor",
    /// Virtual sessions on the host, of every origin. Number. Ours.
    VirtualSessionCount = "VirtualSessionCount",
    /// Console sessions on the host, of every origin. Number. Ours.
    ConsoleSessionCount = "ConsoleSessionCount",
}

impl Property {
    /// Whether Session Manager documents it; the others are ours.
    pub fn is_documented(self) -> bool {
        self < Self::HostGpusCount
    }

    /// Whether a host can have several values for it, of which any satisfies a comparison.
    pub fn is_multiple(self) -> bool {
        matches!(self, Self::HostGpusModelName | Self::HostGpusVendor)
    }
}
