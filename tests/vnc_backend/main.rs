//! The `vnc` backend with real desktops. Needs root, `tigervnc-standalone-server`, icewm, xterm, python3 and the accounts
//! `ann` and `bob`.

mod agents;
mod host;
mod init;
mod kills;
mod life;
mod refusals;
mod trust;
