//! `kubectl dcv permissions`: who may do what in a session, as the text that the object has.
//!
//! Nothing is written that does not parse, and nothing over what somebody else has written meanwhile. What was typed into an
//! editor is not lost, whatever goes wrong.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use clap::Args as ClapArgs;
use kube::Api;
use kube::Client;
use serde_json::json;
use tempfile::NamedTempFile;

use super::Answer;
use super::change;
use super::error::Error;
use super::error::needs;
use super::listing::qualified;
use super::near;
use crate::api::DcvSession;
use crate::permissions::ParseError;
use crate::permissions::Permissions;

/// What the command's help says at the end.
pub(super) const HELP: &str = "\
Without a flag it prints the text; a session without one has its owner alone, with every feature. What is written acts on \
connected clients at once. Permissions are no secret: whoever may read the session reads them.

--edit opens the text in $KUBE_EDITOR, else $EDITOR, else vi, as kubectl edit does. A text that does not parse is not written: \
it is kept in a file, and its name is told.

It takes the right to get dcvsessions, and to change them to patch them.

Exit code: 0 done, or nothing was to change; 1 the text does not parse, somebody else was faster, or it failed.

Examples:
  kubectl dcv permissions desk -n team-a
  kubectl dcv permissions desk --set shared.perm
  kubectl dcv permissions desk --edit
  kubectl dcv permissions desk --user bob";

/// Which session's, and what to do with them.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Name of a DcvSession
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Write the text of this file; - reads stdin
    #[arg(long, value_name = "FILE", group = "act")]
    pub set: Option<PathBuf>,
    /// Change the text in an editor
    #[arg(long, group = "act")]
    pub edit: bool,
    /// Take the text away: only the owner, with every feature
    #[arg(long, group = "act")]
    pub reset: bool,
    /// Print what this person may do, rules for groups of the host left aside
    #[arg(long, value_name = "NAME", group = "act")]
    pub user: Option<String>,
}

/// What a new text begins with.
const TEMPLATE: &str = "\
# Who may do what in this session. Without a text: %owner% allow builtin
[permissions]
%owner% allow builtin
";

/// Shows or changes them. `editor` is the words of the editor's command.
pub(super) async fn permissions(
    client: &Client,
    namespace: &str,
    wanted: &Wanted,
    editor: &[String],
) -> Result<Answer, Error> {
    let name = near::bare(&wanted.session);
    let session = near::session(client, namespace, name).await?;
    let now = session.spec.permissions.clone();
    if let Some(user) = &wanted.user {
        return rights(&session, user);
    }
    let new = if let Some(file) = &wanted.set {
        let text = read(file)?;
        Permissions::parse(Some(&text)).map_err(|error| wrong(&file_name(file), &error))?;
        Some(text)
    } else if wanted.edit {
        return edit(client, namespace, &session, editor).await;
    } else if wanted.reset {
        None
    } else {
        let talk = match now {
            Some(_) => String::new(),
            None => "it has none of its own: only the owner, with every feature\n".to_owned(),
        };
        return Ok(Answer { data: now.unwrap_or_default(), talk, ..Answer::default() });
    };
    write(client, namespace, name, now.as_deref(), new.as_deref()).await
}

/// What somebody may do.
fn rights(session: &DcvSession, user: &str) -> Result<Answer, Error> {
    let text = session.spec.permissions.as_deref();
    let permissions = Permissions::parse(text).map_err(|error| wrong("the session's permissions", &error))?;
    let has_groups = permissions.osgroups().next().is_some();
    let groups = "rules for groups of the host are left aside: only the host knows who is in them\n";
    let mut talk = if has_groups { groups.to_owned() } else { String::new() };
    let features = permissions.features_of(user, &session.spec.owner, |_| false);
    let data: String = features.words().flat_map(|word| [word, "\n"]).collect();
    if data.is_empty() {
        let _ = writeln!(talk, "{user} is not let in");
    }
    Ok(Answer { is_no: data.is_empty(), data, talk })
}

/// Writes `new` where there still is `old`.
async fn write(
    client: &Client,
    namespace: &str,
    name: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> Result<Answer, Error> {
    let api = Api::<DcvSession>::namespaced(client.clone(), namespace);
    let changed = change::change(&api, name, |now: &DcvSession| match now.spec.permissions.as_deref() {
        now if now == new => Ok(None),
        now if now != old => Err(Error::Told("somebody has changed the permissions meanwhile; look again".to_owned())),
        _ => Ok(Some(json!({"permissions": new}))),
    });
    let changed = changed.await.map_err(|error| match error {
        Error::Request(source) => needs("permissions", "patch dcvsessions", *source),
        other => other,
    })?;
    let done = if changed.after.is_some() { "permissions written" } else { "permissions unchanged" };
    Ok(Answer { data: format!("{} {done}\n", qualified::<DcvSession>(name)), ..Answer::default() })
}

async fn edit(client: &Client, namespace: &str, session: &DcvSession, editor: &[String]) -> Result<Answer, Error> {
    let now = session.spec.permissions.as_deref();
    let before = now.unwrap_or(TEMPLATE);
    let cannot = |source: io::Error| Error::Told(format!("cannot edit: {source}"));
    let mut file = tempfile::Builder::new().prefix("kubectl-dcv-").suffix(".perm").tempfile().map_err(cannot)?;
    file.write_all(before.as_bytes()).map_err(cannot)?;
    run(editor, file.path())?;
    let text = fs::read_to_string(file.path()).map_err(cannot)?;
    let name = session.metadata.name.as_deref().unwrap_or_default();
    if text == before {
        return Ok(Answer { talk: "Edit cancelled, no changes made.\n".to_owned(), ..Answer::default() });
    }
    let written = match Permissions::parse(Some(&text)) {
        Ok(_) => write(client, namespace, name, now, Some(&text)).await,
        Err(error) => Err(wrong("the text", &error)),
    };
    written.map_err(|error| kept(file, name, namespace, &error))
}

/// The error, and where the text is now.
fn kept(file: NamedTempFile, name: &str, namespace: &str, error: &Error) -> Error {
    let words = super::error::words(error);
    let words = words.strip_prefix("error: ").unwrap_or(&words);
    match file.keep() {
        Ok((_, path)) => {
            let path = path.display();
            Error::Told(format!(
                "{words}\nwhat you wrote is in {path}: mend it, then kubectl dcv permissions {name} -n {namespace} --set {path}"
            ))
        }
        Err(lost) => Error::Told(format!("{words}\nwhat you wrote could not be kept: {lost}")),
    }
}

fn run(editor: &[String], file: &Path) -> Result<(), Error> {
    let [program, arguments @ ..] = editor else {
        return Err(Error::Told("there is no editor".to_owned()));
    };
    let status = Command::new(program).args(arguments).arg(file).status();
    let status = status.map_err(|error| Error::Told(format!("the editor {program} cannot be run: {error}")))?;
    if status.success() { Ok(()) } else { Err(Error::Told(format!("the editor {program} ended with {status}"))) }
}

/// The words of the editor's command, as kubectl chooses it.
#[expect(clippy::disallowed_methods, reason = "the one place where the editor is read")]
pub(super) fn editor() -> Vec<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let text = set("KUBE_EDITOR").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    text.split_whitespace().map(str::to_owned).collect()
}

fn read(file: &Path) -> Result<String, Error> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    text.map_err(|source| Error::Read { file: file_name(file), source })
}

fn file_name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn wrong(what: &str, error: &ParseError) -> Error {
    Error::Told(format!("{what} cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::error::words;
    use super::super::mock;
    use super::*;

    fn session(permissions: Option<&str>) -> Value {
        json!({"apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvSession",
            "metadata": {"name": "desk", "namespace": "team", "uid": "u", "resourceVersion": "7"},
            "spec": {"owner": "ann", "type": "VIRTUAL", "permissions": permissions}})
    }

    /// What becomes of it where the session has these permissions, and what is written.
    async fn run_on(now: Option<&str>, wanted: Wanted, editor: &[&str]) -> (Result<Answer, String>, Vec<Value>) {
        let (client, patches) = mock::server(session(now));
        let editor: Vec<_> = editor.iter().map(|word| (*word).to_owned()).collect();
        let wanted = Wanted { session: "desk".into(), ..wanted };
        let answer = permissions(&client, "team", &wanted, &editor).await.map_err(|error| words(&error));
        let patches = patches.lock().unwrap().iter().map(|patch| patch["spec"].clone()).collect();
        (answer, patches)
    }

    fn file(text: &str) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    const SHARED: &str = "[permissions]\n%owner% allow builtin\nbob allow display\n";
    const WRITTEN: &str = "dcvsession.dcv-operator.io/desk permissions written\n";

    #[tokio::test]
    async fn they_are_shown_as_they_are() {
        let (answer, _) = run_on(Some(SHARED), Wanted::default(), &[]).await;
        assert_eq!(answer.unwrap(), Answer { data: SHARED.to_owned(), ..Answer::default() });
        let (answer, _) = run_on(None, Wanted::default(), &[]).await;
        let answer = answer.unwrap();
        assert!(answer.data.is_empty() && answer.talk.contains("only the owner"), "{answer:?}");
    }

    #[tokio::test]
    async fn a_file_is_written_if_it_parses_and_says_something_else() {
        let of_text = |text: &str| {
            let file = file(text);
            (Wanted { set: Some(file.path().to_owned()), ..Wanted::default() }, file)
        };
        let (wanted, _file) = of_text(SHARED);
        let (answer, sent) = run_on(None, wanted.clone(), &[]).await;
        assert_eq!((answer.unwrap().data.as_str(), sent), (WRITTEN, vec![json!({"permissions": SHARED})]));
        let (answer, sent) = run_on(Some(SHARED), wanted, &[]).await;
        assert_eq!(answer.unwrap().data, WRITTEN.replace("written", "unchanged"));
        assert!(sent.is_empty());
        let (wanted, _file) = of_text("[permissions]\nbob may display\n");
        let (answer, sent) = run_on(None, wanted, &[]).await;
        let error = answer.unwrap_err();
        assert!(error.contains("cannot be used: line 2: ") && sent.is_empty(), "{error}");
        let (answer, sent) = run_on(Some(SHARED), Wanted { reset: true, ..Wanted::default() }, &[]).await;
        assert_eq!((answer.unwrap().data.as_str(), sent), (WRITTEN, vec![json!({"permissions": null})]));
    }

    #[tokio::test]
    async fn what_was_typed_is_written_or_kept() {
        let edit = || Wanted { edit: true, ..Wanted::default() };
        let editor = ["sh", "-c", "echo 'bob allow display' >>\"$1\"", "editor"];
        let (answer, sent) = run_on(Some(SHARED), edit(), &editor).await;
        let text = format!("{SHARED}bob allow display\n");
        assert_eq!((answer.unwrap().data.as_str(), sent), (WRITTEN, vec![json!({"permissions": text})]));

        let (answer, sent) = run_on(Some(SHARED), edit(), &["true"]).await;
        assert!(answer.unwrap().talk.contains("no changes made") && sent.is_empty());

        let editor = ["sh", "-c", "echo 'bob may display' >>\"$1\"", "editor"];
        let (answer, sent) = run_on(Some(SHARED), edit(), &editor).await;
        let error = answer.unwrap_err();
        let path = error.rsplit(' ').next().unwrap();
        assert!(error.contains("cannot be used: line 4: ") && sent.is_empty(), "{error}");
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{SHARED}bob may display\n"));
        fs::remove_file(path).unwrap();

        let (answer, _) = run_on(Some(SHARED), edit(), &["false"]).await;
        assert!(answer.unwrap_err().contains("the editor false ended with"));
    }

    #[tokio::test]
    async fn nothing_is_written_over_what_somebody_else_wrote() {
        let mut looks = 0;
        let client = mock::client(move |method, _, _| {
            assert_eq!(method, "GET");
            looks += 1;
            (200, session(if looks == 1 { None } else { Some("[permissions]\nbob allow display\n") }))
        });
        let file = file(SHARED);
        let wanted = Wanted { session: "desk".into(), set: Some(file.path().to_owned()), ..Wanted::default() };
        let error = permissions(&client, "team", &wanted, &[]).await.unwrap_err();
        assert!(words(&error).contains("meanwhile"), "{error}");
    }

    #[tokio::test]
    async fn what_one_person_may_is_told() {
        let of = |name: &str| Wanted { user: Some(name.into()), ..Wanted::default() };
        let (answer, _) = run_on(Some(SHARED), of("bob"), &[]).await;
        assert_eq!(answer.unwrap().data, "display\n");
        let (answer, _) = run_on(Some(SHARED), of("cid"), &[]).await;
        let answer = answer.unwrap();
        assert!(answer.is_no && answer.talk == "cid is not let in\n", "{answer:?}");
    }
}
