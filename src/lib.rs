//! Manages remote-desktop sessions on a fleet of hosts, as Kubernetes objects.
//!
//! The modules stand on floors. Each uses only floors below its own, and `tests/floors.rs` fails when one does not:
//!
//! ```text
//! 3  cli
//! 2  controller   agent   broker   plugin        the roles: they meet in API objects, never in calls
//! 2  isolation                                   the attack matrix
//! 1  placement   cluster                         choosing a server; talking to the API server
//! 0  api   requirement   permissions   wire   token   telemetry
//! ```

pub mod agent;
pub mod api;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod isolation;
pub mod permissions;
pub mod placement;
pub mod plugin;
pub mod requirement;
pub mod telemetry;
pub mod token;
pub mod wire;
