//! How a host reaches the API server, and whom it trusts to be it.

use std::fs;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::Client;
use kube::Config;

use super::args::Enroll;
use crate::plugin::error::Error;

/// `ConfigMap` of every namespace with the cluster's own authorities, and its entry.
const PUBLISHED: &str = "kube-root-ca.crt";
const PUBLISHED_ENTRY: &str = "ca.crt";

/// Where the API server is.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reach {
    pub address: String,
    pub tls_server_name: Option<String>,
    /// In PEM; absent: the system's.
    pub authorities: Option<String>,
    /// What may be wrong with it.
    pub remarks: Vec<String>,
}

/// What the flags say, else what holds for whoever runs this.
pub(super) async fn find(client: &Client, config: &Config, wanted: &Enroll) -> Result<Reach, Error> {
    let address = wanted.api_server.as_ref().unwrap_or(&config.cluster_url);
    let mut reach = Reach {
        address: address.to_string().trim_end_matches('/').to_owned(),
        // Only for the address that it goes with.
        tls_server_name: config.tls_server_name.clone().filter(|_| wanted.api_server.is_none()),
        ..Reach::default()
    };
    if is_loopback(address.host().unwrap_or_default()) {
        let address = &reach.address;
        reach.remarks.push(format!("warning: {address} is this machine alone; --api-server says where hosts find it"));
    }
    reach.authorities = match &wanted.certificate_authority {
        Some(file) => {
            let name = file.display().to_string();
            Some(fs::read_to_string(file).map_err(|source| Error::Read { file: name, source })?)
        }
        None => of_config(config)?,
    };
    if reach.authorities.is_none() && config.accept_invalid_certs {
        reach.authorities = Some(published(client, &wanted.hosts_namespace).await?);
    }
    Ok(reach)
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn of_config(config: &Config) -> Result<Option<String>, Error> {
    if let Some(file) = &config.root_cert_file {
        let name = file.display().to_string();
        return fs::read_to_string(file).map(Some).map_err(|source| Error::Read { file: name, source });
    }
    Ok(config.root_cert.as_ref().map(|certificates| certificates.iter().map(|der| pem(der)).collect()))
}

/// For those who do not check who the API server is: the host shall.
async fn published(client: &Client, namespace: &str) -> Result<String, Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let found = api.get_opt(PUBLISHED).await?.and_then(|found| found.data?.remove(PUBLISHED_ENTRY));
    found.ok_or_else(|| {
        Error::Told(
            "who has signed the API server's certificate is not known; say it by --certificate-authority".to_owned(),
        )
    })
}

fn pem(der: &[u8]) -> String {
    const WIDTH: usize = 64;
    let text = STANDARD.encode(der);
    let lines: String =
        text.as_bytes().chunks(WIDTH).flat_map(|line| [std::str::from_utf8(line).unwrap_or_default(), "\n"]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_written_as_they_are_read() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;

        let made = rcgen::generate_simple_self_signed(["api".to_owned()]).unwrap();
        let text = pem(made.cert.der());
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        assert_eq!(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), made.cert.der());
    }

    #[test]
    fn what_only_this_machine_reaches_is_known() {
        for (host, is_so) in
            [("localhost", true), ("127.0.0.1", true), ("[::1]", true), ("10.0.0.1", false), ("api", false)]
        {
            assert_eq!(is_loopback(host), is_so, "{host}");
        }
    }
}
