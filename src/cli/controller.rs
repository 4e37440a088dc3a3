//! Flags of the controller.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use clap::ValueEnum;
use jiff::SignedDuration;
use jiff::Timestamp;

use crate::api::session::PlacementPolicy;
use crate::cluster::Scope;
use crate::controller::CertificateSettings;
use crate::controller::LabelRule;
use crate::controller::LivenessLimits;
use crate::controller::Settings;
use crate::placement::NewServers;
use crate::requirement::Dialect;
use crate::token::Rotation;

/// How long a new key is published before it signs: every verifier reads the keys far more often.
const KEY_LEAD: SignedDuration = SignedDuration::from_hours(24);
/// How long a key that signs no more stays published. No token lives longer, whatever brokers are set to.
const LONGEST_TOKEN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Flags of the controller.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Which of the servers that fit a session gets when it names no policy itself
    #[arg(long, env = "DCV_PLACEMENT_POLICY", value_enum, default_value = "Spread")]
    placement_policy: Policy,
    /// Whether a server without `allowedNamespaces` takes sessions of every namespace or of none
    #[arg(long, env = "DCV_NEW_SERVERS", value_enum, default_value = "Open")]
    new_servers: New,
    /// Refuses requirements that use more than Session Manager documents: its 25 properties and tags
    #[arg(long, env = "DCV_STRICT_REQUIREMENTS")]
    strict_requirements: bool,
    /// How often a session is tried again after it failed on a host
    #[arg(long, env = "DCV_CREATE_SESSIONS_NUMBER_OF_RETRIES_ON_FAILURE", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    create_sessions_number_of_retries_on_failure: u32,
    /// How long a deleted session waits for an unreachable agent
    #[arg(long, env = "DCV_DELETE_TIMEOUT_SECONDS", default_value_t = 600)]
    delete_timeout_seconds: u32,
    /// How long a server's Lease may stay unchanged until the server is unreachable
    #[arg(long, env = "DCV_SERVER_LEASE_TIMEOUT_SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(5..))]
    server_lease_timeout_seconds: u32,
    /// How much later the sessions of an unreachable server are UNKNOWN
    #[arg(long, env = "DCV_SESSIONS_UNKNOWN_AFTER_SECONDS", default_value_t = 20)]
    sessions_unknown_after_seconds: u32,
    /// How long nothing is concluded when many servers fall silent at once
    #[arg(long, env = "DCV_HOLD_TIMEOUT_SECONDS", default_value_t = 600)]
    hold_timeout_seconds: u32,
    /// How long an unreachable server that nobody uses and nobody has configured is kept
    #[arg(long, env = "DCV_SECONDS_BEFORE_DELETING_UNREACHABLE_DCV_SERVER", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(60..))]
    seconds_before_deleting_unreachable_dcv_server: u32,
    /// How many days one signing key is used
    #[arg(long, env = "DCV_ACCESS_KEY_ROTATION_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=3650))]
    access_key_rotation_days: u32,
    /// Life of the leader's Lease. It stops acting after two thirds of it, and renews every sixth
    #[arg(long, env = "DCV_LEADER_ELECTION_LEASE_SECONDS", default_value_t = 9, value_parser = clap::value_parser!(u32).range(3..=120))]
    leader_election_lease_seconds: u32,
    /// Names and addresses for which the controller keeps a certificate for the brokers, in Secrets of its namespace; without
    /// one it keeps none
    #[arg(long, env = "DCV_BROKER_CERTIFICATE_NAMES", value_name = "NAMES", value_delimiter = ',', value_parser = certificate_name)]
    broker_certificate_names: Vec<String>,
    /// Days such a certificate is good for; it is renewed when two thirds are over
    #[arg(long, env = "DCV_BROKER_CERTIFICATE_DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(2..=3650))]
    broker_certificate_days: u32,
    /// Labels of a Node that its server gets, by name, or by beginning when it ends with `/`
    #[arg(
        long,
        env = "DCV_COPIED_NODE_LABELS",
        value_delimiter = ',',
        default_values = [
            "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "node.kubernetes.io/instance-type",
            "topology.kubernetes.io/region", "topology.kubernetes.io/zone", "dcv-operator.io/",
        ]
    )]
    copied_node_labels: Vec<String>,
    /// Name of this process in events and in the Lease; its host's name by default
    #[arg(long, env = "POD_NAME", default_value = "")]
    instance: String,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "PascalCase")]
enum Policy {
    Spread,
    Pack,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
#[value(rename_all = "PascalCase")]
enum New {
    Open,
    Closed,
}

impl ControllerArgs {
    /// The settings, with what the common flags say.
    #[expect(clippy::disallowed_methods, reason = "the one place where the controller's clock is chosen")]
    pub fn settings(self, namespace: String, health_address: SocketAddr) -> Settings {
        let Self {
            placement_policy,
            new_servers,
            strict_requirements,
            create_sessions_number_of_retries_on_failure,
            delete_timeout_seconds,
            server_lease_timeout_seconds,
            sessions_unknown_after_seconds,
            hold_timeout_seconds,
            seconds_before_deleting_unreachable_dcv_server,
            access_key_rotation_days,
            leader_election_lease_seconds,
            broker_certificate_names,
            broker_certificate_days,
            copied_node_labels,
            instance,
        } = self;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let signed = |seconds: u32| SignedDuration::from_secs(seconds.into());
        Settings {
            namespace,
            scope: Scope::All,
            instance: if instance.is_empty() { hostname() } else { instance },
            health_address,
            placement_policy: match placement_policy {
                Policy::Spread => PlacementPolicy::Spread,
                Policy::Pack => PlacementPolicy::Pack,
            },
            new_servers: match new_servers {
                New::Open => NewServers::Open,
                New::Closed => NewServers::Closed,
            },
            dialect: if strict_requirements { Dialect::Documented } else { Dialect::Extended },
            retries: create_sessions_number_of_retries_on_failure,
            delete_timeout: signed(delete_timeout_seconds),
            liveness: LivenessLimits {
                lease: seconds(server_lease_timeout_seconds),
                unknown_after: seconds(sessions_unknown_after_seconds),
                hold: seconds(hold_timeout_seconds),
            },
            purge_after: signed(seconds_before_deleting_unreachable_dcv_server),
            copied_node_labels: copied_node_labels.into_iter().map(LabelRule).collect(),
            rotation: Rotation {
                period: SignedDuration::from_hours(24 * i64::from(access_key_rotation_days)),
                lead: KEY_LEAD,
                token_lifetime: LONGEST_TOKEN,
            },
            broker_certificate: (!broker_certificate_names.is_empty())
                .then_some(CertificateSettings { names: broker_certificate_names, days: broker_certificate_days }),
            leader_ttl: seconds(leader_election_lease_seconds),
            clock: Timestamp::now,
        }
    }
}

/// A name or address that can stand in a certificate.
fn certificate_name(text: &str) -> Result<String, String> {
    rcgen::CertificateParams::new([text.to_owned()]).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Only for people; the Lease is told apart by a random part as well.
fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ControllerArgs,
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let parsed = Cli::try_parse_from(["controller"]).unwrap();
        let settings = parsed.args.settings("ns".into(), ([0, 0, 0, 0], 8080).into());
        assert_eq!(settings.retries, 2);
        assert_eq!(settings.delete_timeout, SignedDuration::from_mins(10));
        assert_eq!(settings.liveness.lease, Duration::from_secs(40));
        assert_eq!(settings.purge_after, SignedDuration::from_mins(30));
        assert_eq!(settings.placement_policy, PlacementPolicy::Spread);
        assert_eq!(settings.new_servers, NewServers::Open);
        assert_eq!(settings.dialect, Dialect::Extended);
        assert_eq!(settings.copied_node_labels.len(), 7);
        assert_eq!((settings.broker_certificate, settings.leader_ttl), (None, crate::cluster::lease::LEADER_TTL));
        assert!(Cli::try_parse_from(["controller", "--seconds-before-deleting-unreachable-dcv-server", "59"]).is_err());
    }

    #[test]
    fn a_certificate_is_kept_for_the_names_that_are_given() {
        let names = ["controller", "--broker-certificate-names", "broker.dcv-system.svc,10.0.0.1"];
        let settings = Cli::try_parse_from(names).unwrap().args.settings("ns".into(), ([0, 0, 0, 0], 8080).into());
        let names = vec!["broker.dcv-system.svc".to_owned(), "10.0.0.1".to_owned()];
        assert_eq!(settings.broker_certificate, Some(CertificateSettings { names, days: 90 }));
        assert!(Cli::try_parse_from(["controller", "--broker-certificate-names", "b\u{fc}ro"]).is_err());
    }
}
