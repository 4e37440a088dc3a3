//! Manages remote-desktop sessions on a fleet of hosts, as Kubernetes objects.
pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod placement;
pub mod telemetry;
pub mod token;
