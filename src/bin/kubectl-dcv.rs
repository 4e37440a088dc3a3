//! The kubectl plugin: `kubectl dcv`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dcv_operator::plugin::run(std::env::args_os())
}
