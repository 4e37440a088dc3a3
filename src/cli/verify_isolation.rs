//! `dcv-operator verify-isolation`: the attack matrix on a cluster.

use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use clap::ValueEnum;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::api::names;
use crate::cluster;
use crate::isolation;
use crate::isolation::Installation;
use crate::isolation::Matrix;
use crate::isolation::Report;
use crate::isolation::Scratch;
use crate::isolation::case::Case;
use crate::isolation::generate;
use crate::isolation::rules;

/// Exit code when a case differs from the rules.
const HAS_WRONG: u8 = 1;
/// Exit code after a signal, as shells say it.
const INTERRUPTED: u8 = 130;

/// What is said below the flags.
const AFTER_HELP: &str = "\
It asks the API server in the name of each party: an agent whose token was stolen, the broker, the controller, people of a
namespace. Writes are dry runs; reads are questions to the authorizer. First it makes a few objects that such writes need, all
with the label dcv-operator.io/verify-isolation, and takes them away at its end, after Ctrl-C too:

  2 namespaces (dcv-verify-ID and dcv-verify-ID-other) with 6 DcvSessions that no server takes, 4 suspended ApiClients and
    3 RoleBindings
  2 closed DcvServers that nobody runs, and their Leases in the release namespace
  3 ServiceAccounts in the hosts' namespace, each with an empty Secret
  1 ClusterRoleBinding of the role view to a user that does not exist

The caller needs the right to impersonate users, groups (system:masters too), serviceaccounts and
userextras/authentication.kubernetes.io/node-name, to create subjectaccessreviews, and to make and delete the objects above; an
administrator of the cluster has all that. What is missing is said before anything is made.

Exit code: 0 all as the rules say, 1 something differs or could not be judged, 130 interrupted.";

/// Flags of the command.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct VerifyIsolationArgs {
    /// Namespace the operator is installed in
    #[arg(long, env = "DCV_NAMESPACE", default_value = "dcv-system")]
    namespace: String,
    /// Namespace of the agents' pods; by default that of the operator
    #[arg(long, value_name = "NAMESPACE")]
    agent_namespace: Option<String>,
    /// Namespace of the accounts of hosts outside the cluster
    #[arg(long, value_name = "NAMESPACE", default_value = names::HOSTS_NAMESPACE)]
    hosts_namespace: String,
    /// The controller's account
    #[arg(long, value_name = "NAME", default_value = names::CONTROLLER)]
    controller_account: String,
    /// The brokers' account
    #[arg(long, value_name = "NAME", default_value = names::BROKER)]
    broker_account: String,
    /// The agents' account
    #[arg(long, value_name = "NAME", default_value = names::AGENT)]
    agent_account: String,
    /// Cluster role of people who look at what is in a namespace
    #[arg(long, value_name = "NAME", default_value = "view")]
    view_role: String,
    /// Cluster role of people who work in a namespace
    #[arg(long, value_name = "NAME", default_value = "edit")]
    edit_role: String,
    /// Cluster role of people who own a namespace
    #[arg(long, value_name = "NAME", default_value = "admin")]
    admin_role: String,
    /// Some namespaces only are watched, and those that are made here are not among them
    #[arg(long)]
    unwatched: bool,
    /// There are no accounts of hosts outside the cluster
    #[arg(long)]
    no_hosts: bool,
    /// The controller does not keep the brokers' certificate
    #[arg(long)]
    no_broker_certificate: bool,
    /// File that says how to reach the API server; in a pod its own account by default
    #[arg(long, env = "DCV_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Only cases whose text, as --cases prints it, contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many questions are asked at once
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Print the rules that say what is expected, and end
    #[arg(long)]
    rules: bool,
    /// Print the cases and what is expected of each, and end
    #[arg(long)]
    cases: bool,
    /// Take away what an earlier run left that was killed, and end
    #[arg(long)]
    clean_up: bool,
    /// How the outcome is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Output {
    /// What differs, and counts by party
    Table,
    /// The same for programs
    Json,
}

impl VerifyIsolationArgs {
    /// Runs the matrix, prints what came of it and answers how it was.
    ///
    /// # Errors
    /// When the API server cannot be asked, a right is missing, or a scratch object cannot be made or taken away.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let cases = self.chosen_cases()?;
        if self.rules {
            return print(&rules::text()).map(|()| ExitCode::SUCCESS);
        }
        if self.cases {
            return print(&listing(&cases, &self.installation())).map(|()| ExitCode::SUCCESS);
        }
        let client = cluster::client(names::VERIFIER, self.kubeconfig.as_deref()).await?;
        let installation = self.installation();
        if self.clean_up {
            isolation::remove_leftovers(&client, &installation).await?;
            return Ok(ExitCode::SUCCESS);
        }
        isolation::check_rights(&client, &installation).await?;
        let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let scratch = Scratch::new(client, installation, id);
        // Listened for before anything is made, so that nothing stays.
        let interrupted = interruption()?;
        let outcome = tokio::select! {
            outcome = judge(&scratch, &cases, self.parallel.into()) => Some(outcome),
            () = interrupted => None,
        };
        let removed = scratch.remove().await;
        let code = match outcome {
            None => ExitCode::from(INTERRUPTED),
            Some(report) => self.tell(&report?)?,
        };
        removed.context("something is left; --clean-up takes it away")?;
        Ok(code)
    }

    fn chosen_cases(&self) -> anyhow::Result<Vec<Case>> {
        let mut cases = generate::cases(&self.installation());
        if let Some(text) = &self.only {
            cases.retain(|case| case.to_string().contains(text));
            anyhow::ensure!(!cases.is_empty(), "no case contains '{text}'; --cases prints them");
        }
        Ok(cases)
    }

    fn installation(&self) -> Installation {
        Installation {
            namespace: self.namespace.clone(),
            agent_namespace: self.agent_namespace.clone().unwrap_or_else(|| self.namespace.clone()),
            hosts_namespace: self.hosts_namespace.clone(),
            controller: self.controller_account.clone(),
            broker: self.broker_account.clone(),
            agent: self.agent_account.clone(),
            view_role: self.view_role.clone(),
            edit_role: self.edit_role.clone(),
            admin_role: self.admin_role.clone(),
            watches_everything: !self.unwatched,
            has_hosts: !self.no_hosts,
            keeps_certificate: !self.no_broker_certificate,
        }
    }

    fn tell(&self, report: &Report) -> anyhow::Result<ExitCode> {
        let text = match self.output {
            Output::Table => report.text(),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(report)?),
        };
        print(&text)?;
        Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(HAS_WRONG) })
    }
}

async fn judge(scratch: &Scratch, cases: &[Case], parallel: usize) -> anyhow::Result<Report> {
    scratch.make().await?;
    let verdicts = Matrix::new(scratch, parallel).judge_patiently(cases).await;
    Ok(Report::of(&verdicts))
}

/// Ends when the process is told to end.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("failed to listen for signals");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The cases for people, one a line, with the rule that allows it.
fn listing(cases: &[Case], installation: &Installation) -> String {
    let line = |case: &Case| {
        let expected = rules::allowing(*case, installation)
            .map_or("refused".to_owned(), |rule| format!("allowed ({})", rule.name));
        format!("{case} -> {expected}\n")
    };
    cases.iter().map(line).collect()
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("failed to print")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: VerifyIsolationArgs,
    }

    #[test]
    fn agents_are_in_the_namespace_of_the_operator_unless_said_otherwise() {
        let names =
            |words: &[&str]| Cli::try_parse_from([&["verify-isolation"], words].concat()).unwrap().args.installation();
        assert_eq!(names(&["--namespace", "desktops"]).agent_namespace, "desktops");
        assert_eq!(names(&["--namespace", "desktops", "--agent-namespace", "agents"]).agent_namespace, "agents");
        assert_eq!(names(&[]).hosts_namespace, "dcv-hosts");
    }

    #[test]
    fn a_choice_that_chooses_nothing_is_an_error() {
        let cases = |only: &str| Cli::try_parse_from(["verify-isolation", "--only", only]).unwrap().args.chosen_cases();
        assert!(!cases("broker: patch dcvservers").unwrap().is_empty());
        assert_eq!(
            cases("nothing of the kind").unwrap_err().to_string(),
            "no case contains 'nothing of the kind'; --cases prints them"
        );
    }

    #[test]
    fn a_listing_says_what_is_expected() {
        let args = Cli::try_parse_from(["verify-isolation", "--only", "broker: list secrets, dcv-access-token-keys"])
            .unwrap()
            .args;
        let text = listing(&args.chosen_cases().unwrap(), &Installation::default());
        assert_eq!(
            text,
            "broker: list secrets, dcv-access-token-keys in the release namespace -> allowed (broker-reads-keys)\n"
        );
    }
}
