//! The command, as `docs/security.md` has it: what it prints and exits with, and that nothing of it stays.

use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use dcv_operator::isolation::Installation;
use dcv_operator::isolation::LABEL;
use dcv_operator::isolation::check_rights;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::Client;
use kube::api::ListParams;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Command;

use crate::cluster::bearer;
use crate::cluster::eventually;
use crate::cluster::in_namespace;
use crate::cluster::kubectl;
use crate::cluster::make_account;
use crate::cluster::request_token;
use crate::cluster::text;
use crate::stand::alone;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcv-operator"));
    command.arg("verify-isolation").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(arguments: &[&str]) -> Output {
    let output = tokio::time::timeout(Duration::from_mins(2), command(arguments).output());
    output.await.expect("the command ends").unwrap()
}

/// Waits until nothing carries the label.
async fn nothing_stays() {
    let kinds =
        "namespaces,dcvsessions,dcvservers,apiclients,leases,serviceaccounts,secrets,rolebindings,clusterrolebindings";
    eventually("nothing stays", async || {
        let left = kubectl(&format!("get {kinds} --all-namespaces --output name --selector {LABEL}"));
        left.status.success() && left.stdout.is_empty()
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn the_command_says_that_all_is_well_and_leaves_nothing() {
    let (_client, _alone) = alone().await;
    let output = run(&["--only", "agent in a pod: patch", "--output", "json"]).await;
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["wrong"], &report["failures"]), (&0.into(), &serde_json::json!([])));
    assert!(report["cases"].as_u64().unwrap() > 50);
    nothing_stays().await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn the_command_fails_when_something_is_not_as_the_rules_say() {
    let (_client, _alone) = alone().await;
    // Nobody has rights under this name.
    let output = run(&["--only", "broker: list", "--broker-account", "another"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let line = "WRONG  broker: list secrets, dcv-access-token-keys in the release namespace\n       is allowed by broker-reads-keys, and was refused";
    assert!(said.contains(line), "{said}");
    nothing_stays().await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_interrupted_command_leaves_nothing() {
    let (client, _alone) = alone().await;
    let child = command(&[]).spawn().unwrap();
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    eventually("it has begun", async || scratch_namespaces(&client).await > 0).await;
    kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    nothing_stays().await;
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn what_a_killed_command_leaves_is_cleaned_up() {
    let (client, _alone) = alone().await;
    let mut child = command(&[]).spawn().unwrap();
    eventually("it has begun", async || {
        kubectl(&format!("get dcvsessions --all-namespaces --output name --selector {LABEL}")).stdout.len() > 100
    })
    .await;
    child.kill().await.unwrap();
    assert!(scratch_namespaces(&client).await > 0);
    let output = run(&["--clean-up"]).await;
    assert!(output.status.success(), "{}", text(&output));
    nothing_stays().await;
}

async fn scratch_namespaces(client: &Client) -> usize {
    Api::<Namespace>::all(client.clone()).list(&ListParams::default().labels(LABEL)).await.unwrap().items.len()
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_caller_without_the_rights_is_told_which_are_missing() {
    let (_client, _alone) = alone().await;
    in_namespace("rights", async |admin, namespace| {
        make_account(&admin, &namespace, "somebody").await;
        let somebody = bearer(&request_token(&admin, &namespace, "somebody", None, None).await.unwrap()).await;
        let error = check_rights(&somebody, &Installation::default()).await.unwrap_err().to_string();
        for right in
            ["impersonate users", "impersonate groups system:masters", "create namespaces", "bind clusterroles edit"]
        {
            assert!(error.contains(right), "{error}");
        }
        check_rights(&admin, &Installation::default()).await.unwrap();
    })
    .await;
}
