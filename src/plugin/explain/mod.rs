//! `kubectl dcv explain`: whether a session gets a server now, and if not what would help.
//!
//! The same ledger and checks as the controller's, over what the person who asks may read. Nothing is written. What only
//! the controller knows, its settings, is taken to be as by default.

mod fleet;
mod verdict;

use kube::Client;

use crate::api::DcvSession;

use super::Answer;
use super::args::Question;
use super::args::TextFormat;
use super::error::Error;
use super::manifest;
use super::manifest::Manifest;
use super::near;
use super::print;
use fleet::Fleet;
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
    let (subjects, mut remarks) = if let Some(name) = &question.subject.session {
        (vec![applied(&client, namespace, name).await?], Vec::new())
    } else {
        let found = manifest::read(&question.subject.filename, namespace)?;
        (found.sessions.into_iter().map(Subject::from).collect(), found.remarks)
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

async fn applied(client: &Client, namespace: &str, name: &str) -> Result<Subject, Error> {
    let session = near::session(client, namespace, name).await?;
    Ok(Subject { namespace: namespace.to_owned(), session, is_applied: true })
}

impl From<Manifest> for Subject {
    fn from(manifest: Manifest) -> Self {
        Self { namespace: manifest.namespace, session: manifest.session, is_applied: false }
    }
}

#[cfg(test)]
mod tests;
