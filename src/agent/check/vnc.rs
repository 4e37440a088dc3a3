//! What our own desktops need.

use super::Finding;
use super::Level;
use super::read::VncSetUp;

/// What is to be said.
pub fn findings(vnc: &VncSetUp) -> Vec<Finding> {
    vec![x_server(vnc), keyboard(vnc), desktop(vnc), sockets(vnc)]
}

fn x_server(vnc: &VncSetUp) -> Finding {
    if vnc.has_x_server {
        return Finding::ok("XServer", "/usr/bin/Xtigervnc");
    }
    let message = "/usr/bin/Xtigervnc is not there: no session can be created";
    Finding::bad(Level::Problem, "XServer", message, "install TigerVNC (Debian: tigervnc-standalone-server)")
}

fn keyboard(vnc: &VncSetUp) -> Finding {
    let missing = match (vnc.has_xkbcomp, vnc.has_keyboards) {
        (true, true) => return Finding::ok("Keyboard", "xkbcomp and /usr/share/X11/xkb"),
        (false, _) => "xkbcomp",
        (true, false) => "/usr/share/X11/xkb",
    };
    let message = format!("{missing} is not there: the X server cannot start");
    Finding::bad(Level::Problem, "Keyboard", message, "install it (Debian: x11-xkb-utils, xkb-data)")
}

fn desktop(vnc: &VncSetUp) -> Finding {
    match vnc.desktop {
        Some(name) => Finding::ok("Desktop", name),
        None => Finding::bad(
            Level::Warning,
            "Desktop",
            "none of icewm-session, openbox-session and xterm is there: only sessions with an initFile can be created",
            "install one of them (Debian: icewm)",
        ),
    }
}

fn sockets(vnc: &VncSetUp) -> Finding {
    match vnc.x_socket_mode {
        Some(mode) if mode & 0o1777 != 0o1777 => Finding::bad(
            Level::Problem,
            "XSockets",
            format!(
                "/tmp/.X11-unix has mode {mode:04o}: people's X servers cannot listen there, or others can take their place"
            ),
            "chmod 1777 /tmp/.X11-unix",
        ),
        _ => Finding::ok("XSockets", "/tmp/.X11-unix"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut VncSetUp);

    fn complete() -> VncSetUp {
        VncSetUp {
            has_x_server: true,
            has_xkbcomp: true,
            has_keyboards: true,
            desktop: Some("icewm-session"),
            x_socket_mode: Some(0o1777),
        }
    }

    #[test]
    fn each_missing_part_is_told_alone() {
        assert!(findings(&complete()).iter().all(|finding| finding.level == Level::Ok));
        let cases: [(Change, &str, Level); 6] = [
            (|vnc| vnc.has_x_server = false, "XServer", Level::Problem),
            (|vnc| vnc.has_xkbcomp = false, "Keyboard", Level::Problem),
            (|vnc| vnc.has_keyboards = false, "Keyboard", Level::Problem),
            (|vnc| vnc.desktop = None, "Desktop", Level::Warning),
            (|vnc| vnc.x_socket_mode = Some(0o755), "XSockets", Level::Problem),
            (|vnc| vnc.x_socket_mode = Some(0o777), "XSockets", Level::Problem),
        ];
        for (change, check, level) in cases {
            let mut vnc = complete();
            change(&mut vnc);
            let bad: Vec<_> = findings(&vnc).into_iter().filter(|finding| finding.level != Level::Ok).collect();
            assert_eq!((bad.len(), bad[0].check, bad[0].level), (1, check, level));
            assert!(bad[0].remedy.is_some());
        }
        let made_later = VncSetUp { x_socket_mode: None, ..complete() };
        assert_eq!(sockets(&made_later).level, Level::Ok);
    }
}
