//! Flags of the broker.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::broker::Rules;
use crate::broker::Settings;
use crate::broker::Tls;
use crate::requirement::Dialect;

/// Flags of the broker.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// Port of the REST API; 0: any free one, which the log names
    #[arg(long, env = "DCV_CLIENT_TO_BROKER_CONNECTOR_HTTPS_PORT", default_value_t = 8443)]
    client_to_broker_connector_https_port: u16,
    /// Address of the REST API
    #[arg(long, env = "DCV_CLIENT_TO_BROKER_CONNECTOR_BIND_HOST", default_value = "0.0.0.0")]
    client_to_broker_connector_bind_host: IpAddr,
    /// Certificate chain in PEM, read again when it changes; without it a certificate is made at the start
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
    /// How long a deleted session is still described; 0: its object is deleted at once
    #[arg(long, env = "DCV_DELETE_SESSION_DURATION_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    delete_session_duration_seconds: u32,
    /// How many sessions may wait for a server
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
    /// Refuses requirements that use more than Session Manager documents: its 25 properties and tags
    #[arg(long, env = "DCV_STRICT_REQUIREMENTS")]
    strict_requirements: bool,
}

impl BrokerArgs {
    /// The settings, with what the common flags say.
    pub fn settings(self, namespace: String, health_address: SocketAddr) -> Settings {
        let Self {
            client_to_broker_connector_https_port,
            client_to_broker_connector_bind_host,
            tls_cert_file,
            tls_key_file,
            tls_ca_out,
            connect_session_token_duration_minutes,
            delete_session_duration_seconds,
            create_sessions_queue_max_size,
            create_sessions_queue_max_time_seconds,
            autorun_file_arguments_max_size,
            autorun_file_arguments_max_argument_length,
            strict_requirements,
        } = self;
        Settings {
            bind_host: client_to_broker_connector_bind_host,
            https_port: client_to_broker_connector_https_port,
            tls: match tls_cert_file.zip(tls_key_file) {
                Some((certificate, key)) => Tls::Files { certificate, key },
                None => Tls::SelfMade { ca_out: tls_ca_out },
            },
            health_address,
            namespace,
            rules: Rules {
                connect_session_token_duration_minutes,
                delete_session_duration_seconds,
                create_sessions_queue_max_size,
                create_sessions_queue_max_time_seconds,
                autorun_file_arguments_max_size: autorun_file_arguments_max_size.into(),
                autorun_file_arguments_max_argument_length: autorun_file_arguments_max_argument_length.into(),
                dialect: if strict_requirements { Dialect::Documented } else { Dialect::Extended },
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
        assert_eq!((settings.bind_host.to_string().as_str(), settings.https_port), ("0.0.0.0", 8443));
        assert!(matches!(settings.tls, Tls::SelfMade { ca_out: None }));
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
