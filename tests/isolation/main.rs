//! The attack matrix on a real API server, and that it notices when a rule is missing.
//!
//! A program of its own, as it takes our policies and rights away piece by piece, under which no other test could run. Ignored
//! by default: `hack/test api` starts a server and runs it. By hand:
//! `eval "$(hack/cluster env)"; cargo test --test isolation -- --ignored`.

#[path = "../api_server/cluster.rs"]
#[allow(dead_code, reason = "the other tests of the API server need more of it")]
mod cluster;
mod command;
mod mutations;
mod stand;
