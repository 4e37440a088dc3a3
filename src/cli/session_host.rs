//! `dcv-operator session-host`: started by the agent for each session of the `vnc` backend, and by itself for each program
//! of the session. Not for people.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::agent::backend::vnc::program::Identity;
use crate::agent::backend::vnc::program::become_program;
use crate::agent::backend::vnc::session_host;
use crate::agent::fault;

/// Runs one session of the vnc backend, or one program of it. Started by the agent.
#[derive(Args, Debug)]
pub struct SessionHostArgs {
    /// Folder of the session to run.
    #[arg(long, value_name = "DIR", requires = "instance", conflicts_with_all = ["directory", "run_as", "make_folder", "program"])]
    folder: Option<PathBuf>,
    /// Instance the session must be of.
    #[arg(long, value_name = "ID", requires = "folder")]
    instance: Option<String>,
    /// Folder the program is started in.
    #[arg(long, value_name = "DIR", required_unless_present = "folder")]
    directory: Option<PathBuf>,
    /// Account to become: uid, gid and supplementary groups, as in 1001:1001:27,100.
    #[arg(long, value_name = "UID:GID:GROUPS")]
    run_as: Option<Identity>,
    /// Folder to make as that account, before the program.
    #[arg(long, value_name = "DIR")]
    make_folder: Option<PathBuf>,
    /// Folder where a test names the points to stop at.
    #[arg(long, value_name = "DIR")]
    fault_folder: Option<PathBuf>,
    /// Program to become, with its arguments.
    #[arg(last = true)]
    program: Vec<OsString>,
}

impl SessionHostArgs {
    /// Does it.
    ///
    /// # Errors
    /// Why the session or the program could not be started.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(folder) = self.fault_folder {
            fault::set_folder(folder);
        }
        if let (Some(folder), Some(instance)) = (&self.folder, &self.instance) {
            return Ok(session_host::run(folder, instance)?);
        }
        let directory = self.directory.unwrap_or_else(|| "/".into());
        let error = become_program(self.run_as.as_ref(), &directory, self.make_folder.as_deref(), &self.program);
        let what = match (self.program.first(), &self.make_folder) {
            (Some(program), _) => format!("start {}", program.display()),
            (None, Some(folder)) => format!("make {}", folder.display()),
            (None, None) => "start nothing".to_owned(),
        };
        Err(anyhow::Error::new(error).context(format!("failed to {what}")))
    }
}
