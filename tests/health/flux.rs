//! What the expressions in `contrib/flux` say, in the order in which Flux asks them.
//!
//! Source: `Evaluate` in `runtime/cel/status_evaluator.go` of github.com/fluxcd/pkg, which is RFC 0009 of Flux.

use cel::Context;
use cel::Program;
use serde::Deserialize;
use serde_json::Value;

use crate::kstatus::Status;

/// The expressions for one kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expressions {
    pub api_version: String,
    pub kind: String,
    in_progress: String,
    failed: String,
    current: String,
}

impl Expressions {
    /// What Flux takes `object` for.
    ///
    /// # Panics
    /// When an expression is none, or fails: Flux would report that instead of an object's health.
    pub fn status(&self, object: &Value) -> Status {
        let observed = object["status"].get("observedGeneration");
        if observed.is_some_and(|observed| *observed != object["metadata"]["generation"]) {
            return Status::InProgress;
        }
        let mut context = Context::default();
        for name in ["metadata", "spec", "status"] {
            let value = cel::to_value(&object[name]).expect("an object is plain data");
            context.add_variable_from_value(name, value);
        }
        let holds = |expression: &str| {
            let program = Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
            match program.execute(&context) {
                Ok(cel::Value::Bool(holds)) => holds,
                other => panic!("{expression} is {other:?} of {object:#}"),
            }
        };
        if holds(&self.in_progress) {
            Status::InProgress
        } else if holds(&self.failed) {
            Status::Failed
        } else if holds(&self.current) {
            Status::Current
        } else {
            Status::InProgress
        }
    }
}
