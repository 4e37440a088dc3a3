//! What is said when no server fits.

use super::*;
use crate::requirement::Requirement;

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
    assert_eq!(explain(&servers, &[], wants), text);
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

#[test]
fn a_dead_end_is_named() {
    let linux = || server("l", json!({}));
    let windows = || server("w", json!({"status": {"host": {"os": {"family": "windows"}}}}));
    let requirement = |text: &str| json!({"requirements": text});
    for (wants, text) in [
        (
            requirement("tag:a = 1"),
            "2 servers fit: 1 without VIRTUAL sessions, 1 lacks tag:a = 1; none of them would fit even if it were open and empty",
        ),
        (
            requirement("server:Host.Os.Family = 'windows'"),
            "1 lacks server:Host.Os.Family = 'windows'; VIRTUAL sessions exist on Linux only, so no host can ever meet `server:Host.Os.Family = 'windows'`",
        ),
        (
            requirement("tag:b = 1 and tag:a = 'x' and tag:a = 'y'"),
            "1 lacks tag:b = 1; no host can ever meet both `tag:a = 'x'` and `tag:a = 'y'`",
        ),
        (
            json!({"type": "CONSOLE", "autorunFile": "a", "requirements": "server:Host.Os.Family = 'linux'"}),
            "; autorunFile does not exist in CONSOLE sessions on Linux, so no host can ever meet `server:Host.Os.Family = 'linux'`",
        ),
        // What comes and goes is no dead end.
        (requirement("server:VirtualSessionCount > 0"), "1 lacks server:VirtualSessionCount > 0"),
    ] {
        let said = explain(&[linux(), windows()], &[], wants);
        assert!(said.ends_with(text), "{said}");
    }
}

#[test]
fn a_report_proposes_the_least_change_first() {
    let with = |name: &str, tags: Value, over: Value| server(name, merged(json!({"status": {"tags": tags}}), &over));
    let full = json!({"spec": {"limits": {"maxVirtualSessions": 0}}});
    let closed = json!({"spec": {"placement": "Closed"}});
    let servers = [
        with("1", json!({"gpu": "a10", "pool": "x"}), full.clone()),
        with("2", json!({"gpu": "a10", "pool": "x"}), closed.clone()),
        with("3", json!({"gpu": "a10"}), json!({})),
        with("4", json!({"gpu": "a10", "pool": "y"}), json!({})),
        with("5", json!({}), json!({})),
        with("6", json!({"gpu": "a10"}), full),
    ];
    let wants = json!({"requirements": "tag:gpu = 'a10' and (tag:pool = 'x' or tag:pool = 'z')", "initFile": "a"});
    let report = super::explain(&ledger(&servers, &[]), &request(wants), PlacementPolicy::Spread);
    assert_eq!((&report.server_name, report.fitting, report.servers), (&None, 0, 6));
    assert_eq!(
        report.to_string(),
        "0 of 6 servers fit: 3 lack tag:pool = 'x' or tag:pool = 'z', 1 closed, 1 lacks tag:gpu = 'a10', 1 full\n\
         To get the one server: wait until a session on it ends\n\
         To get one of 2 servers: leave out the requirement tag:pool = 'x' or tag:pool = 'z'\n\
         To get the one server: have it opened by an administrator",
    );
    let json = serde_json::to_value(&report).unwrap();
    let dropped = json!({"change": "dropClause", "of": "tag:pool = 'x' or tag:pool = 'z'"});
    assert_eq!(json["proposals"][1], json!({"changes": [dropped], "servers": 2, "requirements": "tag:gpu = 'a10'"}));
    assert_eq!(json["reasons"][0], json!({"reason": "closed", "text": "closed", "servers": 1}));
    let fits = super::explain(
        &ledger(&servers, &[]),
        &request(json!({"requirements": "tag:pool = 'y'"})),
        PlacementPolicy::Spread,
    );
    assert!(fits.to_string().ends_with("\nIt would get server 4 now."), "{fits}");
    assert_eq!(fits.proposals, []);
}

#[test]
fn a_value_is_proposed_that_some_server_has() {
    let with = |name: &str, memory: i64, pool: &str| {
        let host = json!({"memory": {"totalBytes": memory, "usedBytes": 0}});
        server(name, json!({"status": {"host": host, "tags": {"pool": pool}}}))
    };
    let servers = [with("1", 8, "a"), with("2", 16, "a"), with("3", 32, "b"), with("4", 16, "a"), with("5", 16, "c")];
    let proposed = |text: &str| {
        let request = request(json!({"requirements": text}));
        let report = super::explain(&ledger(&servers, &[]), &request, PlacementPolicy::Spread);
        report.proposals.into_iter().map(|it| (it.to_string(), it.requirements.unwrap_or_default())).collect::<Vec<_>>()
    };
    let nearest = "To get one of 3 servers: require server:Host.Memory.TotalBytes >= 16 \
        instead of server:Host.Memory.TotalBytes > 20";
    let without = "To get one of 4 servers: leave out the requirement server:Host.Memory.TotalBytes > 20";
    assert_eq!(
        proposed("not tag:pool = 'b' and server:Host.Memory.TotalBytes > 20"),
        [
            (nearest.to_owned(), "not tag:pool = 'b' and server:Host.Memory.TotalBytes >= 16".to_owned()),
            (without.to_owned(), "not tag:pool = 'b'".to_owned()),
            (
                "To get the one server: leave out the requirement not tag:pool = 'b'".to_owned(),
                "server:Host.Memory.TotalBytes > 20".to_owned()
            ),
        ]
    );
    let (most, _) = &proposed("tag:pool = 'x'")[0];
    assert_eq!(most, "To get one of 3 servers: require tag:pool = 'a' instead of tag:pool = 'x'");
}

/// The request after a change that its owner can make; `None`: it is no such change.
fn changed(request: &Request, proposal: &Proposal) -> Option<Request> {
    let mut wants = Wants::clone(&request.wants);
    for change in &proposal.changes {
        match change {
            Change::DropClause(_) | Change::ReplaceClause { .. } => {}
            Change::DropSelector => wants.selector = Labels::default(),
            Change::DropGl => wants.gl = false,
            Change::DropAutorun => wants.autorun = false,
            Change::OtherType(type_) => wants.type_ = *type_,
            Change::WaitForRoom | Change::EndOwnSession | Change::Open | Change::Recover => return None,
        }
    }
    if let Some(text) = &proposal.requirements {
        wants.requirement = Requirement::parse(text, Dialect::Extended).unwrap().map(Arc::new);
    }
    Some(Request { wants: Arc::new(wants), ..request.clone() })
}

proptest! {
    #[test]
    fn a_proposed_change_lets_as_many_servers_fit_as_it_says(
        servers in proptest::collection::vec(index::any_server(), 1..6), bound_to in proptest::collection::vec(0..6_usize, 0..4),
    ) {
        let sessions: Vec<DcvSession> =
            bound_to.iter().enumerate().map(|(uid, at)| bound(&uid.to_string(), index::NAMES[*at], json!({}))).collect();
        let mut ledger = ledger(&servers, &sessions);
        for wants in [
            json!({"requirements": "tag:pool = 2 and server:VirtualSessionCount < 2 and label:pool = 'a'"}),
            json!({"requirements": "tag:pool = 1", "serverSelector": {"matchLabels": {"pool": "b"}}, "dcvGlEnabled": true}),
            json!({"requirements": "tag:pool = 2 or tag:pool = 3"}),
            json!({"requirements": "server:Host.CpuLoadAverage.OneMinute < 0 and server:Hostname = 'x'"}),
            json!({"requirements": "server:Host.CpuLoadAverage.OneMinute > 2"}),
            json!({"type": "CONSOLE", "autorunFile": "a", "requirements": "tag:pool = 1"}),
            json!({}),
        ] {
            let request = request(wants);
            let report = super::explain(&ledger, &request, PlacementPolicy::Spread);
            prop_assert_eq!(&report.server_name, &ledger.choose(&request, PlacementPolicy::Spread));
            for proposal in &report.proposals {
                prop_assert!(proposal.servers > 0);
                if let Some(request) = changed(&request, proposal) {
                    prop_assert_eq!(Explanation::of(&ledger, &request).fitting, proposal.servers, "{:?}", proposal);
                }
            }
        }
    }
}
