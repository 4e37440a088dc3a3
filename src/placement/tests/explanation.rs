//! What is said when no server fits.

use super::*;

fn explain(servers: &[DcvServer], sessions: &[DcvSession], wants: Value) -> String {
    place(&mut ledger(servers, sessions), &request(wants), PlacementPolicy::Spread).unwrap_err().to_string()
}

#[test]
fn it_counts_the_commonest_reason_first() {
    let closed = |name| server(name, json!({"spec": {"placement": "Closed"}}));
    let full =
        |name| server(name, json!({"spec": {"limits": {"maxVirtualSessions": 0}}, "status": {"tags": {"gpu": "a10"}}}));
    let servers = [full("1"), closed("2"), full("3"), server("o", json!({})), closed("4"), full("5"), full("6")];
    let wants = json!({"requirements": "tag:gpu = 'a10'"});
    let text = "0 of 7 servers fit: 4 full, 2 closed, 1 lacks tag:gpu = 'a10'";
    assert_eq!(explain(&servers, &[], wants.clone()), text);
    let explanation = place(&mut ledger(&servers, &[]), &request(wants), PlacementPolicy::Spread).unwrap_err();
    assert_eq!(explanation.class(), "closed, lacks tag:gpu = 'a10', full");
}

#[test]
fn servers_of_others_are_neither_counted_nor_named() {
    let theirs =
        server("o", json!({"spec": {"allowedNamespaces": {"matchLabels": {"team": "blue"}}, "placement": "Closed"}}));
    let full = server("f", json!({"spec": {"limits": {"maxVirtualSessions": 0}}}));
    assert_eq!(explain(&[theirs.clone(), full], &[], json!({})), "0 of 1 servers fit: 1 full");
    assert_eq!(explain(&[theirs], &[], json!({})), explain(&[], &[], json!({})));
    assert_eq!(explain(&[], &[], json!({})), "0 of 0 servers fit: there are none for namespace team");
}
