//! Whether the caller may do what the matrix takes, asked before anything is made.

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReviewSpec;
use kube::Api;
use kube::Client;
use kube::api::PostParams;

use super::Error;
use super::Installation;
use super::actor::MASTERS;

/// Verb, group, resource with subresource, namespace, name.
type Right<'a> = (&'static str, &'static str, &'static str, &'a str, &'a str);

/// Fails when the caller lacks a right, and names all it lacks.
///
/// # Errors
/// [`Error::Rights`], or when the API server does not answer.
pub async fn check_rights(client: &Client, installation: &Installation) -> Result<(), Error> {
    let mut missing = Vec::new();
    for right in rights(installation) {
        if !has(client, right).await? {
            missing.push(sentence(right));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::Rights(missing)) }
}

fn rights(installation: &Installation) -> Vec<Right<'_>> {
    let Installation { namespace, agent_namespace, hosts_namespace, view_role, edit_role, admin_role, .. } =
        installation;
    let ours = "dcv-operator.io";
    let rbac = "rbac.authorization.k8s.io";
    let mut rights = vec![
        ("impersonate", "", "users", "", ""),
        ("impersonate", "", "groups", "", MASTERS),
        ("impersonate", "", "groups", "", "system:authenticated"),
        ("impersonate", "authentication.k8s.io", "userextras/authentication.kubernetes.io/node-name", "", ""),
        ("create", "authorization.k8s.io", "subjectaccessreviews", "", ""),
        ("create", rbac, "clusterrolebindings", "", ""),
        ("create", rbac, "rolebindings", "", ""),
    ];
    rights.extend([namespace, agent_namespace, hosts_namespace].map(|place| {
        let right: Right = ("impersonate", "", "serviceaccounts", place, "");
        right
    }));
    rights.extend([view_role, edit_role, admin_role].map(|role| {
        let right: Right = ("bind", rbac, "clusterroles", "", role);
        right
    }));
    let made: [(&str, &str, &str); 7] = [
        ("", "namespaces", ""),
        (ours, "dcvsessions", ""),
        (ours, "dcvservers", ""),
        (ours, "apiclients", ""),
        ("coordination.k8s.io", "leases", namespace),
        ("", "serviceaccounts", hosts_namespace),
        ("", "secrets", hosts_namespace),
    ];
    for (group, resource, place) in made {
        rights.extend(["create", "list", "delete"].map(|verb| (verb, group, resource, place, "")));
    }
    rights.extend(["dcvsessions", "dcvsessions/status"].map(|resource| {
        let right: Right = ("patch", ours, resource, "", "");
        right
    }));
    rights
}

async fn has(client: &Client, right: Right<'_>) -> Result<bool, Error> {
    let (verb, group, resource, namespace, name) = right;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        group: filled(group),
        resource: Some(resource.to_owned()),
        subresource: filled(subresource),
        namespace: filled(namespace),
        name: filled(name),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let answer =
        reviews.create(&PostParams::default(), &review).await.map_err(Error::api("ask for", "the caller's rights"))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn sentence((verb, group, resource, namespace, name): Right<'_>) -> String {
    let group = if group.is_empty() { String::new() } else { format!(" of {group}") };
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
    format!("{verb} {resource}{name}{group}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_said_as_one_would_grant_it() {
        assert_eq!(sentence(("impersonate", "", "groups", "", MASTERS)), "impersonate groups system:masters");
        let lease = ("create", "coordination.k8s.io", "leases", "dcv-system", "");
        assert_eq!(sentence(lease), "create leases of coordination.k8s.io in namespace dcv-system");
    }
}
