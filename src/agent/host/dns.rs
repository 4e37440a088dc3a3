//! The name that clients and gateways may reach the host by.

use std::net::IpAddr;
use std::time::Duration;

use crate::agent::command::Commands;
use crate::agent::command::Limits;

/// What a name server may take.
const LIMITS: Limits = Limits { time: Duration::from_secs(10), answer_bytes: 16 << 10 };
/// Longest name of DNS, and of one part of it.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The host's full name: its own where that is one, else what the host's name service says of it, else what it says of its
/// address. Absent when nobody knows one with a dot.
///
/// The name service is asked by `getent`, through `prefix`: a static program cannot load the host's own.
pub async fn name(prefix: &[String], hostname: &str, address: IpAddr) -> Option<String> {
    if is_full_name(hostname) {
        return Some(hostname.to_owned());
    }
    let commands = Commands::new(prefix.to_vec());
    let forward = getent(&commands, hostname).await;
    if let Some(name) = forward.and_then(|answer| full_name(&answer, hostname)) {
        return Some(name);
    }
    if address.is_loopback() {
        return None;
    }
    full_name(&getent(&commands, &address.to_string()).await?, hostname)
}

/// Reads what `getent hosts` printed: an address and its names. The one that begins with the host's own name is best.
fn full_name(answer: &str, hostname: &str) -> Option<String> {
    let names = answer.lines().flat_map(|line| line.split_ascii_whitespace().skip(1));
    let full: Vec<_> = names.map(|name| name.trim_end_matches('.')).filter(|name| is_full_name(name)).collect();
    let own = full.iter().find(|name| name.split('.').next() == Some(hostname));
    own.or(full.first()).map(|name| (*name).to_owned())
}

fn is_full_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !label.is_empty() && label.len() <= MAX_LABEL && is_plain
    };
    let is_address = name.parse::<IpAddr>().is_ok();
    let is_everybody = name == "localhost" || name.starts_with("localhost.");
    name.len() <= MAX_NAME && name.contains('.') && name.split('.').all(is_label) && !is_address && !is_everybody
}

/// What the host's name service knows of `name`; nothing when it fails or is slow.
async fn getent(commands: &Commands, name: &str) -> Option<String> {
    let answer = commands.run(&["getent", "hosts", "--", name], LIMITS).await.ok()?;
    answer.is_success().then(|| answer.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_is_taken_from_the_answer() {
        for (answer, expected) in [
            ("127.0.1.1       node7.example.internal node7\n", Some("node7.example.internal")),
            ("10.0.0.7        alias.example node7.example.\n", Some("node7.example")),
            ("10.0.0.7        ip-10-0-0-7.ec2.internal\n", Some("ip-10-0-0-7.ec2.internal")),
            ("10.0.0.7        node7\n", None),
            ("::1             localhost.localdomain localhost6\n", None),
            ("10.0.0.7        10.0.0.8 a..b b!.example\n", None),
            ("", None),
        ] {
            assert_eq!(full_name(answer, "node7").as_deref(), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn the_name_is_asked_for_first_and_the_address_then() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("names");
        let answers = "case $4 in 10.0.0.7) echo '10.0.0.7 by-address.example';; node8) echo '127.0.1.1 node8.example node8';; *) exit 2;; esac";
        std::fs::write(&script, answers).unwrap();
        let prefix = ["sh".to_owned(), script.to_str().unwrap().to_owned()];
        let address = "10.0.0.7".parse().unwrap();
        for (hostname, expected) in [
            ("node6.example", Some("node6.example")),
            ("node7", Some("by-address.example")),
            ("node8", Some("node8.example")),
        ] {
            assert_eq!(name(&prefix, hostname, address).await.as_deref(), expected, "{hostname}");
        }
        assert_eq!(name(&prefix, "node7", "10.0.0.8".parse().unwrap()).await, None);
        assert_eq!(name(&["/nowhere/at/all".to_owned()], "node7", address).await, None);
    }
}
