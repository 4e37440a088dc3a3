//! `kubectl dcv`, as a person runs it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::Digest;
use sha2::Sha256;

use crate::cluster::api_clients;
use crate::cluster::in_namespace;
use crate::cluster::unique;

/// Exit code, stdout and stderr of `kubectl dcv` with these words, by kubectl itself.
pub fn dcv(words: &[&str]) -> (Option<i32>, String, String) {
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-dcv")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([plugin.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let output = Command::new("kubectl").arg("dcv").args(words).env("PATH", path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_client_is_registered_listed_and_unregistered() {
    in_namespace("plugin", async |client, namespace| {
        let api = api_clients(&client, &namespace);
        let (code, out, talk) = dcv(&[
            "clients",
            "register",
            "portal",
            "-n",
            &namespace,
            "--display-name",
            "A portal",
            "--manage-servers",
            "--token-lifetime-seconds",
            "600",
        ]);
        assert_eq!(code, Some(0), "{talk}");
        let stored = api.get("portal").await.unwrap();
        let id = stored.metadata.uid.clone().unwrap();
        let password =
            out.strip_prefix(&format!("client-id: {id}\nclient-password: ")).unwrap().strip_suffix('\n').unwrap();
        assert!(password.len() >= 43 && !password.contains(char::is_whitespace), "{out}");
        assert!(!talk.contains(password), "the password is data, not talk");
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(password)));
        assert_eq!(
            stored.data["spec"],
            serde_json::json!({
                "displayName": "A portal", "credentials": [{"hash": hash}], "manageServers": true,
                "tokenLifetimeSeconds": 600, "allNamespaces": false, "suspended": false,
            })
        );

        let own_id = unique("own");
        let (code, out, _) =
            dcv(&["clients", "register", "named", "-n", &namespace, "--client-id", &own_id, "-o", "json"]);
        let credentials: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &credentials["clientId"]), (Some(0), &Value::from(own_id.clone())));

        let (_, out, _) = dcv(&["clients", "list", "-n", &namespace]);
        let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["NAME", "CLIENT-ID", "DISPLAY-NAME", "READY", "REASON", "AGE"]);
        assert_eq!((words[1][0], words[2][0], words.len()), ("named", "portal", 3));
        let (_, out, _) = dcv(&["clients", "list", "-A"]);
        assert!(out.starts_with("NAMESPACE") && out.contains(&namespace), "{out}");
        let (_, out, _) = dcv(&["clients", "list", "-n", &namespace, "-o", "name"]);
        assert_eq!(out, "apiclient.dcv-operator.io/named\napiclient.dcv-operator.io/portal\n");

        let (code, out, _) = dcv(&["clients", "unregister", "-n", &namespace, "--client-id", &own_id]);
        let said = format!("apiclient.dcv-operator.io \"named\" deleted from {namespace} namespace\n");
        assert_eq!((code, out), (Some(0), said));
        let (code, _, _) = dcv(&["clients", "unregister", "portal", "-n", &namespace]);
        assert_eq!(code, Some(0));
        let (code, out, talk) = dcv(&["clients", "list", "-n", &namespace]);
        assert_eq!(
            (code, out, talk),
            (Some(0), String::new(), format!("No resources found in {namespace} namespace.\n"))
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn errors_are_kubectls_and_so_are_exit_codes() {
    in_namespace("plugin-errors", async |_, namespace| {
        let register = ["clients", "register", "portal", "-n", &namespace];
        assert_eq!(dcv(&register).0, Some(0));
        let cases: [(&[&str], i32, &str); 6] = [
            (&register, 1, "Error from server (AlreadyExists): apiclients.dcv-operator.io \"portal\" already exists\n"),
            (
                &["clients", "unregister", "other", "-n", &namespace],
                1,
                "Error from server (NotFound): apiclients.dcv-operator.io \"other\" not found\n",
            ),
            (
                &["clients", "register", "a", "-n", &namespace, "--client-id", "a b"],
                1,
                "The ApiClient \"a\" is invalid: spec.clientId: Invalid value: \"a b\": spec.clientId in body should match \
                 '^[A-Za-z0-9._-]+$'\n",
            ),
            (&["clients", "list", "--context", "nowhere"], 1, "error: cannot read the kubeconfig: "),
            (&["clients", "list", "--kubeconfig", "/nowhere"], 1, "error: cannot read the kubeconfig: "),
            (&["clients", "register"], 2, "error: the following required arguments were not provided"),
        ];
        for (words, code, start) in cases {
            let (got, out, talk) = dcv(words);
            assert_eq!((got, out.as_str()), (Some(code), ""), "{words:?}: {talk}");
            assert!(talk.starts_with(start), "{words:?}: {talk}");
        }
    })
    .await;
}
