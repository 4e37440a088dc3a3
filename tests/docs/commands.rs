//! Every command line of ours in every page, in blocks and in the text, is understood by the program it is for.

use std::process::Command;
use std::process::Stdio;

use clap::CommandFactory;
use clap::error::ErrorKind;
use dcv_operator::cli::Cli;

use crate::markdown::Page;
use crate::root;

/// The commands of a script, as words. What a shell would do with them (pipes, lists, redirections, substitutions) ends one;
/// so do the lines of a text that is handed over, which are nobody's commands.
fn commands(script: &str) -> Vec<Vec<String>> {
    let (mut commands, mut command, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let script = script.replace("\\\n", " ");
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            (None, ' ') => command.extend(word.take()),
            (None, '\n' | '|' | '&' | ';' | '(' | ')' | '<' | '>') => {
                command.extend(word.take());
                commands.push(std::mem::take(&mut command));
            }
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    command.extend(word);
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    commands
}

/// Programs of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Plugin,
    Operator,
    Script,
}

/// Which program of ours a command is for, and its arguments.
fn ours(command: &[String]) -> Option<(Program, &[String])> {
    // Systemd's, and assignments.
    let first = command.first()?;
    let name = first.strip_prefix("ExecStart=").unwrap_or(first);
    match (name.rsplit('/').next()?, &command[1..]) {
        ("kubectl", [dcv, rest @ ..]) if dcv == "dcv" => Some((Program::Plugin, rest)),
        ("kubectl-dcv", rest) => Some((Program::Plugin, rest)),
        ("dcv-operator", rest) if !name.starts_with("charts/") => Some((Program::Operator, rest)),
        (_, rest) if name.starts_with("hack/") => Some((Program::Script, rest)),
        _ => None,
    }
}

/// Why a program would not understand its arguments. A mention, in the text, may leave some out.
fn fault(command: &[String], is_mention: bool) -> Option<String> {
    let (program, arguments) = ours(command)?;
    let parser = match program {
        Program::Script => return fault_of_script(&command[0], arguments),
        Program::Plugin => dcv_operator::plugin::command(),
        Program::Operator => Cli::command(),
    };
    // A word in capitals is one that readers put in.
    let is_capitals = |word: &str| word.chars().all(|letter| letter.is_ascii_uppercase());
    let arguments = arguments.iter().map(|word| match word.as_str() {
        "ROLE" => "agent".to_owned(),
        word if is_capitals(word) => word.to_lowercase(),
        word => word.to_owned(),
    });
    let parsed = parser.try_get_matches_from(std::iter::once("program".to_owned()).chain(arguments));
    let fault = parsed.err()?;
    let incomplete = [
        ErrorKind::MissingRequiredArgument,
        ErrorKind::MissingSubcommand,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    let is_good = matches!(fault.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
        || is_mention && incomplete.contains(&fault.kind());
    (!is_good).then(|| format!("{}: {fault}", command.join(" ")))
}

/// A script is there and knows the flags.
fn fault_of_script(name: &str, arguments: &[String]) -> Option<String> {
    let Ok(text) = std::fs::read_to_string(root().join(name)) else {
        return (!root().join(name).exists()).then(|| format!("there is no {name}"));
    };
    let flags = arguments.iter().take_while(|word| *word != "--").filter(|word| word.starts_with("--"));
    let unknown: Vec<_> = flags.filter(|flag| !text.contains(&format!("{flag} "))).map(String::as_str).collect();
    (!unknown.is_empty()).then(|| format!("{name} does not know {}", unknown.join(", ")))
}

#[test]
fn our_programs_understand_every_command_line_of_every_page() {
    let (mut counts, mut faults) = ([0; 2], Vec::new());
    for page in Page::all(root()) {
        let blocks = page.blocks().into_iter().filter(|block| ["sh", "ini"].contains(&&*block.kind));
        let blocks = blocks.map(|block| (block.place, block.text, false));
        let mentions = page.code().into_iter().map(|code| (code.place, code.text, true));
        for (place, text, is_mention) in blocks.chain(mentions) {
            for command in commands(&text) {
                counts[usize::from(is_mention)] += usize::from(ours(&command).is_some());
                faults.extend(fault(&command, is_mention).map(|fault| format!("{place}: {fault}")));
            }
        }
    }
    assert!(counts[0] > 20 && counts[1] > 100, "{counts:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_command_line_that_is_not_understood_is_told() {
    let all = |script: &str, is_mention| -> Vec<String> {
        commands(script).iter().filter_map(|command| fault(command, is_mention)).collect()
    };
    let good = "id=$(kubectl dcv sessions 'a b' -o json | jq) && hack/up --servers 2 # kubectl dcv nonsense\nkubectl get pods --wrong";
    assert_eq!(all(good, false), Vec::<String>::new());
    for wrong in [
        "a | kubectl dcv drain host --wrong",
        "target/debug/kubectl-dcv nonsense",
        "/usr/local/bin/dcv-operator agent \\\n  --wrong",
        "dcv-operator wrong",
        "x=$(hack/up --wrong 1)",
        "hack/wrong",
    ] {
        assert_eq!(all(wrong, true).len(), 1, "{wrong}");
    }
    assert_eq!((all("kubectl dcv drain", true).len(), all("kubectl dcv drain", false).len()), (0, 1));
    assert_eq!(commands("a \"b 'c'\"'d' ''"), [["a", "b 'c'd", ""]]);
}

/// A look at a host: of this one, which is none.
#[test]
fn the_looks_at_a_host_of_the_page_can_be_taken() {
    let blocks = Page::read(root(), "docs/hosts.md").blocks();
    let ours = blocks.iter().filter(|block| block.mark.as_deref() == Some("tested by tests/docs/commands.rs"));
    let lines: Vec<_> = ours.flat_map(|block| commands(&block.text)).collect();
    assert!(lines.len() >= 2, "{lines:?}");
    for line in lines {
        let looked =
            Command::new(env!("CARGO_BIN_EXE_dcv-operator")).args(&line[1..]).stdin(Stdio::null()).output().unwrap();
        let printed = String::from_utf8_lossy(&looked.stdout);
        // 1: it has found something, as on a machine without a DCV server.
        assert!(matches!(looked.status.code(), Some(0 | 1)), "{line:?}: {looked:?}");
        assert!(printed.contains("Authentication") || printed.contains("Clock"), "{line:?}: {printed}");
    }
}
