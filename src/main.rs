//! The operator.
use clap::Parser;
use clap::Subcommand;
use dcv_operator::cli::session_host::SessionHostArgs;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    SessionHost(SessionHostArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().role {
        Role::SessionHost(args) => args.run(),
    }
}
