//! The broker's certificate: given as files, or made here. And whose certificates clients must have, where they must.
//!
//! Files are read again when their content changes; a pair that cannot be used leaves the old one in place.

use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use nix::unistd::gethostname;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::Tls;
use crate::telemetry::metrics;

/// How often the files are looked at: whoever renews certificates does so days ahead.
const RELOAD_INTERVAL: Duration = Duration::from_mins(1);

/// What the certificate is called in metrics.
const CERTIFICATE: &str = "broker";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The pair cannot be used.
    #[error("certificate and key cannot be used")]
    Unusable(#[source] io::Error),
    /// The authorities of clients cannot be used.
    #[error("the authorities in {path} cannot be used")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// None could be made.
    #[error("failed to make a certificate")]
    Make(#[source] rcgen::Error),
    /// The authority's certificate could not be written.
    #[error("failed to write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// A chain and its key, as PEM.
#[derive(Clone, PartialEq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// How a port is served, and whom it asks for a certificate.
struct Port {
    config: RustlsConfig,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// What every port presents, where newer ones are found, and the ports.
pub struct Identity {
    pair: Pair,
    files: Option<(PathBuf, PathBuf)>,
    ports: Vec<Port>,
}

impl Identity {
    /// The certificate that `tls` says.
    pub async fn load(tls: Tls) -> Result<Self, Error> {
        let (pair, files) = match tls {
            Tls::Files { certificate, key } => (read_pair(&certificate, &key).await?, Some((certificate, key))),
            Tls::SelfMade { ca_out } => (make(ca_out.as_deref())?, None),
        };
        metrics::note_certificate(CERTIFICATE, &pair.certificate);
        Ok(Self { pair, files, ports: Vec::new() })
    }

    /// The configuration of one more port. With `authorities`, a PEM file, only for clients with a certificate signed
    /// by one of them.
    pub async fn port(&mut self, authorities: Option<&Path>) -> Result<RustlsConfig, Error> {
        let clients = match authorities {
            Some(path) => Some(read_authorities(path).await?),
            None => None,
        };
        let config = RustlsConfig::from_config(self.pair.config(clients.as_ref()).map_err(Error::Unusable)?);
        self.ports.push(Port { config: config.clone(), clients });
        Ok(config)
    }

    /// Keeps all ports current. Does not end.
    pub async fn follow(self) {
        self.follow_every(RELOAD_INTERVAL).await;
    }

    async fn follow_every(mut self, interval: Duration) {
        let Some((certificate, key)) = self.files.take() else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(interval).await;
            let outcome = match read_pair(&certificate, &key).await {
                Ok(pair) if pair == self.pair => continue,
                // One file may be newer than the other for a moment: the next look sees both.
                Ok(pair) => self.take(pair).map_err(Error::Unusable),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => tracing::info!(certificate = %certificate.display(), "certificate loaded anew"),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the new certificate is not used, the old one stays"
                ),
            }
        }
    }

    fn take(&mut self, pair: Pair) -> io::Result<()> {
        for port in &self.ports {
            port.config.reload_from_config(pair.config(port.clients.as_ref())?);
        }
        metrics::note_certificate(CERTIFICATE, &pair.certificate);
        self.pair = pair;
        Ok(())
    }
}

impl Pair {
    fn config(&self, clients: Option<&Arc<dyn ClientCertVerifier>>) -> io::Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(io::Error::other)?;
        let builder = match clients {
            Some(clients) => ServerConfig::builder().with_client_cert_verifier(Arc::clone(clients)),
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let chain = chain.map_err(io::Error::other)?;
        let mut config = builder.with_single_cert(chain, key).map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|source| Error::Read { path: path.to_owned(), source })
}

async fn read_pair(certificate: &Path, key: &Path) -> Result<Pair, Error> {
    Ok(Pair { certificate: read(certificate).await?, key: read(key).await? })
}

async fn read_authorities(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let text = read(path).await?;
    verifier_of(&text).map_err(|source| Error::Authorities { path: path.to_owned(), source })
}

fn verifier_of(authorities: &[u8]) -> io::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(io::Error::other)
}

/// A certificate for this machine, signed by an authority made for it alone, whose key is not kept.
fn make(ca_out: Option<&Path>) -> Result<Pair, Error> {
    let (ca_pem, pair) = make_chain(&own_names()).map_err(Error::Make)?;
    if let Some(path) = ca_out {
        write(path, ca_pem.as_bytes()).map_err(|source| Error::Write { path: path.to_owned(), source })?;
    }
    Ok(pair)
}

fn own_names() -> Vec<String> {
    let mut names: Vec<_> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    if !host.is_empty() && host.parse::<IpAddr>().is_err() {
        names.extend(host.split_once('.').map(|(short, _)| short.to_owned()));
        names.push(host);
    }
    names
}

fn make_chain(names: &[String]) -> Result<(String, Pair), rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "dcv-operator broker authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "dcv-operator broker");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?.pem();
    Ok((ca_pem, Pair { certificate: certificate.into_bytes(), key: key.serialize_pem().into_bytes() }))
}

/// Whole or not at all: clients may read it at any moment.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install_provider() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }

    #[tokio::test]
    async fn a_made_certificate_can_be_served_and_its_authority_is_written() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca_out = folder.path().join("ca.pem");
        let mut identity = Identity::load(Tls::SelfMade { ca_out: Some(ca_out.clone()) }).await.unwrap();
        identity.port(None).await.unwrap();
        assert!(std::fs::read_to_string(&ca_out).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[tokio::test]
    async fn changed_files_are_served_and_a_broken_pair_is_not() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        let put = |pair: &Pair| {
            std::fs::write(&certificate, &pair.certificate).unwrap();
            std::fs::write(&key, &pair.key).unwrap();
        };
        let pair = || make_chain(&["localhost".to_owned()]).unwrap().1;
        let (first, second) = (pair(), pair());
        put(&first);
        let files = Tls::Files { certificate: certificate.clone(), key: key.clone() };
        let interval = Duration::from_millis(5);
        let mut identity = Identity::load(files).await.unwrap();
        let config = identity.port(None).await.unwrap();
        let guarded = identity.port(Some(&certificate)).await.unwrap();
        let task = tokio::spawn(identity.follow_every(interval));
        let (before, guarded_before) = (config.get_inner(), guarded.get_inner());
        put(&Pair { certificate: second.certificate.clone(), key: first.key.clone() });
        tokio::time::sleep(interval * 10).await;
        assert!(Arc::ptr_eq(&before, &config.get_inner()));
        put(&second);
        let changed = async {
            while Arc::ptr_eq(&before, &config.get_inner()) {
                tokio::time::sleep(interval).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), changed).await.unwrap();
        assert!(!Arc::ptr_eq(&guarded_before, &guarded.get_inner()), "every port follows");
        task.abort();
    }

    /// A certificate for clients, and the authority that signed it.
    fn client() -> (String, Pair) {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca_key = KeyPair::generate().unwrap();
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let mut leaf = CertificateParams::new(["gateway".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem().into_bytes();
        (ca_pem, Pair { certificate, key: key.serialize_pem().into_bytes() })
    }

    /// Whether a client with this certificate, if any, is let in.
    fn is_admitted(server: &Arc<ServerConfig>, server_ca: &str, client: Option<&Pair>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server_ca.as_bytes()).unwrap()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(&pair.certificate).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pair.key).unwrap()).unwrap()
            }
        };
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        !server.is_handshaking()
    }

    #[tokio::test]
    async fn a_port_with_authorities_lets_in_only_whom_they_signed() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let (ca_out, trusted) = (folder.path().join("ca.pem"), folder.path().join("clients.pem"));
        let ((client_ca, ours), (_, stranger)) = (client(), client());
        std::fs::write(&trusted, client_ca).unwrap();
        let mut identity = Identity::load(Tls::SelfMade { ca_out: Some(ca_out.clone()) }).await.unwrap();
        let [open, guarded] = [identity.port(None).await.unwrap(), identity.port(Some(&trusted)).await.unwrap()];
        let server_ca = std::fs::read_to_string(&ca_out).unwrap();
        for (port, certificate, expected) in [
            (&open, None, true),
            (&guarded, Some(&ours), true),
            (&guarded, Some(&stranger), false),
            (&guarded, None, false),
        ] {
            assert_eq!(is_admitted(&port.get_inner(), &server_ca, certificate), expected);
        }
        std::fs::write(&trusted, "no certificate").unwrap();
        assert!(matches!(identity.port(Some(&trusted)).await, Err(Error::Authorities { .. })));
    }
}
