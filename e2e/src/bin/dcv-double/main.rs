//! A double of an Amazon DCV server, as tests drive it: the real one cannot be had in them.
//!
//! One program under three names. `FOLDER/bin/dcv` is the command, with the documented options and no others; any other name
//! in `FOLDER/bin`, such as `dcvserver`, is the server of `FOLDER`, which holds the sessions and reads `FOLDER/dcv.conf`; and
//! under its own name it is a client: `dcv-double connect URL`. What it prints, it prints as versions of the real one were
//! seen to, in several styles; it can be told to fail, to be late and to talk nonsense (`server::Order`).

mod client;
mod options;
mod output;
mod server;
mod session;
mod verifier;

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;
use serde_json::json;

fn main() -> ExitCode {
    let mut words = std::env::args();
    let own = PathBuf::from(words.next().unwrap_or_default());
    let words: Vec<String> = words.collect();
    let name = own.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    // `FOLDER/bin/NAME`.
    let folder = own.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let result = match name.as_str() {
        "dcv" => return command(&folder, &words),
        "dcv-double" => client::run(&words),
        _ => server::run(&folder),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The `dcv` command: the server says what it prints and how it ends.
fn command(folder: &Path, words: &[String]) -> ExitCode {
    let answer = match ask(folder, &json!({"command": words})) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("Could not connect to the DCV server: {error}");
            return ExitCode::FAILURE;
        }
    };
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let _ = std::io::stdout().write_all(text("stdout").as_bytes());
    let _ = std::io::stderr().write_all(text("stderr").as_bytes());
    ExitCode::from(answer["exit"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn ask(folder: &Path, question: &Value) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(folder.join("server.sock"))?;
    writeln!(stream, "{question}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(std::io::Error::other)
}
