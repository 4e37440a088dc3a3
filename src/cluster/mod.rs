//! Talking to the API server: client, caches, writes, Leases, events.
//!
//! Knows how to read and write; what to write is its callers' business. Invariant: a read-modify-write carries the
//! `resourceVersion` it was decided on.

mod cache;
mod client;
mod error;
pub mod events;
mod heard;
pub mod lease;
pub mod merge;
pub mod pinned;
mod scope;
mod write;

#[cfg(test)]
pub mod mock;

use jiff::Timestamp;

pub use cache::Cache;
pub use cache::Change;
pub use cache::watch;
pub use cache::watch_all;
pub use client::client;
pub use client::fetch_uid;
pub use error::Error;
pub use error::Retry;
pub use scope::Scope;
pub use scope::Source;
pub use write::add_finalizer;
pub use write::merge_patch;
pub use write::patch_status;
pub use write::remove_finalizer;

/// Where a component takes the time from.
pub type Clock = fn() -> Timestamp;
