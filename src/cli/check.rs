//! `dcv-operator check`: what the host is, whether it is set up for sessions, and how to mend what is missing.

use std::fmt::Write as _;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use clap::ValueEnum;
use serde::Serialize;

use super::agent_conf::Notices;
use super::host::HostArgs;
use super::host::PlaceArgs;
use crate::agent::check;
use crate::agent::check::Finding;
use crate::agent::check::Kind;
use crate::agent::check::Level;
use crate::agent::check::Source;
use crate::agent::host;
use crate::agent::host::slow;
use crate::api::server::Host;
use crate::api::server::Memory;

/// Exit code when there is a problem. Warnings alone are none.
const HAS_PROBLEMS: u8 = 1;

/// Flags of the check: those of the agent that say where things are.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// What is to run the sessions; by default dcv where it is installed, else vnc
    #[arg(long, env = "DCV_BACKEND", value_enum)]
    backend: Option<CheckedBackend>,
    /// How the host is read.
    #[command(flatten)]
    host: HostArgs,
    /// Where things are on the host.
    #[command(flatten)]
    places: PlaceArgs,
    /// Folder of log files
    #[arg(long, env = "DCV_LOG_DIRECTORY", value_name = "DIR")]
    log_directory: Option<PathBuf>,
    /// How the findings are printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum CheckedBackend {
    /// An installed Amazon DCV server
    Dcv,
    /// Desktops of an X server, served to browsers by the agent
    Vnc,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Everything that is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    backend: Kind,
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    host: Host,
    findings: Vec<Finding>,
    problems: usize,
    warnings: usize,
}

impl CheckArgs {
    /// Looks at the host, prints what it finds and answers how it was.
    ///
    /// # Errors
    /// When nothing can be printed.
    pub async fn run(self, notices: &Notices) -> anyhow::Result<ExitCode> {
        let report = self.look(notices).await?;
        let text = match self.output {
            Output::Text => report.text(),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        };
        io::stdout().write_all(text.as_bytes()).context("failed to print")?;
        Ok(if report.problems > 0 { ExitCode::from(HAS_PROBLEMS) } else { ExitCode::SUCCESS })
    }

    async fn look(&self, notices: &Notices) -> anyhow::Result<Report> {
        let settings = self.host.settings(self.places.command_prefix());
        let address = host::own_address(settings.preferred_network_interface.as_deref());
        let source = self.source();
        let kind = source.kind;
        let mut findings = settings_findings(notices);
        findings.push(match &address {
            Ok(address) => Finding::ok("Address", address.to_string()),
            Err(error) => Finding::bad(
                Level::Problem,
                "Address",
                error.to_string(),
                "set preferred_network_interface to one of them, or leave it out",
            ),
        });
        findings
            .extend(tokio::task::spawn_blocking(move || check::examine(&source)).await.context("looking broke off")?);
        let machine = host::read(&settings.root);
        let slow = slow::read(&settings, address.clone().unwrap_or([127, 0, 0, 1].into())).await;
        let mut host = machine.host;
        slow.add_to(&mut host, None);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Ok(Report {
            backend: kind,
            hostname: machine.hostname,
            dns_name: slow.dns_name.flatten(),
            ip: address.ok().map(|address| address.to_string()),
            host,
            problems: count(Level::Problem),
            warnings: count(Level::Warning),
            findings,
        })
    }

    fn source(&self) -> Source {
        let root = &self.host.host_root;
        let has_dcv = root.join("usr/bin/dcv").exists() || root.join("etc/dcv/dcv.conf").exists();
        let kind = match self.backend {
            Some(CheckedBackend::Dcv) => Kind::Dcv,
            None if has_dcv => Kind::Dcv,
            Some(CheckedBackend::Vnc) | None => Kind::Vnc,
        };
        self.places.check_source(kind, root, self.log_directory.as_deref())
    }
}

/// What is to be said of the configuration file.
fn settings_findings(notices: &Notices) -> Vec<Finding> {
    let told = |level, texts: &[String], remedy: &str| {
        texts.iter().map(|text| Finding::bad(level, "Settings", text, remedy)).collect::<Vec<_>>()
    };
    let mut findings = told(Level::Problem, &notices.faults, "mend the file: an agent does not start with it");
    findings.extend(told(Level::Warning, &notices.warnings, "mend its name, or take it out"));
    findings.extend(told(Level::Note, &notices.notes, "it may stay"));
    findings
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("host {}", self.hostname);
        // Writing to text cannot fail.
        let _ = match &self.dns_name {
            Some(name) if *name != self.hostname => write!(text, " ({name})"),
            _ => Ok(()),
        };
        let _ = writeln!(text, "{}", self.ip.as_ref().map(|ip| format!(", {ip}")).unwrap_or_default());
        for (name, value) in facts(&self.host) {
            let _ = writeln!(text, "  {name:<8}{value}");
        }
        text.push('\n');
        for finding in &self.findings {
            let _ = writeln!(text, "{:<9}{:<19}{}", finding.level, finding.check, finding.message);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "{:<28}-> {remedy}", "");
            }
        }
        let plural =
            |count: usize, word: &str| if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") };
        let _ = writeln!(text, "\n{}, {}", plural(self.problems, "problem"), plural(self.warnings, "warning"));
        text
    }
}

/// What is known of the machine, for people.
fn facts(host: &Host) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(os) = &host.os {
        let kernel = os.kernel_version.as_deref().unwrap_or("unknown");
        facts.push(("os", format!("{} {}, kernel {kernel}", os.name, os.version)));
    }
    if let Some(cpu) = &host.cpu_info {
        let counts = format!("{} x {} cores", cpu.number_of_cpus, cpu.physical_cores_per_cpu);
        facts.push(("cpu", format!("{} {}, {}, {counts}", cpu.vendor, cpu.model_name, cpu.architecture)));
    }
    facts.extend(host.memory.map(|memory| ("memory", used(memory))));
    facts.extend(host.swap.map(|swap| ("swap", used(swap))));
    if let Some(load) = host.cpu_load_average {
        facts.push(("load", format!("{:.2} {:.2} {:.2}", load.one_minute, load.five_minutes, load.fifteen_minutes)));
    }
    facts.extend(host.gpus.iter().map(|gpu| ("gpu", format!("{} {}", gpu.vendor, gpu.model_name))));
    if !host.logged_in_users.is_empty() {
        facts.push(("users", host.logged_in_users.join(", ")));
    }
    if let Some(aws) = &host.aws {
        let what = format!("{} {} in {}", aws.ec2_instance_type, aws.ec2_instance_id, aws.region);
        facts.push(("ec2", format!("{what}, image {}", aws.ec2_image_id)));
    }
    facts
}

fn used(memory: Memory) -> String {
    let mib = |bytes: i64| bytes >> 20;
    format!("{} of {} MiB used", mib(memory.used_bytes), mib(memory.total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            backend: Kind::Vnc,
            hostname: "node7".into(),
            dns_name: Some("node7.example".into()),
            ip: Some("10.0.0.7".into()),
            host: Host { memory: Some(Memory { total_bytes: 8 << 30, used_bytes: 1 << 30 }), ..Host::default() },
            findings: vec![
                Finding::ok("Clock", "kept by chronyd"),
                Finding::bad(Level::Problem, "XServer", "it is not there", "install it"),
            ],
            problems: 1,
            warnings: 0,
        }
    }

    #[test]
    fn people_read_what_is_so_and_what_to_do() {
        let expected = "host node7 (node7.example), 10.0.0.7\n  memory  1024 of 8192 MiB used\n\n\
            ok       Clock              kept by chronyd\n\
            problem  XServer            it is not there\n                            -> install it\n\n\
            1 problem, 0 warnings\n";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn programs_read_the_same() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["backend"], "vnc");
        assert_eq!(json["host"]["memory"]["totalBytes"], 8_i64 << 30);
        let xserver = serde_json::json!({"check": "XServer", "level": "problem", "message": "it is not there", "remedy": "install it"});
        assert_eq!(json["findings"][1], xserver);
        assert_eq!((&json["problems"], &json["warnings"]), (&1.into(), &0.into()));
    }

    #[test]
    fn the_configuration_file_is_looked_at_too() {
        let notices = Notices { faults: vec!["a".into()], warnings: vec!["b".into()], notes: vec!["c".into()] };
        let levels: Vec<_> = settings_findings(&notices).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Problem, Level::Warning, Level::Note]);
        assert_eq!(settings_findings(&Notices::default()), []);
    }
}
