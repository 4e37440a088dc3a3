//! Logs, metrics and health of a process.
//!
//! Set up once by `main`'s callers; the rest of the program uses `tracing` and the metrics it registered. Invariant: no
//! secret, token or full URL is ever logged.

pub mod health;
mod log_files;
mod logs;

pub use log_files::LogFiles;
pub use log_files::Rotation;
pub use logs::Format;
pub use logs::init;
