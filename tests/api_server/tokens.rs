//! How a host outside the cluster renews its token, and how it is shut out.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::DeleteParams;
use kube::api::ListParams;

use crate::cluster::HOSTS;
use crate::cluster::SYSTEM;
use crate::cluster::Verdict::Allowed;
use crate::cluster::Verdict::Refused;
use crate::cluster::Verdicts;
use crate::cluster::admin;
use crate::cluster::bearer;
use crate::cluster::eventually;
use crate::cluster::make_account;
use crate::cluster::request_token;
use crate::cluster::servers;
use crate::cluster::unique;

/// Takes an account of a host and its Secret away.
pub async fn remove_account(name: &str) {
    let client = admin().await;
    let now = DeleteParams::default();
    Api::<Secret>::namespaced(client.clone(), HOSTS).delete(name, &now).await.ok();
    Api::<ServiceAccount>::namespaced(client, HOSTS).delete(name, &now).await.unwrap();
}

const TEN_YEARS: i64 = 10 * 365 * 86_400;

#[tokio::test]
#[ignore = "needs an API server"]
async fn a_host_renews_only_its_own_token_for_a_day_bound_to_its_secret() {
    let admin = admin().await;
    let (me, other) = (unique("host-test"), unique("host-other"));
    for account in [&me, &other] {
        make_account(&admin, HOSTS, account).await;
    }
    let first = request_token(&admin, HOSTS, &me, Some(("Secret", &me)), None).await.unwrap();
    let client = bearer(&first).await;
    let mine = Some(("Secret", me.as_str()));
    let foreign = Refused("a host may ask for tokens of its own account only");
    let too_long = Refused("a host may ask for a token of at most 86400 seconds");
    let unbound = Refused("a host's token must be bound to the Secret named like its account");
    let cases = [
        (HOSTS, me.as_str(), mine, Some(86_400), Allowed),
        (HOSTS, &me, mine, Some(3600), Allowed),
        (HOSTS, &me, mine, None, Allowed),
        (HOSTS, &me, mine, Some(86_401), too_long),
        (HOSTS, &me, mine, Some(TEN_YEARS), too_long),
        (HOSTS, &me, None, Some(3600), unbound),
        (HOSTS, &me, Some(("Secret", other.as_str())), Some(3600), unbound),
        (HOSTS, &other, Some(("Secret", other.as_str())), Some(3600), foreign),
        (HOSTS, &other, mine, Some(3600), foreign),
        (HOSTS, "default", mine, Some(3600), foreign),
        (SYSTEM, "dcv-controller", None, Some(3600), Refused("is forbidden: User")),
        (SYSTEM, "dcv-agent", mine, Some(3600), Refused("is forbidden: User")),
    ];
    let mut verdicts = Verdicts::default();
    for (namespace, account, bound, seconds, verdict) in cases {
        let case = format!("{namespace}/{account} {bound:?} {seconds:?}");
        verdicts.judge(case, request_token(&client, namespace, account, bound, seconds).await, verdict);
    }
    verdicts.finish();

    // A renewed token is as good as the first, until its Secret is gone.
    let renewed = bearer(&request_token(&client, HOSTS, &me, mine, Some(3600)).await.unwrap()).await;
    servers(&renewed).list(&ListParams::default()).await.unwrap();
    Api::<Secret>::namespaced(admin.clone(), HOSTS).delete(&me, &DeleteParams::default()).await.unwrap();
    eventually("the tokens are worth nothing", async || {
        let refused = async |client| {
            servers(client)
                .list(&ListParams::default())
                .await
                .err()
                .is_some_and(|error| matches!(&error, kube::Error::Api(status) if status.code == 401))
        };
        refused(&client).await && refused(&renewed).await
    })
    .await;
    for account in [&me, &other] {
        remove_account(account).await;
    }
}

#[tokio::test]
#[ignore = "needs an API server"]
async fn an_account_that_is_no_hosts_renews_no_token() {
    let admin = admin().await;
    let name = unique("test-account");
    make_account(&admin, HOSTS, &name).await;
    let secret = Some(("Secret", name.as_str()));
    let client = bearer(&request_token(&admin, HOSTS, &name, secret, None).await.unwrap()).await;
    let mut verdicts = Verdicts::default();
    let refused = Refused("a host may ask for tokens of its own account only");
    verdicts.judge("its own", request_token(&client, HOSTS, &name, secret, Some(3600)).await, refused);
    verdicts.finish();
    remove_account(&name).await;
}
