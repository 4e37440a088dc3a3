//! What `kubectl dcv` does: the things that a manifest alone cannot say, and what Session Manager's own client says.
//!
//! It acts with the rights of the person who calls it, and needs nothing in the cluster but our definitions; the commands
//! of `broker` need no cluster at all. Data goes to stdout, talk and errors to stderr, in kubectl's words.

mod age;
mod args;
mod broker;
mod change;
mod clients;
mod completion;
mod connect;
mod connection;
mod create;
mod ending;
mod enroll;
mod error;
mod explain;
mod keys;
mod listing;
mod manifest;
#[cfg(test)]
mod mock;
mod near;
mod permissions;
mod print;
mod screenshot;
mod servers;
mod sessions;
mod table;
mod voice;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::Parser;
use jiff::Timestamp;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use args::Args;
use args::ClusterCommand;
use args::Command;
use args::ConnectionArgs;
use args::KeysCommand;
use error::Error;
use voice::Voice;

/// The command line, for who describes it.
pub fn command() -> clap::Command {
    Args::command()
}

/// What a command has to say once it is done.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    /// Data, for stdout.
    data: String,
    /// Remarks, for stderr.
    talk: String,
    /// Whether the answer is a no, for the exit code.
    is_no: bool,
}

/// Runs the command line `arguments`, the program's name first: 0 when done, 1 when it failed or the answer
/// is a no, 2 when it is not understood, 130 when it was interrupted. Commands that ask a broker have exit codes of their own.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    if let Some(words) = completion::asked(&arguments) {
        return completion::complete(&words);
    }
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(help_or_error) => {
            let code = u8::try_from(help_or_error.exit_code()).unwrap_or(2);
            // There is nobody left to tell when this cannot be printed.
            let _ = help_or_error.print();
            return ExitCode::from(code);
        }
    };
    // An error only when there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Args { connection, broker, command } = args;
    match command {
        Command::Cluster(command) => run_on_cluster(&connection, command),
        Command::Broker(call) => {
            let limit = Some(connection.request_timeout).filter(|limit| !limit.is_zero());
            broker::run(&broker, &call, limit)
        }
        Command::Connect(wanted) => connect::run(&connection, &broker, &wanted),
        Command::Screenshot(wanted) => screenshot::run(&connection, &broker, &wanted),
        Command::Completion(wanted) => completion::print(&wanted),
    }
}

fn run_on_cluster(connection: &ConnectionArgs, command: ClusterCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Error::Runtime).and_then(|runtime| runtime.block_on(answer(connection, command)));
    match done.and_then(|answer| show(&answer).map(|()| answer.is_no)) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(error) => {
            let words = error::words(&error);
            if !words.is_empty() {
                let _ = writeln!(io::stderr(), "{words}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

async fn answer(connection: &ConnectionArgs, command: ClusterCommand) -> Result<Answer, Error> {
    let connection::Cluster { client, namespace, config } = connection::cluster(connection).await?;
    let (mut out, mut talk) = (io::stdout(), io::stderr());
    let mut voice = Voice { out: &mut out, talk: &mut talk };
    let (voice, stop) = (&mut voice, interrupted());
    match command {
        ClusterCommand::Sessions(wanted) => sessions::show(&client, &namespace, &wanted, voice, now, stop).await,
        ClusterCommand::Create(wanted) => create::create(&client, &namespace, &wanted, voice, stop).await,
        ClusterCommand::CloseSession(wanted) => sessions::close(&client, &namespace, &wanted, voice, stop).await,
        ClusterCommand::Permissions(wanted) => {
            permissions::permissions(&client, &namespace, &wanted, &permissions::editor()).await
        }
        ClusterCommand::Explain(question) => explain::explain(client, &namespace, &question).await,
        ClusterCommand::Clients(command) => clients::run(client, &namespace, &command, voice, now, stop).await,
        ClusterCommand::Keys(KeysCommand::Renew(renewal)) => keys::renew(client, &renewal).await,
        ClusterCommand::Server(command) => {
            let around = servers::Surroundings { clock: now, is_terminal: io::stdout().is_terminal() };
            servers::run(client, &command, voice, around, stop).await
        }
        ClusterCommand::Enroll(wanted) => enroll::enroll(&client, &config, &wanted, voice, stop).await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place where the plugin's clock is chosen")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Ends when somebody presses Ctrl-C or ends the program. Counts from this call on: what comes before it is awaited is not
/// lost, and does not end the program in the middle of something.
fn interrupted() -> impl Future<Output = ()> {
    let listen = |kind| signal(kind).ok();
    let (interrupt, terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    async move {
        let (Some(mut interrupt), Some(mut terminate)) = (interrupt, terminate) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

fn show(answer: &Answer) -> Result<(), Error> {
    io::stderr().write_all(answer.talk.as_bytes()).map_err(Error::Output)?;
    let mut out = io::stdout().lock();
    out.write_all(answer.data.as_bytes()).and_then(|()| out.flush()).map_err(Error::Output)
}
