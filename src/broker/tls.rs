//! The broker's certificate: given as files, or made here.
//!
//! Files are read again when their content changes; a pair that cannot be used leaves the old one in place.

use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
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

use super::Tls;

/// How often the files are looked at: whoever renews certificates does so days ahead.
const RELOAD_INTERVAL: Duration = Duration::from_mins(1);

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

/// What the server presents, and the task that keeps it current, which does not end.
pub async fn load(tls: Tls) -> Result<(RustlsConfig, impl Future<Output = ()>), Error> {
    load_and_follow(tls, RELOAD_INTERVAL).await
}

async fn load_and_follow(tls: Tls, interval: Duration) -> Result<(RustlsConfig, impl Future<Output = ()>), Error> {
    let (pair, files) = match tls {
        Tls::Files { certificate, key } => (read(&certificate, &key).await?, Some((certificate, key))),
        Tls::SelfMade { ca_out } => (make(ca_out.as_deref())?, None),
    };
    let config = RustlsConfig::from_pem(pair.certificate.clone(), pair.key.clone()).await.map_err(Error::Unusable)?;
    let current = config.clone();
    let follow = async move {
        match files {
            Some((certificate, key)) => follow(&current, pair, &certificate, &key, interval).await,
            None => std::future::pending().await,
        }
    };
    Ok((config, follow))
}

async fn read(certificate: &Path, key: &Path) -> Result<Pair, Error> {
    let read =
        async |path: &Path| tokio::fs::read(path).await.map_err(|source| Error::Read { path: path.to_owned(), source });
    Ok(Pair { certificate: read(certificate).await?, key: read(key).await? })
}

async fn follow(config: &RustlsConfig, mut current: Pair, certificate: &Path, key: &Path, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let outcome = match read(certificate, key).await {
            Ok(pair) if pair == current => continue,
            Ok(pair) => {
                let loaded = config.reload_from_pem(pair.certificate.clone(), pair.key.clone()).await;
                // One file may be newer than the other for a moment: the next look sees both.
                loaded.map(|()| current = pair).map_err(Error::Unusable)
            }
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
    use std::sync::Arc;

    use super::*;

    fn install_provider() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    }

    #[tokio::test]
    async fn a_made_certificate_can_be_served_and_its_authority_is_written() {
        install_provider();
        let folder = tempfile::tempdir().unwrap();
        let ca_out = folder.path().join("ca.pem");
        let _server = load(Tls::SelfMade { ca_out: Some(ca_out.clone()) }).await.unwrap();
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
        let (config, follow) = load_and_follow(files, interval).await.unwrap();
        let task = tokio::spawn(follow);
        let before = config.get_inner();
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
        task.abort();
    }
}
