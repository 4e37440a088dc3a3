use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::Kind;
use super::super::Source;
use super::super::examine;
use super::super::read;
use super::*;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIBdTCC\nARygAw==\n-----END CERTIFICATE-----\n";
const OTHER: &str = "-----BEGIN CERTIFICATE-----\nMIIBother\n-----END CERTIFICATE-----\n";
const CONF: &str = "[license]\n[security]\nauth-token-verifier=\"https://127.0.0.1:945/agent/validate-authentication-token\"\n\
    ca-file=\"/etc/dcv/verifier-ca.pem\"\nos-auto-lock=false\nadministrators=[\"operator\"]\n[session-management]\n";

/// The files of a host.
struct HostFiles(tempfile::TempDir);

impl HostFiles {
    fn root(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, path: &str, text: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn program(&self, path: &str) -> &Self {
        self.put(path, "#!/bin/sh\n");
        fs::set_permissions(self.root().join(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root().join(path)).unwrap();
    }

    /// A host where nothing is missing.
    fn complete() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for program in ["usr/bin/dcv", "usr/bin/Xdcv", "usr/bin/dcvgladmin", "usr/bin/getent"] {
            host.program(program);
        }
        host.put("etc/dcv/dcv.conf", CONF)
            .put("etc/dcv/verifier-ca.pem", CERTIFICATE)
            .put("var/lib/dcv-operator/verifier/ca.pem", &CERTIFICATE.replace('\n', "\r\n"))
            .put("etc/dcv/dcvsessioninit", "#!/bin/sh\n")
            .put("etc/systemd/system/multi-user.target.wants/dcvserver.service", "")
            .put("usr/lib/systemd/system/dcvserver.service", "[Service]\nRestart=no\n")
            .put("etc/systemd/system/dcvserver.service.d/restart.conf", "[Service]\nRestart=always\n")
            .put("etc/gdm3/custom.conf", "[daemon]\nWaylandEnable = false\n")
            .put("etc/passwd", "root:x:0:0::/root:/bin/sh\noperator:x:900:900::/:/sbin/nologin\n")
            .put("proc/1/comm", "systemd\n")
            .put("proc/812/comm", "dcvserver\n")
            .put("run/dbus/system_bus_socket", "")
            .put("run/systemd/timesync/synchronized", "")
            .put("tmp/.X11-unix/X0", "")
            .put("home/ann/.profile", "");
        let card = "sys/bus/pci/devices/0000:01:00.0";
        host.put(&format!("{card}/class"), "0x030000\n")
            .put(&format!("{card}/vendor"), "0x10de\n")
            .put(&format!("{card}/device"), "0x2236\n");
        std::os::unix::fs::symlink("../../drivers/nvidia", host.root().join(card).join("driver")).unwrap();
        host
    }

    fn source(&self) -> Source {
        Source {
            kind: Kind::Dcv,
            host_root: self.root().to_owned(),
            own_root: self.root().to_owned(),
            init_folder: "/var/lib/dcv-session-manager-agent/init".into(),
            autorun_folder: "/var/lib/dcv-session-manager-agent/autorun".into(),
            tags_folder: "/etc/dcv-session-manager-agent/tags".into(),
            state_folder: "/run/dcv-operator".into(),
            log_directory: None,
            verifier_authority: "/var/lib/dcv-operator/verifier/ca.pem".into(),
            dcv_conf: "/etc/dcv/dcv.conf".into(),
        }
    }

    /// What is not well with the desktop server.
    fn faults(&self) -> Vec<(&'static str, Level)> {
        let set_up = SetUp { uid: 0, ..read(&self.source()) };
        let bad = findings(set_up.dcv.as_ref().unwrap(), &set_up);
        bad.into_iter().filter(|one| one.level != Level::Ok).map(|one| (one.check, one.level)).collect()
    }

    fn with_conf(conf: &str) -> Self {
        let host = Self::complete();
        host.put("etc/dcv/dcv.conf", conf);
        host
    }
}

#[test]
fn on_a_complete_host_there_is_nothing_to_do() {
    assert_eq!(HostFiles::complete().faults(), []);
}

#[test]
fn with_the_configuration_of_the_documentation_there_is_nothing_to_do() {
    let page = include_str!("../../../../docs/dcv-hosts.md");
    let conf = page.split("```ini\n").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(conf.starts_with("[session-management]"), "{conf}");
    assert_eq!(HostFiles::with_conf(conf).faults(), []);
}

#[test]
fn each_missing_file_is_one_finding() {
    let problem = |check| vec![(check, Level::Problem)];
    let warning = |check| vec![(check, Level::Warning)];
    for (path, expected) in [
        ("usr/bin/dcv", problem("DcvServer")),
        ("proc/812/comm", problem("DcvServer")),
        ("etc/systemd/system/multi-user.target.wants/dcvserver.service", warning("DcvServer")),
        ("etc/systemd/system/dcvserver.service.d/restart.conf", warning("DcvServer")),
        ("run/dbus/system_bus_socket", problem("MessageBus")),
        ("etc/dcv/dcv.conf", problem("Configuration")),
        ("etc/dcv/verifier-ca.pem", problem("VerifierAuthority")),
        ("var/lib/dcv-operator/verifier/ca.pem", vec![("VerifierAuthority", Level::Note)]),
        ("usr/bin/Xdcv", problem("VirtualSessions")),
        ("etc/dcv/dcvsessioninit", warning("VirtualSessions")),
        ("etc/gdm3/custom.conf", vec![]),
        ("tmp/.X11-unix/X0", vec![("XServer", Level::Note), ("Gl", Level::Warning)]),
        ("usr/bin/dcvgladmin", warning("Gl")),
        ("sys/bus/pci/devices/0000:01:00.0/driver", warning("Gl")),
        ("sys/bus/pci/devices/0000:01:00.0/class", vec![]),
    ] {
        let host = HostFiles::complete();
        host.remove(path);
        assert_eq!(host.faults(), expected, "without {path}");
    }
}

#[test]
fn each_wrong_setting_is_one_finding() {
    let url = "https://127.0.0.1:945/agent/validate-authentication-token";
    let verifier = |level| vec![("Verifier", level)];
    for (old, new, expected) in [
        (url, "", verifier(Level::Problem)),
        (url, "no url", verifier(Level::Problem)),
        (url, "http://127.0.0.1:945/agent/validate-authentication-token", verifier(Level::Problem)),
        (url, "https://127.0.0.1:945/", verifier(Level::Problem)),
        (url, "https://localhost:8444/agent/validate-authentication-token", verifier(Level::Warning)),
        (url, "https://[::1]:945/agent/validate-authentication-token", vec![]),
        (url, "https://broker.example:8445/agent/validate-authentication-token", vec![]),
        ("os-auto-lock=false", "no-tls-strict=true\nos-auto-lock=false", verifier(Level::Problem)),
        ("os-auto-lock=false", "", vec![("ScreenLock", Level::Note)]),
        ("os-auto-lock=false", "os-auto-lock=false\nauthentication='none'", vec![("Authentication", Level::Problem)]),
        ("ca-file=", "#", vec![("VerifierAuthority", Level::Problem)]),
        (
            "[session-management]",
            "[session-management]\ncreate-session=true",
            vec![("AutomaticSession", Level::Warning)],
        ),
        ("[session-management]", "[session-management]\nenable-gl-in-virtual-sessions='always-off'", vec![]),
    ] {
        assert!(CONF.contains(old));
        assert_eq!(HostFiles::with_conf(&CONF.replace(old, new)).faults(), expected, "{new}");
    }
    let remote = CONF.replace("127.0.0.1:945", "broker.example:8445").replace("ca-file=", "#");
    assert_eq!(HostFiles::with_conf(&remote).faults(), [], "a broker may have a certificate of a public authority");
}

#[test]
fn an_authority_must_be_the_agents_own() {
    for (text, expected) in [
        (OTHER.to_owned(), vec![("VerifierAuthority", Level::Problem)]),
        ("no certificate".to_owned(), vec![("VerifierAuthority", Level::Problem)]),
        (format!("{OTHER}{CERTIFICATE}"), vec![]),
    ] {
        let host = HostFiles::complete();
        host.put("etc/dcv/verifier-ca.pem", &text);
        assert_eq!(host.faults(), expected, "{text}");
    }
}

#[test]
fn an_agent_that_is_not_root_must_be_an_administrator() {
    let conf = DcvConf::parse(CONF);
    let dcv = |account: &str| DcvSetUp { account: Some(account.to_owned()), ..DcvSetUp::default() };
    assert_eq!(administrators(&dcv("operator"), &conf, 900).level, Level::Ok);
    let other = administrators(&dcv("ann"), &conf, 1001);
    assert_eq!(other.level, Level::Problem);
    assert!(other.remedy.unwrap().contains("administrators=[\"ann\"]"));
    assert_eq!(administrators(&dcv("root"), &conf, 0).level, Level::Ok);
}

#[test]
fn wayland_on_the_login_screen_is_told() {
    let host = HostFiles::complete();
    host.put("etc/gdm3/custom.conf", "[daemon]\n#WaylandEnable=false\n");
    assert_eq!(host.faults(), [("XServer", Level::Warning)]);
}

#[test]
fn what_every_host_needs_is_looked_at_too() {
    let host = HostFiles::complete();
    let levels = |host: &HostFiles, check: &str| {
        let found = examine(&host.source()).into_iter().find(|finding| finding.check == check);
        found.map(|finding| (finding.level, finding.message)).unwrap()
    };
    assert_eq!(levels(&host, "Clock"), (Level::Ok, "kept by systemd-timesyncd".into()));
    assert_eq!(levels(&host, "Tags").0, Level::Ok);
    assert_eq!(levels(&host, "InitFolder").0, Level::Note);
    assert_eq!(levels(&host, "NameService").0, Level::Ok);
    assert_eq!(levels(&host, "Storage").0, Level::Ok);

    host.remove("run/systemd/timesync/synchronized");
    host.remove("usr/bin/getent");
    fs::remove_dir_all(host.root().join("home")).unwrap();
    host.put("etc/dcv-session-manager-agent/tags/a.toml", "a = 1\nb = \n");
    host.put("var/lib/dcv-session-manager-agent/init/desktop.sh", "#!/bin/sh\n");
    assert_eq!(levels(&host, "Clock").0, Level::Warning);
    assert_eq!(levels(&host, "NameService").0, Level::Problem);
    assert_eq!(levels(&host, "Storage").0, Level::Warning);
    let tags = levels(&host, "Tags");
    assert!(tags.0 == Level::Problem && tags.1.contains("a.toml, line 2"), "{tags:?}");

    let folder = host.root().join("var/lib/dcv-session-manager-agent/init");
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    assert_eq!(levels(&host, "InitFolder").0, Level::Problem, "anybody may put programs there");
    if nix::unistd::geteuid().is_root() {
        mode(0o750);
        assert_eq!(levels(&host, "InitFolder").0, Level::Warning, "nobody may enter it");
        mode(0o755);
        let told = levels(&host, "InitFolder");
        assert!(told.0 == Level::Warning && told.1.contains("desktop.sh"), "{told:?}");
        host.program("var/lib/dcv-session-manager-agent/init/desktop.sh");
        assert_eq!(levels(&host, "InitFolder").0, Level::Ok);
    }
}

#[test]
fn a_configuration_elsewhere_is_the_one_that_is_judged() {
    let host = HostFiles::complete();
    let source = Source { dcv_conf: "/opt/dcv.conf".into(), ..host.source() };
    let missing = examine(&source).into_iter().find(|finding| finding.check == "Configuration").unwrap();
    assert_eq!((missing.level, missing.message.as_str()), (Level::Problem, "/opt/dcv.conf is not there"));
    host.put("opt/dcv.conf", CONF);
    assert!(examine(&source).iter().all(|finding| finding.level < Level::Problem));
}
