//! What the documents tell readers to type does what they say: every block after `<!-- tested -->` is run as it stands, on the
//! instance of the tests instead of the default one.

use std::fs;

use e2e::Stand;
use e2e::stand::root;

/// The shell blocks of a Markdown text that claim to be tested.
fn tested_blocks(text: &str) -> Vec<&str> {
    let blocks = text.split("<!-- tested -->\n```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

#[tokio::test]
async fn the_commands_of_the_readme_work() {
    let stand = Stand::vnc().await;
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let blocks = tested_blocks(&readme);
    assert_eq!(blocks.len(), 2, "a session by kubectl, one by curl");
    for block in blocks {
        let script = block
            .replace("hack/cluster env", "hack/cluster env --name e2e-vnc")
            .replace("target/dev/env", "target/dev/e2e-vnc/env");
        assert_ne!(script, block, "it is for the default instance");
        let output = tokio::process::Command::new("timeout")
            .args(["60", "bash", "-euo", "pipefail", "-c", &script])
            .current_dir(root())
            .output()
            .await
            .expect("bash can be run");
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{printed}\n{complaints}");
        let shows_it = printed.contains("READY") || printed.contains("?authToken=");
        assert!(shows_it, "{script}\n{printed}\n{complaints}");
    }
    drop(stand);
}
