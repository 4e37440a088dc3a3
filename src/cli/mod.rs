//! Command lines of the binary.
pub mod session_host;
