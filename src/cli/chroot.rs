//! `dcv-operator chroot`: runs a command of the host from a container that has none of its own, not even `chroot`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use clap::Args;

/// Flags of chroot.
#[derive(Args, Clone, Debug)]
pub struct ChrootArgs {
    /// The folder that becomes the root
    #[arg(value_name = "DIR")]
    root: PathBuf,
    /// The command, with its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl ChrootArgs {
    /// Becomes the command.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn run(&self) -> anyhow::Result<()> {
        let (program, arguments) = self.command.split_first().context("there is no command")?;
        nix::unistd::chroot(&self.root).with_context(|| format!("failed to enter {}", self.root.display()))?;
        std::env::set_current_dir("/").context("failed to enter the new root")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("failed to run {} in {}", program.display(), self.root.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ChrootArgs,
    }

    #[test]
    fn the_commands_own_flags_are_left_to_it() {
        let args = Cli::try_parse_from(["chroot", "/host", "dcv", "list-sessions", "--json", "-h"]).unwrap().args;
        assert_eq!(
            (args.root, args.command.join(" ".as_ref())),
            ("/host".into(), "dcv list-sessions --json -h".into())
        );
        assert!(Cli::try_parse_from(["chroot", "/host"]).is_err());
    }
}
