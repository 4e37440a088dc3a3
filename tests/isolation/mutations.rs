//! The matrix is green on what is installed, and each validation of each policy and each verb of each role is needed: without
//! it some case differs.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;
use std::time::Instant;

use dcv_operator::isolation::Installation;
use dcv_operator::isolation::Matrix;
use dcv_operator::isolation::Outcome;
use dcv_operator::isolation::Refuser;
use dcv_operator::isolation::Report;
use dcv_operator::isolation::Verdict;
use dcv_operator::isolation::actor::Actor;
use dcv_operator::isolation::case::Case;
use dcv_operator::isolation::case::Target;
use dcv_operator::isolation::generate;
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::Client;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::api::ListParams;
use kube::api::Patch;
use kube::api::PatchParams;
use serde_json::Value;
use serde_json::json;

use crate::cluster::kubectl;
use crate::cluster::text;
use crate::stand::alone;
use crate::stand::with_matrix;

/// How long the API server may take to act by a changed policy or role.
const NOTICED: Duration = Duration::from_secs(15);
/// What our manifests carry.
const OURS: &str = "app.kubernetes.io/part-of=dcv-operator";

#[tokio::test]
#[ignore = "needs an API server"]
async fn what_is_installed_does_what_the_rules_say_and_every_part_of_it_is_needed() {
    let (client, _alone) = alone().await;
    with_matrix(client.clone(), async |matrix| {
        let verdicts = matrix.judge_patiently(&generate::cases(&Installation::default())).await;
        let report = Report::of(&verdicts);
        assert!(report.is_good(), "\n{}", report.text());
        let absent: Vec<_> = verdicts.iter().filter(|verdict| verdict.outcome == Outcome::Absent).collect();
        assert!(absent.is_empty(), "{} cases were left out, such as {}", absent.len(), absent[0].case);

        // Side by side: a verb that is away for a moment only delays what a policy lets through, and the other way round.
        let policies = without_each_validation(&client, &matrix, &verdicts);
        let rights = without_each_verb(&client, &matrix, &verdicts);
        let (policies, rights) = futures::join!(policies, rights);
        let restored = kubectl("apply --server-side --force-conflicts -f config/rbac -f config/policy");
        assert!(restored.status.success(), "{}", text(&restored));
        let unnoticed = [policies, rights].concat();
        assert!(unnoticed.is_empty(), "no case differs without\n{}", unnoticed.join("\n"));

        // All is back as it was.
        let asked: Vec<_> =
            verdicts.iter().filter(|verdict| was_refused_by_policy(verdict)).map(|it| it.case).collect();
        let report = Report::of(&matrix.judge_patiently(&asked).await);
        assert!(report.is_good(), "\n{}", report.text());
    })
    .await;
}

fn was_refused_by_policy(verdict: &Verdict) -> bool {
    matches!(&verdict.outcome, Outcome::Refused { by: Refuser::Policy(_), .. })
}

/// Puts `true` in place of each validation in turn, policies side by side, and tells which nobody missed.
async fn without_each_validation(client: &Client, matrix: &Matrix, verdicts: &[Verdict]) -> Vec<String> {
    let api = Api::<ValidatingAdmissionPolicy>::all(client.clone());
    let policies = api.list(&ListParams::default().labels(OURS)).await.unwrap().items;
    assert!(policies.len() >= 12, "{}", policies.len());
    let found = policies.iter().map(async |policy| {
        let name = policy.name_any();
        let validations = serde_json::to_value(policy.spec.as_ref().unwrap().validations.as_ref().unwrap()).unwrap();
        let mut unnoticed = Vec::new();
        for at in 0..validations.as_array().unwrap().len() {
            let mut changed = validations.clone();
            changed[at]["expression"] = json!("true");
            let cases = guarded_by(verdicts, &name, &validations[at]);
            let patch = Patch::Merge(json!({"spec": {"validations": changed}}));
            api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            if !is_noticed(matrix, &cases, |outcome| *outcome == Outcome::Allowed).await {
                unnoticed.push(format!("validation {at} of policy {name}: {}", validations[at]["message"]));
            }
        }
        let patch = Patch::Merge(json!({"spec": {"validations": validations}}));
        api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        unnoticed
    });
    join_all(found).await.concat()
}

/// Cases that a validation refused, one of each sort.
fn guarded_by(verdicts: &[Verdict], policy: &str, validation: &Value) -> Vec<Case> {
    let message = validation["message"].as_str().unwrap();
    let makes_its_message = validation["messageExpression"].is_string();
    let mut sorts = HashSet::new();
    let refused = verdicts.iter().filter(|verdict| match &verdict.outcome {
        Outcome::Refused { by: Refuser::Policy(by), said } => {
            by == policy && (makes_its_message || said.contains(message))
        }
        _ => false,
    });
    let one_of_a_sort = refused.filter(|Verdict { case, .. }| {
        sorts.insert((case.actor, case.verb, case.target.resource, case.target.place, case.change))
    });
    one_of_a_sort.map(|verdict| verdict.case).collect()
}

/// Takes each verb on each resource out of each role in turn, roles side by side, and tells which nobody missed.
async fn without_each_verb(client: &Client, matrix: &Matrix, verdicts: &[Verdict]) -> Vec<String> {
    let ours = ListParams::default().labels(OURS);
    let mut found = Vec::new();
    for role in Api::<ClusterRole>::all(client.clone()).list(&ours).await.unwrap().items {
        let rules = serde_json::to_value(&role.rules).unwrap();
        found.push(without_each_verb_of(roles::<ClusterRole>(client, None), role.name_any(), rules, matrix, verdicts));
    }
    for role in Api::<Role>::all(client.clone()).list(&ours).await.unwrap().items {
        let (rules, namespace) = (serde_json::to_value(&role.rules).unwrap(), role.namespace());
        found.push(without_each_verb_of(roles::<Role>(client, namespace), role.name_any(), rules, matrix, verdicts));
    }
    assert!(found.len() >= 10, "{}", found.len());
    join_all(found).await.concat()
}

fn roles<K: kube::Resource<DynamicType = ()>>(client: &Client, namespace: Option<String>) -> Api<DynamicObject> {
    let kind = kube::api::ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

async fn without_each_verb_of(
    api: Api<DynamicObject>,
    name: String,
    rules: Value,
    matrix: &Matrix,
    verdicts: &[Verdict],
) -> Vec<String> {
    let mut unnoticed = Vec::new();
    for Less { resource, verb, names, rules: changed } in without_one(&rules) {
        let cases = allowed_by(verdicts, &name, &resource, &verb, &names);
        let patch = Patch::Merge(json!({"rules": changed}));
        api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        if !is_noticed(matrix, &cases, |outcome| matches!(outcome, Outcome::Refused { by: Refuser::Rights, .. })).await
        {
            unnoticed.push(format!("{verb} {resource} {names:?} of role {name}"));
        }
    }
    api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"rules": rules}))).await.unwrap();
    unnoticed
}

/// The rules of a role without one verb on one resource.
struct Less {
    resource: String,
    verb: String,
    /// The names that the verb was limited to; none: it was not.
    names: Vec<String>,
    rules: Vec<Value>,
}

/// The rules without one verb on one resource, in every way.
fn without_one(rules: &Value) -> Vec<Less> {
    let rules = rules.as_array().unwrap();
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut all = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                let part = |resources: Vec<String>, verbs: Vec<String>| {
                    let mut part = rule.clone();
                    (part["resources"], part["verbs"]) = (json!(resources), json!(verbs));
                    (!resources.is_empty() && !verbs.is_empty()).then_some(part)
                };
                let others = texts(&rule["resources"]).into_iter().filter(|other| *other != resource).collect();
                let less = texts(&rule["verbs"]).into_iter().filter(|other| *other != verb).collect();
                let rest = rules.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, rule)| rule.clone());
                let parts = part(others, texts(&rule["verbs"])).into_iter().chain(part(vec![resource.clone()], less));
                let names = texts(&rule["resourceNames"]);
                let rules = rest.chain(parts).collect();
                all.push(Less { resource: resource.clone(), verb: verb.clone(), names, rules });
            }
        }
    }
    all
}

/// Cases of those who have a role that were allowed with a verb on a resource, of these names, one of each sort.
fn allowed_by(verdicts: &[Verdict], role: &str, resource: &str, verb: &str, names: &[String]) -> Vec<Case> {
    let actors = actors_of(role);
    let mut sorts = BTreeMap::new();
    for Verdict { case, outcome, .. } in verdicts {
        let Target { resource: asked, .. } = case.target;
        let is_same = (asked.plural(), asked.subresource()) == resource.split_once('/').unwrap_or((resource, ""));
        let is_of_role = actors.contains(&case.actor) && *outcome == Outcome::Allowed;
        let is_named = names.is_empty() || names.iter().any(|name| case.to_string().contains(&format!(", {name} ")));
        if is_of_role && is_same && is_named && case.verb.name() == verb {
            sorts.entry((case.actor, format!("{:?}", case.target))).or_insert(*case);
        }
    }
    sorts.into_values().collect()
}

/// Who has a role, by the end of its name.
fn actors_of(role: &str) -> &'static [Actor] {
    match role.rsplit('-').next().unwrap() {
        "agent" => &[Actor::PodAgent, Actor::HostAgent],
        "host" => &[Actor::HostAgent],
        "broker" => &[Actor::Broker],
        "controller" => &[Actor::Controller],
        "view" => &[Actor::TenantViewer, Actor::ClusterViewer],
        "edit" => &[Actor::TenantUser],
        "admin" => &[Actor::TenantAdmin],
        other => panic!("nobody is known to have the role {other}"),
    }
}

/// Whether what is looked for comes of one of the cases before long. That is also how it is known that a change has come into
/// force.
async fn is_noticed(matrix: &Matrix, cases: &[Case], sign: fn(&Outcome) -> bool) -> bool {
    let start = Instant::now();
    while !cases.is_empty() && start.elapsed() < NOTICED {
        if matrix.judge(cases).await.iter().any(|verdict| sign(&verdict.outcome)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[test]
fn one_verb_on_one_resource_is_taken_out_at_a_time() {
    let rules = json!([{"apiGroups": [""], "resources": ["a", "b"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["c"], "verbs": ["get"]}]);
    let all = without_one(&rules);
    assert_eq!(all.len(), 5);
    assert_eq!((all[0].resource.as_str(), all[0].verb.as_str()), ("a", "get"));
    assert_eq!(
        json!(all[0].rules),
        json!([{"apiGroups": [""], "resources": ["c"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["b"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["a"], "verbs": ["list"]}])
    );
    assert_eq!(json!(all[4].rules), json!([{"apiGroups": [""], "resources": ["a", "b"], "verbs": ["get", "list"]}]));
}
