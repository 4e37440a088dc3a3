//! `kubectl dcv explain`: whether a session gets a server now, and if not what would help.
//!
//! The same ledger and checks as the controller's, over what the person who asks may read. Nothing is written. What only
//! the controller knows, its settings, is taken to be as by default.

mod fleet;
mod manifest;
mod verdict;

use kube::Api;
use kube::Client;

use crate::api::DcvSession;

use super::Answer;
use super::args::Question;
use super::args::TextFormat;
use super::error::Error;
use super::print;
use fleet::Fleet;
use manifest::Manifests;
use verdict::Verdict;
use verdict::Verdicts;

/// A session that is asked about.
#[derive(Clone, Debug, PartialEq)]
struct Subject {
    namespace: String,
    session: DcvSession,
    /// Whether it is an object of the cluster; otherwise only a manifest.
    is_applied: bool,
}

/// Answers what becomes of a session, or of each of those in files.
pub(super) async fn explain(client: Client, namespace: &str, question: &Question) -> Result<Answer, Error> {
    let Manifests { subjects, mut remarks } = match &question.subject.session {
        Some(name) => applied(&client, namespace, name).await?.into(),
        None => manifest::read(&question.subject.filename, namespace)?,
    };
    let mut fleet = Fleet::read(&client, &subjects).await?;
    remarks.append(&mut fleet.remarks);
    let items: Vec<Verdict> = subjects.iter().map(|subject| verdict::judge(&mut fleet, subject)).collect();
    let verdicts = Verdicts { items };
    Ok(Answer {
        data: match question.output {
            TextFormat::Text => verdicts.to_string(),
            TextFormat::Json => print::json(&verdicts)?,
            TextFormat::Yaml => print::yaml(&verdicts)?,
        },
        talk: remarks.into_iter().map(|remark| remark + "\n").collect(),
        is_no: !verdicts.items.iter().all(|verdict| verdict.fits),
    })
}

/// The session of this name, which may stand behind a kind, as `kubectl get -o name` prints it.
async fn applied(client: &Client, namespace: &str, name: &str) -> Result<Subject, Error> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let session = Api::<DcvSession>::namespaced(client.clone(), namespace).get(name).await?;
    Ok(Subject { namespace: namespace.to_owned(), session, is_applied: true })
}

impl From<Subject> for Manifests {
    fn from(subject: Subject) -> Self {
        Self { subjects: vec![subject], remarks: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
