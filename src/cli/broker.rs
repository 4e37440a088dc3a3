//! Flags of the broker.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ArgAction;
use clap::Args;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;

use crate::broker::GatewaySettings;
use crate::broker::Rules;
use crate::broker::Settings;
use crate::broker::Tls;
use crate::cluster::Scope;
use crate::requirement::Dialect;
use crate::token::agent::ImageFormat;

/// How long a deleted session is described when nothing is said: the documented hour.
const DELETE_SESSION_DURATION_SECONDS: u32 = 3600;

/// Flags of the broker.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a documented setting of its own")]
pub struct BrokerArgs {
    /// Port of the REST API; 0: any free one, which the log names
    #[arg(long, env = "DCV_CLIENT_TO_BROKER_CONNECTOR_HTTPS_PORT", default_value_t = 8443)]
    client_to_broker_connector_https_port: u16,
    /// Address of the REST API
    #[arg(long, env = "DCV_CLIENT_TO_BROKER_CONNECTOR_BIND_HOST", default_value = "0.0.0.0")]
    client_to_broker_connector_bind_host: IpAddr,
    /// Port where desktop servers have connection tokens verified; 0: any free one
    #[arg(long, env = "DCV_AGENT_TO_BROKER_CONNECTOR_HTTPS_PORT", default_value_t = 8445)]
    agent_to_broker_connector_https_port: u16,
    /// Address of that port
    #[arg(long, env = "DCV_AGENT_TO_BROKER_CONNECTOR_BIND_HOST", default_value = "0.0.0.0")]
    agent_to_broker_connector_bind_host: IpAddr,
    /// Whether connection gateways are served
    #[arg(long, env = "DCV_ENABLE_GATEWAY")]
    enable_gateway: bool,
    /// Port where connection gateways ask for the server of a session; 0: any free one
    #[arg(long, env = "DCV_GATEWAY_TO_BROKER_CONNECTOR_HTTPS_PORT", default_value_t = 8447)]
    gateway_to_broker_connector_https_port: u16,
    /// Address of that port
    #[arg(long, env = "DCV_GATEWAY_TO_BROKER_CONNECTOR_BIND_HOST", default_value = "0.0.0.0")]
    gateway_to_broker_connector_bind_host: IpAddr,
    /// Whether gateways must have a certificate
    #[arg(
        long,
        env = "DCV_ENABLE_TLS_CLIENT_AUTH_GATEWAY",
        requires_if("true", "gateway_to_broker_connector_trust_store_file")
    )]
    enable_tls_client_auth_gateway: bool,
    /// Authorities of gateways' certificates, in PEM
    #[arg(long, env = "DCV_GATEWAY_TO_BROKER_CONNECTOR_TRUST_STORE_FILE", value_name = "FILE")]
    gateway_to_broker_connector_trust_store_file: Option<PathBuf>,
    /// Names by which gateways reach servers, in the JSON form of register-server-dns-mappings; read again when it changes
    #[arg(long, env = "DCV_SERVER_DNS_MAPPINGS_FILE", value_name = "FILE")]
    server_dns_mappings_file: Option<PathBuf>,
    /// Certificate chain in PEM, for every port, read again when it changes; without it one is made at the start
    #[arg(long, env = "DCV_TLS_CERT_FILE", value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, env = "DCV_TLS_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,
    /// Where to write the authority of the certificate that was made
    #[arg(long, env = "DCV_TLS_CA_OUT", value_name = "FILE", conflicts_with = "tls_cert_file")]
    tls_ca_out: Option<PathBuf>,
    /// How long a connection token lives
    #[arg(long, env = "DCV_CONNECT_SESSION_TOKEN_DURATION_MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    connect_session_token_duration_minutes: u32,
    /// How long a deleted session is still described; 0: its object is deleted at once [default: 3600]
    #[arg(long, env = "DCV_DELETE_SESSION_DURATION_SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    delete_session_duration_seconds: Option<u32>,
    /// The same in hours, as it was called before; the seconds go before it
    #[arg(long, env = "DCV_DELETE_SESSION_DURATION_HOURS", value_parser = clap::value_parser!(u32).range(0..=8760))]
    delete_session_duration_hours: Option<u32>,
    /// How many sessions of one namespace may wait for a server
    #[arg(long, env = "DCV_CREATE_SESSIONS_QUEUE_MAX_SIZE", default_value_t = 1000)]
    create_sessions_queue_max_size: usize,
    /// How long a session may wait for a server
    #[arg(long, env = "DCV_CREATE_SESSIONS_QUEUE_MAX_TIME_SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    create_sessions_queue_max_time_seconds: u32,
    /// How many arguments an autorun file may get
    #[arg(long, env = "DCV_AUTORUN_FILE_ARGUMENTS_MAX_SIZE", default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=200))]
    autorun_file_arguments_max_size: u16,
    /// How many characters each of them may have
    #[arg(long, env = "DCV_AUTORUN_FILE_ARGUMENTS_MAX_ARGUMENT_LENGTH", default_value_t = 150, value_parser = clap::value_parser!(u16).range(0..=4096))]
    autorun_file_arguments_max_argument_length: u16,
    /// Most pixels in width of a screenshot, when the request does not say
    #[arg(long, env = "DCV_SESSION_SCREENSHOT_MAX_WIDTH", default_value_t = 160, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    session_screenshot_max_width: u32,
    /// Most pixels in height of a screenshot, when the request does not say
    #[arg(long, env = "DCV_SESSION_SCREENSHOT_MAX_HEIGHT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    session_screenshot_max_height: u32,
    /// Format of screenshots
    #[arg(long, env = "DCV_SESSION_SCREENSHOT_FORMAT", value_enum, default_value_t = ScreenshotFormat::Png)]
    session_screenshot_format: ScreenshotFormat,
    /// Refuses requirements that use more than Session Manager documents: its 25 properties and tags
    #[arg(long, env = "DCV_STRICT_REQUIREMENTS")]
    strict_requirements: bool,
    /// Whether the broker issues access tokens to API clients, and accepts those; without it only tokens of other
    /// authorization servers are accepted
    #[arg(long, env = "DCV_ENABLE_AUTHORIZATION_SERVER", default_value_t = true, action = ArgAction::Set)]
    enable_authorization_server: bool,
    /// Other authorization servers whose access tokens are accepted, in TOML; read at the start
    #[arg(long, env = "DCV_AUTHORIZATION_SERVERS_FILE", value_name = "FILE")]
    authorization_servers_file: Option<PathBuf>,
    /// Whether a call needs an access token; false is for closed networks, and takes --no-authorization-namespace
    #[arg(
        long,
        env = "DCV_ENABLE_AUTHORIZATION",
        default_value_t = true,
        action = ArgAction::Set,
        requires_if("false", "no_authorization_namespace")
    )]
    enable_authorization: bool,
    /// The namespace whose sessions every caller has, where calls need no token
    #[arg(long, env = "DCV_NO_AUTHORIZATION_NAMESPACE", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    no_authorization_namespace: Option<String>,
    /// Most requests in a second of one API client; and of one address, of those that prove to be no client's
    #[arg(long, env = "DCV_MAX_API_REQUESTS_PER_SECOND", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_api_requests_per_second: u32,
    /// Whether a request comes from where the last entry of its X-Forwarded-For says; only behind a proxy that adds it
    #[arg(long, env = "DCV_ENABLE_THROTTLING_FORWARDED_FOR_HEADER")]
    enable_throttling_forwarded_for_header: bool,
    /// Most connections of each port; beyond them the one goes that has waited longest for its client
    #[arg(long, env = "DCV_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// How long a server that cannot be reached is still described
    #[arg(long, env = "DCV_SECONDS_BEFORE_DELETING_UNREACHABLE_DCV_SERVER", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(60..))]
    seconds_before_deleting_unreachable_dcv_server: u32,
    /// How long the sessions of an unreachable server are still described, from when they became UNKNOWN; without it for
    /// ever. They are shown again when the server is back
    #[arg(long, env = "DCV_SECONDS_BEFORE_DELETING_SESSIONS_UNREACHABLE_SERVER", value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    seconds_before_deleting_sessions_unreachable_server: Option<u32>,
    /// Whether /dcv-session-manager-api.yaml is served, without a token
    #[arg(long, env = "DCV_ENABLE_API_YAML", default_value_t = true, action = ArgAction::Set)]
    enable_api_yaml: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum ScreenshotFormat {
    /// Exact
    Png,
    /// Smaller, for screens that are pictures themselves
    Jpeg,
}

impl BrokerArgs {
    /// The settings, with what the common flags say.
    pub fn settings(self, namespace: String, health_address: SocketAddr) -> Settings {
        let Self {
            client_to_broker_connector_https_port,
            client_to_broker_connector_bind_host,
            agent_to_broker_connector_https_port,
            agent_to_broker_connector_bind_host,
            enable_gateway,
            gateway_to_broker_connector_https_port,
            gateway_to_broker_connector_bind_host,
            enable_tls_client_auth_gateway,
            gateway_to_broker_connector_trust_store_file,
            server_dns_mappings_file,
            tls_cert_file,
            tls_key_file,
            tls_ca_out,
            connect_session_token_duration_minutes,
            delete_session_duration_seconds,
            delete_session_duration_hours,
            create_sessions_queue_max_size,
            create_sessions_queue_max_time_seconds,
            autorun_file_arguments_max_size,
            autorun_file_arguments_max_argument_length,
            session_screenshot_max_width,
            session_screenshot_max_height,
            session_screenshot_format,
            strict_requirements,
            enable_authorization_server,
            authorization_servers_file,
            enable_authorization,
            no_authorization_namespace,
            max_api_requests_per_second,
            enable_throttling_forwarded_for_header,
            max_connections,
            seconds_before_deleting_unreachable_dcv_server,
            seconds_before_deleting_sessions_unreachable_server,
            enable_api_yaml,
        } = self;
        Settings {
            api_address: (client_to_broker_connector_bind_host, client_to_broker_connector_https_port).into(),
            verifier_address: (agent_to_broker_connector_bind_host, agent_to_broker_connector_https_port).into(),
            gateway: enable_gateway.then(|| GatewaySettings {
                address: (gateway_to_broker_connector_bind_host, gateway_to_broker_connector_https_port).into(),
                client_authorities: gateway_to_broker_connector_trust_store_file
                    .filter(|_| enable_tls_client_auth_gateway),
                dns_names: server_dns_mappings_file,
            }),
            tls: match tls_cert_file.zip(tls_key_file) {
                Some((certificate, key)) => Tls::Files { certificate, key },
                None => Tls::SelfMade { ca_out: tls_ca_out },
            },
            health_address,
            namespace,
            scope: Scope::All,
            authorization_servers: authorization_servers_file,
            max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
            rules: Rules {
                connect_session_token_duration_minutes,
                delete_session_duration_seconds: delete_session_duration_seconds
                    .or(delete_session_duration_hours.map(|hours| hours * 3600))
                    .unwrap_or(DELETE_SESSION_DURATION_SECONDS),
                create_sessions_queue_max_size,
                create_sessions_queue_max_time_seconds,
                autorun_file_arguments_max_size: autorun_file_arguments_max_size.into(),
                autorun_file_arguments_max_argument_length: autorun_file_arguments_max_argument_length.into(),
                session_screenshot_max_width,
                session_screenshot_max_height,
                session_screenshot_format: match session_screenshot_format {
                    ScreenshotFormat::Png => ImageFormat::Png,
                    ScreenshotFormat::Jpeg => ImageFormat::Jpeg,
                },
                dialect: if strict_requirements { Dialect::Documented } else { Dialect::Extended },
                enable_authorization_server,
                no_authorization_namespace: no_authorization_namespace.filter(|_| !enable_authorization),
                max_api_requests_per_second,
                enable_throttling_forwarded_for_header,
                seconds_before_deleting_unreachable_dcv_server,
                seconds_before_deleting_sessions_unreachable_server,
                enable_api_yaml,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BrokerArgs,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let arguments = ["broker"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.args.settings("ns".to_owned(), ([0, 0, 0, 0], 8080).into()))
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = parse(&[]).unwrap();
        assert_eq!(settings.rules, Rules::default());
        assert_eq!(settings.api_address.to_string(), "0.0.0.0:8443");
        assert_eq!(settings.verifier_address.to_string(), "0.0.0.0:8445");
        assert!(settings.gateway.is_none());
        assert!(matches!(settings.tls, Tls::SelfMade { ca_out: None }));
    }

    #[test]
    fn the_retention_is_said_in_seconds_or_as_before_in_hours() {
        let seconds = |arguments: &[&str]| parse(arguments).unwrap().rules.delete_session_duration_seconds;
        assert_eq!(seconds(&["--delete-session-duration-hours", "2"]), 7200);
        assert_eq!(seconds(&["--delete-session-duration-hours", "0"]), 0);
        assert_eq!(seconds(&["--delete-session-duration-hours=2", "--delete-session-duration-seconds=5"]), 5);
    }

    #[test]
    fn calls_without_a_token_have_a_namespace_and_are_asked_for() {
        let namespace = |arguments: &[&str]| parse(arguments).map(|settings| settings.rules.no_authorization_namespace);
        let named = ["--no-authorization-namespace", "lab"];
        assert_eq!(namespace(&[&["--enable-authorization=false"], &named[..]].concat()).unwrap(), Some("lab".into()));
        assert_eq!(namespace(&named).unwrap(), None, "a namespace alone opens nothing");
        assert!(namespace(&["--enable-authorization", "false"]).is_err());
        assert!(namespace(&["--enable-authorization=false", "--no-authorization-namespace="]).is_err());
        assert!(!parse(&["--enable-authorization-server=false"]).unwrap().rules.enable_authorization_server);
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        for arguments in [
            ["--max-api-requests-per-second", "0"],
            ["--max-connections", "0"],
            ["--seconds-before-deleting-unreachable-dcv-server", "59"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_on_by_default_is_switched_off_by_a_value() {
        for (arguments, expected) in
            [(&[][..], true), (&["--enable-api-yaml=true"], true), (&["--enable-api-yaml=false"], false)]
        {
            assert_eq!(parse(arguments).unwrap().rules.enable_api_yaml, expected, "{arguments:?}");
        }
        assert!(parse(&["--enable-api-yaml=no"]).is_err());
    }

    #[test]
    fn gateways_are_served_when_asked_for_and_need_certificates_only_of_named_authorities() {
        let gateway = |arguments: &[&str]| parse(arguments).map(|settings| settings.gateway.unwrap());
        let plain = gateway(&["--enable-gateway", "--gateway-to-broker-connector-trust-store-file", "ca"]).unwrap();
        assert_eq!((plain.address.to_string().as_str(), plain.client_authorities), ("0.0.0.0:8447", None));
        let mutual = ["--enable-gateway", "--enable-tls-client-auth-gateway"];
        assert!(gateway(&mutual).is_err());
        let mutual = [&mutual[..], &["--gateway-to-broker-connector-trust-store-file", "ca"]].concat();
        assert_eq!(gateway(&mutual).unwrap().client_authorities, Some("ca".into()));
    }

    #[test]
    fn screenshots_are_of_the_size_and_format_that_the_flags_say() {
        let flags = ["--session-screenshot-max-width", "320", "--session-screenshot-max-height", "200"];
        let rules = parse(&[&flags[..], &["--session-screenshot-format", "jpeg"]].concat()).unwrap().rules;
        assert_eq!((rules.session_screenshot_max_width, rules.session_screenshot_max_height), (320, 200));
        assert_eq!(rules.session_screenshot_format, ImageFormat::Jpeg);
        for bad in [
            "--session-screenshot-max-width=0",
            "--session-screenshot-max-height=-1",
            "--session-screenshot-format=gif",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let settings = parse(&["--tls-cert-file", "c", "--tls-key-file", "k"]).unwrap();
        assert!(matches!(settings.tls, Tls::Files { .. }));
        assert!(parse(&["--tls-cert-file", "c"]).is_err());
        assert!(parse(&["--tls-key-file", "k"]).is_err());
        assert!(parse(&["--tls-ca-out", "o", "--tls-cert-file", "c", "--tls-key-file", "k"]).is_err());
    }
}
