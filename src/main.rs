//! The operator's one binary.

use std::process::ExitCode;

use dcv_operator::cli;

fn main() -> anyhow::Result<ExitCode> {
    cli::run(std::env::args_os())
}
