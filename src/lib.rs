//! Manages remote-desktop sessions on a fleet of hosts, as Kubernetes objects.
pub mod agent;
pub mod api;
pub mod broker;
pub mod cli;
pub mod token;
pub mod wire;
