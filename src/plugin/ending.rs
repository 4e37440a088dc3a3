//! How a command ends that asks both a cluster and a broker.

use std::fmt::Display;
use std::io;
use std::io::Write;
use std::process::ExitCode;

use super::broker;
use super::error;

/// Where a fault comes from.
pub(super) enum Origin<'a> {
    /// The cluster, or this machine.
    Cluster(&'a error::Error),
    /// The broker.
    Broker(&'a broker::Error),
    /// Somebody has interrupted the command.
    Interrupted,
    /// The command's own doing.
    Own,
}

/// What stops such a command.
pub(super) trait Fault: Display + From<error::Error> {
    /// Where it comes from.
    fn origin(&self) -> Origin<'_>;

    /// The exit code that tells of it.
    fn exit_code(&self) -> u8 {
        match self.origin() {
            Origin::Cluster(error) => error.exit_code(),
            Origin::Broker(error) => error.exit_code(),
            Origin::Interrupted => 130,
            Origin::Own => 1,
        }
    }

    /// What the person is told.
    fn words(&self) -> String {
        match self.origin() {
            Origin::Cluster(error) => error::words(error),
            Origin::Broker(_) | Origin::Interrupted | Origin::Own => format!("error: {self}"),
        }
    }
}

/// Does the work, and says how that went by the exit code.
pub(super) fn run<E: Fault>(work: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| E::from(error::Error::Runtime(error))).and_then(|runtime| {
        let done = runtime.block_on(work);
        // A name that is still looked up would hold the end up.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell when this cannot be printed.
            let _ = writeln!(io::stderr(), "{}", error.words());
            ExitCode::from(error.exit_code())
        }
    }
}
