//! What an installed Amazon DCV server needs to run sessions that we make and let people into.

use std::net::IpAddr;

use http::Uri;

use super::Finding;
use super::Level;
use super::read::DcvSetUp;
use super::read::SetUp;
use crate::agent::dcv_conf::DcvConf;
use crate::token::verifier;

/// Ports below this one take root's right to listen on.
const FIRST_FREE_PORT: u16 = 1024;
/// Maker of the cards that need a driver of their own for OpenGL in virtual sessions.
const NVIDIA: u16 = 0x10de;

/// What is to be said.
pub fn findings(dcv: &DcvSetUp, set_up: &SetUp) -> Vec<Finding> {
    if !dcv.has_command {
        let message = "Amazon DCV server is not installed: there is no dcv command";
        return vec![Finding::bad(Level::Problem, "DcvServer", message, "install the package nice-dcv-server")];
    }
    let mut findings = vec![server(dcv), message_bus(dcv)];
    let Some(conf) = &dcv.conf else {
        let message = format!("{} is not there", dcv.conf_file.display());
        findings.push(Finding::bad(
            Level::Problem,
            "Configuration",
            message,
            "install nice-dcv-server anew, or restore the file",
        ));
        return findings;
    };
    findings.push(verifier_url(conf));
    findings.push(authorities(dcv, conf));
    findings.push(authentication(conf));
    findings.push(administrators(dcv, conf, set_up.uid));
    findings.push(console(conf));
    findings.push(screen_lock(conf));
    findings.push(virtual_sessions(dcv));
    findings.push(display(dcv));
    findings.push(gl(dcv, conf, set_up));
    findings
}

fn server(dcv: &DcvSetUp) -> Finding {
    let bad = |level, message: &str, remedy: &str| Finding::bad(level, "DcvServer", message, remedy);
    if !dcv.is_running {
        bad(Level::Problem, "dcvserver does not run", "systemctl enable --now dcvserver")
    } else if !dcv.is_enabled {
        bad(Level::Warning, "dcvserver does not start with the host", "systemctl enable dcvserver")
    } else if !dcv.is_restarted {
        let message = "dcvserver is not started again when it ends, and it may end with its last session";
        bad(Level::Warning, message, "systemctl edit dcvserver: [Service] Restart=always")
    } else {
        Finding::ok("DcvServer", "dcvserver runs")
    }
}

fn message_bus(dcv: &DcvSetUp) -> Finding {
    if dcv.has_message_bus {
        return Finding::ok("MessageBus", "/run/dbus/system_bus_socket");
    }
    let message = "/run/dbus/system_bus_socket is not there: creating a session fails without the system's message bus";
    Finding::bad(
        Level::Problem,
        "MessageBus",
        message,
        "systemctl start dbus, or give the agent's container the host's /run/dbus",
    )
}

/// What the server asks whether a token lets somebody in.
fn verifier_url(conf: &DcvConf) -> Finding {
    let remedy = format!("in dcv.conf: [security] auth-token-verifier=\"{}\"", own_url());
    let bad = |level, message: String| Finding::bad(level, "Verifier", message, remedy.clone());
    let Some(text) = conf.text("security", "auth-token-verifier") else {
        return bad(Level::Problem, "auth-token-verifier is not set: nobody gets in with a connection token".into());
    };
    let Some(url) = Url::parse(text) else {
        return bad(Level::Problem, format!("auth-token-verifier is no URL: {text}"));
    };
    if !url.is_https {
        return bad(Level::Problem, format!("{text} is not HTTPS: others can answer in the verifier's place"));
    }
    if url.path != verifier::PATH {
        return bad(Level::Problem, format!("{text} has another path than {}", verifier::PATH));
    }
    if conf.switch("security", "no-tls-strict") == Some(true) {
        let message = "no-tls-strict is true: others can answer in the verifier's place";
        return Finding::bad(Level::Problem, "Verifier", message, "in dcv.conf: [security] no-tls-strict=false");
    }
    if url.is_loopback && url.port >= FIRST_FREE_PORT {
        let port = url.port;
        let message =
            format!("any desktop user can listen on port {port} while the agent starts again, and keep people out");
        return bad(Level::Warning, message);
    }
    Finding::ok("Verifier", text)
}

/// The URL of the agent's own verifier.
fn own_url() -> String {
    format!("https://127.0.0.1:945{}", verifier::PATH)
}

/// The parts of a verifier's URL that are looked at.
struct Url {
    is_https: bool,
    is_loopback: bool,
    port: u16,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let host = uri.host()?;
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        Some(Self {
            is_https: uri.scheme_str() == Some("https"),
            is_loopback: is_loopback || host == "localhost",
            port: uri.port_u16().unwrap_or(443),
            path: uri.path().to_owned(),
        })
    }
}

/// Whose word the server takes for the verifier's.
fn authorities(dcv: &DcvSetUp, conf: &DcvConf) -> Finding {
    let is_own = conf.text("security", "auth-token-verifier").and_then(Url::parse).is_none_or(|url| url.is_loopback);
    let remedy = "in dcv.conf: [security] ca-file=\"PATH\", where PATH is the ca.pem of the agent's verifier";
    let bad = |level, message: String| Finding::bad(level, "VerifierAuthority", message, remedy);
    let Some(path) = conf.text("security", "ca-file") else {
        return if is_own {
            bad(Level::Problem, "ca-file is not set: the agent's certificate is not trusted".into())
        } else {
            Finding::ok("VerifierAuthority", "the system's authorities")
        };
    };
    match (dcv.authorities.as_deref().map(certificates), dcv.agent_authority.as_deref().map(certificates)) {
        (None, _) => bad(Level::Problem, format!("the ca-file {path} is not there")),
        (Some(list), _) if list.is_empty() => bad(Level::Problem, format!("the ca-file {path} holds no certificate")),
        (Some(list), Some(own)) if is_own && !own.iter().any(|certificate| list.contains(certificate)) => {
            bad(Level::Problem, format!("the ca-file {path} does not hold the authority of this agent's verifier"))
        }
        (Some(_), None) if is_own => bad(Level::Note, "the agent has not made its verifier's certificate yet".into()),
        _ => Finding::ok("VerifierAuthority", path),
    }
}

/// The certificates of a PEM text, without the ends of their lines, which tools change.
fn certificates(text: &str) -> Vec<String> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let bodies = blocks.filter_map(|block| block.split_once("-----END CERTIFICATE-----"));
    bodies.map(|(body, _)| body.split_ascii_whitespace().collect()).collect()
}

fn authentication(conf: &DcvConf) -> Finding {
    if conf.text("security", "authentication") == Some("none") {
        let message = "authentication is none: everybody who reaches the port is let in";
        let remedy = "in dcv.conf: [security] authentication=\"system\"";
        return Finding::bad(Level::Problem, "Authentication", message, remedy);
    }
    Finding::ok("Authentication", "needed")
}

/// Who may see and end the sessions of all.
fn administrators(dcv: &DcvSetUp, conf: &DcvConf, uid: u32) -> Finding {
    if uid == 0 {
        return Finding::ok("Administrators", "the agent is root");
    }
    let account = dcv.account.clone().unwrap_or_else(|| uid.to_string());
    if conf.list("security", "administrators").contains(&account.as_str()) {
        return Finding::ok("Administrators", account);
    }
    let message = format!("the agent runs as {account}, which is no administrator: it sees its own sessions only");
    let remedy = format!(
        "in dcv.conf: [security] administrators=[\"{account}\"], or run the agent as root, who may create sessions for others"
    );
    Finding::bad(Level::Problem, "Administrators", message, remedy)
}

fn console(conf: &DcvConf) -> Finding {
    if conf.switch("session-management", "create-session") == Some(true) {
        let message = "create-session is true: the automatic console session keeps every other session from the host";
        let remedy = "in dcv.conf: [session-management] create-session=false, and: dcv close-session console";
        return Finding::bad(Level::Warning, "AutomaticSession", message, remedy);
    }
    Finding::ok("AutomaticSession", "none")
}

/// With tokens people have no password of the host to unlock a screen with.
fn screen_lock(conf: &DcvConf) -> Finding {
    if conf.switch("security", "os-auto-lock") == Some(false) {
        return Finding::ok("ScreenLock", "off");
    }
    let message =
        "the screen is locked when the last client leaves, and whoever comes back needs a password of the host";
    let remedy = "if people have none: in dcv.conf: [security] os-auto-lock=false";
    Finding::bad(Level::Note, "ScreenLock", message, remedy)
}

fn virtual_sessions(dcv: &DcvSetUp) -> Finding {
    if !dcv.has_xdcv {
        let message = "Xdcv is not there: virtual sessions never accept clients";
        return Finding::bad(Level::Problem, "VirtualSessions", message, "install the package nice-xdcv");
    }
    if !dcv.has_default_desktop {
        let message = "/etc/dcv/dcvsessioninit is not there: virtual sessions without an initFile end at once";
        return Finding::bad(Level::Warning, "VirtualSessions", message, "install nice-xdcv anew, or restore the file");
    }
    Finding::ok("VirtualSessions", "Xdcv")
}

/// The X server of the host itself, which console sessions show.
fn display(dcv: &DcvSetUp) -> Finding {
    if dcv.is_wayland == Some(true) {
        let message = "the login screen uses Wayland, which a console session cannot show";
        let remedy = "in custom.conf of gdm: [daemon] WaylandEnable=false, and restart gdm";
        return Finding::bad(Level::Warning, "XServer", message, remedy);
    }
    if !dcv.has_display {
        let message = "no X server runs on display :0, so console sessions cannot be created";
        return Finding::bad(
            Level::Note,
            "XServer",
            message,
            "for console sessions: systemctl isolate graphical.target",
        );
    }
    Finding::ok("XServer", ":0")
}

/// OpenGL on a card, for virtual sessions.
fn gl(dcv: &DcvSetUp, conf: &DcvConf, set_up: &SetUp) -> Finding {
    let bad = |message: &str, remedy: &str| Finding::bad(Level::Warning, "Gl", message, remedy);
    let Some(card) = set_up.cards.first() else {
        return Finding::ok("Gl", "no graphics card: OpenGL is drawn by the processor");
    };
    let is_off =
        conf.text("session-management", "enable-gl-in-virtual-sessions").is_some_and(|on| on.ends_with("-off"));
    if card.vendor == NVIDIA && card.driver.as_deref() != Some("nvidia") {
        bad("the graphics card has no NVIDIA driver", "install the driver of the maker and restart the host")
    } else if is_off {
        Finding::ok("Gl", "switched off in virtual sessions")
    } else if !dcv.has_gl {
        bad("virtual sessions cannot reach the graphics card", "install the package nice-dcv-gl")
    } else if !dcv.has_display {
        bad(
            "no X server runs on the graphics card, which OpenGL in virtual sessions goes through",
            "systemctl isolate graphical.target, then dcvgladmin enable; dcvgldiag tests it",
        )
    } else {
        Finding::ok("Gl", "nice-dcv-gl")
    }
}

#[cfg(test)]
mod tests;
