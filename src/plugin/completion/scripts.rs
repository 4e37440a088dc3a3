//! What makes shells ask for completion.

use super::Shell;

/// The script of a shell.
pub(super) fn of(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    }
}

const BASH: &str = r#"# bash completion of kubectl-dcv: source <(kubectl-dcv completion bash)
_kubectl_dcv() {
  local current=${COMP_WORDS[COMP_CWORD]} answer directive line
  # bash takes = and : for words of their own.
  if declare -F _get_comp_words_by_ref >/dev/null; then
    local cur prev words cword
    _get_comp_words_by_ref -n =: cur prev words cword
    current=$cur
  else
    local words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
  fi
  COMPREPLY=()
  answer=$(command "${words[0]}" __complete "${words[@]:1:cword-1}" "$current" 2>/dev/null) || return
  directive=${answer##*:}
  if [[ $directive == 0 ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    compopt -o filenames 2>/dev/null
    return
  fi
  while IFS= read -r line; do
    line=${line%%$'\t'*}
    [[ $line == :* || $line != "$current"* ]] || COMPREPLY+=("$line")
  done <<<"$answer"
  if declare -F __ltrim_colon_completions >/dev/null; then
    __ltrim_colon_completions "$current"
  fi
}
complete -F _kubectl_dcv kubectl-dcv
"#;

const ZSH: &str = r#"#compdef kubectl-dcv
# zsh completion of kubectl-dcv
_kubectl-dcv() {
  local -a lines candidates
  local line
  lines=("${(@f)$(command ${words[1]} __complete ${words[2,CURRENT-1]} "${words[CURRENT]}" 2>/dev/null)}")
  if [[ ${lines[-1]} == :0 ]]; then
    _files
    return
  fi
  for line in "${(@)lines[1,-2]}"; do
    line=${line//:/\\:}
    candidates+=("${line/$'\t'/:}")
  done
  _describe -V 'kubectl-dcv' candidates
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _kubectl-dcv "$@"
else
  compdef _kubectl-dcv kubectl-dcv
fi
"#;

const FISH: &str = r#"# fish completion of kubectl-dcv
function __kubectl_dcv_complete
    set -l words (commandline --tokens-expanded --cut-at-cursor 2>/dev/null; or commandline -opc)
    set -l lines (command kubectl-dcv __complete $words[2..-1] (commandline -ct) 2>/dev/null)
    if test "$lines[-1]" = ':0'
        __fish_complete_path (commandline -ct)
        return
    end
    string match --invert --regex '^:' -- $lines
end
complete -c kubectl-dcv -f -a '(__kubectl_dcv_complete)'
"#;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What bash completes, where the program answers this.
    fn completed(answer: &str, words: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("kubectl-dcv");
        let asked = folder.path().join("asked");
        let text = format!("#!/bin/sh\nprintf '%s|' \"$@\" >{}\ncat <<'END'\n{answer}\nEND\n", asked.display());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let script = format!(
            "{BASH}\nCOMP_WORDS=({} {})\nCOMP_CWORD={}\n_kubectl_dcv\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            program.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len(),
        );
        let output = std::process::Command::new("bash").arg("-c").arg(script).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        let said = std::fs::read_to_string(asked).unwrap();
        assert_eq!(said, format!("__complete|{}|", words.join("|")));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn bash_asks_with_all_words_and_offers_what_fits() {
        let answer = "desk\tREADY of ann\ndraft\nother\n:4";
        assert_eq!(completed(answer, &["sessions", "d"]), ["desk", "draft"]);
        assert_eq!(completed(answer, &["sessions", ""]), ["desk", "draft", "other"]);
    }

    #[test]
    fn every_shell_asks_the_same_question() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(of(shell).contains("__complete"), "{shell:?}");
        }
    }
}
