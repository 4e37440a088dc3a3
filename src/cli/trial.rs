//! `dcv-operator try`: whether an installation works, as `helm test` asks. It changes nothing.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::api::DcvSession;
use crate::cluster;

/// `User-Agent` and field manager of what is only tried.
const NAME: &str = "dcv-try";
/// Pause before what did not work is tried again: a rollout may be on its way.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of try.
#[derive(Args, Clone, Debug)]
pub struct TrialArgs {
    /// Namespace in which a session is tried, by a create that is not kept
    #[arg(long, value_name = "NAME")]
    session_namespace: String,
    /// URL that must answer 200
    #[arg(long = "ready-url", value_name = "URL")]
    ready_urls: Vec<String>,
    /// Authorities that are believed, in PEM; the system's where there is no such file
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// How long it may take until everything works
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout_seconds: u64,
}

impl TrialArgs {
    /// Tries it all, for as long as it may take.
    ///
    /// # Errors
    /// What did not work to the end.
    pub async fn run(self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(self.timeout_seconds);
        loop {
            match self.once().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() + PAUSE >= end => return Err(error),
                Err(error) => eprintln!("not yet: {error:#}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self) -> anyhow::Result<()> {
        let client = cluster::client(NAME, None).await?;
        let sessions: Api<DcvSession> = Api::namespaced(client, &self.session_namespace);
        let parameters = PostParams { dry_run: true, field_manager: Some(NAME.to_owned()) };
        sessions.create(&parameters, &session()).await.context("a session is not accepted")?;
        println!("a session is accepted");
        // After the first client: it has chosen how TLS is done.
        let http = http_client(self.authority.as_deref())?;
        for url in &self.ready_urls {
            let answer = http.get(url).send().await.with_context(|| format!("no answer of {url}"))?;
            if answer.status() != reqwest::StatusCode::OK {
                bail!("{url} answers {}", answer.status());
            }
            println!("{url} answers");
        }
        Ok(())
    }
}

/// A session that any installation accepts: it is placed nowhere, as it is not kept.
fn session() -> DcvSession {
    let object = json!({
        "apiVersion": "dcv-operator.io/v1alpha1",
        "kind": "DcvSession",
        "metadata": {"generateName": "dcv-try-"},
        "spec": {"owner": "nobody", "type": "VIRTUAL"},
    });
    serde_json::from_value(object).expect("the session is one of ours")
}

fn http_client(authority: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy();
    if let Some(path) = authority.filter(|path| path.exists()) {
        let text = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&text);
        builder = builder.tls_certs_only(authorities.with_context(|| format!("no certificate in {}", path.display()))?);
    }
    builder.build().context("failed to prepare requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_one() {
        assert_eq!(session().spec.owner, "nobody");
    }

    #[test]
    fn a_missing_authority_is_none_and_a_broken_one_is_said() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        http_client(Some(Path::new("/nowhere/ca.crt"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(http_client(Some(&file)).is_err());
    }
}
