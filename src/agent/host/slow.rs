//! The facts that others are asked for: name servers, the metadata service, files of other programs.
//!
//! Each is read by a task of its own for as long as the agent runs, and what is known is there to be looked at. So one that
//! hangs is old, and nothing waits for it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::HostSettings;
use super::aws;
use super::dns;
use super::gpu;
use super::hostname;
use super::users;
use crate::api::server::Aws;
use crate::api::server::Gpu;
use crate::api::server::Host;

/// How often the name service is asked for a name that was found, and for one that was not.
const NAME_KNOWN: Duration = Duration::from_hours(1);
const NAME_UNKNOWN: Duration = Duration::from_mins(5);

/// What is known. What was not read yet is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slow {
    /// EC2 facts; within: the machine is one of EC2.
    pub aws: Option<Option<Aws>>,
    /// Full name of the host; within: somebody knows it.
    pub dns_name: Option<Option<String>>,
    /// Graphics cards.
    pub gpus: Option<Vec<Gpu>>,
    /// Who is logged in.
    pub logged_in_users: Option<Vec<String>>,
}

impl Slow {
    /// Puts what is known beside the other facts. What is not known yet stays as it was `told`, so that an agent that starts
    /// again takes nothing away for a moment.
    pub fn add_to(&self, host: &mut Host, told: Option<&Host>) {
        let told = told.cloned().unwrap_or_default();
        host.aws = self.aws.clone().unwrap_or(told.aws);
        host.gpus = self.gpus.clone().unwrap_or(told.gpus);
        host.logged_in_users = self.logged_in_users.clone().unwrap_or(told.logged_in_users);
    }
}

/// Reads everything once. Takes as long as the slowest.
pub async fn read(settings: &HostSettings, address: IpAddr) -> Slow {
    let (gpus, logged_in_users) =
        tokio::join!(read_files(settings, |settings| gpu::read(&settings.root)), read_files(settings, logged_in));
    let endpoint = settings.ec2_metadata_endpoint.as_deref();
    let ec2 = async {
        match endpoint {
            Some(endpoint) => aws::read(endpoint).await.ok(),
            None => None,
        }
    };
    let hostname = hostname(&settings.root);
    let (aws, dns_name) = tokio::join!(ec2, dns::name(&settings.command_prefix, &hostname, address));
    Slow { aws: Some(aws), dns_name: Some(dns_name), gpus: Some(gpus), logged_in_users: Some(logged_in_users) }
}

/// Reads everything again and again while `tasks` lives. The answer changes when something has.
pub fn follow(
    settings: &HostSettings,
    address: IpAddr,
    interval: Duration,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Slow> {
    let (known, told) = watch::channel(Slow::default());
    tasks.spawn(follow_files(settings.clone(), interval, known.clone()));
    tasks.spawn(follow_name(settings.clone(), address, known.clone()));
    match settings.ec2_metadata_endpoint.clone() {
        Some(endpoint) => {
            let is_instance = aws::is_instance(&settings.root);
            tasks.spawn(follow_ec2(endpoint, is_instance, known));
        }
        None => tell(&known, |slow| slow.aws = Some(None)),
    }
    told
}

/// Cards do not come and go while a machine runs; people do.
async fn follow_files(settings: HostSettings, interval: Duration, known: watch::Sender<Slow>) {
    let gpus = read_files(&settings, |settings| gpu::read(&settings.root)).await;
    tell(&known, |slow| slow.gpus = Some(gpus));
    loop {
        let users = read_files(&settings, logged_in).await;
        tell(&known, |slow| slow.logged_in_users = Some(users));
        tokio::time::sleep(interval).await;
    }
}

async fn follow_name(settings: HostSettings, address: IpAddr, known: watch::Sender<Slow>) {
    loop {
        let hostname = hostname(&settings.root);
        let name = dns::name(&settings.command_prefix, &hostname, address).await;
        let wait = if name.is_some() { NAME_KNOWN } else { NAME_UNKNOWN };
        // A name server that is away for a while does not take a name away that was found.
        tell(&known, |slow| slow.dns_name = Some(name.or(slow.dns_name.take().flatten())));
        tokio::time::sleep(wait).await;
    }
}

/// What an instance is stays so while it runs: once known, nobody is asked again.
async fn follow_ec2(endpoint: String, is_instance: bool, known: watch::Sender<Slow>) {
    let mut failures = 0;
    loop {
        match aws::read(&endpoint).await {
            Ok(facts) => {
                tell(&known, |slow| slow.aws = Some(Some(facts)));
                return;
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(failures, is_instance, error = &error as &dyn std::error::Error, "no EC2 facts");
            }
        }
        let Some(wait) = aws::next_attempt(failures, is_instance) else {
            tell(&known, |slow| slow.aws = Some(None));
            return;
        };
        tokio::time::sleep(wait).await;
    }
}

fn logged_in(settings: &HostSettings) -> Vec<String> {
    users::read(&settings.root, settings.enable_query_logged_in_users)
}

async fn read_files<T: Default + Send + 'static>(
    settings: &HostSettings,
    read: impl FnOnce(&HostSettings) -> T + Send + 'static,
) -> T {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || read(&settings)).await.unwrap_or_default()
}

fn tell(known: &watch::Sender<Slow>, change: impl FnOnce(&mut Slow)) {
    known.send_if_modified(|slow| {
        let before = slow.clone();
        change(slow);
        *slow != before
    });
}

#[cfg(test)]
mod tests {
    use super::super::testdata::machine;
    use super::*;

    fn settings(name: &str) -> HostSettings {
        HostSettings { root: machine(name), command_prefix: vec!["false".into()], ..HostSettings::default() }
    }

    #[tokio::test]
    async fn what_is_known_is_told_while_the_rest_is_still_asked_for() {
        // A name service that hangs, and a metadata service that nobody answers for.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = HostSettings {
            command_prefix: ["sh", "-c", "exec sleep 60"].map(str::to_owned).to_vec(),
            ec2_metadata_endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
            ..settings("two-gpus")
        };
        let mut tasks = JoinSet::new();
        let mut told = follow(&settings, "10.0.0.7".parse().unwrap(), Duration::from_secs(30), &mut tasks);
        let known = told.wait_for(|slow| slow.logged_in_users.is_some()).await.unwrap().clone();
        assert_eq!((&known.aws, &known.dns_name), (&None, &None));
        let told = Host { aws: Some(Aws { region: "eu-west-1".into(), ..Aws::default() }), ..Host::default() };
        let mut host = Host::default();
        known.add_to(&mut host, Some(&told));
        assert_eq!((host.logged_in_users, host.gpus.len()), (vec!["ann".to_owned(), "cid".to_owned()], 2));
        assert_eq!(host.aws, told.aws, "it stays until it is known");
    }

    #[tokio::test]
    async fn everything_is_read_once_for_a_check() {
        let slow = read(&settings("arm"), "127.0.0.1".parse().unwrap()).await;
        let mut host = Host::default();
        slow.add_to(&mut host, None);
        assert_eq!(host.gpus.len(), 1);
        assert_eq!(host.logged_in_users, ["bob"]);
        assert_eq!(host.aws, None, "nobody is asked unless it is set");
        assert_eq!(slow.dns_name, Some(None), "nobody knows it");
    }
}
