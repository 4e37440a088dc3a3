//! Logs, metrics, traces and health of a process.
//!
//! Set up once by `main`'s callers; the rest of the program uses `tracing` and the metrics it registered. What holds for a
//! process as a whole, such as its memory or its calls of the API server, is kept here and is part of every role's
//! registry. Invariant: no secret, token or full URL is ever logged.

pub mod health;
mod log_files;
mod logs;
pub mod metrics;
#[cfg(test)]
pub mod page;
mod process;
pub mod traces;
pub mod watches;

pub use log_files::LogFiles;
pub use log_files::Rotation;
pub use logs::Format;
pub use logs::init;
