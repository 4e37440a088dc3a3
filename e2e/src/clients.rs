//! Programs in other languages that tests run: generators of clients, what those need, and schemathesis.
//! `hack/setup --for test` installs them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::stand::root;

/// Starts a Java machine that lives for seconds: with the quick compiler alone.
const QUICK_START: &str = "-XX:TieredStopAtLevel=1";

/// The folder of what a function of `hack/lib.sh` names.
fn folder(function: &str) -> PathBuf {
    let script = format!(". {}/hack/lib.sh && {function}", root().display());
    let output = std::process::Command::new("bash").args(["-euo", "pipefail", "-c", &script]).output();
    let path = PathBuf::from(String::from_utf8_lossy(&output.expect("bash can be run").stdout).trim());
    assert!(path.is_dir(), "{} is not there; hack/setup installs it", path.display());
    path
}

/// The sources of the driver programs.
pub fn drivers() -> PathBuf {
    root().join("e2e/clients")
}

/// An empty folder of this name, for what a test makes.
pub fn scratch(name: &str) -> PathBuf {
    let folder = root().join("target/e2e").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// A program of the virtual environment, such as `python`.
pub fn python(program: &str) -> Command {
    Command::new(folder("client_python").join("bin").join(program))
}

/// The jar of a code generator, such as `swagger-codegen-cli`, to be run with further arguments.
pub fn generator(name: &str) -> Command {
    let jar = jars(|jar| jar.starts_with(name)).pop().unwrap_or_else(|| panic!("there is no jar of {name}"));
    let mut command = Command::new("java");
    command.arg(QUICK_START).arg("-jar").arg(jar);
    command
}

/// Compiles Java sources to `classes`.
pub fn javac(sources: &[PathBuf], classes: &Path) -> Command {
    let mut command = Command::new("javac");
    command.arg(format!("-J{QUICK_START}")).args(["-nowarn", "-proc:none", "-encoding", "UTF-8"]);
    command.arg("-classpath").arg(class_path(&[])).arg("-d").arg(classes).args(sources);
    command
}

/// Runs a class of `classes`.
pub fn java(class: &str, classes: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg(QUICK_START).arg("-classpath").arg(class_path(&[classes.to_owned()])).arg(class);
    command
}

/// What generated Java clients run on. The generators are whole worlds of their own, and no part of it.
fn class_path(more: &[PathBuf]) -> String {
    let libraries = jars(|name| !name.contains("-cli-"));
    let paths: Vec<_> = more.iter().chain(&libraries).map(|path| path.display().to_string()).collect();
    paths.join(":")
}

fn jars(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(folder("client_jars")).expect("the folder is there").flatten().map(|file| file.path());
    files.filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(&wanted)).collect()
}

/// Every file of this extension below `folder`.
pub fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new(extension)) {
                found.push(path);
            }
        }
    }
    found
}

/// Runs a command, which must succeed within the limit, and returns what it printed.
///
/// # Panics
/// With all that it printed, when it does not.
pub async fn run(what: &str, limit: Duration, mut command: Command) -> String {
    let output = tokio::time::timeout(limit, command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{what} did not end within {limit:?}"));
    let output = output.unwrap_or_else(|error| panic!("{what} cannot be run: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{what} ended with {}\n{out}\n{err}", output.status);
    out
}
