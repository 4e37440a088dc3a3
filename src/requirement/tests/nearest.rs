//! Clauses with the value that a host has.

use super::*;

#[test]
fn the_nearest_clause_is_one_that_the_host_meets() {
    let host = Host::default()
        .tag("gpu", "o'k")
        .tag("ram", "16")
        .number(Property::HostMemoryTotalBytes, 34_359_738_368.0)
        .number(Property::HostCpuLoadAverageOneMinute, 0.25)
        .texts(Property::HostGpusModelName, &["T4", "A10"]);
    for (asked, nearest, distance) in [
        ("server:Host.Memory.TotalBytes >= 64E9", "server:Host.Memory.TotalBytes >= 34359738368", 29_640_261_632.0),
        ("server:Host.Memory.TotalBytes > 64E9", "server:Host.Memory.TotalBytes >= 34359738368", 29_640_261_632.0),
        ("server:Host.Memory.TotalBytes = 64E9", "server:Host.Memory.TotalBytes = 34359738368", 29_640_261_632.0),
        ("server:Host.CpuLoadAverage.OneMinute < 0.125", "server:Host.CpuLoadAverage.OneMinute <= 0.25", 0.125),
        ("tag:ram > 20", "tag:ram >= '16'", 4.0),
        ("tag:gpu = 'a10'", "tag:gpu = 'o''k'", 0.0),
        ("server:Host.Gpus.ModelName = 'L4'", "server:Host.Gpus.ModelName = 'T4'", 0.0),
    ] {
        let found = parse(asked).clauses()[0].nearest(&host).expect(asked);
        assert_eq!((found.clause.to_string(), found.distance), (nearest.to_owned(), distance), "{asked}");
        assert!(found.clause.matches(&host) && host.meets(nearest), "{asked}");
    }
}

#[test]
fn there_is_none_where_another_value_would_say_nothing() {
    let host = Host::default().tag("gpu", "a10");
    for asked in [
        "tag:pool = 'x'",
        "tag:gpu > 4",
        "tag:gpu != 'a10'",
        "tag:gpu := 'b'",
        "not tag:gpu = 'a10'",
        "tag:gpu = 'b' or tag:gpu = 'c'",
    ] {
        assert_eq!(parse(asked).clauses()[0].nearest(&host), None, "{asked}");
    }
}
