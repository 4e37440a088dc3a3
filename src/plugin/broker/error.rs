//! Why there is no answer, and what the program exits with then.

use std::time::Duration;

/// What stopped a command.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read, or not be understood.
    #[error("{file}: {fault}")]
    Configuration { file: String, fault: String },
    /// What was typed was understood, and cannot be right.
    #[error("{0}")]
    Value(String),
    /// Something that must be set is not, or cannot be used.
    #[error("{0}")]
    Environment(String),
    /// The broker, or who gives out tokens, answered an error.
    #[error("{who} answered {status}: {text}")]
    Refused { who: &'static str, status: u16, text: String },
    /// No answer in time.
    #[error("no answer from {who} within {} s", .limit.as_secs_f32())]
    Late { who: &'static str, limit: Duration },
    /// Somebody pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What the program exits with when everything went well but for some of the items.
pub const ITEM_FAILED: u8 = 254;

impl Error {
    /// What the program exits with.
    ///
    /// Source: "Using return codes" in the Amazon DCV Session Manager CLI Guide. 2 is for what is not understood at all.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { .. } => 1,
            Self::Interrupted => 130,
            Self::Value(_) => 252,
            Self::Environment(_) => 253,
            Self::Refused { .. } => 254,
            Self::Late { .. } | Self::Other(_) => 255,
        }
    }
}
