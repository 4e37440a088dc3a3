//! How long one placing decision takes, over fleets of several sizes.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::criterion_group;
use criterion::criterion_main;
use dcv_operator::api::DcvServer;
use dcv_operator::api::DcvSessionSpec;
use dcv_operator::api::session::PlacementPolicy;
use dcv_operator::placement::Candidate;
use dcv_operator::placement::Ledger;
use dcv_operator::placement::NewServers;
use dcv_operator::placement::Request;
use dcv_operator::placement::place;
use serde_json::json;

/// Every other server is full or closed, as on a busy fleet.
fn server(index: usize) -> DcvServer {
    serde_json::from_value(json!({
        "apiVersion": "dcv-operator.io/v1alpha1", "kind": "DcvServer",
        "metadata": {"name": format!("host-{index}"), "uid": format!("uid-{index}"), "labels": {"pool": "render"}},
        "spec": if index % 4 == 1 { json!({"placement": "Closed"}) } else { json!({}) },
        "status": {
            "availability": "AVAILABLE",
            "capacity": {
                "sessionTypes": ["VIRTUAL"],
                "maxVirtualSessions": if index % 4 == 3 { 0 } else { 8 },
                "maxConcurrentSessionsPerUser": 1,
            },
            "host": {"os": {"family": "linux"}},
        },
    }))
    .expect("the server is well-formed")
}

fn ledger(servers: usize) -> Ledger {
    let mut ledger = Ledger::default();
    for index in 0..servers {
        ledger.set_server(Candidate::of(&server(index), true, false, NewServers::Open));
    }
    ledger
}

fn decision(criterion: &mut Criterion) {
    let spec: DcvSessionSpec = serde_json::from_value(json!({
        "owner": "ann", "type": "VIRTUAL", "serverSelector": {"matchLabels": {"pool": "render"}},
    }))
    .expect("the session is well-formed");
    let request = Request::of(&spec, "demo", &BTreeMap::new()).expect("the session can be placed");
    let mut group = criterion.benchmark_group("decision");
    for servers in [100, 1_000, 10_000] {
        let ledger = ledger(servers);
        group.bench_with_input(BenchmarkId::from_parameter(servers), &ledger, |bencher, ledger| {
            bencher.iter(|| place(black_box(ledger), black_box(&request), PlacementPolicy::Spread));
        });
    }
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
