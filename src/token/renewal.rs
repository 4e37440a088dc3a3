//! Requests for new signing keys before their time, as an annotation of the published keys says them.
//!
//! `ID KIND[,KIND] MODE`: the id is answered when it is done, so a request is done once and whoever made it can wait.

use std::fmt;
use std::str::FromStr;

use super::Kind;

/// What becomes of the keys there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKeys {
    /// They stay until the last token has ended that is signed with one.
    Kept,
    /// They go, and with them every token.
    Revoked,
}

/// A request for new keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// By which it is answered.
    pub id: String,
    /// The kinds of token that get a new key.
    pub kinds: Vec<Kind>,
    /// What becomes of the keys there were.
    pub old_keys: OldKeys,
}

const KEPT: &str = "keep";
const REVOKED: &str = "revoke";

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Access => "access",
        Kind::Connection => "connection",
        Kind::Agent => "agent",
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind_name(*kind)).collect();
        let mode = match self.old_keys {
            OldKeys::Kept => KEPT,
            OldKeys::Revoked => REVOKED,
        };
        write!(f, "{} {} {mode}", self.id, kinds.join(","))
    }
}

/// The text is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form ID KIND[,KIND] keep|revoke, with the kinds access, connection and agent")]
pub struct NotARenewal;

impl FromStr for Renewal {
    type Err = NotARenewal;

    fn from_str(text: &str) -> Result<Self, NotARenewal> {
        let words: Vec<_> = text.split(' ').collect();
        let [id, kinds, mode] = words[..] else { return Err(NotARenewal) };
        let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind_name(*kind) == name).ok_or(NotARenewal);
        let old_keys = match mode {
            KEPT => OldKeys::Kept,
            REVOKED => OldKeys::Revoked,
            _ => return Err(NotARenewal),
        };
        let kinds = kinds.split(',').map(kind).collect::<Result<_, _>>()?;
        if id.is_empty() { Err(NotARenewal) } else { Ok(Self { id: id.to_owned(), kinds, old_keys }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written_and_nothing_else_is() {
        for (old_keys, text) in [(OldKeys::Kept, "a1 access,agent keep"), (OldKeys::Revoked, "a1 access,agent revoke")]
        {
            let renewal = Renewal { id: "a1".into(), kinds: vec![Kind::Access, Kind::Agent], old_keys };
            assert_eq!(renewal.to_string(), text);
            assert_eq!(text.parse(), Ok(renewal));
        }
        for text in
            ["", "a1", "a1 access", "a1 access forget", "a1 all keep", "a1  keep", " access keep", "a access keep "]
        {
            assert_eq!(text.parse::<Renewal>(), Err(NotARenewal), "{text:?}");
        }
    }
}
