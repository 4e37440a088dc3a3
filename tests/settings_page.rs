//! `docs/moving-from-dcv-broker.md` tells of every setting and command of a DCV broker, and names only what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use dcv_operator::cli::Cli;

/// The settings of a DCV broker.
///
/// Source: "Broker configuration file" in the Amazon DCV Session Manager Administrator Guide, and the file it ships with.
const SETTINGS: &str = "
    broker-java-home session-manager-working-path
    session-screenshot-max-width session-screenshot-max-height session-screenshot-format
    create-sessions-queue-max-size create-sessions-queue-max-time-seconds create-sessions-number-of-retries-on-failure
    autorun-file-arguments-max-size autorun-file-arguments-max-argument-length
    enable-authorization-server enable-authorization enable-agent-authorization
    connect-session-token-duration-minutes delete-session-duration-seconds delete-session-duration-hours
    seconds-before-deleting-unreachable-dcv-server seconds-before-deleting-sessions-unreachable-server
    max-api-requests-per-second enable-throttling-forwarded-for-header enable-api-yaml
    client-to-broker-connector-https-port client-to-broker-connector-bind-host
    client-to-broker-connector-key-store-file client-to-broker-connector-key-store-pass
    agent-to-broker-connector-https-port agent-to-broker-connector-bind-host
    agent-to-broker-connector-key-store-file agent-to-broker-connector-key-store-pass
    enable-gateway gateway-to-broker-connector-https-port gateway-to-broker-connector-bind-host
    gateway-to-broker-connector-key-store-file gateway-to-broker-connector-key-store-pass
    enable-tls-client-auth-gateway
    gateway-to-broker-connector-trust-store-file gateway-to-broker-connector-trust-store-pass
    broker-to-broker-port broker-to-broker-bind-host
    broker-to-broker-discovery-port broker-to-broker-discovery-addresses
    broker-to-broker-discovery-multicast-group broker-to-broker-discovery-multicast-port
    broker-to-broker-discovery-aws-region broker-to-broker-discovery-aws-alb-target-group-arn
    broker-to-broker-distributed-memory-max-size-mb broker-to-broker-key-store-file broker-to-broker-key-store-pass
    broker-to-broker-connection-login broker-to-broker-connection-pass cli-to-broker-port
    enable-persistence persistence-db
    dynamodb-region dynamodb-table-rcu dynamodb-table-wcu dynamodb-table-name-prefix
    jdbc-connection-url jdbc-user jdbc-password
    enable-cloud-watch-metrics cloud-watch-region metrics-fleet-name-dimension";

/// The commands of a DCV broker, from "Broker CLI reference" in the same guide.
const COMMANDS: &str = "
    register-api-client describe-api-clients unregister-api-client renew-auth-server-api-key
    generate-software-statement describe-software-statements deactivate-software-statement
    describe-agent-clients unregister-agent-client register-auth-server unregister-auth-server list-auth-servers
    register-server-dns-mappings describe-server-dns-mappings";

/// The settings of a Session Manager agent.
///
/// Source: "Agent configuration file" in the same guide, and the file it ships with.
const AGENT_SETTINGS: &str = "
    broker_host broker_port ca_file tls_strict init_folder autorun_folder tags_folder software_statement_path
    max_virtual_sessions max_concurrent_sessions_per_user broker_update_interval enable_query_logged_in_users
    preferred_network_interface level directory rotation max-file-size rotate";

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/moving-from-dcv-broker.md")).unwrap()
}

/// What stands under a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    rest.split("\n## ").next().unwrap()
}

/// The words in backticks of a text.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The first words of the code in the first column of the tables of `text`, and the second column.
fn rows(text: &str) -> Vec<(BTreeSet<&str>, &str)> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    rows.map(|(first, second)| (code(first).filter_map(|word| word.split(' ').next()).collect(), second)).collect()
}

#[test]
fn every_setting_of_an_agent_is_told_and_every_flag_is_one() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hosts.md")).unwrap();
    let told: BTreeSet<_> =
        code(section(&page, "Settings in a file")).filter_map(|text| text.rsplit(' ').next()).collect();
    let missing: Vec<_> = words(AGENT_SETTINGS).into_iter().filter(|name| !told.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());

    let command = Cli::command();
    let (agent, check) = (command.find_subcommand("agent").unwrap(), command.find_subcommand("check").unwrap());
    let is_flag = |flag: &str| {
        let of = |role: &clap::Command| role.get_arguments().any(|argument| argument.get_long() == Some(flag));
        of(agent) || of(check)
    };
    let named = code(&page).filter_map(|text| text.split([' ', '=']).next()?.strip_prefix("--"));
    let named: Vec<_> = named.collect();
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<_> = named.into_iter().filter(|flag| !is_flag(flag)).collect();
    assert_eq!(unknown, Vec::<&str>::new());
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

#[test]
fn every_setting_and_every_command_has_its_row_once() {
    let page = page();
    let settings = section(&page, "Settings").split("\n### ").next().unwrap();
    for (text, expected) in [(settings, SETTINGS), (section(&page, "Commands of the broker"), COMMANDS)] {
        let rows = rows(text);
        let told: BTreeSet<_> = rows.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        assert_eq!(told, words(expected));
        assert_eq!(rows.iter().map(|(names, _)| names.len()).sum::<usize>(), told.len(), "one stands twice");
        for (names, here) in rows.iter().filter(|(names, _)| !names.is_empty()) {
            let says_why_not = here.contains("not needed: ") || here.contains("not offered: ");
            assert!(says_why_not || here.contains('`') || here.contains("the file"), "{names:?}: {here}");
        }
    }
}

#[test]
fn every_flag_that_is_named_is_one_of_its_role() {
    let page = page();
    let command = Cli::command();
    let named: Vec<_> = code(&page)
        .filter_map(|text| text.split_once(" --"))
        .filter(|(role, _)| command.find_subcommand(role).is_some())
        .collect();
    assert!(named.len() > 30, "{named:?}");
    for (role, flag) in named {
        let role = command.find_subcommand(role).unwrap();
        let is_there = role.get_arguments().any(|argument| argument.get_long() == Some(flag));
        assert!(is_there, "{} has no flag --{flag}", role.get_name());
    }
}
