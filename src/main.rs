//! The operator's one binary.

use clap::Parser;
use dcv_operator::cli;

fn main() -> anyhow::Result<()> {
    cli::run(cli::Cli::parse())
}
