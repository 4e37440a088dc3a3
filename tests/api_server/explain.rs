//! `kubectl dcv explain`, for a person with the rights of one namespace.

use kube::api::DeleteParams;
use kube::api::PostParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::eventually;
use crate::cluster::in_namespace;
use crate::cluster::kubectl;
use crate::cluster::make_account;
use crate::cluster::object;
use crate::cluster::request_token;
use crate::cluster::servers;
use crate::cluster::sessions;
use crate::cluster::text;
use crate::cluster::unique;
use crate::cluster::write_status;
use crate::plugin::dcv;

/// A kubeconfig of whoever the token says.
fn kubeconfig(token: &str) -> tempfile::NamedTempFile {
    let mut config: Value =
        serde_json::from_slice(&kubectl("config view --raw --minify --flatten -o json").stdout).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    file
}

fn run(arguments: &str) {
    let output = kubectl(arguments);
    assert!(output.status.success(), "{arguments}: {}", text(&output));
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_person_is_told_which_right_is_missing_and_then_what_becomes_of_a_session() {
    in_namespace("explain", async |admin, namespace| {
        make_account(&admin, &namespace, "person").await;
        let token = request_token(&admin, &namespace, "person", None, None).await.unwrap();
        let config = kubeconfig(&token);
        let config = config.path().to_str().unwrap();
        let manifest = tempfile::NamedTempFile::new().unwrap();
        let session = |name: &str, pool: &str| {
            let spec = json!({"owner": "ann", "type": "VIRTUAL", "requirements": format!("tag:pool = '{pool}'")});
            object("DcvSession", name, spec)
        };
        let asked = session("asked", &namespace);
        std::fs::write(manifest.path(), serde_json::to_string(&asked).unwrap()).unwrap();
        let manifest = manifest.path().to_str().unwrap();
        let explain = |more: &[&str]| {
            dcv(&[&["explain", "--kubeconfig", config, "-n", &namespace, "-f", manifest], more].concat())
        };
        let until = async |words: &str| {
            eventually(words, async || explain(&[]).2.contains(words)).await;
        };

        let (code, out, talk) = explain(&[]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(talk.starts_with("error: explain needs the right to get namespaces: "), "{talk}");
        run(&format!("create role reader -n {namespace} --verb get,list --resource namespaces,dcvsessions"));
        run(&format!("create rolebinding reader -n {namespace} --role reader --serviceaccount {namespace}:person"));
        until("error: explain needs the right to list dcvservers: ").await;
        run(&format!("create clusterrole {namespace} --verb list --resource dcvservers"));
        run(&format!(
            "create clusterrolebinding {namespace} --clusterrole {namespace} --serviceaccount {namespace}:person"
        ));
        until("you may not list dcvsessions in all namespaces").await;

        // Other tests have servers too; only this one has the tag.
        let server = unique("host-explain");
        let api = servers(&admin);
        api.create(&PostParams::default(), &object("DcvServer", &server, json!({}))).await.unwrap();
        let status = json!({
            "availability": "AVAILABLE", "tags": {"pool": namespace}, "host": {"os": {"family": "linux"}},
            "capacity": {"sessionTypes": ["VIRTUAL"], "maxVirtualSessions": 1, "maxConcurrentSessionsPerUser": -1},
        });
        write_status(&api, &server, status).await.unwrap();
        let (code, out, talk) = explain(&["-o", "json"]);
        let data: Value = serde_json::from_str(&out).unwrap();
        let item = &data["items"][0];
        assert_eq!((code, &item["report"]["serverName"]), (Some(0), &json!(server)), "{out} {talk}");
        assert_eq!((&item["name"], &item["fits"]), (&json!("asked"), &json!(true)));
        let left = sessions(&admin, &namespace).list(&kube::api::ListParams::default()).await.unwrap();
        assert_eq!(left.items.len(), 0, "nothing was applied");

        // One that waits, with a server that reports itself full.
        write_status(&api, &server, json!({"virtualSessionCount": 1})).await.unwrap();
        sessions(&admin, &namespace).create(&PostParams::default(), &session("waits", &namespace)).await.unwrap();
        let (code, out, _) = dcv(&["explain", "waits", "--kubeconfig", config, "-n", &namespace]);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.starts_with(&format!("{namespace}/waits: CREATING\n0 of ")), "{out}");
        assert!(out.contains("wait until a session on it ends"), "{out}");

        api.delete(&server, &DeleteParams::default()).await.unwrap();
        run(&format!("delete clusterrolebinding/{namespace} clusterrole/{namespace}"));
    })
    .await;
}
