//! What a failed create means, by the texts that are known. Pure.
//!
//! The texts are published nowhere and differ between versions: they choose the words for people and nothing else. What is
//! true of a session is read from the server's list.

use crate::agent::backend::CreateError;
use crate::agent::backend::account::OwnerRefusal;

/// What the server's refusal of a create means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// For the session.
    pub error: CreateError,
    /// Whether there is no licence for any further session.
    pub lacks_licence: bool,
}

/// What `words` of the server, one line, say about creating a session for `owner`.
pub(super) fn create_failure(words: &str, owner: &str) -> Meaning {
    let folded = words.to_lowercase();
    let says = |known: &[&str]| known.iter().any(|text| folded.contains(text));
    if says(&["not a local user"]) {
        let refusal = OwnerRefusal::Unknown(owner.to_owned());
        return Meaning { error: CreateError::Refused(refusal.to_string()), lacks_licence: false };
    }
    let lacks_licence = says(&["no license", "no licence", "license expired"]);
    let hint = if lacks_licence {
        "the DCV server has no licence for another session"
    } else if says(&["system bus", "dbus", "d-bus"]) {
        "the dcv command does not reach the host's system bus"
    } else {
        "the DCV server did not create the session"
    };
    Meaning { error: CreateError::Failed(format!("{hint}: {words}")), lacks_licence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_become_reasons() {
        let failed = |text: &str| CreateError::Failed(text.to_owned());
        for (words, error, lacks_licence) in [
            (
                "Could not create session. Specified user is not a local user",
                CreateError::Refused("Specified user is not a local user: ann".into()),
                false,
            ),
            (
                "Could not create session. no licenses",
                failed("the DCV server has no licence for another session: Could not create session. no licenses"),
                true,
            ),
            (
                "Could not create session. Could not get the system bus: Could not connect: No such file or directory",
                failed(
                    "the dcv command does not reach the host's system bus: Could not create session. Could not get the \
                     system bus: Could not connect: No such file or directory",
                ),
                false,
            ),
            ("Something else", failed("the DCV server did not create the session: Something else"), false),
        ] {
            assert_eq!(create_failure(words, "ann"), Meaning { error, lacks_licence }, "{words}");
        }
    }
}
