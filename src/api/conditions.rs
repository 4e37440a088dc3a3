//! Condition types and reasons, and the one way to build and merge them.
//!
//! A condition states what is observed. No component branches on `message`; `reason` is API.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Makes an enum whose variants are words of the API, each written as its variant is named.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$about_variant:meta])* $variant:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about_variant])* $variant,)*
        }

        impl From<$name> for &'static str {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$variant => stringify!($variant),)*
                }
            }
        }
    };
}

words! {
    /// Condition types of a `DcvSession`.
    pub enum SessionCondition {
        /// Bound to a server.
        Scheduled,
        /// The desktop was created on the host.
        Created,
        /// Accepts clients.
        Ready,
        /// Over for good. Never flips back.
        Finished,
        /// Present while somebody works on it.
        Reconciling,
        /// Present when it will not get better by itself.
        Stalled,
    }
}

words! {
    /// Condition types of a `DcvServer`.
    pub enum ServerCondition {
        /// Runs sessions.
        Ready,
        /// Its agent renews its Lease.
        AgentConnected,
        /// The desktop server answers.
        BackendHealthy,
        /// Sessions can be licensed.
        LicenseValid,
        /// The files with the host's tags can be read.
        TagsValid,
        /// The host is set up for sessions.
        HostConfigured,
        /// Sessions are being ended. Abnormal.
        Draining,
        /// Present while somebody works on it.
        Reconciling,
        /// Present when it will not get better by itself.
        Stalled,
    }
}

words! {
    /// Condition types of an `ApiClient`.
    pub enum ClientCondition {
        /// Can log in.
        Ready,
        /// Present while somebody works on it.
        Reconciling,
        /// Present when it will not get better by itself.
        Stalled,
    }
}

words! {
    /// Why a condition of any kind has its status. Each name is the reason's text.
    pub enum Reason {
        /// Nobody has looked at the object yet.
        Pending,
        /// No server fits; the message counts why not.
        NoServerFits,
        /// The session waits for a server.
        WaitingForServer,
        /// The session has a server.
        Bound,
        /// Given back by one host; another is tried.
        Retrying,
        /// The host is creating the desktop.
        Preparing,
        /// The desktop was created.
        Created,
        /// The host refuses to create this session; the message is the host's.
        Refused,
        /// Creating failed on the host; the message is the host's.
        Failed,
        /// No host can create the session; the message says what is wrong with its spec.
        InvalidSession,
        /// The desktop ended by itself.
        Ended,
        /// The session accepts clients.
        AcceptingClients,
        /// The session's server does not answer.
        ServerUnreachable,
        /// The desktop is being closed.
        Closing,
        /// Closed as asked.
        Closed,
        /// Closed as asked without waiting for the server.
        ForceClosed,
        /// The desktop ended by itself.
        EndedOnHost,
        /// A time limit was reached.
        Expired,
        /// The server is proved dead.
        ServerLost,
        /// Every retry was used.
        RetriesExhausted,
        /// No server fitted in time.
        QueueTimeout,
        /// The requirement does not parse.
        InvalidRequirements,
        /// The server's agent renews its Lease.
        LeaseRenewed,
        /// The server's agent stopped renewing its Lease.
        LeaseExpired,
        /// The server takes or runs sessions.
        Running,
        /// The desktop server answers.
        Healthy,
        /// The desktop server does not answer; the message says what it said.
        Unhealthy,
        /// No licence is needed.
        NotRequired,
        /// The host's tags are those of its files.
        TagsRead,
        /// A file with tags is broken; the message says which. The last good tags stay.
        InvalidTags,
        /// Nothing is missing on the host.
        SetUpComplete,
        /// Something is missing on the host; the message says what, and how to mend it.
        SetUpIncomplete,
        /// The desktop server's sessions have their licences.
        Licensed,
        /// A licence is missing or over; the message is the desktop server's.
        LicenseFault,
        /// The administrator drains the server.
        DrainRequested,
        /// The client can log in.
        Accepted,
        /// The administrator shut the client out.
        Suspended,
        /// No credential of the client can be used.
        InvalidCredentials,
        /// Another client has the same id.
        ClientIdTaken,
    }
}

impl Reason {
    /// The reason's text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Builds a condition.
pub fn condition(
    type_: impl Into<&'static str>,
    status: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
    now: Timestamp,
    generation: Option<i64>,
) -> Condition {
    Condition {
        type_: type_.into().to_owned(),
        status: match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
        .to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.into(),
        last_transition_time: Time(now),
        observed_generation: generation,
    }
}

/// Puts `new` in place of the condition of its type.
///
/// `lastTransitionTime` moves only when `status` flips, so deciding twice gives an equal list and no write.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Takes the condition of this type out.
pub fn remove(conditions: &mut Vec<Condition>, type_: impl Into<&'static str>) {
    let type_ = type_.into();
    conditions.retain(|condition| condition.type_ != type_);
}

/// The condition of this type.
pub fn find(conditions: &[Condition], type_: impl Into<&'static str>) -> Option<&Condition> {
    let type_ = type_.into();
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The condition of this type, to be changed.
pub fn find_mut(conditions: &mut [Condition], type_: impl Into<&'static str>) -> Option<&mut Condition> {
    let type_ = type_.into();
    conditions.iter_mut().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is True.
pub fn is_true(conditions: &[Condition], type_: impl Into<&'static str>) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the condition of this type has this status (`None`: Unknown) and reason.
pub fn is(conditions: &[Condition], type_: impl Into<&'static str>, status: Option<bool>, reason: Reason) -> bool {
    let word = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    find(conditions, type_).is_some_and(|condition| condition.status == word && condition.reason == reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_is_found_by_the_whole_of_its_name() {
        let list = [condition(SessionCondition::Ready, None, Reason::Preparing, "", at(1), None)];
        assert!(find(&list, SessionCondition::Ready).is_some());
        assert!(find(&list, SessionCondition::Reconciling).is_none());
        assert!(is(&list, SessionCondition::Ready, None, Reason::Preparing));
        assert!(!is(&list, SessionCondition::Ready, None, Reason::Pending));
    }

    #[test]
    fn transition_time_moves_only_when_the_status_flips() {
        let mut list = Vec::new();
        set(&mut list, condition(SessionCondition::Ready, Some(false), Reason::Preparing, "a", at(1), Some(1)));
        set(&mut list, condition(SessionCondition::Ready, Some(false), Reason::Closing, "b", at(2), Some(2)));
        assert_eq!(list, vec![condition(SessionCondition::Ready, Some(false), Reason::Closing, "b", at(1), Some(2))]);
        set(&mut list, condition(SessionCondition::Ready, Some(true), Reason::AcceptingClients, "", at(3), Some(2)));
        assert_eq!(list[0].last_transition_time, Time(at(3)));
    }
}
