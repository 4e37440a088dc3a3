//! `DescribeServers`.

use super::*;

#[tokio::test]
async fn servers_are_those_the_client_may_use_with_counts_of_all_tenants() {
    let mut broker = Broker::new(Rules::default()).await;
    let other = json!({"id": "console", "owner": "bob", "type": "VIRTUAL", "origin": "Manual"});
    broker.put_server(
        "s1",
        json!({}),
        json!({"virtualSessionCount": 0, "otherSessions": [other],
        "host": {"os": {"family": "linux"}, "aws": {"region": "eu", "ec2InstanceType": "t2"},
            "loggedInUsers": ["bob"], "cpuLoadAverage": {"oneMinute": 0.1, "fiveMinutes": 1, "fifteenMinutes": 2.5}}}),
    );
    broker.put_server("s2", json!({"allowedNamespaces": {"matchLabels": {"team": "blue"}}}), json!({}));
    let lost = json!({"availability": "UNAVAILABLE", "unavailabilityReason": "UNREACHABLE_AGENT",
        "conditions": [{"type": "AgentConnected", "status": "False", "reason": "LeaseExpired", "message": "",
            "lastTransitionTime": "2026-11-21T09:00:00Z"}]});
    broker.put_server("s3", json!({}), lost);
    let mut foreign = ready_on("s1");
    merge(&mut foreign, json!({"metadata": {"namespace": "blue"}}));
    broker.put_session("a", foreign);

    let answer = broker.ask("/describeServers", json!({})).await;
    let expected = json!([{
        "Id": "uid-s1", "Ip": "10.0.0.1", "Hostname": "s1", "Port": "8444", "Endpoints": [], "WebUrlPath": "/",
        "Availability": "UNAVAILABLE", "UnavailabilityReason": "SERVER_FULL",
        "ConsoleSessionCount": 0, "VirtualSessionCount": 2,
        "Host": {"Os": {"Family": "linux"}, "Aws": {"Region": "eu", "EC2InstanceType": "t2"},
            "CpuLoadAverage": {"OneMinute": 0.1, "FiveMinutes": 1.0, "FifteenMinutes": 2.5},
            "Gpus": [], "LoggedInUsers": [{"Username": "bob"}]},
        "Tags": [{"Key": "pool", "Value": "s1"}],
    }]);
    // Compared as text: the wire's floats are short ones.
    assert_eq!(answer["Servers"].to_string(), expected.to_string());
    assert!(answer["RequestId"].is_string());

    let names = |answer: &Value| -> Vec<String> {
        let servers = answer["Servers"].as_array().unwrap();
        servers.iter().map(|server| server["Hostname"].as_str().unwrap().to_owned()).collect()
    };
    broker.token = broker.log_in("blue", json!({})).await;
    assert_eq!(names(&broker.ask("/describeServers", json!({"ServerIds": []})).await), ["s1", "s2"]);
    let wanted = json!({"ServerIds": ["uid-s2", "x"]});
    assert_eq!(names(&broker.ask("/describeServers", wanted).await), ["s2"]);
    let first = broker.ask("/describeServers", json!({"MaxResults": 1})).await;
    assert_eq!(names(&first), ["s1"]);
    let rest = json!({"MaxResults": 1, "NextToken": first["NextToken"]});
    let second = broker.ask("/describeServers", rest).await;
    assert_eq!((names(&second), second.get("NextToken")), (vec!["s2".to_owned()], None));
}
