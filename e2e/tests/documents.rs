//! What the documents tell readers to type does what they say: every block after `<!-- tested -->` is run as it stands, on the
//! instance of the tests instead of the default one.

use std::fs;

use e2e::Stand;
use e2e::stand::root;
use serde_json::Value;

/// A shell block of a Markdown text that claims to be tested.
struct Block<'a> {
    script: &'a str,
    /// What the text shows as its answer.
    answer: Option<Value>,
}

fn tested_blocks(text: &str) -> Vec<Block<'_>> {
    let blocks = text.split("<!-- tested -->\n```sh\n").skip(1);
    blocks
        .map(|rest| {
            let (script, rest) = rest.split_once("```\n").expect("a block has an end");
            let json = rest.strip_prefix("\n```json\n").and_then(|json| json.split("```").next());
            let answer = json.map(|json| serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}")));
            Block { script, answer }
        })
        .collect()
}

/// Runs a script for the default instance on that of the tests: what it printed, and what it complained of.
async fn run(script: &str) -> (String, String) {
    let script = script
        .replace("hack/cluster env", "hack/cluster env --name e2e-vnc")
        .replace("target/dev/env", "target/dev/e2e-vnc/env");
    assert!(script.contains("e2e-vnc"), "it is not for the default instance: {script}");
    let output = tokio::process::Command::new("timeout")
        .args(["60", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(root())
        .output()
        .await
        .expect("bash can be run");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{printed}\n{complaints}");
    (printed, complaints)
}

/// What of `shown` is not in `found`: properties, types, and words in capitals. Of lists the first entry counts.
fn missing(shown: &Value, found: &Value, place: &str) -> Vec<String> {
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match (shown, found) {
        (Value::Object(shown), Value::Object(found)) => {
            let of = |(key, value): (&String, &Value)| {
                missing(value, found.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"))
            };
            shown.iter().flat_map(of).collect()
        }
        (Value::Array(shown), Value::Array(found)) => match (shown.first(), found.first()) {
            (None, _) => Vec::new(),
            (Some(shown), found) => missing(shown, found.unwrap_or(&Value::Null), &format!("{place}[0]")),
        },
        (Value::String(word), found) if is_word(word) && found != shown => {
            vec![format!("{place}: not {word}: {found}")]
        }
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => Vec::new(),
        (shown, found) if shown == found => Vec::new(),
        (shown, found) => vec![format!("{place}: {shown} is shown, {found} found")],
    }
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    let stand = Stand::vnc().await;
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let blocks = tested_blocks(&readme);
    assert_eq!(blocks.len(), 2, "a session by kubectl, one by curl");
    for Block { script, .. } in blocks {
        let (printed, complaints) = run(script).await;
        let shows_it = printed.contains("READY") || printed.contains("?authToken=");
        assert!(shows_it, "{script}\n{printed}\n{complaints}");
    }
    drop(stand);
}

#[tokio::test]
async fn the_calls_of_the_rest_reference_answer_what_it_shows() {
    let stand = Stand::vnc().await;
    let page = fs::read_to_string(root().join("docs/rest-api.md")).expect("there is a reference");
    let blocks = tested_blocks(&page);
    // One terminal session, with a separator between the blocks.
    let scripts: Vec<_> = blocks.iter().map(|block| block.script).collect();
    let (printed, complaints) = run(&scripts.join("\nprintf '\\036'\n")).await;
    let answers: Vec<_> = printed.split('\u{1e}').collect();
    assert_eq!(answers.len(), blocks.len(), "{printed}\n{complaints}");
    let mut compared = 0;
    for (block, printed) in blocks.iter().zip(answers) {
        if let Some(shown) = &block.answer {
            let found: Value = serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
            assert_eq!(missing(shown, &found, ""), Vec::<String>::new(), "{}\n{printed}", block.script);
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} answers are shown");
    drop(stand);
}
