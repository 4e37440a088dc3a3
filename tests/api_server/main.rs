//! Our definitions, rights, policies and flow control on a real API server.
//!
//! Ignored by default: `hack/test api` starts a server and runs them. By hand:
//! `eval "$(hack/cluster env)"; cargo test --test api_server -- --ignored`. They install what `crds/` and `config/` hold
//! and need `kubectl`; each works in a namespace of its own and under names of its own.

mod agents;
mod clients;
mod cluster;
mod explain;
mod flow;
mod guards;
mod plugin;
mod readers;
mod rights;
mod schema;
mod tokens;
mod updates;
