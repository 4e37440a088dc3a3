//! The nine commands of Session Manager's own client, asked of a broker, ours or another.
//!
//! Nothing is kept between two calls: the access token is got for each and forgotten. No secret is ever shown.

mod args;
mod call;
mod config;
mod error;
mod pretty;
mod request;

use std::io;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

pub use args::Call;
pub use args::GetSessionConnectionData;
pub use args::GetSessionScreenshots;
pub use args::Options;
use call::Caller;
use config::Environment;
use config::File;
use config::Settings;
use config::Trust;
pub use error::Error;
use request::Request;

/// Asks the broker, prints what it answers as it answers it, and says how it went by the documented exit codes. `limit`
/// is for each answer.
pub fn run(options: &Options, call: &Call, limit: Option<Duration>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run_until_interrupted(options, call, limit));
            // A name that is still looked up would hold the end up.
            runtime.shutdown_background();
            ExitCode::from(code)
        }
        Err(error) => ExitCode::from(fail(&Error::Other(error.to_string()))),
    }
}

async fn run_until_interrupted(options: &Options, call: &Call, limit: Option<Duration>) -> u8 {
    let answer = tokio::select! {
        answer = ask(options, call, limit) => answer,
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    };
    match answer.and_then(|answer| show(&answer)) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// The broker's answer to `call`, which is JSON. `limit` is for each answer.
///
/// # Errors
/// When there is none, or it is an error.
pub async fn ask(options: &Options, call: &Call, limit: Option<Duration>) -> Result<String, Error> {
    let request = Request::of(call, |path| std::fs::read(path))?;
    let environment = Environment::read();
    let file = File::read(options.conf.as_deref(), &environment)?;
    let settings = Settings::resolve(options, &environment, &file)?;
    if settings.trust == Trust::Anyone {
        let _ = writeln!(io::stderr(), "warning: certificates are not checked: whoever is in between can read along");
    }
    Caller::new(&settings, limit)?.ask(&request).await
}

/// Prints the answer. Items that failed are part of it, and the code tells of them.
fn show(answer: &str) -> Result<u8, Error> {
    let parsed: Value = serde_json::from_str(answer)
        .map_err(|error| Error::Other(format!("the broker's answer is no JSON: {error}")))?;
    let mut out = io::stdout().lock();
    out.write_all(pretty::pretty(answer).as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::Other(format!("cannot print: {error}")))?;
    let has_failed = parsed["UnsuccessfulList"].as_array().is_some_and(|list| !list.is_empty());
    Ok(if has_failed { error::ITEM_FAILED } else { 0 })
}

fn fail(error: &Error) -> u8 {
    // There is nobody left to tell when this cannot be printed.
    let _ = writeln!(io::stderr(), "error: {error}");
    error.exit_code()
}
