//! Who is logged in.
//!
//! systemd-logind keeps a file for each login, which newer systems have alone: they no longer write utmp, whose times end in
//! 2038. Older and other systems have utmp. Only what one of them knows is told: desktops that we run are no logins.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::shortened;
use super::text_of;

/// What the list holds when it is not to be told, as documented.
const UNKNOWN: &str = "unknown";
/// Most names, and longest of one, that the schema takes.
const MAX_USERS: usize = 256;
const MAX_NAME: usize = 256;

/// An entry of utmp is of somebody who is logged in. Source: utmp(5).
const USER_PROCESS: i16 = 7;
/// Where the name is in an entry, and how long it is. Source: the same.
const USER: std::ops::Range<usize> = 44..76;
/// Size of an entry. Where 64-bit programs never had to share it with 32-bit ones, its times are 64 bits wide.
const RECORD: usize = if cfg!(target_arch = "x86_64") { 384 } else { 400 };

/// Names of those logged in, each once, in order.
pub fn read(root: &Path, is_told: bool) -> Vec<String> {
    if !is_told {
        return vec![UNKNOWN.to_owned()];
    }
    let names = match fs::read_dir(root.join("run/systemd/sessions")) {
        Ok(entries) => entries.flatten().filter_map(|entry| parse_login(&text_of(&entry.path()))).collect(),
        Err(_) => parse_utmp(&fs::read(root.join("run/utmp")).unwrap_or_default(), RECORD),
    };
    names.into_iter().take(MAX_USERS).collect()
}

/// Reads what logind keeps of one login: `KEY=value` lines. Login screens and the managers of people's services are kept in
/// the same way, and so is a login that is about to end. Source: `sd_session_get_class(3)`, `sd_session_get_state(3)`.
fn parse_login(text: &str) -> Option<String> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let is_person = value("CLASS").is_none_or(|class| class.starts_with("user"));
    let is_ending = value("STATE") == Some("closing");
    let name = value("USER").filter(|name| !name.is_empty())?;
    (is_person && !is_ending).then(|| shortened(name, MAX_NAME))
}

/// Reads utmp: entries of `record` bytes. Source: utmp(5).
fn parse_utmp(bytes: &[u8], record: usize) -> BTreeSet<String> {
    let people = bytes
        .chunks_exact(record)
        .filter(|entry| entry.first_chunk().is_some_and(|type_| i16::from_ne_bytes(*type_) == USER_PROCESS));
    let names = people.filter_map(|entry| {
        let field = entry.get(USER)?;
        let name = field.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::super::testdata::machine;
    use super::*;

    #[test]
    fn people_are_told_once_and_login_screens_never() {
        for (name, expected) in [
            ("two-sockets", vec!["ann", "bob"]), // utmp
            ("arm", vec!["bob"]),                // logind, with a login that is ending and a service manager
            ("no-gpu", vec![]),                  // logind, nobody
            ("two-gpus", vec!["ann", "cid"]),    // logind, with a login screen
            ("container", vec![]),               // neither
        ] {
            assert_eq!(read(&machine(name), true), expected, "{name}");
        }
        assert_eq!(read(&machine("two-sockets"), false), ["unknown"]);
    }

    #[test]
    fn half_an_entry_and_unknown_entries_are_passed_over() {
        let mut entry = vec![0; 400];
        entry[..2].copy_from_slice(&USER_PROCESS.to_ne_bytes());
        entry[44..47].copy_from_slice(b"ann");
        let long = [entry.clone(), entry[..399].to_vec()].concat();
        assert_eq!(parse_utmp(&long, 400), BTreeSet::from(["ann".to_owned()]));
        entry[0] = 8; // ended
        assert_eq!(parse_utmp(&entry, 400), BTreeSet::new());
        assert_eq!(parse_utmp(b"text", 384), BTreeSet::new());
        entry[0] = 7;
        entry[44..76].fill(b'x'); // a name as long as the field has no end mark
        assert_eq!(parse_utmp(&entry, 400), BTreeSet::from(["x".repeat(32)]));
    }
}
