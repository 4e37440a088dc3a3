//! Accounts and groups of the host, and which of them may own a session.
//!
//! Names are resolved by running `getent`, through the prefix that makes it the host's: a static binary cannot load the
//! host's name services, so nothing here asks the C library.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use regex::Regex;
use serde::Deserialize;
use serde::Serialize;

use crate::agent::command::Commands;
use crate::agent::command::Limits;

/// What a look-up may take: a directory service may be asked, and an account be in a few thousand groups.
const LIMITS: Limits = Limits { time: Duration::from_secs(20), answer_bytes: 256 << 10 };
/// How long the groups of a person are taken as known.
const GROUPS_KNOWN: Duration = Duration::from_mins(1);

/// An account of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// Every other group.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: PathBuf,
    /// Login shell.
    pub shell: String,
}

/// The host could not be asked about a name.
#[derive(Debug, thiserror::Error)]
#[error("failed to look up {name} on the host: {reason}")]
pub(super) struct LookupError {
    name: String,
    reason: String,
}

/// Why an account may not own a session here. The texts are shown to people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::agent) enum OwnerRefusal {
    /// The documented words.
    #[error("Specified user is not a local user: {0}")]
    Unknown(String),
    #[error("the owner's name {0:?} starts with a hyphen or contains a control character")]
    Malformed(String),
    #[error("the owner {name} has the uid {uid}; sessions on this host are for uid {min_uid} and above")]
    TooLow { name: String, uid: u32, min_uid: u32 },
    #[error("the owner {0} is not among the accounts that may have sessions on this host")]
    NotInPattern(String),
    #[error("the owner {name} is not the account the agent runs as, and it may not become another")]
    OtherAccount { name: String },
}

/// Looks names up on the host.
#[derive(Debug)]
pub(super) struct Names {
    commands: Commands,
    /// Per person the groups that were asked for, with the time.
    known: Mutex<HashMap<(String, String), (Instant, bool)>>,
}

/// Whether a name can be given to a command: no option, no control character.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.contains(char::is_control)
}

/// Compiles a pattern that a whole name must match.
///
/// # Errors
/// When it is no regular expression.
pub fn owner_pattern(text: &str) -> Result<Regex, regex::Error> {
    // Compiled alone first: a text like `a)(b` must not close our parenthesis.
    Regex::new(text)?;
    Regex::new(&format!("^(?:{text})$"))
}

/// Checks what is known without asking the host.
pub(in crate::agent) fn check_name(name: &str, pattern: Option<&Regex>) -> Result<(), OwnerRefusal> {
    if !is_plain(name) {
        return Err(OwnerRefusal::Malformed(name.to_owned()));
    }
    match pattern {
        Some(pattern) if !pattern.is_match(name) => Err(OwnerRefusal::NotInPattern(name.to_owned())),
        _ => Ok(()),
    }
}

/// Checks the account: no system account, and one that the agent can run programs as.
pub(super) fn check_account(account: &Account, min_uid: u32, agent_uid: u32) -> Result<(), OwnerRefusal> {
    let name = account.name.clone();
    // Root is below any minimum, also one that was set to 0.
    if account.uid < min_uid.max(1) {
        return Err(OwnerRefusal::TooLow { name, uid: account.uid, min_uid: min_uid.max(1) });
    }
    if agent_uid != 0 && agent_uid != account.uid {
        return Err(OwnerRefusal::OtherAccount { name });
    }
    Ok(())
}

impl Names {
    /// Looks names up through `prefix`, as in `chroot /host`.
    pub fn new(prefix: Vec<String>) -> Self {
        Self { commands: Commands::new(prefix), known: Mutex::default() }
    }

    /// The account of this name; none if the host has none.
    pub async fn account(&self, name: &str) -> Result<Option<Account>, LookupError> {
        // Whoever forgot to check it: no command ever sees such a name.
        if !is_plain(name) {
            return Ok(None);
        }
        let Some(line) = self.getent("passwd", name).await? else { return Ok(None) };
        let Some(mut account) = parse_passwd(&line) else {
            return Err(LookupError { name: name.to_owned(), reason: "the answer is not a passwd line".into() });
        };
        // A number finds an account by its uid: that is not its name.
        if name.bytes().all(|byte| byte.is_ascii_digit()) && account.name != name {
            return Ok(None);
        }
        account.groups = self.groups(&account.name).await?;
        account.groups.retain(|gid| *gid != account.gid);
        Ok(Some(account))
    }

    /// Whether a person is in a group of the host. Somebody without an account is in none. Remembered for a minute.
    pub async fn is_in_group(&self, user: &str, group: &str) -> bool {
        let key = (user.to_owned(), group.to_owned());
        let known = self.known.lock().expect("no panic while it is held").get(&key).copied();
        if let Some((since, member)) = known
            && since.elapsed() < GROUPS_KNOWN
        {
            return member;
        }
        let member = self.fetch_membership(user, group).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, group, "taken as not a member");
            false
        });
        let mut known = self.known.lock().expect("no panic while it is held");
        known.retain(|_, (since, _)| since.elapsed() < GROUPS_KNOWN);
        known.insert(key, (Instant::now(), member));
        member
    }

    async fn fetch_membership(&self, user: &str, group: &str) -> Result<bool, LookupError> {
        if !is_plain(user) || !is_plain(group) {
            return Ok(false);
        }
        let Some(line) = self.getent("group", group).await? else { return Ok(false) };
        let Some((gid, members)) = parse_group(&line) else { return Ok(false) };
        if members.contains(&user) {
            return Ok(true);
        }
        Ok(self.account(user).await?.is_some_and(|account| account.gid == gid || account.groups.contains(&gid)))
    }

    async fn groups(&self, name: &str) -> Result<Vec<u32>, LookupError> {
        let line = self.getent("initgroups", name).await?.unwrap_or_default();
        // The name comes first and may hold blanks; the numbers are at the end.
        let numbers = line.rsplit(|c: char| c.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let mut groups: Vec<u32> = numbers.map_while(|word| word.parse().ok()).collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    /// First line of what `getent` finds; none when it says that there is no such entry.
    async fn getent(&self, database: &str, name: &str) -> Result<Option<String>, LookupError> {
        let failed = |reason: String| LookupError { name: name.to_owned(), reason };
        let answer = self.commands.run(&["getent", database, "--", name], LIMITS).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        match answer.status.code() {
            Some(0) => Ok(answer.text().lines().next().map(str::to_owned)),
            // Source: getent(1): "One or more supplied key could not be found in the database".
            Some(2) => Ok(None),
            _ => Err(failed(format!("getent ended with {}", answer.status))),
        }
    }
}

fn parse_passwd(line: &str) -> Option<Account> {
    let [name, _, uid, gid, _, home, shell] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: Vec::new(),
        home: if home.is_empty() { "/".into() } else { home.into() },
        shell: if shell.is_empty() { "/bin/sh".to_owned() } else { shell.to_owned() },
    })
}

fn parse_group(line: &str) -> Option<(u32, Vec<&str>)> {
    let [_, _, gid, members] = line.split(':').collect::<Vec<_>>().try_into().ok()?;
    Some((gid.parse().ok()?, members.split(',').collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prefix that answers instead of the host.
    fn names(script: &str) -> (tempfile::TempDir, Names) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prefix");
        std::fs::write(&path, format!("shift\n{script}\n")).unwrap();
        let names = Names::new(vec!["sh".into(), path.to_str().unwrap().to_owned()]);
        (folder, names)
    }

    const HOST: &str = r#"case "$1/$3" in
        "passwd/DOM\\eve") printf '%s\n' 'DOM\eve:*:20001:20000::/home/eve:';;
        "initgroups/DOM\\eve") printf '%s\n' 'DOM\eve               20000 30001 27';;
        passwd/1001) echo 'ann:x:1001:1001::/home/ann:/bin/bash';;
        group/staff) echo 'staff:x:30001:carl,dora';;
        group/empty) echo 'empty:x:30002:';;
        passwd/broken) exit 1;;
        *) exit 2;;
    esac"#;

    #[tokio::test]
    async fn an_account_is_read_with_its_groups() {
        let (_folder, names) = names(HOST);
        let eve = Account {
            name: "DOM\\eve".into(),
            uid: 20001,
            gid: 20000,
            groups: vec![27, 30001],
            home: "/home/eve".into(),
            shell: "/bin/sh".into(),
        };
        assert_eq!(names.account("DOM\\eve").await.unwrap(), Some(eve));
        assert_eq!(names.account("nobody-here").await.unwrap(), None);
        assert_eq!(names.account("1001").await.unwrap(), None, "a uid is no name");
        assert!(names.account("broken").await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_name_is_given_to_no_command() {
        let (folder, names) = names(r#"echo "$*" >> "$0.asked"; exit 2"#);
        for name in ["", "-x", "--service=files", "a\nb", "a\u{1b}[2J"] {
            assert_eq!(names.account(name).await.unwrap(), None, "{name:?}");
            assert!(!names.is_in_group(name, "staff").await && !names.is_in_group("ann", name).await, "{name:?}");
        }
        let asked = folder.path().join("prefix.asked");
        assert!(!asked.exists(), "{}", std::fs::read_to_string(&asked).unwrap_or_default());
        assert_eq!(names.account("ann; rm").await.unwrap(), None, "one word, whatever is in it");
        assert_eq!(std::fs::read_to_string(&asked).unwrap(), "passwd -- ann; rm\n");
    }

    #[tokio::test]
    async fn membership_is_by_entry_or_by_number() {
        let (_folder, names) = names(HOST);
        let cases = [
            ("carl", "staff", true),
            ("DOM\\eve", "staff", true),
            ("zoe", "staff", false),
            ("DOM\\eve", "empty", false),
            ("zoe", "absent", false),
            ("-x", "staff", false),
        ];
        for (user, group, expected) in cases {
            assert_eq!(names.is_in_group(user, group).await, expected, "{user} {group}");
        }
    }

    #[test]
    fn owners_that_may_not_have_a_session_are_refused_with_the_reason() {
        let account =
            |uid| Account { name: "ann".into(), uid, gid: 1, groups: vec![], home: "/".into(), shell: String::new() };
        let text = |result: Result<(), OwnerRefusal>| result.unwrap_err().to_string();
        assert_eq!(
            text(check_account(&account(999), 1000, 0)),
            "the owner ann has the uid 999; sessions on this host are for uid 1000 and above"
        );
        assert_eq!(
            text(check_account(&account(0), 0, 0)),
            "the owner ann has the uid 0; sessions on this host are for uid 1 and above"
        );
        assert!(check_account(&account(1000), 1000, 0).is_ok());
        assert!(check_account(&account(1000), 1000, 1000).is_ok());
        assert_eq!(
            text(check_account(&account(1000), 1000, 1001)),
            "the owner ann is not the account the agent runs as, and it may not become another"
        );
        for name in ["", "-x", "a\nb", "a\u{7f}"] {
            assert!(matches!(check_name(name, None), Err(OwnerRefusal::Malformed(_))), "{name:?}");
        }
        let pattern = owner_pattern("ann|b.b").unwrap();
        assert!(check_name("bob", Some(&pattern)).is_ok());
        assert!(check_name("annabel", Some(&pattern)).is_err(), "the whole name must match");
        assert!(owner_pattern("a)(b").is_err());
    }
}
