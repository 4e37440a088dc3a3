//! Completion: what could come next on the command line.
//!
//! kubectl asks the program `kubectl_complete-dcv` for its own completion; shells ask `kubectl-dcv __complete` by the scripts
//! that `completion` prints. Both get the same answer: a line for each word, a tab and what it is, and last a number that says
//! what the shell may do beside.
//!
//! Names come from the cluster that the words so far speak of. Whatever fails, the answer is without names and says nothing
//! else: it is asked for with each press of a key.
//!
//! Source: `kubectl/pkg/cmd/plugin/plugin_completion.go` in k8s.io/kubectl; `__complete` in spf13/cobra.

mod names;
mod scripts;
mod words;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use clap::CommandFactory;
use clap::ValueEnum;

use super::args;
use words::Wanted;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
For kubectl dcv, kubectl's own completion must be set up (kubectl completion --help), and a program kubectl_complete-dcv be on \
the PATH: a link to kubectl-dcv of that name will do. The scripts are for kubectl-dcv as a command of its own, for bash also for \
an alias of it.

Names of sessions, servers, clients, namespaces and contexts are completed as far as you may list them.

Examples:
  ln -s \"$(command -v kubectl-dcv)\" ~/.local/bin/kubectl_complete-dcv
  source <(kubectl dcv completion bash)
  kubectl dcv completion zsh > \"${fpath[1]}/_kubectl-dcv\"
  kubectl dcv completion fish > ~/.config/fish/completions/kubectl-dcv.fish";

/// The hidden command that shells call.
const COMPLETE: &str = "__complete";
/// The name by which kubectl calls us for the same.
const KUBECTL_NAME: &str = "kubectl_complete-dcv";

/// For which shell.
#[derive(Args, Clone, Debug)]
pub(super) struct Completion {
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Shells that are known.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script of a shell.
pub(super) fn print(wanted: &Completion) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(scripts::of(wanted.shell).as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The words to complete, when that is what is asked: all after the command, the last perhaps empty.
pub(super) fn asked(arguments: &[OsString]) -> Option<Vec<String>> {
    let text = |words: &[OsString]| words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let (program, rest) = arguments.split_first()?;
    if Path::new(program).file_name().is_some_and(|name| name == KUBECTL_NAME) {
        return Some(text(rest));
    }
    let (first, rest) = rest.split_first()?;
    (first == COMPLETE).then(|| text(rest))
}

/// What a shell may do with an answer: cobra's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Directive {
    /// Complete nothing else, names of files neither.
    NoFiles = 4,
    /// Complete names of files.
    Files = 0,
}

/// Answers what could come next.
pub(super) fn complete(words: &[String]) -> ExitCode {
    let mut command = args::Args::command();
    command.build();
    let (candidates, directive) = match words::wanted(&command, words) {
        Wanted::Words(candidates) => (candidates, Directive::NoFiles),
        Wanted::Names(kind, prefix) => (names::of(kind, &prefix, words), Directive::NoFiles),
        Wanted::Files => (Vec::new(), Directive::Files),
    };
    let mut out = io::stdout().lock();
    let written = candidates.iter().try_for_each(|candidate| writeln!(out, "{}", candidate.line()));
    // There is nobody to tell when that fails.
    let _ = written.and_then(|()| writeln!(out, ":{}", directive as u8)).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// A word that could come next, and what it is.
#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    word: String,
    what: String,
}

impl Candidate {
    fn new(word: impl Into<String>, what: impl Into<String>) -> Self {
        Self { word: word.into(), what: what.into() }
    }

    fn line(&self) -> String {
        let what: String = self.what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if what.is_empty() { self.word.clone() } else { format!("{}\t{what}", self.word) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_as(words: &[&str]) -> Option<Vec<String>> {
        asked(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn it_is_asked_by_a_name_or_by_a_word() {
        assert_eq!(asked_as(&["/bin/kubectl_complete-dcv", "sess"]), Some(vec!["sess".to_owned()]));
        assert_eq!(asked_as(&["kubectl-dcv", "__complete", "a", ""]), Some(vec!["a".to_owned(), String::new()]));
        assert_eq!(asked_as(&["kubectl-dcv", "sessions"]), None);
        assert_eq!(asked_as(&["kubectl-dcv"]), None);
    }

    #[test]
    fn a_word_is_one_line() {
        assert_eq!(Candidate::new("a", "b\nc").line(), "a\tb c");
        assert_eq!(Candidate::new("a", "").line(), "a");
    }
}
