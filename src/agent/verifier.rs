//! The listener by which the DCV server of the host asks whether a connection token is good.
//!
//! It answers the same as the path of that name on the agent's HTTPS server, on loopback, under a certificate that outlives
//! agents and boots: the DCV server pins the authority that signed it (`ca-file`), so nobody else can answer in our place. By
//! default its port is below 1024, or anybody with a desktop here could take it while the agent is being restarted.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;

use super::gate::View;
use super::https;
use super::https::HttpsError;
use super::https::Identity;
use super::https::Serving;
use super::settings::VerifierSettings;

/// The authority, for `ca-file`.
const AUTHORITY: &str = "ca.pem";
/// The certificate it signed, and its key.
const IDENTITY: &str = "verifier.pem";

/// Starts to listen. Ends when the answer is dropped.
///
/// # Errors
/// When the address is taken or the certificate cannot be kept.
pub(super) async fn serve(settings: &VerifierSettings, view: Arc<dyn View>) -> Result<Serving, HttpsError> {
    let identity = load_or_make(&settings.folder).map_err(|source| HttpsError::Certificate {
        action: "keep",
        folder: settings.folder.display().to_string(),
        source,
    })?;
    https::listen(settings.address, &identity, https::router(Router::new(), view)).await
}

/// The certificate of `folder`; made there, with an authority that signs nothing else, if there is none.
fn load_or_make(folder: &Path) -> io::Result<Identity> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let path = folder.join(IDENTITY);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (authority, identity) = make().map_err(io::Error::other)?;
            // The authority first: a certificate that is there is always of the authority that is there.
            https::keep(&folder.join(AUTHORITY), &authority, 0o644)?;
            https::keep(&path, &identity, 0o600)?;
            Identity::parse(identity)
        }
        other => Identity::parse(other?),
    }
}

/// An authority, whose key is forgotten, and a certificate of it with its key.
fn make() -> Result<(String, String), rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "dcv-operator verifier authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "dcv-operator verifier");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    Ok((authority_pem, format!("{certificate}{}", key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::agent::mock;
    use crate::agent::view::Watched;
    use crate::token::verifier::PATH;

    #[tokio::test]
    async fn who_pins_the_authority_is_answered_before_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            VerifierSettings { address: "127.0.0.1:0".parse().unwrap(), folder: folder.path().join("verifier") };
        let mut authority = None;
        for _ in 0..2 {
            let serving = serve(&settings, Arc::new(Watched::new(mock::clock))).await.unwrap();
            let pem = fs::read(settings.folder.join(AUTHORITY)).unwrap();
            assert_eq!(authority.get_or_insert_with(|| pem.clone()), &pem, "it stays");
            let pinned = reqwest::Certificate::from_pem(&pem).unwrap();
            let client = reqwest::Client::builder().tls_certs_only([pinned]).build().unwrap();
            for host in ["localhost", "127.0.0.1"] {
                let url = format!("https://{host}:{}{PATH}", serving.address.port());
                let question = "sessionId=s&authenticationToken=t&clientAddress=192.0.2.7";
                let request =
                    client.post(url).header("content-type", "application/x-www-form-urlencoded").body(question);
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200);
                let text = answer.text().await.unwrap();
                assert_eq!(text, "<auth result=\"no\"><message>malformed token</message></auth>");
            }
            let other = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
            other.get(format!("https://localhost:{}/health", serving.address.port())).send().await.unwrap_err();
        }
        let mode = |name| fs::metadata(settings.folder.join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode(AUTHORITY), mode(IDENTITY)), (0o644, 0o600));
    }
}
