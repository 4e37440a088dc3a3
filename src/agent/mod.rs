//! The agent: runs the sessions that are bound to its server, through a backend.
pub mod backend;
pub mod decide;
pub mod gate;
mod ledger;
mod report;
mod room;
