//! The chart has a value for every setting of every role, says of each what it is, and refuses what it does not know.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Arg;
use clap::Command;
use clap::CommandFactory;
use dcv_operator::cli::Cli;
use serde_json::Value;

/// Flags that are no entry of `ROLE.settings`, and the value that stands for each; without one the chart knows it by itself.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("*", "namespace", ""),
    ("*", "kubeconfig", ""),
    ("*", "health-address", "controller.healthPort"),
    ("*", "log-level", "logging.level"),
    ("*", "log-format", "logging.format"),
    ("*", "watch-namespaces", "watchNamespaces"),
    ("controller", "instance", ""),
    ("controller", "leader-election-lease-seconds", "leaderElection.leaseSeconds"),
    ("controller", "broker-certificate-names", "tls.names"),
    ("controller", "broker-certificate-days", "tls.selfManaged.days"),
    ("broker", "tls-cert-file", "tls.mode"),
    ("broker", "tls-key-file", "tls.mode"),
    ("broker", "tls-ca-out", "tls.mode"),
    ("broker", "gateway-to-broker-connector-trust-store-file", "broker.files.gatewayAuthorities"),
    ("broker", "server-dns-mappings-file", "broker.files.serverDnsMappings"),
    ("broker", "authorization-servers-file", "broker.files.authorizationServers"),
    ("agent", "server-name", ""),
    ("agent", "backend", "agent.backend"),
    // Made-up hosts are for tests.
    ("agent", "kubeconfig-dir", ""),
    ("agent", "fake-host", ""),
    ("agent", "https-address", "agent.httpsPort"),
    ("agent", "host-root", "agent.backend"),
    ("agent", "host-command-prefix", "agent.backend"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn chart(file: &str) -> String {
    read("charts/dcv-operator", file)
}

fn read(chart: &str, file: &str) -> String {
    fs::read_to_string(root().join(chart).join(file)).unwrap()
}

fn values() -> Value {
    serde_saphyr::from_str(&chart("values.yaml")).unwrap()
}

fn at<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |value, key| value.get(key))
}

/// As the chart names a flag: `--new-servers` is `newServers`.
fn camel(flag: &str) -> String {
    let mut words = flag.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

fn flags(role: &Command) -> impl Iterator<Item = &Arg> {
    role.get_arguments().filter(|argument| argument.get_long().is_some() && !argument.is_hide_set())
}

/// A value as the chart hands it over.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn default(flag: &Arg) -> String {
    flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")
}

#[test]
fn every_flag_of_a_role_is_a_value_with_its_default() {
    let (command, values) = (Cli::command(), values());
    let mut wrong = Vec::new();
    for name in ["controller", "broker", "agent"] {
        let role = command.find_subcommand(name).unwrap();
        let settings = at(&values, &format!("{name}.settings")).unwrap().as_object().unwrap();
        let mut known = BTreeSet::new();
        for flag in flags(role) {
            let long = flag.get_long().unwrap();
            let elsewhere = ELSEWHERE.iter().find(|(of, it, _)| (*of == "*" || *of == name) && *it == long);
            let setting = settings.get(&camel(long));
            known.insert(camel(long));
            match (elsewhere, setting) {
                (Some((_, _, path)), None) if path.is_empty() || at(&values, path).is_some() => {}
                (Some((_, _, path)), None) => {
                    wrong.push(format!("there is no value {path}, which stands for --{long}"));
                }
                (Some(_), Some(_)) => wrong.push(format!("--{long} of {name} is in two places")),
                (None, None) => wrong.push(format!("--{long} of {name} is no value {name}.settings.{}", camel(long))),
                (None, Some(value)) => {
                    let (given, default) = (text(value), default(flag));
                    // Where the program has none, the chart may say what holds then.
                    if !default.is_empty() && given != default {
                        wrong.push(format!("{name}.settings.{} is {given}, --{long} is {default}", camel(long)));
                    }
                    let variable = format!("DCV_{}", long.replace('-', "_").to_uppercase());
                    if flag.get_env().is_none_or(|it| it != variable.as_str()) {
                        wrong.push(format!("--{long} of {name} is not read from {variable}"));
                    }
                }
            }
        }
        wrong.extend(
            settings.keys().filter(|key| !known.contains(*key)).map(|key| format!("{name} has no flag for {key}")),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The descriptions of `values.yaml`, by path: comments that begin with `--`, as the README has them.
fn descriptions() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Option<String> = None;
    for line in chart("values.yaml").lines() {
        let bare = line.trim_start();
        if let Some(begin) = bare.strip_prefix("# -- ") {
            comment = Some(begin.to_owned());
        } else if let (Some(rest), Some(begun)) = (bare.strip_prefix("# "), &mut comment) {
            *begun = format!("{begun} {rest}");
        } else if let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with(['#', '-'])) {
            let depth = line.len() - bare.len();
            path.retain(|(of, _)| *of < depth);
            path.push((depth, key.to_owned()));
            let name = path.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join(".");
            found.extend(comment.take().map(|text| (name, text)));
        }
    }
    found
}

/// Compares the values at `path` with their schema.
fn compare(
    values: &Value,
    schema: &Value,
    path: &str,
    descriptions: &BTreeMap<String, String>,
    wrong: &mut Vec<String>,
) {
    if let Some(said) = descriptions.get(path)
        && schema["description"].as_str() != Some(said)
    {
        wrong.push(format!("the schema says something else of {path} than values.yaml: {said}"));
    }
    let Some(properties) = schema["properties"].as_object().filter(|_| !path.ends_with(".resources")) else { return };
    // Other charts have their own settings in `global`.
    if path != "global" && schema["additionalProperties"] != Value::Bool(false) {
        wrong.push(format!("a typo in {path} would not be refused"));
    }
    let keys = |of: Option<&serde_json::Map<String, Value>>| -> BTreeSet<String> {
        of.into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let (given, described) = (keys(values.as_object()), keys(Some(properties)));
    wrong.extend(given.symmetric_difference(&described).map(|key| format!("{path}.{key} is in one of the two")));
    for key in given.intersection(&described) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if !descriptions.contains_key(&path) && !values[key].is_object() {
            wrong.push(format!("nothing is said of {path}"));
        }
        compare(&values[key], &properties[key], &path, descriptions, wrong);
    }
}

#[test]
fn the_schema_knows_every_value_and_says_what_the_readme_says() {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    let descriptions = descriptions();
    assert!(descriptions.len() > 200, "{}", descriptions.len());
    let mut wrong = Vec::new();
    compare(&values(), &schema, "", &descriptions, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
}

const CHARTS: [&str; 2] = ["charts/dcv-operator", "charts/dcv-operator-crds"];

#[test]
fn the_charts_have_the_definitions_as_they_are() {
    for chart in CHARTS {
        for (name, text) in dcv_operator::api::crd_files().unwrap() {
            assert_eq!(read(chart, &format!("files/crds/{name}")), text, "hack/generate crds copies {name} to {chart}");
        }
        let files = fs::read_dir(root().join(chart).join("files/crds")).unwrap();
        assert_eq!(files.count(), dcv_operator::api::crds().len(), "{chart}");
    }
}

#[test]
fn the_charts_versions_are_the_programs() {
    for chart in CHARTS {
        let about: Value = serde_saphyr::from_str(&read(chart, "Chart.yaml")).unwrap();
        assert_eq!(
            (about["version"].as_str(), about["appVersion"].as_str()),
            (Some(env!("CARGO_PKG_VERSION")), Some(env!("CARGO_PKG_VERSION"))),
            "{chart}"
        );
    }
}

/// The unit on that page is the one of `kubectl dcv enroll`: a test of that sees to it.
#[test]
fn agents_have_the_same_allocator_settings_wherever_they_start() {
    let page = fs::read_to_string(root().join("docs/dcv-hosts.md")).unwrap();
    let settings = page.lines().find_map(|line| line.strip_prefix("Environment=")).expect("the unit has them");
    let up = fs::read_to_string(root().join("hack/up")).unwrap();
    let pods = read("charts/dcv-operator", "templates/agent/daemonset.yaml");
    assert!(up.contains(&format!("local -x {settings}\n")), "hack/up has not {settings}");
    for setting in settings.split(' ') {
        let (name, value) = setting.split_once('=').unwrap();
        let variable = format!("        - name: {name}\n          value: \"{value}\"\n");
        assert!(pods.contains(&variable), "the chart's agents have not {setting}");
    }
}
